package domain

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var regionNames = []string{"", "us", "eu", "mars", SpeedFast, "us+fast", "eu+fast", "mars+fast"}

// TestRegions: what a million input tokens cost in a region, by a cost and as sold, and which factor was
// applied.
func TestRegions(t *testing.T) {
	t.Parallel()
	costs := book(t, chat("m", PriceVersion{Rates: rates("input=1 output=2 web_search=0.01/unit"), Tiers: []Tier{{10_000_000, rates("input=3")}},
		ServiceTiers: map[string]Rates{"flex": rates("input=0.5")}, Regions: map[string]Amount{"us": MustAmount("1.1"), "eu": MustAmount("1.05"), SpeedFast: MustAmount("6")}}),
		chat("tiny", PriceVersion{Rates: rates("input=0.000001 output=0.000005"), Regions: map[string]Amount{"us": MustAmount("1.1"), "half": MustAmount("0.5")}}),
		chat("plain", PriceVersion{Rates: rates("input=1 output=2")}))
	sell, err := NewSellBook(costs, SellRules{Markup: percent("20"), Models: map[string]SellPrice{"m": {Fixed: rates("output=7")}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		model, region, tier string
		m                   Meters
		cost, sold, applied string
		known               bool
	}{
		{"m", "", "", Meters{Input: 1e6}, "1", "1.2", "", true},
		{"m", "us", "", Meters{Input: 1e6}, "1.1", "1.32", "us", true},
		{"m", "us", "", Meters{Output: 1e6}, "2.2", "7.7", "us", true}, // a fixed price has the factor, too
		{"m", "us", "flex", Meters{Input: 1e6}, "0.55", "0.66", "us", true},
		{"m", "us", "", Meters{Input: 2e7}, "66", "79.2", "us", true},
		{"m", "us", "", Meters{WebSearch: 1}, "0.011", "0.0132", "us", true}, // on the whole price
		{"m", "fast", "", Meters{Input: 1e6}, "6", "7.2", "fast", true},
		{"m", "us+fast", "", Meters{Input: 1e6}, "6.6", "7.92", "us+fast", true},
		{"m", "eu+fast", "", Meters{Input: 1e6}, "6.3", "7.56", "eu+fast", true},
		{"m", "mars+fast", "", Meters{Input: 1e6}, "6", "7.2", "fast", false},
		{"m", "us+slow", "", Meters{Input: 1e6}, "1.1", "1.32", "us", false},
		{"m", "mars", "", Meters{Input: 1e6}, "1", "1.2", "", false},
		{"plain", "us", "", Meters{Input: 1e6}, "1", "1.2", "", false},
		{"tiny", "us", "", Meters{Input: 1e6}, "0.000001", "0.000001", "us", true},     // 1.1 of 1e-12 is 1
		{"tiny", "half", "", Meters{Input: 1e6}, "0.000001", "0.000001", "half", true}, // half up
		{"tiny", "half", "", Meters{Output: 1e6}, "0.000003", "0.000003", "half", true},
	} {
		_, cost, err := costs.Lookup(c.model, day("2026-01-01"))
		if err != nil {
			t.Fatal(err)
		}
		at, known := cost.In(c.region)
		paid, _ := sell.Price("x", cost, day("2026-01-01")).In(c.region)
		a, errA := at.Charge(c.m, c.tier)
		b, errB := paid.Charge(c.m, c.tier)
		if errA != nil || errB != nil || a.Amount.String() != c.cost || b.Amount.String() != c.sold || known != c.known || at.Region != c.applied || paid.Region != c.applied {
			t.Errorf("%s in %q: %s, sold at %s, by %q, %t; want %s, %s, %q, %t", c.model, c.region, a.Amount, b.Amount, at.Region, known, c.cost, c.sold, c.applied, c.known)
		}
		if base, region := cutRegion(a.PriceVersion); base != cost.ID || region != c.applied || paid.Cost() != at || !strings.HasPrefix(b.PriceVersion, cost.ID+"+20%") {
			t.Errorf("%s in %q: by %s, sold by %s", c.model, c.region, a.PriceVersion, b.PriceVersion)
		}
	}
}

// TestRegionsAreRefused: names that mean something else, and factors that make a unit too dear.
func TestRegionsAreRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, factor, want string }{
		{"us+fast", "1.1", `"us+fast" cannot have a factor of its own`}, {"global", "1.1", `"global" cannot have a factor`},
		{"standard", "1", `"standard" cannot have a factor`}, {"us", "-1", "-1 is not a factor above 0"}, {"us", "0", "0 is not a factor above 0"},
		{"us", "1000001", "versions[0].regions.us: input would cost more than 1000000 per unit"},
	} {
		_, err := NewPriceBook([]Model{chat("m", PriceVersion{Rates: rates("input=1/unit output=2"), Regions: map[string]Amount{c.name: MustAmount(c.factor)}})})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s x %s: %v, want %s", c.name, c.factor, err, c.want)
		}
	}
}

// TestRecheckInRegions: a charge in any region is what calculating it again by its event gives, and not what
// it is elsewhere.
func TestRecheckInRegions(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		v, tier := versions().Draw(t, "version"), rapid.SampledFrom(tierNames).Draw(t, "tier")
		at, _ := v.In(rapid.SampledFrom(regionNames).Draw(t, "region"))
		m, _ := at.Fold(usages().Draw(t, "usage"))
		c, err := at.Charge(m, tier)
		if err != nil {
			t.Fatal(err)
		}
		past := PastCharge{Amount: c.Amount, Meters: m, Lines: c.Lines, PriceVersion: c.PriceVersion, ServiceTier: tier, Region: at.Region}
		find := func(id string) *PriceVersion {
			for _, at := range v.everywhere() {
				if at.ID == id {
					return at
				}
			}
			return nil
		}
		if r := past.Recheck(find); len(r.Problems)+len(r.Unlisted) != 0 {
			t.Fatalf("%+v", r)
		}
		if past.Region = ""; at.Region == "" {
			past.Region = "us"
		}
		if r := past.Recheck(find); len(r.Problems) == 0 {
			t.Fatalf("%s in %q passes for %q", c.Amount, at.Region, past.Region)
		}
		past.Region, past.PriceVersion = "", v.ID
		base, err := v.Charge(m, tier)
		if r := past.Recheck(find); err == nil && !base.Amount.Equal(c.Amount) && len(r.Problems) == 0 {
			t.Fatalf("%s in %q passes for %s", c.Amount, at.Region, base.Amount)
		}
	})
}
