package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"llm-gateway/gateway"
	"llm-gateway/gateway/observe/trace"
	"llm-gateway/gateway/provider"
)

// follower is a Tracer that keeps what it is told.
type follower struct {
	mu   sync.Mutex
	told []*trace.Request
}

func (f *follower) Begin(caller trace.Context) trace.Context {
	caller.Span = trace.NewSpanID()
	if caller.Trace == (trace.ID{}) {
		caller.Trace = trace.NewID()
	}
	return caller
}

func (f *follower) End(r *trace.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told = append(f.told, r)
}

// one is the only request that it was told of.
func (f *follower) one(t *testing.T, name string) *trace.Request {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.told) != 1 {
		t.Fatalf("%s: told of %d requests", name, len(f.told))
	}
	return f.told[0]
}

// stepsOf are a request's steps: attempts with their provider, status and failure, and ! where a first byte came.
func stepsOf(r *trace.Request) string {
	var out []string
	for _, s := range r.Steps {
		text := string(s.Kind)
		if s.Kind == trace.Attempt {
			text = fmt.Sprintf("%s/%s:%d%s", s.Provider, s.Model, s.Status, s.Error)
		}
		if !s.FirstByte.IsZero() {
			text += "!"
		}
		if s.Began.Before(r.Began) || s.Ended.Before(s.Began) || r.Ended.Before(s.Ended) {
			text += " at a wrong time"
		}
		out = append(out, text)
	}
	return strings.Join(out, " ")
}

const (
	callersTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	callersSpan  = "00f067aa0ba902b7"
	callers      = "00-" + callersTrace + "-" + callersSpan + "-01"
)

// TestFollowed: whoever follows requests is told of each once, with its steps and what it cost; and each attempt's
// provider is told of the caller's trace, below the attempt.
func TestFollowed(t *testing.T) {
	t.Parallel()
	fallback := gateway.Routing{Fallbacks: map[string][]string{"k-a": {"k-b"}}}
	for _, c := range []struct {
		name, path, body string
		fails            []*provider.Error
		steps, failure   string
		status           int
		charged          bool
	}{
		{"whole", chatPath, chatBody("k-a", "hello", ""), nil, "reserve a/k-a:200! settle", "", 200, true},
		{"streamed", streamPath, chatBody("k-a", "hello", ""), nil, "reserve a/k-a:200! settle", "", 200, true},
		{"retried", chatPath, chatBody("k-a", "hello", ""), []*provider.Error{down(503)}, "reserve a/k-a:503upstream a/k-a:200! settle", "", 200, true},
		{"fallback", streamPath, chatBody("k-a", "hello", ""), []*provider.Error{down(503), down(500)},
			"reserve a/k-a:503upstream a/k-a:500upstream b/k-b:200! settle", "", 200, true},
		{"failed", chatPath, chatBody("k-b", "hello", ""), []*provider.Error{down(400)}, "reserve b/k-b:400rejected settle", "", 400, false},
		{"cut", streamPath, chatBody("k-a", "hello sim:cut=3", ""), nil, "reserve a/k-a:200cut! settle", "cut", 200, true},
		{"refused", chatPath, `{"model":"none"}`, nil, "", "", 0, false},
	} {
		told := &follower{}
		w := newTown(t, options{routing: fallback, tracer: told, retry: gateway.Retry{Attempts: 2}})
		w.houses["a"].fails, w.houses["b"].fails = c.fails, nil
		if c.name == "failed" {
			w.houses["b"].fails = c.fails
		}
		r := w.request(http.MethodPost, "fay", c.path, c.body)
		r.Header.Set("Traceparent", callers)
		r.Header.Set("Tracestate", "vendor=1")
		r.Header.Set("X-Session-Id", "session-1")
		a := w.do(r)
		w.await(1)
		got := told.one(t, c.name)
		if got.Trace.String() != callersTrace || got.Parent.String() != callersSpan || got.State != "vendor=1" || got.Account != "fay" || got.Session != "session-1" ||
			got.Method != "POST" || got.Route != c.path || got.RequestID != a.header.Get("x-request-id") || got.Status != a.status || stepsOf(got) != c.steps {
			t.Errorf("%s: %d: %+v with %s", c.name, a.status, got, stepsOf(got))
		}
		if c.status != 0 && a.status != c.status || c.failure != "" && got.Failure() != c.failure || a.status >= 400 && got.Code != a.code() && a.code() != "" {
			t.Errorf("%s: %d with %q: %s", c.name, a.status, got.Failure(), a.body)
		}
		if got.Call == nil {
			if c.steps != "" {
				t.Errorf("%s: no call", c.name)
			}
			continue
		}
		l := w.life("fay", a.id())
		if got.Call.BillingID != a.id().String() || (got.Call.Charge != nil) != c.charged || got.Call.Refunded == c.charged {
			t.Errorf("%s: %+v", c.name, got.Call)
		}
		if c.charged && (!got.Call.Charge.Amount.Equal(l.commit.Amount) || got.Call.Position == "" || got.Call.Currency != "USD") {
			t.Errorf("%s: %+v, in the ledger %s", c.name, got.Call, l.commit.Amount)
		}
		checkUpstreamContexts(t, c.name, w, got)
	}
}

// checkUpstreamContexts wants each call of a provider to hang on its own attempt.
func checkUpstreamContexts(t *testing.T, name string, w *town, r *trace.Request) {
	t.Helper()
	var sent, want []string
	for _, house := range []string{"a", "b"} {
		for _, asked := range w.houses[house].asked {
			sent = append(sent, asked.Header.Get("Traceparent")+" "+asked.Header.Get("Tracestate"))
		}
	}
	for _, s := range r.Steps {
		if s.Kind == trace.Attempt {
			want = append(want, "00-"+callersTrace+"-"+s.Span.String()+"-01 vendor=1")
		}
	}
	if strings.Join(sent, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s: upstream was sent\n%s\nwant\n%s", name, strings.Join(sent, "\n"), strings.Join(want, "\n"))
	}
}

// TestUnfollowed: probes are no news, and questions about money no model calls.
func TestUnfollowed(t *testing.T) {
	t.Parallel()
	told := &follower{}
	e := start(t, options{tracer: told})
	for _, path := range []string{"/health", "/ready", "/metrics", "/nowhere", "/billing/balance"} {
		e.get("gus", path)
	}
	e.await(5)
	if got := told.one(t, "balance"); got.Route != "/billing/balance" || got.Call != nil || got.Account != "gus" || got.Parent != (trace.SpanID{}) {
		t.Errorf("%+v", got)
	}
}

// TestFollowedGone: a client that goes away is told of, too.
func TestFollowedGone(t *testing.T) {
	t.Parallel()
	told := &follower{}
	w := newTown(t, options{tracer: told, retry: gateway.Retry{Attempts: 3, BaseDelay: time.Hour, MaxDelay: time.Hour}})
	w.houses["a"].fails = []*provider.Error{down(503)}
	ctx, cancel := context.WithCancel(t.Context())
	r := w.request(http.MethodPost, "hal", chatPath, chatBody("k-a", "hello", "")).WithContext(ctx)
	go func() {
		<-w.houses["a"].called
		cancel()
	}()
	if _, err := w.client.Do(r); err == nil { //nolint:bodyclose // there is none
		t.Fatal("it was answered")
	}
	w.await(1)
	if got := told.one(t, "gone"); got.Code != "client_closed_request" || !got.Call.Refunded || stepsOf(got) != "reserve a/k-a:503upstream settle" {
		t.Errorf("%+v with %s", got, stepsOf(got))
	}
}

// TestFollowedPanic: what a panic left open has an end.
func TestFollowedPanic(t *testing.T) {
	t.Parallel()
	told := &follower{}
	e := start(t, options{tracer: told, providers: map[string]provider.Provider{"simulated": &scripted{
		complete: func(context.Context, provider.Request) (*provider.Completion, error) { panic("a defect") }}}})
	a := e.chat("ivy", chatBody("sim-small", "hello", ""))
	e.await(1)
	if got := told.one(t, "panic"); a.status != 500 || got.Code != "internal_error" || !strings.HasPrefix(stepsOf(got), "reserve ") || strings.Contains(stepsOf(got), "wrong time") {
		t.Errorf("%d: %+v with %s", a.status, got, stepsOf(got))
	}
}

// TestContextPassedOn: where nobody follows requests, the caller's context goes upstream as it came, if it is
// valid.
func TestContextPassedOn(t *testing.T) {
	t.Parallel()
	for sent, want := range map[string]string{callers: callers, "cc-" + callers[3:] + "-later": "cc-" + callers[3:] + "-later", "garbage": ""} {
		providers, upstream := both(t)
		e := start(t, options{providers: providers})
		r := e.request(http.MethodPost, "jim", chatPath, chatBody("gpt-4o", "x", ""))
		r.Header.Set("Traceparent", sent)
		r.Header.Set("Tracestate", "vendor=1")
		if a := e.do(r); a.status != http.StatusOK {
			t.Fatal(a.body)
		}
		got := upstream.calls[0].Header
		if got.Get("Traceparent") != want || (got.Get("Tracestate") == "vendor=1") != (want != "") {
			t.Errorf("sent %q: %v", sent, got)
		}
	}
}
