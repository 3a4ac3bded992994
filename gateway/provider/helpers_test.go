package provider

import (
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"testing"
	"time"
)

// upstream serves the simulated provider and returns a client of it.
func simulatedUpstream(t *testing.T, change func(*Config)) *OpenAI {
	t.Helper()
	server := httptest.NewServer(Handler(NewSimulated()))
	t.Cleanup(server.Close)
	return client(t, server.URL, change)
}

// client is an OpenAI client of a server on loopback. Its timeouts end a test that would hang.
func client(t *testing.T, base string, change func(*Config)) *OpenAI {
	t.Helper()
	config := Config{BaseURL: base, APIKey: "sk-test-secret", ConnectTimeout: 5 * time.Second,
		HeaderTimeout: 20 * time.Second, IdleTimeout: 20 * time.Second}
	if change != nil {
		change(&config)
	}
	p, err := NewOpenAI(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.CloseIdle)
	return p
}

// streamed is a stream read to its end.
type streamed struct {
	data   []string
	text   string
	usages int // chunks with UsageOnly
	report Report
	err    error // nil for io.EOF
}

// readStream reads a whole stream and closes it.
func readStream(ctx context.Context, p Provider, body string) streamed {
	stream, err := p.Stream(ctx, Request{Body: []byte(body)})
	if err != nil {
		return streamed{err: err}
	}
	defer func() { _ = stream.Close() }()
	var s streamed
	for {
		chunk, err := stream.Next()
		if err != nil {
			s.report = stream.Report()
			if err != io.EOF {
				s.err = err
			}
			if _, again := stream.Next(); again != err {
				s.err = errors.Join(s.err, errors.New("the end is not the end"))
			}
			return s
		}
		s.data = append(s.data, string(chunk.Data))
		s.text += string(chunk.Text)
		if chunk.UsageOnly {
			s.usages++
		}
	}
}

// wantError checks an error's kind, status and whether it has a body.
func wantError(t *testing.T, name string, err error, kind Kind, status int) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%s: %v is no *Error", name, err)
	}
	if e.Kind != kind || e.Status != status {
		t.Errorf("%s: %s, status %d; want %s, %d (%v)", name, e.Kind, e.Status, kind, status, e)
	}
	return e
}
