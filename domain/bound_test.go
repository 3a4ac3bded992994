package domain

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestBoundTable(t *testing.T) {
	t.Parallel()
	tiered := PriceVersion{Rates: rates("input=2.5 cached_input=0.25 output=15"),
		Tiers: []Tier{{272_000, rates("input=5 cached_input=0.5 output=22.5")}},
		ServiceTiers: map[string]Rates{"flex": rates("input=1.25 output=7.5"),
			"priority": rates("input=5 output=30"), "batch": rates("input=99 output=99")}}
	cached := PriceVersion{Rates: rates("input=3 cached_input=0.3 cache_write_5m=3.75 cache_write_1h=6 output=15 web_search=0.01/unit")}
	audio := PriceVersion{Rates: rates("input=2.5 output=10 audio_in=40 audio_out=80 image_out=60 cached_audio_in=50")}
	flat := PriceVersion{Rates: rates("input=0 output=0 requests=0.01/unit")}
	volume := PriceVersion{Rates: rates("input=2 output=8"), Tiers: []Tier{{100, rates("input=1 output=4")}}}
	for _, c := range []struct {
		name    string
		version PriceVersion
		need    Need
		want    string // input and output price per million, then the amount
	}{
		{"base only", tiered, Need{InputTokens: 272_000, OutputTokens: 1000, ServiceTier: "default"}, "2.5 15 0.695"},
		{"over the threshold", tiered, Need{InputTokens: 272_001, OutputTokens: 1000, ServiceTier: "default"}, "5 22.5 1.382505"},
		{"could be any tier but batch", tiered, Need{InputTokens: 1000, OutputTokens: 1000}, "5 30 0.035"},
		{"the same, said", tiered, Need{InputTokens: 1000, OutputTokens: 1000, ServiceTier: "auto"}, "5 30 0.035"},
		{"the same, by another word", tiered, Need{InputTokens: 1000, OutputTokens: 1000, ServiceTier: "swift"}, "5 30 0.035"},
		{"flex may be downgraded to base", tiered, Need{InputTokens: 1000, OutputTokens: 1000, ServiceTier: "flex"}, "2.5 15 0.0175"},
		{"priority", tiered, Need{InputTokens: 1000, OutputTokens: 1000, ServiceTier: "priority"}, "5 30 0.035"},
		{"batch", tiered, Need{InputTokens: 1000, OutputTokens: 1000, ServiceTier: "batch"}, "99 99 0.198"},
		{"scale is base", tiered, Need{InputTokens: 1000, OutputTokens: 1000, ServiceTier: "scale"}, "2.5 15 0.0175"},
		{"priority over the threshold", tiered, Need{InputTokens: 272_001, OutputTokens: 1000, ServiceTier: "priority"}, "5 30 1.390005"},
		{"cache writes are dearest", cached, Need{InputTokens: 1000, OutputTokens: 100}, "6 15 0.0075"},
		{"searches", cached, Need{InputTokens: 1000, OutputTokens: 100, WebSearches: 3}, "6 15 0.0375"},
		{"text only", audio, Need{InputTokens: 1000, OutputTokens: 1000}, "2.5 10 0.0125"},
		{"audio in", audio, Need{InputTokens: 1000, OutputTokens: 1000, AudioIn: true}, "50 10 0.06"},
		{"audio out", audio, Need{InputTokens: 1000, OutputTokens: 1000, AudioOut: true}, "2.5 80 0.0825"},
		{"image out", audio, Need{InputTokens: 1000, OutputTokens: 1000, ImageOut: true}, "2.5 60 0.0625"},
		{"audio not priced", cached, Need{InputTokens: 1, AudioIn: true}, "price missing: audio_in"},
		{"speech not priced", cached, Need{InputTokens: 1, AudioOut: true}, "price missing: audio_out"},
		{"images not priced", cached, Need{InputTokens: 1, ImageOut: true}, "price missing: image_out"},
		{"searches not priced", audio, Need{InputTokens: 1, WebSearches: 1}, "price missing: web_search"},
		{"by the request", flat, Need{InputTokens: 1000, OutputTokens: 1000}, "0 0 0.01"},
		{"a cheaper tier is no bound", volume, Need{InputTokens: 101, OutputTokens: 1000}, "2 8 0.008202"},
		{"negative input", cached, Need{InputTokens: -1}, "unusable need: a count of -1"},
		{"negative output", cached, Need{OutputTokens: -1}, "unusable need"},
		{"negative searches", cached, Need{WebSearches: -1}, "unusable need"},
		{"absurd output", cached, Need{OutputTokens: MaxTokens + 1}, "unusable need"},
		{"overflowing output", cached, Need{OutputTokens: 1<<63 - 1}, "unusable need"},
	} {
		if got := boundText(t, built(t, c.version), c.need); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func boundText(t *testing.T, v *PriceVersion, n Need) string {
	t.Helper()
	b, err := v.Bound(n)
	if err != nil {
		return err.Error()
	}
	sum := Zero
	var unit [MeterCount]string
	for _, l := range b.Lines {
		unit[l.Meter] = l.UnitPrice.Times(1_000_000).String()
		sum = sum.Add(l.Amount)
	}
	if b.Input != n.InputTokens || b.Output != n.OutputTokens || !sum.Equal(b.Amount) {
		t.Errorf("%+v: bound %+v sums to %s", n, b, sum)
	}
	return unit[Input] + " " + unit[Output] + " " + b.Amount.String()
}

func TestBoundWithoutOutputPrice(t *testing.T) {
	t.Parallel()
	m := chat("m", PriceVersion{Rates: rates("input=0.1"), ServiceTiers: map[string]Rates{"batch": rates("input=0.05 output=0")}})
	m.Mode = ModeEmbedding
	_, v, err := book(t, m).Lookup("m", day("2026-01-01"))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := v.Bound(Need{InputTokens: 1000}); err != nil || b.Amount.String() != "0.0001" {
		t.Errorf("an embedding is bounded by %v, %v", b, err)
	}
	if _, err := v.Bound(Need{InputTokens: 1000, OutputTokens: 1}); !errors.Is(err, ErrPriceMissing) {
		t.Errorf("output of an embedding: %v", err)
	}
	if _, err := v.AffordableOutput(MustAmount("1"), Need{}, 1); !errors.Is(err, ErrPriceMissing) {
		t.Errorf("affordable output of an embedding: %v", err)
	}
	if _, err := new(PriceVersion).Bound(Need{}); !errors.Is(err, ErrUnbuilt) {
		t.Errorf("a version that no book made bounds: %v", err)
	}
}

func TestBoundJSON(t *testing.T) {
	t.Parallel()
	b, err := built(t, PriceVersion{Rates: rates("input=2.5 output=10")}).Bound(Need{InputTokens: 3, OutputTokens: 2})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"input":3,"output":2,"lines":[` +
		`{"meter":"input","quantity":3,"unit_price":"0.0000025","amount":"0.0000075"},` +
		`{"meter":"output","quantity":2,"unit_price":"0.00001","amount":"0.00002"},` +
		`{"meter":"requests","quantity":1,"unit_price":"0","amount":"0"}]}`
	if text, err := json.Marshal(b); err != nil || string(text) != want {
		t.Errorf("the bound is %s, %v", text, err)
	}
}

// tokens generates token counts around the generated thresholds, and far beyond them.
func tokens() *rapid.Generator[int64] {
	return rapid.OneOf(rapid.Int64Range(0, 4*thresholdStep), rapid.Int64Range(0, MaxTokens))
}

// needs generates needs that the version prices.
func needs(v *PriceVersion) *rapid.Generator[Need] {
	return rapid.Custom(func(t *rapid.T) Need {
		flag := func(m Meter) bool { return v.Rates.priced[m] && rapid.Bool().Draw(t, m.String()) }
		n := Need{
			InputTokens: tokens().Draw(t, "input"), OutputTokens: tokens().Draw(t, "output"),
			AudioIn: flag(AudioIn), AudioOut: flag(AudioOut), ImageOut: flag(ImageOut),
			ServiceTier: rapid.SampledFrom(tierNames).Draw(t, "tier"),
			Geo:         rapid.SampledFrom([]string{"", AnyGeo, "us", "eu", "mars"}).Draw(t, "geo"),
			Speed:       rapid.SampledFrom([]string{"", SpeedFast}).Draw(t, "speed"),
		}
		if flag(WebSearch) {
			n.WebSearches = rapid.Int64Range(0, 100).Draw(t, "searches")
		}
		return n
	})
}

// within generates a usage that the need covers: fewer tokens or as many, in any of the meters
// that it allows. A detail that the version has no price for may always be reported: Fold is for it.
func within(v *PriceVersion, n Need) *rapid.Generator[Meters] {
	return rapid.Custom(func(t *rapid.T) Meters {
		var m Meters
		spread := func(total int64, first, last Meter) {
			left := rapid.OneOf(rapid.Just(total), rapid.Int64Range(0, total)).Draw(t, "used")
			for meter := first; meter <= last; meter++ {
				if n.includes(meter) || !v.Rates.priced[meter] {
					m[meter] = rapid.OneOf(rapid.Just(left), rapid.Int64Range(0, left)).Draw(t, "part")
					left -= m[meter]
				}
			}
		}
		spread(n.InputTokens, Input, ImageIn)
		spread(n.OutputTokens, Output, ImageOut)
		m[WebSearch] = rapid.Int64Range(0, n.WebSearches).Draw(t, "searches")
		m[Requests] = rapid.Int64Range(0, 1).Draw(t, "requests")
		return m
	})
}

// answered generates the service tiers that a provider could answer a request for one with. It says
// apart from couldServe what DESIGN's "dearest rate that could apply" means.
func answered(requested string) *rapid.Generator[string] {
	could := map[string][]string{
		"default": {"", "default", "scale"}, "scale": {"scale", "default"}, "turbo": {"turbo", "default"},
		"flex": {"flex", "default"}, "priority": {"priority", "default"}, "batch": {"batch", "default"},
	}[requested]
	if could == nil {
		could = []string{"", "default", "scale", "flex", "priority", "turbo", "unheard-of"}
	}
	return rapid.SampledFrom(could)
}

// answeredIn generates the regions that a provider could answer with.
func answeredIn(n Need) *rapid.Generator[string] {
	geos, speeds := []string{""}, []string{""}
	switch n.Geo {
	case "":
	case AnyGeo:
		geos = []string{"", "us", "eu", "mars"}
	default:
		geos = []string{"", n.Geo}
	}
	if n.Speed != "" {
		speeds = []string{"", n.Speed}
	}
	return rapid.Custom(func(t *rapid.T) string {
		return RegionName(rapid.SampledFrom(geos).Draw(t, "geo"), rapid.SampledFrom(speeds).Draw(t, "speed"))
	})
}

// TestBoundIsABound is the promise that commit <= reserve rests on.
func TestBoundIsABound(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		v := versions().Draw(t, "version")
		n := needs(v).Draw(t, "need")
		if n.ServiceTier == "turbo" && v.service["turbo"] == nil {
			n.ServiceTier = "auto" // only a book that prices it makes it a tier of its own
		}
		b, err := v.Bound(n)
		if err != nil {
			t.Fatal(err)
		}
		m, _ := v.Fold(within(v, n).Draw(t, "usage"))
		tier, region := answered(n.ServiceTier).Draw(t, "answered"), answeredIn(n).Draw(t, "region")
		at, _ := v.In(region)
		c, err := at.Charge(m, tier)
		if err != nil {
			t.Fatal(err)
		}
		if b.Amount.Less(c.Amount) {
			t.Fatalf("%+v is bounded by %s; %v at %q in %q is charged %s", n, b.Amount, m, tier, region, c.Amount)
		}
	})
}

func TestBoundGrowsWithTheNeed(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		v := versions().Draw(t, "version")
		small := needs(v).Draw(t, "need")
		large := small
		large.InputTokens = rapid.Int64Range(small.InputTokens, MaxTokens).Draw(t, "more input")
		large.OutputTokens = rapid.Int64Range(small.OutputTokens, MaxTokens).Draw(t, "more output")
		a, errA := v.Bound(small)
		b, errB := v.Bound(large)
		if err := errors.Join(errA, errB); err != nil || b.Amount.Less(a.Amount) {
			t.Fatalf("%+v costs %s, %+v only %s; %v", small, a.Amount, large, b.Amount, err)
		}
	})
}

func TestAffordableOutputIsExact(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		v := versions().Draw(t, "version")
		n := needs(v).Draw(t, "need")
		choices := rapid.OneOf(rapid.Int64Range(1, 8), rapid.Int64Range(1, MaxTokens)).Draw(t, "choices")
		budget := rapid.OneOf(amounts(), unitPrices(), rapid.Map(unitPrices(), func(a Amount) Amount {
			return a.Times(1_000_000)
		})).Draw(t, "budget")
		per, err := v.AffordableOutput(budget, n, choices)
		if err != nil || per < 0 || per > MaxTokens/choices {
			t.Fatalf("%d, %v", per, err)
		}
		cost := func(perChoice int64) Amount {
			n.OutputTokens = perChoice * choices
			b, err := v.Bound(n)
			if err != nil {
				t.Fatal(err)
			}
			return b.Amount
		}
		if per > 0 && budget.Less(cost(per)) {
			t.Fatalf("%d x %d tokens cost %s, the budget is %s", per, choices, cost(per), budget)
		}
		if per < MaxTokens/choices && !budget.Less(cost(per+1)) {
			t.Fatalf("%d x %d tokens cost %s, as the budget of %s allows", per+1, choices, cost(per+1), budget)
		}
	})
}

func TestAffordableOutputTable(t *testing.T) {
	t.Parallel()
	v := built(t, PriceVersion{Rates: rates("input=2.5 output=10 requests=0.001/unit")})
	free := built(t, PriceVersion{Rates: rates("input=0 output=0")})
	for _, c := range []struct {
		version *PriceVersion
		budget  string
		input   int64
		choices int64
		want    int64
	}{
		{v, "0.0035", 1000, 1, 0}, // just the input and the request
		{v, "0.00350999", 1000, 1, 0},
		{v, "0.00351", 1000, 1, 1},
		{v, "0.0036", 1000, 1, 10},
		{v, "0.0036", 1000, 3, 3},
		{v, "0.0034", 1000, 1, 0}, {v, "0", 1000, 1, 0}, {v, "-5", 1000, 1, 0},
		{v, "99999999999999", 1000, 1, MaxTokens},
		{free, "0", 1000, 1, MaxTokens}, {free, "-1", 1000, 1, 0}, {free, "0", 1000, MaxTokens, 1},
	} {
		got, err := c.version.AffordableOutput(MustAmount(c.budget), Need{InputTokens: c.input, OutputTokens: 77}, c.choices)
		if err != nil || got != c.want {
			t.Errorf("%s buys %d, %v after %d input; want %d", c.budget, got, err, c.input, c.want)
		}
	}
	for _, choices := range []int64{0, -1, MaxTokens + 1} {
		if _, err := v.AffordableOutput(MustAmount("1"), Need{}, choices); !errors.Is(err, ErrNeed) {
			t.Errorf("%d choices: %v", choices, err)
		}
	}
	if _, err := v.AffordableOutput(MustAmount("1"), Need{InputTokens: -1}, 1); !errors.Is(err, ErrNeed) {
		t.Errorf("negative input: %v", err)
	}
}

func BenchmarkBound(b *testing.B) {
	v := built(b, PriceVersion{Rates: rates("input=2.5 cached_input=0.25 output=15"),
		Tiers:        []Tier{{272_000, rates("input=5 cached_input=0.5 output=22.5")}},
		ServiceTiers: map[string]Rates{"flex": rates("input=1.25 output=7.5"), "priority": rates("input=5 output=30")}})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Bound(Need{InputTokens: 300_000, OutputTokens: 1000}); err != nil {
			b.Fatal(err)
		}
	}
}
