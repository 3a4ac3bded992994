package domain

import (
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

// TestMarginPercent: two decimals, half away from zero, and nothing where nothing was paid.
func TestMarginPercent(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ amount, cost, margin, percent string }{
		{"0", "0", "0", ""},
		{"0", "3", "-3", ""},
		{"1", "1", "0", "0.00"},
		{"1", "0", "1", "100.00"},
		{"1.2", "1", "0.2", "16.67"},
		{"100", "99.995", "0.005", "0.01"},
		{"100", "99.99500001", "0.00499999", "0.00"},
		{"100", "100.005", "-0.005", "-0.01"},
		{"100", "100.0049", "-0.0049", "0.00"},
		{"3", "9", "-6", "-200.00"},
		{"0.000000000001", "99999999999999999999999999.999999999999", "-99999999999999999999999999.999999999998",
			"-9999999999999999999999999999999999999800.00"},
	} {
		c := Consumption{Amount: MustAmount(tc.amount), Cost: MustAmount(tc.cost)}
		percent, ok := c.MarginPercent()
		if c.Margin().String() != tc.margin || percent != tc.percent || ok != (tc.percent != "") {
			t.Errorf("%s at %s: %s, %s %v; want %s, %s", tc.amount, tc.cost, c.Margin(), percent, ok, tc.margin, tc.percent)
		}
	}
}

// TestMarginsSum: margins add up like what they are made of, and a share is within half of its last digit of
// the truth, which big rationals know.
func TestMarginsSum(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var sum Consumption
		var margins Amount
		for range rapid.IntRange(1, 8).Draw(t, "requests") {
			c := Consumption{Requests: 1, Amount: amounts().Draw(t, "amount"), Cost: amounts().Draw(t, "cost")}
			sum, margins = sum.Add(c), margins.Add(c.Margin())
		}
		if !sum.Margin().Equal(margins) || !sum.Cost.Add(margins).Equal(sum.Amount) {
			t.Fatalf("the margin of %s at %s is %s; margins sum to %s", sum.Amount, sum.Cost, sum.Margin(), margins)
		}
		percent, ok := sum.MarginPercent()
		if ok == sum.Amount.IsZero() {
			t.Fatalf("%s: %v", sum.Amount, ok)
		}
		if !ok {
			return
		}
		shown, _ := new(big.Rat).SetString(percent)
		margin, _ := new(big.Rat).SetString(sum.Margin().String())
		amount, _ := new(big.Rat).SetString(sum.Amount.String())
		truth := margin.Mul(margin, big.NewRat(100, 1)).Quo(margin, amount)
		if off := truth.Sub(truth, shown); off.Abs(off).Cmp(big.NewRat(1, 200)) > 0 {
			t.Fatalf("%s of %s at %s is off by %s", percent, sum.Amount, sum.Cost, off)
		}
	})
}
