package domain

import "time"

// percentScale is how many decimals of a margin in per cent are shown.
const percentScale = 2

// Margin is what is left of what customers paid when providers are paid; less than 0 where it does not
// cover the cost.
func (c Consumption) Margin() Amount { return c.Amount.Sub(c.Cost) }

// MarginPercent is the margin in per cent of what customers paid, with two decimals, rounded half up (away
// from zero); false where nothing was paid, so that there is no such share. It is for reading: nothing is
// calculated from it.
func (c Consumption) MarginPercent() (string, bool) {
	if c.Amount.IsZero() {
		return "", false
	}
	return c.Margin().d.Shift(2).DivRound(c.Amount.d, percentScale).StringFixed(percentScale), true
}

// MarginQuery asks for the consumption of one account, or of all of them.
type MarginQuery struct {
	StatsQuery
	Account string // "" = all
	Limit   int    // groups at most, the first ones in their order; all are in the total
}

// Margins is the consumption of all that a query asks for, in its groups and as a whole.
type Margins struct {
	Rows   []StatsRow // hours and days in their order, names by amount, the dearest first
	More   bool       // there are more groups than the limit
	Total  Consumption
	AsOf   time.Time // everything up to then is included; the zero time: not even the first event is
	Behind int64     // events that the ledger has and that are not included
}
