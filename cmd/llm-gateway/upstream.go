package main

import (
	"fmt"

	"llm-gateway/cmd/llm-gateway/upstreams"
	"llm-gateway/domain"
)

// openUpstreams reads the file at UPSTREAMS's path, "" being a file that says nothing, and checks its
// names against the price book.
func openUpstreams(path, currency string, src sources, book *domain.PriceBook) (*upstreams.File, error) {
	if path == "" {
		return &upstreams.File{}, nil
	}
	f, err := upstreams.Load(path, upstreams.Options{Currency: currency, Getenv: src.getenv})
	if err == nil {
		err = f.Check(f.Models(book.Models()))
	}
	if err != nil {
		return nil, fmt.Errorf("UPSTREAMS %s: %w", path, err)
	}
	return f, nil
}

// builtinProvider is a provider that is there without a file: its setting and its address.
type builtinProvider struct {
	name    string
	key     Secret
	baseURL string
}

func builtinProviders(s *Settings) []builtinProvider {
	return []builtinProvider{
		{upstreams.TypeOpenAI, s.OpenAIKey, s.OpenAIBaseURL},
		{upstreams.TypeAnthropic, s.AnthropicKey, s.AnthropicBaseURL},
		{upstreams.TypeGemini, s.GeminiKey, s.GeminiBaseURL},
	}
}

// configured lists every provider that the settings or the file ask for, complete: the built-in ones
// first, which take from the settings what the file does not say.
func configured(s *Settings, f *upstreams.File) []upstreams.Upstream {
	var all []upstreams.Upstream
	for _, b := range builtinProviders(s) {
		u, named := namedUpstream(f, b.name)
		if !named && b.key == "" {
			continue
		}
		if u.BaseURL == "" {
			u.BaseURL = b.baseURL
		}
		if len(u.Keys) == 0 && b.key != "" {
			u.Keys = []upstreams.Key{{Secret: b.key, Weight: 1}}
		}
		all = append(all, u)
	}
	for _, u := range f.Upstreams {
		if !upstreams.Builtin(u.Name) {
			all = append(all, u)
		}
	}
	return all
}

// namedUpstream finds an upstream of the file; one that is not there has its name and type.
func namedUpstream(f *upstreams.File, name string) (u upstreams.Upstream, named bool) {
	for i := range f.Upstreams {
		if f.Upstreams[i].Name == name {
			return f.Upstreams[i], true
		}
	}
	return upstreams.Upstream{Name: name, Type: name, Weight: 1, OutputLimit: upstreams.LimitAsIs}, false
}
