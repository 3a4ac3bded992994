package domain

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// auditedBook has a model with a threshold and a service tier, and another one.
func auditedBook(t testing.TB) *PriceBook {
	t.Helper()
	rates := func(in, out string) (r Rates) {
		r.Set(Input, MustAmount(in))
		r.Set(Output, MustAmount(out))
		r.Set(WebSearch, MustAmount("0.01"))
		return r
	}
	b, err := NewPriceBook([]Model{
		{Provider: "p", Name: "big", Mode: ModeChat, Context: 1_000_000, MaxOutput: 1000, Versions: []PriceVersion{{Rates: rates("0.000002", "0.00001"),
			Tiers: []Tier{{1000, rates("0.000004", "0.00002")}}, ServiceTiers: map[string]Rates{"flex": rates("0.000001", "0.000005")}}}},
		{Provider: "p", Name: "small", Mode: ModeChat, Context: 1_000_000, MaxOutput: 1000, Versions: []PriceVersion{{Rates: rates("0.0000001", "0.0000004")}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func lookingIn(b *PriceBook) func(string) *PriceVersion {
	all := VersionsOf(b, nil)
	return func(id string) *PriceVersion { return all[id] }
}

// pastCharge is a charge as it is made.
func pastCharge(t testing.TB, v *PriceVersion, m Meters, tier string) PastCharge {
	t.Helper()
	c, err := v.Charge(m, tier)
	if err != nil {
		t.Fatal(err)
	}
	return PastCharge{Amount: c.Amount, Meters: m, Lines: c.Lines, CostLines: slices.Clone(c.Lines), PriceVersion: v.ID, ServiceTier: tier}
}

// TestRecheckEqual: whatever was charged, by one version or two, is found equal.
func TestRecheckEqual(t *testing.T) {
	t.Parallel()
	b := auditedBook(t)
	big, small := &b.Named("big")[0].Versions[0], &b.Named("small")[0].Versions[0]
	rapid.Check(t, func(rt *rapid.T) {
		meters := func(name string) Meters {
			return Meters{Input: rapid.Int64Range(0, 3000).Draw(rt, name+" input"), Output: rapid.Int64Range(0, 3000).Draw(rt, name+" output"),
				Reasoning: rapid.Int64Range(0, 9).Draw(rt, name+" reasoning"), WebSearch: rapid.Int64Range(0, 3).Draw(rt, name+" searches")}
		}
		tier := rapid.SampledFrom([]string{"", "default", "flex", "unheard-of"}).Draw(rt, "tier")
		c := pastCharge(t, big, meters("big"), tier)
		if rapid.Bool().Draw(rt, "two models") {
			more := meters("small")
			other, err := small.Charge(more, tier)
			if err != nil {
				rt.Fatal(err)
			}
			sum := Charge{Lines: c.Lines, Amount: c.Amount, PriceVersion: c.PriceVersion}
			if err := sum.Add(other); err != nil {
				rt.Fatal(err)
			}
			c.Lines, c.Amount, c.CostLines = sum.Lines, sum.Amount, slices.Clone(sum.Lines)
			for m, n := range more {
				c.Meters[m] += n
			}
		}
		if r := c.Recheck(lookingIn(b)); len(r.Problems)+len(r.Unlisted) > 0 {
			rt.Fatalf("%+v\n%+v", c, r)
		}
	})
}

// TestRecheckDiffers: each way for a charge to be wrong is found, with and without its version in the book
// where that does not matter.
func TestRecheckDiffers(t *testing.T) {
	t.Parallel()
	b := auditedBook(t)
	big := &b.Named("big")[0].Versions[0]
	sound := func() PastCharge { return pastCharge(t, big, Meters{Input: 900, Output: 50, Requests: 1}, "") }
	for _, c := range []struct {
		name   string
		break1 func(c *PastCharge)
		want   string
		plain  bool // found without the version, too
	}{
		{"amount", func(c *PastCharge) { c.Amount = c.Amount.Add(MustAmount("0.000000000001")) }, "the lines sum to 0.0023, and 0.002300000001 was charged", true},
		{"line's amount", func(c *PastCharge) { c.Lines[1].Amount = MustAmount("0.0006") }, "the lines: 50 output at 0.00001 is not 0.0006", true},
		{"cost line's amount", func(c *PastCharge) { c.CostLines[0].Amount = Zero }, "the cost lines: 900 input at 0.000002 is not 0", true},
		{"meter", func(c *PastCharge) { c.Meters[Output] = 49 }, "output was counted as 49 and charged as 50", true},
		{"meter not charged", func(c *PastCharge) { c.Meters[WebSearch] = 1 }, "web_search was counted as 1 and charged as 0", true},
		{"price, whole in itself", func(c *PastCharge) {
			c.Lines[1].UnitPrice, c.Lines[1].Amount = MustAmount("0.00002"), MustAmount("0.001")
			c.Amount = MustAmount("0.0028")
		}, "50 output at 0.00001 is 0.0005, and 0.001 at 0.00002 was charged", false},
		{"tier", func(c *PastCharge) { c.ServiceTier = "flex" }, "900 input at 0.000001", false},
		{"threshold", func(c *PastCharge) {
			c.Meters[Input], c.Lines[0].Quantity, c.Lines[0].Amount, c.Amount = 1001, 1001, MustAmount("0.002002"), MustAmount("0.002502")
			c.CostLines = slices.Clone(c.Lines)
		}, "1001 input at 0.000004", false},
		{"line missing", func(c *PastCharge) { c.Lines = c.Lines[:2] }, "there is a line for 1 requests", false},
		{"line too many", func(c *PastCharge) { c.Lines = append(c.Lines, Line{Meter: WebSearch}) }, "it has 3 lines, not 4", false},
		{"cost by another price, whole in itself", func(c *PastCharge) {
			c.CostLines[1].UnitPrice, c.CostLines[1].Amount = MustAmount("0.00002"), MustAmount("0.001")
		}, "50 output at 0.00001 is 0.0005, and 0.001 at 0.00002 was charged", false},
		{"cost by another version", func(c *PastCharge) {
			c.CostLines[0].UnitPrice, c.CostLines[0].Amount = MustAmount("0.000001"), MustAmount("0.0009")
			c.CostVersion = b.Named("small")[0].Versions[0].ID
		}, "900 input at 0.0000001 is 0.00009, and 0.0009 at 0.000001 was charged", true},
		{"cost of less", func(c *PastCharge) { c.CostLines = c.CostLines[:1] }, "output was counted as 50 and put down as cost as 0", true},
		{"version of another model", func(c *PastCharge) { c.PriceVersion = b.Named("small")[0].Versions[0].ID }, "900 input at 0.0000001 is 0.00009", false},
		{"meter without a price", func(c *PastCharge) { c.Meters[AudioIn] = 1 }, "it cannot be charged", false},
	} {
		charge := sound()
		if r := charge.Recheck(lookingIn(b)); len(r.Problems) > 0 {
			t.Fatal(r.Problems)
		}
		c.break1(&charge)
		r := charge.Recheck(lookingIn(b))
		if !strings.Contains(strings.Join(r.Problems, "\n"), c.want) || len(r.Unlisted) > 0 {
			t.Errorf("%s: %q, want %q", c.name, r.Problems, c.want)
		}
		charge.PriceVersion = "p/gone@launch#00000000"
		r = charge.Recheck(lookingIn(b))
		if c.plain != (len(r.Problems) > 0) && c.name != "line missing" && c.name != "meter without a price" || !slices.Equal(r.Unlisted, []string{charge.PriceVersion}) {
			t.Errorf("%s, of a version that is gone: %+v", c.name, r)
		}
	}
}

// TestBalancesAfter: each kind of event moves money as its postings say, and nothing is lost.
func TestBalancesAfter(t *testing.T) {
	t.Parallel()
	for kind, want := range map[Kind][2]string{KindCredit: {"12", "5"}, KindDebit: {"8", "5"}, KindReserve: {"8", "7"}, KindCommit: {"10", "3"},
		KindRefund: {"12", "3"}, KindOverage: {"8", "5"}} {
		b := Balances{MustAmount("10"), MustAmount("5")}.After(&Event{Kind: kind, Amount: MustAmount("2")})
		if b.Available.String() != want[0] || b.Reserved.String() != want[1] {
			t.Errorf("%s leaves %s and %s", kind, b.Available, b.Reserved)
		}
	}
}
