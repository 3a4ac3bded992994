// Package pricebook reads the project's price book files and holds the built-in one. The form of a
// model and its prices (ModelForm, PricesForm) is also that of other files that name prices.
//
// The problem: a price that is read wrongly is charged wrongly, a million times over, before
// anybody looks. So a book is text that a person can check against a provider's page (US dollars
// per million tokens, in quotes), and reading it is strict: an unknown field, a field left blank, an
// unquoted price, a price finer than 1e-12 per token, a number of tokens that is not plain digits, an
// unknown meter or a date out of order refuses the whole book, naming line, model and field. Nothing
// is defaulted but what domain/price.go documents.
//
// What customers pay is a second kind of file, as strict (LoadSell). Set adds a dated version to a book's text
// and leaves every other byte alone; Import reads two public price lists, whose numbers it takes as text.
// What those say that a book cannot say is named, and a model that would be charged wrongly without it is
// left out.
//
// Invariants: per million to per unit moves the decimal point, exactly; the order of the file does
// not matter; a book that loads can be charged by; loading has no side effect, so that a reload
// that fails leaves the book in force.
//
// Tested by a table of broken books with the errors they give, by comparing the built-in book with
// the collected facts price by price in both directions, and by a text table of charges at real
// models' prices.
package pricebook

import (
	"bytes"
	_ "embed" // builtin.yaml
	"fmt"
	"io"
	"sync"

	"llm-gateway/domain"
)

// maxBook bounds a price book file, in bytes: thirty times the built-in one.
const maxBook = 2 << 20

//go:embed builtin.yaml
var builtinYAML []byte

// Info is what a book says about itself.
type Info struct {
	Currency string            // of every price in it, e.g. USD
	AsOf     string            // the day its facts were collected, YYYY-MM-DD
	Sources  map[string]string // by the short name that models cite
}

// Load reads a price book. Errors name the line, and the model and field where there is one.
func Load(r io.Reader) (*domain.PriceBook, error) {
	book, _, err := LoadInfo(r)
	return book, err
}

// LoadInfo is Load with what the book says about itself: its currency has to be the ledger's.
func LoadInfo(r io.Reader) (*domain.PriceBook, Info, error) {
	f, err := parse(r)
	if err != nil {
		return nil, Info{}, fmt.Errorf("price book: %w", err)
	}
	book, err := f.book()
	if err != nil {
		return nil, Info{}, fmt.Errorf("price book: %w", err)
	}
	return book, Info{f.Currency.Text, f.AsOf.Text, f.Sources}, nil
}

// Builtin is the built-in book. It is read once, when it is first asked for.
func Builtin() *domain.PriceBook { return builtin().book }

// BuiltinInfo is what the built-in book says about itself.
func BuiltinInfo() Info { return builtin().info }

// BuiltinYAML is the built-in book as it is written: what a book of one's own starts from.
func BuiltinYAML() []byte { return bytes.Clone(builtinYAML) }

type loaded struct {
	book *domain.PriceBook
	info Info
}

var builtin = sync.OnceValue(func() loaded {
	book, info, err := LoadInfo(bytes.NewReader(builtinYAML))
	if err != nil {
		panic("the built-in price book: " + err.Error()) // a test loads it, so no build ships this
	}
	return loaded{book, info}
})

// parse reads the form of a file, without judging prices and dates.
func parse(r io.Reader) (*file, error) {
	var f file
	if err := decodeFull(r, maxBook, &f); err != nil {
		return nil, err
	}
	return &f, nil
}
