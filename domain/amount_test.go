package domain

import (
	"encoding/json"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"
)

func TestParseAmount(t *testing.T) {
	t.Parallel()
	const refused = "refused"
	for _, c := range []struct{ in, want string }{
		{"0", "0"}, {"-0", "0"}, {"-0.000", "0"}, {"1", "1"}, {"-1", "-1"}, {"007.50", "7.5"},
		{"0.000000000001", "0.000000000001"},
		{"1.0000000000000", "1"}, // 13 digits, all zeros: as exact as 1
		{"99999999999999999999999999.999999999999", "99999999999999999999999999.999999999999"},
		{"-99999999999999999999999999", "-99999999999999999999999999"},
		{"", refused}, {"-", refused}, {".", refused}, {"1.", refused}, {".5", refused},
		{"+1", refused}, {" 1", refused}, {"1 ", refused}, {"1\n", refused}, {"--1", refused},
		{"1-", refused}, {"1.2.3", refused}, {"1,5", refused}, {"1_000", refused},
		{"1e999999999", refused}, {"1e-999999999", refused}, {"1E2", refused}, {"0x10", refused},
		{"NaN", refused}, {"Infinity", refused}, {"-Inf", refused}, {"null", refused},
		{"١٢", refused}, {"１", refused}, {"1\x00", refused}, {"½", refused},
		{"0.0000000000001", refused},             // 13 digits
		{"100000000000000000000000000", refused}, // 10^26: 27 digits
		{"-100000000000000000000000000", refused},
		{strings.Repeat("0", 65), refused}, {strings.Repeat("9", 1<<20), refused},
	} {
		a, err := ParseAmount(c.in)
		got := a.String()
		if err != nil {
			got = refused
			if !errors.Is(err, ErrAmount) || len(err.Error()) > 200 {
				t.Errorf("ParseAmount(%.40q): error %.200q is no short ErrAmount", c.in, err)
			}
		}
		if got != c.want {
			t.Errorf("ParseAmount(%.40q) = %s, want %s", c.in, got, c.want)
		}
	}
}

// amounts generates any amount in range, small ones and round ones often.
func amounts() *rapid.Generator[Amount] {
	return rapid.Custom(func(t *rapid.T) Amount {
		whole := rapid.StringMatching(`0|[1-9][0-9]{0,3}|[1-9][0-9]{0,25}`).Draw(t, "whole")
		fraction := rapid.StringMatching(`(\.[0-9]{1,12})?`).Draw(t, "fraction")
		sign := rapid.SampledFrom([]string{"", "-"}).Draw(t, "sign")
		return MustAmount(sign + whole + fraction)
	})
}

func TestAmountTextIsCanonical(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a := amounts().Draw(t, "a")
		back := MustAmount(a.String())
		if !back.Equal(a) || back.String() != a.String() {
			t.Fatalf("%s reads back as %s", a, back)
		}
		scaled, err := AmountOf(a.Coefficient(), a.Exponent())
		if err != nil || scaled.String() != a.String() {
			t.Fatalf("%s from its parts is %s, %v", a, scaled, err)
		}
		if full := atFullScale(a); full.String() != a.String() || full.Exponent() != -AmountScale {
			t.Fatalf("%s at full scale is %s", a, full)
		}
		checkJSON(t, a)
	})
}

// TestAmountTextIsTheLibrarys: what is written and ranged here by digits alone is what the decimal library
// makes of the same number, at every scale, and on both sides of where digits leave a machine word.
func TestAmountTextIsTheLibrarys(t *testing.T) {
	t.Parallel()
	limit := decimal.New(1, 26)
	check := func(t interface{ Fatalf(string, ...any) }, d decimal.Decimal) {
		if a := (Amount{d}); a.String() != d.String() {
			t.Fatalf("%v x 10^%d is %s, not %s", d.Coefficient(), d.Exponent(), a, d)
		}
		if belowLimit(d) != (d.Abs().Cmp(limit) < 0) {
			t.Fatalf("%s: below 10^26: %t", d, belowLimit(d))
		}
	}
	for _, coefficient := range []string{"0", "1", "9", "10", "999999999999999999", "1000000000000000000", "9223372036854775807", "9223372036854775808", "99999999999999999999999999999999999999", "100000000000000000000000000000000000000"} {
		for exponent := int32(-14); exponent <= 28; exponent++ {
			n, _ := new(big.Int).SetString(coefficient, 10)
			check(t, decimal.NewFromBigInt(n, exponent))
			check(t, decimal.NewFromBigInt(n.Neg(n), exponent))
		}
	}
	check(t, decimal.Decimal{})
	rapid.Check(t, func(t *rapid.T) {
		digits := rapid.StringMatching(`-?[1-9][0-9]{0,22}0{0,20}`).Draw(t, "digits")
		n, _ := new(big.Int).SetString(digits, 10)
		check(t, decimal.NewFromBigInt(n, rapid.Int32Range(-14, 28).Draw(t, "exponent")))
	})
}

func checkJSON(t *rapid.T, a Amount) {
	b, err := json.Marshal(a)
	if err != nil || string(b) != `"`+a.String()+`"` {
		t.Fatalf("%s encodes as %s, %v", a, b, err)
	}
	var back Amount
	if err := json.Unmarshal(b, &back); err != nil || !back.Equal(a) {
		t.Fatalf("%s decodes as %s, %v", b, back, err)
	}
}

func TestAmountRefusesOtherJSON(t *testing.T) {
	t.Parallel()
	for _, in := range []string{"1", "1.5", "null", "true", `""`, `"1e3"`, `" 1"`, `["1"]`, `"1\u0030"`} {
		a := MustAmount("7")
		if err := json.Unmarshal([]byte(in), &a); !errors.Is(err, ErrAmount) || a.String() != "7" {
			t.Errorf("%s: error %v, amount %s; want a refusal and the amount as before", in, err, a)
		}
	}
}

func TestAmountOf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		coefficient string
		exponent    int32
		want        string // "" is refused
	}{
		{"15", -8, "0.00000015"}, {"0", 20, "0"}, {"1", 25, "10000000000000000000000000"},
		{"-25", -1, "-2.5"}, {"1000", -15, "0.000000000001"}, {"1", -13, ""}, {"1", 26, ""},
		{"1", 2_000_000_000, ""}, {"0", -2_000_000_000, ""},
	} {
		n, _ := new(big.Int).SetString(c.coefficient, 10)
		a, err := AmountOf(n, c.exponent)
		if (err != nil) != (c.want == "") || (err == nil && a.String() != c.want) {
			t.Errorf("AmountOf(%s, %d) = %s, %v; want %q", c.coefficient, c.exponent, a, err, c.want)
		}
	}
	if _, err := AmountOf(nil, 0); !errors.Is(err, ErrAmount) {
		t.Errorf("AmountOf(nil) = %v", err)
	}
}

func TestAmountArithmeticIsExact(t *testing.T) {
	t.Parallel()
	// The sum that floats get wrong (0.0016150000000000001).
	sum := MustAmount("0.000005").Times(200).Add(MustAmount("0.000015").Times(41))
	if sum.String() != "0.001615" {
		t.Errorf("200 x 0.000005 + 41 x 0.000015 = %s", sum)
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := amounts().Draw(t, "a"), amounts().Draw(t, "b")
		n := rapid.Int64Range(-1000, 1000).Draw(t, "n")
		if got := a.Add(b).Sub(b); !got.Equal(a) {
			t.Fatalf("%s + %s - %s = %s", a, b, b, got)
		}
		if got := a.Add(b).Times(n).Sub(b.Times(n)); !got.Equal(a.Times(n)) {
			t.Fatalf("(%s + %s) x %d is not distributive: %s", a, b, n, got)
		}
		if !a.Neg().Add(a).IsZero() || a.Less(b) != (a.Sub(b).Sign() < 0) || a.Equal(b) != (a.Cmp(b) == 0) {
			t.Fatalf("%s and %s: signs and orders disagree", a, b)
		}
	})
}

func TestAmountInRange(t *testing.T) {
	t.Parallel()
	most := MustAmount("99999999999999999999999999.999999999999")
	if least := MustAmount("0.000000000001"); !most.InRange() || most.Add(least).InRange() || !least.InRange() {
		t.Error("the range is not open at 10^26")
	}
}

func TestFloorDiv(t *testing.T) {
	t.Parallel()
	const limit = MaxTokens
	rapid.Check(t, func(t *rapid.T) {
		a, unit := amounts().Draw(t, "a"), amounts().Draw(t, "unit")
		q, err := a.FloorDiv(unit, limit)
		if unit.Sign() <= 0 {
			if !errors.Is(err, ErrAmount) {
				t.Fatalf("division by %s: %v", unit, err)
			}
			return
		}
		switch {
		case err != nil || q < 0 || q > limit:
			t.Fatalf("%s / %s = %d, %v", a, unit, q, err)
		case a.Sign() <= 0 && q != 0:
			t.Fatalf("%s / %s = %d", a, unit, q)
		case a.Sign() > 0 && a.Less(unit.Times(q)):
			t.Fatalf("%d x %s is more than %s", q, unit, a)
		case a.Sign() > 0 && q < limit && !a.Less(unit.Times(q+1)):
			t.Fatalf("%d x %s is not the most in %s", q, unit, a)
		}
	})
}

func FuzzParseAmount(f *testing.F) {
	for _, s := range []string{"0", "-0", "1.50", "1e9", "99999999999999999999999999.999999999999", "1."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAmount(s)
		if err != nil {
			if !errors.Is(err, ErrAmount) {
				t.Fatalf("%q: %v is no ErrAmount", s, err)
			}
			return
		}
		back, err := ParseAmount(a.String())
		if err != nil || !back.Equal(a) || back.String() != a.String() || !a.InRange() {
			t.Fatalf("%q is %s, which reads back as %s, %v", s, a, back, err)
		}
	})
}
