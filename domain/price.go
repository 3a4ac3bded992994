package domain

import (
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"
)

// Prices. A PriceBook says what one unit of each meter of a model costs at a date. What a provider
// leaves out of its list is completed by fixed rules, once, when the book is built, so that every
// rate a charge uses can be read in the version that it names:
//
//   - cached_input not listed: the input price (no discount);
//   - cached_audio_in not listed: the audio_in price, where there is one;
//   - image_in not listed: the input price;
//   - reasoning not listed: the output price;
//   - requests not listed: 0 (providers bill per request only where they say so);
//   - audio_in, cache_write_5m, cache_write_1h, audio_out, image_out and web_search not listed:
//     unpriced, even where a sibling has a price. Using one is ErrPriceMissing, never free.
//
// A tier above a threshold and a service tier name only what they change, so they are laid over
// the *listed* base rates first and completed then: a tier that doubles input doubles the cached
// input that nobody listed.

// Errors of looking up a price. Each is wrapped with the model or version that it is about.
var (
	ErrModelUnknown = errors.New("model unknown")
	ErrPriceUnknown = errors.New("price unknown")         // the model has no version in force at that date
	ErrPriceMissing = errors.New("price missing")         // the version has no price for a meter in use
	ErrUnbuilt      = errors.New("price version unbuilt") // not made by NewPriceBook: a defect of the caller
)

// Rates is an optional unit price per meter: an amount of money per ONE unit, so 0.15 per million
// tokens is 0.00000015. The zero value prices nothing.
type Rates struct {
	unit   [MeterCount]Amount
	priced [MeterCount]bool
}

// Get returns the unit price of a meter, and whether it has one. A price of 0 is a price.
func (r *Rates) Get(m Meter) (Amount, bool) { return r.unit[m], r.priced[m] }

// Set gives a meter its unit price.
func (r *Rates) Set(m Meter, unit Amount) { r.unit[m], r.priced[m] = unit, true }

// Empty reports whether no meter is priced.
func (r *Rates) Empty() bool { return r.priced == [MeterCount]bool{} }

// fallTo prices a meter like another where it has no price of its own and the other has.
func (r *Rates) fallTo(m, other Meter) {
	if !r.priced[m] && r.priced[other] {
		r.Set(m, r.unit[other])
	}
}

// completed applies the rules at the top of this file, and brings all prices to one exponent, so
// that comparing and adding them on the hot path rescales nothing.
func (r Rates) completed() Rates {
	r.fallTo(CachedInput, Input)
	r.fallTo(CachedAudioIn, AudioIn)
	r.fallTo(ImageIn, Input)
	r.fallTo(Reasoning, Output)
	if !r.priced[Requests] {
		r.Set(Requests, Zero)
	}
	for m := range r.unit {
		r.unit[m] = atFullScale(r.unit[m])
	}
	return r
}

// atFullScale represents the same amount with exponent -12.
func atFullScale(a Amount) Amount {
	shift := big.NewInt(int64(a.Exponent()) + AmountScale)
	shift.Exp(big.NewInt(10), shift, nil)
	full, err := AmountOf(shift.Mul(shift, a.Coefficient()), -AmountScale)
	if err != nil {
		return a // unreachable for an amount in range; the unscaled one is just as exact
	}
	return full
}

// over lays the prices that r names over base.
func (r Rates) over(base Rates) Rates {
	for m, priced := range r.priced {
		if priced {
			base.Set(Meter(m), r.unit[m])
		}
	}
	return base
}

// dearer takes the higher price of each meter; the only one where one of the two has none.
func dearer(a, b Rates) Rates {
	for m, priced := range b.priced {
		if priced && (!a.priced[m] || a.unit[m].Less(b.unit[m])) {
			a.Set(Meter(m), b.unit[m])
		}
	}
	return a
}

// Tier is the price above a threshold: once the whole input, cached included, EXCEEDS AboveInput
// tokens, all tokens of the request take its rates; a meter that it does not name keeps the base's.
type Tier struct {
	AboveInput int64
	Rates      Rates
}

// PriceVersion is one immutable, dated entry of the price book. Given to NewPriceBook it holds
// what is listed; got from a book it holds completed rates in every place, and must not be changed.
type PriceVersion struct {
	// ID is `<provider>/<model>@<from (StartText) or "launch">#<8 hex>`. The hex is of a hash over everything
	// that prices, so that no other price can ever go by the same ID. Set by NewPriceBook.
	ID       string
	Provider string // set by NewPriceBook
	Model    string // set by NewPriceBook

	From  time.Time // its first second, often midnight UTC of a day; zero: since launch
	Rates Rates
	Tiers []Tier // ascending by AboveInput

	// ServiceTiers are prices by the tier that the provider names in its *response* (flex,
	// priority, batch); a meter that one does not name keeps the base price.
	ServiceTiers map[string]Rates

	// Regions are factors on the whole price, by the place or speed (SpeedFast) that the provider names in its
	// *response*: In applies them.
	Regions map[string]Amount
	// Region is the region whose factor is in all rates of this version; "" = none is. Set by In.
	Region string

	levels  []Rates            // by how many thresholds are crossed: base, Tiers[0], ...
	service map[string][]Rates // the same for each service tier
	cost    *PriceVersion      // of what is sold: what it costs; nil = this is a cost

	regional map[string]*PriceVersion // this version in each region
}

// isBaseTier reports whether a provider's service tier means the base price.
func isBaseTier(name string) bool {
	return name == "" || name == "default" || name == "auto" || name == "scale"
}

// build completes a checked version's rates and gives it its ID.
func (v *PriceVersion) build(m *Model) {
	v.Provider, v.Model = m.Provider, m.Name
	v.Tiers, v.Regions = slices.Clone(v.Tiers), maps.Clone(v.Regions)
	listed, named := v.Rates, v.ServiceTiers
	v.Rates = listed.completed()
	v.levels = []Rates{v.Rates}
	for i := range v.Tiers {
		v.Tiers[i].Rates = v.Tiers[i].Rates.over(listed).completed()
		v.levels = append(v.levels, v.Tiers[i].Rates)
	}
	v.ServiceTiers = make(map[string]Rates, len(named))
	v.service = make(map[string][]Rates, len(named))
	for name, rates := range named {
		own := rates.over(listed).completed()
		v.ServiceTiers[name] = own
		v.service[name] = v.serviceLevels(own)
	}
	v.ID = v.contentID()
}

// serviceLevels prices a service tier at each threshold. Books list the two apart, and providers
// do not say what they cost together: some long-context requests are refused in a service tier,
// some are billed at the long-context price, some at the service tier's. The dearer of the two, per
// meter, is the one guess that never charges less than the provider may bill.
func (v *PriceVersion) serviceLevels(own Rates) []Rates {
	levels := []Rates{own}
	for _, tier := range v.levels[1:] {
		levels = append(levels, dearer(own, tier))
	}
	return levels
}

// crossed counts the thresholds that an input exceeds.
func (v *PriceVersion) crossed(input int64) int {
	n := 0
	for n < len(v.Tiers) && input > v.Tiers[n].AboveInput {
		n++
	}
	return n
}

// missing is the error of a meter that is in use and has no price.
func (v *PriceVersion) missing(m Meter) error {
	return fmt.Errorf("%w: %s in %s", ErrPriceMissing, m, v.ID)
}

// Mode is what a model does.
type Mode string

// The modes that can be priced.
const (
	ModeChat       Mode = "chat"
	ModeCompletion Mode = "completion" // OpenAI's older completions alone
	ModeEmbedding  Mode = "embedding"
)

// Model is a priced model. Got from a PriceBook it is shared and must not be changed.
type Model struct {
	Provider       string
	Name           string // unique among its provider's
	Upstream       string // what the provider itself calls it; "" = Name
	Mode           Mode
	Context        int64          // tokens of the context window
	MaxOutput      int64          // most output tokens of one choice; 0: unknown
	ResponsesOnly  bool           // served by OpenAI's /v1/responses alone
	AlwaysSearches bool           // searches the web without being asked to
	Deprecated     time.Time      // the provider's date of withdrawal; zero: none known
	Versions       []PriceVersion // ascending by From
}

// OutputLimit is the most output tokens that one choice can have: MaxOutput, or where that is not
// known the whole context window.
func (m *Model) OutputLimit() int64 {
	if m.MaxOutput > 0 {
		return m.MaxOutput
	}
	return m.Context
}

// UpstreamName is what the provider itself calls the model.
func (m *Model) UpstreamName() string {
	if m.Upstream != "" {
		return m.Upstream
	}
	return m.Name
}

// at returns the version in force at a time, nil where there is none.
func (m *Model) at(t time.Time) *PriceVersion {
	for i := len(m.Versions) - 1; i >= 0; i-- {
		if !t.Before(m.Versions[i].From) {
			return &m.Versions[i]
		}
	}
	return nil
}

// PriceBook finds a model and the price version in force. It is immutable and safe for concurrent
// use; a changed book is a new book.
type PriceBook struct {
	byName map[string][]*Model // by name, in the book's order, and by provider/name
	sorted []*Model
}

// NewPriceBook checks the models, completes their rates and indexes them. Several providers may serve a
// model of one name, each at its own price. The models are copied; the first thing wrong is a
// *PriceBookError.
func NewPriceBook(models []Model) (*PriceBook, error) {
	if len(models) > maxModels {
		return nil, &PriceBookError{Field: "models", Problem: fmt.Sprintf("more than %d", maxModels)}
	}
	b := &PriceBook{byName: make(map[string][]*Model, 2*len(models))}
	for i := range models {
		m := models[i]
		if err := m.check(); err != nil {
			return nil, err
		}
		m.Versions = slices.Clone(m.Versions)
		for j := range m.Versions {
			m.Versions[j].build(&m)
			if region, err := m.Versions[j].buildRegions(); err != nil {
				return nil, m.bad(fmt.Sprintf("versions[%d].regions.%s", j, region), "%s", err)
			}
		}
		if err := b.add(&m); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(b.sorted, func(x, y *Model) int { return strings.Compare(x.Name, y.Name) })
	return b, nil
}

// add indexes a model. A name that reads like another model's provider/name would be priced as the one and
// sent as the other.
func (b *PriceBook) add(m *Model) error {
	full := m.Provider + "/" + m.Name
	if b.byName[full] != nil {
		return &PriceBookError{m.Name, "model", "the name is taken twice"}
	}
	for _, other := range b.byName[m.Name] {
		if other.Name != m.Name {
			return &PriceBookError{m.Name, "model", "the name is taken twice"}
		}
	}
	b.byName[full] = []*Model{m}
	b.byName[m.Name] = append(b.byName[m.Name], m)
	b.sorted = append(b.sorted, m)
	return nil
}

// Lookup finds a model by `model` or `provider/model`, and its price at a time; of several providers' the
// first in the book. It is ErrModelUnknown, or, with the model still returned, ErrPriceUnknown.
func (b *PriceBook) Lookup(name string, at time.Time) (*Model, *PriceVersion, error) {
	found := b.byName[name]
	if len(found) == 0 {
		return nil, nil, fmt.Errorf("%w: %.128q", ErrModelUnknown, name)
	}
	v, err := found[0].Price(at)
	return found[0], v, err
}

// Named are the models of that name, one for each provider that serves it, in the book's order. The slice
// is the book's, too.
func (b *PriceBook) Named(name string) []*Model { return b.byName[name] }

// Price is the model's price at a time, or ErrPriceUnknown.
func (m *Model) Price(at time.Time) (*PriceVersion, error) {
	v := m.at(at)
	if v == nil {
		return nil, fmt.Errorf("%w: %s/%s has none at %s", ErrPriceUnknown, m.Provider, m.Name,
			at.UTC().Format(time.DateOnly))
	}
	return v, nil
}

// Models lists the book by name. The slice is the caller's, the models are the book's.
func (b *PriceBook) Models() []*Model { return slices.Clone(b.sorted) }
