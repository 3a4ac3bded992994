package domain

import (
	"slices"
	"strings"
	"testing"
)

// TestDiffPrices: what changes, and what of it reaches back before 2026-06-01.
func TestDiffPrices(t *testing.T) {
	t.Parallel()
	base := func() []PriceVersion {
		return []PriceVersion{{Rates: rates("input=1 output=2")}, {From: day("2026-05-01"), Rates: rates("input=3 output=4"),
			Tiers: []Tier{{100, rates("input=6")}}, ServiceTiers: map[string]Rates{"flex": rates("input=1")}}}
	}
	for _, c := range []struct {
		name   string
		change func(v []PriceVersion) []PriceVersion
		want   []string
		dated  int // how many of them are dated back
	}{
		{"nothing", func(v []PriceVersion) []PriceVersion { return v }, nil, 0},
		{"the same, spelled out", func(v []PriceVersion) []PriceVersion {
			v[0].Rates = rates("input=1 cached_input=1 output=2.0")
			return v
		}, nil, 0},
		{"one price", func(v []PriceVersion) []PriceVersion { v[1].Rates.Set(Reasoning, MustAmount("0.5")); return v }, []string{
			"acme/m from 2026-05-01: base reasoning: 0.5 instead of 0.000004", "acme/m from 2026-05-01: above 100 reasoning: 0.5 instead of 0.000004",
			"acme/m from 2026-05-01: flex reasoning: 0.5 instead of 0.000004"}, 3},
		{"a tier's", func(v []PriceVersion) []PriceVersion { v[1].Tiers[0].Rates.Set(Input, MustAmount("7")); return v },
			[]string{"acme/m from 2026-05-01: above 100 input: 7 instead of 0.000006", "acme/m from 2026-05-01: above 100 cached_input: 7 instead of 0.000006",
				"acme/m from 2026-05-01: above 100 image_in: 7 instead of 0.000006"}, 3},
		{"a meter that had none", func(v []PriceVersion) []PriceVersion {
			v[1].Tiers, v[1].ServiceTiers = nil, nil
			v[0].Rates.Set(WebSearch, MustAmount("0.1"))
			return v[:1]
		}, []string{"acme/m from launch: base web_search: 0.1 instead of none", "acme/m from 2026-05-01: base input: 0.000001 instead of 0.000003"}, -1},
		{"later", func(v []PriceVersion) []PriceVersion {
			return append(v, PriceVersion{From: day("2026-06-02"), Rates: rates("input=3 output=5"), Tiers: v[1].Tiers, ServiceTiers: v[1].ServiceTiers})
		}, []string{"acme/m from 2026-06-02: base output: 0.000005 instead of 0.000004"}, 0},
		{"from this very moment", func(v []PriceVersion) []PriceVersion {
			return append(v, PriceVersion{From: day("2026-06-01"), Rates: rates("input=3 output=5"), Tiers: v[1].Tiers, ServiceTiers: v[1].ServiceTiers})
		}, []string{"acme/m from 2026-06-01: base output: 0.000005 instead of 0.000004"}, 6},
	} {
		old, next := book(t, chat("m", base()...)), book(t, chat("m", c.change(base())...))
		var got []string
		for _, d := range DiffPrices(old, next) {
			got = append(got, d.String())
		}
		for i, want := range c.want {
			if !slices.Contains(got, want) || i == 0 && got[0] != want {
				t.Errorf("%s: got\n%s\nwithout %s", c.name, strings.Join(got, "\n"), want)
			}
		}
		if len(c.want) == 0 && len(got) > 0 {
			t.Errorf("%s: %v", c.name, got)
		}
		if back := Backdated(old, next, day("2026-06-01")); c.dated >= 0 && len(back) != c.dated {
			t.Errorf("%s: dated back are %v", c.name, back)
		}
	}
	one, none := book(t, chat("m", base()...)), book(t)
	if added, gone := DiffPrices(none, one), DiffPrices(one, none); len(added) == 0 || len(added) != len(gone) || added[0].Old != nil || gone[0].New != nil {
		t.Errorf("added %v, gone %v", added, gone)
	}
	if back := append(Backdated(none, one, day("2027-01-01")), Backdated(one, none, day("2027-01-01"))...); len(back) > 0 {
		t.Errorf("a model that is new or gone is dated back: %v", back)
	}
}
