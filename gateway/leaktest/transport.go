package leaktest

import (
	"bytes"
	"io"
	"net/http"
	"strings"

	"github.com/tidwall/gjson"
)

const (
	most     = 4 << 20  // bytes of a body that are looked at
	mostLine = 64 << 10 // bytes of a stream's line that are looked at: errors are short
)

// Transport sends requests by base. It learns their credentials and what they say, and tells found what the
// answers tell that are errors, and the errors within streams.
func (s *Scan) Transport(base http.RoundTripper, found func(string)) http.RoundTripper {
	return transport{s, base, found}
}

type transport struct {
	scan  *Scan
	base  http.RoundTripper
	found func(string)
}

// CloseIdleConnections is what http.Client.CloseIdleConnections asks for.
func (t transport) CloseIdleConnections() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// RoundTrip implements http.RoundTripper.
func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	t.scan.sent(r)
	resp, err := t.base.RoundTrip(r)
	if err != nil {
		return resp, err
	}
	told := func(text string) {
		for _, what := range t.scan.Answered(text) {
			t.found(r.Method + " " + r.URL.Path + " tells " + what)
		}
	}
	if resp.StatusCode < http.StatusBadRequest {
		if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
			resp.Body = &stream{ReadCloser: resp.Body, told: told}
		}
		return resp, nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, most))
	var head strings.Builder
	resp.Header.Write(&head) //nolint:errcheck // a Builder takes all
	told(head.String() + string(body))
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(body), rest{resp.Body, err}), resp.Body}
	return resp, nil
}

// stream passes a stream on, and looks at its events that are errors.
type stream struct {
	io.ReadCloser
	told func(string)
	line []byte // as far as it has come
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	for part := p[:n]; len(part) > 0; {
		before, after, ended := bytes.Cut(part, []byte("\n"))
		s.line = append(s.line, before[:min(len(before), mostLine-len(s.line))]...)
		if ended {
			s.look()
		}
		part = after
	}
	if err != nil {
		s.look()
	}
	return n, err
}

// look looks at a line that has ended.
func (s *stream) look() {
	data, ok := bytes.CutPrefix(s.line, []byte("data:"))
	if ok && bytes.Contains(data, []byte(`"error"`)) {
		v := gjson.ParseBytes(data)
		if v.Get("error").IsObject() || v.Get("response.error").IsObject() || v.Get("type").Str == "error" {
			s.told(string(data))
		}
	}
	s.line = s.line[:0]
}

// rest goes on with a body, or with how reading it ended.
type rest struct {
	body io.Reader
	err  error
}

// Read implements io.Reader.
func (r rest) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	return r.body.Read(p)
}

// sent learns what a request has that nobody may be told.
func (s *Scan) sent(r *http.Request) {
	for _, name := range [...]string{"Authorization", "X-Api-Key", "X-Goog-Api-Key", "Api-Key"} {
		value := r.Header.Get(name)
		s.Credential(strings.TrimSpace(value[strings.LastIndexByte(value, ' ')+1:]))
	}
	s.Credential(r.URL.Query().Get("key"))
	if r.GetBody == nil || r.ContentLength > most {
		return
	}
	if body, err := r.GetBody(); err == nil {
		text, _ := io.ReadAll(io.LimitReader(body, most)) //nolint:errcheck // it is in memory
		s.Body(text)
	}
}
