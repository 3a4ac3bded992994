package main

// What a stream costs while it is open, in memory. The provider runs in the test's process; what is
// measured is the gateway's process alone. `make slow-streams` is the full size.

import (
	"bytes"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	slowStreams = 1000             // open at once, in full; a tenth of that otherwise
	slowPieces  = 5                // that have come of each stream when memory is measured
	slowLimit   = 60 * time.Second // for that, and for the end of all
	slowBurst   = 20               // events at once, where a stream has many small ones
	slowWarm    = 32               // streams before the measure begins: what is loaded once is no stream's
	// slowBytes is what an open stream may cost. In use are 58 KiB: 22 in the buffers of net/http's two
	// connections, 4 in the reader of events, 19 on the stacks of four goroutines, the rest in two requests
	// with their headers and contexts. The collector lets garbage grow to the size of the heap beside that.
	slowBytes    = 128 << 10
	slowNoise    = 8 << 20 // by which the size of a process changes anyway
	slowGoMargin = 16      // goroutines by which a gateway at rest changes
)

// slowUsage is what the slow provider reports of each stream.
var slowUsage = usage{Prompt: 9, Completion: 7}

// slowPace is the time between two pieces of a stream.
func slowPace() time.Duration { return time.Duration(sized(100, 1000)) * time.Millisecond }

// slowProvider streams a piece of some events at each pace, until it is told to finish.
type slowProvider struct {
	*httptest.Server
	events int // in a piece
	finish chan struct{}
	calls  atomic.Int64
}

func newSlowProvider(t testing.TB, events int) *slowProvider {
	p := &slowProvider{events: events, finish: make(chan struct{})}
	p.Server = httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(p.Close)
	return p
}

// slowEvent is one event of a stream.
func slowEvent(id int64, choices, more string) string {
	return fmt.Sprintf(`data: {"id":"chatcmpl-slow-%d","object":"chat.completion.chunk","created":1750000000,"model":"gpt-4o-mini-2024-07-18","choices":[%s]%s}`+"\n\n", id, choices, more)
}

func slowContent(id int64, text string) string {
	return slowEvent(id, `{"index":0,"delta":{"content":"`+text+`"},"logprobs":null,"finish_reason":null}`, `,"usage":null`)
}

func slowFirst(id int64) string {
	return slowEvent(id, `{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}`, `,"usage":null`)
}

func slowEnd(id int64) string {
	return slowEvent(id, `{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}`, `,"usage":null`) +
		slowEvent(id, "", fmt.Sprintf(`,"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}`,
			slowUsage.Prompt, slowUsage.Completion, slowUsage.Prompt+slowUsage.Completion)) + "data: [DONE]\n\n"
}

func (p *slowProvider) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	id, control := p.calls.Add(1), http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	say := func(text string) bool {
		_, err := io.WriteString(w, text)
		return err == nil && control.Flush() == nil
	}
	say(slowFirst(id))
	piece := strings.Repeat(slowContent(id, "slowly "), p.events)
	tick := time.NewTicker(slowPace())
	defer tick.Stop()
	for !bytes.Contains(body, []byte("to warm up")) {
		select {
		case <-p.finish:
			say(slowEnd(id))
			return
		case <-r.Context().Done():
			return
		case <-tick.C:
			say(piece)
		}
	}
	say(slowEnd(id))
}

// watched is a connection pool that says of each stream when so many events of it have come.
type watched struct {
	*http.Transport
	events int
	came   chan struct{}
}

func (w watched) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := w.Transport.RoundTrip(r)
	if err == nil {
		resp.Body = &watchedBody{resp.Body, w.came, w.events}
	}
	return resp, err
}

type watchedBody struct {
	io.ReadCloser
	came chan struct{}
	wait int // for so many events
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	before := b.wait
	if b.wait -= bytes.Count(p[:n], []byte("\n\n")); before > 0 && b.wait <= 0 {
		b.came <- struct{}{}
	}
	return n, err
}

// footprint is what a gateway has in use.
type footprint struct{ rss, heap, stacks, goroutines int64 }

func (f footprint) String() string {
	return fmt.Sprintf("RSS %.1f MiB, heap %.1f MiB, stacks %.1f MiB, %d goroutines",
		float64(f.rss)/(1<<20), float64(f.heap)/(1<<20), float64(f.stacks)/(1<<20), f.goroutines)
}

// residentOf is a process's resident memory in bytes, by /proc.
func residentOf(t testing.TB, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "statm"))
	if err != nil {
		t.Skip("there is no /proc to read memory from: ", err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

func (s *served) footprint(c *http.Client) footprint {
	s.t.Helper()
	f := footprint{rss: residentOf(s.t, s.cmd.Process.Pid)}
	status, text := fetch(s.t, c, s.url+"/metrics", "")
	if status != http.StatusOK {
		s.t.Fatalf("metrics: %d %.300s", status, text)
	}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		into := map[string]*int64{"go_goroutines": &f.goroutines, "go_memstats_heap_inuse_bytes": &f.heap, "go_memstats_stack_inuse_bytes": &f.stacks}[name]
		if number, err := strconv.ParseFloat(value, 64); into != nil && err == nil {
			*into = int64(number)
		}
	}
	return f
}

// needFiles skips where so many files cannot be open. Go itself raises the soft limit to the hard one
// when a process starts, this one and the gateway alike, so that the hard one counts.
func needFiles(t testing.TB, n uint64) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Max < n {
		t.Skipf("%d files may be open (ulimit -Hn), and %d have to be: %v", limit.Max, n, err)
	}
}

// underRace says that the binary under test is built with the race detector, whose memory is its own.
func underRace() bool { return strings.Contains(os.Getenv("GOFLAGS"), "-race") }

// TestSlowStreams: what an open stream costs a gateway that has many of them, with few events and with
// many small ones; all end well, are charged, and leave nothing behind.
func TestSlowStreams(t *testing.T) {
	for _, c := range []struct {
		name   string
		events int
	}{{"an event at a time", 1}, {"many small events", slowBurst}} {
		t.Run(c.name, func(t *testing.T) { keepOpen(t, sized(slowStreams/10, slowStreams), c.events) })
	}
}

func keepOpen(t *testing.T, n, events int) {
	needFiles(t, uint64(2*n+200))
	p := newSlowProvider(t, events)
	all, url := gateways(t, 1, "OPENAI_BASE_URL="+p.URL, "OPENAI_API_KEY=upstream-key", "BILLING_DEFAULT_BALANCE="+loadBalance)
	s, look := all[0], newClient(t)
	pool := watched{&http.Transport{}, slowPieces * events, make(chan struct{}, n)}
	send := func(c *http.Client, i int, prompt string) reply {
		return chat(t.Context(), c, s.url, tokenFor(t, loadAccount(i)), chatBody(loadModel, prompt, true, `,"max_completion_tokens":100`))
	}
	replies := make([]reply, n+slowWarm)
	atOnce(slowWarm, func(i int) { replies[n+i] = send(look, i, fmt.Sprint("to warm up ", i)) })
	p.CloseClientConnections()
	look.CloseIdleConnections()
	before := s.footprint(look)
	client, ended := &http.Client{Transport: scanAnswers(t, pool), Timeout: requestLimit}, sync.WaitGroup{}
	ended.Go(func() { atOnce(n, func(i int) { replies[i] = send(client, i, fmt.Sprint("slowly ", i)) }) })
	awaitPieces(t, pool.came, n)
	during := s.footprint(look)
	close(p.finish)
	ended.Wait()
	after := s.footprint(look)
	perStream := (during.rss - before.rss) / int64(n)
	t.Logf("%d streams, %d events at a time:\nbefore: %v\nduring: %v\nafter:  %v\nper stream: %d bytes resident; heap %d, stacks %d, %.1f goroutines", n, events, before, during, after,
		perStream, (during.heap-before.heap)/int64(n), (during.stacks-before.stacks)/int64(n), float64(during.goroutines-before.goroutines)/float64(n))
	if during.goroutines < before.goroutines+int64(n) {
		t.Errorf("%d streams are not open at once: %v", n, during)
	}
	if during.rss-before.rss > int64(n)*slowBytes+slowNoise && !underRace() {
		t.Errorf("a stream costs %d bytes, may cost %d", perStream, slowBytes)
	}
	checkSlow(t, url, replies)
	pool.CloseIdleConnections()
	p.CloseClientConnections()
	eventually(t, settleLimit, "the streams' goroutines have ended", func() bool {
		return s.footprint(look).goroutines <= before.goroutines+slowGoMargin
	})
	s.stop()
	verified(t, "DATABASE_URL="+url)
}

// awaitPieces waits until so many pieces of each stream have come.
func awaitPieces(t *testing.T, came <-chan struct{}, n int) {
	t.Helper()
	limit := time.NewTimer(slowLimit)
	defer limit.Stop()
	for i := range n {
		select {
		case <-came:
		case <-limit.C:
			t.Fatalf("only %d of %d streams are open after %s", i, n, slowLimit)
		}
	}
}

// checkSlow: every stream came whole and is charged as reported, and nothing is held.
func checkSlow(t *testing.T, url string, replies []reply) {
	t.Helper()
	a := auditLedger(t, url)
	want := priced(a, slowUsage)
	for i := range replies {
		r := &replies[i]
		l := a.lives[r.request]
		if r.status != http.StatusOK || !r.complete || r.err != nil || l == nil {
			t.Fatalf("stream %d: %v; in the ledger %+v", i, r, l)
		}
		if l.commits != 1 || !l.stream || l.source != "provider" || l.commit.Cmp(want) != 0 || a.rat(r.cost).Cmp(want) != 0 {
			t.Fatalf("stream %d: told %s, should be %s: %+v", i, r.cost, want.FloatString(12), l)
		}
	}
	if len(a.lives) != len(replies) {
		t.Errorf("%d requests, %d in the ledger", len(replies), len(a.lives))
	}
	for name, row := range a.rows {
		if row[1].Cmp(new(big.Rat)) != 0 {
			t.Errorf("%s still has %s reserved", name, row[1])
		}
	}
}
