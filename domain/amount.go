package domain

import (
	"errors"
	"fmt"
	"math/big"
	"strconv"

	"github.com/shopspring/decimal"
)

// AmountScale is the number of fractional digits that money and unit prices may have: the scale
// of the NUMERIC(38,12) columns. A finer number is refused, never rounded.
const AmountScale = 12

// maxAmountText bounds the text of an amount before it is parsed: sign, 26 integer digits, point
// and 12 fractional digits are 40 bytes; the rest is slack for leading zeros.
const maxAmountText = 64

// amountDigits is what NUMERIC(38,12) leaves before the point.
const amountDigits = 26

// ErrAmount is wrapped by every refusal of a number that is not an amount.
var ErrAmount = errors.New("not an amount")

// Amount is an exact decimal quantity of money, or a unit price, with at most 12 fractional
// digits and an absolute value below 10^26. The zero value is 0. Amounts are compared with Cmp or
// Equal, never with ==, because equal amounts may be represented differently.
type Amount struct{ d decimal.Decimal }

// Zero is the amount 0.
var Zero Amount

// ParseAmount reads `[-]digits[.digits]`. Exponents, signs other than a leading minus, blanks, more
// than 12 fractional digits and magnitudes of 10^26 or more are refused with ErrAmount, so that
// what is stored is what was written.
func ParseAmount(s string) (Amount, error) {
	if err := checkAmountText(s); err != nil {
		return Zero, err
	}
	d, err := decimal.NewFromString(s)
	if err != nil {
		return Zero, fmt.Errorf("%w: %q", ErrAmount, s)
	}
	return newAmount(d)
}

// MustAmount is ParseAmount for constants in code and tests; it panics on a bad one.
func MustAmount(s string) Amount {
	a, err := ParseAmount(s)
	if err != nil {
		panic(err)
	}
	return a
}

// checkAmountText accepts the grammar of ParseAmount before any library sees the text: decimal
// libraries take exponents, and a huge exponent is a denial of service.
func checkAmountText(s string) error {
	if len(s) == 0 || len(s) > maxAmountText {
		return fmt.Errorf("%w: %d bytes of text", ErrAmount, len(s))
	}
	digits, fraction, point := 0, 0, false
	for i := range len(s) {
		switch c := s[i]; {
		case c >= '0' && c <= '9' && point:
			fraction++
		case c >= '0' && c <= '9':
			digits++
		case c == '.' && !point:
			point = true
		case c == '-' && i == 0:
		default:
			return fmt.Errorf("%w: %q", ErrAmount, s)
		}
	}
	if digits == 0 || (point && fraction == 0) {
		return fmt.Errorf("%w: %q", ErrAmount, s)
	}
	return nil
}

// newAmount checks scale and magnitude. Trailing zeros do not count as scale.
func newAmount(d decimal.Decimal) (Amount, error) {
	if d.Exponent() < -AmountScale {
		cut := d.Truncate(AmountScale)
		if !cut.Equal(d) {
			return Zero, fmt.Errorf("%w: finer than 1e-%d", ErrAmount, AmountScale)
		}
		d = cut
	}
	if !belowLimit(d) {
		return Zero, fmt.Errorf("%w: 10^26 or more", ErrAmount)
	}
	return Amount{d}, nil
}

// belowLimit says whether |d| < 10^amountDigits, by its digits alone: a comparison would first bring both
// numbers to one scale, and this is asked several times for every event.
func belowLimit(d decimal.Decimal) bool {
	return d.IsZero() || d.NumDigits()+int(d.Exponent()) <= amountDigits
}

// AmountOf makes the amount coefficient x 10^exponent, as a database driver hands it over.
func AmountOf(coefficient *big.Int, exponent int32) (Amount, error) {
	if coefficient == nil || exponent > 26 || exponent < -4*AmountScale {
		return Zero, fmt.Errorf("%w: exponent %d", ErrAmount, exponent)
	}
	return newAmount(decimal.NewFromBigInt(coefficient, exponent))
}

// Coefficient and Exponent give the amount as coefficient x 10^exponent. The caller may keep and
// change the coefficient: it is a copy.
func (a Amount) Coefficient() *big.Int { return a.d.Coefficient() }

// Exponent is the power of ten that goes with Coefficient; never below -12.
func (a Amount) Exponent() int32 { return a.d.Exponent() }

// Add returns a + b.
func (a Amount) Add(b Amount) Amount { return Amount{a.d.Add(b.d)} }

// Sub returns a - b.
func (a Amount) Sub(b Amount) Amount { return Amount{a.d.Sub(b.d)} }

// Neg returns -a.
func (a Amount) Neg() Amount { return Amount{a.d.Neg()} }

// Times returns a x n, exactly: a quantity times a unit price, or a share of 1e-12 times a count.
func (a Amount) Times(n int64) Amount { return Amount{a.d.Mul(decimal.NewFromInt(n))} }

// Cmp is -1, 0 or 1 as a is less than, equal to or more than b.
func (a Amount) Cmp(b Amount) int { return a.d.Cmp(b.d) }

// Equal reports whether a and b are the same number.
func (a Amount) Equal(b Amount) bool { return a.d.Equal(b.d) }

// Less reports whether a < b.
func (a Amount) Less(b Amount) bool { return a.d.Cmp(b.d) < 0 }

// Sign is -1, 0 or 1.
func (a Amount) Sign() int { return a.d.Sign() }

// IsZero reports whether a is 0.
func (a Amount) IsZero() bool { return a.d.IsZero() }

// InRange reports whether a fits the ledger's NUMERIC(38,12). Sums and products are exact and may
// leave it; whoever stores one checks first.
func (a Amount) InRange() bool {
	return a.d.Exponent() >= -AmountScale && belowLimit(a.d)
}

// FloorDiv returns how many whole times unit goes into a; 0 when a is negative, and an error when
// unit is not positive. It is how many tokens a balance affords: rounding down is the safe side.
// limit caps the answer, so that it always fits an int64.
func (a Amount) FloorDiv(unit Amount, limit int64) (int64, error) {
	if unit.Sign() <= 0 {
		return 0, fmt.Errorf("%w: a divisor must be positive", ErrAmount)
	}
	if a.Sign() <= 0 {
		return 0, nil
	}
	q, _ := a.d.QuoRem(unit.d, 0)
	if q.Cmp(decimal.NewFromInt(limit)) >= 0 {
		return limit, nil
	}
	return q.IntPart(), nil
}

// String is the canonical text: no exponent, no trailing zeros, no plus sign, no negative zero.
// Two equal amounts have the same text, so the text may be hashed and compared.
func (a Amount) String() string {
	var short [maxShort]byte
	return string(a.appendTo(short[:0]))
}

const (
	// maxShort bounds the canonical text of an amount whose digits fit a machine word, in bytes: a sign, a
	// leading zero, a point and the digits.
	maxShort = shortDigits + 3
	// shortDigits is how many decimal digits always fit an int64.
	shortDigits = 18
)

// appendTo appends the canonical text. Nearly all amounts are short, and written without the library, whose
// way there is by several texts and big integers.
func (a Amount) appendTo(b []byte) []byte {
	scale := -a.d.Exponent()
	if scale < 0 || scale > AmountScale || a.d.NumDigits() > shortDigits {
		return append(b, a.d.String()...)
	}
	n := a.d.CoefficientInt64()
	unit := int64(1) // 10^scale
	for ; scale > 0; scale-- {
		if unit == 1 && n%10 == 0 { // a trailing zero
			n /= 10
			continue
		}
		unit *= 10
	}
	if n < 0 {
		b, n = append(b, '-'), -n
	}
	b = strconv.AppendInt(b, n/unit, 10)
	if unit == 1 {
		return b
	}
	point := len(b)
	b = strconv.AppendInt(b, unit+n%unit, 10) // a one before the fraction keeps its leading zeros
	b[point] = '.'
	return b
}

// MarshalJSON writes a JSON string: money in events and in all answers but /billing/*'s numbers.
func (a Amount) MarshalJSON() ([]byte, error) {
	out := append(make([]byte, 0, maxShort+2), '"')
	return append(a.appendTo(out), '"'), nil
}

// UnmarshalJSON reads a JSON string of ParseAmount's form; JSON numbers are refused, because
// decoders on the way may already have passed them through a double.
func (a *Amount) UnmarshalJSON(b []byte) error {
	if len(b) < 2 || b[0] != '"' || b[len(b)-1] != '"' {
		return fmt.Errorf("%w: money is a JSON string, not %.40s", ErrAmount, b)
	}
	v, err := ParseAmount(string(b[1 : len(b)-1]))
	if err != nil {
		return err
	}
	*a = v
	return nil
}
