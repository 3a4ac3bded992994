package gateway

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider"
)

// Catalog is what can be called: the models with their prices, who serves them, and where a request goes.
// It is immutable: a changed one is a new one, and each request keeps the one that it began with.
type Catalog struct {
	Prices    *domain.PriceBook            // what the providers charge
	Sell      *domain.SellBook             // what the accounts pay, made for Prices; nil = the same
	Providers map[string]provider.Provider // by the book's provider names
	Missing   map[string]string            // by provider: what to set so that it can be called; may be nil
	Routing   Routing
}

// Routing says where requests for a model go. Names are a model's own, or provider/model.
type Routing struct {
	Aliases   map[string]string   // another name for a model
	Fallbacks map[string][]string // by model: what is called, in order, where it fails before its first byte
	Weights   map[string]int      // by provider: its share among those that serve a model; absent = 1, 0 = after the others
}

// maxTargets bounds how many models or providers one request may be tried with.
const maxTargets = 16

// route finds what a request for a model may be sent to, in the order of trying. The first is what was
// asked for, unless that has a fallback and nobody set up its provider. from draws among providers.
func (c *Catalog) route(d *door, asked string, at time.Time, from *rand.Rand) ([]*target, error) {
	name := asked
	if alias, ok := c.Routing.Aliases[asked]; ok {
		name = alias
	}
	targets, refused := c.serving(d, name, at, from)
	missing := new(Error)
	if refused != nil && (!errors.As(refused, &missing) || missing.Code != codeNotConfigured) {
		return nil, refused
	}
	for _, next := range c.fallbacks(asked, name) {
		if alias, ok := c.Routing.Aliases[next]; ok {
			next = alias
		}
		others, _ := c.serving(d, next, at, from) // one that cannot be called helps nobody
		for _, t := range others {
			if !slices.ContainsFunc(targets, func(have *target) bool { return have.model == t.model }) {
				targets = append(targets, t)
			}
		}
	}
	if len(targets) == 0 {
		return nil, refused
	}
	return targets[:min(len(targets), maxTargets)], nil
}

// known is the own name of a model that is asked for by it, by an alias or with its provider; "" where there is none.
func (c *Catalog) known(asked string) string {
	if alias, ok := c.Routing.Aliases[asked]; ok {
		asked = alias
	}
	if models := c.Prices.Named(asked); len(models) > 0 {
		return models[0].Name
	}
	return ""
}

// fallbacks of an alias go before those of its model.
func (c *Catalog) fallbacks(asked, name string) []string {
	if own, ok := c.Routing.Fallbacks[asked]; ok {
		return own
	}
	return c.Routing.Fallbacks[name]
}

// serving are the providers that serve a model of that name, the first drawn by weight, or why there are
// none.
func (c *Catalog) serving(d *door, name string, at time.Time, from *rand.Rand) (targets []*target, refused error) {
	models := c.Prices.Named(name)
	if len(models) == 0 {
		return nil, modelUnknown(name)
	}
	for _, m := range models {
		t, err := c.target(d, m, at)
		if err == nil {
			targets = append(targets, t)
		} else if refused == nil {
			refused = err
		}
	}
	if len(targets) > 0 {
		refused = nil
	}
	return c.shuffle(targets, from), refused
}

// target is a model that can be called. An unknown price is no call: never free.
func (c *Catalog) target(d *door, m *domain.Model, at time.Time) (*target, error) {
	version, err := m.Price(at)
	if err != nil {
		return nil, invalid("price_unknown", "model", fmt.Sprintf("The model %q has no price at this time, so it is not called.", m.Name))
	}
	if !d.serves(m) {
		return nil, invalid("unsupported_parameter", "model", fmt.Sprintf("The model %q is not served by this endpoint (%s).", m.Name, d.surface))
	}
	upstream := c.Providers[m.Provider]
	if upstream == nil {
		return nil, c.notConfigured(m)
	}
	return &target{model: m, version: version, upstream: upstream}, nil
}

// shuffle draws the order of providers by weight; those without any come in the book's order, after all others.
func (c *Catalog) shuffle(targets []*target, from *rand.Rand) []*target {
	if len(targets) < 2 {
		return targets
	}
	out := make([]*target, 0, len(targets))
	for len(targets) > 0 {
		i := provider.Draw(targets, c.weight, from)
		out = append(out, targets[i])
		targets = slices.Delete(targets, i, i+1)
	}
	return out
}

func (c *Catalog) weight(t *target) int {
	if w, ok := c.Routing.Weights[t.model.Provider]; ok {
		return w
	}
	return 1
}

func modelUnknown(name string) error {
	return &Error{Status: 404, Type: typeInvalid, Code: "model_not_found", Param: "model",
		Message: fmt.Sprintf("The model %q does not exist here. GET /v1/models lists what can be called.", cut(name))}
}

const codeNotConfigured = "provider_not_configured"

func (c *Catalog) notConfigured(m *domain.Model) error {
	how := c.Missing[m.Provider]
	if how == "" {
		how = "No provider of that name is set up."
	}
	e := unavailable(codeNotConfigured, fmt.Sprintf("The model %q belongs to the provider %s, which is not configured. %s",
		m.Name, m.Provider, how), nil)
	e.RetryAfter = 0 // waiting does not help
	return e
}
