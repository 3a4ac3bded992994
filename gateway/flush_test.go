package gateway_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider"
)

// brittle is a client's connection that takes so many flushes and breaks at the next, as net/http tells
// it: the write before went into a buffer, and only the flush fails.
type brittle struct {
	header http.Header
	takes  int
	got    strings.Builder // what has left
	buffer strings.Builder
}

// Header implements http.ResponseWriter.
func (b *brittle) Header() http.Header { return b.header }

// WriteHeader implements http.ResponseWriter.
func (b *brittle) WriteHeader(int) {}

// Write implements http.ResponseWriter.
func (b *brittle) Write(p []byte) (int, error) { return b.buffer.Write(p) }

// Flush implements http.Flusher, which gin asks for.
func (b *brittle) Flush() { b.FlushError() }

// FlushError is what http.ResponseController looks for.
func (b *brittle) FlushError() error {
	if b.takes == 0 {
		return http.ErrHandlerTimeout
	}
	b.takes--
	b.got.WriteString(b.buffer.String())
	b.buffer.Reset()
	return nil
}

// TestFlushThatFails: what did not leave for a client that has gone was not delivered, and is not charged,
// though the write before went well.
func TestFlushThatFails(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		takes  int
		burst  bool
		life   string
		output int64
	}{
		{0, false, "reserve refund(client_abort)", 0},
		{3, false, "reserve commit(counted) refund(remainder)", 3},
		{0, true, "reserve refund(provider_error)", 0}, // it was cut before anything left
	} {
		e := start(t, options{providers: map[string]provider.Provider{"simulated": &scripted{
			stream: func(context.Context, provider.Request) (provider.Stream, error) {
				return &chunks{list: repeated(`{"choices":[{"index":0,"delta":{"content":" a"}}]}`, 9), text: " a", burst: c.burst,
					end: &provider.Error{Kind: provider.KindCut}}, nil
			}}}})
		client := &brittle{header: http.Header{}, takes: c.takes}
		e.serve(client, e.request(http.MethodPost, "gil", chatPath, chatBody("sim-small", "x", `,"stream":true`)))
		l := e.life("gil", e.asked.reserved("gil")[0])
		if left := strings.Count(client.got.String(), `"content"`); l.String() != c.life || l.commitData().Meters[domain.Output] != c.output || left != int(c.output) {
			t.Errorf("after %d flushes, burst %t: %q for %d tokens, and %d left", c.takes, c.burst, l, l.commitData().Meters[domain.Output], left)
		}
	}
}
