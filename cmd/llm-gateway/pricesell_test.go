package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

// sellOfPartners is a sell book with a group, and changes that have come and that are to come.
const sellOfPartners = `markup: "20"
dated:
  - from: 2026-01-01
    markup: "30"
  - from: 2999-01-01
    markup: "40"
groups:
  - name: partners
    accounts: ["acme*"]
    markup: "5"
`

// TestPricesShowWhatIsPaid: beside what it costs, by whom is asked for; without a sell book nothing of it.
func TestPricesShowWhatIsPaid(t *testing.T) {
	t.Parallel()
	env := []string{"SELL_BOOK=" + sellFile(t, sellOfPartners)}
	const model = `models.#(model=="gpt-4o-mini").`
	for _, c := range []struct {
		args []string
		want map[string]string
	}{
		{[]string{"price", "list", "--provider", "openai"}, map[string]string{model + "unit_prices.input": "0.00000015", model + "paid.unit_prices.input": "0.000000195", model + "paid.group": ""}},
		{[]string{"price", "list", "--group", "partners"}, map[string]string{model + "paid.unit_prices.input": "0.0000001575", model + "paid.group": "partners"}},
		{[]string{"price", "list", "--account", "acme-7"}, map[string]string{model + "paid.unit_prices.output": "0.00000063", model + "paid.group": "partners"}},
		{[]string{"price", "list", "--account", "zoe"}, map[string]string{model + "paid.unit_prices.input": "0.000000195"}},
		{[]string{"price", "show", "gpt-4o-mini"}, map[string]string{"versions.0.unit_prices.input": "0.00000015", "versions.0.paid.#": "3",
			"versions.0.paid.0.unit_prices.input": "0.00000018", "versions.0.paid.0.in_force": "false", "versions.0.paid.1.from": "2026-01-01", "versions.0.paid.1.in_force": "true",
			"versions.0.paid.2.unit_prices.input": "0.00000021", "versions.0.paid.2.in_force": "false", "paid.unit_prices.input": "0.000000195",
			"bound_example.amount": "0.001625"}},
		{[]string{"price", "show", "gpt-4o-mini", "--account", "acme"}, map[string]string{"versions.0.paid.#": "1", "versions.0.paid.0.unit_prices.input": "0.0000001575"}},
	} {
		out := succeeds(t, env, append(c.args, "--json")...)
		for path, want := range c.want {
			if got := gjson.Get(out, path).String(); got != want {
				t.Errorf("%v: %s is %s, want %s", c.args, path, got, want)
			}
		}
	}
	text := succeeds(t, env, "price", "list", "--group", "partners")
	if !strings.Contains(text, "PAID: INPUT") || !strings.Contains(text, "paid by the group partners") {
		t.Errorf("price list says\n%s", text)
	}
	text = succeeds(t, env, "price", "show", "gpt-4o-mini")
	for _, want := range []string{"paid by accounts in no group from 2026-01-01, in force", "0.195", "from 2999-01-01"} {
		if !strings.Contains(text, want) {
			t.Errorf("price show lacks %q:\n%s", want, text)
		}
	}
	fails(t, 1, `has no group "foes"`, env, "price", "list", "--group", "foes")
	if plain := succeeds(t, nil, "price", "show", "gpt-4o-mini", "--json"); strings.Contains(plain, "paid") {
		t.Errorf("without a sell book:\n%s", plain)
	}
}

// TestPriceShowsTimesAndTiers: what is sold begins when its cost does, to the second; a meter that only a tier prices is
// shown.
func TestPriceShowsTimesAndTiers(t *testing.T) {
	t.Parallel()
	env := []string{"SELL_BOOK=" + sellFile(t, `markup: "20"`), "PRICE_BOOK=" + writeFile(t, filepath.Join(t.TempDir(), "own.yaml"), ownBook+`
        tiers:
          - above_input: 5
            prices: {cache_write_5m: "4"}
        service_tiers: {flex: {audio_in: "3"}}
      - from: 2026-03-01T12:00:00Z
        prices: {input: "2", output: "2"}
`)}
	text := succeeds(t, env, "price", "show", "big")
	for _, want := range []string{
		"paid by accounts in no group from 2026-03-01T12:00:00Z, in force",
		"cache_write_5m   -    4              -     per million", "audio_in         -    -              3     per million",
		"cache_write_5m   -    4.8            -     per million",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("price show lacks %q:\n%s", want, text)
		}
	}
}
