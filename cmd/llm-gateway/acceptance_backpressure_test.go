package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const (
	floodBytes    = 64 << 20         // of text, sent as fast as it is taken
	floodEvent    = 16 << 10         // of text in an event
	floodSocket   = 64 << 10         // asked of the kernel for a socket, so that it does not hold the flood itself
	floodStill    = time.Second      // without a byte taken: the provider is held back
	floodMemory   = 16 << 20         // by which a gateway may grow for it: half of that is text kept for counting
	floodPatience = 30 * time.Second // the gateway's, with a client that takes nothing
)

// floodProvider sends a long answer as fast as it is taken.
type floodProvider struct {
	*httptest.Server
	sent atomic.Int64  // bytes that left
	end  chan struct{} // a stream has ended, or was cut
}

func newFloodProvider(t testing.TB) *floodProvider {
	p := &floodProvider{end: make(chan struct{}, 1)}
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(p.serve))
	p.Config.ConnState = func(c net.Conn, state http.ConnState) {
		if tcp, ok := c.(*net.TCPConn); ok && state == http.StateNew {
			tcp.SetWriteBuffer(floodSocket)
		}
	}
	p.Start()
	t.Cleanup(p.Close)
	return p
}

func (p *floodProvider) serve(w http.ResponseWriter, r *http.Request) {
	defer func() { p.end <- struct{}{} }()
	io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "text/event-stream")
	content := slowContent(1, strings.Repeat("flood ", floodEvent/6))
	events := append([]string{slowFirst(1)}, make([]string, floodBytes/floodEvent)...)
	for i := range events[1:] {
		events[1+i] = content
	}
	for _, event := range append(events, slowEnd(1)) {
		n, err := io.WriteString(w, event)
		if p.sent.Add(int64(n)); err != nil {
			return
		}
	}
}

// hurl sends a request for a stream and reads nothing of what comes.
func hurl(t testing.TB, s *served) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.(*net.TCPConn).SetReadBuffer(floodSocket)
	body := chatBody(loadModel, "flood me", true, `,"max_completion_tokens":100,"stream_options":{"include_usage":true}`)
	if _, err := fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		tokenFor(t, "flooded"), len(body), body); err != nil {
		t.Fatal(err)
	}
	return conn
}

// heldBack waits until nothing more is taken of the flood, and returns the most memory that the
// gateway had meanwhile.
func (p *floodProvider) heldBack(t *testing.T, s *served) (most int64) {
	t.Helper()
	last, since := int64(-1), time.Now()
	eventually(t, floodPatience, "the provider is held back", func() bool {
		most = max(most, residentOf(t, s.cmd.Process.Pid))
		if sent := p.sent.Load(); sent != last {
			last, since = sent, time.Now()
		}
		return last > 0 && time.Since(since) > floodStill
	})
	if last >= floodBytes {
		t.Fatalf("all %d bytes were taken, though nobody reads", last)
	}
	t.Logf("of %d MiB the provider got rid of %.1f", floodBytes>>20, float64(last)/(1<<20))
	return most
}

// TestBackpressure: a client that does not read holds the provider back, and costs no more memory than
// is named. When it reads at last it gets everything.
func TestBackpressure(t *testing.T) {
	p := newFloodProvider(t)
	all, url := gateways(t, 1, "OPENAI_BASE_URL="+p.URL, "OPENAI_API_KEY=upstream-key")
	s := all[0]
	if r := chat(t.Context(), newClient(t), s.url, tokenFor(t, "flooded"), chatBody("sim-small", "to warm up", true, "")); !r.complete {
		t.Fatal(&r)
	}
	before := residentOf(t, s.cmd.Process.Pid)
	conn := hurl(t, s)
	most := p.heldBack(t, s)
	came := &counter{each: func() { most = max(most, residentOf(t, s.cmd.Process.Pid)) }}
	held := most
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	r := reply{status: resp.StatusCode, request: resp.Header.Get("x-billing-request-id")}
	r.readStream(io.TeeReader(resp.Body, came))
	<-p.end // and with it the count of what was sent
	t.Logf("resident before %.1f MiB, held back %.1f, at most %.1f", float64(before)/(1<<20), float64(held)/(1<<20), float64(most)/(1<<20))
	if bill := came.n - p.sent.Load(); !r.complete || r.err != nil || bill <= 0 || bill > 200 {
		t.Errorf("%d bytes came of %d, which leaves %d for the bill: %v", came.n, p.sent.Load(), bill, &r)
	}
	if grown := most - before; grown > floodMemory && !underRace() {
		t.Errorf("the gateway grew by %d bytes, may grow by %d", grown, floodMemory)
	}
	a := auditLedger(t, url) // the answer's own usage is charged, however long its text
	if l := a.lives[r.request]; l == nil || l.commits != 1 || l.source != "provider" || l.commit.Cmp(priced(a, slowUsage)) != 0 {
		t.Errorf("in the ledger %+v", l)
	}
}

// counter counts bytes, and does something at each MiB.
type counter struct {
	n    int64
	each func()
}

func (c *counter) Write(p []byte) (int, error) {
	if before := c.n; before>>20 != (before+int64(len(p)))>>20 {
		c.each()
	}
	c.n += int64(len(p))
	return len(p), nil
}

// TestNeverReads: a client that takes nothing for as long as a write may take counts as gone. The
// provider's call ends, and what was delivered is charged.
func TestNeverReads(t *testing.T) {
	if !full() {
		t.Skip("it waits for the gateway's patience, 30 s: ACCEPTANCE=full")
	}
	p := newFloodProvider(t)
	all, url := gateways(t, 1, "OPENAI_BASE_URL="+p.URL, "OPENAI_API_KEY=upstream-key")
	hurl(t, all[0])
	p.heldBack(t, all[0])
	begin := time.Now()
	select {
	case <-p.end:
	case <-time.After(floodPatience + settleLimit):
		t.Fatal("the provider's call still runs")
	}
	t.Logf("given up after %s", time.Since(begin).Round(time.Millisecond))
	eventually(t, settleLimit, "it is charged", func() bool {
		return countRows(t, url, `SELECT count(*) FROM ledger_events WHERE convert_from(payload, 'UTF8') LIKE '%"kind":"commit"%'`) == 1
	})
	for id, l := range auditLedger(t, url).lives {
		if l.commits != 1 || l.source != "counted" || l.commit.Sign() <= 0 {
			t.Errorf("request %s: %+v", id, l)
		}
	}
}
