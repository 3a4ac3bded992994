package domain

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// chargedAt is a charge of a model at a time, by a tariff.
func chargedAt(t interface{ Fatal(...any) }, tariff Tariff, account, model string, at time.Time, m Meters) *Charged {
	_, cost, err := tariff.Prices.Lookup(model, at)
	if err != nil {
		t.Fatal(err)
	}
	charge, err := tariff.Sell.Price(account, cost, at).Charge(m, "")
	if err != nil {
		t.Fatal(err)
	}
	return &Charged{Position: Position{3, 7}, Account: account, RequestID: requestNumber(1), At: at, Amount: charge.Amount,
		Data: &CommitData{Meters: m, Lines: charge.Lines, PriceVersion: charge.PriceVersion}}
}

// TestRerate: what a charge would have come to by another book, or why that cannot be said.
func TestRerate(t *testing.T) {
	t.Parallel()
	old := Tariff{Prices: book(t, chat("m", PriceVersion{Rates: rates("input=1 output=2 audio_in=3")}, PriceVersion{From: day("2026-07-01"), Rates: rates("input=2 output=2")}),
		chat("gone", PriceVersion{Rates: rates("input=1 output=2")}), chat("at@2020", PriceVersion{Rates: rates("input=1 output=2")}))}
	next := Tariff{Prices: book(t, chat("m", PriceVersion{From: day("2026-02-01"), Rates: rates("input=5 output=7"), ServiceTiers: map[string]Rates{"flex": rates("input=4")}},
		PriceVersion{From: day("2026-07-01"), Rates: rates("input=2 output=2")}), chat("at@2020", PriceVersion{Rates: rates("input=9 output=9")}))}
	sell, err := NewSellBook(next.Prices, SellRules{Markup: percent("100")}, []SellGroup{{Name: "g", Accounts: []string{"ann"}, SellRules: SellRules{
		Markup: percent("0"), Dated: []SellChange{{day("2026-03-01"), SellRules{Markup: percent("10")}}}}}})
	if err != nil {
		t.Fatal(err)
	}
	selling := Tariff{next.Prices, sell}
	million := Meters{Input: 1_000_000}
	for _, c := range []struct {
		name           string
		by             Tariff
		account, model string
		at             string
		change         func(*Charged)
		meters         Meters
		want           string
	}{
		{"by its own book", old, "x", "m", "2026-03-01T00:00:00Z", nil, million, "1"},
		{"by another", next, "x", "m", "2026-03-01T00:00:00Z", nil, million, "5"},
		{"in its tier", next, "x", "m", "2026-03-01T00:00:00Z", func(c *Charged) { c.Data.ServiceTier = "flex" }, million, "4"},
		{"sold", selling, "x", "m", "2026-03-01T00:00:00Z", nil, million, "10"},
		{"sold to a group", selling, "ann", "m", "2026-02-28T00:00:00Z", nil, million, "5"},
		{"sold to a group, by its date", selling, "ann", "m", "2026-03-01T00:00:02Z", nil, million, "5.5"},
		{"by a price that began within a day", next, "x", "m", "2026-03-01T00:00:00Z", func(c *Charged) { c.Data.PriceVersion = "acme/m@2026-01-01T12:00:00Z#01234567" }, million, "5"},
		{"from the cache", next, "x", "m", "2026-03-01T00:00:00Z", func(c *Charged) {
			c.Data.Cache, c.Data.PriceVersion = CacheHit, "acme/m@launch#01234567-20%#01234567"
		}, million, "4"},
		{"from the cache, as sold", selling, "x", "m", "2026-03-01T00:00:00Z", func(c *Charged) {
			c.Data.Cache, c.Data.PriceVersion = CacheHit, "acme/m@launch#01234567-50%#01234567-20%#01234567"
		}, million, "8"},
		{"from the cache, for nothing", next, "x", "m", "2026-03-01T00:00:00Z", func(c *Charged) {
			c.Data.Cache, c.Data.PriceVersion = CacheHit, "acme/m@launch#01234567-100%#01234567"
		}, million, "0"},
		{"from the cache, at the full price", next, "x", "m", "2026-03-01T00:00:00Z", func(c *Charged) {
			c.Data.Cache, c.Data.PriceVersion = CacheHit, "acme/m@launch#01234567-50%#01234567+0%#01234567"
		}, million, "5"},
		{"from the cache, for nobody knows what", next, "x", "m", "2026-03-01T00:00:00Z", func(c *Charged) { c.Data.Cache = CacheHit }, million, "acme/m: "},
		{"a name with an @", next, "x", "at@2020", "2026-03-01T00:00:00Z", nil, million, "9"},
		{"reserved on the day before", old, "x", "m", "2026-07-01T00:00:05Z", func(c *Charged) { c.Data.LatencyMillis = 6000 }, million, "1"},
		{"reserved on the day", old, "x", "m", "2026-07-01T00:00:05Z", func(c *Charged) { c.Data.LatencyMillis = 1000 }, million, "2"},
		{"reserved in the last milliseconds of the day before, as it was charged", old, "x", "m", "2026-07-01T00:00:00.5Z", func(c *Charged) {
			c.Data.PriceVersion = old.Prices.Named("m")[0].Versions[0].ID
		}, million, "1"},
		{"written to a journal on the day before", old, "x", "m", "2026-07-02T00:00:00Z", func(c *Charged) { c.Data.SpooledAt = "2026-06-30T23:59:59.000000Z" }, million, "1"},
		{"an absurd latency", old, "x", "m", "2026-07-09T00:00:00Z", func(c *Charged) { c.Data.LatencyMillis = 1 << 62 }, million, "2"},
		{"no such model", next, "x", "gone", "2026-03-01T00:00:00Z", nil, million, "acme/gone: the book has no such model"},
		{"no price then", next, "x", "m", "2026-01-31T00:00:00Z", nil, million, "acme/m: the book has no price of it on 2026-01-31"},
		{"a meter without a price", next, "x", "m", "2026-03-01T00:00:00Z", nil, Meters{AudioIn: 1}, "acme/m: price missing: audio_in in acme/m@2026-02-01#"},
		{"no version", next, "x", "m", "2026-03-01T00:00:00Z", func(c *Charged) { c.Data.PriceVersion = "free" }, million, `its price version "free" names no model`},
		{"two models", next, "x", "m", "2026-03-01T00:00:00Z", func(c *Charged) {
			c.Data.Lines = append(c.Data.Lines, Line{Meter: Output, Quantity: 2_000_000, PriceVersion: "acme/at@2020@launch#01234567+3%#89abcdef"})
		}, million, "23"},
		{"two models, of which one is gone", next, "x", "m", "2026-03-01T00:00:00Z", func(c *Charged) {
			c.Data.Lines = append(c.Data.Lines, Line{Meter: Output, Quantity: 2, PriceVersion: "acme/gone@launch#01234567"})
		}, million, "acme/gone: the book has no such model"},
	} {
		at, err := time.Parse(time.RFC3339Nano, c.at)
		if err != nil {
			t.Fatal(err)
		}
		charge := chargedAt(t, old, c.account, c.model, min2(at, day("2026-06-01")), c.meters)
		if charge.At = at; c.change != nil {
			c.change(charge)
		}
		got, err := c.by.Rerate(charge)
		text := got.Amount.String()
		if err != nil {
			if text = err.Error(); !errors.As(err, new(*Unrated)) {
				t.Errorf("%s: %T", c.name, err)
			}
		}
		if !strings.HasPrefix(text, c.want) || err == nil && text != c.want {
			t.Errorf("%s: %s, want %s", c.name, text, c.want)
		}
	}
}

func min2(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// TestRerateByItsOwnBook: whatever was charged is what re-rating by the same books comes to.
func TestRerateByItsOwnBook(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		prices := book(t, chat("m", listedVersions().Draw(t, "version")))
		sell, err := NewSellBook(prices, SellRules{Markup: new(MustAmount("1").Times(rapid.Int64Range(-100, 300).Draw(t, "markup")))}, nil)
		if err != nil {
			t.Skip(err) // dearer than a unit may be
		}
		tariff := Tariff{prices, sell}
		_, cost, err := prices.Lookup("m", day("2026-01-01"))
		if err != nil {
			t.Fatal(err)
		}
		m, _ := cost.Fold(usages().Draw(t, "usage"))
		c := chargedAt(t, tariff, "x", "m", day("2026-01-01"), m)
		again, err := tariff.Rerate(c)
		if err != nil || !again.Amount.Equal(c.Amount) {
			t.Fatalf("%s was charged, %s is it again, %v", c.Amount, again.Amount, err)
		}
		if op, differs := c.Correction(again, "r", "a", false); differs {
			t.Fatalf("%+v", op)
		}
	})
}

// TestCorrectionsConverge: however often a charge is corrected, to whatever books in whatever order, what was
// paid in the end is what the last of them says; and no reference is used twice.
func TestCorrectionsConverge(t *testing.T) {
	t.Parallel()
	var tariffs []Tariff
	for _, input := range []string{"1", "2", "3"} {
		tariffs = append(tariffs, Tariff{Prices: book(t, chat("m", PriceVersion{Rates: rates("output=1 input=" + input)}))})
	}
	rapid.Check(t, func(t *rapid.T) {
		c := chargedAt(t, tariffs[0], "x", "m", day("2026-01-01"), Meters{Input: 1000})
		used := map[string]bool{}
		for _, n := range rapid.SliceOfN(rapid.IntRange(0, len(tariffs)-1), 1, 8).Draw(t, "books") {
			again, err := tariffs[n].Rerate(c)
			if err != nil {
				t.Fatal(err)
			}
			op, differs := c.Correction(again, "r", "a", true)
			if differs != !again.Amount.Equal(c.Net()) {
				t.Fatalf("%s is to be %s: %+v", c.Net(), again.Amount, op)
			}
			if !differs {
				continue
			}
			if used[op.Key()] || !strings.HasPrefix(op.Key(), fmt.Sprintf("rerate:%s:", c.RequestID)) || len(op.Key()) > MaxReference {
				t.Fatalf("the reference %q", op.Key())
			}
			used[op.Key()] = true
			if err := (Command{ID: CommandID(requestNumber(4)), Account: "x", Op: op}).Validate(); err != nil {
				t.Fatal(err)
			}
			switch o := op.(type) {
			case Credit:
				c.Corrected, c.Uses = c.Corrected.Sub(o.Amount), append(c.Uses, o.Data.Reference)
			case Debit:
				c.Corrected, c.Uses = c.Corrected.Add(o.Amount), append(c.Uses, o.Data.Reference)
			}
			if again, err = tariffs[n].Rerate(c); err != nil || !again.Amount.Equal(c.Net()) {
				t.Fatalf("%s was paid and not %s", c.Net(), again.Amount)
			}
		}
	})
}

// TestRerater: rows by account, model and day, totals of all, what cannot be priced by why, and the plan.
func TestRerater(t *testing.T) {
	t.Parallel()
	old := Tariff{Prices: book(t, chat("m", PriceVersion{Rates: rates("input=3 output=2")}), chat("n", PriceVersion{Rates: rates("input=1 output=1")}))}
	r := NewRerater(Tariff{Prices: book(t, chat("m", PriceVersion{Rates: rates("input=2 output=2"), Tiers: []Tier{{1_000_000, rates("input=4")}}}))})
	add := func(account, model, at string, input int64, corrected string) {
		c := chargedAt(t, old, account, model, day(at), Meters{Input: input})
		c.Corrected = MustAmount(corrected)
		r.Add(c)
	}
	add("b", "m", "2026-01-02", 1_000_000, "0")
	add("a", "m", "2026-01-02", 1_000_000, "0")
	add("a", "m", "2026-01-01", 1_000_000, "-1") // has been corrected
	add("a", "m", "2026-01-02", 2_000_000, "-0.5")
	add("a", "n", "2026-01-02", 1_000_000, "-0.25")
	add("c", "n", "2026-01-02", 1_000_000, "0")
	got := jsonText(r.Report())
	const want = `{"rows":[` +
		`{"account":"a","model":"acme/m","day":"2026-01-01","charges":1,"charged":"3","corrected":"-1","rerated":"2","difference":"0"},` +
		`{"account":"a","model":"acme/m","day":"2026-01-02","charges":2,"charged":"9","corrected":"-0.5","rerated":"10","difference":"1.5"},` +
		`{"account":"b","model":"acme/m","day":"2026-01-02","charges":1,"charged":"3","corrected":"0","rerated":"2","difference":"-1"}],"rows_left_out":0,` +
		`"total":{"charges":4,"charged":"15","corrected":"-1.5","rerated":"14","difference":"0.5"},` +
		`"unrated":[{"model":"acme/n","problem":"the book has no such model","charges":2,"charged":"1.75","first":"3:7"}],"unrated_left_out":0,` +
		`"plan":{"credits":2,"credited":"2","debits":1,"debited":"2.5"}}`
	if got != want {
		t.Errorf("the report is\n%s\nwant\n%s", got, want)
	}
}
