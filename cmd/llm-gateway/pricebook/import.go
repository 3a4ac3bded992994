package pricebook

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"llm-gateway/domain"
)

// The formats that Import reads.
const (
	FormatLiteLLM = "litellm"      // LiteLLM's model_prices_and_context_window.json
	FormatGenAI   = "genai-prices" // pydantic's genai-prices, data.json of version 2
)

// Imported is a public price list in this project's terms. All prices are in US dollars.
type Imported struct {
	Models []domain.Model // with prices as listed, by provider and name; each can be charged by
	Left   []Left         // what could not be said in these terms
}

// Left is what was left out of a list: of a model that was imported a part, of another all of it.
type Left struct{ Model, What string }

// Import reads a public price list. keep says which models are wanted, by the price book's names.
func Import(format string, r io.Reader, keep func(provider, model string) bool) (*Imported, error) {
	list, err := readJSON(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", format, err)
	}
	i := &importer{keep: keep}
	switch format {
	case FormatLiteLLM:
		err = i.litellm(list)
	case FormatGenAI:
		err = i.genai(list)
	default:
		err = errors.New("not a format that is known")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", format, err)
	}
	i.finish()
	return &i.Imported, nil
}

type importer struct {
	Imported

	keep func(provider, model string) bool
}

func (i *importer) left(model, what string, args ...any) {
	i.Left = append(i.Left, Left{model, fmt.Sprintf(what, args...)})
}

// ours is a list's provider by the built-in book's name.
func ours(provider string) string {
	switch provider {
	case "google":
		return "gemini"
	case "text-completion-openai":
		return "openai"
	}
	return provider
}

// add keeps a model that can be charged by, and says of another why not.
func (i *importer) add(m *domain.Model, failed error) {
	name := m.Provider + "/" + m.Name
	if failed == nil {
		failed = checked(m)
	}
	var bad *domain.PriceBookError
	switch {
	case errors.As(failed, &bad):
		i.left(name, "left out: %s: %s", bad.Field, bad.Problem)
	case failed != nil:
		i.left(name, "left out: %v", failed)
	default:
		i.Models = append(i.Models, *m)
	}
}

// finish orders the models, and drops those that could be taken for another.
func (i *importer) finish() {
	full := map[string]bool{}
	for _, m := range i.Models {
		full[m.Provider+"/"+m.Name] = true
	}
	slices.SortStableFunc(i.Models, func(a, b domain.Model) int { return strings.Compare(a.Provider+"/"+a.Name, b.Provider+"/"+b.Name) })
	last := ""
	i.Models = slices.DeleteFunc(i.Models, func(m domain.Model) bool {
		name := m.Provider + "/" + m.Name
		twin := name == last
		last = name
		switch {
		case twin:
			i.left(name, "left out: it is listed twice")
		case full[m.Name]:
			i.left(name, "left out: its name is another model's provider/name")
		default:
			return false
		}
		return true
	})
}

// setPrice sets a meter's price from a list's number, for 10^power units.
func setPrice(r *domain.Rates, m domain.Meter, field string, value any, power int) error {
	n, ok := value.(json.Number)
	if !ok {
		return fmt.Errorf("%s is not a number", field)
	}
	unit, err := amountOf(n, power)
	if err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	r.Set(m, unit)
	return nil
}
