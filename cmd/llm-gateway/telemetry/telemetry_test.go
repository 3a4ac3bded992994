package telemetry_test

import (
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"llm-gateway/cmd/llm-gateway/telemetry"
	"llm-gateway/cmd/llm-gateway/telemetry/receivertest"
	"llm-gateway/domain"
	"llm-gateway/gateway/observe/trace"
)

// counts count by exporter.
type counts struct {
	mu            sync.Mutex
	sent, dropped map[string]int
}

func newCounts() *counts { return &counts{sent: map[string]int{}, dropped: map[string]int{}} }

func (c *counts) TelemetrySent(exporter string, n int)    { c.add(c.sent, exporter, n) }
func (c *counts) TelemetryDropped(exporter string, n int) { c.add(c.dropped, exporter, n) }

func (c *counts) add(to map[string]int, exporter string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	to[exporter] += n
}

func (c *counts) of(exporter string) (sent, dropped int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sent[exporter], c.dropped[exporter]
}

func open(t testing.TB, c telemetry.Config) (*telemetry.Telemetry, *counts) {
	t.Helper()
	counted := newCounts()
	c.Counts, c.Version, c.Environment = counted, "v1.2.3", "staging"
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.OTLP != nil && c.Sampler == (telemetry.Sampler{}) {
		c.Sampler = sampler(t, "parentbased_always_on", "")
	}
	told, err := telemetry.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return told, counted
}

func sampler(t testing.TB, word, ratio string) telemetry.Sampler {
	t.Helper()
	s, err := telemetry.NewSampler(word, ratio)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func amount(t testing.TB, text string) domain.Amount {
	t.Helper()
	a, err := domain.ParseAmount(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// began is when requests of the tests begin.
var began = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

// called is a streamed model call with one failed and one good attempt.
func called(t testing.TB, told *telemetry.Telemetry, caller trace.Context) *trace.Request {
	t.Helper()
	at := func(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }
	r := &trace.Request{Context: told.Begin(caller), Parent: caller.Span, Method: "POST", Route: "/v1/chat/completions", RequestID: "r-1",
		Session: "s-1", Account: "alice", Began: at(0), Status: http.StatusOK}
	r.Begin(trace.Reserve, at(1)).Ended = at(2)
	for i, kind := range []string{"upstream", ""} {
		s := r.Begin(trace.Attempt, at(3+i))
		s.Provider, s.Model, s.Status, s.Error, s.Ended = "openai", "gpt-4o", 500-300*i, kind, at(4+i)
		if i == 1 {
			s.FirstByte = at(5)
		}
	}
	r.Begin(trace.Settle, at(7))
	input, output := amount(t, "0.000000000001"), amount(t, "0.1")
	r.Call = &trace.Call{BillingID: "b-1", Surface: "chat_completions", Model: "gpt-4o", Provider: "openai", ModelServed: "gpt-4o-2024", FinishReason: "stop",
		Stream: true, FirstByte: at(5), Currency: "USD", Position: "3:14", Charge: &domain.Charge{Amount: amount(t, "12345678901.300000000003"), Lines: []domain.Line{
			{Meter: domain.Input, Quantity: 1, Amount: input}, {Meter: domain.CachedInput, Quantity: 5}, {Meter: domain.Output, Quantity: 3, Amount: output},
			{Meter: domain.Output, Quantity: 4, Amount: output}, {Meter: domain.Requests, Quantity: 1, Amount: amount(t, "12345678901.1")}}}}
	r.End(at(8))
	return r
}

// TestOTLP: an OpenTelemetry receiver is told of a request and of its steps, below the caller's span.
func TestOTLP(t *testing.T) {
	t.Parallel()
	receiver := receivertest.NewOTLP(t, func(r *http.Request) error {
		if r.Header.Get("X-Key") != "k" {
			return errors.New("no key")
		}
		return nil
	})
	told, counted := open(t, telemetry.Config{OTLP: &telemetry.OTLP{URL: receiver.URL() + "/v1/traces", Header: http.Header{"X-Key": {"k"}}, Timeout: time.Minute,
		Service: "gw", Resource: [][2]string{{"zone", "z"}}}})
	caller := trace.Context{Trace: trace.NewID(), Span: trace.NewSpanID(), Sampled: true, State: "a=b"}
	r := called(t, told, caller)
	told.End(r)
	told.Close()
	if sent, dropped := counted.of("otlp"); sent != 1 || dropped != 0 {
		t.Fatalf("%d sent, %d dropped", sent, dropped)
	}
	spans := receiver.Spans()
	if len(spans) != 5 {
		t.Fatalf("%d spans", len(spans))
	}
	for i, want := range []struct {
		name, kind, failure, events string
		attributes                  map[string]string
	}{
		{"POST /v1/chat/completions", "SPAN_KIND_SERVER", "", "first_byte", map[string]string{"http.request.method": "POST", "http.route": "/v1/chat/completions",
			"http.response.status_code": "200", "user.id": "alice", "session.id": "s-1", "llm_gateway.request_id": "r-1", "llm_gateway.billing_request_id": "b-1",
			"llm_gateway.cost": "12345678901.300000000003", "llm_gateway.currency": "USD", "llm_gateway.position": "3:14", "llm_gateway.stream": "true",
			"llm_gateway.surface": "chat_completions", "llm_gateway.model": "gpt-4o"}},
		{"reserve", "SPAN_KIND_INTERNAL", "", "", map[string]string{}},
		{"chat gpt-4o", "SPAN_KIND_CLIENT", "upstream", "", map[string]string{"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai",
			"gen_ai.request.model": "gpt-4o", "http.response.status_code": "500", "error.type": "upstream"}},
		{"chat gpt-4o", "SPAN_KIND_CLIENT", "", "first_byte", map[string]string{"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai",
			"gen_ai.request.model": "gpt-4o", "gen_ai.response.model": "gpt-4o-2024", "gen_ai.response.finish_reasons": "[stop]",
			"gen_ai.usage.input_tokens": "6", "gen_ai.usage.output_tokens": "7", "http.response.status_code": "200"}},
		{"settle", "SPAN_KIND_INTERNAL", "", "", map[string]string{}},
	} {
		got := spans[i]
		if got.Name != want.name || got.Kind != want.kind || got.Error != want.failure || strings.Join(got.Events, " ") != want.events || !maps.Equal(got.Attributes, want.attributes) {
			t.Errorf("span %d is %+v\nwant %+v", i, got, want)
		}
		parent := caller.Span.String()
		if i > 0 {
			parent = r.Span.String()
		}
		if got.Trace != caller.Trace.String() || got.Parent != parent || got.State != "a=b" {
			t.Errorf("span %d hangs wrongly: %+v", i, got)
		}
		if !maps.Equal(got.Resource, map[string]string{"service.name": "gw", "service.version": "v1.2.3", "deployment.environment.name": "staging", "zone": "z"}) {
			t.Errorf("resource %v", got.Resource)
		}
	}
}

// TestResource: what the operator says of the process wins over what the gateway says of itself, and no key is told twice.
func TestResource(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		service  string
		resource [][2]string
		want     map[string]string
	}{
		{"llm-gateway", nil, map[string]string{"service.name": "llm-gateway", "service.version": "v1.2.3", "deployment.environment.name": "staging"}},
		{"llm-gateway", [][2]string{{"service.name", "theirs"}, {"deployment.environment.name", "eu-1"}, {"a", "1"}, {"a", "2"}},
			map[string]string{"service.name": "theirs", "service.version": "v1.2.3", "deployment.environment.name": "eu-1", "a": "1"}},
		{"gw", [][2]string{{"service.name", "theirs"}, {"service.version", "9"}},
			map[string]string{"service.name": "gw", "service.version": "9", "deployment.environment.name": "staging"}},
	} {
		receiver := receivertest.NewOTLP(t, nil)
		told, counted := open(t, telemetry.Config{OTLP: &telemetry.OTLP{URL: receiver.URL() + "/v1/traces", Timeout: time.Minute, Service: c.service, Resource: c.resource}})
		told.End(called(t, told, trace.Context{}))
		told.Close()
		if sent, dropped := counted.of("otlp"); sent != 1 || dropped != 0 {
			t.Errorf("%v: %d sent, %d dropped", c.resource, sent, dropped)
		} else if got := receiver.Spans()[0].Resource; !maps.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.resource, got, c.want)
		}
	}
}

// TestPartialSuccess: what a receiver says it rejected is counted as dropped.
func TestPartialSuccess(t *testing.T) {
	t.Parallel()
	receiver := receivertest.NewOTLP(t, nil)
	receiver.Reject = 1
	told, counted := open(t, telemetry.Config{OTLP: &telemetry.OTLP{URL: receiver.URL() + "/v1/traces", Timeout: time.Minute}})
	told.End(called(t, told, trace.Context{}))
	told.End(called(t, told, trace.Context{}))
	told.Close()
	if sent, dropped := counted.of("otlp"); sent != 1 || dropped != 1 {
		t.Errorf("%d sent, %d dropped", sent, dropped)
	}
}

// TestLangfuse: a generation has the ledger's digits, whatever a float would make of them.
func TestLangfuse(t *testing.T) {
	t.Parallel()
	receiver := receivertest.NewLangfuse(t)
	told, _ := open(t, telemetry.Config{Langfuse: langfuse(receiver.URL() + "/"), Sampler: sampler(t, "always_off", "")})
	told.End(called(t, told, trace.Context{}))
	refunded := called(t, told, trace.Context{})
	refunded.Call.BillingID, refunded.Call.Charge, refunded.Call.Refunded, refunded.Code, refunded.Status = "b-2", nil, true, "upstream_error", 502
	told.End(refunded)
	unknown := called(t, told, trace.Context{})
	unknown.Call.BillingID, unknown.Call.Charge = "b-3", nil
	told.End(unknown)
	question := called(t, told, trace.Context{})
	question.Call = nil // no model was called
	told.End(question)
	told.Close()
	got := receiver.Generations()
	if len(got) != 3 {
		t.Fatalf("%d generations", len(got))
	}
	g := got["b-1"]
	wantCost := map[string]string{"total": "12345678901.300000000003", "input": "0.000000000001", "cached_input": "0", "output": "0.2", "requests": "12345678901.1"}
	wantUsage := map[string]int64{"total": 13, "input": 1, "cached_input": 5, "output": 7, "requests": 1}
	if !maps.Equal(g.Cost, wantCost) || !maps.Equal(g.Usage, wantUsage) {
		t.Errorf("cost %v\nwant %v\nusage %v\nwant %v", g.Cost, wantCost, g.Usage, wantUsage)
	}
	if g.Model != "gpt-4o" || g.User != "alice" || g.Session != "s-1" || g.Level != "" || g.FirstByte != "2026-11-27T12:00:00.005Z" ||
		g.Attributes["langfuse.environment"] != "staging" || g.Attributes["langfuse.release"] != "v1.2.3" {
		t.Errorf("%+v", g)
	}
	if g = got["b-2"]; g.Cost["total"] != "0" || g.Level != "ERROR" || g.Error != "upstream_error" {
		t.Errorf("refunded: %+v", g)
	}
	if g = got["b-3"]; len(g.Cost) != 0 {
		t.Errorf("it is not known what it cost: %+v", g)
	}
}

func langfuse(url string) *telemetry.Langfuse {
	return &telemetry.Langfuse{Host: url, PublicKey: receivertest.LangfusePublic, SecretKey: receivertest.LangfuseSecret}
}

// TestSampler: OpenTelemetry's words, decided as its SDKs do: by the last 63 bits of the id.
func TestSampler(t *testing.T) {
	t.Parallel()
	low, high := trace.ID{0: 1, 15: 1}, trace.ID{0: 1, 8: 0xff}
	none, yes, no := trace.Context{}, trace.Context{Trace: low, Sampled: true}, trace.Context{Trace: low}
	for _, c := range []struct {
		word, ratio     string
		id              trace.ID
		caller          trace.Context
		sampled, failed bool
	}{
		{"always_on", "", high, none, true, false},
		{"always_on", "", high, no, true, false},
		{"always_off", "", low, yes, false, false},
		{"traceidratio", "", high, none, true, false},
		{"traceidratio", "0.5", low, no, true, false},
		{"traceidratio", "0.5", high, yes, false, false},
		{"traceidratio", "0", low, none, false, false},
		{"parentbased_always_on", "", high, none, true, false},
		{"parentbased_always_on", "", low, no, false, false},
		{"parentbased_always_off", "", low, yes, true, false},
		{"parentbased_always_off", "", low, none, false, false},
		{"parentbased_traceidratio", "0.1", low, none, true, false},
		{"parentbased_traceidratio", "0.1", high, none, false, false},
		{"parentbased_traceidratio", "0.1", low, no, false, false},
		{"sometimes", "", low, none, false, true},
		{"traceidratio", "1.5", low, none, false, true},
		{"traceidratio", "NaN", low, none, false, true},
	} {
		s, err := telemetry.NewSampler(c.word, c.ratio)
		if err != nil || c.failed {
			if err == nil || !c.failed {
				t.Errorf("%s %s: %v", c.word, c.ratio, err)
			}
			continue
		}
		told, _ := open(t, telemetry.Config{Sampler: s})
		caller := c.caller
		if caller.Trace != (trace.ID{}) {
			caller.Trace = c.id
			if got := told.Begin(caller); got.Sampled != c.sampled || got.Trace != c.id || got.Span == caller.Span {
				t.Errorf("%s %s: %+v", c.word, c.ratio, got)
			}
			continue
		}
		if got := s.Samples(c.id, caller); got != c.sampled {
			t.Errorf("%s %s: sampled %v", c.word, c.ratio, got)
		}
	}
}

// TestNobody: where nobody is to be told, nothing follows requests, and the log is as it was.
func TestNobody(t *testing.T) {
	t.Parallel()
	told, _ := open(t, telemetry.Config{})
	log := slog.New(slog.DiscardHandler)
	if told.Tracer() != nil || told.Logger(log) != log {
		t.Error("somebody follows")
	}
	told.Close()
}

func sorted(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// BenchmarkTold is what a followed request pays at its end, with all receivers on. BenchmarkNobodyFollows of
// gateway/observe/trace is what one pays that nobody follows.
func BenchmarkTold(b *testing.B) {
	bad := receivertest.NewBad(b, receivertest.Hangs)
	told, _ := open(b, telemetry.Config{OTLP: &telemetry.OTLP{URL: bad.URL, Timeout: time.Second}, Langfuse: langfuse(bad.URL),
		Sentry: &telemetry.Sentry{DSN: receivertest.DSN(bad.URL), Rate: 0.01}})
	defer told.Close()
	b.ReportAllocs()
	for b.Loop() {
		told.End(called(b, told, trace.Context{}))
	}
}
