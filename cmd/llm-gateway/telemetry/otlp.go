package telemetry

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"time"

	collector "go.opentelemetry.io/proto/slim/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/slim/otlp/common/v1"
	resource "go.opentelemetry.io/proto/slim/otlp/resource/v1"
	spans "go.opentelemetry.io/proto/slim/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"llm-gateway/domain"
	"llm-gateway/gateway/observe/trace"
)

// OTLP is an OpenTelemetry receiver that takes traces by HTTP and protobuf.
type OTLP struct {
	URL     string      // all of it, with the path
	Header  http.Header // sent along, the credentials among it
	Timeout time.Duration
	// Service is service.name; Resource is what else is said of this process.
	Service  string
	Resource [][2]string
}

// The attributes that say what a model call was: OpenTelemetry's conventions for generative AI, whose names
// are pinned here because its packages for Go no longer have them.
const (
	keyOperation     = "gen_ai.operation.name"
	keyProvider      = "gen_ai.provider.name"
	keyRequestModel  = "gen_ai.request.model"
	keyResponseModel = "gen_ai.response.model"
	keyFinishReasons = "gen_ai.response.finish_reasons"
	keyInputTokens   = "gen_ai.usage.input_tokens"  //nolint:gosec // a name
	keyOutputTokens  = "gen_ai.usage.output_tokens" //nolint:gosec // a name
)

// The other conventional names that are in use.
const (
	keyErrorType = "error.type"
	keyStatus    = "http.response.status_code"
	keyUser      = "user.id"
	keySession   = "session.id"
)

// The gateway's own.
const (
	keyRequestID = "llm_gateway.request_id"
	keyBillingID = "llm_gateway.billing_request_id"
	keyPosition  = "llm_gateway.position"
	keyCost      = "llm_gateway.cost" // in text: exact
	keyCurrency  = "llm_gateway.currency"
	keyStream    = "llm_gateway.stream"
	keySurface   = "llm_gateway.surface"
	keyModel     = "llm_gateway.model"

	eventFirstByte = "first_byte"
)

// scopeName is who says it.
const scopeName = "llm-gateway"

// otlpSender sends requests as spans.
type otlpSender struct {
	url      string
	header   http.Header
	client   *http.Client
	resource *resource.Resource
	spans    func(*trace.Request) []*spans.Span
}

// newOTLPSender sends to a URL, with headers of its own beside these.
func newOTLPSender(url string, more http.Header, of *resource.Resource, make func(*trace.Request) []*spans.Span) *otlpSender {
	header := http.Header{}
	maps.Copy(header, more)
	header.Set("Content-Type", "application/x-protobuf")
	header.Set("Content-Encoding", "gzip")
	header.Set("User-Agent", "llm-gateway")
	return &otlpSender{url: url, header: header, client: newHTTPClient(), resource: of, spans: make}
}

// send sends a batch, and says how many requests of it were taken.
func (s *otlpSender) send(ctx context.Context, batch []*trace.Request) (int, error) {
	all := &spans.ScopeSpans{Scope: &common.InstrumentationScope{Name: scopeName}}
	for _, r := range batch {
		all.Spans = append(all.Spans, s.spans(r)...)
	}
	body, err := proto.Marshal(&collector.ExportTraceServiceRequest{ResourceSpans: []*spans.ResourceSpans{{Resource: s.resource, ScopeSpans: []*spans.ScopeSpans{all}}}})
	if err != nil {
		return 0, errUnencoded
	}
	answer, err := post(ctx, s.client, s.url, s.header, packed(body))
	if err != nil {
		return 0, err
	}
	said := &collector.ExportTraceServiceResponse{}
	if proto.Unmarshal(answer, said) != nil { // it took them, and says so in words of its own
		return len(batch), nil //nolint:nilerr // it took them
	}
	if rejected := said.GetPartialSuccess().GetRejectedSpans(); rejected > 0 {
		return len(batch) - int(min(rejected, int64(len(batch)))), errPartly
	}
	return len(batch), nil
}

// keyService is the name of this service.
const keyService = "service.name"

// resource says which process tells this. OpenTelemetry wants no key twice, so what the operator says of one wins over
// what the gateway says of itself, and the setting that is for the service's name over the one for everything.
func (c *Config) resource() *resource.Resource {
	var pairs [][2]string
	if c.OTLP != nil {
		if pairs = c.OTLP.Resource; c.OTLP.Service != scopeName {
			pairs = append([][2]string{{keyService, c.OTLP.Service}}, pairs...)
		}
	}
	pairs = slices.Concat(pairs, [][2]string{{keyService, scopeName}, {"service.version", c.Version}, {"deployment.environment.name", c.Environment}})
	r, said := &resource.Resource{}, map[string]bool{}
	for _, pair := range pairs {
		if !said[pair[0]] {
			said[pair[0]] = true
			r.Attributes = append(r.Attributes, text(pair[0], pair[1]))
		}
	}
	return r
}

// otlpSpans are a request's own span, and one for each of its steps.
func otlpSpans(r *trace.Request) []*spans.Span {
	own := serverSpan(r)
	own.Attributes = append(own.Attributes, serverAttributes(r)...)
	if r.Call != nil && !r.Call.FirstByte.IsZero() {
		own.Events = []*spans.Span_Event{{Name: eventFirstByte, TimeUnixNano: nanos(r.Call.FirstByte)}}
	}
	out := []*spans.Span{own}
	last := lastAttempt(r)
	for _, s := range r.Steps {
		step := stepSpan(r, s)
		if s.Kind == trace.Attempt {
			step.Attributes = append(step.Attributes, attemptAttributes(r, s, s == last)...)
		}
		out = append(out, step)
	}
	return out
}

// serverSpan is a request's own span, without attributes.
func serverSpan(r *trace.Request) *spans.Span {
	s := &spans.Span{TraceId: r.Trace[:], SpanId: r.Span[:], TraceState: r.State, Name: r.Method + " " + r.Route,
		Kind: spans.Span_SPAN_KIND_SERVER, StartTimeUnixNano: nanos(r.Began), EndTimeUnixNano: nanos(r.Ended)}
	if r.Parent != (trace.SpanID{}) {
		s.ParentSpanId = r.Parent[:]
	}
	if failure := r.Failure(); failure != "" && (r.Status < 400 || r.Status >= 500) { // a client's own mistake is no error of the server's
		s.Status = &spans.Status{Code: spans.Status_STATUS_CODE_ERROR, Message: failure}
	}
	return s
}

func serverAttributes(r *trace.Request) []*common.KeyValue {
	out := []*common.KeyValue{text("http.request.method", r.Method), text("http.route", r.Route), number(keyStatus, int64(r.Status)), text(keyRequestID, r.RequestID)}
	out = someText(out, keyUser, r.Account)
	out = someText(out, keySession, r.Session)
	out = someText(out, keyErrorType, r.Failure())
	c := r.Call
	if c == nil {
		return out
	}
	out = append(out, text(keyBillingID, c.BillingID), text(keySurface, c.Surface), text(keyModel, c.Model),
		&common.KeyValue{Key: keyStream, Value: &common.AnyValue{Value: &common.AnyValue_BoolValue{BoolValue: c.Stream}}})
	if c.Charge != nil {
		out = append(out, text(keyCost, c.Charge.Amount.String()), text(keyCurrency, c.Currency))
	}
	return someText(out, keyPosition, c.Position)
}

// stepSpan is a step's span, without attributes.
func stepSpan(r *trace.Request, s *trace.Step) *spans.Span {
	out := &spans.Span{TraceId: r.Trace[:], SpanId: s.Span[:], ParentSpanId: r.Span[:], Name: string(s.Kind), TraceState: r.State,
		Kind: spans.Span_SPAN_KIND_INTERNAL, StartTimeUnixNano: nanos(s.Began), EndTimeUnixNano: nanos(s.Ended)}
	if s.Kind != trace.Attempt {
		return out
	}
	out.Kind = spans.Span_SPAN_KIND_CLIENT
	if r.Call != nil {
		out.Name = operation(r.Call.Surface) + " " + s.Model
	}
	if s.Error != "" {
		out.Status = &spans.Status{Code: spans.Status_STATUS_CODE_ERROR, Message: s.Error}
	}
	if !s.FirstByte.IsZero() {
		out.Events = []*spans.Span_Event{{Name: eventFirstByte, TimeUnixNano: nanos(s.FirstByte)}}
	}
	return out
}

// attemptAttributes are what is said of an attempt; of the last one also what it used.
func attemptAttributes(r *trace.Request, s *trace.Step, last bool) []*common.KeyValue {
	out := []*common.KeyValue{text(keyProvider, providerName(s.Provider)), text(keyRequestModel, s.Model)}
	if s.Status != 0 {
		out = append(out, number(keyStatus, int64(s.Status)))
	}
	out = someText(out, keyErrorType, s.Error)
	c := r.Call
	if c == nil {
		return out
	}
	out = append(out, text(keyOperation, operation(c.Surface)))
	if !last || c.Charge == nil {
		return out
	}
	used := metersOf(c.Charge)
	out = someText(out, keyResponseModel, c.ModelServed)
	if c.FinishReason != "" {
		out = append(out, &common.KeyValue{Key: keyFinishReasons, Value: &common.AnyValue{Value: &common.AnyValue_ArrayValue{
			ArrayValue: &common.ArrayValue{Values: []*common.AnyValue{anyText(c.FinishReason)}}}}})
	}
	return append(out, number(keyInputTokens, used.InputTokens()), number(keyOutputTokens, used.OutputTokens()))
}

func lastAttempt(r *trace.Request) (last *trace.Step) {
	for _, s := range r.Steps {
		if s.Kind == trace.Attempt {
			last = s
		}
	}
	return last
}

// metersOf is what a charge was made for.
func metersOf(c *domain.Charge) (m domain.Meters) {
	for _, line := range c.Lines {
		m[line.Meter] += line.Quantity
	}
	return m
}

// operation is the convention's word for what a surface does.
func operation(surface string) string {
	switch surface {
	case "completions":
		return "text_completion"
	case "embeddings", "embed_content":
		return "embeddings"
	case "generate_content":
		return "generate_content"
	}
	return "chat"
}

// providerName is the convention's word for a provider, where it has one.
func providerName(name string) string {
	if name == "gemini" {
		return "gcp.gemini"
	}
	return name
}

func nanos(t time.Time) uint64 { return uint64(t.UnixNano()) }

func anyText(value string) *common.AnyValue {
	return &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: value}}
}

func text(key, value string) *common.KeyValue {
	return &common.KeyValue{Key: key, Value: anyText(value)}
}

func number(key string, n int64) *common.KeyValue {
	return &common.KeyValue{Key: key, Value: &common.AnyValue{Value: &common.AnyValue_IntValue{IntValue: n}}}
}

// someText adds an attribute that has a value.
func someText(to []*common.KeyValue, key, value string) []*common.KeyValue {
	if value == "" {
		return to
	}
	return append(to, text(key, value))
}
