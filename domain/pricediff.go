package domain

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// PriceChange is one unit price that is another in another price book, from a day on.
type PriceChange struct {
	Provider, Model string
	From            time.Time // zero: since launch
	Where           string    // "base", "above 200000" (tokens of input), a service tier's name, or "region us"
	Meter           Meter
	Old, New        *Amount // nil = no price
}

// String is one line for whoever changes a book.
func (c *PriceChange) String() string {
	text := func(a *Amount) string {
		if a == nil {
			return "none"
		}
		return a.String()
	}
	return fmt.Sprintf("%s/%s from %s: %s %s: %s instead of %s", c.Provider, c.Model, startName(c.From), c.Where, c.Meter, text(c.New), text(c.Old))
}

// DiffPrices lists where the unit prices of two books differ, by model, day, place and meter. What differs
// for longer is listed once, at its first day. Prices are those charged: completed ones.
func DiffPrices(old, next *PriceBook) (out []PriceChange) {
	names := map[string]bool{}
	for _, b := range []*PriceBook{old, next} {
		for _, m := range b.sorted {
			names[m.Provider+"/"+m.Name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		out = append(out, diffModel(old.exactly(name), next.exactly(name))...)
	}
	return out
}

// exactly finds a model by provider/name; nil where there is none.
func (b *PriceBook) exactly(full string) *Model {
	for _, m := range b.byName[full] {
		if m.Provider+"/"+m.Name == full {
			return m
		}
	}
	return nil
}

func diffModel(old, next *Model) (out []PriceChange) {
	days, known := map[time.Time]bool{}, &Model{}
	for _, m := range []*Model{old, next} {
		if m == nil {
			continue
		}
		known = m
		for i := range m.Versions {
			days[m.Versions[i].From] = true
		}
	}
	var before []PriceChange
	for _, day := range slices.SortedFunc(maps.Keys(days), time.Time.Compare) {
		now := diffVersions(versionAt(old, day), versionAt(next, day))
		for _, c := range now {
			if !slices.ContainsFunc(before, c.same) {
				c.Provider, c.Model, c.From = known.Provider, known.Name, day
				out = append(out, c)
			}
		}
		before = now
	}
	return out
}

func versionAt(m *Model, day time.Time) *PriceVersion {
	if m == nil {
		return nil
	}
	return m.at(day)
}

// same reports whether two changes are of the same price from and to the same.
func (c *PriceChange) same(d PriceChange) bool {
	equal := func(a, b *Amount) bool { return a == nil && b == nil || a != nil && b != nil && a.Equal(*b) }
	return c.Where == d.Where && c.Meter == d.Meter && equal(c.Old, d.Old) && equal(c.New, d.New)
}

// places are all rates of a version, by where they hold; none of no version.
func (v *PriceVersion) places() map[string]Rates {
	out := map[string]Rates{}
	if v == nil {
		return out
	}
	out["base"] = v.Rates
	for i := range v.Tiers {
		out[fmt.Sprintf("above %d", v.Tiers[i].AboveInput)] = v.Tiers[i].Rates
	}
	maps.Copy(out, v.ServiceTiers)
	for name, r := range v.regional {
		out["region "+name] = r.Rates
	}
	return out
}

func diffVersions(old, next *PriceVersion) (out []PriceChange) {
	was, is := old.places(), next.places()
	where := map[string]bool{}
	for _, places := range []map[string]Rates{was, is} {
		for name := range places {
			where[name] = true
		}
	}
	for _, name := range slices.SortedFunc(maps.Keys(where), baseFirst) {
		before, after := was[name], is[name]
		for i := range MeterCount {
			c := PriceChange{Where: name, Meter: Meter(i), Old: before.optional(Meter(i)), New: after.optional(Meter(i))}
			if !c.same(PriceChange{Where: name, Meter: Meter(i), Old: c.New, New: c.New}) {
				out = append(out, c)
			}
		}
	}
	return out
}

// baseFirst orders places: what all others are laid over comes first.
func baseFirst(a, b string) int {
	switch {
	case a == b:
		return 0
	case a == "base":
		return -1
	case b == "base":
		return 1
	}
	return strings.Compare(a, b)
}

func (r *Rates) optional(m Meter) *Amount {
	if !r.priced[m] {
		return nil
	}
	unit := r.unit[m]
	return &unit
}

// Backdated lists the changes that reach back before a time and reprice what was priced then: what has been
// charged stays as it is, and would be explained by prices that its day no longer has. A model that is new
// or gone, and a meter that had no price, are none.
func Backdated(old, next *PriceBook, now time.Time) (out []PriceChange) {
	for _, c := range DiffPrices(old, next) {
		if c.Old == nil || c.From.After(now) || versionAt(next.exactly(c.Provider+"/"+c.Model), c.From) == nil {
			continue
		}
		out = append(out, c)
	}
	return out
}
