package domain

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestChargeTable runs testdata/charges.txt.
func TestChargeTable(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/charges.txt")
	if err != nil {
		t.Fatal(err)
	}
	var listed PriceVersion
	cases := 0
	for n, line := range strings.Split(string(text), "\n") {
		word, rest, _ := strings.Cut(line, " ")
		usage, want, isCase := strings.Cut(line, "-> ")
		switch {
		case line == "" || word == "#":
		case isCase:
			cases++
			got := chargeText(built(t, listed), usage)
			if missing, _, _ := strings.Cut(got, " in "); got != want && missing != want {
				t.Errorf("line %d: %s-> %s\nwant %s", n+1, usage, got, want)
			}
		case word == "price":
			_, prices, _ := strings.Cut(rest, " ")
			listed = PriceVersion{Rates: rates(prices), ServiceTiers: map[string]Rates{}}
		case word == "above":
			above, prices, _ := strings.Cut(rest, " ")
			limit, err := strconv.ParseInt(above, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			listed.Tiers = append(listed.Tiers, Tier{limit, rates(prices)})
		case word == "tier":
			name, prices, _ := strings.Cut(rest, " ")
			listed.ServiceTiers[name] = rates(prices)
		default:
			t.Fatalf("line %d: what is %q?", n+1, line)
		}
	}
	if cases < 30 {
		t.Errorf("only %d cases", cases)
	}
}

// chargeText charges a usage as the table writes it.
func chargeText(v *PriceVersion, usage string) string {
	var m Meters
	tier, fold := "", false
	for field := range strings.FieldsSeq(usage) {
		name, value, _ := strings.Cut(field, "=")
		switch name {
		case "fold":
			fold = true
		case "tier":
			tier = value
		default:
			meter, err := ParseMeter(name)
			if err != nil {
				return err.Error()
			}
			if m[meter], err = strconv.ParseInt(value, 10, 64); err != nil {
				return err.Error()
			}
		}
	}
	if fold {
		folded := false
		if m, folded = v.Fold(m); !folded && m[WebSearch] == 0 {
			return "nothing folded"
		}
	}
	c, err := v.Charge(m, tier)
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for _, l := range c.Lines {
		fmt.Fprintf(&b, "%s x%d @%s =%s; ", l.Meter, l.Quantity, l.UnitPrice, l.Amount)
	}
	return b.String() + "total " + c.Amount.String()
}

func TestChargeNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	v := built(t, PriceVersion{Rates: rates("input=1 output=2")})
	_, err := v.Charge(Meters{AudioOut: 1}, "")
	if !errors.Is(err, ErrPriceMissing) || err.Error() != "price missing: audio_out in "+v.ID {
		t.Errorf("error %v", err)
	}
	if _, err := new(PriceVersion).Charge(Meters{}, ""); !errors.Is(err, ErrUnbuilt) {
		t.Errorf("a version that no book made charges: %v", err)
	}
}

func TestLineJSON(t *testing.T) {
	t.Parallel()
	v := built(t, PriceVersion{Rates: rates("input=2.5 output=10")})
	c, err := v.Charge(Meters{Input: 3}, "")
	if err != nil || c.PriceVersion != v.ID {
		t.Fatal(c, err)
	}
	const want = `[{"meter":"input","quantity":3,"unit_price":"0.0000025","amount":"0.0000075"}]`
	if b, err := json.Marshal(c.Lines); err != nil || string(b) != want {
		t.Errorf("lines are %s, %v", b, err)
	}
}

// usages generates meters that any built version can charge once folded.
func usages() *rapid.Generator[Meters] {
	return rapid.Custom(func(t *rapid.T) Meters {
		var m Meters
		for i := range m {
			if Meter(i) != WebSearch {
				m[i] = rapid.OneOf(rapid.Just[int64](0), rapid.Int64Range(0, thresholdStep), counts()).Draw(t, "n")
			}
		}
		return m
	})
}

var tierNames = []string{"", "auto", "default", "scale", "flex", "priority", "batch", "turbo", "unheard-of"}

func TestChargeExplainsItself(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		v, tier := versions().Draw(t, "version"), rapid.SampledFrom(tierNames).Draw(t, "tier")
		v, _ = v.In(rapid.SampledFrom(regionNames).Draw(t, "region"))
		m, _ := v.Fold(usages().Draw(t, "usage"))
		c, err := v.Charge(m, tier)
		if err != nil {
			t.Fatal(err)
		}
		var seen Meters
		sum, last := Zero, -1
		for _, l := range c.Lines {
			if !l.UnitPrice.Times(l.Quantity).Equal(l.Amount) || l.Quantity == 0 || int(l.Meter) <= last {
				t.Fatalf("line %+v after meter %d", l, last)
			}
			sum, last, seen[l.Meter] = sum.Add(l.Amount), int(l.Meter), l.Quantity
		}
		if seen != m || !sum.Equal(c.Amount) || c.Amount.Sign() < 0 {
			t.Fatalf("%v is charged as %v, %s and not %s", m, c.Lines, c.Amount, sum)
		}
	})
}

func TestFoldKeepsEveryToken(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		v, m := versions().Draw(t, "version"), usages().Draw(t, "usage")
		f, folded := v.Fold(m)
		if f.InputTokens() != m.InputTokens() || f.OutputTokens() != m.OutputTokens() || folded != (f != m) {
			t.Fatalf("%v folds to %v, %v", m, f, folded)
		}
		if again, more := v.Fold(f); more || again != f {
			t.Fatalf("%v folds again to %v", f, again)
		}
	})
}

func TestChargeIsAdditiveWithinATier(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		v, tier := versions().Draw(t, "version"), rapid.SampledFrom(tierNames).Draw(t, "tier")
		v, _ = v.In(rapid.SampledFrom(regionNames).Draw(t, "region"))
		a, _ := v.Fold(usages().Draw(t, "a"))
		b, _ := v.Fold(usages().Draw(t, "b"))
		both := a
		for i := range both {
			both[i] += b[i]
		}
		level := v.crossed(both.InputTokens())
		if v.crossed(a.InputTokens()) != level || v.crossed(b.InputTokens()) != level {
			return
		}
		x, errX := v.Charge(a, tier)
		y, errY := v.Charge(b, tier)
		z, errZ := v.Charge(both, tier)
		if err := errors.Join(errX, errY, errZ); err != nil && !errors.Is(err, ErrUsage) {
			t.Fatal(err)
		} else if err == nil && !x.Amount.Add(y.Amount).Equal(z.Amount) {
			t.Fatalf("%s + %s is not %s", x.Amount, y.Amount, z.Amount)
		}
	})
}

// TestChargeAtTheLimits: the largest counts at the largest prices, calculated with big numbers.
func TestChargeAtTheLimits(t *testing.T) {
	t.Parallel()
	var listed Rates
	for m := range MeterCount {
		listed.Set(Meter(m), maxUnitPrice)
	}
	var usage Meters
	for m := range usage {
		usage[m] = maxQuantity - int64(m)
	}
	c, err := built(t, PriceVersion{Rates: listed}).Charge(usage, "")
	if err != nil || len(c.Lines) != MeterCount || !c.Amount.InRange() {
		t.Fatal(c, err)
	}
	sum := Zero
	for _, l := range c.Lines {
		if !l.Amount.Equal(maxUnitPrice.Times(usage[l.Meter])) {
			t.Errorf("%+v", l)
		}
		sum = sum.Add(l.Amount)
	}
	if !sum.Equal(c.Amount) {
		t.Errorf("%s is not %s", c.Amount, sum)
	}
}

func TestChargeAllocatesLittle(t *testing.T) {
	v := built(t, PriceVersion{Rates: rates("input=2.5 cached_input=1.25 output=10")})
	m := Meters{Input: 600, CachedInput: 400, Output: 200, Reasoning: 64, Requests: 1}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := v.Charge(m, "default"); err != nil {
			t.Fatal(err)
		}
	}); n > 13 { // the lines, and two an amount
		t.Errorf("a charge of five lines allocates %v times", n)
	}
}

func BenchmarkCharge(b *testing.B) {
	v := built(b, PriceVersion{Rates: rates("input=2.5 cached_input=1.25 output=10"), Regions: map[string]Amount{"us": MustAmount("1.1")}})
	m := Meters{Input: 600, CachedInput: 400, Output: 200, Reasoning: 64, Requests: 1}
	b.ReportAllocs()
	for b.Loop() {
		v, _ := v.In("us")
		if _, err := v.Charge(m, "default"); err != nil {
			b.Fatal(err)
		}
	}
}
