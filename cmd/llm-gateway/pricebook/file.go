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
		return nil, f.locate(err, models)
	}
	return book, nil
}

// locate gives an error of the domain the line of its field, or where that is not known the line where its
// model begins.
func (f *file) locate(err error, models []domain.Model) error {
	var bad *domain.PriceBookError
	if !errors.As(err, &bad) {
		return err
	}
	at := -1
	for i := range models {
		if models[i].Name != bad.Model {
			continue
		}
		at = i // where none is wrong by itself, the last of two twins is the one too many
		if own := new(domain.PriceBookError); errors.As(checked(&models[i]), &own) && *own == *bad {
			break
		}
	}
	if at < 0 {
		return fmt.Errorf("%s: %s", bad.Field, bad.Problem)
	}
	return f.Models[at].Wrong(f.Models[at].lines()[bad.Field], bad.Field, "%s", bad.Problem)
}

// checked says what is wrong with a model by itself: several providers may have one of its name.
func checked(m *domain.Model) error {
	_, err := domain.NewPriceBook([]domain.Model{*m})
	return err
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
