package domain

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// marked is a markup, and others from days on: `20 2026-03-01=25`.
func marked(text string) (r SellRules) {
	for i, word := range strings.Fields(text) {
		from, markup, dated := strings.Cut(word, "=")
		switch {
		case dated:
			r.Dated = append(r.Dated, SellChange{day(from), SellRules{Markup: percent(markup)}})
		case i == 0 && word != "-":
			r.Markup = percent(word)
		}
	}
	return r
}

// selling is a sell book of everybody's rules and, after a semicolon, those of the group friends, which alice is in;
// "" is none.
func selling(t interface{ Fatal(...any) }, costs *PriceBook, text string) *SellBook {
	if text == "" {
		return nil
	}
	general, friends, grouped := strings.Cut(text, ";")
	var groups []SellGroup
	if grouped {
		groups = []SellGroup{{Name: "friends", Accounts: []string{"alice", "a_*"}, SellRules: marked(friends)}}
	}
	b, err := NewSellBook(costs, marked(general), groups)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// resoldText lists what is priced anew: the group, the markup, from and until.
func resoldText(prices []Repricing) string {
	var out []string
	for _, r := range prices {
		_, rule, _ := strings.Cut(r.Version, "+")
		rule, _, _ = strings.Cut(rule, "#")
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s..%s", r.Payers.Group, rule, StartText(r.From), StartText(r.Until))))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// TestResold: which times the dated entries of a sell book price otherwise than the book before, and otherwise than
// recorded, where that book's versions are. The model's cost changes on 1 May.
func TestResold(t *testing.T) {
	t.Parallel()
	costs := book(t, chat("m", PriceVersion{Rates: rates("input=1 output=2")}, PriceVersion{From: day("2026-05-01"), Rates: rates("input=3 output=4")}))
	const ever = "..9999-12-31"
	for _, c := range []struct{ was, next, want, recorded string }{
		{"20 2026-06-01=25", "20 2026-06-01=25", "", ""},
		{"20", "30", "", ""},
		{"20", "", "", ""},
		{"", "20", "", ""},
		{"20", "20 2026-06-01=25", "25% 2026-06-01" + ever, "25% 2026-06-01" + ever},
		{"", "- 2026-06-01=25", "25% 2026-06-01" + ever, "25% 2026-06-01" + ever},
		{"20", "20 2026-03-01=25", "25% 2026-03-01..2026-05-01, 25% 2026-05-01" + ever, "25% 2026-03-01..2026-05-01, 25% 2026-05-01" + ever}, // both costs
		{"20", "20 2026-06-01=25 2026-07-01=20", "25% 2026-06-01..2026-07-01", "25% 2026-06-01..2026-07-01"},                                 // then it is the old one again
		{"20 2026-06-01=25", "20 2026-06-01=26", "26% 2026-06-01" + ever, "26% 2026-06-01" + ever},
		{"20 2026-07-01=25", "20 2026-06-01=25", "25% 2026-06-01..2026-07-01", ""}, // of a recorded version
		{"20 2026-06-01=25", "20 2026-07-01=25", "", ""},                           // what holds before it has no day
		{"20 2026-06-01=25 2026-08-01=30", "20 2026-06-01=25", "25% 2026-08-01" + ever, ""},
		{"20 2026-06-01=25", "25", "", ""}, // folded into what has no day
		{"20 2026-06-01=25", "40", "", ""},
		{"20 2026-06-01=25", "40 2026-06-01=25", "", ""},
		{"20 2026-06-01=25", "20 2026-06-01=20", "20% 2026-06-01" + ever, ""}, // at what is paid without a day
		{"20", "20 2026-06-01=0", "2026-06-01" + ever, ""},                    // at cost
		{"20;5", "20;7", "", ""},
		{"20", "20;7", "", ""},
		{"20 2026-06-01=25", "20 2026-06-01=25;7", "", ""},
		{"20 2026-06-01=25;7", "20 2026-06-01=25;-", "", ""}, // the group's own goes, everybody's dated one holds
		{"20;5", "20;5 2026-06-01=7", "friends 7% 2026-06-01" + ever, "friends 7% 2026-06-01" + ever},
		{"20", "20;5 2026-06-01=7", "friends 7% 2026-06-01" + ever, "friends 7% 2026-06-01" + ever},
		{"20;5", "20 2026-06-01=25;5", "25% 2026-06-01" + ever, "25% 2026-06-01" + ever},
		{"20;-", "20 2026-06-01=25;-", "25% 2026-06-01" + ever + ", friends 25% 2026-06-01" + ever, "25% 2026-06-01" + ever + ", friends 25% 2026-06-01" + ever},
		{"5;20", "5 2026-06-01=20;20", "20% 2026-06-01" + ever, ""}, // recorded as another group's
	} {
		was, next := selling(t, costs, c.was), selling(t, costs, c.next)
		if got := resoldText(next.Resold(was, costs)); got != c.want {
			t.Errorf("%q after %q: %q, want %q", c.next, c.was, got, c.want)
		}
		record := RecordOf(costs)
		record.sell = SellVersions(was)
		if got := resoldText(record.Resold(next)); got != c.recorded {
			t.Errorf("%q after %q, recorded: %q, want %q", c.next, c.was, got, c.recorded)
		}
	}
}

// TestResoldMixed: what an entry and rules without a day make together: where the latter change, the entry prices
// nothing anew. A new model, and a cost that is another, are not the sell book's affair.
func TestResoldMixed(t *testing.T) {
	t.Parallel()
	costs := book(t, chat("m", PriceVersion{Rates: rates("input=1 output=2")}))
	more := book(t, chat("m", PriceVersion{Rates: rates("input=1.5 output=2")}), chat("n", PriceVersion{Rates: rates("input=1 output=2")}))
	sold := func(costs *PriceBook, output, from, markup string) *SellBook {
		rules := marked("20 " + from + "=" + markup)
		rules.Models = map[string]SellPrice{"m": {Fixed: rates("output=" + output)}}
		b, err := NewSellBook(costs, rules, nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	was := sold(costs, "5", "2026-06-01", "25")
	if got := sold(costs, "6", "2026-06-01", "25").Resold(was, costs); len(got) != 0 {
		t.Errorf("a fixed price without a day: %v", got)
	}
	if got := sold(costs, "5", "2026-06-01", "26").Resold(was, costs); len(got) != 1 {
		t.Errorf("an entry's markup: %v", got)
	}
	if got := sold(more, "5", "2026-06-01", "25").Resold(was, costs); len(got) != 0 {
		t.Errorf("another cost: %v", got)
	}
	if got := sold(more, "5", "2026-06-01", "26").Resold(was, costs); len(got) != 1 || got[0].Model != "acme/m" {
		t.Errorf("another cost, a model more and another markup: %v", got)
	}
	if got := RecordOf(costs).Resold(sold(more, "5", "2026-06-01", "26")); len(got) != 1 || got[0].Model != "acme/m" {
		t.Errorf("recorded: %v", got)
	}
}

// TestResoldIsWhatIsPaid: at any time since a day, what an account pays is what is listed, or what it paid before.
func TestResoldIsWhatIsPaid(t *testing.T) {
	t.Parallel()
	costs := sellingBook(t)
	drawn := func(t *rapid.T, name string) string {
		rules := func(name string) (text string) {
			text = rapid.SampledFrom([]string{"-", "5", "7"}).Draw(t, name)
			for d := 1; d < 10; d++ {
				if rapid.IntRange(0, 2).Draw(t, name+"'s entry") == 0 {
					text += fmt.Sprintf(" 2026-01-%02d=%d", d, rapid.IntRange(4, 7).Draw(t, name+"'s markup"))
				}
			}
			return text
		}
		return rules(name) + ";" + rules(name+"'s friends")
	}
	rapid.Check(t, func(t *rapid.T) {
		was, next := selling(t, costs, drawn(t, "was")), selling(t, costs, drawn(t, "next"))
		prices := next.Resold(was, costs)
		for d := range 12 {
			at := day("2025-12-31").AddDate(0, 0, d)
			for _, account := range []string{"alice", "bob"} {
				for _, name := range []string{"acme/big", "other/big"} {
					_, cost, err := costs.Lookup(name, at)
					if err != nil {
						t.Fatal(err)
					}
					old, now := was.Price(account, cost, at), next.Price(account, cost, at)
					e := &Event{Account: account, OccurredAt: at, Data: &CommitData{PriceVersion: old.ID}}
					charged := slices.ContainsFunc(prices, func(r Repricing) bool { _, yes := r.Charged(e); return yes })
					group := next.groupOf(account)
					dated := slices.ContainsFunc(next.rulesOf(group), func(r *SellRules) bool { return len(r.Dated) > 0 && !at.Before(r.Dated[0].From) })
					if charged && old == now || !charged && old.ID != now.ID && dated && sameUndated(was, next, group) {
						t.Fatalf("%s for %s at %s: %s, before %s, charged otherwise: %t", account, name, at, now.ID, old.ID, charged)
					}
				}
			}
		}
	})
}

// sameUndated says whether two books have the same rules without a day at a place.
func sameUndated(a, b *SellBook, place int) bool {
	text := func(b *SellBook) (out string) {
		for _, r := range b.rulesOf(place) {
			out += fmt.Sprint(r.Markup, ";")
		}
		return out
	}
	return text(a) == text(b)
}

// TestChargedSold: which charges were made by another price than those of a group pay for a model.
func TestChargedSold(t *testing.T) {
	t.Parallel()
	m := chat("m", PriceVersion{Rates: rates("input=1 output=2"), Regions: map[string]Amount{"us": MustAmount("1.1")}})
	costs := book(t, m, chat("o", PriceVersion{Rates: rates("input=1 output=2")}))
	cost := &costs.Named("m")[0].Versions[0]
	versions := map[string]*PriceVersion{"cost": cost}
	for name, text := range map[string]string{"plus": "10", "minus": "-10"} {
		versions[name] = selling(t, costs, text).Price("x", cost, time.Time{})
	}
	cached := func(v *PriceVersion) *PriceVersion {
		v, err := v.Cached(90)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	in := func(v *PriceVersion) string { v, _ = v.In("us"); return v.ID }
	other := costs.Named("o")[0].Versions[0].ID
	next := selling(t, costs, "20 2026-05-01=-10;20 2026-05-01=0")
	prices := map[string]*Repricing{}
	for _, r := range next.Resold(selling(t, costs, "3;3"), costs) {
		if r.Model == "acme/m" {
			prices[r.Payers.Group] = &r
		}
	}
	cases := []struct {
		data      CommitData
		discount  bool // whether it contradicts -10 % for bob, who is in no group
		atTheCost bool // and the cost itself for alice, who is a friend
	}{
		{CommitData{PriceVersion: versions["minus"].ID, CostVersion: cost.ID}, false, true},
		{CommitData{PriceVersion: versions["plus"].ID, CostVersion: cost.ID}, true, true},
		{CommitData{PriceVersion: cost.ID}, true, false},
		{CommitData{PriceVersion: in(versions["minus"]), CostVersion: in(cost)}, false, true},
		{CommitData{PriceVersion: in(cost)}, true, false},
		{CommitData{PriceVersion: cached(versions["minus"]).ID, Cache: CacheHit}, false, true},
		{CommitData{PriceVersion: in(cached(versions["minus"])), Cache: CacheHit}, false, true},
		{CommitData{PriceVersion: versions["minus"].ID, Cache: CacheHit}, false, false}, // 90 % of the cost reads so, too
		{CommitData{PriceVersion: cached(cost).ID, Cache: CacheHit}, false, false},
		{CommitData{PriceVersion: cached(versions["plus"]).ID, Cache: CacheHit}, true, true},
		{CommitData{PriceVersion: other, Lines: []Line{{PriceVersion: versions["plus"].ID}}}, true, true},
		{CommitData{PriceVersion: other, CostLines: []Line{{PriceVersion: cost.ID}}}, false, false},
		{CommitData{PriceVersion: other}, false, false},
	}
	for i := range cases {
		c := &cases[i]
		for _, of := range []struct {
			account, group string
			want           bool
		}{{"bob", "", c.discount}, {"alice", "", false}, {"alice", "friends", c.atTheCost}, {"a_b", "friends", c.atTheCost}, {"bob", "friends", false}} {
			r := prices[of.group]
			for _, at := range []time.Time{r.From, r.From.Add(-1)} {
				want := of.want && at.Equal(r.From)
				by, charged := r.Charged(&Event{Account: of.account, OccurredAt: at, Data: &c.data})
				if charged != want || charged && !strings.HasPrefix(by, "acme/m@") {
					t.Errorf("%+v of %s for %q at %s: %t", c.data, of.account, of.group, at, charged)
				}
			}
		}
	}
	if got := prices["friends"].String(); got != "acme/m from 2026-05-01 ("+cost.ID+") for the group friends" {
		t.Error(got)
	}
	if got := prices[""].String(); !strings.HasSuffix(got, "%#"+versions["minus"].ID[len(versions["minus"].ID)-8:]+") for accounts in no group") {
		t.Error(got)
	}
}
