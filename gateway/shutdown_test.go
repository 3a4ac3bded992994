package gateway_test

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"llm-gateway/domain"
)

// TestOwnership: while the gateway's own lease is not held, its reservations would pass for a dead
// process's: it makes none, and serves again when it has it back.
func TestOwnership(t *testing.T) {
	t.Parallel()
	watched, providers := watchedSimulated()
	var owned atomic.Bool
	e := start(t, options{providers: providers, owned: owned.Load})
	for _, own := range []bool{false, true, false, true} {
		owned.Store(own)
		before := len(e.asked.reserved("anke"))
		for _, path := range []string{chatPath, streamPath} {
			for key, a := range map[string]answer{"": e.post("anke", path, chatBody("sim-small", "x", "")),
				"k": e.ask("anke", "k"+itoa(int64(before))+path, path, chatBody("sim-small", "x", ""))} {
				if own {
					if a.status != 200 {
						t.Errorf("%s %s: %d %s", path, key, a.status, a.body)
					}
					continue
				}
				checkError(t, path, a, http.StatusServiceUnavailable, "service_unavailable", "ledger_unavailable")
				if a.header.Get("Retry-After") == "" || a.id().String() != "00000000-0000-0000-0000-000000000000" {
					t.Errorf("%s: %v", path, a.header)
				}
			}
		}
		if n := len(e.asked.reserved("anke")) - before; n != map[bool]int{false: 0, true: 4}[own] || watched.count() != len(e.asked.reserved("anke")) {
			t.Errorf("owned: %t: %d reserves, %d calls", own, n, watched.count())
		}
		if a := e.get("anke", "/billing/balance"); a.status != 200 {
			t.Errorf("reading, owned: %t: %d", own, a.status)
		}
	}
}

// TestLeave: a gateway that leaves says that it is not ready, and serves whoever comes all the same.
func TestLeave(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	if a := e.get("", "/ready"); a.status != 200 {
		t.Errorf("before: %d %s", a.status, a.body)
	}
	e.gw.Leave()
	if a := e.get("", "/ready"); a.status != 503 || a.json("reason").Str != "shutting down" {
		t.Errorf("after: %d %s", a.status, a.body)
	}
	for _, path := range []string{chatPath, streamPath} {
		if a := e.post("bela", path, chatBody("sim-small", "x", "")); a.status != 200 || path == streamPath && !a.events(t).done {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if a := e.get("", "/health"); a.status != 200 {
		t.Errorf("health: %d", a.status)
	}
}

// stopped sends a request, stops the gateway when so many frames of the answer have come, and returns the
// rest of it.
func (e *env) stopped(r *http.Request, frames int) answer {
	e.t.Helper()
	read, done := make(chan struct{}), make(chan answer, 1)
	go func() {
		response, err := e.client.Do(r)
		if err != nil {
			close(read)
			done <- answer{err: err}
			return
		}
		defer response.Body.Close() //nolint:errcheck // it has been read
		lines, begun := bufio.NewReader(response.Body), ""
		for n := 0; n < frames; {
			line, err := lines.ReadString('\n')
			if begun += line; err != nil {
				break
			}
			if strings.HasPrefix(line, "data: ") {
				n++
			}
		}
		if frames > 0 {
			close(read)
		}
		var rest strings.Builder
		_, err = lines.WriteTo(&rest)
		done <- answer{response.StatusCode, response.Header, begun + rest.String(), err}
	}()
	if frames > 0 {
		<-read
	}
	synctest.Wait()
	e.gw.Stop()
	return <-done
}

// TestStop: what runs when the gateway cannot wait any longer ends: what was delivered is charged, all else
// goes back, and the client is told to come again. A key changes nothing in that.
func TestStop(t *testing.T) {
	t.Parallel()
	const counted, refunded = "reserve commit(counted) refund(remainder)", "reserve refund(shutdown)"
	for _, c := range []struct {
		name, path, prompt string
		frames             int
		life               string
		output             int64
	}{
		{"whole", chatPath, "sim:delay=50s", 0, refunded, 0},
		{"whole, hanging", chatPath, "sim:hang", 0, refunded, 0},
		{"before the first byte", streamPath, "sim:delay=50s", 0, refunded, 0},
		{"before the first byte, hanging", streamPath, "sim:hang", 0, refunded, 0},
		{"after the role", streamPath, "sim:tokens=50 sim:pace=1s", 1, refunded, 0},
		{"after one chunk", streamPath, "sim:tokens=50 sim:pace=1s", 2, counted, 1},
		{"after some chunks", streamPath, "sim:tokens=50 sim:pace=1s", 20, counted, 19},
		{"after all text", streamPath, "sim:tokens=50 sim:pace=1s", 51, counted, 50},
	} {
		for _, key := range []string{"", "k"} {
			watched, providers := watchedSimulated()
			bubble(t, options{providers: providers}, func(t *testing.T, e *env) {
				name, body := c.name+", key: "+key, chatBody("sim-small", c.prompt, "")
				r := e.request(http.MethodPost, "cilly", c.path, body)
				if key != "" {
					r.Header.Set("Idempotency-Key", key)
				}
				began := time.Now()
				a := e.stopped(r, c.frames)
				if took := time.Since(began); took != time.Duration(max(0, c.frames-1))*time.Second {
					t.Errorf("%s: it took %s", name, took)
				}
				l := e.life("cilly", a.id())
				if l.String() != c.life || l.commitData().Meters[domain.Output] != c.output || a.err != nil {
					t.Errorf("%s: %v, %q with %v, want %q with %d", name, a.err, l, l.commitData().Meters, c.life, c.output)
				}
				checkStopped(t, name, c.frames, a)
				e.gw.Close() // it returns
				if watched.count() != 1 {
					t.Errorf("%s: %d calls", name, watched.count())
				}
			})
		}
	}
}

// checkStopped: before the first byte the client is told 503, afterwards by an event, and never [DONE].
func checkStopped(t *testing.T, name string, frames int, a answer) {
	t.Helper()
	if frames == 0 {
		checkError(t, name, a, http.StatusServiceUnavailable, "service_unavailable", "shutting_down")
		if a.header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", name)
		}
		return
	}
	if s := a.events(t); a.status != 200 || s.done || s.failure != "shutting_downservice_unavailable" || len(s.comments) > 0 || len(s.data) != frames+1 {
		t.Errorf("%s: %d, %d frames, done: %t, failure %q, %q", name, a.status, len(s.data), s.done, s.failure, s.comments)
	}
}

// TestStopAndKeys: what was cut by the end of a gateway is, for whoever repeats it on another one, what any
// request is: free where nothing was delivered, otherwise as it was delivered.
func TestStopAndKeys(t *testing.T) {
	t.Parallel()
	for _, frames := range []int{0, 1, 8} {
		watched, providers := watchedSimulated()
		bubble(t, options{providers: providers}, func(t *testing.T, e *env) {
			body := chatBody("sim-small", "sim:tokens=20 sim:pace=1s sim:delay=1s", "")
			first := e.stopped(e.keyed("doro", "k", streamPath, body), frames)
			e.gw.Close()
			p := newPipes()
			other := start(t, options{share: e, listen: p.listen, providers: providers})
			other.client = p.client()
			a := other.ask("doro", "k", streamPath, body)
			if frames == 8 {
				checkReplayed(t, "cut by the end", first, a)
			} else if a.status != 200 || !a.events(t).done || a.header.Get("idempotent-replayed") != "" || watched.count() != 2 {
				t.Errorf("after %d frames: %d, %d calls: %s", frames, a.status, watched.count(), a.body)
			}
			if e.charges("doro") != 1 {
				t.Errorf("after %d frames: %d charges", frames, e.charges("doro"))
			}
		})
	}
}

// TestStopWithNobodyThere: a request with a key whose client has gone ends too, and is charged for what a
// repeat is given.
func TestStopWithNobodyThere(t *testing.T) {
	t.Parallel()
	bubble(t, options{}, func(t *testing.T, e *env) {
		body := chatBody("sim-small", "sim:tokens=50 sim:pace=1s", "")
		e.leave(e.keyed("egon", "k", streamPath, body), 5)
		<-time.After(10*time.Second + time.Millisecond)
		e.gw.Stop()
		e.await(1)
		a := e.ask("egon", "k", streamPath, body)
		l := e.life("egon", a.id())
		if s := a.events(t); s.done || s.failure != "shutting_downservice_unavailable" || len(s.data) != 16 || l.commitData().Meters[domain.Output] != 14 {
			t.Errorf("%d frames, %v, failure %q", len(s.data), l.commitData().Meters, s.failure)
		}
	})
}

// TestAfterStop: a gateway that was stopped calls nobody for long, and keeps no money.
func TestAfterStop(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	e.gw.Stop()
	for _, path := range []string{chatPath, streamPath} {
		a := e.post("frida", path, chatBody("sim-small", "sim:hang", ""))
		checkError(t, path, a, http.StatusServiceUnavailable, "service_unavailable", "shutting_down")
		if l := e.life("frida", a.id()); l.String() != "reserve refund(shutdown)" {
			t.Errorf("%s: %q", path, l)
		}
	}
	e.gw.Stop() // once more does no harm
}

// TestStopWhileTheLedgerIsAway: an end does not wait for a ledger that is away; the journal has what it
// would have had.
func TestStopWhileTheLedgerIsAway(t *testing.T) {
	t.Parallel()
	for _, frames := range []int{0, 1, 8} {
		d, n := &ending{end: neverAnswers}, &notebook{}
		bubble(t, options{wrap: d.wrap, journal: n}, func(t *testing.T, e *env) {
			a := e.stopped(e.request(http.MethodPost, "gitta", streamPath, chatBody("sim-small", "sim:tokens=20 sim:pace=1s sim:delay=1s", "")), frames)
			began := time.Now()
			e.gw.Close()
			if took := time.Since(began); took > 3*time.Second || n.count() != 1 {
				t.Errorf("%d frames: closing took %s, %d in the journal", frames, took, n.count())
			}
			e.drain()
			checkStopped(t, "away", frames, a)
			want := "reserve refund(shutdown)"
			if frames == 8 {
				want = "reserve commit(counted) refund(remainder)"
			}
			if l := e.life("gitta", a.id()); l.String() != want {
				t.Errorf("%d frames: %q", frames, l)
			}
		})
	}
}

// TestDegraded: a gateway that can do without what is away is ready, and says what it is.
func TestDegraded(t *testing.T) {
	t.Parallel()
	var away []string
	e := start(t, options{degraded: func(context.Context) []string { return away }})
	if a := e.get("", "/ready"); a.status != 200 || a.json("degraded").Exists() {
		t.Errorf("%d %s", a.status, a.body)
	}
	away = []string{"redis", "journal"}
	if a := e.get("", "/ready"); a.status != 200 || a.json("status").Str != "ready" || a.json("degraded").Raw != `["redis","journal"]` {
		t.Errorf("%d %s", a.status, a.body)
	}
}
