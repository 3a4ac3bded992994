package main

import (
	"fmt"
	"strings"
	"sync/atomic"

	"llm-gateway/cmd/llm-gateway/upstreams"
	"llm-gateway/domain"
	"llm-gateway/gateway"
	"llm-gateway/gateway/provider"
)

// catalogFile is what can be called, with its prices: the built-in book or PRICE_BOOK, what customers pay by
// SELL_BOOK, the providers that have a key, and UPSTREAMS. It can be read again while requests go on; each
// keeps the one that it began with.
type catalogFile struct {
	settings *Settings
	sources  sources
	current  atomic.Pointer[gateway.Catalog]
	serving  atomic.Pointer[[]upstreams.Upstream] // the providers in it, with their keys
}

func openCatalog(s *Settings, src sources) (*catalogFile, error) {
	c := &catalogFile{settings: s, sources: src}
	return c, c.reload()
}

func (c *catalogFile) now() *gateway.Catalog { return c.current.Load() }

// reload reads everything again; what cannot be used as a whole, or is not accepted, leaves the present one
// in force.
func (c *catalogFile) reload(accept ...func(*gateway.Catalog) error) error {
	catalog, serving, err := c.read()
	for _, accepts := range accept {
		if err == nil {
			err = accepts(catalog)
		}
	}
	if err == nil {
		c.current.Store(catalog)
		c.serving.Store(&serving)
	}
	return err
}

// upstream is a provider as it is configured now; nil for one that is not called over a network.
func (c *catalogFile) upstream(name string) *upstreams.Upstream {
	serving := *c.serving.Load()
	for i := range serving {
		if serving[i].Name == name {
			return &serving[i]
		}
	}
	return nil
}

func (c *catalogFile) read() (*gateway.Catalog, []upstreams.Upstream, error) {
	s := c.settings
	book, _, err := openPriceBook(s.PriceBook, s.Currency)
	if err != nil {
		return nil, nil, err
	}
	file, err := openUpstreams(s.Upstreams, s.Currency, c.sources, book)
	if err != nil {
		return nil, nil, err
	}
	if len(file.Upstreams) > 0 {
		if book, err = domain.NewPriceBook(modelsOf(file, book)); err != nil {
			return nil, nil, fmt.Errorf("UPSTREAMS %s: %w", s.Upstreams, err)
		}
	}
	sell, err := openSellBook(s.SellBook, s.Currency, book)
	if err != nil {
		return nil, nil, err
	}
	catalog := &gateway.Catalog{Prices: book, Sell: sell, Missing: missing, Providers: map[string]provider.Provider{},
		Routing: gateway.Routing{Aliases: file.Aliases, Fallbacks: file.Fallbacks, Weights: map[string]int{}}}
	if s.Simulated {
		simulated := provider.NewSimulated()
		catalog.Providers[simulated.Name()] = simulated
	}
	serving := configured(s, file)
	for _, u := range serving {
		if catalog.Providers[u.Name], err = providerOf(s, &u); err != nil {
			return nil, nil, fmt.Errorf("the provider %s: %w", u.Name, err)
		}
		catalog.Routing.Weights[u.Name] = u.Weight
	}
	catalog.Providers = withKillProviders(catalog.Providers)
	return catalog, serving, nil
}

// modelsOf are the book's models and the file's.
func modelsOf(file *upstreams.File, book *domain.PriceBook) (out []domain.Model) {
	for _, m := range file.Models(book.Models()) {
		out = append(out, *m)
	}
	return out
}

// missing says of each built-in provider what makes it callable.
var missing = map[string]string{
	"openai":    "Set OPENAI_API_KEY.",
	"anthropic": "Set ANTHROPIC_API_KEY.",
	"gemini":    "Set GOOGLE_GEMINI_API_KEY.",
	"simulated": "Set SIMULATED_PROVIDER=on.",
}

// providerOf is an upstream with all its keys.
func providerOf(s *Settings, u *upstreams.Upstream) (provider.Provider, error) {
	config := provider.Config{Name: u.Name, BaseURL: u.BaseURL, APIVersion: u.APIVersion, Header: u.Headers, Compatible: !upstreams.Builtin(u.Name)}
	s.waits(u, &config)
	if u.OutputLimit != upstreams.LimitAsIs {
		config.OutputLimit = u.OutputLimit
	}
	if len(u.Keys) == 0 { // a local one needs none
		return protocol(u.Type, config)
	}
	keys := make([]provider.Keyed, len(u.Keys))
	for i, k := range u.Keys {
		config.APIKey = string(k.Secret)
		one, err := protocol(u.Type, config)
		if err != nil {
			return nil, err
		}
		keys[i] = provider.Keyed{Provider: one, Weight: k.Weight}
	}
	return provider.NewKeys(keys)
}

// protocol makes the client of one protocol.
func protocol(kind string, c provider.Config) (provider.Provider, error) {
	switch kind {
	case upstreams.TypeAnthropic:
		return provider.NewAnthropic(c)
	case upstreams.TypeGemini:
		return provider.NewGemini(c)
	case upstreams.TypeAzure:
		c.BaseURL = strings.TrimSuffix(strings.TrimRight(c.BaseURL, "/"), "/openai")
		return provider.NewAzure(c)
	}
	return provider.NewOpenAI(c)
}

// retry is how often a provider that failed is called again.
func (s *Settings) retry() gateway.Retry {
	if !s.RetryEnabled {
		return gateway.Retry{}
	}
	return gateway.Retry{Attempts: s.RetryAttempts, BaseDelay: s.RetryBaseDelay, MaxDelay: s.RetryMaxDelay}
}
