package domain

import (
	"fmt"
	"math"
	"math/big"
	"math/bits"

	"github.com/shopspring/decimal"
)

// maxQuantity bounds a meter at settlement: Usage.Meters lets a count be MaxTokens, and Fold may
// add all of them into one. Times maxUnitPrice it stays far within an amount's range.
const maxQuantity = int64(MeterCount) * MaxTokens

// Line explains one part of a charge or a bound: quantity x unit_price = amount, exactly.
type Line struct {
	Meter     Meter  `json:"meter"`
	Quantity  int64  `json:"quantity"`
	UnitPrice Amount `json:"unit_price"`
	Amount    Amount `json:"amount"`
	// PriceVersion is the version that the line is of, where that is not the charge's own.
	PriceVersion string `json:"price_version,omitempty"`
}

func newLine(m Meter, quantity int64, unit Amount) Line {
	return Line{Meter: m, Quantity: quantity, UnitPrice: unit, Amount: unit.Times(quantity)}
}

// Charge is what a request costs: Amount is the exact sum of its lines, one per meter in use, in
// the meters' order.
type Charge struct {
	Lines        []Line
	Amount       Amount
	PriceVersion string
}

// Add puts the lines of another version's charge to this one, each named by its version: part of the
// request was served by another model.
func (c *Charge) Add(other Charge) error {
	for _, line := range other.Lines {
		line.PriceVersion = other.PriceVersion
		c.Lines = append(c.Lines, line)
	}
	if c.Amount = c.Amount.Add(other.Amount); !c.Amount.InRange() {
		return fmt.Errorf("%w: a charge of %s", ErrAmount, c.Amount)
	}
	return nil
}

// Charge prices a usage. serviceTier is the one in the provider's response; one that the version
// has no price for ("", default, auto, scale, and any unknown) is charged the base rates. A meter
// in use without a price is ErrPriceMissing; a negative or absurd count is ErrUsage.
func (v *PriceVersion) Charge(m Meters, serviceTier string) (Charge, error) {
	if v.levels == nil {
		return Charge{}, fmt.Errorf("%w: %s", ErrUnbuilt, v.Model)
	}
	levels, ok := v.service[serviceTier]
	if !ok {
		levels = v.levels
	}
	for i, n := range m {
		if n < 0 || n > maxQuantity {
			return Charge{}, fmt.Errorf("%w: %d of %s", ErrUsage, n, Meter(i))
		}
	}
	rates := &levels[v.crossed(m.InputTokens())]
	c := Charge{Lines: make([]Line, 0, m.inUse()), PriceVersion: v.ID}
	var sum share
	for i, n := range m {
		if n == 0 {
			continue
		}
		if !rates.priced[i] {
			return Charge{}, v.missing(Meter(i))
		}
		part := shareOf(rates.unit[i], n)
		c.Lines = append(c.Lines, Line{Meter: Meter(i), Quantity: n, UnitPrice: rates.unit[i], Amount: part.amount()})
		sum = sum.add(part)
	}
	c.Amount = sum.amount()
	return c, nil
}

// share is an amount as 128 bits of 1e-12, which any charge fits: all meters at maxQuantity and
// maxUnitPrice come to less than 2^100. It spares the hot path the arithmetic on the heap.
type share struct{ hi, lo uint64 }

// shareOf is a quantity at a unit price, both in their ranges, the price at full scale as built rates are.
func shareOf(unit Amount, quantity int64) share {
	hi, lo := bits.Mul64(uint64(unit.d.CoefficientInt64()), uint64(quantity))
	return share{hi, lo}
}

func (s share) add(other share) share {
	lo, carry := bits.Add64(s.lo, other.lo, 0)
	return share{s.hi + other.hi + carry, lo}
}

func (s share) amount() Amount {
	if s.hi == 0 && s.lo <= math.MaxInt64 {
		return Amount{decimal.New(int64(s.lo), -AmountScale)}
	}
	whole := new(big.Int).SetUint64(s.hi)
	whole.Lsh(whole, 64).Or(whole, new(big.Int).SetUint64(s.lo))
	return Amount{decimal.NewFromBigInt(whole, -AmountScale)}
}

// inUse counts the meters that have counted anything.
func (m *Meters) inUse() int {
	used := 0
	for _, n := range m {
		if n != 0 {
			used++
		}
	}
	return used
}

// folds names the meter that each detail meter is a detail of. The other details (cached_input,
// image_in, reasoning) are priced wherever their whole is.
var folds = [...]struct{ detail, whole Meter }{
	{CacheWrite5m, Input}, {CacheWrite1h, Input}, {AudioIn, Input}, {CachedAudioIn, CachedInput},
	{AudioOut, Output}, {ImageOut, Output},
}

// Fold is for settlement only, where the tokens are spent and refusing would make them free: a
// detail meter without a base price is counted as what it is a detail of. It reports whether
// anything moved, so that the caller can raise an alarm: the book lacks a price that it needs. Web
// searches are no detail of anything; unpriced, they stay, and Charge refuses them.
func (v *PriceVersion) Fold(m Meters) (Meters, bool) {
	folded := false
	for _, f := range folds {
		if m[f.detail] > 0 && !v.Rates.priced[f.detail] && v.Rates.priced[f.whole] {
			m[f.whole] += m[f.detail]
			m[f.detail] = 0
			folded = true
		}
	}
	return m, folded
}
