package domain

import (
	"cmp"
	"fmt"
	"slices"
)

// PastCharge is a charge as events have it, to be calculated again.
type PastCharge struct {
	Amount       Amount // what was taken: by the commit, and by the overage where it exceeded the reserve
	Meters       Meters
	Lines        []Line
	CostLines    []Line // none where it cost nothing: it was answered from the cache
	PriceVersion string
	CostVersion  string // "" = PriceVersion
	ServiceTier  string
	Region       string // whose factor was charged
}

// Recheck is what calculating a charge again came to.
type Recheck struct {
	Problems []string // what differs
	Unlisted []string // versions that the book does not have: their part was checked by its own lines only
}

// Recheck calculates the charge, and what it cost, again, from its meters and its price versions: the lines must
// multiply and add up, their quantities must be the meters, and the version must give the same lines. version finds
// a price version by its ID, nil where the book does not have it.
func (c *PastCharge) Recheck(version func(id string) *PriceVersion) Recheck {
	var r Recheck
	r.lines("the lines", c.Lines, &c.Amount)
	r.again(c, "charged", version)
	if len(c.CostLines) > 0 && !SameLines(c.Lines, c.CostLines) {
		r.lines("the cost lines", c.CostLines, nil)
		cost := *c
		cost.Lines, cost.PriceVersion = c.CostLines, cmp.Or(c.CostVersion, c.PriceVersion)
		r.again(&cost, "put down as cost", version)
	}
	return r
}

// SameLines reports whether two charges consist of the same.
func SameLines(a, b []Line) bool {
	return slices.EqualFunc(a, b, func(a, b Line) bool {
		return a.Meter == b.Meter && a.Quantity == b.Quantity && a.UnitPrice.Equal(b.UnitPrice) && a.Amount.Equal(b.Amount) &&
			a.PriceVersion == b.PriceVersion
	})
}

// again calculates the lines of a charge from its meters and its version.
func (r *Recheck) again(c *PastCharge, done string, version func(id string) *PriceVersion) {
	counted := quantities(c.Lines)
	for m, n := range c.Meters {
		if counted[m] != n {
			r.findf("%s was counted as %d and %s as %d", Meter(m), n, done, counted[m])
		}
	}
	if _, region := cutRegion(c.PriceVersion); region != c.Region {
		r.findf("it is of the region %q and charged by %s", c.Region, c.PriceVersion)
	}
	for _, part := range c.parts() {
		v := version(part.PriceVersion)
		if v == nil {
			if !slices.Contains(r.Unlisted, part.PriceVersion) {
				r.Unlisted = append(r.Unlisted, part.PriceVersion)
			}
			continue
		}
		r.against(v, &part)
	}
}

func (r *Recheck) findf(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

// lines checks that lines multiply, and add up to a sum where there is one.
func (r *Recheck) lines(what string, lines []Line, sum *Amount) {
	var total Amount
	for i := range lines {
		l := &lines[i]
		if !l.UnitPrice.Times(l.Quantity).Equal(l.Amount) {
			r.findf("%s: %d %s at %s is not %s", what, l.Quantity, l.Meter, l.UnitPrice, l.Amount)
		}
		total = total.Add(l.Amount)
	}
	if sum != nil && !total.Equal(*sum) {
		r.findf("%s sum to %s, and %s was charged", what, total, sum)
	}
}

func quantities(lines []Line) (m Meters) {
	for i := range lines {
		m[lines[i].Meter] += lines[i].Quantity
	}
	return m
}

// parts are the charge by price version: one, unless several models served. The meters of each are those of
// its lines, as the events say only what they come to together.
func (c *PastCharge) parts() []PastCharge {
	several := slices.ContainsFunc(c.Lines, func(l Line) bool { return l.PriceVersion != "" })
	if !several {
		return []PastCharge{{Meters: c.Meters, Lines: c.Lines, PriceVersion: c.PriceVersion, ServiceTier: c.ServiceTier, Region: c.Region}}
	}
	var parts []PastCharge
	for _, l := range c.Lines {
		id := l.PriceVersion
		if id == "" {
			id = c.PriceVersion
		}
		i := slices.IndexFunc(parts, func(p PastCharge) bool { return p.PriceVersion == id })
		if i < 0 {
			i, parts = len(parts), append(parts, PastCharge{PriceVersion: id, ServiceTier: c.ServiceTier, Region: c.Region})
		}
		parts[i].Meters[l.Meter] += l.Quantity
		parts[i].Lines = append(parts[i].Lines, l)
	}
	return parts
}

// against calculates a part by its version.
func (r *Recheck) against(v *PriceVersion, part *PastCharge) {
	again, err := v.Charge(part.Meters, part.ServiceTier)
	if err != nil {
		r.findf("by %s it cannot be charged: %s", v.ID, err)
		return
	}
	for _, l := range again.Lines {
		i := slices.IndexFunc(part.Lines, func(p Line) bool { return p.Meter == l.Meter })
		if i < 0 {
			r.findf("by %s there is a line for %d %s, %s", v.ID, l.Quantity, l.Meter, l.Amount)
			continue
		}
		if p := &part.Lines[i]; !p.UnitPrice.Equal(l.UnitPrice) || !p.Amount.Equal(l.Amount) {
			r.findf("by %s, %d %s at %s is %s, and %s at %s was charged", v.ID, l.Quantity, l.Meter, l.UnitPrice, l.Amount, p.Amount, p.UnitPrice)
		}
	}
	if len(part.Lines) != len(again.Lines) {
		r.findf("by %s it has %d lines, not %d", v.ID, len(again.Lines), len(part.Lines))
	}
}

// VersionsOf lists all price versions of a book by their IDs, those of the past, the future and each region among
// them, and all that anybody pays by a sell book; nil sells at cost.
func VersionsOf(b *PriceBook, sell *SellBook) map[string]*PriceVersion {
	all := map[string]*PriceVersion{}
	add := func(v *PriceVersion) {
		for _, at := range v.everywhere() {
			all[at.ID] = at
		}
	}
	for _, m := range b.sorted {
		for i := range m.Versions {
			add(&m.Versions[i])
		}
	}
	for _, v := range sell.Versions() {
		add(v)
	}
	return all
}
