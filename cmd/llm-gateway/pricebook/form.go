package pricebook

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"llm-gateway/domain"
)

// perMillion moves the decimal point of a price per million tokens to one per token.
const perMillion = 6

// ModelForm is a model as files write it. builtin.yaml explains its fields.
type ModelForm struct {
	Model          Scalar        `yaml:"model"`
	Mode           Scalar        `yaml:"mode"`
	Context        Number        `yaml:"context"`
	MaxOutput      Number        `yaml:"max_output"`
	Dimensions     Number        `yaml:"dimensions"`       // of an embedding; for the reader
	CacheMinTokens Number        `yaml:"cache_min_tokens"` // shorter prompts are not cached; for the reader
	ResponsesOnly  bool          `yaml:"responses_only"`
	AlwaysSearches bool          `yaml:"always_searches"`
	Deprecated     Scalar        `yaml:"deprecated"`
	Versions       []VersionForm `yaml:"versions"`
}

// VersionForm is prices that hold from a day on.
type VersionForm struct {
	From       Scalar `yaml:"from"`
	PricesForm `yaml:",inline"`
}

// PricesForm is all that one version charges by.
type PricesForm struct {
	Prices       Prices            `yaml:"prices"`   // per million tokens
	PerUnit      Prices            `yaml:"per_unit"` // per search or request
	Tiers        []TierForm        `yaml:"tiers"`
	ServiceTiers map[string]Prices `yaml:"service_tiers"`
	Regions      Prices            `yaml:"regions"` // factors, by region
}

// TierForm is the prices above a threshold of the input.
type TierForm struct {
	AboveInput Number `yaml:"above_input"`
	Prices     Prices `yaml:"prices"`
}

// Prices is prices as they are written, by meter.
type Prices map[string]Scalar

// ModelError says what is wrong with a model of a file, and where.
type ModelError struct {
	Line                  int // from 1
	Model, Field, Problem string
}

// Error is one line for whoever edits the file.
func (e *ModelError) Error() string {
	return fmt.Sprintf("line %d: model %.128q: %s: %s", e.Line, e.Model, e.Field, e.Problem)
}

// Wrong is a ModelError at a line of the model; 0 where only the model's own line is known.
func (m *ModelForm) Wrong(line int, field, problem string, args ...any) error {
	if line == 0 {
		line = m.Model.Line
	}
	return &ModelError{line, m.Model.Text, field, fmt.Sprintf(problem, args...)}
}

// Convert makes the domain's model of it, with the prices as listed. What it does not check is left
// to domain.NewPriceBook. Errors are ModelErrors.
func (m *ModelForm) Convert(provider string) (domain.Model, error) {
	out := domain.Model{
		Provider: provider, Name: m.Model.Text, Mode: domain.Mode(m.Mode.Text),
		Context: m.Context.N, MaxOutput: m.MaxOutput.N,
		ResponsesOnly: m.ResponsesOnly, AlwaysSearches: m.AlwaysSearches,
	}
	if m.Dimensions.N < 0 || m.CacheMinTokens.N < 0 {
		return out, m.Wrong(0, "dimensions, cache_min_tokens", "negative")
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
func (m *ModelForm) day(field string, s Scalar) (time.Time, error) {
	if s == (Scalar{}) {
		return time.Time{}, nil
	}
	d, err := time.Parse(time.DateOnly, s.Text)
	if err != nil || d.IsZero() { // 0001-01-01 would silently mean "since launch"
		return time.Time{}, m.Wrong(s.Line, field, "%.40q is not YYYY-MM-DD", s.Text)
	}
	return d, nil
}

// start reads when a price begins; none is the zero time.
func (m *ModelForm) start(field string, s Scalar) (time.Time, error) {
	from, err := domain.ParseStart(s.Text)
	if err == nil && s.Text == "" && s != (Scalar{}) {
		err = errors.New("it is empty")
	}
	if err != nil {
		return from, m.Wrong(s.Line, field, "%v", err)
	}
	return from, nil
}

func (m *ModelForm) version(v *VersionForm, at string) (out domain.PriceVersion, err error) {
	if out.From, err = m.start(at+"from", v.From); err != nil {
		return out, err
	}
	if err = m.rates(&out.Rates, at+"prices.", v.Prices, perMillion); err != nil {
		return out, err
	}
	if err = m.rates(&out.Rates, at+"per_unit.", v.PerUnit, 0); err != nil {
		return out, err
	}
	for i, t := range v.Tiers {
		level := domain.Tier{AboveInput: t.AboveInput.N}
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
func (m *ModelForm) rates(r *domain.Rates, at string, listed Prices, power int32) error {
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		price := listed[name]
		meter, err := domain.ParseMeter(name)
		if err != nil {
			return m.Wrong(price.Line, at+name, "%v", err)
		}
		if single := meter == domain.WebSearch || meter == domain.Requests; single != (power == 0) {
			return m.Wrong(price.Line, at+name, "tokens are priced under prices, searches and requests under per_unit")
		}
		unit, err := domain.ParseAmount(price.Text)
		if err != nil {
			return m.Wrong(price.Line, at+name, "%v", err)
		}
		if unit, err = domain.AmountOf(unit.Coefficient(), unit.Exponent()-power); err != nil {
			return m.Wrong(price.Line, at+name, "%s per million is, per unit, %v", price.Text, err)
		}
		r.Set(meter, unit)
	}
	return nil
}

func (m *ModelForm) factors(at string, listed Prices) (map[string]domain.Amount, error) {
	if len(listed) == 0 {
		return nil, nil
	}
	out := make(map[string]domain.Amount, len(listed))
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		factor, err := domain.ParseAmount(listed[name].Text)
		if err != nil {
			return nil, m.Wrong(listed[name].Line, at+name, "%v", err)
		}
		out[name] = factor
	}
	return out, nil
}

// lines are where the numbers, prices and dates of a model stand, by their fields.
func (m *ModelForm) lines() map[string]int {
	out := map[string]int{"mode": m.Mode.Line, "context": m.Context.Line, "max_output": m.MaxOutput.Line}
	note := func(at string, listed Prices) {
		for name, price := range listed {
			out[at+name] = price.Line
		}
	}
	for i, v := range m.Versions {
		at := fmt.Sprintf("versions[%d].", i)
		out[at+"from"] = v.From.Line
		note(at+"prices.", v.Prices)
		note(at+"prices.", v.PerUnit)
		note(at+"regions.", v.Regions)
		for j, t := range v.Tiers {
			tier := fmt.Sprintf("%stiers[%d].", at, j)
			out[tier+"above_input"] = t.AboveInput.Line
			note(tier+"prices.", t.Prices)
		}
		for name, listed := range v.ServiceTiers {
			note(at+"service_tiers."+name+".", listed)
		}
	}
	return out
}
