package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"llm-gateway/cmd/llm-gateway/telemetry/receivertest"
	"llm-gateway/gateway/provider"
	"llm-gateway/migrations/pgtest"
)

// toldLimit is how long what a gateway has to tell may take to arrive.
const toldLimit = 20 * time.Second

// The words that nobody may be told: they are in what clients and providers say, and in their keys.
const (
	canaryPrompt = "canary-prompt-51c7"
	canaryKey    = "canary-key-8d02"
	canaryHeader = "canary-header-ee31"
)

// langfuseSettings make a gateway tell a Langfuse.
func langfuseSettings(l *receivertest.Langfuse) []string {
	return []string{"LANGFUSE_ENABLED=true", "LANGFUSE_HOST=" + l.URL(), "LANGFUSE_PUBLIC_KEY=" + receivertest.LangfusePublic, "LANGFUSE_SECRET_KEY=" + receivertest.LangfuseSecret}
}

// checkTold wants Langfuse to have been told of every request in the ledger, at the ledger's cost to the digit.
func checkTold(t *testing.T, l *receivertest.Langfuse, a *audit) {
	t.Helper()
	eventually(t, toldLimit, "Langfuse is told of every request", func() bool { return len(l.Generations()) >= len(a.lives) })
	told, billed := l.Generations(), 0
	for id, life := range a.lives {
		want := life.charged
		if want == "" {
			want = "0"
		}
		g, ok := told[id]
		if !ok || g.Cost["total"] != want || g.User != life.account {
			t.Errorf("%s: Langfuse is told of %v, the ledger has %q", id, g, want)
			continue
		}
		sum := a.rat("0")
		for meter, cost := range g.Cost {
			if meter != "total" {
				sum.Add(sum, a.rat(cost))
			}
		}
		if life.charged != "" && sum.Cmp(life.commit) != 0 {
			t.Errorf("%s: the parts at Langfuse add up to %s, not %s", id, sum, life.charged)
		}
		for meter, n := range life.meters {
			if g.Usage[meter] != n {
				t.Errorf("%s: Langfuse is told of %d %s, the ledger of %d", id, g.Usage[meter], meter, n)
			}
		}
		if life.commits > 0 {
			billed++
		}
	}
	t.Logf("Langfuse has %d generations, %d of them billed, each at the ledger's amount to the digit", len(told), billed)
}

// following is a gateway with all receivers, and an upstream that remembers what it was sent.
type following struct {
	*served
	otlp     *receivertest.OTLP
	langfuse *receivertest.Langfuse
	sentry   *receivertest.Sentry
	dbURL    string

	mu   sync.Mutex
	sent []http.Header
	fail int // calls of the upstream that are still to fail
}

func newFollowing(t *testing.T) *following {
	f := &following{otlp: receivertest.NewOTLP(t, func(r *http.Request) error {
		if r.Header.Get("X-Receiver-Key") != "a b" {
			return fmt.Errorf("key %q", r.Header.Get("X-Receiver-Key"))
		}
		return nil
	}), langfuse: receivertest.NewLangfuse(t), sentry: receivertest.NewSentry(t), dbURL: pgtest.URL(t)}
	for name, raw := range map[string]func() []byte{"OpenTelemetry": f.otlp.Raw, "Langfuse": f.langfuse.Raw, "Sentry": f.sentry.Raw} {
		scanReceived(t, name, raw)
	}
	answers := provider.Handler(provider.NewSimulated())
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.sent = append(f.sent, r.Header.Clone())
		failing := f.fail > 0
		f.fail--
		f.mu.Unlock()
		if failing {
			http.Error(w, `{"error":{"message":"`+canaryPrompt+`"}}`, http.StatusServiceUnavailable)
			return
		}
		answers.ServeHTTP(w, r)
	}))
	t.Cleanup(upstream.Close)
	f.served = startServe(t, append(langfuseSettings(f.langfuse), "DATABASE_URL="+f.dbURL, "OPENAI_BASE_URL="+upstream.URL, "OPENAI_API_KEY="+canaryKey, "LOG_LEVEL=INFO",
		"OTEL_EXPORTER_OTLP_ENDPOINT="+f.otlp.URL()+"/", "OTEL_EXPORTER_OTLP_HEADERS=x-receiver-key=a%20b", "OTEL_SERVICE_NAME=followed", "OTEL_RESOURCE_ATTRIBUTES=zone=z",
		"SENTRY_DSN="+f.sentry.DSN(), "SENTRY_TRACES_SAMPLE_RATE=1", "SENTRY_ENVIRONMENT=acceptance", "RETRY_BASE_DELAY=0")...)
	return f
}

// failNext makes the next calls of the upstream fail.
func (f *following) failNext(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = n
}

const followedTrace = "4bf92f3577b34da6a3ce929d0e0e4736"

// ask sends a chat completion with a trace of its own, and everything that must not be told.
func (f *following) ask(ctx context.Context, token, body string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.url+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		return err
	}
	for name, value := range map[string]string{"Authorization": "Bearer " + token, "Traceparent": "00-" + followedTrace + "-00f067aa0ba902b7-01", "Tracestate": "vendor=1",
		"Baggage": "user=" + canaryHeader, "X-Secret": canaryHeader, "Cookie": canaryHeader, "X-Session-Id": "session-1"} {
		req.Header.Set(name, value)
	}
	resp, err := newClient(f.t).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = bytes.NewBuffer(nil).ReadFrom(resp.Body)
	return err
}

// TestTelemetry: all receivers are told of whole, streamed, retried, failed and abandoned requests, the ledger's
// cost among it, and of nothing that was said.
func TestTelemetry(t *testing.T) {
	t.Parallel()
	f := newFollowing(t)
	token := tokenFor(t, "followed")
	body := func(stream bool, more string) string { return chatBody(loadModel, canaryPrompt+more, stream, "") }
	must := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	must(f.ask(t.Context(), token, body(false, "")))
	must(f.ask(t.Context(), token, body(true, " sim:tokens=5")))
	f.failNext(1)
	must(f.ask(t.Context(), token, body(false, " again")))
	f.failNext(3)
	must(f.ask(t.Context(), token, body(false, " in vain")))
	f.abandon(token, body(true, " sim:tokens=600 sim:pace=100ms"))
	eventually(t, toldLimit, "the abandoned request is settled", func() bool { return len(f.langfuse.Generations()) == 5 })
	f.stop()
	a := auditLedger(t, f.dbURL)
	checkTold(t, f.langfuse, a)
	f.checkSpans(a)
	f.checkSentry()
	f.checkUpstream()
	if bytes.Contains(f.sentry.Raw(), []byte(`"followed"`)) {
		t.Error("Sentry is told of accounts")
	}
}

// abandon asks for a stream and goes away when it has begun.
func (f *following) abandon(token, body string) {
	f.t.Helper()
	ctx, cancel := context.WithCancel(f.t.Context())
	defer cancel()
	before := f.called()
	ended := make(chan error, 1)
	go func() { ended <- f.ask(ctx, token, body) }()
	eventually(f.t, toldLimit, "the upstream is called", func() bool { return f.called() > before })
	cancel()
	if <-ended == nil {
		f.t.Error("the stream came to its end")
	}
}

func (f *following) called() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.sent)
}

// checkSpans looks at what the OpenTelemetry receiver got: five requests in the caller's trace.
func (f *following) checkSpans(a *audit) {
	f.t.Helper()
	var own []receivertest.Span
	children := map[string][]string{}
	for _, s := range f.otlp.Spans() {
		if s.Trace != followedTrace || s.State != "vendor=1" || s.Resource["service.name"] != "followed" || s.Resource["zone"] != "z" {
			f.t.Errorf("%+v", s)
		}
		if s.Kind == "SPAN_KIND_SERVER" {
			own = append(own, s)
			continue
		}
		children[s.Parent] = append(children[s.Parent], strings.TrimSpace(s.Name+" "+s.Attributes["http.response.status_code"]))
	}
	slices.SortStableFunc(own, func(x, y receivertest.Span) int { return int(int64(x.Start) - int64(y.Start)) })
	if len(own) != 5 {
		f.t.Fatalf("%d requests were told of", len(own))
	}
	chat := "chat " + loadModel
	for i, want := range []string{"reserve," + chat + " 200,settle", "reserve," + chat + " 200,settle", "reserve," + chat + " 503," + chat + " 200,settle",
		"reserve," + chat + " 503," + chat + " 503," + chat + " 503,settle", "reserve," + chat} {
		s := own[i]
		got, life := strings.Join(children[s.ID], ","), a.lives[s.Attributes["llm_gateway.billing_request_id"]]
		if s.Parent != "00f067aa0ba902b7" || !strings.HasPrefix(got, want) || s.Attributes["session.id"] != "session-1" || life == nil || s.Attributes["llm_gateway.cost"] != life.charged {
			f.t.Errorf("request %d: %+v with %s", i, s, got)
		}
	}
	gone := own[4].Attributes["error.type"] // by whether the stream had begun
	if own[3].Error != "upstream_error" || own[0].Error != "" || gone != "canceled" && gone != "client_closed_request" {
		f.t.Errorf("failures %q, %q, %q", own[0].Error, own[3].Error, gone)
	}
}

// checkSentry: transactions of all, and no event: nothing of the gateway's own failed.
func (f *following) checkSentry() {
	f.t.Helper()
	events := f.sentry.Events()
	for _, e := range events {
		if e.Type != "transaction" || e.Environment != "acceptance" || !strings.HasPrefix(e.Release, "llm-gateway@") || e.Contexts["trace"]["trace_id"] != followedTrace {
			f.t.Errorf("Sentry is told of %+v", e)
		}
	}
	if len(events) != 5 {
		f.t.Errorf("Sentry is told of %d requests", len(events))
	}
}

// checkUpstream: each call had the trace, each below a span of its own, and nothing else of the client's.
func (f *following) checkUpstream() {
	f.t.Helper()
	spans := map[string]bool{}
	for _, s := range f.otlp.Spans() {
		spans["00-"+s.Trace+"-"+s.ID+"-01"] = s.Kind == "SPAN_KIND_CLIENT"
	}
	seen := map[string]bool{}
	for _, h := range f.sent {
		parent := h.Get("Traceparent")
		if !spans[parent] || seen[parent] || h.Get("Tracestate") != "vendor=1" || h.Get("Baggage") != "" || strings.Contains(fmt.Sprint(h), canaryHeader) {
			f.t.Errorf("upstream was sent %v", h)
		}
		seen[parent] = true
	}
}

// TestSentryLedgerAway: Sentry is told when the ledger fails requests, without their accounts.
func TestSentryLedgerAway(t *testing.T) {
	t.Parallel()
	sentry := receivertest.NewSentry(t)
	scanReceived(t, "Sentry", sentry.Raw)
	post, dbURL := newGatePost(t, pgtest.URL(t))
	s := startServe(t, "DATABASE_URL="+dbURL, "SENTRY_DSN="+sentry.DSN())
	client, token := newClient(t), tokenFor(t, "away")
	if got := chat(t.Context(), client, s.url, token, chatBody("sim-small", canaryPrompt, false, "")); got.status != http.StatusOK {
		t.Fatal(got.String())
	}
	post.set(cut)
	got := chat(t.Context(), client, s.url, token, chatBody("sim-small", canaryPrompt, false, ""))
	if got.status != http.StatusServiceUnavailable {
		t.Fatal(got.String())
	}
	eventually(t, toldLimit, "Sentry is told", func() bool { return len(sentry.Events()) > 0 })
	e := sentry.Events()[0]
	if e.Type != "event" || e.Message != "request" || e.Tags["code"] != "ledger_unavailable" || e.Tags["status"] != "503" || e.Tags["request_id"] != got.header.Get("x-request-id") ||
		bytes.Contains(sentry.Raw(), []byte(`"away"`)) {
		t.Errorf("%+v", e)
	}
}
