package gateway_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"llm-gateway/domain"
	"llm-gateway/gateway"
	"llm-gateway/gateway/provider"
)

// leave sends a request, reads so many frames of its answer, and goes.
func (e *env) leave(r *http.Request, frames int) {
	e.t.Helper()
	ctx, cancel := context.WithCancel(e.t.Context())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		response, err := e.client.Do(r.WithContext(ctx))
		if err != nil {
			return // gone before the first byte
		}
		defer response.Body.Close() //nolint:errcheck // its client goes
		lines := bufio.NewReader(response.Body)
		for range frames {
			for line := ""; !strings.HasPrefix(line, "data: "); {
				if line, err = lines.ReadString('\n'); err != nil {
					e.t.Errorf("a frame is missing: %v", err)
					return
				}
			}
		}
		cancel()
	}()
	if frames == 0 {
		synctest.Wait() // the request is where it cannot go on without time
		cancel()
	}
	<-gone
	cancel()
}

// TestKeyAndClientGone: a request with a key runs on when its client goes, wherever that is, so that a
// repeat finds it whole; it is charged once.
func TestKeyAndClientGone(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, path, prompt string
		frames             int
		output             int64
	}{
		{"whole", chatPath, "sim:delay=20s sim:tokens=30", 0, 30},
		{"before the first chunk", streamPath, "sim:delay=20s sim:tokens=30", 0, 30},
		{"after the role", streamPath, "sim:tokens=30 sim:pace=1s", 1, 30},
		{"after two chunks", streamPath, "sim:tokens=30 sim:pace=1s", 2, 30},
		{"after many chunks", streamPath, "sim:tokens=30 sim:pace=1s", 25, 30},
		{"after all text", streamPath, "sim:tokens=30 sim:pace=1s", 31, 30},
	} {
		watched, providers := watchedSimulated()
		bubble(t, options{providers: providers}, func(t *testing.T, e *env) {
			body := chatBody("sim-small", c.prompt, "")
			e.leave(e.keyed("mia", "k", c.path, body), c.frames)
			checkError(t, c.name+", while it runs", e.ask("mia", "k", c.path, body), http.StatusConflict, "conflict_error", "request_in_progress")
			e.await(2)
			a := e.ask("mia", "k", c.path, body)
			id := a.id()
			l := e.life("mia", id)
			if d := l.commitData(); a.status != 200 || l.String() != "reserve commit(provider) refund(remainder)" || d.Meters[domain.Output] != c.output {
				t.Errorf("%s: %d, %q with %v: %s", c.name, a.status, l, l.commitData().Meters, a.body)
			}
			if c.path == streamPath {
				if s := a.events(t); !s.done || len(s.data) != 32 || s.bill(t).Get("cost").Str != l.commit.Amount.String() {
					t.Errorf("%s: %d frames, done: %t, %q", c.name, len(s.data), s.done, s.comments)
				}
			}
			if a.header.Get("idempotent-replayed") != "true" || watched.count() != 1 || e.charges("mia") != 1 {
				t.Errorf("%s: %d calls, %d charges", c.name, watched.count(), e.charges("mia"))
			}
			fresh := e.post("nora", c.path, body) // byte for byte what a client that stays is sent
			if want := masked(fresh.body); masked(a.body) != want {
				t.Errorf("%s: %s\nwant %s", c.name, masked(a.body), want)
			}
		})
	}
}

// TestKeyAndSlowClient: a client that stops reading is given up, and its call runs on all the same.
func TestKeyAndSlowClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		e := start(t, options{listen: p.listen})
		body := chatBody("sim-small", "sim:tokens=300", "")
		conn := p.dial()
		if _, err := io.WriteString(conn, "POST "+streamPath+" HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\nAuthorization: Bearer "+e.token("olaf")+
			"\r\nContent-Length: "+itoa(int64(len(body)))+"\r\n\r\n"+body); err != nil {
			t.Fatal(err)
		}
		frames(t, bufio.NewReaderSize(conn, 16), 4)
		e.await(1)
		e.client = p.client()
		a := e.ask("olaf", "k", streamPath, body)
		if s := a.events(t); !s.done || len(s.data) != 302 || e.life("olaf", a.id()).commitData().Meters[domain.Output] != 300 {
			t.Errorf("%d %d frames, done: %t; %v", a.status, len(s.data), s.done, e.life("olaf", a.id()).commitData().Meters)
		}
		conn.Close() //nolint:errcheck // done
	})
}

// TestKeyAndCutStream: a stream that the provider cut was delivered as far as it was, and charged; a repeat
// gets as much, and breaks off as the first did. Where nothing was delivered the key is free.
func TestKeyAndCutStream(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		prompt  string
		failure string
		output  int64
	}{
		{"sim:tokens=9 sim:cut=2", "upstream_errorupstream_error", 1}, {"sim:tokens=9 sim:cut=8", "upstream_errorupstream_error", 7},
		{"sim:tokens=9 sim:error=5", "server_error", 4}, {"sim:tokens=9 sim:cut=12", "upstream_errorupstream_error", 9},
		{"sim:tokens=9 sim:cut=0", "", 0}, {"sim:tokens=9 sim:cut=1", "upstream_errorupstream_error", 0}, {"sim:tokens=9 sim:error=1", "server_error", 0},
	} {
		watched, providers := watchedSimulated()
		e := start(t, options{providers: providers})
		body := chatBody("sim-small", c.prompt, "")
		first := e.ask("paul", "k", streamPath, body)
		l, again := e.life("paul", first.id()), e.ask("paul", "k", streamPath, body)
		if c.output == 0 {
			if l.String() != "reserve refund(provider_error)" || watched.count() != 2 || again.id() == first.id() || again.header.Get("idempotent-replayed") != "" {
				t.Errorf("%s: %q, %d calls, then %d %s", c.prompt, l, watched.count(), again.status, again.body)
			}
			continue
		}
		checkReplayed(t, c.prompt, first, again)
		if s := again.events(t); s.done || s.failure != c.failure || len(s.comments) > 0 || l.commitData().Meters[domain.Output] != c.output ||
			watched.count() != 1 || e.charges("paul") != 1 {
			t.Errorf("%s: done: %t, failure %q, %v, %d calls, %d charges", c.prompt, s.done, s.failure, l.commitData().Meters, watched.count(), e.charges("paul"))
		}
	}
}

// TestKeyAndPanic: a defect of the provider leaves no key taken for nothing.
func TestKeyAndPanic(t *testing.T) {
	t.Parallel()
	defect := true
	p := &scripted{complete: func(ctx context.Context, r provider.Request) (*provider.Completion, error) {
		if defect {
			panic("a defect")
		}
		return provider.NewSimulated().Complete(ctx, r)
	}}
	e := start(t, options{providers: map[string]provider.Provider{"simulated": p}})
	body := chatBody("sim-small", "hello", "")
	checkError(t, "a panic", e.ask("rita", "k", chatPath, body), 500, "server_error", "internal_error")
	defect = false
	if a := e.ask("rita", "k", chatPath, body); a.status != 200 || a.header.Get("idempotent-replayed") != "" || e.charges("rita") != 1 {
		t.Errorf("%d %s, %d charges", a.status, a.body, e.charges("rita"))
	}
}

// TestKeyAndTime: a request with a key does not end with its client, so it ends by the clock; that is a
// timeout of the provider, and nothing that the client did.
func TestKeyAndTime(t *testing.T) {
	t.Parallel()
	for _, path := range []string{chatPath, streamPath} {
		bubble(t, options{}, func(t *testing.T, e *env) {
			began := time.Now()
			a := e.ask("sara", "k", path, chatBody("sim-small", "sim:hang", ""))
			checkError(t, path, a, http.StatusGatewayTimeout, "upstream_error", "upstream_timeout")
			if l := e.life("sara", a.id()); time.Since(began) != 30*time.Minute || l.String() != "reserve refund(provider_error)" {
				t.Errorf("%s: after %s: %q", path, time.Since(began), l)
			}
		})
	}
	slow := func(int) { <-time.After(7 * time.Minute) }
	p := &scripted{stream: func(ctx context.Context, _ provider.Request) (provider.Stream, error) {
		return &timed{chunks: chunks{list: repeated(delta, 10), text: " word", at: slow}, ctx: ctx}, nil
	}}
	bubble(t, options{providers: map[string]provider.Provider{"simulated": p}}, func(t *testing.T, e *env) {
		a := e.ask("sara", "k", streamPath, chatBody("sim-small", "x", ""))
		if s := a.events(t); s.done || s.failure != "upstream_timeoutupstream_error" {
			t.Errorf("a slow stream: %+v", s)
		}
		if l := e.life("sara", a.id()); l.String() != "reserve commit(counted) refund(remainder)" || l.commitData().Meters[domain.Output] != 4 {
			t.Errorf("a slow stream: %q %v", l, l.commitData().Meters)
		}
		checkReplayed(t, "a slow stream", a, e.ask("sara", "k", streamPath, chatBody("sim-small", "x", "")))
	})
}

// timed are chunks that end with their context.
type timed struct {
	chunks
	ctx context.Context
}

// Next implements provider.Stream.
func (s *timed) Next() (provider.Chunk, error) {
	chunk, err := s.chunks.Next()
	if s.ctx.Err() != nil {
		return provider.Chunk{}, &provider.Error{Kind: provider.KindCanceled, Provider: provider.SimulatedName}
	}
	return chunk, err
}

// TestKeyAndJournal: while the settlement of the first waits in the journal, its key is taken; when it has
// been handed over, a repeat has the answer with the position that the first could not be told.
func TestKeyAndJournal(t *testing.T) {
	t.Parallel()
	for path, prompt := range map[string]string{chatPath: "hello", streamPath: "sim:tokens=4"} {
		for away, end := range absences {
			d, n := &ending{end: end}, &notebook{}
			bubble(t, options{wrap: d.wrap, journal: n}, func(t *testing.T, e *env) {
				name, body := path+", "+away, chatBody("sim-small", prompt, "")
				first := e.ask("theo", "k", path, body)
				happened := away == "the answer is lost" || away == "it happens too late"
				if a := e.ask("theo", "k", path, body); first.status != 200 || (a.code() != "request_in_progress") != happened {
					t.Errorf("%s: %d, then %d %s", name, first.status, a.status, a.body)
				}
				e.drain()
				a := e.ask("theo", "k", path, body)
				position := e.life("theo", first.id()).refund.Position().String()
				if path == chatPath {
					first.header.Set("x-billing-position", position)
				}
				first.body = strings.Replace(first.body, `"position":null`, `"position":"`+position+`"`, 1)
				checkReplayed(t, name, first, a)
				if e.charges("theo") != 1 {
					t.Errorf("%s: %d charges", name, e.charges("theo"))
				}
			})
		}
	}
}

// TestKeyOfReserveOfUnknownOutcome: a reserve that happened although nobody heard of it takes its key until
// it is undone, and no longer.
func TestKeyOfReserveOfUnknownOutcome(t *testing.T) {
	t.Parallel()
	d := &ending{end: func(ctx context.Context, c domain.Command, l gateway.Ledger) (domain.Outcome, error) {
		return l.Append(ctx, c)
	}}
	d.begin = once(func(ctx context.Context, c domain.Command, l gateway.Ledger) (domain.Outcome, error) {
		return l.Append(ctx, c)
	}, happens)
	bubble(t, options{wrap: d.wrap}, func(t *testing.T, e *env) {
		body := chatBody("sim-small", "hello", "")
		checkError(t, "unknown", e.ask("uwe", "k", chatPath, body), 503, "service_unavailable", "ledger_unavailable")
		synctest.Wait()
		if a := e.ask("uwe", "k", chatPath, body); a.status != 200 || a.header.Get("idempotent-replayed") != "" || e.charges("uwe") != 1 {
			t.Errorf("%d %s, %d charges", a.status, a.body, e.charges("uwe"))
		}
	})
}
