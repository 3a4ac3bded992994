package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider"
)

// wire is an upstream's network: it brings the pieces of a body one by one, and then the end.
type wire struct {
	media  string
	pieces []string
	end    func(context.Context) error // of the reading
}

// RoundTrip implements http.RoundTripper.
func (w wire) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {w.media}}, ContentLength: -1, Request: r,
		Body: io.NopCloser(&arriving{w, r.Context()})}, nil
}

// arriving is a body on its way.
type arriving struct {
	wire
	ctx context.Context
}

// Read implements io.Reader.
func (a *arriving) Read(b []byte) (int, error) {
	if len(a.pieces) == 0 {
		return 0, a.end(a.ctx)
	}
	n := copy(b, a.pieces[0])
	if a.pieces[0] = a.pieces[0][n:]; a.pieces[0] == "" {
		a.pieces = a.pieces[1:]
	}
	return n, nil
}

func (w wire) openai(t *testing.T) map[string]provider.Provider {
	t.Helper()
	p, err := provider.NewOpenAI(provider.Config{BaseURL: "http://upstream", Transport: w})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]provider.Provider{"openai": p}
}

func ends(err error) func(context.Context) error { return func(context.Context) error { return err } }

func stalls(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// answered is a stream of three words, as a provider sends it.
var answered = []string{
	`{"id":"c","model":"gpt-4o-mini","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}`,
	`{"id":"c","model":"gpt-4o-mini","choices":[{"index":0,"delta":{"content":"one"}}]}`,
	`{"id":"c","model":"gpt-4o-mini","choices":[{"index":0,"delta":{"content":" two"}}]}`,
	`{"id":"c","model":"gpt-4o-mini","choices":[{"index":0,"delta":{"content":" three"}}]}`,
	`{"id":"c","model":"gpt-4o-mini","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`,
	`{"id":"c","model":"gpt-4o-mini","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":33,"total_tokens":42}}`,
}

// breakage is a way for a stream to end.
type breakage struct {
	name, last string // what comes after the events
	end        func(context.Context) error
	status     int    // before the first event
	code       string // the same
	failure    string // of the error event; "" = it ends well
	took       time.Duration
}

// after is a network that brings so many events and then breaks.
func (c *breakage) after(k int) wire {
	w := wire{media: "text/event-stream", end: c.end}
	for _, event := range answered[:k] {
		w.pieces = append(w.pieces, "data: "+event+"\n\n")
	}
	if c.last != "" {
		w.pieces = append(w.pieces, c.last)
	}
	return w
}

// TestStreamsThatBreakOff lets a stream break off after every number of its events, in every way. What was
// reported is charged, or else what was delivered; where there is neither, all goes back.
func TestStreamsThatBreakOff(t *testing.T) {
	t.Parallel()
	const failed, cut = "upstream_error", "upstream_errorupstream_error"
	const oops = `data: {"error":{"message":"oops","type":"server_error","param":null,"code":null}}` + "\n\n"
	for _, c := range []breakage{
		{"well", "data: [DONE]\n\n", ends(io.EOF), 200, "", "", 0},
		{"well, and then the connection breaks", "data: [DONE]\n\n", ends(io.ErrUnexpectedEOF), 200, "", "", 0},
		{"the connection breaks", "", ends(io.ErrUnexpectedEOF), 502, failed, cut, 0},
		{"no [DONE]", "", ends(io.EOF), 502, failed, cut, 0},
		{"half of [DONE]", "data: [DO", ends(io.EOF), 502, failed, cut, 0},
		{"half an event", `data: {"choices":[{"ind`, ends(io.EOF), 502, failed, cut, 0},
		{"half an event, ended as a whole one", `data: {"choices":[{"ind` + "\n\n", ends(io.EOF), 502, failed, cut, 0},
		{"something else", "data: oops\n\n", ends(io.EOF), 502, failed, cut, 0},
		{"an error event", oops, ends(io.EOF), 502, failed, "server_error", 0},
		{"an error event and [DONE]", oops + "data: [DONE]\n\n", ends(io.EOF), 502, failed, "server_error", 0},
		{"nothing more comes", "", stalls, 504, "upstream_timeout", "upstream_timeoutupstream_error", provider.IdleTimeout},
		{"nothing more comes of an event", `data: {"choices":[{"ind`, stalls, 504, "upstream_timeout", "upstream_timeoutupstream_error", provider.IdleTimeout},
	} {
		for k := range len(answered) + 1 {
			for _, key := range []string{"", "k"} {
				bubble(t, options{providers: c.after(k).openai(t)}, func(t *testing.T, e *env) {
					e.breakOff(fmt.Sprintf("%d events, then: %s, key: %s", k, c.name, key), key, k, &c)
				})
			}
		}
	}
}

// breakOff sends the request, and holds what comes of it against what should.
func (e *env) breakOff(name, key string, k int, c *breakage) {
	e.t.Helper()
	r, began := e.request(http.MethodPost, "vera", streamPath, chatBody("gpt-4o-mini", "hello", "")), time.Now()
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	a := e.do(r)
	if took := time.Since(began); took != c.took {
		e.t.Errorf("%s: it took %s", name, took)
	}
	e.checkBrokenOff(name, a, k, c.failure == "")
	if k == 0 && c.failure != "" {
		checkError(e.t, name, a, c.status, "upstream_error", c.code)
	} else if s := a.events(e.t); a.status != 200 || s.done != (c.failure == "") || s.failure != c.failure || (len(s.comments) == 1) != s.done {
		e.t.Errorf("%s: %d, done: %t, failure %q, %q", name, a.status, s.done, s.failure, s.comments)
	}
}

// checkBrokenOff: after k events the request is charged for what they were, and for nothing else.
func (e *env) checkBrokenOff(name string, a answer, k int, whole bool) {
	e.t.Helper()
	const refunded, counted = "reserve refund(provider_error)", "reserve commit(counted) refund(remainder)"
	want, output := refunded, int64(0)
	switch {
	case k == len(answered):
		want, output = "reserve commit(provider) refund(remainder)", 33
	case k >= 2 || whole:
		want, output = counted, int64(min(max(k-1, 0), 3))
	}
	l := e.life("vera", a.id())
	if d := l.commitData(); l.String() != want || d.Meters[domain.Output] != output {
		e.t.Errorf("%s: %q with %v, want %q with %d", name, l, d.Meters, want, output)
	}
	if delivered := strings.Count(a.body, `"id":"c"`); delivered != min(k, len(answered)-1) {
		e.t.Errorf("%s: %d events were delivered", name, delivered)
	}
}

// TestWholeAnswersThatBreakOff: half an answer is none, and costs nothing.
func TestWholeAnswersThatBreakOff(t *testing.T) {
	t.Parallel()
	const whole = `{"id":"c","model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":"one two"},"finish_reason":"stop"}],` +
		`"usage":{"prompt_tokens":9,"completion_tokens":33,"total_tokens":42}}`
	for name, end := range map[string]func(context.Context) error{"the connection breaks": ends(io.ErrUnexpectedEOF), "it ends": ends(io.EOF), "nothing more comes": stalls} {
		for k := 0; k <= len(whole); k += 7 {
			k = min(k, len(whole))
			if k+7 > len(whole) {
				k = len(whole)
			}
			w := wire{"application/json", []string{whole[:k]}, end}
			if k == 0 {
				w.pieces = nil
			}
			bubble(t, options{providers: w.openai(t)}, func(t *testing.T, e *env) {
				name, began := fmt.Sprintf("%d bytes, then %s", k, name), time.Now()
				a := e.chat("wanda", chatBody("gpt-4o-mini", "hello", ""))
				want, took := "reserve refund(provider_error)", time.Duration(0)
				switch {
				case strings.HasSuffix(name, "comes"):
					took = provider.IdleTimeout
					checkError(t, name, a, 504, "upstream_error", "upstream_timeout")
				case strings.HasSuffix(name, "ends") && k == len(whole):
					want = "reserve commit(provider) refund(remainder)"
					if a.status != 200 || a.body != whole {
						t.Errorf("%s: %d %s", name, a.status, a.body)
					}
				default:
					checkError(t, name, a, 502, "upstream_error", "upstream_error")
				}
				if l := e.life("wanda", a.id()); l.String() != want || time.Since(began) != took {
					t.Errorf("%s: after %s: %q, want %q", name, time.Since(began), l, want)
				}
			})
		}
	}
}
