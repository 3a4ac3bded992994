package reconcile

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"llm-gateway/domain"
)

// ErrCurrency says that an export's money is not the ledger's.
var ErrCurrency = errors.New("another currency")

// Tolerance is what two sides may differ by in one value, in either direction.
type Tolerance struct {
	Count int64         `json:"count"`
	Cost  domain.Amount `json:"cost"`
}

// Side says where a line was found.
type Side string

// The sides of a line.
const (
	Both       Side = "both"
	FileOnly   Side = "file"
	LedgerOnly Side = "ledger"
)

// Count is one quantity on both sides. Difference is File - Ledger: what the provider has more.
type Count struct {
	Name       Quantity `json:"name"`
	File       int64    `json:"file"`
	Ledger     int64    `json:"ledger"`
	Difference int64    `json:"difference"`
	Differs    bool     `json:"differs"` // by more than is tolerated
}

// Cost is the money on both sides, as a Count.
type Cost struct {
	File       domain.Amount `json:"file"`
	Ledger     domain.Amount `json:"ledger"`
	Difference domain.Amount `json:"difference"`
	Differs    bool          `json:"differs"`
}

// Line is one model on one day, or the totals.
type Line struct {
	Day         string  `json:"day,omitempty"`
	Model       string  `json:"model,omitempty"`        // as the export names it; "" of an export without models
	LedgerModel string  `json:"ledger_model,omitempty"` // where the ledger names it otherwise
	Side        Side    `json:"side"`
	Unknown     bool    `json:"unknown,omitempty"` // the ledger has this model on no day
	Counted     int64   `json:"counted,omitempty"` // the ledger's requests whose tokens the gateway counted itself
	Counts      []Count `json:"counts"`
	Cost        *Cost   `json:"cost,omitempty"`
	Differs     bool    `json:"differs"`
}

// Report is an export and the ledger, side by side.
type Report struct {
	Provider    string    `json:"provider"`
	From        time.Time `json:"from"`
	To          time.Time `json:"to"`
	Currency    string    `json:"currency"`
	Tolerance   Tolerance `json:"tolerance"`
	Lines       []Line    `json:"lines"` // by day and model
	Totals      Line      `json:"totals"`
	Differences int       `json:"differences"` // lines that differ
	Notes       []string  `json:"notes"`
}

// Compare holds an export against the ledger's charges of the same time, in the ledger's currency.
func Compare(f *File, b *Book, currency string, tolerance Tolerance) (*Report, error) {
	if f.Currency != "" && f.Currency != currency {
		return nil, fmt.Errorf("%w: the export's costs are in %.10s, the ledger is in %s", ErrCurrency, f.Currency, currency)
	}
	c := &comparison{file: f, book: b.renamed(f.ledgerNames(), f.day), tolerance: tolerance, bill: map[dayModel]*Row{}}
	exported := f.models()
	if exported[searches] {
		c.book.searchesApart()
	}
	c.models = c.book.models()
	c.names = matchModels(exported, c.models)
	c.collect()
	r := &Report{Provider: f.Provider, From: f.From, To: f.To, Currency: currency, Tolerance: tolerance, Lines: []Line{}, Notes: f.notes()}
	sum, charged := &Row{}, &Charged{}
	for _, at := range c.days() {
		line := c.line(at)
		if r.Lines = append(r.Lines, line); line.Differs {
			r.Differences++
		}
		sum.add(c.bill[at])
		charged.add(c.book.rows[c.inLedger(at)])
	}
	r.Totals = c.values(sum, charged)
	return r, nil
}

// day is the day under which what happened on a day is compared: that, or the first one of a file whose rows are
// of several days.
func (f *File) day(of string) string {
	if f.Wide {
		return f.From.Format(time.DateOnly)
	}
	return of
}

// comparison is one run of Compare.
type comparison struct {
	file      *File
	book      *Book
	tolerance Tolerance
	bill      map[dayModel]*Row // the export's rows, added up
	models    map[string]bool   // of the ledger
	names     map[string]string // the ledger's name of an export's model, where they differ
	told      map[Quantity]bool // what the export tells
	costs     bool              // whether it tells costs
}

// ledgerNames brings the ledger's names of models to what the export tells apart: all of them, families,
// or nothing.
func (f *File) ledgerNames() func(string) string {
	switch {
	case !slices.ContainsFunc(f.Rows, func(r Row) bool { return r.Model != "" }):
		return func(string) string { return "" }
	case f.of.family != nil:
		return f.of.family
	}
	return func(model string) string { return model }
}

func (f *File) models() map[string]bool {
	out := map[string]bool{}
	for _, r := range f.Rows {
		out[r.Model] = true
	}
	return out
}

func (b *Book) models() map[string]bool {
	out := map[string]bool{}
	for at := range b.rows {
		out[at.model] = true
	}
	return out
}

var datedForm = regexp.MustCompile(`-(\d{4}-\d{2}-\d{2}|\d{8})$`)

// undated is a model's name without its date and its ways of writing: Claude Haiku 4.5 is
// claude-haiku-4-5-20251001.
func undated(model string) string {
	return datedForm.ReplaceAllString(strings.NewReplacer(" ", "-", ".", "-").Replace(strings.ToLower(model)), "")
}

// matchModels finds the ledger's names of the export's models. One name on both sides is one model. Of the
// rest, an export's model and a ledger's are one if they are the only ones that are called the same
// without their dates: where two could be meant, none is.
func matchModels(file, ledger map[string]bool) map[string]string {
	byName := map[string][]string{}
	for model := range ledger {
		if !file[model] {
			byName[undated(model)] = append(byName[undated(model)], model)
		}
	}
	asking := map[string]int{}
	for model := range file {
		if !ledger[model] {
			asking[undated(model)]++
		}
	}
	out := map[string]string{}
	for model := range file {
		name := undated(model)
		if !ledger[model] && model != "" && asking[name] == 1 && len(byName[name]) == 1 {
			out[model] = byName[name][0]
		}
	}
	return out
}

// collect adds up the export's rows by day and model.
func (c *comparison) collect() {
	c.told = map[Quantity]bool{}
	for i := range c.file.Rows {
		r := &c.file.Rows[i]
		if r.empty() {
			continue
		}
		at := dayModel{c.file.day(r.Start.Format(time.DateOnly)), r.Model}
		if c.bill[at] == nil {
			c.bill[at] = &Row{}
		}
		c.bill[at].add(r)
		for name := range r.Counts {
			c.told[name] = true
		}
		c.costs = c.costs || r.Cost != nil
	}
}

// add sums two rows; nil is nothing.
func (r *Row) add(o *Row) {
	if o == nil {
		return
	}
	if r.Counts == nil {
		r.Counts = map[Quantity]int64{}
	}
	for name, n := range o.Counts {
		r.Counts[name] += n
	}
	if o.Cost != nil {
		sum := r.cost().Add(*o.Cost)
		r.Cost = &sum
	}
}

func (r *Row) cost() domain.Amount {
	if r.Cost == nil {
		return domain.Zero
	}
	return *r.Cost
}

func (c *Charged) add(o *Charged) {
	if o == nil {
		return
	}
	for m, n := range o.Meters {
		c.Meters[m] += n
	}
	c.Cost, c.Search, c.Counted = c.Cost.Add(o.Cost), c.Search.Add(o.Search), c.Counted+o.Counted
}

// inLedger is where the ledger has an export's day and model.
func (c *comparison) inLedger(at dayModel) dayModel {
	if name, ok := c.names[at.model]; ok {
		at.model = name
	}
	return at
}

// days are all days and models of either side, by the export's names, in order.
func (c *comparison) days() []dayModel {
	ofFile := map[string]string{} // the export's name of a ledger's model
	for file, ledger := range c.names {
		ofFile[ledger] = file
	}
	all := map[dayModel]bool{}
	for at := range c.bill {
		all[at] = true
	}
	for at := range c.book.rows {
		if name, ok := ofFile[at.model]; ok {
			at.model = name
		}
		all[at] = true
	}
	return slices.SortedFunc(maps.Keys(all), func(a, b dayModel) int {
		return cmp.Or(cmp.Compare(a.day, b.day), cmp.Compare(a.model, b.model))
	})
}

func (c *comparison) line(at dayModel) Line {
	bill, charged := c.bill[at], c.book.rows[c.inLedger(at)]
	line := c.values(bill, charged)
	line.Day, line.Model, line.LedgerModel = at.day, at.model, c.names[at.model]
	switch {
	case charged == nil:
		line.Side, line.Unknown = FileOnly, !c.models[c.inLedger(at).model]
	case bill == nil:
		line.Side = LedgerOnly
	}
	return line
}

// values holds what the export tells against the ledger; nil is nothing.
func (c *comparison) values(bill *Row, charged *Charged) Line {
	if bill == nil {
		bill = &Row{}
	}
	if charged == nil {
		charged = &Charged{}
	}
	line := Line{Side: Both, Counted: charged.Counted, Counts: []Count{}}
	for _, q := range quantities {
		if !c.told[q.name] {
			continue
		}
		n := Count{Name: q.name, File: bill.Counts[q.name], Ledger: q.inLedger(&charged.Meters)}
		n.Difference = n.File - n.Ledger
		n.Differs = max(n.Difference, -n.Difference) > c.tolerance.Count
		line.Counts, line.Differs = append(line.Counts, n), line.Differs || n.Differs
	}
	if c.costs {
		m := &Cost{File: bill.cost(), Ledger: charged.Cost}
		m.Difference = m.File.Sub(m.Ledger)
		m.Differs = c.tolerance.Cost.Less(m.Difference) || c.tolerance.Cost.Less(m.Difference.Neg())
		line.Cost, line.Differs = m, line.Differs || m.Differs
	}
	return line
}

// notes are what whoever reads the report should know of the export.
func (f *File) notes() []string {
	notes := []string{}
	if f.More {
		notes = append(notes, "the export's last page says that there is another page (has_more): some of it is missing")
	}
	if f.Rounded > 0 {
		notes = append(notes, fmt.Sprintf("costs finer than 1e-12, which were rounded half up: %d", f.Rounded))
	}
	if f.Foreign > 0 {
		notes = append(notes, fmt.Sprintf("rows of other services, and of credits, which were left out: %d", f.Foreign))
	}
	if f.Wide {
		notes = append(notes, "the export's rows are of several days each: all of its time is compared at once, as its first day")
	}
	if f.of.family != nil {
		notes = append(notes, "the export names families of models: the ledger's models are added up by family")
	}
	return notes
}
