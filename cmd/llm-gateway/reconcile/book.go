package reconcile

import (
	"maps"
	"time"

	"llm-gateway/domain"
)

// Charged is what the ledger has of one model on one day.
type Charged struct {
	Meters  domain.Meters
	Cost    domain.Amount
	Search  domain.Amount // what of the cost is web searches
	Counted int64         // requests whose tokens the gateway counted, because the provider did not report them
}

// dayModel is a UTC day, such as 2026-11-27, and a model.
type dayModel struct{ day, model string }

// Book is what the ledger's charges of some providers add up to, by day and model.
type Book struct {
	providers map[string]bool
	rows      map[dayModel]*Charged
}

// NewBook begins an empty book of what these providers served, by their names in the ledger.
func NewBook(providers ...string) *Book {
	b := &Book{providers: map[string]bool{}, rows: map[dayModel]*Charged{}}
	for _, p := range providers {
		b.providers[p] = true
	}
	return b
}

// Add takes a charge; other events, and those of other providers, are left out. Its cost is what its cost
// lines add up to: what the provider charges, not what the customer pays.
func (b *Book) Add(e *domain.Event) error {
	var d *domain.CommitData
	switch data := e.Data.(type) {
	case *domain.CommitData:
		d = data
	case *domain.OverageData:
		if data.Reason == domain.OverageBeyondBound {
			return nil // it repeats the commit before it
		}
		d = &data.CommitData
	default:
		return nil
	}
	if !b.providers[d.Provider] || d.Cache != "" { // no provider was called
		return nil
	}
	key, used, _ := domain.ConsumptionOf(e)
	row := b.row(dayModel{e.OccurredAt.UTC().Format(time.DateOnly), key.Model})
	for m, n := range used.Meters {
		row.Meters[m] += n
	}
	for _, line := range d.CostLines {
		row.Cost = row.Cost.Add(line.Amount)
		if line.Meter == domain.WebSearch {
			row.Search = row.Search.Add(line.Amount)
		}
	}
	if d.UsageSource == domain.UsageCounted {
		row.Counted++
	}
	return nil
}

func (b *Book) row(at dayModel) *Charged {
	row := b.rows[at]
	if row == nil {
		row = &Charged{}
		b.rows[at] = row
	}
	return row
}

// renamed is the book with other names of models and of days; what gets one name is added up.
func (b *Book) renamed(name, day func(string) string) *Book {
	out := NewBook()
	for at, charged := range b.rows {
		out.row(dayModel{day(at.day), name(at.model)}).add(charged)
	}
	return out
}

// searchesApart takes web searches and their cost from the models, and tells them as searches, as an export does
// that does not say by which model they were made.
func (b *Book) searchesApart() {
	for at, charged := range maps.Clone(b.rows) {
		n, cost := charged.Meters[domain.WebSearch], charged.Search
		if n == 0 && cost.IsZero() {
			continue
		}
		charged.Meters[domain.WebSearch], charged.Cost, charged.Search = 0, charged.Cost.Sub(cost), domain.Zero
		b.row(dayModel{at.day, searches}).add(&Charged{Meters: domain.Meters{domain.WebSearch: n}, Cost: cost})
	}
}
