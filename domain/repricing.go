package domain

import (
	"fmt"
	"strings"
	"time"
)

// Repricing is a time that a price book prices by another version than was recorded for it. Where
// something was charged in it already, by another version, the book is dated backwards.
type Repricing struct {
	Model       string // provider/model
	Version     string // by which it is priced now; that of a region, where only its factor is another
	From, Until time.Time
	Payers      *Payers // of what is sold: who pays it; nil = it is a cost, which counts in everybody's charges
}

// endOfTime is the end of a version that none follows. Events have years of four digits.
var endOfTime = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// Repriced lists the times that a book prices otherwise than recorded. A model that is new or gone, and a
// time that has no price any more, are none: nothing is priced anew by them.
func (r *PriceRecord) Repriced(next *PriceBook) (out []Repricing) {
	is, models := CostVersions(next), r.models()
	seen := map[Dated]bool{}
	for _, c := range r.cost.changes(is) {
		m := next.exactly(c.Model)
		from, _ := ParseStart(c.EffectiveFrom) //nolint:errcheck // it is a version's own
		if m == nil || !models[c.Model] {
			continue
		}
		at := place(c.From+c.To, c.Model, from)
		switch v := m.at(from); {
		case at.Region != "":
			if c.sameBase() {
				out = append(out, Repricing{Model: c.Model, Version: c.To, From: from, Until: m.next(from)})
			}
		case v != nil && !seen[at]:
			seen[at] = true
			out = append(out, Repricing{Model: c.Model, Version: v.ID, From: from, Until: m.next(from)})
		}
	}
	return out
}

// models are those that have had a price.
func (r *PriceRecord) models() map[string]bool {
	out := map[string]bool{}
	for _, at := range r.cost {
		out[at.Model] = true
	}
	return out
}

// sameBase says whether a region's price took another's place by its factor alone: where the base is another, too,
// that tells it, and a region that is new, or gone, prices nothing anew.
func (c *VersionChange) sameBase() bool {
	was, _ := cutRegion(c.From)
	is, _ := cutRegion(c.To)
	return c.From != "" && was == is
}

// next is when the version behind a time begins.
func (m *Model) next(t time.Time) time.Time {
	for i := range m.Versions {
		if m.Versions[i].From.After(t) {
			return m.Versions[i].From
		}
	}
	return endOfTime
}

// String says which price is meant.
func (r *Repricing) String() string {
	return fmt.Sprintf("%s from %s (%s)%s", r.Model, startName(r.From), r.Version, r.Payers)
}

// Prefix is how the IDs of all versions begin that a charge of the time may have been by.
func (r *Repricing) Prefix() string {
	if base, region := cutRegion(r.Version); region != "" {
		return base + regionMark + region + "#"
	}
	return r.Model + "@"
}

// Charged says whether an event charged the model within the time by another version, and by which.
func (r *Repricing) Charged(e *Event) (by string, charged bool) {
	var d *CommitData
	switch data := e.Data.(type) {
	case *CommitData:
		d = data
	case *OverageData:
		d = &data.CommitData
	}
	if d == nil || e.OccurredAt.Before(r.From) || !e.OccurredAt.Before(r.Until) {
		return "", false
	}
	for _, id := range r.ids(d) {
		if versionOf(id, r.Model) && r.contradicts(id, d) {
			return id, r.Payers.have(e.Account)
		}
	}
	return "", false
}

// ids are those of the versions that a charge was made by: of what is sold, those of what was paid.
func (r *Repricing) ids(d *CommitData) []string {
	ids, all := []string{d.PriceVersion}, [][]Line{d.Lines}
	if r.Payers == nil {
		ids, all = append(ids, d.CostVersion), append(all, d.CostLines)
	}
	for _, lines := range all {
		for i := range lines {
			ids = append(ids, lines[i].PriceVersion)
		}
	}
	return ids
}

// contradicts says whether a version of the model is another than the one of the time. A cost is in the ID of all
// that is sold by it. What is sold is that very version: in whatever region, and for so many per cent of it where the
// answer is the cache's. Only the charge tells that, since a discount's ID reads the same.
func (r *Repricing) contradicts(id string, d *CommitData) bool {
	if r.Payers == nil {
		return strings.HasPrefix(id, r.Prefix()) && !strings.HasPrefix(id, r.Version)
	}
	if base, _ := cutRegion(id); base == r.Version {
		return false
	}
	price, _, cached := cachedRule(id)
	return d.Cache != CacheHit || !cached || price != r.Version
}

// versionOf says whether an ID is that of a version of a model, or of what is sold by one. Names may have an
// @ of their own.
func versionOf(id, model string) bool {
	rest, ok := strings.CutPrefix(id, model+"@")
	from, _, hashed := strings.Cut(rest, "#")
	if !ok || !hashed {
		return false
	}
	_, err := ParseStart(from)
	return from == "launch" || from != "" && err == nil
}
