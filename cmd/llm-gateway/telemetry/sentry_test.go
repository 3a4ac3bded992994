package telemetry_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"llm-gateway/cmd/llm-gateway/telemetry"
	"llm-gateway/cmd/llm-gateway/telemetry/receivertest"
	"llm-gateway/gateway/observe/trace"
)

// canary must not be in anything that Sentry gets.
const canary = "canary-7c1f"

// TestSentryErrors: what the log says of level ERROR, of the gateway's own, and of it only what is listed.
func TestSentryErrors(t *testing.T) {
	t.Parallel()
	receiver := receivertest.NewSentry(t)
	told, counted := open(t, telemetry.Config{Sentry: &telemetry.Sentry{DSN: receiver.DSN(), Environment: "production"}})
	var kept bytes.Buffer
	log := told.Logger(slog.New(slog.NewTextHandler(&kept, &slog.HandlerOptions{Level: slog.LevelError}))).With("shard", 7, "prompt", canary)
	log.Info("nothing happened", "error", canary)
	log.Warn("little happened", "error", canary)
	log.Error("request", "method", "POST", "path", "/v1/chat/completions", "status", 500, "code", "internal_error", "request_id", "r-1",
		"user_id", canary, "error", errors.New(canary))
	log.Error("request", "status", 502, "code", "upstream_error", "request_id", "r-2") // a provider's failure
	log.Error("a shard refuses appends", "error", canary, "reason", strings.Repeat("x", 1000))
	log.Error("a component is down", "component", "provider openai", "detail", canary) // a provider's failure
	for _, value := range []any{canary, 1} {
		panics(log, value)
	}
	log.Error("a component is down", "component", "redis", "detail", canary)
	told.Close()
	events := receiver.Events()
	if sent, dropped := counted.of("sentry"); sent != 5 || dropped != 0 || len(events) != 5 {
		t.Fatalf("%d sent, %d dropped, %d came", sent, dropped, len(events))
	}
	for _, e := range events {
		if e.Type != "event" || e.Release != "llm-gateway@v1.2.3" || e.Environment != "production" || e.Tags["shard"] != "7" ||
			len(e.User) > 4 || len(e.Request) > 0 {
			t.Errorf("%+v", e)
		}
	}
	if got := strings.Join(sorted(events[0].Tags), " "); events[0].Message != "request" || got != "code method path request_id shard status" {
		t.Errorf("%s with %s", events[0].Message, got)
	}
	if events[1].Message != "a shard refuses appends" || len(events[1].Tags["reason"]) != 200 {
		t.Errorf("%+v", events[1])
	}
	for i, text := range []string{"its text is in the log alone", "runtime error: index out of range [1] with length 0"} {
		e := events[2+i]
		if e.Level != "fatal" || len(e.Exception) != 1 || e.Exception[0].Value != text || !strings.Contains(fmt.Sprint(e.Exception[0].Stacktrace), "panics") {
			t.Errorf("a panic: %+v", e)
		}
	}
	if e := events[4]; e.Message != "a component is down" || e.Tags["component"] != "redis" {
		t.Errorf("which component: %+v", e)
	}
	if bytes.Contains(receiver.Raw(), []byte(canary)) {
		t.Errorf("Sentry was told what it must not know:\n%s", receiver.Raw())
	}
	if !strings.Contains(kept.String(), canary) || strings.Contains(kept.String(), "little happened") {
		t.Errorf("the log itself is another one:\n%s", kept.String())
	}
}

// panics does so, and logs that as the gateway does.
func panics(log *slog.Logger, value any) {
	defer func() { log.Error("panic", "panic", fmt.Sprint(recover()), "stack", canary) }()
	if i, ok := value.(int); ok {
		panic(fmt.Sprint([]int{}[i]))
	}
	panic(value)
}

// TestSentryPerformance: durations, where they are asked for.
func TestSentryPerformance(t *testing.T) {
	t.Parallel()
	receiver := receivertest.NewSentry(t)
	told, _ := open(t, telemetry.Config{Sentry: &telemetry.Sentry{DSN: receiver.DSN(), Environment: "production", Rate: 1}})
	if told.Tracer() == nil {
		t.Fatal("nobody follows requests")
	}
	caller := trace.Context{Trace: trace.NewID(), Span: trace.NewSpanID()}
	r := called(t, told, caller)
	r.Account, r.Session = canary, canary
	told.End(r)
	told.Close()
	events := receiver.Events()
	if len(events) != 1 {
		t.Fatalf("%d events", len(events))
	}
	e := events[0]
	own := e.Contexts["trace"]
	if e.Type != "transaction" || e.Transaction != "POST /v1/chat/completions" || own["trace_id"] != caller.Trace.String() || own["parent_span_id"] != caller.Span.String() ||
		own["op"] != "http.server" || own["status"] != "ok" || len(e.Spans) != 4 || e.Tags["billing_request_id"] != "b-1" || e.Tags["model"] != "gpt-4o" {
		t.Errorf("%+v", e)
	}
	for i, want := range []receivertest.SentrySpan{{Op: "reserve", Status: "ok"}, {Op: "http.client", Description: "openai gpt-4o", Status: "internal_error"},
		{Op: "http.client", Description: "openai gpt-4o", Status: "ok"}, {Op: "settle", Status: "ok"}} {
		if want.Trace, want.Parent = caller.Trace.String(), r.Span.String(); e.Spans[i] != want {
			t.Errorf("span %d: %+v, want %+v", i, e.Spans[i], want)
		}
	}
	if bytes.Contains(receiver.Raw(), []byte(canary)) {
		t.Error("Sentry was told who it was")
	}
}
