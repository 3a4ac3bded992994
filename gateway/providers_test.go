package gateway_test

import (
	"context"
	"io"
	"math/big"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider"
)

// spy is a provider that remembers what it was asked.
type spy struct {
	provider.Provider

	called chan struct{} // gets one for every call, if there is one; it has room for all

	mu    sync.Mutex
	calls []provider.Request
}

func (s *spy) note(r provider.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Body = slices.Clone(r.Body)
	s.calls = append(s.calls, r)
	if s.called != nil {
		s.called <- struct{}{}
	}
}

// Complete implements provider.Provider.
func (s *spy) Complete(ctx context.Context, r provider.Request) (*provider.Completion, error) {
	s.note(r)
	return s.Provider.Complete(ctx, r)
}

// Stream implements provider.Provider.
func (s *spy) Stream(ctx context.Context, r provider.Request) (provider.Stream, error) {
	s.note(r)
	return s.Provider.Stream(ctx, r)
}

// sent is the body of the last call, "" where there was none.
func (s *spy) sent() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.calls) == 0 {
		return ""
	}
	return string(s.calls[len(s.calls)-1].Body)
}

func (s *spy) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.calls)
}

// both are the simulated provider itself, and behind the OpenAI client over loopback.
func both(t *testing.T) (map[string]provider.Provider, *spy) {
	t.Helper()
	upstream := httptest.NewServer(provider.Handler(provider.NewSimulated()))
	t.Cleanup(upstream.Close)
	openai, err := provider.NewOpenAI(provider.Config{BaseURL: upstream.URL, APIKey: "the-upstream-key"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(openai.CloseIdle)
	watched := &spy{Provider: openai}
	return map[string]provider.Provider{"simulated": provider.NewSimulated(), "openai": watched}, watched
}

// scripted is a provider made of functions; what is nil is the simulated provider's.
type scripted struct {
	complete func(context.Context, provider.Request) (*provider.Completion, error)
	stream   func(context.Context, provider.Request) (provider.Stream, error)
}

// Name implements provider.Provider.
func (s *scripted) Name() string { return provider.SimulatedName }

// Prepare implements provider.Provider.
func (s *scripted) Prepare(*provider.Request) (provider.Terms, error) { return provider.Terms{}, nil }

// Complete implements provider.Provider.
func (s *scripted) Complete(ctx context.Context, r provider.Request) (*provider.Completion, error) {
	if s.complete == nil {
		return provider.NewSimulated().Complete(ctx, r)
	}
	return s.complete(ctx, r)
}

// Stream implements provider.Provider.
func (s *scripted) Stream(ctx context.Context, r provider.Request) (provider.Stream, error) {
	if s.stream == nil {
		return provider.NewSimulated().Stream(ctx, r)
	}
	return s.stream(ctx, r)
}

// chunks is a stream of given chunks, then an end. at, if there is one, is called before each.
type chunks struct {
	list   []string
	text   string // of every chunk
	report provider.Report
	end    error // nil = io.EOF
	at     func(i int)
	next   int
	said   func() // if any, called by Report
	burst  bool   // all chunks are there at once
}

// Next implements provider.Stream.
func (c *chunks) Next() (provider.Chunk, error) {
	if c.at != nil {
		c.at(c.next)
	}
	if c.next == len(c.list) {
		if c.end != nil {
			return provider.Chunk{}, c.end
		}
		return provider.Chunk{}, io.EOF
	}
	c.next++
	return provider.Chunk{Data: []byte(c.list[c.next-1]), Text: []byte(c.text)}, nil
}

// More implements provider.Stream.
func (c *chunks) More() bool { return c.burst }

// Report implements provider.Stream.
func (c *chunks) Report() provider.Report {
	if c.said != nil {
		c.said()
	}
	return c.report
}

// Close implements provider.Stream.
func (c *chunks) Close() error { return nil }

// cost is what a usage comes to at a model's price, figured without the code under test: from the
// usage's own totals and details, in fractions, with the rates of the book.
func cost(t *testing.T, book *domain.PriceBook, model string, usage gjson.Result, tier string, searches int64) *big.Rat {
	t.Helper()
	_, v, err := book.Lookup(model, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	prompt, completion := usage.Get("prompt_tokens").Int(), usage.Get("completion_tokens").Int()
	rates := v.Rates
	for _, level := range v.Tiers {
		if prompt > level.AboveInput {
			rates = level.Rates
		}
	}
	if own, ok := v.ServiceTiers[tier]; ok {
		rates = own
	}
	cached := usage.Get("prompt_tokens_details.cached_tokens").Int()
	audioIn := usage.Get("prompt_tokens_details.audio_tokens").Int()
	audioOut := usage.Get("completion_tokens_details.audio_tokens").Int()
	sum := new(big.Rat)
	for _, part := range []struct {
		meter domain.Meter
		n     int64
	}{
		{domain.Input, prompt - cached - audioIn}, {domain.CachedInput, cached}, {domain.AudioIn, audioIn},
		{domain.Output, completion - audioOut}, {domain.AudioOut, audioOut},
		{domain.WebSearch, searches}, {domain.Requests, 1},
	} {
		unit, priced := rates.Get(part.meter)
		if part.n != 0 && !priced {
			t.Errorf("%s has no price for %s", model, part.meter)
			continue
		}
		sum.Add(sum, new(big.Rat).Mul(rat(unit), new(big.Rat).SetInt64(part.n)))
	}
	return sum
}

// ratText reads a decimal of an answer.
func ratText(t *testing.T, text string) *big.Rat {
	t.Helper()
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		t.Errorf("%q is not a number", text)
		return new(big.Rat)
	}
	return r
}

// clock is a time that passes when it is told to.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}
