package reconcile

import (
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"strconv"
	"strings"

	"llm-gateway/domain"
)

// ErrNumber is wrapped by the refusal of a text that is not a number, or not one that can be.
var ErrNumber = errors.New("not a usable number")

// The bounds of a number's text: what exports write is far within them, and what is beyond would be work
// to read.
const (
	maxNumberText = 128
	maxExponent   = 60
	maxCount      = int64(1) << 40 // of one row: all rows of a file add up within an int64
)

var (
	numberForm  = regexp.MustCompile(`^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d{1,3}))?$`)
	groupedForm = regexp.MustCompile(`^-?\d{1,3}(,\d{3})+(\.\d+)?$`)
)

// decimal is mantissa x 10^exponent, exactly.
type decimal struct {
	mantissa *big.Int
	exponent int
}

// parseDecimal reads a JSON number, or one of a spreadsheet with commas between groups of three.
func parseDecimal(text string) (decimal, error) {
	if groupedForm.MatchString(text) {
		text = strings.ReplaceAll(text, ",", "")
	}
	parts := numberForm.FindStringSubmatch(text)
	if parts == nil || len(text) > maxNumberText {
		return decimal{}, fmt.Errorf("%w: %.40q", ErrNumber, text)
	}
	exponent := 0
	if parts[4] != "" {
		exponent, _ = strconv.Atoi(parts[4]) // three digits at most
	}
	if exponent < -maxExponent || exponent > maxExponent {
		return decimal{}, fmt.Errorf("%w: %.40q", ErrNumber, text)
	}
	mantissa, ok := new(big.Int).SetString(parts[1]+parts[2]+parts[3], 10)
	if !ok {
		return decimal{}, fmt.Errorf("%w: %.40q", ErrNumber, text)
	}
	return decimal{mantissa, exponent - len(parts[3])}, nil
}

// scaled is the number x 10^places as a whole number, rounded half up (away from zero), and whether that
// left the rest out.
func (d decimal) scaled(places int) (n *big.Int, exact bool) {
	ten := big.NewInt(10)
	shift := d.exponent + places
	if shift >= 0 {
		return new(big.Int).Mul(d.mantissa, new(big.Int).Exp(ten, big.NewInt(int64(shift)), nil)), true
	}
	unit := new(big.Int).Exp(ten, big.NewInt(int64(-shift)), nil)
	n, rest := new(big.Int).QuoRem(d.mantissa, unit, new(big.Int))
	if new(big.Int).Mul(new(big.Int).Abs(rest), big.NewInt(2)).Cmp(unit) >= 0 {
		n.Add(n, big.NewInt(int64(rest.Sign())))
	}
	return n, rest.Sign() == 0
}

// money is the number / 10^cents as an amount, and whether it had to be rounded to 1e-12.
func (d decimal) money(cents int) (amount domain.Amount, rounded bool, err error) {
	n, exact := d.scaled(domain.AmountScale - cents)
	amount, err = domain.AmountOf(n, -domain.AmountScale)
	if err != nil {
		return amount, false, fmt.Errorf("%w: %w", ErrNumber, err)
	}
	return amount, !exact, nil
}

// whole is the number as a count of 0 or more.
func (d decimal) whole() (int64, error) {
	n, exact := d.scaled(0)
	if !exact || n.Sign() < 0 || !n.IsInt64() || n.Int64() > maxCount {
		return 0, fmt.Errorf("%w: a count is a whole number from 0 to %d", ErrNumber, maxCount)
	}
	return n.Int64(), nil
}
