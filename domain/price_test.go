package domain

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// rates reads `input=2.5 cached_input=1.25 web_search=0.01/unit`: prices per million of a meter's
// units, or with /unit of one.
func rates(text string) Rates {
	var r Rates
	for field := range strings.FieldsSeq(text) {
		name, price, _ := strings.Cut(field, "=")
		m, err := ParseMeter(name)
		if err != nil {
			panic(err)
		}
		price, single := strings.CutSuffix(price, "/unit")
		unit := MustAmount(price)
		if !single {
			if unit, err = AmountOf(unit.Coefficient(), unit.Exponent()-6); err != nil {
				panic(err)
			}
		}
		r.Set(m, unit)
	}
	return r
}

func day(s string) time.Time {
	d, err := time.Parse(time.DateOnly, s)
	if err != nil {
		panic(err)
	}
	return d
}

// chat is a model with the given versions, good but for what a test makes bad.
func chat(name string, versions ...PriceVersion) Model {
	return Model{Provider: "acme", Name: name, Mode: ModeChat, Context: 1_000_000, Versions: versions}
}

func book(t interface{ Fatal(...any) }, models ...Model) *PriceBook {
	b, err := NewPriceBook(models)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// built is the version of a book with only that one in it.
func built(t interface{ Fatal(...any) }, v PriceVersion) *PriceVersion {
	_, got, err := book(t, chat("m", v)).Lookup("m", time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestLookup(t *testing.T) {
	t.Parallel()
	in := rates("input=1 output=2")
	b := book(t,
		chat("dated", PriceVersion{From: day("2026-01-01"), Rates: in}, PriceVersion{From: day("2026-07-01"), Rates: rates("input=1 output=3")}),
		chat("always", PriceVersion{Rates: in}, PriceVersion{From: day("2027-01-01"), Rates: in}))
	east := time.FixedZone("east", 9*3600)
	for _, c := range []struct {
		name string
		at   time.Time
		want string // the start of the version's ID, or an error
	}{
		{"always", time.Time{}, "acme/always@launch#"},
		{"acme/always", day("2026-12-31").Add(24*time.Hour - 1), "acme/always@launch#"},
		{"always", day("2027-01-01"), "acme/always@2027-01-01#"},
		{"dated", day("2025-12-31"), "price unknown: acme/dated has none at 2025-12-31"},
		{"dated", day("2026-01-01"), "acme/dated@2026-01-01#"},
		{"acme/dated", day("2026-06-30"), "acme/dated@2026-01-01#"},
		{"dated", day("2026-07-01"), "acme/dated@2026-07-01#"},
		{"dated", time.Date(2026, 7, 1, 8, 59, 59, 0, east), "acme/dated@2026-01-01#"}, // still June in UTC
		{"dated", time.Date(2026, 7, 1, 9, 0, 0, 0, east), "acme/dated@2026-07-01#"},
		{"", day("2026-07-01"), `model unknown: ""`},
		{"Dated", day("2026-07-01"), `model unknown: "Dated"`},
		{"other/dated", day("2026-07-01"), `model unknown: "other/dated"`},
		{"acme/acme/dated", day("2026-07-01"), "model unknown"},
		{strings.Repeat("x", 1<<20), day("2026-07-01"), "model unknown"},
	} {
		m, v, err := b.Lookup(c.name, c.at)
		got := ""
		switch {
		case err != nil:
			got = err.Error()
			if (!errors.Is(err, ErrModelUnknown) || m != nil) && (!errors.Is(err, ErrPriceUnknown) || m == nil) || len(got) > 300 {
				t.Errorf("%.40q: model %v with error %.300v", c.name, m, err)
			}
		default:
			got = v.ID
		}
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("%.40q at %s is %.200s, want %s", c.name, c.at, got, c.want)
		}
	}
	if l := b.Models(); len(l) != 2 || l[0].Name != "always" || l[1].Name != "dated" {
		t.Errorf("Models() is %v", l)
	}
}

func TestLookupDoesNotAllocate(t *testing.T) {
	b, at := book(t, chat("m", PriceVersion{Rates: rates("input=1 output=2")})), time.Now()
	if n := testing.AllocsPerRun(100, func() {
		if _, _, err := b.Lookup("acme/m", at); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("Lookup allocates %v times", n)
	}
}

// TestCompletion holds the rules at the top of price.go, one line per case: what is listed in the
// base, in the tier above 100 tokens and in the service tier flex, and what a meter then costs at
// base, above, flex, and flex above.
func TestCompletion(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ base, above, flex, meter, want string }{
		{"input=2 output=8", "input=4", "input=1", "input", "2 4 1 4"},
		{"input=2 output=8", "input=4", "input=1", "cached_input", "2 4 1 4"}, // nobody lists it: follows input
		{"input=2 output=8", "input=4", "input=1", "image_in", "2 4 1 4"},
		{"input=2 output=8", "input=4", "input=1", "output", "8 8 8 8"},
		{"input=2 output=8 cached_input=0.5", "input=4", "input=1", "cached_input", "0.5 0.5 0.5 0.5"},
		{"input=2 output=8 cached_input=0.5", "cached_input=1", "input=1", "cached_input", "0.5 1 0.5 1"},
		{"input=2 output=8 cached_input=0", "input=4", "input=1", "cached_input", "0 0 0 0"},
		{"input=2 output=8", "output=12", "output=4", "reasoning", "8 12 4 12"},
		{"input=2 output=8 reasoning=3", "output=12", "output=4", "reasoning", "3 3 3 3"},
		{"input=2 output=8", "output=6", "output=4", "output", "8 6 4 6"},
		{"input=2 output=8", "output=12", "output=16", "output", "8 12 16 16"},
		{"input=2 output=8 audio_in=9", "input=4", "audio_in=7", "cached_audio_in", "9 9 7 9"},
		{"input=2 output=8 audio_in=9 cached_audio_in=1", "input=4", "audio_in=7", "cached_audio_in", "1 1 1 1"},
		{"input=2 output=8 cache_write_5m=3", "input=4", "input=1", "cache_write_1h", "- - - -"},
		{"input=2 output=8 cache_write_1h=3", "input=4", "input=1", "cache_write_5m", "- - - -"},
		{"input=2 output=8", "input=4", "audio_in=1", "audio_in", "- - 1 1"},
		{"input=2 output=8", "input=4", "input=1", "audio_in", "- - - -"},
		{"input=2 output=8", "input=4", "input=1", "cached_audio_in", "- - - -"},
		{"input=2 output=8", "input=4", "input=1", "audio_out", "- - - -"},
		{"input=2 output=8", "input=4", "input=1", "image_out", "- - - -"},
		{"input=2 output=8", "input=4", "input=1", "web_search", "- - - -"},
		{"input=2 output=8", "input=4", "input=1", "requests", "0 0 0 0"},
		{"input=2 output=8 requests=5", "input=4", "requests=6", "requests", "5 5 6 6"},
	} {
		v := built(t, PriceVersion{Rates: rates(c.base), Tiers: []Tier{{100, rates(c.above)}},
			ServiceTiers: map[string]Rates{"flex": rates(c.flex)}})
		m, _ := ParseMeter(c.meter)
		flex := v.ServiceTiers["flex"]
		got := []string{}
		for _, r := range []*Rates{&v.Rates, &v.Tiers[0].Rates, &flex, &v.service["flex"][1]} {
			text := "-"
			if unit, ok := r.Get(m); ok {
				text = unit.Times(1_000_000).String()
			}
			got = append(got, text)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%+v: got %v", c, got)
		}
	}
}

func TestVersionID(t *testing.T) {
	t.Parallel()
	base := func() PriceVersion {
		return PriceVersion{Rates: rates("input=2.5 cached_input=1.25 output=10"),
			Tiers:        []Tier{{200_000, rates("input=5")}},
			ServiceTiers: map[string]Rates{"flex": rates("input=1"), "priority": rates("input=7")}}
	}
	id := built(t, base()).ID
	// Pinned: an ID is in every charge ever made. If this fails, the rendering has changed, and
	// every version has been renamed: count up "rules" in contentID only where prices changed.
	if pinned := "acme/m@launch#57dfcaf4"; id != pinned {
		t.Errorf("the ID is %s, was %s", id, pinned)
	}
	same := base()
	same.Rates = rates("input=2.500 cached_input=1.25 output=10 reasoning=10 requests=0") // the same, spelled out
	same.Regions = map[string]Amount{"eu": MustAmount("1.1")}
	if got := built(t, same).ID; got != id {
		t.Errorf("the same prices are %s and %s", id, got)
	}
	seen := map[string]bool{id: true}
	for name, change := range map[string]func(v *PriceVersion){
		"price":      func(v *PriceVersion) { v.Rates.Set(Output, MustAmount("0.000010000001")) },
		"meter":      func(v *PriceVersion) { v.Rates.Set(AudioIn, Zero) },
		"threshold":  func(v *PriceVersion) { v.Tiers[0].AboveInput++ },
		"tier price": func(v *PriceVersion) { v.Tiers[0].Rates.Set(Output, Zero) },
		"no tier":    func(v *PriceVersion) { v.Tiers = nil },
		"service name": func(v *PriceVersion) {
			v.ServiceTiers["batch"] = v.ServiceTiers["flex"]
			delete(v.ServiceTiers, "flex")
		},
		"service price": func(v *PriceVersion) { v.ServiceTiers["flex"] = rates("input=1.1") },
		"date":          func(v *PriceVersion) { v.From = day("1969-01-01") },
	} {
		v := base()
		change(&v)
		got := built(t, v).ID
		if seen[got] {
			t.Errorf("another %s has the ID of another version, %s", name, got)
		}
		seen[got] = true
	}
}

// TestRegionID: what is charged in a region goes by an ID of its own, by the cost and as sold, from the cache, too.
func TestRegionID(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, factor := range []string{"1.1", "1.2"} {
		costs := book(t, chat("m", PriceVersion{Rates: rates("input=2.5 output=10"), Regions: map[string]Amount{"us": MustAmount(factor), SpeedFast: MustAmount("2")}}))
		sell, err := NewSellBook(costs, SellRules{Markup: percent("20")}, nil)
		if err != nil {
			t.Fatal(err)
		}
		cost := &costs.Named("m")[0].Versions[0]
		sold := sell.Price("x", cost, day("2026-01-01"))
		cached, err := sold.Cached(50)
		if err != nil {
			t.Fatal(err)
		}
		all := VersionsOf(costs, sell)
		for _, v := range []*PriceVersion{cost, sold, cached} {
			for _, region := range []string{"us", SpeedFast, "us+fast"} {
				at, known := v.In(region)
				// Only fast is the same with both factors.
				if base, named := cutRegion(at.ID); !known || base != v.ID || named != region || seen[at.ID] && region != SpeedFast {
					t.Errorf("%s in %s has the ID %s", v.ID, region, at.ID)
				}
				seen[at.ID] = true
				found := all[at.ID]
				if v == cached {
					found = CachedVersion(at.ID, func(id string) *PriceVersion { return all[id] })
				}
				if found == nil || found.ID != at.ID || found.Region != region {
					t.Errorf("%s is found as %+v", at.ID, found)
				}
			}
		}
	}
	_, v, _ := book(t, chat("m", PriceVersion{Rates: rates("input=2.5 output=10"), Regions: map[string]Amount{"us": MustAmount("1.1")}})).Lookup("m", day("2026-01-01"))
	if at, _ := v.In("us"); at.ID != pinnedInUS { // as in TestVersionID
		t.Errorf("the ID is %s, was %s", at.ID, pinnedInUS)
	}
}

const pinnedInUS = "acme/m@launch#cae55f48*us#38382652"

// TestBuildCopies shows that a book does not change when its makings do.
func TestBuildCopies(t *testing.T) {
	t.Parallel()
	v := PriceVersion{Rates: rates("input=1 output=2"), Tiers: []Tier{{10, rates("input=3")}},
		ServiceTiers: map[string]Rates{"flex": rates("input=4")}, Regions: map[string]Amount{"eu": MustAmount("1.1")}}
	m := chat("m", v)
	_, got, err := book(t, m).Lookup("m", day("2026-01-01"))
	if err != nil {
		t.Fatal(err)
	}
	m.Versions[0].Rates.Set(Input, MustAmount("9"))
	v.Tiers[0].AboveInput = 1
	v.ServiceTiers["flex"] = Rates{}
	v.Regions["eu"] = Zero
	flex := got.ServiceTiers["flex"]
	if u, _ := got.Rates.Get(Input); u.String() != "0.000001" || got.Tiers[0].AboveInput != 10 || flex.Empty() || got.Regions["eu"].IsZero() {
		t.Errorf("the book has changed: %+v", got)
	}
	if !v.Rates.priced[Input] || v.Rates.priced[Reasoning] {
		t.Error("the caller's rates were completed in place")
	}
}

func TestNewPriceBookRefuses(t *testing.T) {
	t.Parallel()
	good := func() Model {
		return chat("m", PriceVersion{Rates: rates("input=1 output=2")}, PriceVersion{From: day("2026-01-01"),
			Rates: rates("input=1 output=2"), Tiers: []Tier{{10, rates("input=2")}, {20, rates("input=3")}},
			ServiceTiers: map[string]Rates{"flex": rates("input=1")}, Regions: map[string]Amount{"eu": MustAmount("1.1")}})
	}
	negative := Rates{}
	negative.Set(Output, MustAmount("-0.1"))
	dear := rates("input=1 output=1000000.1/unit")
	fine := rates("input=1 output=2")
	fine.Set(CachedInput, Amount{MustAmount("0.000000000001").d.Shift(-1)}) // past every parser
	for _, c := range []struct {
		spoil func(m *Model)
		want  string
	}{
		{func(m *Model) { m.Name = "" }, "price book: model: not a name"},
		{func(m *Model) { m.Name = "a b" }, "model: not a name"},
		{func(m *Model) { m.Name = strings.Repeat("x", 129) }, "model: not a name"},
		{func(m *Model) { m.Provider = "" }, `model "m": provider: not a name`},
		{func(m *Model) { m.Provider = "a/b" }, "provider: not a name"},
		{func(m *Model) { m.Mode = "image" }, `mode: "image" is neither`},
		{func(m *Model) { m.Context = 0 }, "context: 0 is not between"},
		{func(m *Model) { m.Context = MaxTokens + 1 }, "context: 2147483648 is not between"},
		{func(m *Model) { m.MaxOutput = -1 }, "max_output: -1"},
		{func(m *Model) { m.Versions = nil }, "versions: 0 of them"},
		{func(m *Model) { m.Versions = make([]PriceVersion, 1001) }, "versions: 1001 of them"},
		{func(m *Model) { m.Versions[0].From = day("2026-01-01") }, "versions[1].from: not after"},
		{func(m *Model) { m.Versions[1].From = time.Time{} }, "versions[1].from: not after"},
		{func(m *Model) { m.Versions[1].From = day("2026-01-01").Add(time.Millisecond) }, "versions[1].from: 2026-01-01T00:00:00.001Z is not a whole second"},
		{func(m *Model) { m.Versions[0].Rates = Rates{} }, "versions[0].prices: empty"},
		{func(m *Model) { m.Versions[0].Rates = rates("output=1") }, "versions[0].prices.input: missing"},
		{func(m *Model) { m.Versions[0].Rates = rates("input=1") }, "versions[0].prices.output: missing"},
		{func(m *Model) { m.Versions[0].Rates = negative }, "versions[0].prices.output: -0.1 is negative"},
		{func(m *Model) { m.Versions[0].Rates = dear }, "versions[0].prices.output: more than 1000000 per unit"},
		{func(m *Model) { m.Versions[0].Rates = fine }, "versions[0].prices.cached_input: a unit price finer than 1e-12"},
		{func(m *Model) { m.Versions[1].Tiers[0].AboveInput = 0 }, "versions[1].tiers[0].above_input: 0;"},
		{func(m *Model) { m.Versions[1].Tiers[1].AboveInput = 10 }, "versions[1].tiers[1].above_input: 10;"},
		{func(m *Model) { m.Versions[1].Tiers[1].AboveInput = 1 << 40 }, "versions[1].tiers[1].above_input"},
		{func(m *Model) { m.Versions[1].Tiers[1].Rates = Rates{} }, "versions[1].tiers[1].prices: empty"},
		{func(m *Model) { m.Versions[1].Tiers[0].Rates = negative }, "versions[1].tiers[0].prices.output: -0.1 is negative"},
		{func(m *Model) { m.Versions[1].Tiers = make([]Tier, 17) }, "versions[1].tiers: more than 16"},
		{func(m *Model) { m.Versions[1].ServiceTiers["auto"] = rates("input=1") }, `service_tiers.auto: "auto" cannot`},
		{func(m *Model) { m.Versions[1].ServiceTiers[""] = rates("input=1") }, `service_tiers.: "" cannot`},
		{func(m *Model) { m.Versions[1].ServiceTiers["flex"] = Rates{} }, "service_tiers.flex: empty"},
		{func(m *Model) { m.Versions[1].ServiceTiers["flex"] = negative }, "service_tiers.flex.output: -0.1 is negative"},
		{func(m *Model) { m.Versions[1].Regions["eu"] = Zero }, "regions.eu: 0 is not a factor"},
		{func(m *Model) { m.Versions[1].Regions[""] = MustAmount("1") }, "regions.: \"\" cannot have a factor"},
	} {
		m := good()
		c.spoil(&m)
		_, err := NewPriceBook([]Model{chat("first", PriceVersion{Rates: rates("input=1 output=1")}), m})
		var bad *PriceBookError
		if !errors.As(err, &bad) || bad.Model != m.Name || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want model %q and %q", err, m.Name, c.want)
		}
	}
	book(t, good())
}

func TestNewPriceBookRefusesTwins(t *testing.T) {
	t.Parallel()
	twin := chat("m", PriceVersion{Rates: rates("input=1 output=1")})
	disguised := twin
	disguised.Name = "acme/m" // what the first goes by with its provider
	for _, second := range []Model{twin, disguised} {
		var bad *PriceBookError
		if _, err := NewPriceBook([]Model{twin, second}); !errors.As(err, &bad) || bad.Field != "model" {
			t.Errorf("%s/%s beside acme/m: %v", second.Provider, second.Name, err)
		}
	}
	if _, err := NewPriceBook(make([]Model, maxModels+1)); err == nil {
		t.Error("a book without end is accepted")
	}
	book(t) // an empty one prices nothing, which is safe
}

// TestSeveralProvidersOfOneModel: each has its own price and its own full name, and the first in the book
// goes by the plain one.
func TestSeveralProvidersOfOneModel(t *testing.T) {
	t.Parallel()
	first := chat("m", PriceVersion{Rates: rates("input=1 output=1")})
	second := chat("m", PriceVersion{Rates: rates("input=2 output=2")})
	second.Provider, second.Upstream = "other", "deployment-7"
	b := book(t, first, second)
	for name, provider := range map[string]string{"m": "acme", "acme/m": "acme", "other/m": "other"} {
		m, v, err := b.Lookup(name, time.Now())
		if err != nil || m.Provider != provider || v.Provider != provider {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	named := b.Named("m")
	if len(named) != 2 || named[0].UpstreamName() != "m" || named[1].UpstreamName() != "deployment-7" || len(b.Models()) != 2 {
		t.Errorf("%+v", named)
	}
	if len(b.Named("other/m")) != 1 || len(b.Named("nothing")) != 0 {
		t.Error("a full name is one model's")
	}
	disguised := chat("other/m", PriceVersion{Rates: rates("input=1 output=1")})
	if _, err := NewPriceBook([]Model{disguised, second}); err == nil {
		t.Error("other/m is two models")
	}
}

// TestChargeOfTwoModels: the lines of a second model's share name its version, and the sum stays exact.
func TestChargeOfTwoModels(t *testing.T) {
	t.Parallel()
	b := book(t, chat("m", PriceVersion{Rates: rates("input=1 output=1")}), chat("k", PriceVersion{Rates: rates("input=2 output=3")}))
	_, v, _ := b.Lookup("m", time.Now())
	_, w, _ := b.Lookup("k", time.Now())
	c, err := v.Charge(Meters{Input: 5, Requests: 1}, "")
	other, err2 := w.Charge(Meters{Input: 7, Output: 11}, "")
	if err = errors.Join(err, err2, c.Add(other)); err != nil || c.PriceVersion != v.ID {
		t.Fatal(c, err)
	}
	sum := Zero
	for _, l := range c.Lines {
		sum = sum.Add(l.Amount)
	}
	if last := c.Lines[len(c.Lines)-1]; last.PriceVersion != w.ID || c.Lines[0].PriceVersion != "" || !c.Amount.Equal(sum) || !c.Amount.Equal(MustAmount("0.000052")) {
		t.Errorf("%+v", c)
	}
}

func TestOutputLimit(t *testing.T) {
	t.Parallel()
	if m := (&Model{Context: 10}); m.OutputLimit() != 10 {
		t.Errorf("unknown: %d", m.OutputLimit())
	}
	if m := (&Model{Context: 10, MaxOutput: 3}); m.OutputLimit() != 3 {
		t.Errorf("known: %d", m.OutputLimit())
	}
}

// unitPrices generates prices per unit, zero and equal ones often.
func unitPrices() *rapid.Generator[Amount] {
	return rapid.Custom(func(t *rapid.T) Amount {
		n := rapid.OneOf(rapid.SampledFrom([]int64{0, 1, 150_000, 2_500_000}), rapid.Int64Range(0, 100_000_000)).Draw(t, "price")
		return MustAmount("0.000000000001").Times(n)
	})
}

// someRates prices the given meters and any others.
func someRates(always ...Meter) *rapid.Generator[Rates] {
	return rapid.Custom(func(t *rapid.T) Rates {
		var r Rates
		for m := range MeterCount {
			if rapid.Bool().Draw(t, "listed") {
				r.Set(Meter(m), unitPrices().Draw(t, "unit"))
			}
		}
		for _, m := range always {
			r.Set(m, unitPrices().Draw(t, "unit"))
		}
		return r
	})
}

// thresholds keeps generated tiers low, so that generated inputs cross them.
const thresholdStep = 1000

// versions generates built price versions of any shape.
func versions() *rapid.Generator[*PriceVersion] {
	return rapid.Custom(func(t *rapid.T) *PriceVersion { return built(t, listedVersions().Draw(t, "listed")) })
}

// listedVersions generates them as a book lists them.
func listedVersions() *rapid.Generator[PriceVersion] {
	return rapid.Custom(func(t *rapid.T) PriceVersion {
		v := PriceVersion{Rates: someRates(Input, Output).Draw(t, "base"), ServiceTiers: map[string]Rates{}}
		above := int64(0)
		for range rapid.IntRange(0, 3).Draw(t, "tiers") {
			above += rapid.Int64Range(1, thresholdStep).Draw(t, "above")
			v.Tiers = append(v.Tiers, Tier{above, someRates(Output).Draw(t, "tier")})
		}
		for _, name := range []string{"flex", "priority", "batch", "turbo"} {
			if rapid.Bool().Draw(t, name) {
				v.ServiceTiers[name] = someRates(Input).Draw(t, "service")
			}
		}
		v.Regions = map[string]Amount{}
		for _, name := range []string{"us", "eu", SpeedFast} {
			if rapid.Bool().Draw(t, name) {
				v.Regions[name] = MustAmount("0.001").Times(rapid.Int64Range(1, 3000).Draw(t, "factor"))
			}
		}
		return v
	})
}
