package leaktest

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestPlainPart: what is looked for of a prompt is long enough, not said by chance, and written alike everywhere.
func TestPlainPart(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"please tell me a story":                            "please tell me a story",
		"short one":                                         "",
		strings.Repeat("x", 100):                            "",
		"0190a1b2-0000-7000-8000-0000abcdef":                "",
		"say \"hello\" to my neighbours":                    " to my neighbours",
		"größer, schöner, teurer als gestern":               "ner, teurer als gestern",
		"a line\nand another line, which is longer than it": "and another line, which is longer than it"[:longest],
	} {
		if got := plainPart(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// TestWritten: what requests say, in every API's form, is found in a log; what stands for a password is not.
func TestWritten(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		`{"messages":[{"role":"user","content":"my secret diagnosis"}]}`, `{"messages":[{"content":[{"type":"text","text":"my secret diagnosis"}]}]}`,
		`{"input":"my secret diagnosis"}`, `{"input":["x","my secret diagnosis"]}`, `{"prompt":"my secret diagnosis"}`, `{"system":"my secret diagnosis"}`,
		`{"contents":[{"parts":[{"text":"my secret diagnosis"}]}]}`,
	} {
		s := New()
		s.Body([]byte(body))
		if len(s.Written(`{"error":"cannot read my secret diagnosis"}`)) != 1 || len(s.Answered("my secret diagnosis")) != 0 || len(s.Written("my other diagnosis")) != 0 {
			t.Errorf("%s: %v", body, s.Written(`{"error":"cannot read my secret diagnosis"}`))
		}
	}
	s := New()
	s.Settings([]string{"OPENAI_API_KEY=k", "REDIS_URL=redis://:p4sswd@h", "LANGFUSE_PUBLIC_KEY=public-key-of-langfuse"})
	for text, want := range map[string]int{"redis://:xxxxx@h public-key-of-langfuse ok": 0, "postgres://user:password@host": 0, "at :p4sswd@h": 1, "redis://:other@h": 1, "Authorization: Bearer abcdefghijklmnop": 1} {
		if found := s.Written(text); len(found) != want {
			t.Errorf("%q: %q", text, found)
		}
	}
}

// broken is a body that ends in an error.
type broken struct{ io.Reader }

var errBroken = errors.New("it broke off")

func (b broken) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		err = errBroken
	}
	return n, err
}

type canned struct{ status int }

func (c canned) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: c.status, Body: io.NopCloser(broken{strings.NewReader("panic at gateway/call.go:12")})}, nil
}

// TestTransport: answers go through as they are, with how they ended; only errors are looked at.
func TestTransport(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]int{200: 0, 500: 1} {
		found := 0
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://gateway/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := New().Transport(canned{status}, func(string) { found++ }).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close() //nolint:errcheck // it has been read
		if string(body) != "panic at gateway/call.go:12" || !errors.Is(err, errBroken) || found != want {
			t.Errorf("%d: %q, %v, %d found", status, body, err, found)
		}
	}
}

// pieces gives so many bytes at a time.
type pieces struct {
	io.Reader
	size int
}

func (p pieces) Read(b []byte) (int, error) { return p.Reader.Read(b[:min(len(b), p.size)]) }

type streamed struct {
	text string
	size int
}

func (s streamed) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"text/event-stream"}},
		Body: io.NopCloser(pieces{strings.NewReader(s.text), s.size})}, nil
}

// TestStream: of a stream the errors are looked at, and what a model says is not; it goes through as it is,
// whatever its pieces.
func TestStream(t *testing.T) {
	t.Parallel()
	const leak = "panic at gateway/call.go:12"
	long := strings.Repeat("x", 2*mostLine)
	for text, want := range map[string]int{
		"data: {\"choices\":[{\"delta\":{\"content\":\"" + leak + "\"}}]}\n\ndata: [DONE]\n\n":        0,
		"data: {\"error\":{\"message\":\"" + leak + "\"}}\n\n":                                        1,
		"data: {\"error\":{\"message\":\"" + leak + "\"}}":                                            1, // it breaks off
		"data: {\"a\":\"" + long + "\"}\ndata: {\"type\":\"error\",\"message\":\"" + leak + "\"}\r\n": 1,
		"event: response.failed\ndata: {\"response\":{\"error\":{\"message\":\"" + leak + "\"}}}\n":   1,
		"data: {\"error\":null,\"text\":\"" + leak + "\"}\n":                                          0,
	} {
		for _, size := range []int{1, 7, 1 << 20} {
			found := 0
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://gateway/", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := New().Transport(streamed{text, size}, func(string) { found++ }).RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close() //nolint:errcheck // it has been read
			if err != nil || string(body) != text || found != want {
				t.Errorf("%.80q in pieces of %d: %d found, want %d; %v, %d bytes of %d", text, size, found, want, err, len(body), len(text))
			}
		}
	}
}
