package gateway_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider"
)

const delta = `{"choices":[{"index":0,"delta":{"content":" word"}}]}`

// TestPanics: a provider that panics costs nobody anything but what was delivered, and the gateway
// goes on.
func TestPanics(t *testing.T) {
	t.Parallel()
	at := func(n int) func(int) {
		return func(i int) {
			if i == n {
				panic("a defect")
			}
		}
	}
	stream := func(c *chunks) *scripted {
		return &scripted{stream: func(context.Context, provider.Request) (provider.Stream, error) { return c, nil }}
	}
	three := func(c chunks) *chunks {
		c.list, c.text = repeated(delta, 3), " word"
		return &c
	}
	for _, c := range []struct {
		name    string
		p       *scripted
		path    string
		status  int
		failure string
		life    string
		output  int64
		aborted bool // the connection ends in the middle
	}{
		{"complete", &scripted{complete: func(context.Context, provider.Request) (*provider.Completion, error) { panic("a defect") }},
			chatPath, 500, "", "reserve refund(internal_error)", 0, false},
		{"no completion", &scripted{complete: func(context.Context, provider.Request) (*provider.Completion, error) { return nil, nil }},
			chatPath, 500, "", "reserve refund(internal_error)", 0, false},
		{"stream", &scripted{stream: func(context.Context, provider.Request) (provider.Stream, error) { panic(errors.New("a defect")) }},
			streamPath, 500, "", "reserve refund(internal_error)", 0, false},
		{"no stream", &scripted{stream: func(context.Context, provider.Request) (provider.Stream, error) { return nil, nil }},
			streamPath, 500, "", "reserve refund(internal_error)", 0, false},
		{"next, at once", stream(three(chunks{at: at(0)})), streamPath, 500, "", "reserve refund(internal_error)", 0, false},
		{"next, later", stream(three(chunks{at: at(2)})), streamPath, 200, "internal_errorserver_error", "reserve commit(counted) refund(remainder)", 2, false},
		{"next, in a burst", stream(three(chunks{at: at(2), burst: true})), streamPath, 200, "internal_errorserver_error", "reserve commit(counted) refund(remainder)", 2, false},
		{"next, at the end", stream(three(chunks{at: at(3)})), streamPath, 200, "internal_errorserver_error", "reserve commit(counted) refund(remainder)", 3, false},
		{"report", stream(three(chunks{said: func() { panic("a defect") }})), streamPath, 200, "", "reserve refund(internal_error)", 0, true},
		{"the handler's own abort", stream(three(chunks{at: func(i int) {
			if i == 2 {
				panic(http.ErrAbortHandler)
			}
		}})), streamPath, 200, "internal_errorserver_error", "reserve commit(counted) refund(remainder)", 2, false},
		{"another error", stream(three(chunks{end: io.ErrUnexpectedEOF})), streamPath, 200, "internal_errorserver_error", "reserve commit(counted) refund(remainder)", 3, false},
	} {
		e := start(t, options{providers: map[string]provider.Provider{"simulated": c.p}})
		a := e.post("adam", c.path, chatBody("sim-small", "x", ""))
		l := e.life("adam", a.id())
		if a.status != c.status || l.String() != c.life || l.commitData().Meters[domain.Output] != c.output || (a.err != nil) != c.aborted {
			t.Errorf("%s: %d, %v, %q %v: %s", c.name, a.status, a.err, l, l.commitData().Meters, a.body)
		}
		if c.status == 500 {
			checkError(t, c.name, a, 500, "server_error", "internal_error")
		} else if s := a.events(t); s.done || s.failure != c.failure {
			t.Errorf("%s: done: %t, failure %q", c.name, s.done, s.failure)
		}
		if strings.Contains(a.body, "defect") {
			t.Errorf("%s: the client is told of the panic: %s", c.name, a.body)
		}
		if !strings.Contains(e.logs.String(), a.header.Get("x-request-id")) {
			t.Errorf("%s: the log has no line of the request: %s", c.name, e.logs)
		}
		if b := e.get("adam", "/billing/balance"); b.status != 200 {
			t.Errorf("%s: afterwards %d", c.name, b.status)
		}
	}
}

// TestHostileReports: a provider's strings and numbers that no event can hold do not keep the money.
func TestHostileReports(t *testing.T) {
	t.Parallel()
	huge := strings.Repeat("x", 70_000)
	for name, c := range map[string]struct {
		report provider.Report
		life   string
	}{
		"a model of 70 KB":     {provider.Report{Model: huge, Usage: &domain.Usage{Input: 9, Output: 3}}, "reserve refund(internal_error)"},
		"a reason of 70 KB":    {provider.Report{FinishReason: huge, Usage: &domain.Usage{Input: 9, Output: 3}}, "reserve refund(internal_error)"},
		"a negative usage":     {provider.Report{Usage: &domain.Usage{Input: 9, Output: -3}}, "reserve commit(counted) refund(remainder)"},
		"an absurd usage":      {provider.Report{Usage: &domain.Usage{Input: domain.MaxTokens + 1, Output: 3}}, "reserve commit(counted) refund(remainder)"},
		"a usage of nothing":   {provider.Report{Usage: &domain.Usage{}}, "reserve commit(provider) refund(remainder)"},
		"an unknown tier":      {provider.Report{ServiceTier: "turbo", Usage: &domain.Usage{Input: 9, Output: 3}}, "reserve commit(provider) refund(remainder)"},
		"audio without prices": {provider.Report{Usage: &domain.Usage{Input: 9, AudioIn: 5, Output: 3, AudioOut: 2}}, "reserve commit(provider) refund(remainder)"},
		"more than the bound":  {provider.Report{Usage: &domain.Usage{Input: 9, Output: 50_000}}, "reserve commit(provider) overage(beyond_bound)"},
	} {
		p := &scripted{stream: func(context.Context, provider.Request) (provider.Stream, error) {
			return &chunks{list: repeated(delta, 3), text: " word", report: c.report}, nil
		}}
		e := start(t, options{providers: map[string]provider.Provider{"simulated": p}, overages: name == "more than the bound"})
		a := e.post("beth", streamPath, chatBody("sim-small", "x", ""))
		if l := e.life("beth", a.id()); l.String() != c.life {
			t.Errorf("%s: %q, want %q", name, l, c.life)
		}
		if s := a.events(t); s.done != strings.Contains(c.life, "commit") || s.done == (s.failure != "") {
			t.Errorf("%s: done: %t, failure %q", name, s.done, s.failure)
		}
	}
}
