package gateway_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/gateway"
)

// faults lets the n-th call of all that is kept somewhere fail, from 1, whatever it is.
type faults struct {
	n     int
	after bool // what it asked for has happened all the same

	mu     sync.Mutex
	paused bool // nothing counts
	calls  []string
}

// pause lets nothing count, or everything again.
func (f *faults) pause(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.paused = on
}

// hit counts a call, and says whether it is the one.
func (f *faults) hit(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.paused {
		return false
	}
	f.calls = append(f.calls, name)
	return len(f.calls) == f.n
}

// struck is the call that failed, "" where none has.
func (f *faults) struck() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.calls) < f.n {
		return ""
	}
	return f.calls[f.n-1]
}

// faultyLedger is a ledger with faults. It refuses, if it is stubborn, each settlement when it is first asked
// for it, so that the journal has its turn.
type faultyLedger struct {
	gateway.Ledger
	f        *faults
	stubborn bool
	mu       sync.Mutex
	refused  map[uuid.UUID]bool
}

// Append implements gateway.Ledger.
func (l *faultyLedger) Append(ctx context.Context, c domain.Command) (domain.Outcome, error) {
	switch c.Op.(type) {
	case domain.Settle, domain.Release:
		l.mu.Lock()
		first := !l.refused[c.ID]
		l.refused[c.ID] = true
		l.mu.Unlock()
		if l.stubborn && first {
			return domain.Outcome{}, domain.ErrUnavailable
		}
	}
	if !l.f.hit(fmt.Sprintf("Append %T", c.Op)) {
		return l.Ledger.Append(ctx, c)
	}
	if l.f.after {
		if _, err := l.Ledger.Append(ctx, c); err != nil {
			return domain.Outcome{}, err
		}
	}
	return domain.Outcome{}, domain.ErrUnavailable
}

// faultyFacts are Facts with faults.
type faultyFacts struct {
	gateway.Facts
	f *faults
}

// Account implements gateway.Facts.
func (s *faultyFacts) Account(ctx context.Context, name string) (*domain.Account, error) {
	if s.f.hit("Account") {
		return nil, errAway
	}
	return s.Facts.Account(ctx, name)
}

// Request implements gateway.Facts.
func (s *faultyFacts) Request(ctx context.Context, account string, id uuid.UUID) ([]domain.Recorded, error) {
	if s.f.hit("Request") {
		return nil, errAway
	}
	return s.Facts.Request(ctx, account, id)
}

// Witnessed implements gateway.Facts.
func (s *faultyFacts) Witnessed(ctx context.Context, account string, id uuid.UUID) ([]domain.Witnessed, error) {
	if s.f.hit("Witnessed") {
		return nil, errAway
	}
	return s.Facts.Witnessed(ctx, account, id)
}

// BalanceAt implements gateway.Facts.
func (s *faultyFacts) BalanceAt(ctx context.Context, account string, at time.Time) (domain.Past, error) {
	if s.f.hit("BalanceAt") {
		return domain.Past{}, errAway
	}
	return s.Facts.BalanceAt(ctx, account, at)
}

// Response implements gateway.Facts.
func (s *faultyFacts) Response(ctx context.Context, account string, id uuid.UUID) (*domain.Response, error) {
	if s.f.hit("Response") {
		return nil, errAway
	}
	return s.Facts.Response(ctx, account, id)
}

// faultyViews are Projections with faults.
type faultyViews struct {
	gateway.Projections
	f *faults
}

// Balance implements gateway.Projections.
func (s *faultyViews) Balance(ctx context.Context, account string, at domain.Position) (*domain.Account, domain.Reading, error) {
	if s.f.hit("Balance") {
		return nil, domain.Reading{}, errAway
	}
	return s.Projections.Balance(ctx, account, at)
}

// Transactions implements gateway.Projections.
func (s *faultyViews) Transactions(ctx context.Context, account string, limit, offset int, at domain.Position) ([]domain.Transaction, domain.Reading, error) {
	if s.f.hit("Transactions") {
		return nil, domain.Reading{}, errAway
	}
	return s.Projections.Transactions(ctx, account, limit, offset, at)
}

// Stats implements gateway.Projections.
func (s *faultyViews) Stats(ctx context.Context, account string, q domain.StatsQuery, at domain.Position) ([]domain.StatsRow, domain.Reading, error) {
	if s.f.hit("Stats") {
		return nil, domain.Reading{}, errAway
	}
	return s.Projections.Stats(ctx, account, q, at)
}

// faulty are the options of a gateway all of whose stores have faults. Its cache says no, so that the
// ledger's own head is read, which says yes.
func (f *faults) faulty(stubborn bool) options {
	balances, n := &cache{}, &notebook{}
	balances.set(func(context.Context, string) (domain.CachedBalance, bool, error) {
		if f.hit("cached Balance") {
			return domain.CachedBalance{}, false, errAway
		}
		return domain.CachedBalance{}, true, nil
	})
	n.fails = func() bool { return f.hit("Put") }
	n.torn = f.after
	return options{balances: balances, journal: n,
		wrap: func(l gateway.Ledger) gateway.Ledger {
			return &faultyLedger{Ledger: l, f: f, stubborn: stubborn, refused: map[uuid.UUID]bool{}}
		},
		facts: func(s gateway.Facts) gateway.Facts { return &faultyFacts{s, f} },
		views: func(s gateway.Projections) gateway.Projections { return &faultyViews{s, f} }}
}

// nthCase is a life of a request, and what of it must be in the ledger.
type nthCase struct {
	name, path, prompt, key, life string
	kept                          bool // the answer has been kept
}

// TestFailsAtTheNthCall lets every call of a store in the life of a request fail in turn, whichever it is,
// before or after it has happened, until a life passes clean. Whatever fails, the invariants hold: who
// has a whole answer was charged for it, what was not answered was not charged, nothing stays reserved (the
// audit looks), and a request with a key happens once. With guards, nothing of them stays taken either.
func TestFailsAtTheNthCall(t *testing.T) {
	t.Parallel()
	for _, c := range []nthCase{
		{"whole", chatPath, "x", "", "reserve commit(provider) refund(remainder)", false},
		{"streamed", streamPath, "x", "", "reserve commit(provider) refund(remainder)", false},
		{"cut", streamPath, "sim:tokens=9 sim:cut=4", "", "reserve commit(counted) refund(remainder)", false},
		{"refused", chatPath, "sim:status=500", "", "reserve refund(provider_error)", false},
		{"whole, with a key", chatPath, "x", "k", "reserve commit(provider) refund(remainder)", false},
		{"streamed, with a key", streamPath, "x", "k", "reserve commit(provider) refund(remainder)", false},
	} {
		for _, guarded := range []string{"", "guarded", "guarded and kept"} {
			if guarded == "guarded and kept" && c.prompt != "x" {
				continue // it is never kept
			}
			c.kept = guarded == "guarded and kept"
			t.Run(c.name+" "+guarded, func(t *testing.T) {
				t.Parallel()
				for _, stubborn := range []bool{false, true} {
					for _, after := range []bool{false, true} {
						failsAtEachCall(t, c, guarded, stubborn, after)
					}
				}
			})
		}
	}
}

// failsAtEachCall lives a life until nothing fails in it.
func failsAtEachCall(t *testing.T, c nthCase, guarded string, stubborn, after bool) {
	struck := map[string]bool{}
	for n := 1; n == 1 || !struck[""]; n++ {
		f := &faults{n: n, after: after}
		g := &guards{f: f, primed: c.kept}
		watched, providers := watchedSimulated()
		o := f.faulty(stubborn)
		o.providers = providers
		if guarded != "" {
			o.more = g.around
		}
		bubble(t, o, func(t *testing.T, e *env) {
			name := fmt.Sprintf("%s, %s, stubborn: %t, after: %t, call %d", c.name, guarded, stubborn, after, n)
			body := chatBody("sim-small", c.prompt, "")
			if guarded == "" {
				e.live(name, c, body, watched.count)
			} else {
				g.begin(e, c.path, body, func() { <-time.After(guardRecovery) })
				before := watched.count()
				e.live(name, c, body, func() int { return watched.count() - before })
				synctest.Wait()
				g.released(e, name+" "+f.struck(), "nelly")
			}
			struck[f.struck()] = true
		})
	}
	want := []string{"Account", "Append domain.Open", "Append domain.Reserve", "Balance", "Transactions", "Stats", "Witnessed", "BalanceAt"}
	if stubborn {
		want = append(want, "Put")
	}
	switch {
	case guarded != "":
		want = append(want, "Admit", "Adjust", "kept Get")
	case c.key == "":
		want = append(want, "cached Balance")
	}
	if c.key != "" {
		want = append(want, "Request", "Response")
	}
	for _, call := range want {
		if !struck[call] && (call != "Account" || c.key == "") {
			t.Errorf("%s, %s: no %s failed: %v", c.name, guarded, call, struck)
		}
	}
}

// live lets an account do everything: a request, its repeat if it has a key, and reading. It checks the
// invariants after each.
func (e *env) live(name string, c nthCase, body string, calls func() int) {
	e.t.Helper()
	ask := func() answer {
		if c.key == "" {
			return e.post("nelly", c.path, body)
		}
		return e.ask("nelly", c.key, c.path, body)
	}
	first := ask()
	synctest.Wait() // what is undone behind the client's back
	e.drain()
	e.checkMoney(name, first, c.life, calls())
	if c.key != "" {
		ask()
		synctest.Wait()
		e.drain()
		last := ask()
		if last.status != 200 { // only one call fails
			last = ask()
		}
		if last.status != 200 || last.header.Get("idempotent-replayed") != "true" || calls() > 1 || calls() == 0 && !c.kept || e.charges("nelly") != 1 {
			e.t.Errorf("%s: at last %d %s, %d calls, %d charges", name, last.status, last.body, calls(), e.charges("nelly"))
		}
	}
	for _, p := range append([]string{"/billing/requests/" + first.id().String(), "/billing/balance?at=2000-01-01T00:00:00Z"}, reads...) {
		a, b := e.get("nelly", p), e.get("nelly", p)
		if a.status != 200 && b.status != 200 && first.id() != uuid.Nil {
			e.t.Errorf("%s: %s fails twice: %d %s, %d %s", name, p, a.status, a.body, b.status, b.body)
		}
	}
}

// checkMoney: the client and the ledger tell the same of the one request that there was.
func (e *env) checkMoney(name string, a answer, want string, calls int) {
	e.t.Helper()
	var l life
	for _, id := range e.asked.reserved("nelly") {
		l = e.life("nelly", id)
	}
	whole := a.status == 200 && (a.header.Get("x-billing-cost") != "" || a.header.Get("Content-Type") != "application/json" && a.events(e.t).done)
	switch {
	case l.String() != want && l.String() != "" && l.String() != "reserve refund(internal_error)":
		e.t.Errorf("%s: %q", name, l)
	case whole && l.commit == nil:
		e.t.Errorf("%s: it was free: %q", name, l)
	case a.status != 200 && l.commit != nil:
		e.t.Errorf("%s: charged for %d %s", name, a.status, a.body)
	case calls != 0 && l.String() != want, calls > 1:
		e.t.Errorf("%s: %d calls of the provider, and %q", name, calls, l)
	}
}

// quiet is a server that does not log the panics that reach it.
func quiet(h http.Handler) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	return s
}

// TestPanicsAnywhere lets the clock panic at its n-th reading, for every n: wherever a request is then, it
// leaves nothing reserved, and with guards nothing of them taken.
func TestPanicsAnywhere(t *testing.T) {
	t.Parallel()
	for _, path := range []string{chatPath, streamPath} {
		for _, guarded := range []string{"", "guarded", "guarded and kept"} {
			t.Run(path+" "+guarded, func(t *testing.T) {
				t.Parallel()
				for n, fired := 1, true; fired; n++ {
					fired = panicsAt(t, path, guarded, n)
				}
			})
		}
	}
}

// panicsAt lives a life whose n-th reading of the clock panics, and says whether there was one.
func panicsAt(t *testing.T, path, guarded string, n int) (fired bool) {
	f := &faults{n: n}
	var later atomic.Int64
	now := func() time.Time {
		if f.hit("clock") {
			panic("a defect")
		}
		return time.Now().Add(time.Duration(later.Load()))
	}
	o, g, body, before := options{now: now, listen: quiet}, &guards{f: &faults{}, primed: guarded == "guarded and kept"}, chatBody("sim-small", "x", ""), 0
	if guarded != "" {
		o.more = g.around
	}
	f.pause(true)
	e := start(t, o)
	if guarded != "" {
		before = g.begin(e, path, body, func() { later.Add(int64(guardRecovery)) })
		e.await(before)
	}
	f.pause(false)
	response, err := e.client.Do(e.request(http.MethodPost, "otto", path, body))
	if err == nil {
		response.Body.Close() //nolint:errcheck // whatever it says
	}
	e.await(before + 1)
	fired = f.struck() != ""
	f.pause(true)
	e.gw.Close()
	for _, id := range e.asked.reserved("otto") {
		if l := e.life("otto", id); l.commit == nil && l.refund == nil {
			t.Errorf("%s %s, panic %d: %q", path, guarded, n, l)
		}
	}
	if guarded != "" {
		g.free(e, fmt.Sprintf("%s %s, panic %d", path, guarded, n), now())
	}
	return fired
}
