package pricebook

import (
	"errors"
	"fmt"
	"time"

	"llm-gateway/domain"
)

// file is the form of a price book. builtin.yaml explains its fields.
type file struct {
	Currency Scalar            `yaml:"currency"`
	Unit     Scalar            `yaml:"unit"` // per_million, the only one
	AsOf     Scalar            `yaml:"as_of"`
	Sources  map[string]string `yaml:"sources"`
	Models   []model           `yaml:"models"`
}

type model struct {
	Provider  Scalar   `yaml:"provider"`
	Sources   []Scalar `yaml:"sources"`
	ModelForm `yaml:",inline"`
}

// book converts and checks the whole file.
func (f *file) book() (*domain.PriceBook, error) {
	models, err := f.models()
	if err != nil {
		return nil, err
	}
	book, err := domain.NewPriceBook(models)
	if err != nil {
		return nil, f.locate(err)
	}
	return book, nil
}

// locate gives an error of the domain the line of its field, or where that is not known the line where its
// model begins.
func (f *file) locate(err error) error {
	var bad *domain.PriceBookError
	if !errors.As(err, &bad) {
		return err
	}
	for i := len(f.Models) - 1; i >= 0; i-- { // the last of two twins is the one too many
		if f.Models[i].Model.Text == bad.Model {
			return f.Models[i].Wrong(f.Models[i].lines()[bad.Field], bad.Field, "%s", bad.Problem)
		}
	}
	return fmt.Errorf("%s: %s", bad.Field, bad.Problem)
}

// placed is a field with its line; one that is missing has none.
func placed(line int, field string) string {
	if line == 0 {
		return field
	}
	return fmt.Sprintf("line %d: %s", line, field)
}

// models converts the whole file, or says what is wrong first.
func (f *file) models() ([]domain.Model, error) {
	if err := domain.CheckCurrency(f.Currency.Text); err != nil {
		return nil, fmt.Errorf("%s: %w", placed(f.Currency.Line, "currency"), err)
	}
	if f.Unit.Text != "per_million" {
		return nil, fmt.Errorf("%s: %.40q is not per_million", placed(f.Unit.Line, "unit"), f.Unit.Text)
	}
	if _, err := time.Parse(time.DateOnly, f.AsOf.Text); err != nil {
		return nil, fmt.Errorf("%s: %.40q is not YYYY-MM-DD", placed(f.AsOf.Line, "as_of"), f.AsOf.Text)
	}
	if len(f.Models) == 0 {
		return nil, errors.New("models: none")
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
	for _, s := range m.Sources {
		if _, ok := sources[s.Text]; !ok {
			return domain.Model{}, m.Wrong(s.Line, "sources", "%.40q is not among the book's sources", s.Text)
		}
	}
	return m.Convert(m.Provider.Text)
}
