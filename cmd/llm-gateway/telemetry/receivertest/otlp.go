// Package receivertest has receivers of telemetry for tests: an OpenTelemetry collector, a Langfuse, a Sentry,
// which speak the real protocols and refuse what those would refuse, and receivers that behave badly.
//
// Invariant: what a receiver could not read, or should not have been sent, is a failure of the test. All bytes
// that came are kept, so that a test can look for what must not be among them. Tested by the tests of
// telemetry, which need them to take what is right.
package receivertest

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/slim/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/slim/otlp/common/v1"
	"google.golang.org/protobuf/proto"
)

// maxBody bounds what a receiver takes at once.
const maxBody = 16 << 20

// Span is a span as a receiver understood it.
type Span struct {
	Trace, ID, Parent, State string // in hex
	Name, Kind               string
	Error                    string // the status's message, where that is an error
	Start, End               uint64
	Attributes, Resource     map[string]string
	Events                   []string
}

// inbox is what a receiver was sent.
type inbox struct {
	t      testing.TB
	server *httptest.Server
	mu     sync.Mutex
	raw    bytes.Buffer // unpacked bodies, and headers other than its own credentials
}

func (i *inbox) serve(t testing.TB, handle func(r *http.Request, body []byte) (status int, answer []byte)) {
	i.t = t
	i.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := unpacked(r)
		status, answer := http.StatusBadRequest, []byte(nil)
		if err == nil {
			i.keep(r, body)
			status, answer = handle(r, body)
		}
		if status != http.StatusOK && status != http.StatusServiceUnavailable {
			t.Errorf("a receiver refuses %s %s with status %d: %v %s", r.Method, r.URL, status, err, answer)
		}
		if r.Header.Get("Content-Type") == "application/x-protobuf" {
			w.Header().Set("Content-Type", "application/x-protobuf")
		}
		w.WriteHeader(status)
		w.Write(answer) //nolint:errcheck // a sender that is gone is none of ours
	}))
	t.Cleanup(i.server.Close)
}

func unpacked(r *http.Request) ([]byte, error) {
	in := io.Reader(http.MaxBytesReader(nil, r.Body, maxBody))
	if r.Header.Get("Content-Encoding") == "gzip" {
		var err error
		if in, err = gzip.NewReader(in); err != nil {
			return nil, err
		}
	}
	return io.ReadAll(in)
}

func (i *inbox) keep(r *http.Request, body []byte) {
	i.mu.Lock()
	defer i.mu.Unlock()
	fmt.Fprintln(&i.raw, r.Method, r.URL)
	for name, values := range r.Header {
		fmt.Fprintln(&i.raw, name, values)
	}
	i.raw.Write(body)
}

// Raw is all that came, unpacked.
func (i *inbox) Raw() []byte {
	i.mu.Lock()
	defer i.mu.Unlock()
	return bytes.Clone(i.raw.Bytes())
}

// URL is where the receiver is.
func (i *inbox) URL() string { return i.server.URL }

// OTLP is an OpenTelemetry collector that takes traces at /v1/traces.
type OTLP struct {
	inbox
	path   string
	check  func(r *http.Request) error
	spans  []Span
	busy   int   // so many sendings are still to be put off
	Reject int64 // so many spans of each sending are said to be rejected
}

// NewOTLP serves until the test ends. check refuses requests by their headers; nil takes all.
func NewOTLP(t testing.TB, check func(r *http.Request) error) *OTLP {
	t.Helper()
	o := &OTLP{path: "/v1/traces", check: check}
	o.serve(t, o.take)
	return o
}

// Busy makes it put off so many sendings.
func (o *OTLP) Busy(sendings int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.busy = sendings
}

// Spans are those that came, in their order.
func (o *OTLP) Spans() []Span {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]Span(nil), o.spans...)
}

func (o *OTLP) take(r *http.Request, body []byte) (int, []byte) {
	if r.Method != http.MethodPost || r.URL.Path != o.path {
		return http.StatusNotFound, nil
	}
	if r.Header.Get("Content-Type") != "application/x-protobuf" {
		return http.StatusUnsupportedMediaType, nil
	}
	if o.check != nil {
		if err := o.check(r); err != nil {
			return http.StatusUnauthorized, []byte(err.Error())
		}
	}
	said := &collector.ExportTraceServiceRequest{}
	if err := proto.Unmarshal(body, said); err != nil {
		return http.StatusBadRequest, []byte(err.Error())
	}
	all, err := read(said)
	if err != nil {
		return http.StatusBadRequest, []byte(err.Error())
	}
	o.mu.Lock()
	if o.busy > 0 {
		o.busy--
		o.mu.Unlock()
		return http.StatusServiceUnavailable, nil
	}
	o.spans = append(o.spans, all...)
	reject := o.Reject
	o.mu.Unlock()
	answer := &collector.ExportTraceServiceResponse{}
	if reject > 0 {
		answer.PartialSuccess = &collector.ExportTracePartialSuccess{RejectedSpans: reject, ErrorMessage: "as the test wants it"}
	}
	out, _ := proto.Marshal(answer) //nolint:errcheck // it always encodes
	return http.StatusOK, out
}

// read understands spans, and refuses those that no collector takes.
func read(said *collector.ExportTraceServiceRequest) (all []Span, err error) {
	for _, of := range said.GetResourceSpans() {
		if twice(of.GetResource().GetAttributes()) {
			return nil, fmt.Errorf("a key is there twice: %v", of.GetResource())
		}
		for _, scope := range of.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				if len(s.GetTraceId()) != 16 || len(s.GetSpanId()) != 8 || len(s.GetParentSpanId()) != 0 && len(s.GetParentSpanId()) != 8 ||
					s.GetName() == "" || twice(s.GetAttributes()) || s.GetEndTimeUnixNano() < s.GetStartTimeUnixNano() {
					return nil, fmt.Errorf("no span: %v", s)
				}
				out := Span{Trace: hex.EncodeToString(s.GetTraceId()), ID: hex.EncodeToString(s.GetSpanId()), Parent: hex.EncodeToString(s.GetParentSpanId()),
					State: s.GetTraceState(), Name: s.GetName(), Kind: s.GetKind().String(), Start: s.GetStartTimeUnixNano(), End: s.GetEndTimeUnixNano(),
					Attributes: attributes(s.GetAttributes()), Resource: attributes(of.GetResource().GetAttributes())}
				if s.GetStatus().GetCode() == 2 {
					out.Error = s.GetStatus().GetMessage()
				}
				for _, e := range s.GetEvents() {
					out.Events = append(out.Events, e.GetName())
				}
				all = append(all, out)
			}
		}
	}
	return all, nil
}

// twice says whether a key is there more than once, which OpenTelemetry forbids.
func twice(all []*common.KeyValue) bool {
	seen := map[string]bool{}
	for _, a := range all {
		if seen[a.GetKey()] {
			return true
		}
		seen[a.GetKey()] = true
	}
	return false
}

func attributes(all []*common.KeyValue) map[string]string {
	out := map[string]string{}
	for _, a := range all {
		switch v := a.GetValue().GetValue().(type) {
		case *common.AnyValue_StringValue:
			out[a.GetKey()] = v.StringValue
		case *common.AnyValue_IntValue:
			out[a.GetKey()] = strconv.FormatInt(v.IntValue, 10)
		case *common.AnyValue_BoolValue:
			out[a.GetKey()] = strconv.FormatBool(v.BoolValue)
		case *common.AnyValue_ArrayValue:
			for _, each := range v.ArrayValue.GetValues() {
				out[a.GetKey()] += "[" + each.GetStringValue() + "]"
			}
		}
	}
	return out
}
