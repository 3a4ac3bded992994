package pricebook

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"llm-gateway/domain"
)

// maxSell bounds a sell book file, in bytes.
const maxSell = 2 << 20

// sellForm is the form of a sell book. deployments/sell.example.yaml explains its fields.
type sellForm struct {
	Currency  Scalar      `yaml:"currency"` // of the fixed prices
	Groups    []groupForm `yaml:"groups"`
	RulesForm `yaml:",inline"`
}

// RulesForm is what everybody or a group pays, as files write it. It is exported for the YAML library alone.
type RulesForm struct {
	TermsForm `yaml:",inline"`
	Dated     []datedForm `yaml:"dated"`
}

// TermsForm is what is paid until it changes. It is exported for the YAML library alone.
type TermsForm struct {
	Markup    Scalar              `yaml:"markup"` // per cent
	Providers map[string]Scalar   `yaml:"providers"`
	Models    map[string]saleForm `yaml:"models"`
}

// datedForm is what changes on a day.
type datedForm struct {
	From      Scalar `yaml:"from"` // YYYY-MM-DD, the first day, UTC
	TermsForm `yaml:",inline"`
}

type saleForm struct {
	Markup  Scalar `yaml:"markup"`
	Prices  Prices `yaml:"prices"`   // per million tokens
	PerUnit Prices `yaml:"per_unit"` // per search or request
}

type groupForm struct {
	Name      Scalar   `yaml:"name"`
	Accounts  []Scalar `yaml:"accounts"`
	RulesForm `yaml:",inline"`
}

// LoadSell reads a sell book for a price book in that currency. Errors name the line, where there is one.
func LoadSell(r io.Reader, costs *domain.PriceBook, currency string) (*domain.SellBook, error) {
	var f sellForm
	err := decodeFull(r, maxSell, &f)
	if err != nil {
		return nil, fmt.Errorf("sell book: %w", err)
	}
	book, err := f.book(costs, currency)
	if err != nil {
		return nil, fmt.Errorf("sell book: %w", err)
	}
	return book, nil
}

func (f *sellForm) book(costs *domain.PriceBook, currency string) (*domain.SellBook, error) {
	if c := f.Currency; c.Line != 0 && c.Text != currency {
		return nil, fmt.Errorf("line %d: currency: the prices are in %.40q, and those of the price book in %s", c.Line, c.Text, currency)
	}
	places := places{}
	general, err := f.rules("", places)
	if err != nil {
		return nil, err
	}
	groups := make([]domain.SellGroup, len(f.Groups))
	for i := range f.Groups {
		g := &f.Groups[i]
		at := "groups." + g.Name.Text
		places[at] = g.Name.Line
		if groups[i], err = g.group(at+".", places); err != nil {
			return nil, err
		}
	}
	book, err := domain.NewSellBook(costs, general, groups)
	return book, places.locate(err)
}

func (g *groupForm) group(at string, places places) (out domain.SellGroup, err error) {
	out.Name = g.Name.Text
	for _, account := range g.Accounts {
		if account.Text == "" || len(account.Text) > maxAccount {
			return out, fmt.Errorf("line %d: %saccounts: %.40q is neither an account nor a pattern of accounts", account.Line, at, account.Text)
		}
		out.Accounts = append(out.Accounts, account.Text)
	}
	out.SellRules, err = g.rules(at, places)
	return out, err
}

// maxAccount bounds an account's name or pattern, in bytes.
const maxAccount = 256

func (f *RulesForm) rules(at string, places places) (out domain.SellRules, err error) {
	if out, err = f.terms(at, places); err != nil {
		return out, err
	}
	for i := range f.Dated {
		d, field := &f.Dated[i], fmt.Sprintf("%sdated[%d]", at, i)
		places[field] = d.From.Line
		places[field+".from"] = d.From.Line
		change := domain.SellChange{}
		if change.From, err = dayOf(d.From, field+".from"); err != nil {
			return out, err
		}
		if change.Rules, err = d.terms(field+".", places); err != nil {
			return out, err
		}
		out.Dated = append(out.Dated, change)
	}
	return out, nil
}

// dayOf reads a date as midnight UTC; none is the zero time.
func dayOf(s Scalar, field string) (time.Time, error) {
	if s.Line == 0 {
		return time.Time{}, nil
	}
	d, err := time.Parse(time.DateOnly, s.Text)
	if err != nil || d.IsZero() {
		return time.Time{}, fmt.Errorf("line %d: %s: %.40q is not YYYY-MM-DD", s.Line, field, s.Text)
	}
	return d, nil
}

func (f *TermsForm) terms(at string, places places) (out domain.SellRules, err error) {
	if out.Markup, err = markup(f.Markup, at+"markup", places); err != nil {
		return out, err
	}
	out.Providers = map[string]domain.Amount{}
	for _, name := range slices.Sorted(maps.Keys(f.Providers)) {
		percent, err := markup(f.Providers[name], at+"providers."+name, places)
		if err != nil {
			return out, err
		}
		if percent != nil {
			out.Providers[name] = *percent
		}
	}
	out.Models = map[string]domain.SellPrice{}
	for _, name := range slices.Sorted(maps.Keys(f.Models)) {
		sale := f.Models[name]
		if out.Models[name], err = sale.price(name, at+"models."+name, places); err != nil {
			return out, err
		}
	}
	return out, nil
}

// markup reads per cents; nil where there are none.
func markup(s Scalar, field string, places places) (*domain.Amount, error) {
	if s.Line == 0 {
		return nil, nil
	}
	places[field] = s.Line
	percent, err := domain.ParseAmount(s.Text)
	if err != nil {
		return nil, fmt.Errorf("line %d: %s: %w", s.Line, field, err)
	}
	return &percent, nil
}

func (f *saleForm) price(name, at string, places places) (out domain.SellPrice, err error) {
	form := ModelForm{Model: Scalar{name, f.line()}}
	places[at] = f.line()
	if out.Markup, err = markup(f.Markup, at+".markup", places); err != nil {
		return out, err
	}
	for _, listed := range []Prices{f.Prices, f.PerUnit} {
		for meter, price := range listed {
			places[at+".prices."+meter] = price.Line
		}
	}
	if err = form.rates(&out.Fixed, at+".prices.", f.Prices, perMillion); err == nil {
		err = form.rates(&out.Fixed, at+".per_unit.", f.PerUnit, 0)
	}
	return out, err
}

// line is the first line that says something; 0 where nothing does.
func (f *saleForm) line() int {
	first := f.Markup.Line
	for _, listed := range []Prices{f.Prices, f.PerUnit} {
		for _, price := range listed {
			if first == 0 || price.Line < first {
				first = price.Line
			}
		}
	}
	return first
}

// places are the lines of fields.
type places map[string]int

// locate gives an error of the domain the line of its field, or of what the field is in.
func (p places) locate(err error) error {
	var bad *domain.PriceBookError
	if !errors.As(err, &bad) {
		return err
	}
	for field := bad.Field; field != ""; {
		if line := p[field]; line != 0 {
			return fmt.Errorf("line %d: %s: %s", line, bad.Field, bad.Problem)
		}
		field = field[:max(0, strings.LastIndex(field, "."))]
	}
	return fmt.Errorf("%s: %s", bad.Field, bad.Problem)
}
