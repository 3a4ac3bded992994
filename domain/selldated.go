package domain

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Dated selling. Rules of a sell book may be laid over by others from a day on, so that nobody has to edit
// the file on the day. What is sold is still derived once, when the book is made: for every stretch of time
// between two such days. Which of them is charged is decided by when the request was reserved, as it is for
// the cost.

// maxSellDates bounds the changes of one group's rules, or of everybody's.
const maxSellDates = 32

// SellChange is rules from a day on. What they do not name stays as it was before: a model that they name is
// as they say, whole.
type SellChange struct {
	From  time.Time // midnight UTC of the first day
	Rules SellRules // without changes of their own
}

// checkDates refuses changes that overlap, or that change nothing.
func (r *SellRules) checkDates(costs *PriceBook, at string) error {
	if len(r.Dated) > maxSellDates {
		return &PriceBookError{Field: at + "dated", Problem: fmt.Sprintf("more than %d", maxSellDates)}
	}
	for i := range r.Dated {
		c, field := &r.Dated[i], fmt.Sprintf("%sdated[%d]", at, i)
		switch {
		case c.From.IsZero():
			return &PriceBookError{Field: field + ".from", Problem: "missing"}
		case !c.From.Equal(c.From.UTC().Truncate(24 * time.Hour)):
			return &PriceBookError{Field: field + ".from", Problem: c.From.Format(time.RFC3339) + " is not midnight UTC"}
		case i > 0 && !c.From.After(r.Dated[i-1].From):
			return &PriceBookError{Field: field + ".from", Problem: "not after the entry before it"}
		case len(c.Rules.Dated) > 0:
			return &PriceBookError{Field: field + ".dated", Problem: "an entry has none of its own"}
		case c.Rules.Markup == nil && len(c.Rules.Providers)+len(c.Rules.Models) == 0:
			return &PriceBookError{Field: field, Problem: "it changes nothing"}
		}
		if err := c.Rules.check(costs, field+"."); err != nil {
			return err
		}
	}
	return nil
}

// on are the rules that hold on a day.
func (r *SellRules) on(day time.Time) *SellRules {
	out := SellRules{Markup: r.Markup, Providers: r.Providers, Models: r.Models}
	for i := range r.Dated {
		c := &r.Dated[i]
		if day.Before(c.From) {
			break
		}
		if c.Rules.Markup != nil {
			out.Markup = c.Rules.Markup
		}
		out.Providers, out.Models = laidOver(out.Providers, c.Rules.Providers), laidOver(out.Models, c.Rules.Models)
	}
	return &out
}

func laidOver[V any](base, changes map[string]V) map[string]V {
	if len(changes) == 0 {
		return base
	}
	out := make(map[string]V, len(base)+len(changes))
	maps.Copy(out, base)
	maps.Copy(out, changes)
	return out
}

// daysOf are the days on which any of these rules change, ascending, behind the zero time.
func daysOf(rules []*SellRules) []time.Time {
	days := []time.Time{{}}
	for _, r := range rules {
		for i := range r.Dated {
			days = append(days, r.Dated[i].From.UTC())
		}
	}
	slices.SortFunc(days, time.Time.Compare)
	return slices.CompactFunc(days, time.Time.Equal)
}

// soldFrom is what is paid from a day on; the zero time is since launch.
type soldFrom struct {
	from    time.Time
	version *PriceVersion
}

// sellDated derives every version of a book by the rules, for every stretch of time.
func sellDated(costs *PriceBook, rules []*SellRules, known *derivations) (map[*PriceVersion][]soldFrom, error) {
	all := map[*PriceVersion][]soldFrom{}
	for _, day := range daysOf(rules) {
		held := make([]*SellRules, len(rules))
		for i, r := range rules {
			held[i] = r.on(day)
		}
		sold, err := sell(costs, held, known)
		if err != nil {
			return nil, err
		}
		for cost, v := range sold {
			if have := all[cost]; len(have) == 0 || have[len(have)-1].version != v {
				all[cost] = append(have, soldFrom{day, v})
			}
		}
	}
	return all, nil
}

// Sold is one price of what a cost is sold at, and the days that it holds.
type Sold struct {
	From    time.Time // zero: as long as the cost
	Version *PriceVersion
}

// Sales lists what the accounts of a group pay for a cost, ascending by From; the group "" is everybody who is
// in none. known says whether there is such a group. A nil book sells at cost.
func (b *SellBook) Sales(group string, cost *PriceVersion) (sales []Sold, known bool) {
	if b == nil {
		return []Sold{{Version: cost}}, group == ""
	}
	place, known := b.placeOf(group)
	if !known {
		return nil, false
	}
	for _, s := range b.sold[place][cost] {
		if !s.from.After(cost.From) { // it is in force when the cost begins, or was before
			sales = sales[:0]
		}
		sales = append(sales, Sold{s.from, s.version})
	}
	if sales == nil {
		sales = []Sold{{Version: cost}}
	}
	return sales, true
}
