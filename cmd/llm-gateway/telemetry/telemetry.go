// Package telemetry tells other systems of requests: OpenTelemetry receivers and Langfuse of traces, Sentry of
// errors and durations.
//
// The problem: receivers are far away, and sometimes slow, broken or gone; a request that waited for one, or
// failed with one, would have paid for somebody's curiosity. And what they are told leaves the house: it must
// say what things cost, and never what they said.
//
// Invariants:
//   - Nothing here waits in a request: what is told goes into a queue of a bounded length, or is dropped and
//     counted (telemetry_dropped_total). One goroutine per exporter sends, and ends by Close.
//   - Each sending ends by a time-out; an answer is read to a bound; redirects are not followed, so that keys
//     go where they were meant to. What a receiver says is never logged: it may say our keys.
//   - Close takes at most CloseTime, whatever the receivers do.
//   - No prompt, no answer, no header, no credential is exported. There is no setting for it.
//   - What Langfuse is told of a cost is the ledger's amount, digit for digit.
//
// OTLP is spoken by the protocol's own definitions (go.opentelemetry.io/proto) and net/http, and not by
// OpenTelemetry's SDK: its queue does not say what it drops, it takes its settings from the environment behind
// the settings' back, and its HTTP exporter links the whole of gRPC in.
//
// Tests: receivers that speak the real protocols (receivertest), well and badly; the whole binary with all of
// them; every recorded answer, whose cost there must be the ledger's.
package telemetry

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"llm-gateway/gateway/observe/trace"
)

// CloseTime bounds the sending of what is left when the gateway ends.
const CloseTime = 2 * time.Second

// The exporters' names, as the metrics have them.
const (
	nameOTLP     = "otlp"
	nameLangfuse = "langfuse"
	nameSentry   = "sentry"
)

// Counts count what became of what was to be told.
type Counts interface {
	TelemetrySent(exporter string, n int)
	TelemetryDropped(exporter string, n int)
}

// Config says whom to tell. Who is nil is told nothing.
type Config struct {
	OTLP     *OTLP
	Langfuse *Langfuse
	Sentry   *Sentry
	Sampler  Sampler

	Version     string
	Environment string
	Counts      Counts
	Log         *slog.Logger
}

// Telemetry tells whom it was made for. Make it with Open, end it with Close.
type Telemetry struct {
	sampler  Sampler
	otlp     *queue[*trace.Request] // nil: not told
	langfuse *queue[*trace.Request]
	sentry   *sentrySink
}

// Open starts what is to be told. Its errors name no credential.
func Open(c Config) (*Telemetry, error) {
	t := &Telemetry{sampler: c.Sampler}
	if c.Sentry != nil {
		sink, err := newSentrySink(&c)
		if err != nil {
			return nil, err
		}
		t.sentry = sink
	}
	if c.OTLP != nil {
		t.otlp = startQueue(&c, nameOTLP, batchLength, c.OTLP.Timeout, newOTLPSender(c.OTLP.URL, c.OTLP.Header, c.resource(), otlpSpans).send)
	}
	if c.Langfuse != nil {
		t.langfuse = startQueue(&c, nameLangfuse, batchLength, sendTime, c.Langfuse.sender(&c).send)
	}
	return t, nil
}

// Tracer is what the gateway tells of requests; nil where nobody follows them.
func (t *Telemetry) Tracer() trace.Tracer {
	if t.otlp == nil && t.langfuse == nil && (t.sentry == nil || t.sentry.rate == 0) {
		return nil
	}
	return t
}

// Logger is a log of whose errors Sentry is told, where there is a Sentry.
func (t *Telemetry) Logger(log *slog.Logger) *slog.Logger {
	if t.sentry == nil {
		return log
	}
	return slog.New(&errorLog{Handler: log.Handler(), sink: t.sentry})
}

// Begin implements trace.Tracer.
func (t *Telemetry) Begin(caller trace.Context) trace.Context {
	c := caller
	if caller.Trace == (trace.ID{}) {
		c = trace.Context{Trace: trace.NewID()}
	}
	c.Span, c.Sampled = trace.NewSpanID(), t.sampler.Samples(c.Trace, caller)
	return c
}

// End implements trace.Tracer. Sampling is for OpenTelemetry; Langfuse is told of every model call, because
// costs of some requests are nobody's costs.
func (t *Telemetry) End(r *trace.Request) {
	if t.otlp != nil && r.Sampled {
		t.otlp.offer(r)
	}
	if t.langfuse != nil && r.Call != nil {
		t.langfuse.offer(r)
	}
	if t.sentry != nil {
		t.sentry.request(r)
	}
}

// Close sends what is left, within CloseTime; what is not taken by then is dropped.
func (t *Telemetry) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), CloseTime)
	defer cancel()
	var wait sync.WaitGroup
	if t.otlp != nil {
		wait.Go(func() { t.otlp.close(ctx) })
	}
	if t.langfuse != nil {
		wait.Go(func() { t.langfuse.close(ctx) })
	}
	if t.sentry != nil {
		wait.Go(func() { t.sentry.queue.close(ctx) })
	}
	wait.Wait()
}
