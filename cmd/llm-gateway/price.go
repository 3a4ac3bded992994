package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"time"

	"llm-gateway/cmd/llm-gateway/pricebook"
	"llm-gateway/domain"
)

const perMillion = 1_000_000 // tokens; what people compare prices by

var (
	priceListVerb = verb{
		name: "price list", args: "[--provider NAME] [--group NAME | --account NAME] [--json]",
		summary: "list the models that can be charged for, with today's prices per million tokens", about: sellHelp, run: runPriceList,
	}
	priceShowVerb = verb{
		name: "price show", args: "MODEL [--group NAME | --account NAME] [--json]",
		summary: "show a model's price versions, and what a request can cost at most", about: sellHelp, run: runPriceShow,
	}
)

// openPriceBook reads the book at PRICE_BOOK's path, "" being the built-in one. It must be in the
// ledger's currency.
func openPriceBook(path, currency string) (*domain.PriceBook, pricebook.Info, error) {
	book, info := pricebook.Builtin(), pricebook.BuiltinInfo()
	if path != "" {
		var err error
		if book, info, err = loadPriceBook(path); err != nil {
			return nil, info, fmt.Errorf("PRICE_BOOK %s: %w", path, err)
		}
	}
	if info.Currency != currency {
		return nil, info, fmt.Errorf("the prices are in %s and BILLING_CURRENCY is %s: set PRICE_BOOK to a book in %s",
			info.Currency, currency, currency)
	}
	return book, info, nil
}

func loadPriceBook(path string) (*domain.PriceBook, pricebook.Info, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, pricebook.Info{}, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	return pricebook.LoadInfo(f)
}

// openSellBook reads what customers pay; nil where they pay the cost.
func openSellBook(path, currency string, costs *domain.PriceBook) (*domain.SellBook, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("SELL_BOOK %s: %w", path, err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	book, err := pricebook.LoadSell(f, costs, currency)
	if err != nil {
		return nil, fmt.Errorf("SELL_BOOK %s: %w", path, err)
	}
	return book, nil
}

// prices is unit prices by meter, for `--json`: exact, and per one unit like in events.
type prices map[string]domain.Amount

func pricesOf(r *domain.Rates) prices {
	out := prices{}
	for m := range domain.MeterCount {
		if unit, ok := r.Get(domain.Meter(m)); ok {
			out[domain.Meter(m).String()] = unit
		}
	}
	return out
}

// modelOut is one line of `price list --json`; unit_prices are those in force.
type modelOut struct {
	Model        string `json:"model"`
	Provider     string `json:"provider"`
	Mode         string `json:"mode"`
	Context      int64  `json:"context"`
	MaxOutput    int64  `json:"max_output"`
	Deprecated   string `json:"deprecated,omitempty"`
	PriceVersion string `json:"price_version,omitempty"`
	Currency     string `json:"currency"`
	UnitPrices   prices `json:"unit_prices,omitempty"` // per one token, search or request

	Paid *saleOut `json:"paid,omitempty"` // with a sell book
}

func modelView(m *domain.Model, v *domain.PriceVersion, currency string) modelOut {
	out := modelOut{Model: m.Name, Provider: m.Provider, Mode: string(m.Mode), Context: m.Context, MaxOutput: m.MaxOutput,
		Deprecated: date(m.Deprecated, ""), Currency: currency}
	if v != nil {
		out.PriceVersion, out.UnitPrices = v.ID, pricesOf(&v.Rates)
	}
	return out
}

func date(t time.Time, zero string) string {
	if t.IsZero() {
		return zero
	}
	return t.Format(time.DateOnly)
}

// startOr is when a price begins; launch where it is since then.
func startOr(t time.Time, launch string) string {
	if t.IsZero() {
		return launch
	}
	return domain.StartText(t)
}

func runPriceList(_ context.Context, a *app, args []string) error {
	fs := a.flags()
	provider := fs.String("provider", "", "only the models of the provider `NAME`")
	who, asJSON := flagBuyer(fs), jsonFlag(fs)
	if _, err := a.parse(fs, args); err != nil {
		return err
	}
	book, info, buyer, err := a.openPrices(who)
	if err != nil {
		return err
	}
	models := []modelOut{}
	for _, m := range book.Models() {
		if *provider != "" && m.Provider != *provider {
			continue
		}
		v, _ := m.Price(a.now()) // a model without a price today is listed without one
		out := modelView(m, v, info.Currency)
		if v != nil {
			out.Paid = buyer.paid(v, a.now())
		}
		models = append(models, out)
	}
	if *asJSON {
		return a.printJSON(struct {
			AsOf   string     `json:"as_of"`
			Models []modelOut `json:"models"`
		}{info.AsOf, models})
	}
	return a.printModels(models, info, &buyer)
}

func (a *app) printModels(models []modelOut, info pricebook.Info, b *buyer) error {
	rows := [][]string{{"MODEL", "PROVIDER", "CONTEXT", "MAX OUTPUT", "INPUT", "CACHED", "OUTPUT"}}
	if b.sell != nil {
		rows[0] = append(rows[0], "PAID: INPUT", "CACHED", "OUTPUT")
	}
	for _, m := range models {
		row := append([]string{m.Model, m.Provider, number(m.Context), number(m.MaxOutput)}, m.UnitPrices.usual()...)
		if b.sell != nil {
			paid := prices(nil)
			if m.Paid != nil {
				paid = m.Paid.UnitPrices
			}
			row = append(row, paid.usual()...)
		}
		rows = append(rows, row)
	}
	if err := a.printTable(rows); err != nil {
		return err
	}
	if b.sell != nil {
		fmt.Fprintf(a.stdout, "paid by %s\n", b)
	}
	fmt.Fprintf(a.stdout, "%s per million tokens; collected %s\n", info.Currency, info.AsOf)
	return nil
}

// usual are the prices that a list shows.
func (p prices) usual() []string {
	return []string{p.million(domain.Input), p.million(domain.CachedInput), p.million(domain.Output)}
}

func number(n int64) string {
	if n == 0 {
		return "-"
	}
	return strconv.FormatInt(n, 10)
}

func (p prices) million(m domain.Meter) string {
	unit, ok := p[m.String()]
	if !ok {
		return "-"
	}
	return unit.Times(perMillion).String()
}

// versionOut is one price version of `price show --json`.
type versionOut struct {
	PriceVersion string                   `json:"price_version"`
	From         string                   `json:"from,omitempty"` // "": since launch
	InForce      bool                     `json:"in_force"`
	UnitPrices   prices                   `json:"unit_prices"`
	Tiers        []tierOut                `json:"tiers,omitempty"`
	ServiceTiers map[string]prices        `json:"service_tiers,omitempty"`
	Regions      map[string]domain.Amount `json:"regions,omitempty"`
	Paid         []saleOut                `json:"paid,omitempty"` // with a sell book
}

type tierOut struct {
	AboveInput int64  `json:"above_input"`
	UnitPrices prices `json:"unit_prices"`
}

func versionView(v *domain.PriceVersion, inForce bool) versionOut {
	out := versionOut{PriceVersion: v.ID, From: domain.StartText(v.From), InForce: inForce, UnitPrices: pricesOf(&v.Rates), Regions: v.Regions}
	for i := range v.Tiers {
		out.Tiers = append(out.Tiers, tierOut{v.Tiers[i].AboveInput, pricesOf(&v.Tiers[i].Rates)})
	}
	for name, rates := range v.ServiceTiers {
		if out.ServiceTiers == nil {
			out.ServiceTiers = map[string]prices{}
		}
		out.ServiceTiers[name] = pricesOf(&rates)
	}
	return out
}

// The example whose bound `price show` gives.
const (
	exampleInput  = 1000
	exampleOutput = 1000
)

// showOut is the JSON of `price show`.
type showOut struct {
	modelOut
	Versions []versionOut `json:"versions"`
	Example  *exampleOut  `json:"bound_example,omitempty"`
}

// exampleOut is the most that a request of that size can cost: what is reserved for it.
type exampleOut struct {
	Input  int64         `json:"input"`
	Output int64         `json:"output"`
	Amount domain.Amount `json:"amount"`
	Lines  []domain.Line `json:"lines"`
}

func boundExample(v *domain.PriceVersion) *exampleOut {
	need := domain.Need{InputTokens: exampleInput, OutputTokens: exampleOutput}
	if _, priced := v.Rates.Get(domain.Output); !priced {
		need.OutputTokens = 0
	}
	b, err := v.Bound(need)
	if err != nil {
		return nil
	}
	return &exampleOut{b.Input, b.Output, b.Amount, b.Lines}
}

func runPriceShow(_ context.Context, a *app, args []string) error {
	fs := a.flags()
	who, asJSON := flagBuyer(fs), jsonFlag(fs)
	names, err := a.parse(fs, args, "MODEL")
	if err != nil {
		return err
	}
	book, info, buyer, err := a.openPrices(who)
	if err != nil {
		return err
	}
	m, current, err := book.Lookup(names[0], a.now())
	if m == nil {
		return err
	}
	out := showOut{modelOut: modelView(m, current, info.Currency)}
	for i := range m.Versions {
		v, until := &m.Versions[i], time.Time{}
		if i+1 < len(m.Versions) {
			until = m.Versions[i+1].From
		}
		view := versionView(v, v == current)
		view.Paid = buyer.sales(v, until, a.now())
		out.Versions = append(out.Versions, view)
	}
	if current != nil {
		out.Paid, out.Example = buyer.paid(current, a.now()), boundExample(buyer.version(current, a.now()))
	}
	if *asJSON {
		return a.printJSON(out)
	}
	return a.printModel(&out, buyer.String())
}

func (a *app) printModel(m *showOut, buyer string) error {
	fmt.Fprintf(a.stdout, "%s/%s  %s, context %s, output %s tokens at most\n", m.Provider, m.Model, m.Mode, number(m.Context), number(m.MaxOutput))
	if m.Deprecated != "" {
		fmt.Fprintf(a.stdout, "withdrawn by the provider on %s\n", m.Deprecated)
	}
	for _, v := range m.Versions {
		from, mark := "launch", ""
		if v.From != "" {
			from = v.From
		}
		if v.InForce {
			mark = ", in force"
		}
		fmt.Fprintf(a.stdout, "\nfrom %s%s  (%s)\n", from, mark, v.PriceVersion)
		if err := a.printTable(v.rows(m.Currency)); err != nil {
			return err
		}
		if err := a.printSales(v.Paid, buyer, m.Currency); err != nil {
			return err
		}
	}
	if e := m.Example; e != nil {
		fmt.Fprintf(a.stdout, "\na request of %d input and %d output tokens costs at most %s %s:\n", e.Input, e.Output, e.Amount, m.Currency)
		var rows [][]string
		for _, l := range e.Lines {
			rows = append(rows, []string{"", l.Meter.String(), number(l.Quantity), "x " + l.UnitPrice.String(), "= " + l.Amount.String()})
		}
		return a.printTable(rows)
	}
	return nil
}

// rows is a version as a table: a line per meter, a column per tier.
func (v *versionOut) rows(currency string) [][]string {
	head, columns := []string{"", "meter", currency}, []prices{v.UnitPrices}
	for _, t := range v.Tiers {
		head, columns = append(head, fmt.Sprintf("above %d input", t.AboveInput)), append(columns, t.UnitPrices)
	}
	for _, name := range slices.Sorted(maps.Keys(v.ServiceTiers)) {
		head, columns = append(head, name), append(columns, v.ServiceTiers[name])
	}
	rows := [][]string{append(head, "")}
	for i := range domain.MeterCount {
		m := domain.Meter(i)
		if !slices.ContainsFunc(columns, func(p prices) bool { _, priced := p[m.String()]; return priced }) {
			continue
		}
		row, per := []string{"", m.String()}, "per million"
		for _, p := range columns {
			if m >= domain.WebSearch {
				per = "each"
				row = append(row, p[m.String()].String())
			} else {
				row = append(row, p.million(m))
			}
		}
		rows = append(rows, append(row, per))
	}
	for _, name := range slices.Sorted(maps.Keys(v.Regions)) {
		rows = append(rows, []string{"", "region " + name, "x " + v.Regions[name].String()})
	}
	return rows
}
