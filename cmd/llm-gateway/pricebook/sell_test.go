package pricebook

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"llm-gateway/domain"
)

// goodSell uses every field. Line numbers in TestLoadSellRefuses count from its first line.
const goodSell = `currency: USD
markup: "20"
providers:
  anthropic: "12.5"
models:
  gpt-4o: {markup: "30"}
  openai/gpt-4o-mini:
    prices: {input: "1", output: "2"}
groups:
  - name: partners
    accounts: ["acme", "auth0|*"]
    markup: "5"
    providers: {gemini: "-10"}
    models:
      claude-haiku-4-5:
        markup: "0"
        per_unit: {web_search: "0.5"}
    dated:
      - from: 2027-01-01
        markup: "6"
      - from: 2027-02-01
        models:
          gpt-4o: {prices: {input: "9"}}
dated:
  - from: 2027-01-01
    markup: "21"
`

// TestLoadSell: what an account pays per million input tokens, or for one search.
func TestLoadSell(t *testing.T) {
	t.Parallel()
	b, err := LoadSell(strings.NewReader(goodSell), Builtin(), "USD")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		account, model string
		meter          domain.Meter
		want, rule     string
	}{
		{"x", "gpt-4o", domain.Input, "3.25", "+30%#"}, {"x", "gpt-4o-mini", domain.Input, "1", "+20%+fixed#"},
		{"x", "claude-haiku-4-5", domain.Input, "1.125", "+12.5%#"}, {"x", "gemini-2.5-pro", domain.Input, "1.5", "+20%#"},
		{"acme", "gpt-4o", domain.Input, "2.625", "+5%#"}, {"auth0|1", "gemini-2.5-pro", domain.Input, "1.125", "-10%#"},
		{"acme", "claude-haiku-4-5", domain.WebSearch, "500000", "+0%+fixed#"}, {"acme", "claude-haiku-4-5", domain.Input, "1", "+0%+fixed#"},
	} {
		_, cost, err := Builtin().Lookup(c.model, time.Date(2026, 8, 21, 0, 0, 0, 0, time.UTC))
		if err != nil {
			t.Fatal(err)
		}
		v := b.Price(c.account, cost, time.Date(2026, 8, 21, 0, 0, 0, 0, time.UTC))
		unit, _ := v.Rates.Get(c.meter)
		if got := unit.Times(1_000_000).String(); got != c.want || !strings.HasPrefix(v.ID, cost.ID+c.rule) {
			t.Errorf("%s pays for %s of %s %s by %s, want %s by %s", c.account, c.meter, c.model, got, v.ID, c.want, c.rule)
		}
	}
}

func TestLoadSellRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ old, new, want string }{
		{`from: 2027-02-01`, `from: 2027-01-01`, `line 21: groups.partners.dated[1].from: not after the entry before it`},
		{`from: 2027-02-01`, `from: 2026-12-31`, `line 21: groups.partners.dated[1].from: not after the entry before it`},
		{`from: 2027-02-01`, `from: 2027-02-30`, `line 21: groups.partners.dated[1].from: "2027-02-30" is not YYYY-MM-DD`},
		{`from: 2027-02-01`, `from: 0001-01-01`, `line 21: groups.partners.dated[1].from: "0001-01-01" is not YYYY-MM-DD`},
		{`{input: "9"}`, `{input: "-9"}`, `line 23: groups.partners.dated[1].models.gpt-4o.prices.input: -0.000009 is negative`},
		{`markup: "6"`, `markup: "1e400"`, `line 20: groups.partners.dated[0].markup: not an amount`},
		{"from: 2027-01-01\n    markup: \"21\"", `from: 2027-01-01`, `line 25: dated[0]: it changes nothing`},
		{"from: 2027-01-01\n    markup: \"21\"", `markup: "21"`, `dated[0].from: missing`},
		{`markup: "21"`, `dated: []`, `line 26: unknown field "dated"`},
		{`currency: USD`, `currency: EUR`, `line 1: currency: the prices are in "EUR"`},
		{`markup: "20"`, `markup:`, `line 2: markup: it has no value`},
		{`anthropic: "12.5"`, `anthropic: ~`, `line 4: anthropic: it has no value`},
		{`markup: "20"`, `markup: 20`, `line 2: "20" is not text`},
		{`markup: "20"`, `markup: "20%"`, `line 2: markup: not an amount`},
		{`markup: "20"`, `markup: "NaN"`, `line 2: markup: not an amount`},
		{`markup: "20"`, `markup: "1e400"`, `line 2: markup: not an amount`},
		{`markup: "20"`, `markup: "-101"`, `line 2: markup: -101 is not between`},
		{`markup: "20"`, `markups: "20"`, `line 2: unknown field "markups"`},
		{`anthropic:`, `antropic:`, `line 4: providers.antropic: the price book has no model of it`},
		{`gpt-4o: {`, `gpt-4x: {`, `line 6: models.gpt-4x: the price book has no such model`},
		{`{markup: "30"}`, `{}`, `models.gpt-4o: neither a markup nor a price`},
		{`input: "1"`, `input: "-1"`, `line 8: models.openai/gpt-4o-mini.prices.input: -0.000001 is negative`},
		{`input: "1"`, `input: "0.0000001"`, `line 8: model "openai/gpt-4o-mini": models.openai/gpt-4o-mini.prices.input: 0.0000001 per million`},
		{`input: "1"`, `inputs: "1"`, `line 8: model "openai/gpt-4o-mini": models.openai/gpt-4o-mini.prices.inputs: unknown meter`},
		{`input: "1"`, `audio_in: "1"`, `line 8: models.openai/gpt-4o-mini.prices.audio_in: the price book has no price for it`},
		{`"acme", `, `"", `, `line 11: groups.partners.accounts: "" is neither`},
		{`accounts: ["acme", "auth0|*"]`, `accounts: []`, `line 10: groups.partners.accounts: 0 of them`},
		{`markup: "5"`, `markup: "200000"`, `line 12: groups.partners.markup: 200000 is not`},
		{`claude-haiku-4-5:`, `claude-none:`, `line 16: groups.partners.models.claude-none: the price book has no`},
		{goodSell, "", "empty"},
	} {
		b, err := LoadSell(strings.NewReader(strings.Replace(goodSell, c.old, c.new, 1)), Builtin(), "USD")
		if b != nil || err == nil || !strings.HasPrefix(err.Error(), "sell book: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60q instead of %.60q:\n got %v\nwant %s", c.new, c.old, err, c.want)
		}
	}
}

// TestSellExample: the example can be used as it is.
func TestSellExample(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../deployments/sell.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LoadSell(bytes.NewReader(text), Builtin(), "USD"); err != nil {
		t.Error(err)
	}
}
