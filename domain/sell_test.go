package domain

import (
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func percent(s string) *Amount { a := MustAmount(s); return &a }

// sellingBook has two providers, a dated price, a tier and a service tier.
func sellingBook(t interface{ Fatal(...any) }) *PriceBook {
	big := chat("big", PriceVersion{Rates: rates("input=2 cached_input=0.5 output=8")},
		PriceVersion{From: day("2026-01-01"), Rates: rates("input=3 output=9 audio_in=5"),
			Tiers: []Tier{{100, rates("input=6")}}, ServiceTiers: map[string]Rates{"flex": rates("input=1")}})
	small := chat("small", PriceVersion{Rates: rates("input=0.000001 output=0.000003 web_search=0.01/unit")})
	other := chat("big", PriceVersion{Rates: rates("input=7 output=7")})
	other.Provider = "other"
	return book(t, big, small, other)
}

// TestSellRules: who pays what, one line per case: the account, the model and its day, the input and output
// price per million, and the rule that the ID names.
func TestSellRules(t *testing.T) {
	t.Parallel()
	costs := sellingBook(t)
	general := SellRules{Markup: percent("20"), Providers: map[string]Amount{"other": MustAmount("50")},
		Models: map[string]SellPrice{"acme/small": {Fixed: rates("output=1")}}}
	b, err := NewSellBook(costs, general, []SellGroup{
		{Name: "friends", Accounts: []string{"alice", "auth0|*"}, SellRules: SellRules{Markup: percent("0")}},
		{Name: "partners", Accounts: []string{"*", "bob"}, SellRules: SellRules{
			Models: map[string]SellPrice{"big": {Markup: percent("-10"), Fixed: rates("output=4")}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	none, err := NewSellBook(costs, general, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		book                            *SellBook
		account, model, at, want, group string
	}{
		{none, "x", "acme/big", "2025-01-01", "2.4 9.6 +20%#", ""},
		{none, "x", "acme/big", "2026-01-01", "3.6 10.8 +20%#", ""},
		{none, "x", "other/big", "2026-01-01", "10.5 10.5 +50%#", ""},
		{none, "x", "small", "2026-01-01", "0.000001 1 +20%+fixed#", ""}, // 1.2 of 1e-12 is 1
		{b, "alice", "acme/big", "2025-01-01", "2 8 ", "friends"},
		{b, "alice", "small", "2026-01-01", "0.000001 0.000003 ", "friends"},
		{b, "auth0|7", "other/big", "2026-01-01", "7 7 ", "friends"},
		{b, "bob", "acme/big", "2026-01-01", "2.7 4 -10%+fixed#", "partners"},
		{b, "bob", "other/big", "2026-01-01", "6.3 4 -10%+fixed#", "partners"},
		{b, "bob", "small", "2026-01-01", "0.000001 1 +20%+fixed#", "partners"},
		{nil, "bob", "small", "2026-01-01", "0.000001 0.000003 ", ""},
	} {
		_, cost, err := costs.Lookup(c.model, day(c.at))
		if err != nil {
			t.Fatal(err)
		}
		v := c.book.Price(c.account, cost, day(c.at))
		input, _ := v.Rates.Get(Input)
		output, _ := v.Rates.Get(Output)
		rule, ofCost := strings.CutPrefix(v.ID, cost.ID)
		got := input.Times(1_000_000).String() + " " + output.Times(1_000_000).String() + " " + rule
		if !strings.HasPrefix(got, c.want) || (c.want[len(c.want)-1] == ' ') != (v == cost) || !ofCost || v.Cost() != cost || c.book.Group(c.account) != c.group {
			t.Errorf("%s pays for %s at %s %s of %q, want %s of %q", c.account, c.model, c.at, got, c.book.Group(c.account), c.want, c.group)
		}
	}
	ids := map[string]bool{}
	for _, v := range b.Versions() {
		ids[v.ID] = true
	}
	if len(ids) != len(b.Versions()) || len(ids) != 4+4+3 || (*SellBook)(nil).Versions() != nil || b.Price("x", new(PriceVersion), time.Time{}).ID != "" {
		t.Errorf("versions are %v", ids)
	}
}

// TestSellVersion: every rate of a version is derived, and what costs the same is sold at the same.
func TestSellVersion(t *testing.T) {
	t.Parallel()
	costs := book(t, chat("m", PriceVersion{Rates: rates("input=2 output=8 cache_write_5m=3 audio_in=5 cached_audio_in=1"), Tiers: []Tier{{100, rates("input=4")}},
		ServiceTiers: map[string]Rates{"flex": rates("input=1 output=4")}}))
	_, cost, _ := costs.Lookup("m", day("2026-01-01"))
	id := ""
	for _, c := range []struct{ markup, fixed, meter, want string }{
		{"50", "", "input", "3 6 1.5 6"}, {"50", "", "cached_input", "3 6 1.5 6"}, {"50", "", "requests", "0 0 0 0"},
		{"50", "", "cache_write_5m", "4.5 4.5 4.5 4.5"}, {"50", "", "cache_write_1h", "- - - -"},
		{"50", "input=7", "input", "7 7 7 7"}, {"50", "input=7", "cached_input", "7 7 7 7"}, {"50", "input=7", "cache_write_5m", "4.5 4.5 4.5 4.5"},
		{"50", "output=7 reasoning=9", "reasoning", "9 9 9 9"}, {"50", "output=7", "reasoning", "7 7 7 7"}, {"50", "audio_in=9", "cached_audio_in", "1.5 1.5 1.5 1.5"},
		{"-100", "", "output", "0 0 0 0"}, {"0.00001", "", "output", "8.000001 8.000001 4 8.000001"},
	} {
		rule := SellPrice{Markup: percent(c.markup), Fixed: rates(c.fixed)}
		b, err := NewSellBook(costs, SellRules{Models: map[string]SellPrice{"m": rule}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		v, meter := b.Price("x", cost, time.Time{}), Input
		for m := range MeterCount {
			if Meter(m).String() == c.meter {
				meter = Meter(m)
			}
		}
		flex := v.ServiceTiers["flex"]
		got := []string{}
		for _, r := range []*Rates{&v.Rates, &v.Tiers[0].Rates, &flex, &v.service["flex"][1]} {
			text := "-"
			if unit, ok := r.Get(meter); ok {
				text = unit.Times(1_000_000).String()
			}
			got = append(got, text)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%+v: got %v", c, got)
		}
		id = v.ID
	}
	// Pinned, as TestVersionID is.
	if want := "acme/m@launch#22c3d020+0.00001%#5d82a757"; id != want {
		t.Errorf("the ID is %s, was %s", id, want)
	}
	if unit, _ := cost.Rates.Get(Input); unit.Times(1_000_000).String() != "2" {
		t.Error("the cost has changed")
	}
}

func TestNewSellBookRefuses(t *testing.T) {
	t.Parallel()
	costs := sellingBook(t)
	negative := rates("input=1")
	negative.Set(Output, MustAmount("-1"))
	group := func(name string, accounts ...string) SellGroup { return SellGroup{Name: name, Accounts: accounts} }
	for _, c := range []struct {
		general SellRules
		groups  []SellGroup
		want    string
	}{
		{SellRules{Markup: percent("-100.1")}, nil, "markup: -100.1 is not between"},
		{SellRules{Markup: percent("100001")}, nil, "markup: 100001 is not between"},
		{SellRules{Providers: map[string]Amount{"nobody": Zero}}, nil, "providers.nobody: the price book has no model of it"},
		{SellRules{Providers: map[string]Amount{"acme": MustAmount("-101")}}, nil, "providers.acme: -101 is not"},
		{SellRules{Models: map[string]SellPrice{"none": {Markup: percent("1")}}}, nil, "models.none: the price book has no such model"},
		{SellRules{Models: map[string]SellPrice{"big": {}}}, nil, "models.big: neither a markup nor a price"},
		{SellRules{Models: map[string]SellPrice{"big": {Markup: percent("-200")}}}, nil, "models.big.markup: -200 is not"},
		{SellRules{Models: map[string]SellPrice{"big": {Fixed: negative}}}, nil, "models.big.prices.output: -1 is negative"},
		{SellRules{Models: map[string]SellPrice{"big": {Fixed: rates("web_search=1/unit")}}}, nil, "models.big.prices.web_search: the price book has no price"},
		{SellRules{}, []SellGroup{group("a b", "x")}, "groups.a b: not a name"},
		{SellRules{}, []SellGroup{group("a", "x"), group("a", "y")}, "groups.a: the name is taken twice"},
		{SellRules{}, []SellGroup{group("a")}, "groups.a.accounts: 0 of them"},
		{SellRules{}, make([]SellGroup, maxSellGroups+1), "groups: more than 64"},
		{SellRules{}, []SellGroup{{Name: "a", Accounts: []string{"x"}, SellRules: SellRules{Markup: percent("-101")}}}, "groups.a.markup: -101"},
	} {
		_, err := NewSellBook(costs, c.general, c.groups)
		var bad *PriceBookError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want %s", err, c.want)
		}
	}
	dear := book(t, chat("m", PriceVersion{Rates: rates("input=1 output=900000/unit")}))
	if _, err := NewSellBook(dear, SellRules{Markup: percent("20")}, nil); err == nil || !strings.Contains(err.Error(), "output would be sold at more than") {
		t.Errorf("beyond the range: %v", err)
	}
}

func TestMatchText(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"a", "a", true}, {"a", "ab", false}, {"", "", true}, {"*", "", true}, {"*", "x|y/z", true}, {"a*", "abc", true}, {"a*", "ba", false},
		{"*c", "abc", true}, {"*c", "cb", false}, {"a*c", "ac", true}, {"ab*b", "ab", false}, {"a*b*c", "aXbYc", true}, {"a*b*c", "acb", false},
		{"**", "x", true}, {"a**c", "abc", true}, {"*a*a", "a", false},
	} {
		if got := MatchText(c.pattern, c.text); got != c.want {
			t.Errorf("%q matches %q: %v", c.pattern, c.text, got)
		}
	}
}

// soldVersions generates what is sold, by any rule, of any version.
func soldVersions() *rapid.Generator[*PriceVersion] {
	return rapid.Custom(func(t *rapid.T) *PriceVersion {
		cost := versions().Draw(t, "cost")
		markup := MustAmount("0.0001").Times(rapid.Int64Range(-1_000_000, 5_000_000).Draw(t, "markup"))
		var fixed Rates
		for i, priced := range cost.Rates.priced {
			if priced && rapid.IntRange(0, 3).Draw(t, "fixed") == 0 {
				fixed.Set(Meter(i), unitPrices().Draw(t, "unit"))
			}
		}
		v, err := cost.sold(markup, &fixed)
		if err != nil {
			t.Fatal(err)
		}
		return v
	})
}

// TestSaleExplainsItself: the lines sum to the charge, the bound holds it, and the cost explains the same
// meters.
func TestSaleExplainsItself(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		v := soldVersions().Draw(t, "version")
		n := needs(v).Draw(t, "need")
		if n.ServiceTier == "turbo" && v.service["turbo"] == nil {
			n.ServiceTier = "auto"
		}
		m, _ := v.Fold(within(v, n).Draw(t, "usage"))
		tier := answered(n.ServiceTier).Draw(t, "answered")
		b, errBound := v.Bound(n)
		c, errCharge := v.Charge(m, tier)
		cost, errCost := v.Cost().Charge(m, tier)
		if err := errors.Join(errBound, errCharge, errCost); err != nil {
			t.Fatal(err)
		}
		sum := Zero
		for i, l := range c.Lines {
			sum = sum.Add(l.Amount)
			if l.Meter != cost.Lines[i].Meter || l.Quantity != cost.Lines[i].Quantity || !l.UnitPrice.InRange() {
				t.Fatalf("sold %+v of %+v", l, cost.Lines[i])
			}
		}
		if !sum.Equal(c.Amount) || b.Amount.Less(c.Amount) || len(c.Lines) != len(cost.Lines) {
			t.Fatalf("%v is charged %s within %s as %v", m, c.Amount, b.Amount, c.Lines)
		}
	})
}

// TestMarkupRoundsOnce: half up to 1e-12, calculated apart.
func TestMarkupRoundsOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		unit := unitPrices().Draw(t, "unit")
		markup := rapid.Int64Range(-1_000_000, 5_000_000).Draw(t, "markup") // 1e-4 per cent
		exact := new(big.Rat).SetFrac64(1_000_000+markup, 1_000_000)
		units, _ := new(big.Rat).SetString(unit.Times(1_000_000_000_000).String())
		exact.Mul(exact, units).Add(exact, big.NewRat(1, 2))
		floor := new(big.Int).Quo(exact.Num(), exact.Denom()) // of what is not negative
		want, err := AmountOf(floor, -AmountScale)
		if got := unit.raised(MustAmount("0.0001").Times(markup)); err != nil || !got.Equal(want) {
			t.Fatalf("%s raised by %d is %s, want %s", unit, markup, got, want)
		}
	})
}

// TestMarkupOfNothingIsTheCost: it has the cost's ID, and is the cost.
func TestMarkupOfNothingIsTheCost(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		cost := versions().Draw(t, "cost")
		if v, err := cost.sold(MustAmount("0.0"), &Rates{}); err != nil || v != cost || v.Cost() != cost {
			t.Fatalf("%v, %v", v, err)
		}
	})
}

// TestSplittingMetersChangesNoTotal: where a detail costs what its whole costs, it does not matter how many
// of the tokens are reported as the detail.
func TestSplittingMetersChangesNoTotal(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		v := soldVersions().Draw(t, "version")
		if rapid.Bool().Draw(t, "at cost") {
			v = v.Cost()
		}
		d := rapid.SampledFrom(detailsOf[:3]).Draw(t, "detail")
		tier := rapid.SampledFrom(tierNames).Draw(t, "tier")
		total := rapid.Int64Range(0, MaxTokens).Draw(t, "total")
		part := rapid.Int64Range(0, total).Draw(t, "part")
		var whole, split Meters
		whole[d.whole], split[d.whole], split[d.detail] = total, total-part, part
		one, errOne := v.Charge(whole, tier)
		two, errTwo := v.Charge(split, tier)
		if err := errors.Join(errOne, errTwo); err != nil {
			t.Fatal(err)
		}
		levels, named := v.service[tier]
		if !named {
			levels = v.levels
		}
		r := &levels[v.crossed(whole.InputTokens())]
		owed := r.unit[d.detail].Sub(r.unit[d.whole]).Times(part) // 0 where they cost the same
		if !two.Amount.Equal(one.Amount.Add(owed)) {
			t.Fatalf("%d with %d of %s: %s and %s", total, part, d.detail, one.Amount, two.Amount)
		}
	})
}

func TestSellPriceDoesNotAllocate(t *testing.T) {
	costs := sellingBook(t)
	b, err := NewSellBook(costs, SellRules{Markup: percent("20")}, []SellGroup{{Name: "g", Accounts: []string{"a*z", "*|b"}}})
	if err != nil {
		t.Fatal(err)
	}
	_, cost, _ := costs.Lookup("big", day("2026-01-01"))
	if n := testing.AllocsPerRun(100, func() { b.Price("auth0|b", cost, time.Time{}) }); n != 0 {
		t.Errorf("Price allocates %v times", n)
	}
}

// TestCachedPrice: a part of every price, rounded once, never above it, which its ID leads back to.
func TestCachedPrice(t *testing.T) {
	t.Parallel()
	costs := sellingBook(t)
	sold, err := NewSellBook(costs, SellRules{Markup: percent("-12.5")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	all := VersionsOf(costs, sold)
	known := func(id string) *PriceVersion { return all[id] }
	for id, v := range all {
		for percent := range 101 {
			c, err := v.Cached(percent)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range []Meter{Input, CachedInput, Output, AudioIn, WebSearch} {
				full, priced := v.Rates.Get(m)
				part, still := c.Rates.Get(m)
				exact := full.Times(int64(percent))
				if priced != still || full.Less(part) || MustAmount("0.00000000005").Less(part.Times(100).Sub(exact)) || part.Times(100).Less(exact.Sub(MustAmount("0.00000000005"))) {
					t.Errorf("%s at %d %%: %s of %s", id, percent, part, full)
				}
			}
			found := CachedVersion(c.ID, known)
			if price, part, ok := cachedRule(c.ID); found == nil || found.ID != c.ID || !ok || price != id || part != percent {
				t.Errorf("%s at %d %%: %s leads to %v", id, percent, c.ID, found)
			}
		}
	}
	for _, id := range []string{"", "#", "a#12345678", "a#12345678-10%#12345678", "acme/big@launch", strings.Repeat("#", 40), "a#1234567-1%"} {
		if v := CachedVersion(id, known); v != nil {
			t.Errorf("%q leads to %s", id, v.ID)
		}
	}
}
