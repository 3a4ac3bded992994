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
	Version     string // by which it is priced now; that of a region, where only its factor is another
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
		if m == nil || !models[c.Model] {
			continue
		}
		at := place(c.From+c.To, c.Model, from)
		switch v := m.at(from); {
		case at.Region != "":
			if c.sameBase() {
				out = append(out, Repricing{c.Model, c.To, from, m.next(from)})
			}
		case v != nil && !seen[at]:
			seen[at] = true
			out = append(out, Repricing{c.Model, v.ID, from, m.next(from)})
		}
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
	return fmt.Sprintf("%s from %s (%s)", r.Model, startName(r.From), r.Version)
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
	ids := []string{d.PriceVersion, d.CostVersion}
	for _, lines := range [][]Line{d.Lines, d.CostLines} {
		for i := range lines {
			ids = append(ids, lines[i].PriceVersion)
		}
	}
	i := slices.IndexFunc(ids, func(id string) bool {
		return versionOf(id, r.Model) && strings.HasPrefix(id, r.Prefix()) && !strings.HasPrefix(id, r.Version)
	})
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
