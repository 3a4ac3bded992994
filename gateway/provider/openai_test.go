package provider

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const (
	completionBody = `{"id":"c","model":"m","choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}],` +
		`"usage":{"prompt_tokens":1,"completion_tokens":2}}`
	chunkEvent = `data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}` + "\n\n"
	doneEvent  = "data: [DONE]\n\n"
)

func TestNewOpenAI(t *testing.T) {
	for base, want := range map[string]string{
		"https://api.openai.com":              "https://api.openai.com/v1/chat/completions",
		"https://api.openai.com/":             "https://api.openai.com/v1/chat/completions",
		"https://api.openai.com/v1":           "https://api.openai.com/v1/chat/completions",
		" https://api.openai.com/v1// ":       "https://api.openai.com/v1/chat/completions",
		"http://localhost:9911/v1/":           "http://localhost:9911/v1/chat/completions",
		"https://api.groq.com/openai/v1":      "https://api.groq.com/openai/v1/chat/completions",
		"https://example.com/a%20b/v1":        "https://example.com/a%20b/v1/chat/completions",
		"https://example.com/prefix/mv1":      "https://example.com/prefix/mv1/v1/chat/completions",
		"http://[::1]:8080":                   "http://[::1]:8080/v1/chat/completions",
		"":                                    "",
		"api.openai.com":                      "",
		"ftp://example.com":                   "",
		"https://":                            "",
		"https://user:secret@example.com":     "",
		"https://example.com/v1?key=secret":   "",
		"https://example.com/v1#secret":       "",
		"https://exa mple.com/\x7fsecret":     "",
		"https://example.com:secret/v1":       "",
		"http://user:secret@exa mple.com/v1/": "",
	} {
		p, err := NewOpenAI(Config{BaseURL: base})
		switch {
		case want == "" && (err == nil || strings.Contains(err.Error(), "secret")):
			t.Errorf("%q: %v", base, err)
		case want != "" && (err != nil || p.url("m").String() != want || p.Name() != "openai"):
			t.Errorf("%q: %+v, %v; want %s", base, p, err, want)
		}
	}
	_, err := NewOpenAI(Config{BaseURL: "https://example.com", APIKey: "sk-secret\n"})
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a key with a line end: %v", err)
	}
}

func TestRequestGoesUpstreamAsItIs(t *testing.T) {
	const body = `{"model":"m", "messages":[{"role":"user","content":"\u00e9"}],"x":1e400}`
	var got *http.Request
	var sent []byte
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		sent, _ = io.ReadAll(r.Body)
		_, _ = io.WriteString(w, completionBody)
	}))
	defer server.Close()
	header := http.Header{}
	for _, name := range []string{"Authorization", "X-Api-Key", "Api-Key", "Cookie", "X-Goog-Api-Key", "Idempotency-Key",
		"Anthropic-Version", "Anthropic-Beta", "OpenAI-Beta", "OpenAI-Organization", "Host", "X-Forwarded-For"} {
		header.Set(name, "client")
	}
	if _, err := client(t, server.URL, nil).Complete(t.Context(), Request{Body: []byte(body), Header: header}); err != nil {
		t.Fatal(err)
	}
	if got.Method != "POST" || got.URL.Path != "/v1/chat/completions" || string(sent) != body || got.ContentLength != int64(len(body)) {
		t.Errorf("%s %s: %s", got.Method, got.URL, sent)
	}
	want := map[string]string{"Authorization": "Bearer sk-test-secret", "Content-Type": "application/json",
		"Accept": "application/json", "User-Agent": "llm-gateway", "Anthropic-Version": "client",
		"Anthropic-Beta": "client", "Openai-Beta": "client", "Accept-Encoding": "gzip", "Content-Length": fmt.Sprint(len(body))}
	for name, values := range got.Header {
		if len(values) != 1 || values[0] != want[name] {
			t.Errorf("%s: %q, want %q", name, values, want[name])
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
}

// answerCase is one way for an upstream to answer, and what becomes of a whole and a streamed call.
type answerCase struct {
	name           string
	serve          http.HandlerFunc
	whole, stream  Kind
	status         int
	hasBody        bool
	retryAfter     string
	deliversBefore bool // the stream gives a chunk before it fails
}

func serveText(status int, media, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", media)
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// serveCut breaks the connection after a text.
func serveCut(media, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		serveText(200, media, body)(w, r)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

const (
	events     = "text/event-stream"
	jsonMedia  = "application/json"
	errorBody  = `{"error":{"message":"m","type":"t","param":null,"code":null}}`
	otherError = `{"detail":"m"}`
)

var answerCases = []answerCase{
	{name: "400", serve: serveText(400, jsonMedia, errorBody), whole: KindRejected, stream: KindRejected, status: 400, hasBody: true},
	{name: "404 in another shape", serve: serveText(404, jsonMedia, otherError), whole: KindRejected, stream: KindRejected, status: 404},
	{name: "429", serve: serveText(429, jsonMedia, errorBody, "Retry-After", "7"), whole: KindRejected, stream: KindRejected,
		status: 429, hasBody: true, retryAfter: "7"},
	{name: "401", serve: serveText(401, jsonMedia, errorBody), whole: KindAuth, stream: KindAuth, status: 401},
	{name: "403", serve: serveText(403, jsonMedia, errorBody), whole: KindAuth, stream: KindAuth, status: 403},
	{name: "500", serve: serveText(500, jsonMedia, errorBody), whole: KindUpstream, stream: KindUpstream, status: 500, hasBody: true},
	{name: "502 html", serve: serveText(502, "text/html", "<html>"), whole: KindUpstream, stream: KindUpstream, status: 502},
	{name: "400 with the key in it", serve: serveText(400, jsonMedia, strings.Replace(errorBody, `"m"`, `"sk-test-secret"`, 1)),
		whole: KindRejected, stream: KindRejected, status: 400},
	{name: "400 too long", serve: serveText(400, jsonMedia, strings.Replace(errorBody, `"m"`, `"`+strings.Repeat("x", maxErrorBody)+`"`, 1)),
		whole: KindRejected, stream: KindRejected, status: 400},
	{name: "302", serve: serveText(302, jsonMedia, errorBody, "Location", "/v1/chat/completions"),
		whole: KindUpstream, stream: KindUpstream, status: 302, hasBody: true},
	{name: "204", serve: func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) },
		whole: KindUpstream, stream: KindUpstream, status: 204},
	{name: "200 empty", serve: serveText(200, events, ""), whole: KindUpstream, stream: KindUpstream, status: 200},
	{name: "200 html", serve: serveText(200, "text/html; charset=utf-8", "<html>"), whole: KindUpstream, stream: KindUpstream, status: 200},
	{name: "200 with an error", serve: serveText(200, jsonMedia, errorBody), whole: KindUpstream, stream: KindUpstream, status: 200, hasBody: true},
	{name: "200 without choices", serve: serveText(200, jsonMedia, `{"id":"x"}`), whole: KindUpstream, stream: KindUpstream, status: 200},
	{name: "200 half", serve: serveText(200, jsonMedia, completionBody[:40]), whole: KindUpstream, stream: KindUpstream, status: 200},
	{name: "cut in the body", serve: serveCut(jsonMedia, completionBody[:40]), whole: KindUpstream, stream: KindUpstream, status: 200},
	{name: "cut before the first event", serve: serveCut(events, ""), whole: KindUpstream, stream: KindUpstream, status: 200},
	{name: "cut after an event", serve: serveCut(events, chunkEvent), whole: KindUpstream, stream: KindCut, status: 200, deliversBefore: true},
	{name: "cut in an event", serve: serveCut(events, chunkEvent+chunkEvent[:30]), whole: KindUpstream, stream: KindCut, status: 200, deliversBefore: true},
	{name: "no [DONE]", serve: serveText(200, events, chunkEvent), whole: KindUpstream, stream: KindCut, status: 200, deliversBefore: true},
	{name: "no JSON", serve: serveText(200, events, chunkEvent+"data: oops\n\n"), whole: KindUpstream, stream: KindCut, status: 200, deliversBefore: true},
	{name: "error event", serve: serveText(200, events, chunkEvent+"event: error\ndata: "+errorBody+"\n\n"), whole: KindUpstream,
		stream: KindCut, status: 200, deliversBefore: true},
	{name: "reset", serve: func(w http.ResponseWriter, r *http.Request) {
		conn, _, _ := http.NewResponseController(w).Hijack()
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
	}, whole: KindUpstream, stream: KindUpstream},
}

func TestUpstreamFailures(t *testing.T) {
	for _, c := range answerCases {
		server := httptest.NewUnstartedServer(c.serve)
		server.Config.ErrorLog = nil
		server.Start()
		p := client(t, server.URL, nil)
		_, err := p.Complete(t.Context(), Request{Body: []byte(`{"secret":"prompt"}`)})
		e := wantError(t, c.name, err, c.whole, c.status)
		if (e.Body != nil) != c.hasBody || e.RetryAfter != c.retryAfter {
			t.Errorf("%s: body %q, retry after %q", c.name, e.Body, e.RetryAfter)
		}
		address := strings.TrimPrefix(server.URL, "http://")
		if s := e.Error(); strings.Contains(s, "secret") || strings.Contains(s, address) {
			t.Errorf("%s: %s", c.name, s)
		}
		s := readStream(t.Context(), p, `{"stream":true}`)
		wantError(t, c.name+", streamed", s.err, c.stream, c.status)
		if (len(s.data) > 0) != c.deliversBefore {
			t.Errorf("%s: %d chunks", c.name, len(s.data))
		}
		server.Close()
	}
}

func TestNoConnection(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	_, err = client(t, "http://"+address, nil).Complete(t.Context(), Request{})
	if e := wantError(t, "refused", err, KindUpstream, 0); e.Reason != "connection refused" {
		t.Error(e)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	var calls atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		http.Redirect(w, r, "/v1/chat/completions?again", http.StatusTemporaryRedirect)
	}))
	defer server.Close()
	_, err := client(t, server.URL, nil).Complete(t.Context(), Request{Body: []byte("{}")})
	wantError(t, "redirect", err, KindUpstream, 307)
	if calls.Load() != 1 {
		t.Errorf("%d calls", calls.Load())
	}
}

func TestGzipIsUnpackedAndBounded(t *testing.T) {
	huge := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, completionBody)
		for blank := strings.Repeat(" ", 1<<20); huge; {
			if _, err := io.WriteString(z, blank); err != nil {
				return
			}
		}
		_ = z.Close()
	}))
	defer server.Close()
	p := client(t, server.URL, nil)
	got, err := p.Complete(t.Context(), Request{})
	if err != nil || string(got.Body) != completionBody {
		t.Errorf("%v", err)
	}
	huge = true
	_, err = p.Complete(t.Context(), Request{})
	if e := wantError(t, "bomb", err, KindUpstream, 200); e.Reason != errTooLong.Error() {
		t.Error(e)
	}
}

func TestConnectionsAreReused(t *testing.T) {
	var opened atomic.Int32
	server := httptest.NewUnstartedServer(Handler(NewSimulated()))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	p := client(t, server.URL, nil)
	for range 20 {
		for _, text := range []string{"hello", "sim:status=429", "sim:status=500"} {
			body := `"messages":[{"role":"user","content":"` + text + `"}]`
			_, _ = p.Complete(t.Context(), Request{Body: []byte(conformanceBody(body, false, false))})
			readStream(t.Context(), p, conformanceBody(body, true, true))
		}
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("%d connections for calls one after the other", n)
	}
}

// TestNothingIsLeft aborts streams at every point and waits for the number of goroutines to come
// back to what it was.
func TestNothingIsLeft(t *testing.T) {
	server := httptest.NewServer(Handler(NewSimulated()))
	p := client(t, server.URL, nil)
	before := runtime.NumGoroutine()
	for _, text := range []string{"sim:hang", "sim:delay=10s", "sim:pace=10s", "sim:cut=2", "sim:error=2", "hello"} {
		for _, chunks := range []int{0, 1, 3} {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			stream, err := p.Stream(ctx, Request{Body: []byte(conformanceBody(
				`"messages":[{"role":"user","content":"`+text+`"}]`, true, true))})
			for i := 0; err == nil && i < chunks; i++ {
				_, err = stream.Next()
			}
			if stream != nil {
				_ = stream.Close()
			}
			cancel()
		}
	}
	p.CloseIdle()
	server.Close()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; <-tick.C {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// scripted is a transport on the fake clock: it waits, then answers with a body that gives its
// parts after pauses and then stalls or ends.
type scripted struct {
	headersAfter time.Duration
	parts        []string
	every        time.Duration
	stalls       bool
	closed       atomic.Bool
}

func (s *scripted) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := pause(r.Context(), s.headersAfter); err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: 200, Header: http.Header{}, ContentLength: -1,
		Body: &scriptedBody{s, r.Context(), s.parts}}, nil
}

type scriptedBody struct {
	s    *scripted
	ctx  context.Context
	left []string
}

func (b *scriptedBody) Read(p []byte) (int, error) {
	if len(b.left) == 0 {
		if b.s.stalls {
			<-b.ctx.Done()
			return 0, b.ctx.Err()
		}
		return 0, io.EOF
	}
	if err := pause(b.ctx, b.s.every); err != nil {
		return 0, err
	}
	n := copy(p, b.left[0])
	if b.left[0] = b.left[0][n:]; b.left[0] == "" {
		b.left = b.left[1:]
	}
	return n, nil
}

func (b *scriptedBody) Close() error { b.s.closed.Store(true); return nil }

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestTimeouts(t *testing.T) {
	minute, hour := time.Minute, time.Hour
	cases := []struct {
		name       string
		script     *scripted
		ctx        time.Duration // the caller's patience
		kind       Kind          // "" = success
		status     int
		took       time.Duration
		deliversTo int // chunks
	}{
		{"slow headers", &scripted{headersAfter: 9 * minute, parts: []string{chunkEvent, doneEvent}}, hour, "", 0, 9 * minute, 1},
		{"no headers", &scripted{headersAfter: hour}, hour, KindTimeout, 0, HeaderTimeout, 0},
		{"stalled at once", &scripted{stalls: true}, hour, KindTimeout, 200, IdleTimeout, 0},
		{"stalled", &scripted{parts: []string{chunkEvent, chunkEvent}, every: minute, stalls: true}, hour,
			KindTimeout, 200, 2*minute + IdleTimeout, 2},
		{"slow", &scripted{parts: []string{chunkEvent, chunkEvent, doneEvent}, every: minute}, hour, "", 0, 3 * minute, 2},
		{"kept alive by comments", &scripted{parts: []string{chunkEvent, ": ping\n\n", ": ping\n\n", doneEvent},
			every: 90 * time.Second}, hour, "", 0, 6 * minute, 1},
		{"without an end", &scripted{parts: slices.Repeat([]string{": ping\n\n"}, 20), every: 100 * time.Second, stalls: true}, hour,
			KindTimeout, 200, TotalTimeout, 0},
		{"the caller goes before the headers", &scripted{headersAfter: minute}, time.Second, KindCanceled, 0, time.Second, 0},
		{"the caller goes in the stream", &scripted{parts: []string{chunkEvent}, stalls: true}, time.Second,
			KindCanceled, 0, time.Second, 1},
	}
	for _, c := range cases {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), c.ctx)
			defer cancel()
			p, err := NewOpenAI(Config{BaseURL: "http://upstream.test", Transport: c.script})
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			s := readStream(ctx, p, `{"stream":true}`)
			if c.kind != "" {
				wantError(t, c.name, s.err, c.kind, c.status)
			} else if s.err != nil {
				t.Errorf("%s: %v", c.name, s.err)
			}
			if took := time.Since(start); took != c.took || len(s.data) != c.deliversTo {
				t.Errorf("%s: %v, %d chunks; want %v, %d", c.name, took, len(s.data), c.took, c.deliversTo)
			}
			if c.script.headersAfter < c.took && !c.script.closed.Load() {
				t.Errorf("%s: the body was not closed", c.name)
			}
		})
	}
}

// TestSlowReaderIsNoStalledUpstream reads one chunk in ten minutes.
func TestSlowReaderIsNoStalledUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		script := &scripted{parts: []string{chunkEvent, chunkEvent, doneEvent}}
		p, err := NewOpenAI(Config{BaseURL: "http://upstream.test", Transport: script})
		if err != nil {
			t.Fatal(err)
		}
		stream, err := p.Stream(t.Context(), Request{})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			<-time.After(10 * time.Minute)
			if _, err := stream.Next(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := stream.Next(); err != io.EOF {
			t.Error(err)
		}
		_ = stream.Close()
	})
}

// TestCloseAfterDoneDoesNotWait: an upstream that keeps the body open after [DONE].
func TestCloseAfterDoneDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := NewOpenAI(Config{BaseURL: "http://upstream.test",
			Transport: &scripted{parts: []string{doneEvent}, stalls: true}})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if s := readStream(t.Context(), p, "{}"); s.err != nil || time.Since(start) != drainTimeout {
			t.Errorf("%v after %v", s.err, time.Since(start))
		}
	})
}

func TestCanceledWholeAnswer(t *testing.T) {
	p := simulatedUpstream(t, nil)
	for _, after := range []time.Duration{0, 10 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		_, err := p.Complete(ctx, Request{Body: []byte(conformanceBody(
			`"messages":[{"role":"user","content":"sim:hang"}]`, false, false))})
		wantError(t, "hang", err, KindCanceled, 0)
		cancel()
	}
}
