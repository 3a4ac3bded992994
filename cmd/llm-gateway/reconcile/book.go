package reconcile

import (
	"time"

	"llm-gateway/domain"
)

// Charged is what the ledger has of one model on one day.
type Charged struct {
	Meters  domain.Meters
	Cost    domain.Amount
	Counted int64 // requests whose tokens the gateway counted, because the provider did not report them
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
		row := out.row(dayModel{day(at.day), name(at.model)})
		for m, n := range charged.Meters {
			row.Meters[m] += n
		}
		row.Cost, row.Counted = row.Cost.Add(charged.Cost), row.Counted+charged.Counted
	}
	return out
}
