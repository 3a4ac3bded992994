package pricebook

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"llm-gateway/domain"
)

// Change is prices of one model that hold from a time on.
type Change struct {
	Provider, Model string
	From            time.Time         // the first second
	Prices          map[string]string // by meter, as a book writes them: per million tokens, or per search or request
}

// errForm is said of a model whose text cannot be added to without writing all of it anew.
var errForm = errors.New("its versions are not written as a list of entries that begin with `- ` on lines of their own")

// Set adds a version to a model of a book's text, and leaves every other byte as it is. What the change
// does not name is as in the version before it, tiers and service tiers included. The outcome has been
// loaded, and differs in this model alone.
func Set(text []byte, c Change) ([]byte, error) {
	f, err := parse(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	old, err := f.book()
	if err != nil {
		return nil, err
	}
	m, next, err := f.find(c.Provider, c.Model)
	if err != nil {
		return nil, err
	}
	version, at, err := m.changed(&c)
	if err != nil {
		return nil, err
	}
	out, err := insert(text, m, next, at, versionLines(&version))
	if err != nil {
		return nil, fmt.Errorf("%s/%s: %w", c.Provider, c.Model, err)
	}
	return out, verify(old, out, &c)
}

// find is the model, and the line at which the next one has its name; 0 = none follows.
func (f *file) find(provider, name string) (m *model, next int, err error) {
	for i := range f.Models {
		if m := &f.Models[i]; m.Provider.Text == provider && m.Model.Text == name {
			if i+1 < len(f.Models) {
				next = f.Models[i+1].Model.Line
			}
			return m, next, nil
		}
	}
	return nil, 0, fmt.Errorf("the price book has no model %s/%s", provider, name)
}

// changed makes the new version and says before which of the present ones it goes.
func (m *model) changed(c *Change) (v domain.PriceVersion, at int, err error) {
	for at < len(m.Versions) {
		from, err := m.start("from", m.Versions[at].From)
		if err != nil {
			return v, 0, err
		}
		if from.Equal(c.From) {
			return v, 0, fmt.Errorf("%s/%s has prices from %s already", c.Provider, c.Model, domain.StartText(c.From))
		}
		if from.After(c.From) {
			break
		}
		at++
	}
	if at == 0 {
		return v, 0, fmt.Errorf("%s/%s has no price before %s that the new one could take over from", c.Provider, c.Model, domain.StartText(c.From))
	}
	if v, err = m.version(&m.Versions[at-1], "versions."); err != nil {
		return v, 0, err
	}
	v.From = c.From
	for _, name := range slices.Sorted(maps.Keys(c.Prices)) {
		power := int32(perMillion)
		if name == domain.WebSearch.String() || name == domain.Requests.String() {
			power = 0
		}
		form := ModelForm{Model: Scalar{c.Model, m.Model.Line}}
		if err := form.rates(&v.Rates, "", Prices{name: {c.Prices[name], m.Model.Line}}, power); err != nil {
			return v, 0, err
		}
	}
	return v, at, nil
}

// insert puts lines before the at-th entry of a model's versions, or behind the last.
func insert(text []byte, m *model, next, at int, add []string) ([]byte, error) {
	lines := strings.SplitAfter(string(text), "\n")
	end := len(lines)
	if next > 0 {
		end = next - 1
	}
	entries, after, indent := versionEntries(lines[:end], m.Model.Line)
	if len(entries) != len(m.Versions) {
		return nil, errForm
	}
	place := after
	if at < len(entries) {
		place = entries[at]
	}
	if !strings.HasSuffix(lines[place-1], "\n") {
		lines[place-1] += "\n"
	}
	var b strings.Builder
	b.WriteString(strings.Join(lines[:place], ""))
	for _, line := range add {
		b.WriteString(strings.Repeat(" ", indent) + line + "\n")
	}
	b.WriteString(strings.Join(lines[place:], ""))
	return []byte(b.String()), nil
}

// versionEntries finds the entries of the list `versions` behind a line: at which lines (from 0) they
// begin, behind which line the last one ends, and how far they are indented.
func versionEntries(lines []string, behind int) (entries []int, after, indent int) {
	list := behind
	for list < len(lines) && strings.TrimSpace(strings.SplitN(lines[list], "#", 2)[0]) != "versions:" {
		list++
	}
	indent = -1
	for i := list + 1; i < len(lines); i++ {
		words := strings.TrimSpace(lines[i])
		if words == "" || words[0] == '#' {
			continue
		}
		depth := len(lines[i]) - len(strings.TrimLeft(lines[i], " "))
		if indent < 0 {
			indent = depth
		}
		entry := depth == indent && strings.HasPrefix(words, "- ")
		if depth < indent || depth == indent && !entry {
			break
		}
		if entry {
			entries = append(entries, i)
		}
		after = i + 1
	}
	return entries, after, indent
}

// verify holds that what was written is what was meant.
func verify(old *domain.PriceBook, text []byte, c *Change) error {
	book, err := Load(bytes.NewReader(text))
	if err != nil {
		return err
	}
	changes := domain.DiffPrices(old, book)
	if len(changes) == 0 {
		return errors.New("these are the prices that it has then")
	}
	for i := range changes {
		if d := &changes[i]; d.Provider != c.Provider || d.Model != c.Model || d.From.Before(c.From) {
			return errForm
		}
	}
	return nil
}
