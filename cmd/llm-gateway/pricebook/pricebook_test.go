package pricebook

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"llm-gateway/domain"
)

// goodBook uses every field of the form. Line numbers in TestLoadRefuses count from its first line.
const goodBook = `currency: EUR
unit: per_million
as_of: 2026-08-21
sources:
  list: "a list"
models:
  - provider: acme
    model: big
    mode: chat
    context: 1000
    max_output: 100
    cache_min_tokens: 10
    responses_only: true
    always_searches: true
    deprecated: 2027-02-28
    sources: [list]
    versions:
      - prices: {input: "2.5", output: "10"}
        per_unit: {web_search: "0.01", requests: "0.5"}
      - from: 2026-03-13
        prices:
          input: "0.000001"
          output: "3"
        tiers:
          - above_input: 200
            prices: {input: "6"}
        service_tiers:
          flex: {input: "1.5"}
        regions: {eu: "1.1"}
  - provider: acme
    model: small
    mode: embedding
    dimensions: 3
    context: 1000
    sources: []
    versions:
      - prices: {input: "1"}
`

func TestLoad(t *testing.T) {
	t.Parallel()
	book, info, err := LoadInfo(strings.NewReader(goodBook))
	if err != nil {
		t.Fatal(err)
	}
	if info.Currency != "EUR" || info.AsOf != "2026-08-21" || info.Sources["list"] != "a list" {
		t.Errorf("info %+v", info)
	}
	m, launch, err := book.Lookup("acme/big", time.Date(2026, 3, 12, 23, 59, 59, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	if m.Context != 1000 || m.MaxOutput != 100 || !m.ResponsesOnly || !m.AlwaysSearches || m.Mode != domain.ModeChat ||
		m.Deprecated.Format(time.DateOnly) != "2027-02-28" || len(m.Versions) != 2 {
		t.Errorf("model %+v", m)
	}
	_, later, err := book.Lookup("big", time.Date(2026, 3, 13, 0, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	flex := later.ServiceTiers["flex"]
	for _, c := range []struct {
		rates *domain.Rates
		meter domain.Meter
		want  string
	}{
		{&launch.Rates, domain.Input, "0.0000025"}, {&launch.Rates, domain.Output, "0.00001"},
		{&launch.Rates, domain.WebSearch, "0.01"}, {&launch.Rates, domain.Requests, "0.5"},
		{&later.Rates, domain.Input, "0.000000000001"}, {&later.Tiers[0].Rates, domain.Input, "0.000006"},
		{&flex, domain.Input, "0.0000015"}, {&flex, domain.Output, "0.000003"},
	} {
		if unit, ok := c.rates.Get(c.meter); !ok || unit.String() != c.want {
			t.Errorf("%s is %s, %v; want %s", c.meter, unit, ok, c.want)
		}
	}
	if later.Tiers[0].AboveInput != 200 || later.Regions["eu"].String() != "1.1" {
		t.Errorf("version %+v", later)
	}
}

// broken is one text of goodBook changed at a time, and the error that has to follow.
var broken = []struct{ old, new, want string }{
	{`input: "2.5"`, `input: 2.5`, `line 18: "2.5" is not text; it is written in quotes`},
	{`input: "2.5"`, `input: 1e-6`, `line 18: model "big": versions[0].prices.input: not an amount: "1e-6"`},
	{`input: "2.5"`, `input: [1]`, `line 18: "[1]" is not text`},
	{`input: "2.5"`, `input: 010`, `line 18: "010" is not text`},
	{`input: "2.5"`, `input: true`, `line 18: "true" is not text`},
	{`input: "2.5"`, `input: *a`, `line 18:`},
	{`input: "2.5"`, `input: "1e-6"`, `line 18: model "big": versions[0].prices.input: not an amount: "1e-6"`},
	{`input: "2.5"`, `input: "NaN"`, `line 18: model "big": versions[0].prices.input: not an amount: "NaN"`},
	{`input: "2.5"`, `input: NaN`, `line 18: model "big": versions[0].prices.input: not an amount: "NaN"`},
	{`input: "2.5"`, `input: .nan`, `line 18: ".nan" is not text`},
	{`input: "2.5"`, `input: .inf`, `line 18: ".inf" is not text`},
	{`input: "2.5"`, `input: "Infinity"`, `line 18: model "big": versions[0].prices.input: not an amount: "Infinity"`},
	{`input: "2.5"`, `input: "1e400"`, `line 18: model "big": versions[0].prices.input: not an amount: "1e400"`},
	{`input: "2.5"`, `input: 1e400`, `line 18:`},
	{`input: "2.5"`, `input: "1e-400"`, `line 18: model "big": versions[0].prices.input: not an amount: "1e-400"`},
	{`input: "2.5"`, `input: "` + strings.Repeat("9", 400) + `"`, `line 18: model "big": versions[0].prices.input: not an amount: 400 bytes`},
	{`from: 2026-03-13`, "from: 2026-03-13\n        prices: {input: \"1\", output: \"1\"}\n      - from: 2026-03-13",
		`line 22: model "big": versions[2].from: not after the version before it`},
	{`from: 2026-03-13`, "from: 2026-03-13\n        prices: {input: \"1\", output: \"1\"}\n      - from: 2026-03-12",
		`line 22: model "big": versions[2].from: not after the version before it`},
	{`input: "2.5"`, `input: ""`, `line 18: model "big": versions[0].prices.input: not an amount`},
	{`input: "2.5"`, `input: `, `line 18: input: it has no value`},
	{`above_input: 200`, `above_input: null`, `line 25: above_input: it has no value`},
	{`- prices: {input: "2.5", output: "10"}`, "- from:\n        prices: {input: \"2.5\", output: \"10\"}", `line 18: from: it has no value`},
	{`input: "2.5"`, `input: "-2.5"`, `line 18: model "big": versions[0].prices.input: -0.0000025 is negative`},
	{`input: "2.5"`, `input: "2,5"`, `line 18: model "big": versions[0].prices.input: not an amount: "2,5"`},
	{`input: "2.5"`, `input: "1000000000001"`, `versions[0].prices.input: more than 1000000 per unit`},
	{`input: "0.000001"`, `input: "0.0000001"`,
		`line 22: model "big": versions[1].prices.input: 0.0000001 per million is, per unit, not an amount: finer than 1e-12`},
	{`input: "6"`, `input: "6.0000001"`, `line 26: model "big": versions[1].tiers[0].prices.input: 6.0000001 per million`},
	{`{input: "1.5"}`, `{input: "1.50000001"}`, `line 28: model "big": versions[1].service_tiers.flex.input: 1.50000001`},
	{`{input: "2.5",`, `{inputs: "2.5",`, `line 18: model "big": versions[0].prices.inputs: unknown meter "inputs"`},
	{`{input: "2.5",`, `{input: "2.5", input: "3",`, `line 18: mapping key "input" already defined`},
	{`{input: "2.5",`, `{`, `line 8: model "big": versions[0].prices.input: missing`},
	{`web_search: "0.01"`, `output: "0.01"`, `line 19: model "big": versions[0].per_unit.output: tokens are priced under prices`},
	{`{input: "6"}`, `{web_search: "6"}`, `line 26: model "big": versions[1].tiers[0].prices.web_search: tokens are`},
	{`{input: "6"}`, `{}`, `line 8: model "big": versions[1].tiers[0].prices: empty`},
	{`above_input: 200`, `above_input: 0`, `line 25: model "big": versions[1].tiers[0].above_input: 0;`},
	{`above_input: 200`, `above_input: -5`, `line 25: model "big": versions[1].tiers[0].above_input: -5;`},
	{`above_input: 200`, `above_input: 200.7`, `line 25: "200.7" is not a whole number in plain digits`},
	{`above_input: 200`, `above_input: 2e2`, `line 25: "2e2" is not a whole number in plain digits`},
	{`above_input: 200`, `above_input: 0310`, `line 25: "0310" is not a whole number in plain digits`},
	{`above_input: 200`, `above_input: 0xc8`, `line 25: "0xc8" is not a whole number in plain digits`},
	{`above_input: 200`, `above_input: .nan`, `line 25: ".nan" is not a whole number in plain digits`},
	{`above_input: 200`, `above: 200`, `line 25: unknown field "above"`},
	{`flex:`, `auto:`, `line 8: model "big": versions[1].service_tiers.auto: "auto" cannot have a price`},
	{`eu: "1.1"`, `eu: "0"`, `line 29: model "big": versions[1].regions.eu: 0 is not a factor`},
	{`eu: "1.1"`, `eu: "x"`, `line 29: model "big": versions[1].regions.eu: not an amount`},
	{`from: 2026-03-13`, `from: 13.3.2026`, `line 20: model "big": versions[1].from: "13.3.2026" is not YYYY-MM-DD`},
	{`from: 2026-03-13`, `from: 2026-02-30`, `line 20: model "big": versions[1].from: "2026-02-30" is not`},
	{`from: 2026-03-13`, `from: 0001-01-01`, `line 20: model "big": versions[1].from: "0001-01-01" is not`},
	{`- from: 2026-03-13`, `- regions: {}`, `line 29: mapping key "regions" already defined`},
	{"- from: 2026-03-13\n        prices", `- prices`, `line 8: model "big": versions[1].from: not after the version before it`},
	{`deprecated: 2027-02-28`, `deprecated: soon`, `line 15: model "big": deprecated: "soon" is not YYYY-MM-DD`},
	{`sources: [list]`, `sources: [lost]`, `line 16: model "big": sources: "lost" is not among`},
	{`max_output: 100`, `max_outputs: 100`, `line 11: unknown field "max_outputs"`},
	{`max_output: 100`, `max_output: -1`, `line 11: model "big": max_output: -1 is not between`},
	{`cache_min_tokens: 10`, `cache_min_tokens: -1`, `line 8: model "big": dimensions, cache_min_tokens: negative`},
	{`context: 1000`, `context: 0`, `line 10: model "big": context: 0 is not between`},
	{`context: 1000`, `context: 1000.9`, `line 10: "1000.9" is not a whole number in plain digits`},
	{`context: 1000`, `context: 1_000`, `line 10: "1_000" is not a whole number in plain digits`},
	{`context: 1000`, `context: many`, `line 10: "many" is not a whole number in plain digits`},
	{`context: 1000`, `context: 99999999999999999999`, `line 10: "99999999999999999999" is not a whole number in plain digits`},
	{`responses_only: true`, `responses_only: 1`, `line 13: cannot unmarshal`},
	{`mode: chat`, `mode: image`, `line 9: model "big": mode: "image" is neither chat nor completion nor embedding`},
	{`provider: acme`, `provider: a/b`, `line 8: model "big": provider: not a name: "a/b"`},
	{`model: big`, `model: "b\u0000g"`, `line 8: model "b\x00g": model: not a name`},
	{`model: big`, `model: small`, `line 31: model "small": model: the name is taken twice`},
	{`model: big`, `name: big`, `line 8: unknown field "name"`},
	{`currency: EUR`, `currency: euro`, `line 1: currency: a currency is three capital letters`},
	{`currency: EUR`, `# no currency`, `price book: currency: a currency is three capital letters`},
	{`unit: per_million`, `# no unit`, `price book: unit: "" is not per_million`},
	{`unit: per_million`, `unit: per_thousand`, `line 2: unit: "per_thousand" is not per_million`},
	{`as_of: 2026-08-21`, `as_of: now`, `line 3: as_of: "now" is not YYYY-MM-DD`},
	{`sources:` + "\n", `prices: {}` + "\nsources:\n", `line 4: unknown field "prices"`},
	{`models:`, "models: []\nmodels:", `line 7: mapping key "models" already defined`},
	{goodBook, "", "empty"},
	{goodBook, "currency: USD\nunit: per_million\nas_of: 2026-01-01\n", "models: none"},
	{goodBook, "models: [", "line 1:"},
	{goodBook, "models: !mine x\n", "this is YAML that cannot be read"},
	{goodBook, "\x00\xff", "price book:"},
	{goodBook, "[]", "line 1:"},
	{goodBook, goodBook + "---\n" + goodBook, "more than one document"},
	{goodBook, strings.Repeat("# padding\n", maxBook/10+1), "larger than 2097152 bytes"},
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range broken {
		_, err := Load(strings.NewReader(strings.Replace(goodBook, c.old, c.new, 1)))
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "price book: ") {
			t.Errorf("%.60q instead of %.60q:\n got %v\nwant %s", c.new, c.old, err, c.want)
		}
	}
}

// TestLoadRefusesOneOfTwoProviders: what is wrong with one provider's model is not looked for at another's of that name.
func TestLoadRefusesOneOfTwoProviders(t *testing.T) {
	t.Parallel()
	const first = "  - provider: acme"
	_, models, _ := strings.Cut(goodBook, first)
	both := goodBook + strings.Replace(first+models, "provider: acme\n    model: big", "provider: other\n    model: big", 1)
	both = both[:strings.LastIndex(both, "  - provider: acme")]
	for _, c := range []struct{ old, new, want string }{
		{`input: "2.5"`, `input: "-2.5"`, `price book: line 18: model "big": versions[0].prices.input: -0.0000025 is negative`},
		{`max_output: 100`, `max_output: -1`, `price book: line 11: model "big": max_output: -1 is not between`},
		{`provider: other`, `provider: acme`, `price book: line 39: model "big": model: the name is taken twice`},
	} {
		if _, err := Load(strings.NewReader(strings.Replace(both, c.old, c.new, 1))); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%v\nwant %s", err, c.want)
		}
	}
	if _, err := Load(strings.NewReader(both)); err != nil {
		t.Error(err)
	}
}

func TestLoadReportsReadErrors(t *testing.T) {
	t.Parallel()
	failure := errors.New("disk on fire")
	if _, err := Load(io.MultiReader(strings.NewReader(goodBook), iotest.ErrReader(failure))); !errors.Is(err, failure) {
		t.Errorf("error %v", err)
	}
}

func TestBuiltinIsReadOnce(t *testing.T) {
	t.Parallel()
	if Builtin() != Builtin() || BuiltinInfo().Currency != "USD" || BuiltinInfo().AsOf != "2026-08-21" {
		t.Errorf("info %+v", BuiltinInfo())
	}
	own := BuiltinYAML()
	if !bytes.Equal(own, builtinYAML) {
		t.Error("BuiltinYAML is not the built-in book")
	}
	own[0] = '!'
	if builtinYAML[0] == '!' {
		t.Error("a caller can change the built-in book")
	}
}

func BenchmarkLoad(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Load(bytes.NewReader(builtinYAML)); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(goodBook))
	f.Add([]byte("models: [{versions: [{prices: {input: \"1\"}}]}]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		book, err := Load(bytes.NewReader(text))
		if (book == nil) == (err == nil) {
			t.Fatalf("%v and %v", book, err)
		}
	})
}
