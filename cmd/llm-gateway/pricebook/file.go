package pricebook

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"llm-gateway/domain"

	"github.com/goccy/go-yaml/ast"
)

// perMillion moves the decimal point of a price per million tokens to one per token.
const perMillion = 6

// file is the form of a price book. builtin.yaml explains its fields.
type file struct {
	Currency scalar            `yaml:"currency"`
	Unit     scalar            `yaml:"unit"` // per_million, the only one
	AsOf     scalar            `yaml:"as_of"`
	Sources  map[string]string `yaml:"sources"`
	Models   []model           `yaml:"models"`
}

type model struct {
	Provider       scalar    `yaml:"provider"`
	Model          scalar    `yaml:"model"`
	Mode           scalar    `yaml:"mode"`
	Context        int64     `yaml:"context"`
	MaxOutput      int64     `yaml:"max_output"`
	Dimensions     int64     `yaml:"dimensions"`       // of an embedding; for the reader
	CacheMinTokens int64     `yaml:"cache_min_tokens"` // shorter prompts are not cached; for the reader
	ResponsesOnly  bool      `yaml:"responses_only"`
	AlwaysSearches bool      `yaml:"always_searches"`
	Deprecated     scalar    `yaml:"deprecated"`
	Sources        []scalar  `yaml:"sources"`
	Versions       []version `yaml:"versions"`
}

type version struct {
	From         scalar            `yaml:"from"`
	Prices       prices            `yaml:"prices"`
	PerUnit      prices            `yaml:"per_unit"`
	Tiers        []tier            `yaml:"tiers"`
	ServiceTiers map[string]prices `yaml:"service_tiers"`
	Regions      prices            `yaml:"regions"` // factors, by region
}

type tier struct {
	AboveInput int64  `yaml:"above_input"`
	Prices     prices `yaml:"prices"`
}

type prices map[string]scalar

// scalar is a string with its place. Only YAML strings are taken: a bare 1e-6, 010 or .5 is a number
// to YAML, and what number differs between readers.
type scalar struct {
	text string
	line int
}

// UnmarshalYAML implements yaml.NodeUnmarshaler.
func (s *scalar) UnmarshalYAML(n ast.Node) error {
	line := n.GetToken().Position.Line
	text, ok := n.(*ast.StringNode)
	if !ok {
		return fmt.Errorf("line %d: %.40q is not text; prices are written in quotes", line, n.String())
	}
	*s = scalar{text.Value, line}
	return nil
}

// wrong is an error at a line of a model; 0 where only the model's own line is known.
func (m *model) wrong(line int, field, problem string, args ...any) error {
	if line == 0 {
		line = m.Model.line
	}
	return fmt.Errorf("price book: line %d: model %.128q: %s: %s", line, m.Model.text, field,
		fmt.Sprintf(problem, args...))
}

// locate gives an error of the domain the line where its model begins.
func (f *file) locate(err error) error {
	var bad *domain.PriceBookError
	if !errors.As(err, &bad) {
		return err
	}
	for i := len(f.Models) - 1; i >= 0; i-- { // the last of two twins is the one too many
		if f.Models[i].Model.text == bad.Model {
			return f.Models[i].wrong(0, bad.Field, "%s", bad.Problem)
		}
	}
	return err
}

// models converts the whole file, or says what is wrong first.
func (f *file) models() ([]domain.Model, error) {
	if err := domain.CheckCurrency(f.Currency.text); err != nil {
		return nil, fmt.Errorf("price book: line %d: currency: %w", f.Currency.line, err)
	}
	if f.Unit.text != "per_million" {
		return nil, fmt.Errorf("price book: line %d: unit: %.40q is not per_million", f.Unit.line, f.Unit.text)
	}
	if _, err := time.Parse(time.DateOnly, f.AsOf.text); err != nil {
		return nil, fmt.Errorf("price book: line %d: as_of: %.40q is not YYYY-MM-DD", f.AsOf.line, f.AsOf.text)
	}
	if len(f.Models) == 0 {
		return nil, errors.New("price book: models: none")
	}
	models := make([]domain.Model, len(f.Models))
	for i := range f.Models {
		m, err := f.Models[i].convert(f.Sources)
		if err != nil {
			return nil, err
		}
		models[i] = m
	}
	return models, nil
}

func (m *model) convert(sources map[string]string) (domain.Model, error) {
	out := domain.Model{
		Provider: m.Provider.text, Name: m.Model.text, Mode: domain.Mode(m.Mode.text),
		Context: m.Context, MaxOutput: m.MaxOutput,
		ResponsesOnly: m.ResponsesOnly, AlwaysSearches: m.AlwaysSearches,
	}
	for _, s := range m.Sources {
		if _, ok := sources[s.text]; !ok {
			return out, m.wrong(s.line, "sources", "%.40q is not among the book's sources", s.text)
		}
	}
	if m.Dimensions < 0 || m.CacheMinTokens < 0 {
		return out, m.wrong(0, "dimensions, cache_min_tokens", "negative")
	}
	var err error
	if out.Deprecated, err = m.day("deprecated", m.Deprecated); err != nil {
		return out, err
	}
	for i := range m.Versions {
		v, err := m.version(&m.Versions[i], fmt.Sprintf("versions[%d].", i))
		if err != nil {
			return out, err
		}
		out.Versions = append(out.Versions, v)
	}
	return out, nil
}

// day reads a date as midnight UTC; none is the zero time.
func (m *model) day(field string, s scalar) (time.Time, error) {
	if s == (scalar{}) {
		return time.Time{}, nil
	}
	d, err := time.Parse(time.DateOnly, s.text)
	if err != nil || d.IsZero() { // 0001-01-01 would silently mean "since launch"
		return time.Time{}, m.wrong(s.line, field, "%.40q is not YYYY-MM-DD", s.text)
	}
	return d, nil
}

func (m *model) version(v *version, at string) (out domain.PriceVersion, err error) {
	if out.From, err = m.day(at+"from", v.From); err != nil {
		return out, err
	}
	if err = m.rates(&out.Rates, at+"prices.", v.Prices, perMillion); err != nil {
		return out, err
	}
	if err = m.rates(&out.Rates, at+"per_unit.", v.PerUnit, 0); err != nil {
		return out, err
	}
	for i, t := range v.Tiers {
		level := domain.Tier{AboveInput: t.AboveInput}
		if err = m.rates(&level.Rates, fmt.Sprintf("%stiers[%d].prices.", at, i), t.Prices, perMillion); err != nil {
			return out, err
		}
		out.Tiers = append(out.Tiers, level)
	}
	out.ServiceTiers = make(map[string]domain.Rates, len(v.ServiceTiers))
	for _, name := range slices.Sorted(maps.Keys(v.ServiceTiers)) {
		var rates domain.Rates
		if err = m.rates(&rates, at+"service_tiers."+name+".", v.ServiceTiers[name], perMillion); err != nil {
			return out, err
		}
		out.ServiceTiers[name] = rates
	}
	out.Regions, err = m.factors(at+"regions.", v.Regions)
	return out, err
}

// rates adds prices to r, each for 10^power units.
func (m *model) rates(r *domain.Rates, at string, listed prices, power int32) error {
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		price := listed[name]
		meter, err := domain.ParseMeter(name)
		if err != nil {
			return m.wrong(price.line, at+name, "%v", err)
		}
		if single := meter == domain.WebSearch || meter == domain.Requests; single != (power == 0) {
			return m.wrong(price.line, at+name, "tokens are priced under prices, searches and requests under per_unit")
		}
		unit, err := domain.ParseAmount(price.text)
		if err != nil {
			return m.wrong(price.line, at+name, "%v", err)
		}
		if unit, err = domain.AmountOf(unit.Coefficient(), unit.Exponent()-power); err != nil {
			return m.wrong(price.line, at+name, "%s per million is, per unit, %v", price.text, err)
		}
		r.Set(meter, unit)
	}
	return nil
}

func (m *model) factors(at string, listed prices) (map[string]domain.Amount, error) {
	if len(listed) == 0 {
		return nil, nil
	}
	out := make(map[string]domain.Amount, len(listed))
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		factor, err := domain.ParseAmount(listed[name].text)
		if err != nil {
			return nil, m.wrong(listed[name].line, at+name, "%v", err)
		}
		out[name] = factor
	}
	return out, nil
}
