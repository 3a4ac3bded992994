package domain

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Selling. A PriceBook says what the provider charges; a SellBook says what the customer pays for it.
// What is sold is priced by versions of its own, each derived from one version of the cost, once, when the
// book is made:
//
//   - a markup in per cent raises every unit price, rounded half up to 1e-12, in every tier;
//   - a fixed price replaces a meter's, in every tier and service tier. What costs the same as the meter
//     that it is a detail of (cached input as input, reasoning as output) is sold at the same, too;
//   - a markup of 0 is the cost itself, by the cost's own ID;
//   - factors of regions and speeds are on what is sold, fixed prices included.
//
// Rules may change on days to come (selldated.go).
//
// The first that says something counts: the account's group's rule for the model, for the provider, for
// all; then those of everybody, in the same order. An account is in the first group that names it.

// Bounds of a sell book.
const (
	maxSellGroups   = 64
	maxSellAccounts = 10_000 // of one group
)

// Bounds of a markup in per cent. Below the lower one the customer would be paid.
var (
	minMarkup = MustAmount("-100")
	maxMarkup = MustAmount("100000")
)

// SellRules is what is paid for models, by a group or by everybody. The zero value says nothing.
type SellRules struct {
	Markup    *Amount              // per cent on the cost, of every model; nil = says nothing
	Providers map[string]Amount    // markups by the price book's providers
	Models    map[string]SellPrice // by model or provider/model
	Dated     []SellChange         // what is laid over the above, ascending by From
}

// SellPrice is what is paid for one model.
type SellPrice struct {
	Markup *Amount // per cent on what Fixed does not name; nil = what holds without this rule
	Fixed  Rates   // amounts per one unit
}

// SellGroup is accounts that pay prices of their own.
type SellGroup struct {
	Name     string
	Accounts []string // names, or patterns in which * stands for any text
	SellRules
}

// SellBook prices what is sold. It is immutable and safe for concurrent use; nil sells at cost.
type SellBook struct {
	costs    *PriceBook
	general  SellRules
	groups   []SellGroup
	named    map[string]int // the first group that has the name as it is
	sold     []map[*PriceVersion][]soldFrom
	versions []*PriceVersion
}

// NewSellBook derives what everybody (general) and every group pays for each version of the price book.
// The first thing wrong is a *PriceBookError, its Field beginning with `groups.NAME.` where it is a group's.
func NewSellBook(costs *PriceBook, general SellRules, groups []SellGroup) (*SellBook, error) {
	b := &SellBook{costs: costs, general: general, groups: slices.Clone(groups), named: map[string]int{}}
	if err := b.checkGroups(); err != nil {
		return nil, err
	}
	if err := general.check(costs, ""); err != nil {
		return nil, err
	}
	for i := range b.groups {
		if err := b.groups[i].check(costs, "groups."+b.groups[i].Name+"."); err != nil {
			return nil, err
		}
	}
	known := &derivations{byID: map[string]*PriceVersion{}, byRule: map[derivation]*PriceVersion{}}
	for i := range len(groups) + 1 { // the last are those of no group
		sold, err := sellDated(costs, b.rulesOf(i), known)
		if err != nil {
			return nil, err
		}
		b.sold = append(b.sold, sold)
	}
	for _, id := range slices.Sorted(maps.Keys(known.byID)) {
		b.versions = append(b.versions, known.byID[id])
	}
	return b, nil
}

func (b *SellBook) checkGroups() error {
	if len(b.groups) > maxSellGroups {
		return &PriceBookError{Field: "groups", Problem: fmt.Sprintf("more than %d", maxSellGroups)}
	}
	names := map[string]bool{}
	for i, g := range b.groups {
		field := "groups." + g.Name
		switch {
		case !isBookName(g.Name):
			return &PriceBookError{Field: field, Problem: fmt.Sprintf("not a name: %.40q", g.Name)}
		case names[g.Name]:
			return &PriceBookError{Field: field, Problem: "the name is taken twice"}
		case len(g.Accounts) == 0 || len(g.Accounts) > maxSellAccounts:
			return &PriceBookError{Field: field + ".accounts", Problem: fmt.Sprintf("%d of them; a group has 1 to %d", len(g.Accounts), maxSellAccounts)}
		}
		names[g.Name] = true
		for _, account := range g.Accounts {
			if _, taken := b.named[account]; !taken && !strings.Contains(account, "*") {
				b.named[account] = i
			}
		}
	}
	return nil
}

// check refuses rules that could never hold, or that would hold otherwise than they read.
func (r *SellRules) check(costs *PriceBook, at string) error {
	if r.Markup != nil {
		if err := checkMarkup("", at+"markup", *r.Markup); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Providers)) {
		if err := checkMarkup("", at+"providers."+name, r.Providers[name]); err != nil {
			return err
		}
		if !slices.ContainsFunc(costs.sorted, func(m *Model) bool { return m.Provider == name }) {
			return &PriceBookError{Field: at + "providers." + name, Problem: "the price book has no model of it"}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Models)) {
		price := r.Models[name]
		if err := price.check(costs.Named(name), name, at+"models."+name); err != nil {
			return err
		}
	}
	return r.checkDates(costs, at)
}

func checkMarkup(model, field string, markup Amount) error {
	if markup.Less(minMarkup) || maxMarkup.Less(markup) {
		return &PriceBookError{model, field, fmt.Sprintf("%s is not between %s and %s per cent", markup, minMarkup, maxMarkup)}
	}
	return nil
}

// check demands that what has a fixed price has a cost, too: the provider's charge would be unknown.
func (p *SellPrice) check(models []*Model, name, at string) error {
	if len(models) == 0 {
		return &PriceBookError{name, at, "the price book has no such model"}
	}
	if p.Markup == nil && p.Fixed.Empty() {
		return &PriceBookError{name, at, "neither a markup nor a price"}
	}
	if p.Markup != nil {
		if err := checkMarkup(name, at+".markup", *p.Markup); err != nil {
			return err
		}
	}
	if !p.Fixed.Empty() {
		if err := (&Model{Name: name}).checkRates(at+".prices", &p.Fixed); err != nil {
			return err
		}
	}
	for i, fixed := range p.Fixed.priced {
		if fixed && !slices.ContainsFunc(models, func(m *Model) bool { return m.prices(Meter(i)) }) {
			return &PriceBookError{name, at + ".prices." + meterNames[i], "the price book has no price for it"}
		}
	}
	return nil
}

// prices says whether any version has a base price of a meter.
func (m *Model) prices(meter Meter) bool {
	return slices.ContainsFunc(m.Versions, func(v PriceVersion) bool { return v.Rates.priced[meter] })
}

// derivations are the versions of a sell book while it is made. Each is derived once, however many groups and days
// have its rule, and versions of one ID are one.
type derivations struct {
	byID   map[string]*PriceVersion
	byRule map[derivation]*PriceVersion
}

// derivation is a rule that a cost is sold by, in canonical text.
type derivation struct {
	cost *PriceVersion
	rule string
}

func (d *derivations) of(cost *PriceVersion, markup Amount, fixed *Rates, rule string) (*PriceVersion, error) {
	key := derivation{cost, rule}
	if v := d.byRule[key]; v != nil {
		return v, nil
	}
	v, err := cost.sold(markup, fixed)
	if err != nil {
		return nil, err
	}
	if same := d.byID[v.ID]; same != nil {
		v = same
	}
	d.byID[v.ID], d.byRule[key] = v, v
	return v, nil
}

// ruleText is the same for rules by which every cost is sold the same.
func ruleText(markup Amount, fixed *Rates) string {
	text := markup.appendTo(make([]byte, 0, 64))
	for i, priced := range fixed.priced {
		if priced {
			text = append(text, ' ', byte(i))
			text = fixed.unit[i].appendTo(text)
		}
	}
	return string(text)
}

// sell derives every version of a book by the rules, those of first weight first.
func sell(costs *PriceBook, rules []*SellRules, known *derivations) (map[*PriceVersion]*PriceVersion, error) {
	sold := map[*PriceVersion]*PriceVersion{}
	for _, m := range costs.sorted {
		markup, fixed := ruleFor(m, rules)
		rule := ruleText(markup, &fixed)
		for i := range m.Versions {
			v, err := known.of(&m.Versions[i], markup, &fixed, rule)
			if err != nil {
				return nil, err
			}
			sold[&m.Versions[i]] = v
		}
	}
	return sold, nil
}

// ruleFor is the markup and the fixed prices of a model.
func ruleFor(m *Model, rules []*SellRules) (markup Amount, fixed Rates) {
	for _, r := range rules {
		price, named := r.Models[m.Provider+"/"+m.Name]
		if !named {
			price, named = r.Models[m.Name]
		}
		fixed = fixed.over(price.Fixed)
		own, ofProvider := r.Providers[m.Provider]
		switch {
		case named && price.Markup != nil:
			return *price.Markup, fixed
		case ofProvider:
			return own, fixed
		case r.Markup != nil:
			return *r.Markup, fixed
		}
	}
	return Zero, fixed
}

// sold derives what is paid from a cost. Where that is the cost, it is the cost.
func (v *PriceVersion) sold(markup Amount, fixed *Rates) (*PriceVersion, error) {
	if markup.IsZero() && fixed.Empty() {
		return v, nil
	}
	return v.resold(markup, fixed)
}

// resold derives a version of its own, whatever it comes to.
func (v *PriceVersion) resold(markup Amount, fixed *Rates) (*PriceVersion, error) {
	var failed error
	out := v.derived(func(r Rates) Rates {
		derived, err := r.sold(markup, fixed)
		if err != nil && failed == nil {
			failed = &PriceBookError{v.Model, "markup", err.Error()}
		}
		return derived
	})
	out.cost = v
	out.ID = v.ID + out.ruleName(markup, fixed)
	if failed != nil {
		return nil, failed
	}
	if region, err := out.buildRegions(); err != nil {
		return nil, &PriceBookError{v.Model, "regions." + region, err.Error()}
	}
	return out, nil
}

// ruleName is how a sell version's ID goes on after its cost's: the rule, and a hash over all that is paid.
func (v *PriceVersion) ruleName(markup Amount, fixed *Rates) string {
	rule := "+" + markup.String() + "%"
	if markup.Sign() < 0 {
		rule = markup.String() + "%"
	}
	if !fixed.Empty() {
		rule += "+fixed"
	}
	return rule + "#" + v.hash("sell 1\n"+v.ID+rule)
}

// detailsOf names the detail meters that are sold like their whole where they cost the same.
var detailsOf = [...]struct{ detail, whole Meter }{
	{CachedInput, Input}, {ImageIn, Input}, {Reasoning, Output}, {CachedAudioIn, AudioIn},
}

// sold prices what the cost prices, and nothing else, so that the two explain the same meters.
func (r Rates) sold(markup Amount, fixed *Rates) (Rates, error) {
	out := r
	for i, priced := range r.priced {
		if !priced {
			continue
		}
		out.unit[i] = r.unit[i].raised(markup)
		if fixed.priced[i] {
			out.unit[i] = fixed.unit[i]
		}
	}
	for _, d := range detailsOf {
		if fixed.priced[d.whole] && !fixed.priced[d.detail] && r.priced[d.detail] && r.unit[d.detail].Equal(r.unit[d.whole]) {
			out.unit[d.detail] = fixed.unit[d.whole]
		}
	}
	for i := range out.unit {
		if maxUnitPrice.Less(out.unit[i]) {
			return r, fmt.Errorf("%s would be sold at more than %s per unit", Meter(i), maxUnitPrice)
		}
		out.unit[i] = atFullScale(out.unit[i])
	}
	return out, nil
}

// raised adds per cents to a unit price, and rounds the outcome half up to 1e-12. Beside scaled it is the only
// rounding of money that there is.
func (a Amount) raised(percent Amount) Amount {
	return Amount{a.d.Add(a.d.Mul(percent.d).Shift(-2)).Round(AmountScale)}
}

// Cached is what is paid for an answer that was made before, where that is so many per cent of the price: derived
// like a markup, at 100 per cent, too. So the last rule of its ID is always the cache's, and what is before it is the
// price that it is derived from.
func (v *PriceVersion) Cached(percent int) (*PriceVersion, error) {
	return v.resold(MustAmount("1").Times(int64(percent-100)), &Rates{})
}

// cachedRule takes the ID of a cached answer's price apart: what it is derived from, and how many per cent of that
// are paid. A region is ignored.
func cachedRule(id string) (price string, percent int, ok bool) {
	id, _ = cutRegion(id)
	rule, found := strings.CutSuffix(id[:max(0, strings.LastIndexByte(id, '#'))], "%")
	cut := strings.LastIndexAny(rule, "+-")
	if !found || cut < 0 {
		return "", 0, false
	}
	n, err := strconv.Atoi(rule[cut:])
	return rule[:cut], 100 + n, err == nil && n >= -100 && n <= 0
}

// CachedVersion finds the price of a cached answer by its ID, where known has the price that it is derived from;
// otherwise nil.
func CachedVersion(id string, known func(id string) *PriceVersion) *PriceVersion {
	price, percent, ok := cachedRule(id)
	if !ok {
		return nil
	}
	v := known(price)
	if v == nil {
		return nil
	}
	v, err := v.Cached(percent)
	if err != nil {
		return nil
	}
	_, region := cutRegion(id)
	if v, _ = v.In(region); v.ID != id {
		return nil
	}
	return v
}

// Cost is the version of the price book that a sell version is derived from; of the price book's own,
// itself.
func (v *PriceVersion) Cost() *PriceVersion {
	if v.cost != nil {
		return v.cost
	}
	return v
}

// Price is what an account pays at a time where the provider charges by a cost, which is a version of the
// price book that the sell book was made for. It is the cost itself where nothing is said of it.
func (b *SellBook) Price(account string, cost *PriceVersion, at time.Time) *PriceVersion {
	if b == nil {
		return cost
	}
	return b.soldAt(b.groupOf(account), cost, at)
}

// soldAt is what those of a place pay.
func (b *SellBook) soldAt(place int, cost *PriceVersion, at time.Time) *PriceVersion {
	for _, s := range slices.Backward(b.sold[place][cost]) {
		if !at.Before(s.from) {
			return s.version
		}
	}
	return cost
}

// Group is the name of the group that an account is in; "" = none.
func (b *SellBook) Group(account string) string {
	if b == nil {
		return ""
	}
	return b.groupAt(b.groupOf(account))
}

// groupAt is the name of the group at a place; "" = those of no group.
func (b *SellBook) groupAt(place int) string {
	if place < len(b.groups) {
		return b.groups[place].Name
	}
	return ""
}

// placeOf is where a group is; false where there is none of the name.
func (b *SellBook) placeOf(group string) (place int, known bool) {
	if group == "" {
		return len(b.groups), true
	}
	place = slices.IndexFunc(b.groups, func(g SellGroup) bool { return g.Name == group })
	return place, place >= 0
}

// rulesOf are the rules of a place, those of first weight first.
func (b *SellBook) rulesOf(place int) []*SellRules {
	if place < len(b.groups) {
		return []*SellRules{&b.groups[place].SellRules, &b.general}
	}
	return []*SellRules{&b.general}
}

// groupOf is the place of an account's group, behind the last one where it has none.
func (b *SellBook) groupOf(account string) int {
	first, ok := b.named[account]
	if !ok {
		first = len(b.groups)
	}
	for i := range b.groups[:first] {
		for _, pattern := range b.groups[i].Accounts {
			if MatchText(pattern, account) {
				return i
			}
		}
	}
	return first
}

// Versions lists every version that anybody pays by, by ID; costs that are paid as they are included. The
// slice is the caller's.
func (b *SellBook) Versions() []*PriceVersion {
	if b == nil {
		return nil
	}
	return slices.Clone(b.versions)
}

// MatchText reports whether a text is a pattern's: * stands for any text, all else for itself.
func MatchText(pattern, text string) bool {
	first, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == text
	}
	text, ok := strings.CutPrefix(text, first)
	if !ok {
		return false
	}
	for {
		part, more, another := strings.Cut(rest, "*")
		if !another {
			return strings.HasSuffix(text, part)
		}
		i := strings.Index(text, part)
		if i < 0 {
			return false
		}
		text, rest = text[i+len(part):], more
	}
}
