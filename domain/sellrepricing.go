package domain

import (
	"reflect"
	"slices"
	"time"
)

// Dated backwards in a sell book. An entry with a day says what was paid since that day; where something was charged
// otherwise since, it is refused like a cost that begins in charged time. Rules without a day are none of that: they
// hold from when they are read, and change nothing that was charged before, whatever they say.

// Payers are who pays a price: the accounts of a group of a sell book, as it has them.
type Payers struct {
	Book  *SellBook
	Group string // "" = the accounts of no group
}

func (p *Payers) have(account string) bool {
	return p == nil || p.Book.Group(account) == p.Group
}

// Patterns has every one of the accounts among its matches, and maybe others: names, and patterns in which * stands
// for any text; nil = anybody.
func (p *Payers) Patterns() []string {
	if p == nil || p.Group == "" {
		return nil
	}
	place, _ := p.Book.placeOf(p.Group)
	return p.Book.groups[place].Accounts
}

func (p *Payers) String() string {
	switch {
	case p == nil:
		return ""
	case p.Group == "":
		return " for accounts in no group"
	}
	return " for the group " + p.Group
}

// stretch is a time that is priced by entries with a day, and what is paid in it.
type stretch struct {
	Repricing
	model *Model
	apart bool // it is neither the cost nor what is paid without these entries
}

// dated lists the stretches of those of a place.
func (b *SellBook) dated(place int) (out []stretch) {
	payers, rules := &Payers{b, b.groupAt(place)}, b.rulesOf(place)
	for _, m := range b.costs.sorted {
		layers := layersOf(rules, m)
		if len(layers) == 0 {
			continue
		}
		first := slices.MinFunc(layers, func(a, b layer) int { return a.from.Compare(b.from) }).from
		for i := range m.Versions {
			cost := &m.Versions[i]
			sold := b.sold[place][cost]
			for k, s := range sold {
				from, until := later(later(first, s.from), cost.From), m.next(cost.From)
				if k+1 < len(sold) {
					until = earlier(until, sold[k+1].from)
				}
				if from.Before(until) {
					r := Repricing{m.Provider + "/" + m.Name, s.version.ID, from, until, payers}
					out = append(out, stretch{r, m, !s.from.IsZero() && s.version != cost})
				}
			}
		}
	}
	return out
}

// layer is what one entry with a day says of a model.
type layer struct {
	rules  int // whose entry it is
	from   time.Time
	says   [2]*Amount   // of all models, of the provider's
	prices [2]SellPrice // by the model's name, by its full name
}

// layersOf are those of a model.
func layersOf(rules []*SellRules, m *Model) (out []layer) {
	for i, r := range rules {
		for k := range r.Dated {
			c := &r.Dated[k]
			l := layer{rules: len(rules) - i, from: c.From, says: [2]*Amount{c.Rules.Markup}}
			provider, named := c.Rules.Providers[m.Provider]
			if named {
				l.says[1] = &provider
			}
			for n, name := range []string{m.Name, m.Provider + "/" + m.Name} {
				price, there := c.Rules.Models[name]
				l.prices[n], named = price, named || there
			}
			if named || c.Rules.Markup != nil {
				out = append(out, l)
			}
		}
	}
	return out
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// Resold lists the times that a sell book prices by other dated entries, and by another version, than the one before
// it, which was made for costs and may be nil. Where other accounts are in a group, or where other rules without a
// day made the price another, nothing is dated backwards. A model that is new, or gone, is priced anew by nothing.
func (b *SellBook) Resold(was *SellBook, costs *PriceBook) (out []Repricing) {
	if b == nil {
		return nil
	}
	for place := range b.sold {
		rules, before := b.rulesOf(place), was.rulesBefore(b.groupAt(place))
		days := daysOf(slices.Concat(rules, before))
		var of *Model
		var spans []span
		for _, s := range b.dated(place) {
			if s.model != of { // a model's are together
				of, spans = s.model, redated(rules, before, s.model, days)
			}
			if m := costs.exactly(s.Model); m != nil {
				out = append(out, s.otherwise(was, m, spans)...)
			}
		}
	}
	return out
}

// rulesBefore are the rules of a group in the book before; where it had none of the name, those of everybody.
func (b *SellBook) rulesBefore(group string) []*SellRules {
	if b == nil {
		return nil
	}
	place, known := b.placeOf(group)
	if !known {
		place = len(b.groups)
	}
	return b.rulesOf(place)
}

// span is a time from its beginning to before its end.
type span struct{ from, until time.Time }

// redated are the times in which other entries hold for a model than before. No day of either is within one.
func redated(rules, before []*SellRules, m *Model, days []time.Time) (out []span) {
	now, then := layersOf(rules, m), layersOf(before, m)
	if reflect.DeepEqual(now, then) {
		return nil
	}
	for i, day := range days {
		until := endOfTime
		if i+1 < len(days) {
			until = days[i+1]
		}
		if !reflect.DeepEqual(begun(now, day), begun(then, day)) {
			out = append(out, span{day, until})
		}
	}
	return out
}

// begun are the layers that have begun on a day.
func begun(layers []layer, day time.Time) (out []layer) {
	for i := range layers {
		if !day.Before(layers[i].from) {
			out = append(out, layers[i])
		}
	}
	return out
}

// otherwise is what of a stretch is within spans, and had another version in the book before; m is the model as it
// was then. A time without a cost had no price.
func (s *stretch) otherwise(was *SellBook, m *Model, spans []span) (out []Repricing) {
	for _, in := range spans {
		for i := range m.Versions {
			cost, part := &m.Versions[i], s.Repricing
			part.From = later(later(part.From, in.from), cost.From)
			part.Until = earlier(earlier(part.Until, in.until), m.next(cost.From))
			switch last := len(out) - 1; {
			case !part.From.Before(part.Until) || was.paid(part.Payers.Group, cost, part.From) == part.Version:
			case last >= 0 && out[last].Until.Equal(part.From):
				out[last].Until = part.Until
			default:
				out = append(out, part)
			}
		}
	}
	return out
}

// paid is the version that a group pays; "" where there is no such group.
func (b *SellBook) paid(group string, cost *PriceVersion, at time.Time) string {
	if b == nil {
		return cost.ID
	}
	place, known := b.placeOf(group)
	if !known {
		return ""
	}
	return b.soldAt(place, cost, at).ID
}

// Resold lists the times that a sell book prices by entries with a day, and by a version that is not recorded. That is
// all that a record tells: not since when, nor for whom, a version has been paid that is recorded; nothing of what is
// sold at cost, or at what is paid without these entries, too; and not by which rule a version is another.
func (r *PriceRecord) Resold(b *SellBook) (out []Repricing) {
	if b == nil {
		return nil
	}
	models := r.models()
	for place := range b.sold {
		for _, s := range b.dated(place) {
			if _, recorded := r.sell[s.Version]; !recorded && s.apart && models[s.Model] {
				out = append(out, s.Repricing)
			}
		}
	}
	return out
}
