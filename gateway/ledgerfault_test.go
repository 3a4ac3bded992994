package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/gateway"
)

// failing is a ledger whose n-th Append fails, from 1, before or after it has happened.
type failing struct {
	gateway.Ledger
	n     int
	after bool
	err   error

	mu    sync.Mutex
	calls int
}

// Append implements gateway.Ledger.
func (f *failing) Append(ctx context.Context, c domain.Command) (domain.Outcome, error) {
	f.mu.Lock()
	f.calls++
	hit := f.calls == f.n
	f.mu.Unlock()
	switch {
	case hit && f.after:
		if _, err := f.Ledger.Append(ctx, c); err != nil {
			return domain.Outcome{}, err
		}
		return domain.Outcome{}, f.err
	case hit:
		return domain.Outcome{}, f.err
	}
	return f.Ledger.Append(ctx, c)
}

func (f *failing) fired() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls >= f.n
}

// TestLedgerFailsAtTheNthAppend lets every Append of a request's life fail in turn, until one passes
// clean: opening the account, reserve, settlement or release. No money is left reserved, with a journal
// and without.
func TestLedgerFailsAtTheNthAppend(t *testing.T) {
	t.Parallel()
	const settled = "reserve commit(provider) refund(remainder)"
	const undone, refused, cut = "reserve refund(internal_error)", "reserve refund(provider_error)", "reserve commit(counted) refund(remainder)"
	for _, c := range []struct {
		name, path, prompt string
		after              bool
		lives              []string // by N: open, reserve, settle or release, then clean
	}{
		{"whole, before", chatPath, "x", false, []string{"", "", settled, settled}},
		{"whole, after", chatPath, "x", true, []string{"", undone, settled, settled}},
		{"streamed, before", streamPath, "x", false, []string{"", "", settled, settled}},
		{"streamed, after", streamPath, "x", true, []string{"", undone, settled, settled}},
		{"refused, before", chatPath, "sim:status=500", false, []string{"", "", refused, refused}},
		{"refused, after", streamPath, "sim:status=500", true, []string{"", undone, refused, refused}},
		{"cut, before", streamPath, "sim:tokens=9 sim:cut=4", false, []string{"", "", cut, cut}},
	} {
		for _, fault := range []error{domain.ErrUnavailable, context.DeadlineExceeded, errors.New("connection reset")} {
			for i, want := range c.lives {
				for _, journal := range []*notebook{nil, {}} {
					f := &failing{n: i + 1, after: c.after, err: fault}
					e := start(t, options{wrap: func(l gateway.Ledger) gateway.Ledger { f.Ledger = l; return f }, journal: journal})
					name := fmt.Sprintf("%s, %v at %d, journal: %t", c.name, fault, i+1, journal != nil)
					a := e.post("cora", c.path, chatBody("sim-small", c.prompt, ""))
					e.gw.Close() // what goes on behind the client's back
					if clean := !f.fired(); clean != (i == len(c.lives)-1) {
						t.Fatalf("%s: fired: %t", name, !clean)
					}
					e.drain()
					var l life
					for _, id := range e.asked.reserved("cora") {
						l = e.life("cora", id)
					}
					if l.String() != want {
						t.Errorf("%s: %q, want %q", name, l, want)
					}
					checkAnswered(t, name, c.prompt, i, a)
				}
			}
		}
	}
}

// checkAnswered: before its reserve a request fails; what ends it later is made durable one way or the
// other, and the answer is what it would have been.
func checkAnswered(t *testing.T, name, prompt string, step int, a answer) {
	t.Helper()
	switch {
	case step < 2:
		checkError(t, name, a, http.StatusServiceUnavailable, "service_unavailable", "ledger_unavailable")
		if a.header.Get("Retry-After") == "" || a.header.Get("x-billing-cost") != "" {
			t.Errorf("%s: %v", name, a.header)
		}
	case strings.HasPrefix(prompt, "sim:status"):
		checkError(t, name, a, http.StatusBadGateway, "upstream_error", "upstream_error")
	case a.status != http.StatusOK:
		t.Errorf("%s: %d %s", name, a.status, a.body)
	}
}

func TestLedgerOverloaded(t *testing.T) {
	t.Parallel()
	f := &failing{n: 2, err: domain.ErrOverloaded}
	e := start(t, options{wrap: func(l gateway.Ledger) gateway.Ledger { f.Ledger = l; return f }})
	a := e.chat("dirk", chatBody("sim-small", "x", ""))
	checkError(t, "overloaded", a, 503, "service_unavailable", "overloaded")
	if e.gw.Close(); f.calls != 2 {
		t.Errorf("%d appends; nothing had happened that needed undoing", f.calls)
	}
	if a := e.chat("dirk", chatBody("sim-small", "x", "")); a.status != 200 {
		t.Errorf("afterwards %d %s", a.status, a.body)
	}
}

// late is a ledger that handles its commands in order, each of them some time after the one before.
type late struct {
	gateway.Ledger
	by   time.Duration
	last chan struct{} // closed when the command before has been handled
	mu   sync.Mutex
}

// Append implements gateway.Ledger.
func (l *late) Append(ctx context.Context, c domain.Command) (domain.Outcome, error) {
	type result struct {
		out domain.Outcome
		err error
	}
	answered, handled := make(chan result, 1), make(chan struct{})
	l.mu.Lock()
	before := l.last
	l.last = handled
	l.mu.Unlock()
	go func() {
		defer close(handled)
		if before != nil {
			<-before
		}
		<-time.After(l.by)
		out, err := l.Ledger.Append(context.Background(), c)
		answered <- result{out, err}
	}()
	select {
	case r := <-answered:
		return r.out, r.err
	case <-ctx.Done():
		return domain.Outcome{}, ctx.Err()
	}
}

// TestLedgerThatAnswersLate: a reserve that takes too long is a 503 in bounded time, and is undone
// when it happens after all; a settlement is waited for longer than a client would.
func TestLedgerThatAnswersLate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		by     time.Duration
		status int
		took   time.Duration
		life   string
	}{
		{2 * time.Second, 200, 4 * time.Second, "reserve commit(provider) refund(remainder)"},
		{7 * time.Second, 503, 3 * time.Second, "reserve refund(internal_error)"},
	} {
		synctest.Test(t, func(t *testing.T) {
			p, slow := newPipes(), &late{by: c.by}
			e := start(t, options{listen: p.listen, wrap: func(l gateway.Ledger) gateway.Ledger { slow.Ledger = l; return slow }})
			e.append("edda", domain.Open{Grant: domain.MustAmount("100"), Actor: "test"})
			e.client = p.client()
			began := time.Now()
			a := e.chat("edda", chatBody("sim-small", "x", ""))
			took := time.Since(began)
			e.gw.Close()
			var l life
			for _, id := range e.asked.reserved("edda") {
				l = e.life("edda", id)
			}
			if a.status != c.status || took != c.took || l.String() != c.life {
				t.Errorf("%s late: %d after %s, %q: %s", c.by, a.status, took, l, a.body)
			}
		})
	}
}

// client talks to the listener's server, one connection per request.
func (p *pipes) client() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return p.dial(), nil }}}
}

// switched are Facts and Projections that fail while away is set; the test sets it between requests.
type switched struct {
	gateway.Facts
	gateway.Projections
	away *bool
}

var errAway = errors.New("dial tcp 10.0.0.7:5432: connection refused")

func (s *switched) fails() error {
	if *s.away {
		return errAway
	}
	return nil
}

// Account implements gateway.Facts.
func (s *switched) Account(ctx context.Context, name string) (*domain.Account, error) {
	if err := s.fails(); err != nil {
		return nil, err
	}
	return s.Facts.Account(ctx, name)
}

// Request implements gateway.Facts.
func (s *switched) Request(ctx context.Context, account string, id uuid.UUID) ([]domain.Recorded, error) {
	if err := s.fails(); err != nil {
		return nil, err
	}
	return s.Facts.Request(ctx, account, id)
}

// Witnessed implements gateway.Facts.
func (s *switched) Witnessed(ctx context.Context, account string, id uuid.UUID) ([]domain.Witnessed, error) {
	if err := s.fails(); err != nil {
		return nil, err
	}
	return s.Facts.Witnessed(ctx, account, id)
}

// BalanceAt implements gateway.Facts.
func (s *switched) BalanceAt(ctx context.Context, account string, at time.Time) (domain.Past, error) {
	if err := s.fails(); err != nil {
		return domain.Past{}, err
	}
	return s.Facts.BalanceAt(ctx, account, at)
}

// Response implements gateway.Facts.
func (s *switched) Response(ctx context.Context, account string, id uuid.UUID) (*domain.Response, error) {
	if err := s.fails(); err != nil {
		return nil, err
	}
	return s.Facts.Response(ctx, account, id)
}

// Balance implements gateway.Projections.
func (s *switched) Balance(ctx context.Context, account string, at domain.Position) (*domain.Account, domain.Reading, error) {
	if err := s.fails(); err != nil {
		return nil, domain.Reading{}, err
	}
	return s.Projections.Balance(ctx, account, at)
}

// Transactions implements gateway.Projections.
func (s *switched) Transactions(ctx context.Context, account string, limit, offset int, at domain.Position) ([]domain.Transaction, domain.Reading, error) {
	if err := s.fails(); err != nil {
		return nil, domain.Reading{}, err
	}
	return s.Projections.Transactions(ctx, account, limit, offset, at)
}

// Stats implements gateway.Projections.
func (s *switched) Stats(ctx context.Context, account string, q domain.StatsQuery, at domain.Position) ([]domain.StatsRow, domain.Reading, error) {
	if err := s.fails(); err != nil {
		return nil, domain.Reading{}, err
	}
	return s.Projections.Stats(ctx, account, q, at)
}

func TestReadingAway(t *testing.T) {
	t.Parallel()
	var away bool
	e := start(t, options{
		facts: func(f gateway.Facts) gateway.Facts { return &switched{Facts: f, away: &away} },
		views: func(p gateway.Projections) gateway.Projections { return &switched{Projections: p, away: &away} },
		ready: func(context.Context) error { return errors.New("the database is away") },
	})
	id := e.chat("finn", chatBody("sim-small", "x", "")).id()
	away = true
	for _, path := range []string{"/billing/balance", "/billing/transactions", "/billing/stats", "/billing/requests/" + id.String(),
		"/billing/balance?at=2026-01-01T00:00:00Z"} {
		for _, account := range []string{"finn", "new-one"} {
			a := e.get(account, path)
			checkError(t, path, a, 503, "service_unavailable", "ledger_unavailable")
			if strings.Contains(a.body, "10.0.0.7") || strings.Contains(a.body, "nothing was sent") || a.header.Get("Retry-After") == "" {
				t.Errorf("%s: %s", path, a.body)
			}
		}
	}
	if a := e.get("", "/ready"); a.status != 503 || a.json("reason").Str != "the database is away" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := e.get("", "/health"); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
}
