package main

import (
	"fmt"
	"sync/atomic"

	"llm-gateway/gateway"
	"llm-gateway/gateway/provider"
)

// catalogFile is what can be called, with its prices: the built-in book or PRICE_BOOK, the providers that have a
// key, and UPSTREAMS. It can be read again while requests go on; each keeps the one that it began with.
type catalogFile struct {
	settings *Settings
	current  atomic.Pointer[gateway.Catalog]
}

func openCatalog(s *Settings) (*catalogFile, error) {
	c := &catalogFile{settings: s}
	return c, c.reload()
}

func (c *catalogFile) now() *gateway.Catalog { return c.current.Load() }

// reload reads everything again; what cannot be used as a whole leaves the present one in force.
func (c *catalogFile) reload() error {
	s := c.settings
	book, _, err := openPriceBook(s.PriceBook, s.Currency)
	if err != nil {
		return err
	}
	providers, err := s.providers()
	if err != nil {
		return err
	}
	c.current.Store(&gateway.Catalog{Prices: book, Providers: withKillProviders(providers), Missing: missing})
	return nil
}

// missing says of each built-in provider what makes it callable.
var missing = map[string]string{
	"openai":    "Set OPENAI_API_KEY.",
	"anthropic": "Set ANTHROPIC_API_KEY.",
	"gemini":    "Set GOOGLE_GEMINI_API_KEY.",
	"simulated": "Set SIMULATED_PROVIDER=on.",
}

// providers are the built-in ones that have a key.
func (s *Settings) providers() (map[string]provider.Provider, error) {
	providers := map[string]provider.Provider{}
	if s.Simulated {
		simulated := provider.NewSimulated()
		providers[simulated.Name()] = simulated
	}
	for _, p := range []struct {
		setting string
		make    func(provider.Config) (provider.Provider, error)
		base    string
		key     Secret
	}{
		{"OPENAI_BASE_URL", newOpenAI, s.OpenAIBaseURL, s.OpenAIKey},
		{"ANTHROPIC_BASE_URL", newAnthropic, s.AnthropicBaseURL, s.AnthropicKey},
		{"GEMINI_BASE_URL", newGemini, s.GeminiBaseURL, s.GeminiKey},
	} {
		if p.key == "" {
			continue
		}
		made, err := p.make(provider.Config{BaseURL: p.base, APIKey: string(p.key)})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.setting, err)
		}
		providers[made.Name()] = made
	}
	return providers, nil
}

func newOpenAI(c provider.Config) (provider.Provider, error)    { return provider.NewOpenAI(c) }
func newAnthropic(c provider.Config) (provider.Provider, error) { return provider.NewAnthropic(c) }
func newGemini(c provider.Config) (provider.Provider, error)    { return provider.NewGemini(c) }

// retry is how often a provider that failed is called again.
func (s *Settings) retry() gateway.Retry {
	if !s.RetryEnabled {
		return gateway.Retry{}
	}
	return gateway.Retry{Attempts: s.RetryAttempts, BaseDelay: s.RetryBaseDelay, MaxDelay: s.RetryMaxDelay}
}
