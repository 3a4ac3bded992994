package leaktest

import (
	"bytes"
	"io"
	"net/http"
	"strings"
)

// most bounds how much of a body is looked at, in bytes.
const most = 4 << 20

// Transport sends requests by base. It learns their credentials and what they say, and tells found what the
// answers tell that are errors.
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
	if err != nil || resp.StatusCode < http.StatusBadRequest {
		return resp, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, most))
	var head strings.Builder
	resp.Header.Write(&head) //nolint:errcheck // a Builder takes all
	for _, what := range t.scan.Answered(head.String() + string(body)) {
		t.found(r.Method + " " + r.URL.Path + " tells " + what)
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(body), rest{resp.Body, err}), resp.Body}
	return resp, nil
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
