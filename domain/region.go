package domain

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Regions. Some providers charge a factor on their whole price for where a request is worked on, or for how
// fast. Which of them served is in their answer. A factor makes unit prices of its own once, when the version
// is made: each is the version's, times the factor, rounded half up to 1e-12. A place and a speed together
// have the product of both factors, rounded once. What is sold has the same factors, on its own prices: a
// customer who asks for what costs twice as much pays twice as much, for fixed prices, too.
//
// What is charged in a region has an ID of its own: the version's, the region, and a hash of these prices. So the
// version's own ID says nothing of regions, and stays when only a factor changes.

// SpeedFast is the one speed that has a name; all other regions are places.
const SpeedFast = "fast"

// regionMark stands in an ID before the region whose factor is in the prices. No name has it.
const regionMark = "*"

// AnyGeo, as a need's Geo, says that the request names no place, and the provider may choose one.
const AnyGeo = "*"

// RegionName is how a place and a speed are named together; "" is the usual one of each.
func RegionName(geo, speed string) string { return strings.Trim(geo+"+"+speed, "+") }

// splitRegion is the place and the speed of a name.
func splitRegion(name string) (geo, speed string) {
	geo, speed, both := strings.Cut(name, "+")
	if !both && name == SpeedFast {
		return "", name
	}
	return geo, speed
}

// cutRegion takes a version's ID apart: the version's own, and the region that it is for.
func cutRegion(id string) (base, region string) {
	i := strings.LastIndex(id, regionMark)
	if i < 0 {
		return id, ""
	}
	region, _, _ = strings.Cut(id[i+1:], "#")
	return id[:i], region
}

// everywhere is a version, and what it is in each region.
func (v *PriceVersion) everywhere() []*PriceVersion {
	out := []*PriceVersion{v}
	for _, name := range slices.Sorted(maps.Keys(v.regional)) {
		out = append(out, v.regional[name])
	}
	return out
}

// isBaseRegion reports whether a name means the base price.
func isBaseRegion(name string) bool {
	return name == "global" || name == "standard" || name == "default" || name == "not_available"
}

// checkRegions refuses factors that could not be applied, or would be applied otherwise than they read.
func (m *Model) checkRegions(at string, regions map[string]Amount) error {
	if len(regions) > maxRegions {
		return m.bad(at, "more than %d regions", maxRegions)
	}
	for _, name := range slices.Sorted(maps.Keys(regions)) {
		switch f := regions[name]; {
		case !isBookName(name) || strings.Contains(name, "+") || isBaseRegion(name):
			return m.bad(at+".regions."+name, "%.40q cannot have a factor of its own", name)
		case f.Sign() <= 0 || !f.InRange():
			return m.bad(at+".regions."+name, "%s is not a factor above 0", f)
		}
	}
	return nil
}

// buildRegions derives the version's prices in each region. Its ID must be made. The error names the region
// whose prices are higher than a unit price may be.
func (v *PriceVersion) buildRegions() (bad string, err error) {
	v.regional = nil
	for _, name := range slices.Sorted(maps.Keys(v.Regions)) {
		if err := v.buildRegion(name, v.Regions[name]); err != nil {
			return name, err
		}
		fast, has := v.Regions[SpeedFast]
		if name == SpeedFast || !has {
			continue
		}
		if err := v.buildRegion(RegionName(name, SpeedFast), Amount{v.Regions[name].d.Mul(fast.d)}); err != nil {
			return name, err
		}
	}
	return "", nil
}

func (v *PriceVersion) buildRegion(name string, factor Amount) error {
	var dear error
	scale := func(r Rates) Rates {
		for i, unit := range r.unit {
			if r.unit[i] = unit.scaled(factor); maxUnitPrice.Less(r.unit[i]) {
				dear = fmt.Errorf("%s would cost more than %s per unit", Meter(i), maxUnitPrice)
				return r
			}
			r.unit[i] = atFullScale(r.unit[i])
		}
		return r
	}
	r := v.derived(scale)
	r.Region, r.Regions, r.regional = name, nil, nil
	r.ID = v.ID + regionMark + name
	r.ID += "#" + r.hash("region 1\n"+r.ID)
	if v.cost != nil {
		r.cost = v.cost.regional[name]
	}
	if v.regional == nil {
		v.regional = map[string]*PriceVersion{}
	}
	v.regional[name] = r
	return dear
}

// derived is a copy of a version in which every rate is another's.
func (v *PriceVersion) derived(derive func(Rates) Rates) *PriceVersion {
	out := *v
	out.Rates, out.levels = derive(v.Rates), deriveAll(v.levels, derive)
	out.Tiers = slices.Clone(v.Tiers)
	for i := range out.Tiers {
		out.Tiers[i].Rates = derive(out.Tiers[i].Rates)
	}
	out.ServiceTiers, out.service = make(map[string]Rates, len(v.ServiceTiers)), make(map[string][]Rates, len(v.service))
	for name, rates := range v.ServiceTiers {
		out.ServiceTiers[name], out.service[name] = derive(rates), deriveAll(v.service[name], derive)
	}
	return &out
}

func deriveAll(levels []Rates, derive func(Rates) Rates) []Rates {
	out := make([]Rates, len(levels))
	for i, r := range levels {
		out[i] = derive(r)
	}
	return out
}

// scaled multiplies a unit price by a factor, and rounds the outcome half up to 1e-12.
func (a Amount) scaled(factor Amount) Amount { return Amount{a.d.Mul(factor.d).Round(AmountScale)} }

// In is the version's prices in a region, as RegionName names it: the version itself for "". Where the version
// has no factor for it, known is false, and the price is the one without it: of a place and a speed with the
// one that it has, else the base. Region of the answer says what was applied.
func (v *PriceVersion) In(region string) (_ *PriceVersion, known bool) {
	if region == "" {
		return v, true
	}
	if r := v.regional[region]; r != nil {
		return r, true
	}
	geo, speed := splitRegion(region)
	for _, part := range [...]string{geo, speed} {
		if r := v.regional[part]; r != nil {
			return r, false
		}
	}
	return v, false
}

// couldBeIn reports whether the answer to a need could tell of a region.
func (n *Need) couldBeIn(region string) bool {
	geo, speed := splitRegion(region)
	return (geo == "" || n.Geo == AnyGeo || n.Geo == geo) && (speed == "" || n.Speed == speed)
}
