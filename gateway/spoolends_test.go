package gateway_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"llm-gateway/domain"
	"llm-gateway/gateway"
	"llm-gateway/gateway/provider"
	"llm-gateway/projections"
)

// TestSpoolDelivered: however a call without the ledger ends, what was delivered is charged, and what was
// not is let go.
func TestSpoolDelivered(t *testing.T) {
	t.Parallel()
	panics := func(at int) *scripted {
		return &scripted{stream: func(context.Context, provider.Request) (provider.Stream, error) {
			return &chunks{list: repeated(delta, 3), text: " word", at: func(i int) {
				if i == at {
					panic("a defect")
				}
			}}, nil
		}}
	}
	for _, c := range []struct {
		name, path, prompt string
		p                  provider.Provider
		status             int
		code               string // of the answer, or of the event that ends a stream
		life               string // "" = nothing is booked
	}{
		{"a provider's refusal", chatPath, "sim:status=500", nil, 502, "upstream_error", ""},
		{"a provider's refusal, streamed", streamPath, "sim:status=422", nil, 422, "", ""},
		{"cut before a word", streamPath, "sim:tokens=9 sim:cut=1", nil, 200, "upstream_errorupstream_error", ""},
		{"cut after some", streamPath, "sim:tokens=9 sim:cut=5", nil, 200, "upstream_errorupstream_error", "reserve commit(counted) refund(remainder)"},
		{"a panic", chatPath, "x", &scripted{complete: func(context.Context, provider.Request) (*provider.Completion, error) { panic("a defect") }},
			500, "internal_error", ""},
		{"a panic at once", streamPath, "x", panics(0), 500, "internal_error", ""},
		{"a panic in the middle", streamPath, "x", panics(2), 200, "internal_errorserver_error", "reserve commit(counted) refund(remainder)"},
		{"more than the bound", streamPath, "x", &scripted{stream: func(context.Context, provider.Request) (provider.Stream, error) {
			return &chunks{list: repeated(delta, 3), text: " word", report: provider.Report{Usage: &domain.Usage{Input: 9, Output: 50_000}}}, nil
		}}, 200, "", "reserve commit(provider) overage(beyond_bound)"},
		{"a charge without a price", streamPath, "x", &scripted{stream: func(context.Context, provider.Request) (provider.Stream, error) {
			return &chunks{list: repeated(delta, 3), text: " word", report: provider.Report{Usage: &domain.Usage{Input: 9, Output: 3, WebSearch: 5}}}, nil
		}}, 200, "internal_errorserver_error", ""},
	} {
		o := options{overages: strings.Contains(c.life, "overage")}
		if c.p != nil {
			o.providers = providersOf(c.p)
		}
		s := startSpooling(t, o)
		s.holds.Know("spoon", "100", false)
		s.ledger.set(refusing)
		a := s.post("spoon", c.path, chatBody("sim-small", c.prompt, ""))
		code := a.code()
		if a.status == 200 {
			code = a.events(t).failure
		}
		spooled := s.journal.spooled()
		if a.status != c.status || code != c.code || len(spooled) != strings.Count(c.life, "reserve") {
			t.Errorf("%s: %d %s; %d spooled: %s", c.name, a.status, code, len(spooled), a.body)
		}
		if held := s.holds.Held("spoon"); len(held) != len(spooled) || len(held) == 1 && held[a.id()] != spooled[0].Charge.String() {
			t.Errorf("%s: held %v", c.name, held)
		}
		if refused := s.recovers(); len(refused) > 0 {
			t.Errorf("%s: refused: %v", c.name, refused)
		}
		s.wantBooked(c.name, a.id(), c.life)
		want := "booked=1 charged=1 held=1"
		switch {
		case c.life == "":
			want = "dropped=1 held=1"
		case o.overages:
			want = "charged=1 held=1 overage=1"
		}
		if got := s.spoolCounts(); got != want {
			t.Errorf("%s: counted %s, want %s", c.name, got, want)
		}
	}
}

// TestSpoolClientGone: a client that goes is charged for what it got.
func TestSpoolClientGone(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, prompt string
		read         int
		spooled      int
	}{
		{"after some chunks", "sim:tokens=400 sim:pace=10ms", 6, 1},
		{"before the first", "sim:hang", 0, 0},
	} {
		watched := &spy{Provider: simulated(), called: make(chan struct{}, 1)}
		s := startSpooling(t, options{providers: providersOf(watched)})
		s.holds.Know("spoon", "1", false)
		s.ledger.set(refusing)
		conn, err := net.Dial("tcp", s.server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		before := s.endedSoFar()
		s.dial(conn, "spoon", chatPath, chatBody("sim-small", c.prompt, `,"stream":true`))
		<-watched.called
		frames(t, bufio.NewReader(conn), c.read)
		if held := s.holds.Held("spoon"); len(held) != 1 {
			t.Errorf("%s: held %v", c.name, held)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		s.await(before + 1)
		spooled, held := s.journal.spooled(), s.holds.Held("spoon")
		if len(spooled) != c.spooled || len(held) != c.spooled {
			t.Errorf("%s: spooled %v, held %v", c.name, spooled, held)
		}
		for _, o := range spooled {
			if out := o.Commit.Meters[domain.Output]; out < int64(c.read)-1 || o.Commit.UsageSource != domain.UsageCounted || held[o.RequestID] != o.Charge.String() {
				t.Errorf("%s: %d tokens, %s, held %v", c.name, out, o.Commit.UsageSource, held)
			}
		}
		s.recovers()
	}
}

// TestSpoolShutdown: a gateway that cannot wait charges what it delivered and lets the rest go.
func TestSpoolShutdown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		s := startSpooling(t, options{}, p)
		s.holds.Know("spoon", "1", false)
		s.ledger.set(refusing)
		streaming, hanging := p.dial(), make(chan answer, 1)
		s.dial(streaming, "spoon", chatPath, chatBody("sim-small", "sim:tokens=400 sim:pace=1s", `,"stream":true`))
		r := bufio.NewReader(streaming)
		frames(t, r, 4)
		go func() { hanging <- s.chat("spoon", chatBody("sim-small", "sim:hang", "")) }()
		synctest.Wait()
		if held := s.holds.Held("spoon"); len(held) != 2 {
			t.Errorf("held %v", held)
		}
		go io.Copy(io.Discard, r) //nolint:errcheck // the event that ends it, and the end
		s.gw.Stop()
		checkError(t, "nothing was delivered", <-hanging, 503, "service_unavailable", "shutting_down")
		s.gw.Close()
		if spooled, held := s.journal.spooled(), s.holds.Held("spoon"); len(spooled) != 1 || len(held) != 1 || held[spooled[0].RequestID] != spooled[0].Charge.String() {
			t.Errorf("spooled %v, held %v", spooled, held)
		}
		s.recovers()
		streaming.Close() //nolint:errcheck // done
	})
}

// TestSpoolJournalFails: what cannot be made durable is withheld, and its money stays held, for it may have
// been; nothing more is bought for a while, nor where the journal is known to fail.
func TestSpoolJournalFails(t *testing.T) {
	t.Parallel()
	full, flat := errors.New("the disk is full"), chatBody("sim-flat", "x", "")
	for _, after := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) { // the ledger is asked for a minute before an answer is withheld
			var s *spooling
			s = startSpooling(t, options{providers: providersOf(&scripted{
				complete: func(ctx context.Context, r provider.Request) (*provider.Completion, error) {
					s.journal.fail(full, after)
					return simulated().Complete(ctx, r)
				},
				stream: func(ctx context.Context, r provider.Request) (provider.Stream, error) {
					s.journal.fail(full, after)
					return simulated().Stream(ctx, r)
				}})}, newPipes())
			s.holds.Know("spoon", "0.03", false)
			s.ledger.set(refusing)
			whole := s.chat("spoon", flat)
			checkError(t, "whole", whole, 503, "service_unavailable", "ledger_unavailable")
			if whole.header.Get("x-billing-cost") != "" || len(s.holds.Held("spoon")) != 1 {
				t.Errorf("%v, held %v", whole.header, s.holds.Held("spoon"))
			}
			s.journal.fail(nil, false)
			checkError(t, "soon after", s.chat("spoon", flat), 503, "service_unavailable", "ledger_unavailable")
			if got := s.spoolCounts(); got != "held=1 withheld=1" {
				t.Errorf("counted %s", got)
			}
			<-time.After(5 * time.Second)
			if a := s.post("spoon", streamPath, flat).events(t); a.done || a.failure != "ledger_unavailableservice_unavailable" || len(a.comments) > 0 {
				t.Errorf("streamed: %+v", a)
			}
			<-time.After(5 * time.Second)
			checkError(t, "it is known to fail", s.chat("spoon", flat), 503, "service_unavailable", "ledger_unavailable")
			if got := s.spoolCounts(); got != "held=2 withheld=2" {
				t.Errorf("counted %s", got)
			}
			s.recovers()
			want, held := "100", 2
			if after { // it was durable after all
				want, held = "99.98", 0
			}
			if left := s.holds.Held("spoon"); s.available("spoon") != want || len(left) != held {
				t.Errorf("%s is left, held %v", s.available("spoon"), left)
			}
		})
	}
}

// TestSpoolLedgerAtTheEnd: where the journal does not take a request and the ledger is back, that does.
func TestSpoolLedgerAtTheEnd(t *testing.T) {
	t.Parallel()
	var s *spooling
	s = startSpooling(t, options{providers: providersOf(&scripted{complete: func(ctx context.Context, r provider.Request) (*provider.Completion, error) {
		s.ledger.set(there)
		s.journal.fail(errors.New("the disk is full"), false)
		return simulated().Complete(ctx, r)
	}})})
	s.holds.Know("spoon", "1", false)
	s.ledger.set(refusing)
	a := s.chat("spoon", chatBody("sim-flat", "x", ""))
	if a.status != 200 || a.header.Get("x-billing-position") == "" || a.header.Get("x-billing-cost") != "0.01" {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
	if l := s.life("spoon", a.id()); l.String() != "reserve commit(provider)" || len(s.holds.Held("spoon")) > 0 {
		t.Errorf("%q, held %v", l, s.holds.Held("spoon"))
	}
	s.recovers()
}

// TestSpoolLedgerRefuses: where the journal does not take a request and the ledger refuses it, nothing is
// charged, nothing is told, and nothing stays held.
func TestSpoolLedgerRefuses(t *testing.T) {
	t.Parallel()
	for _, reason := range []domain.Reject{domain.RejectInvalid, domain.RejectAccountUnknown} {
		var s *spooling
		s = startSpooling(t, options{providers: providersOf(&scripted{complete: func(ctx context.Context, r provider.Request) (*provider.Completion, error) {
			s.ledger.fails(&domain.Rejection{Reason: reason, Account: "spoon"})
			s.journal.fail(errors.New("the disk is full"), false)
			return simulated().Complete(ctx, r)
		}})})
		s.holds.Know("spoon", "1", false)
		s.ledger.set(refusing)
		a := s.chat("spoon", chatBody("sim-flat", "x", ""))
		checkError(t, string(reason), a, 500, "server_error", "internal_error")
		if held := s.holds.Held("spoon"); len(held) > 0 || a.header.Get("x-billing-cost") != "" || s.spoolCounts() != "dropped=1 held=1" {
			t.Errorf("%s: held %v, counted %s", reason, held, s.spoolCounts())
		}
		s.ledger.fails(nil)
		s.recovers()
	}
}

// TestSpoolAwayInTheMiddle: a call whose money is reserved in the ledger has nothing to do with Redis,
// however it ends.
func TestSpoolAwayInTheMiddle(t *testing.T) {
	t.Parallel()
	for _, how := range []presence{refusing, deaf} {
		for prompt, want := range map[string]string{"x": "reserve commit(provider)", "sim:status=500": "reserve refund(provider_error)"} {
			var s *spooling
			s = startSpooling(t, options{providers: providersOf(&scripted{complete: func(ctx context.Context, r provider.Request) (*provider.Completion, error) {
				s.ledger.set(how)
				return simulated().Complete(ctx, r)
			}})})
			a := s.chat("spoon", chatBody("sim-flat", prompt, ""))
			if kept := len(s.journal.commands); kept != 1 || len(s.journal.spooled()) > 0 || a.header.Get("x-billing-position") != "" || a.status != 200 && prompt == "x" {
				t.Errorf("%s: %d, %d kept", prompt, a.status, kept)
			}
			s.recovers()
			if l := s.life("spoon", a.id()); l.String() != want || s.spoolCounts() != "" {
				t.Errorf("%s: %q, counted %s", prompt, l, s.spoolCounts())
			}
		}
	}
}

// redisSpool is what a gateway has of Redis; the tests have more patience with it than a gateway.
type redisSpool struct{ *projections.Cache }

// RefillSoon implements gateway.Balances.
func (redisSpool) RefillSoon(string) {}

// Hold implements gateway.Spool.
func (r redisSpool) Hold(ctx context.Context, account string, request uuid.UUID, amount domain.Amount) error {
	return r.Cache.Hold(context.WithoutCancel(ctx), account, request, amount)
}

// Charge implements gateway.Spool.
func (r redisSpool) Charge(ctx context.Context, account string, request uuid.UUID, amount domain.Amount) error {
	return r.Cache.Charge(context.WithoutCancel(ctx), account, request, amount)
}

// Drop implements gateway.Spool.
func (r redisSpool) Drop(ctx context.Context, account string, request uuid.UUID) error {
	return r.Cache.Drop(context.WithoutCancel(ctx), account, request)
}

// newRedisSpool is one that knows so much of the account "spoon".
func newRedisSpool(t *testing.T, server *miniredis.Miniredis, spendable string) redisSpool {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), ReadTimeout: time.Minute, PoolTimeout: time.Minute})
	t.Cleanup(func() { client.Close() }) //nolint:errcheck // the test is over
	r := redisSpool{projections.NewCache(client, uuid.MustParse("01234567-89ab-4def-8123-456789abcdef"), testShards)}
	r.know(t, spendable)
	return r
}

func (r redisSpool) know(t *testing.T, spendable string) {
	t.Helper()
	err := r.Put(context.Background(), []projections.Balance{{Account: "spoon", Available: domain.MustAmount(spendable), Position: domain.Position{Seq: 2}}})
	if err != nil {
		t.Fatal(err)
	}
}

// TestSpoolCrash: a gateway that dies between its hold and the journal has charged nothing, and its hold
// ends by itself.
func TestSpoolCrash(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	r := newRedisSpool(t, server, "0.01")
	called, never := make(chan struct{}), make(chan struct{})
	dying := startSpooling(t, options{spool: r, providers: providersOf(&scripted{complete: func(context.Context, provider.Request) (*provider.Completion, error) {
		close(called)
		<-never
		return nil, errors.New("nobody waits for it")
	}})})
	next := &absent{}
	other := startAbsent(t, next, options{spool: r, journal: &spoolJournal{}, share: dying.env, balances: r})
	dying.ledger.set(refusing)
	next.set(refusing)
	go dying.chat("spoon", chatBody("sim-flat", "x", ""))
	<-called
	flat := chatBody("sim-flat", "x", "")
	checkError(t, "held by the dead", other.chat("spoon", flat), 402, "insufficient_quota", "insufficient_quota")
	server.FastForward(24 * time.Hour)
	r.know(t, "0.01")
	if a := other.chat("spoon", flat); a.status != 200 {
		t.Errorf("a day later: %d %s", a.status, a.body)
	}
	if len(dying.journal.spooled()) > 0 || dying.available("spoon") != "100" {
		t.Errorf("the dead spooled %v; %s is left", dying.journal.spooled(), dying.available("spoon"))
	}
	close(never) // so that the test ends
	next.set(there)
	other.gw.Close()
	other.o.journal.(*spoolJournal).drain(t, other.gw)
	dying.recovers()
	if got := dying.available("spoon"); got != "99.99" {
		t.Errorf("%s is left", got)
	}
}

var _ gateway.Balances = redisSpool{}
