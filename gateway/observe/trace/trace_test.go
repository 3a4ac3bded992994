package trace_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"llm-gateway/gateway/observe/trace"
)

const (
	someTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	someSpan  = "00f067aa0ba902b7"
)

// TestRead: what W3C calls valid is read, and nothing else is left for those upstream.
func TestRead(t *testing.T) {
	t.Parallel()
	good := "00-" + someTrace + "-" + someSpan + "-01"
	long := "a=" + strings.Repeat("x", 510)
	for _, c := range []struct {
		parent, state string
		valid         bool
		sampled       bool
		want          string // the state that is passed on
	}{
		{good, "", true, true, ""},
		{good, "a=b, c=d\te", true, true, "a=b, c=d\te"},
		{good, long, true, true, long},
		{good, long + "x", true, true, ""},
		{good, "a=b\x00", true, true, ""},
		{good, "ä=b", true, true, ""},
		{"00-" + someTrace + "-" + someSpan + "-00", "", true, false, ""},
		{"00-" + someTrace + "-" + someSpan + "-ff", "", true, true, ""},
		{"cc-" + someTrace + "-" + someSpan + "-01", "", true, true, ""},
		{"cc-" + someTrace + "-" + someSpan + "-01-what-later-comes", "", true, true, ""},
		{"cc-" + someTrace + "-" + someSpan + "-01.", "a=b", false, false, ""},
		{"cc-" + someTrace + "-" + someSpan + "-01-" + strings.Repeat("x", 512), "a=b", false, false, ""},
		{"ff-" + someTrace + "-" + someSpan + "-01", "a=b", false, false, ""},
		{good + "-more", "a=b", false, false, ""},
		{strings.ToUpper(good), "a=b", false, false, ""},
		{"00-" + strings.Repeat("0", 32) + "-" + someSpan + "-01", "a=b", false, false, ""},
		{"00-" + someTrace + "-" + strings.Repeat("0", 16) + "-01", "a=b", false, false, ""},
		{"00-" + someTrace[1:] + "g-" + someSpan + "-01", "a=b", false, false, ""},
		{"00-" + someTrace + "_" + someSpan + "-01", "a=b", false, false, ""},
		{"00-" + someTrace + "-" + someSpan + "-0", "a=b", false, false, ""},
		{"garbage", "a=b", false, false, ""},
		{"", "a=b", false, false, ""},
	} {
		h := http.Header{"Tracestate": {c.state}, "Other": {"stays"}}
		if c.parent != "" {
			h.Set("Traceparent", c.parent)
		}
		got, ok := trace.Read(h)
		if ok != c.valid || got.Sampled != c.sampled || got.State != c.want {
			t.Errorf("%q %q: %v %+v", c.parent, c.state, ok, got)
		}
		if ok && (got.Trace.String() != someTrace || got.Span.String() != someSpan) {
			t.Errorf("%q: %+v", c.parent, got)
		}
		if left := h.Get("Traceparent") != ""; left != c.valid || h.Get("Tracestate") != c.want || h.Get("Other") != "stays" {
			t.Errorf("%q %q: %v is left", c.parent, c.state, h)
		}
	}
	if _, ok := trace.Read(http.Header{"Traceparent": {good, good}}); ok {
		t.Error("two callers are one too many")
	}
	if got, _ := trace.Read(http.Header{"Traceparent": {good}, "Tracestate": {"a=b", "c=d"}}); got.State != "a=b,c=d" {
		t.Errorf("state %q of two lines", got.State)
	}
}

// TestInto: what goes upstream is a copy, with the context of the step in place of the caller's.
func TestInto(t *testing.T) {
	t.Parallel()
	from := http.Header{"Traceparent": {"x"}, "Tracestate": {"y"}, "Other": {"z"}}
	c := trace.Context{Trace: trace.NewID(), Span: trace.NewSpanID(), Sampled: true}
	to := c.Into(from)
	if back, ok := trace.Read(to); !ok || back != c || to.Get("Other") != "z" || from.Get("Traceparent") != "x" || from.Get("Tracestate") != "y" {
		t.Errorf("%v from %v", to, from)
	}
}

// TestRequest: steps have a bound, and an end.
func TestRequest(t *testing.T) {
	t.Parallel()
	now := time.Unix(1, 0)
	r := &trace.Request{}
	for range 100 {
		if s := r.Begin(trace.Attempt, now); s != nil {
			s.Error = "cut"
		}
	}
	r.Steps[0].Ended = now
	r.End(now.Add(time.Second))
	if len(r.Steps) != 64 || !r.Steps[0].Ended.Equal(now) || !r.Steps[63].Ended.Equal(r.Ended) || r.Failure() != "cut" {
		t.Errorf("%d steps, %+v", len(r.Steps), *r.Steps[63])
	}
	if r.Code = "c"; r.Failure() != "c" {
		t.Error(r.Failure())
	}
}

// TestNobodyFollows: a request that nobody follows allocates nothing for it.
func TestNobodyFollows(t *testing.T) { //nolint:paralleltest // it counts allocations
	h := http.Header{"Authorization": {"x"}}
	var r *trace.Request
	if n := testing.AllocsPerRun(1000, func() {
		trace.Read(h)
		r.Begin(trace.Reserve, time.Time{})
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzRead: what is read is what is written.
func FuzzRead(f *testing.F) {
	f.Add("00-"+someTrace+"-"+someSpan+"-01", "a=b")
	f.Add("cc-"+someTrace+"-"+someSpan+"-01-x", "")
	f.Fuzz(func(t *testing.T, parent, state string) {
		h := http.Header{"Traceparent": {parent}, "Tracestate": {state}}
		c, ok := trace.Read(h)
		if !ok {
			if len(h) != 0 {
				t.Errorf("%v is left", h)
			}
			return
		}
		if back, again := trace.Read(c.Into(nil)); !again || back != c || len(c.State) > 512 {
			t.Errorf("%+v, then %+v", c, back)
		}
	})
}

// BenchmarkNobodyFollows is what a request pays for a trace that nobody wants: the look for a caller's context,
// and the steps.
func BenchmarkNobodyFollows(b *testing.B) {
	h := http.Header{"Authorization": {"x"}}
	var r *trace.Request
	b.ReportAllocs()
	for b.Loop() {
		trace.Read(h)
		for range 3 {
			r.Begin(trace.Attempt, time.Time{})
		}
	}
}
