package domain

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// changing is rules of everybody and of a group that change twice each.
func changing(t interface{ Fatal(...any) }, costs *PriceBook) *SellBook {
	b, err := NewSellBook(costs, SellRules{Markup: percent("20"), Providers: map[string]Amount{"other": MustAmount("50")}, Dated: []SellChange{
		{day("2026-01-01"), SellRules{Markup: percent("25"), Models: map[string]SellPrice{"acme/big": {Fixed: rates("output=1")}}}},
		{day("2027-01-01"), SellRules{Providers: map[string]Amount{"other": MustAmount("60")}, Models: map[string]SellPrice{"acme/big": {Markup: percent("1")}}}},
	}}, []SellGroup{{Name: "friends", Accounts: []string{"alice"}, SellRules: SellRules{Dated: []SellChange{
		{day("2026-03-01"), SellRules{Markup: percent("0")}},
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSellDated: who pays what on which day, input and output price per million.
func TestSellDated(t *testing.T) {
	t.Parallel()
	costs := sellingBook(t)
	b := changing(t, costs)
	for _, c := range []struct{ account, model, at, want string }{
		{"x", "acme/big", "2025-12-31", "2.4 9.6"},
		{"x", "acme/big", "2026-01-01", "3.75 1"}, // its cost changes, too
		{"x", "acme/big", "2026-12-31", "3.75 1"},
		{"x", "acme/big", "2027-01-01", "3.03 9.09"}, // a model that is named again is as it says, whole
		{"x", "other/big", "2026-12-31", "10.5 10.5"},
		{"x", "other/big", "2027-01-01", "11.2 11.2"},
		{"alice", "other/big", "2026-02-28", "10.5 10.5"}, // the group says nothing yet
		{"alice", "other/big", "2026-03-01", "7 7"},
		{"alice", "acme/big", "2026-02-28", "3.75 1"},
		{"alice", "acme/big", "2026-03-01", "3 9"}, // the group's own rules come first
	} {
		_, cost, err := costs.Lookup(c.model, day(c.at))
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []time.Time{day(c.at), day(c.at).Add(24*time.Hour - 1)} {
			v := b.Price(c.account, cost, at)
			input, _ := v.Rates.Get(Input)
			output, _ := v.Rates.Get(Output)
			if got := input.Times(1_000_000).String() + " " + output.Times(1_000_000).String(); got != c.want || v.Cost() != cost {
				t.Errorf("%s pays for %s at %s %s, want %s", c.account, c.model, at, got, c.want)
			}
		}
	}
	_, cost, err := costs.Lookup("acme/big", day("2026-06-01"))
	if err != nil {
		t.Fatal(err)
	}
	sales, known := b.Sales("", cost)
	if !known || len(sales) != 2 || sales[0].Version != b.Price("x", cost, day("2026-06-01")) || !sales[1].From.Equal(day("2027-01-01")) {
		t.Errorf("sales are %+v", sales)
	}
	if sales, known := b.Sales("friends", cost); !known || len(sales) != 2 || sales[1].Version != cost {
		t.Errorf("the group's sales are %+v", sales)
	}
	if _, known := b.Sales("foes", cost); known {
		t.Error("a group that there is not")
	}
}

// TestSellDatesAreRefused: one line per case, and the field that is named.
func TestSellDatesAreRefused(t *testing.T) {
	t.Parallel()
	one := SellRules{Markup: percent("1")}
	many := make([]SellChange, maxSellDates+1)
	for i := range many {
		many[i] = SellChange{day("2026-01-01").AddDate(0, 0, i), one}
	}
	for _, c := range []struct {
		dated []SellChange
		want  string
	}{
		{[]SellChange{{time.Time{}, one}}, "dated[0].from: missing"},
		{[]SellChange{{day("2026-01-01").Add(time.Hour), one}}, "dated[0].from: 2026-01-01T01:00:00Z is not midnight UTC"},
		{[]SellChange{{day("2026-01-01"), one}, {day("2026-01-01"), one}}, "dated[1].from: not after the entry before it"},
		{[]SellChange{{day("2026-01-02"), one}, {day("2026-01-01"), one}}, "dated[1].from: not after the entry before it"},
		{[]SellChange{{day("2026-01-01"), SellRules{}}}, "dated[0]: it changes nothing"},
		{[]SellChange{{day("2026-01-01"), SellRules{Markup: percent("1"), Dated: []SellChange{{day("2026-01-02"), one}}}}}, "dated[0].dated: an entry has none"},
		{[]SellChange{{day("2026-01-01"), SellRules{Markup: percent("-101")}}}, "dated[0].markup: -101 is not between"},
		{[]SellChange{{day("2026-01-01"), SellRules{Models: map[string]SellPrice{"gone": {Markup: percent("1")}}}}}, "dated[0].models.gone: the price book has no such model"},
		{many, "dated: more than 32"},
	} {
		for _, group := range []bool{false, true} {
			general, groups, at := SellRules{Dated: c.dated}, []SellGroup(nil), ""
			if group {
				general, groups, at = SellRules{}, []SellGroup{{Name: "g", Accounts: []string{"a"}, SellRules: general}}, "groups.g."
			}
			_, err := NewSellBook(sellingBook(t), general, groups)
			if err == nil || !strings.Contains(err.Error(), at+c.want) {
				t.Errorf("%v, want %s%s", err, at, c.want)
			}
		}
	}
}

// TestSellDatedIsTheUndated: on any day the price is that of a sell book whose rules are that day's alone.
func TestSellDatedIsTheUndated(t *testing.T) {
	t.Parallel()
	costs := sellingBook(t)
	rapid.Check(t, func(t *rapid.T) {
		markups := rapid.SliceOfN(rapid.Int64Range(-100, 300), 1, 5).Draw(t, "markups")
		general := SellRules{}
		for i, m := range markups {
			rules := SellRules{Markup: new(MustAmount("1").Times(m))}
			if i == 0 {
				general = rules
				continue
			}
			general.Dated = append(general.Dated, SellChange{day("2026-01-01").AddDate(0, 0, 3*i), rules})
		}
		b, err := NewSellBook(costs, general, nil)
		if err != nil {
			t.Fatal(err)
		}
		n := rapid.IntRange(0, 20).Draw(t, "day")
		at := day("2026-01-01").AddDate(0, 0, n)
		plain, err := NewSellBook(costs, SellRules{Markup: new(MustAmount("1").Times(markups[min(n/3, len(markups)-1)]))}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range costs.Models() {
			for i := range m.Versions {
				if got, want := b.Price("x", &m.Versions[i], at), plain.Price("x", &m.Versions[i], at); got.ID != want.ID {
					t.Fatalf("%s: %s at %s, want %s", m.Name, got.ID, at, want.ID)
				}
			}
		}
	})
}
