package upstreams

import (
	"fmt"
	"maps"
	"slices"

	"llm-gateway/domain"
)

// Places of names in File.lines.
const (
	aliasPlace    = "aliases: "
	fallbackPlace = "fallbacks: "
)

// catalog is what can be asked for: a model's name, or provider/name, leads to all that may serve it,
// each as provider/name.
type catalog struct {
	serves  map[string][]string
	modes   map[string]domain.Mode
	aliases map[string]string
}

// Check says what is first wrong with where the names lead among all models, the price book's and the
// file's (Models):
//
//   - several providers may have a model of one name, of one mode; but no model may be called like
//     another's provider/name;
//   - an alias stands for a model or a provider/model, in one step, and is not called like one;
//   - fallbacks are of models, provider/models or aliases, and lead to such, of the same mode; at most 8
//     of a list; no list tries anything twice.
func (f *File) Check(models []*domain.Model) error {
	err := f.check(models)
	if err != nil {
		return fmt.Errorf("upstreams: %w", err)
	}
	return nil
}

func (f *File) check(models []*domain.Model) error {
	c, err := newCatalog(models)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(f.Aliases)) {
		if problem := c.alias(name, f.Aliases); problem != "" {
			return f.wrong(aliasPlace+name, problem)
		}
	}
	c.aliases = f.Aliases
	for _, name := range slices.Sorted(maps.Keys(f.Fallbacks)) {
		if problem := c.fallback(name, f.Fallbacks[name]); problem != "" {
			return f.wrong(fallbackPlace+name, problem)
		}
	}
	return nil
}

// wrong is an error about a name, with its line where the file was read.
func (f *File) wrong(place, problem string) error {
	if line := f.lines[place]; line != 0 {
		return fmt.Errorf("line %d: %s: %s", line, place, problem)
	}
	return fmt.Errorf("%s: %s", place, problem)
}

func newCatalog(models []*domain.Model) (*catalog, error) {
	c := &catalog{serves: map[string][]string{}, modes: map[string]domain.Mode{}}
	for _, m := range models {
		id := m.Provider + "/" + m.Name
		if c.modes[id] != "" {
			return nil, fmt.Errorf("%s has the model %q twice", m.Provider, m.Name)
		}
		c.modes[id], c.serves[id] = m.Mode, []string{id}
	}
	for _, m := range models {
		if c.modes[m.Name] != "" {
			return nil, fmt.Errorf("%s has a model that is called %q, which is what a model of another provider is called", m.Provider, m.Name)
		}
	}
	for _, m := range models {
		id := m.Provider + "/" + m.Name
		if first := c.serves[m.Name]; len(first) > 0 && c.modes[first[0]] != m.Mode {
			return nil, fmt.Errorf("%s and %s are called the same, and are of different modes", first[0], id)
		}
		c.serves[m.Name] = append(c.serves[m.Name], id)
	}
	return c, nil
}

func (c *catalog) alias(name string, all map[string]string) (problem string) {
	target := all[name]
	switch _, another := all[target]; {
	case len(c.serves[name]) > 0:
		return "it is the name of a model, which would be priced as one and served as another"
	case another:
		return fmt.Sprintf("%q is an alias itself; an alias stands for a model", target)
	case len(c.serves[target]) == 0:
		return fmt.Sprintf("there is no model %.128q", target)
	}
	return ""
}

// resolve lists what may serve a name.
func (c *catalog) resolve(name string) []string {
	if target, ok := c.aliases[name]; ok {
		name = target
	}
	return c.serves[name]
}

// fallback says what is wrong with a list. The lists of what it leads to are not followed, so that two
// models may stand in for each other.
func (c *catalog) fallback(name string, list []string) (problem string) {
	tried := c.resolve(name)
	switch {
	case len(tried) == 0:
		return "there is no such model"
	case len(list) > maxTries:
		return fmt.Sprintf("%d of them; at most %d are taken", len(list), maxTries)
	}
	mode := c.modes[tried[0]]
	for _, try := range list {
		served := c.resolve(try)
		switch {
		case len(served) == 0:
			return fmt.Sprintf("there is no model %.128q", try)
		case c.modes[served[0]] != mode:
			return try + " is of another mode"
		}
		for _, id := range served {
			if slices.Contains(tried, id) {
				return id + " would be tried twice"
			}
		}
		tried = append(slices.Clip(tried), served...)
	}
	return ""
}
