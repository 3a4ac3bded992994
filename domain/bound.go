package domain

import (
	"errors"
	"fmt"
)

// ErrNeed is wrapped by the refusal of a need that is negative or beyond MaxTokens: no provider
// serves it, and its cost would be no bound but a number out of range.
var ErrNeed = errors.New("unusable need")

// Need is the most that a request can use. Tokens are whole inputs and outputs, all choices
// together; the flags say which kinds of tokens can be among them.
type Need struct {
	InputTokens, OutputTokens   int64
	AudioIn, AudioOut, ImageOut bool
	WebSearches                 int64
	ServiceTier                 string // as the request names it; "" where it does not
	// Geo and Speed say which factors the answer could tell of: the place and the speed that the request asks
	// for, "" for none, and for Geo AnyGeo.
	Geo, Speed string
}

func (n *Need) check() error {
	for _, count := range [...]int64{n.InputTokens, n.OutputTokens, n.WebSearches} {
		if count < 0 || count > MaxTokens {
			return fmt.Errorf("%w: a count of %d", ErrNeed, count)
		}
	}
	return nil
}

// Bound is the most that a request can cost: Amount, explained by lines at the dearest unit price
// of each kind. A line's meter is the kind: input and output stand for all their details.
type Bound struct {
	Input  int64  `json:"input"`
	Output int64  `json:"output"`
	Lines  []Line `json:"lines"`
	Amount Amount `json:"-"`
}

// Bound prices a need so that no usage within it can cost more: every token at the dearest rate
// that any of its possible meters has, in any tier that the input could reach, any service tier
// that the provider could answer with, and any region that it could tell of. A meter that is needed and unpriced is ErrPriceMissing, so
// that the provider is never called for it.
func (v *PriceVersion) Bound(n Need) (Bound, error) {
	if v.levels == nil {
		return Bound{}, fmt.Errorf("%w: %s", ErrUnbuilt, v.Model)
	}
	if err := n.check(); err != nil {
		return Bound{}, err
	}
	if err := v.checkNeeded(&n); err != nil {
		return Bound{}, err
	}
	b := Bound{Input: n.InputTokens, Output: n.OutputTokens, Lines: make([]Line, 0, 4)}
	top := v.dearest(&n)
	for _, kind := range [...]struct {
		meter    Meter
		quantity int64
	}{
		{Input, n.InputTokens}, {Output, n.OutputTokens}, {WebSearch, n.WebSearches}, {Requests, 1},
	} {
		if kind.quantity > 0 {
			line := newLine(kind.meter, kind.quantity, top.unit[kind.meter])
			b.Lines = append(b.Lines, line)
			b.Amount = b.Amount.Add(line.Amount)
		}
	}
	if !b.Amount.InRange() {
		return Bound{}, fmt.Errorf("%w: a bound of %s", ErrAmount, b.Amount)
	}
	return b, nil
}

// checkNeeded demands a base price for every meter that the need names: the base is what any
// service tier can be downgraded to.
func (v *PriceVersion) checkNeeded(n *Need) error {
	for _, need := range [...]struct {
		meter  Meter
		needed bool
	}{
		{AudioIn, n.AudioIn}, {Output, n.OutputTokens > 0}, {AudioOut, n.AudioOut},
		{ImageOut, n.ImageOut}, {WebSearch, n.WebSearches > 0},
	} {
		if need.needed && !v.Rates.priced[need.meter] {
			return v.missing(need.meter)
		}
	}
	return nil
}

// dearest returns the highest rates that the need could be charged, with all input meters gathered
// in Input and all output meters in Output.
func (v *PriceVersion) dearest(n *Need) Rates {
	top := v.dearestHere(n, Rates{})
	for name, r := range v.regional {
		if n.couldBeIn(name) {
			top = r.dearestHere(n, top)
		}
	}
	return top
}

// dearestHere raises top to the version's own rates, without those of regions.
func (v *PriceVersion) dearestHere(n *Need, top Rates) Rates {
	top = dearestOf(v.levels[:v.crossed(n.InputTokens)+1], n, top)
	for name, levels := range v.service {
		if v.couldServe(n.ServiceTier, name) {
			top = dearestOf(levels[:v.crossed(n.InputTokens)+1], n, top)
		}
	}
	return top
}

// couldServe reports whether a request that names a service tier could be served, and billed, as
// the book's tier called name. The base is always possible, because providers downgrade. A request
// that leaves the choice open could get any but batch, which is another API; so could one that
// names what neither we nor the book know.
func (v *PriceVersion) couldServe(requested, name string) bool {
	switch requested {
	case "default":
		return false
	case "flex", "priority", "batch", "scale":
		return requested == name
	}
	if _, ok := v.service[requested]; ok {
		return requested == name
	}
	return name != "batch"
}

// dearestOf raises top to the levels' rates, meter by meter. A meter that Fold moves (one without
// a base price) needs no look of its own: it is charged as the meter it is folded into.
func dearestOf(levels []Rates, n *Need, top Rates) Rates {
	for i := range levels {
		r := &levels[i]
		for m := range r.unit {
			if !r.priced[m] || !n.includes(Meter(m)) {
				continue
			}
			kind := kindOf(Meter(m))
			if !top.priced[kind] || top.unit[kind].Less(r.unit[m]) {
				top.Set(kind, r.unit[m])
			}
		}
	}
	return top
}

// kindOf names the line of a bound that a meter belongs to.
func kindOf(m Meter) Meter {
	switch {
	case m <= ImageIn:
		return Input
	case m <= ImageOut:
		return Output
	}
	return m
}

// includes reports whether the need's tokens could be counted by a meter.
func (n *Need) includes(m Meter) bool {
	switch m {
	case AudioIn, CachedAudioIn:
		return n.AudioIn
	case AudioOut:
		return n.AudioOut
	case ImageOut:
		return n.ImageOut
	}
	return true
}

// AffordableOutput is the greatest number of output tokens per choice, for so many choices, whose
// bound fits the budget: Bound with that times choices as OutputTokens is at most budget, and with
// one more per choice it is not, or exceeds MaxTokens. It is 0 where not even the input fits. The
// need's own OutputTokens does not matter.
func (v *PriceVersion) AffordableOutput(budget Amount, n Need, choices int64) (int64, error) {
	if choices < 1 || choices > MaxTokens {
		return 0, fmt.Errorf("%w: %d choices", ErrNeed, choices)
	}
	n.OutputTokens = 0
	fixed, err := v.Bound(n)
	if err != nil {
		return 0, err
	}
	if !v.Rates.priced[Output] {
		return 0, v.missing(Output)
	}
	limit, rest := MaxTokens/choices, budget.Sub(fixed.Amount)
	unit := v.dearest(&n).unit[Output]
	switch {
	case rest.Sign() < 0:
		return 0, nil
	case unit.IsZero():
		return limit, nil
	}
	return rest.FloorDiv(unit.Times(choices), limit)
}
