package domain

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Repricing is a time that a price book prices by another version than was recorded for it. Where
// something was charged in it already, by another version, the book is dated backwards.
type Repricing struct {
	Model       string // provider/model
	Version     string // by which it is priced now
	From, Until time.Time
}

// endOfTime is the end of a version that none follows. Events have years of four digits.
var endOfTime = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// Repriced lists the times that a book prices otherwise than recorded. A model that is new or gone, and a
// time that has no price any more, are none: nothing is priced anew by them.
func (r *PriceRecord) Repriced(next *PriceBook) (out []Repricing) {
	is, models := CostVersions(next), map[string]bool{}
	for _, at := range r.cost {
		models[at.Model] = true
	}
	seen := map[Dated]bool{}
	for _, c := range r.cost.changes(is) {
		m := next.exactly(c.Model)
		from, _ := ParseStart(c.EffectiveFrom) //nolint:errcheck // it is a version's own
		if m == nil || !models[c.Model] || seen[Dated{c.Model, from}] {
			continue
		}
		seen[Dated{c.Model, from}] = true
		if v := m.at(from); v != nil {
			out = append(out, Repricing{c.Model, v.ID, from, m.next(from)})
		}
	}
	return out
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
	return fmt.Sprintf("%s from %s (%s)", r.Model, startName(r.From), r.Version)
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
	ids := []string{d.PriceVersion, d.CostVersion}
	for _, lines := range [][]Line{d.Lines, d.CostLines} {
		for i := range lines {
			ids = append(ids, lines[i].PriceVersion)
		}
	}
	i := slices.IndexFunc(ids, func(id string) bool { return versionOf(id, r.Model) && !strings.HasPrefix(id, r.Version) })
	if i < 0 {
		return "", false
	}
	return ids[i], true
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
