package telemetry

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"

	"github.com/getsentry/sentry-go"

	"llm-gateway/gateway/health"
	"llm-gateway/gateway/observe/trace"
)

// Sentry is a project of a Sentry. It is told of what the log tells of as an error, through a list of what may
// be told, and of a part of the requests how long they took.
type Sentry struct {
	DSN         string
	Environment string
	Rate        float64 // of the requests whose durations are told, from 0 to 1
}

// maxTag bounds a tag's value, as Sentry does.
const maxTag = 200

// tellable are the attributes of the log that Sentry is told, as tags. Accounts are not among them, nor the
// texts of errors, which may have addresses in them: request_id leads to both in the log.
var tellable = []string{"request_id", "billing_request_id", "method", "path", "status", "code", "model", "price_version",
	"position", "shard", "reason", "projection", "component", "route"}

// notOurs are the errors of requests that are others' failures, or nobody's.
var notOurs = []string{"upstream_error", "upstream_timeout", "circuit_open", "provider_not_configured", "shutting_down"}

// ValidDSN says whether a DSN can be used. The error does not quote it.
func ValidDSN(dsn string) error {
	if _, err := sentry.NewDsn(dsn); err != nil {
		return errors.New("it must be a DSN, as https://key@host/project")
	}
	return nil
}

// sentrySink tells Sentry.
type sentrySink struct {
	client *sentry.Client
	queue  *queue[*sentry.Event]
	rate   float64
}

func newSentrySink(c *Config) (*sentrySink, error) {
	transport := newSentryTransport(c.Sentry.DSN)
	client, err := sentry.NewClient(sentry.ClientOptions{
		Dsn: c.Sentry.DSN, Environment: c.Sentry.Environment, Release: "llm-gateway@" + c.Version,
		Transport: transport, HTTPClient: transport.client,
		Integrations:   func([]sentry.Integration) []sentry.Integration { return nil }, // they read files and the environment
		DisableMetrics: true, DisableClientReports: true,
		BeforeSend:            func(e *sentry.Event, _ *sentry.EventHint) *sentry.Event { return scrubbed(e) },
		BeforeSendTransaction: func(e *sentry.Event, _ *sentry.EventHint) *sentry.Event { return scrubbed(e) },
	})
	if err != nil {
		return nil, errors.New("SENTRY_DSN cannot be used")
	}
	transport.queue = startQueue(c, nameSentry, 1, sendTime, transport.send)
	return &sentrySink{client: client, queue: transport.queue, rate: c.Sentry.Rate}, nil
}

// scrubbed keeps of an event what may be told. It is the last thing before the queue, whatever made the event.
func scrubbed(e *sentry.Event) *sentry.Event {
	e.User, e.Request, e.Breadcrumbs, e.Modules, e.Attachments = sentry.User{}, nil, nil, nil, nil
	for key, value := range e.Tags {
		if !slices.Contains(tellable, key) {
			delete(e.Tags, key)
		} else if len(value) > maxTag {
			e.Tags[key] = value[:maxTag]
		}
	}
	for key := range e.Contexts {
		if key != "trace" {
			delete(e.Contexts, key)
		}
	}
	return e
}

// record tells of an error in the log.
func (s *sentrySink) record(r slog.Record, tags map[string]string, panicked string) {
	if slices.Contains(notOurs, tags["code"]) || strings.HasPrefix(tags["component"], health.ProviderPrefix) {
		return
	}
	e := sentry.NewEvent()
	e.Level, e.Logger, e.Message, e.Timestamp, e.Tags = sentry.LevelError, "llm-gateway", r.Message, r.Time, tags
	e.Fingerprint = []string{r.Message, tags["code"] + tags["component"]} // no line has both
	if panicked != "" {
		e.Level, e.Exception = sentry.LevelFatal, []sentry.Exception{{Type: "panic", Value: panicked, Stacktrace: sentry.NewStacktrace()}}
		e.Fingerprint = nil // by its stack
	}
	s.client.CaptureEvent(e, nil, nil)
}

// request tells how long a request took, of as many as were asked for.
func (s *sentrySink) request(r *trace.Request) {
	if s.rate == 0 || rand.Float64() >= s.rate { //nolint:gosec // it picks samples
		return
	}
	e := sentry.NewEvent()
	e.Type, e.Level, e.Transaction = "transaction", sentry.LevelInfo, r.Method+" "+r.Route
	e.TransactionInfo = &sentry.TransactionInfo{Source: sentry.SourceRoute}
	e.StartTime, e.Timestamp = r.Began, r.Ended
	e.Tags = map[string]string{"request_id": r.RequestID, "route": r.Route}
	if r.Code != "" {
		e.Tags["code"] = r.Code
	}
	if r.Call != nil {
		e.Tags["billing_request_id"], e.Tags["model"] = r.Call.BillingID, r.Call.Model
	}
	own := sentry.Context{"trace_id": r.Trace.String(), "span_id": r.Span.String(), "op": "http.server", "status": sentry.HTTPtoSpanStatus(r.Status).String()}
	if r.Parent != (trace.SpanID{}) {
		own["parent_span_id"] = r.Parent.String()
	}
	e.Contexts = map[string]sentry.Context{"trace": own}
	for _, step := range r.Steps {
		e.Spans = append(e.Spans, sentrySpan(r, step))
	}
	s.client.CaptureEvent(e, nil, nil)
}

func sentrySpan(r *trace.Request, s *trace.Step) *sentry.Span {
	out := &sentry.Span{TraceID: sentry.TraceID(r.Trace), SpanID: sentry.SpanID(s.Span), ParentSpanID: sentry.SpanID(r.Span),
		Op: string(s.Kind), StartTime: s.Began, EndTime: s.Ended, Status: sentry.SpanStatusOK}
	if s.Kind == trace.Attempt {
		out.Op, out.Description = "http.client", s.Provider+" "+s.Model
		if s.Error != "" {
			out.Status = sentry.HTTPtoSpanStatus(max(s.Status, http.StatusInternalServerError))
		}
	}
	return out
}

// sentryTransport sends events from the queue's goroutine, by Sentry's own way of writing and sending them,
// which also heeds what Sentry says of too many.
type sentryTransport struct {
	*sentry.HTTPSyncTransport
	client *http.Client
	last   lastAnswer
	queue  *queue[*sentry.Event]
}

func newSentryTransport(dsn string) *sentryTransport {
	t := &sentryTransport{HTTPSyncTransport: sentry.NewHTTPSyncTransport(), client: newHTTPClient()}
	t.last.next = t.client.Transport
	t.client.Transport = &t.last
	t.Configure(sentry.ClientOptions{Dsn: dsn, HTTPClient: t.client})
	return t
}

// SendEvent implements sentry.Transport: it never waits.
func (t *sentryTransport) SendEvent(e *sentry.Event) { t.queue.offer(e) }

// send sends events, one by one, and says how many were taken.
func (t *sentryTransport) send(ctx context.Context, batch []*sentry.Event) (taken int, err error) {
	for _, e := range batch {
		t.last.err = errHeeded
		t.SendEventWithContext(ctx, e)
		if t.last.err == nil {
			taken++
		} else {
			err = t.last.err
		}
	}
	return taken, err
}

// errHeeded is why an event was not sent at all.
var errHeeded = errors.New("it asked for less")

// lastAnswer is a transport that remembers how the last request ended: Sentry's own does not say. It is of the
// queue's goroutine alone.
type lastAnswer struct {
	next http.RoundTripper
	err  error
}

// RoundTrip implements http.RoundTripper.
func (l *lastAnswer) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := l.next.RoundTrip(r)
	switch {
	case err != nil:
		l.err = errUnanswered
	case response.StatusCode < 200 || response.StatusCode > 299:
		l.err = &statusError{status: response.StatusCode}
	default:
		l.err = nil
	}
	return response, err
}

// errorLog is a log of whose errors Sentry is told, too.
type errorLog struct {
	slog.Handler
	sink  *sentrySink
	attrs []slog.Attr
}

// Enabled implements slog.Handler.
func (l *errorLog) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelError || l.Handler.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (l *errorLog) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		tags, panicked := map[string]string{}, ""
		take := func(a slog.Attr) bool {
			if slices.Contains(tellable, a.Key) {
				tags[a.Key] = a.Value.String()
			}
			if a.Key == "panic" {
				panicked = tellablePanic(a.Value.String())
			}
			return true
		}
		for _, a := range l.attrs {
			take(a)
		}
		r.Attrs(take)
		l.sink.record(r, tags, panicked)
	}
	if !l.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return l.Handler.Handle(ctx, r)
}

// tellablePanic is what may be told of a panic's text: the runtime's own words. Another's may quote anything.
func tellablePanic(text string) string {
	if strings.HasPrefix(text, "runtime error: ") {
		return text
	}
	return "its text is in the log alone"
}

// WithAttrs implements slog.Handler.
func (l *errorLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &errorLog{Handler: l.Handler.WithAttrs(attrs), sink: l.sink, attrs: slices.Concat(l.attrs, attrs)}
}

// WithGroup implements slog.Handler.
func (l *errorLog) WithGroup(name string) slog.Handler {
	return &errorLog{Handler: l.Handler.WithGroup(name), sink: l.sink, attrs: l.attrs}
}
