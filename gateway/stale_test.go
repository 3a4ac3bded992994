package gateway_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"llm-gateway/domain"
)

// TestStaleBalance: while the ledger is away, whether or not calls go on, a balance is what the cache knew
// last, to the last digit, and marked; where it knows none, nobody guesses.
func TestStaleBalance(t *testing.T) {
	t.Parallel()
	const fresh = `{"user_id":"spoon","balance":100,"reserved":0,"currency":"USD","as_of":"TIME","position":"POSITION","behind":0}`
	for mode, o := range map[string]options{"deny": {}, "spool": {journal: &spoolJournal{}, spool: knows("1")}} {
		for _, c := range []struct {
			name   string
			known  domain.CachedBalance
			is     bool
			err    error
			status int
			body   string
		}{
			{"known", domain.CachedBalance{Available: domain.MustAmount("12345678901234567890123456.000000000001"), Reserved: domain.MustAmount("0.00000015"),
				Position: domain.Position{Shard: 3, Seq: 17}}, true, nil, 200,
				`{"user_id":"spoon","balance":12345678901234567890123456.000000000001,"reserved":0.00000015,"currency":"USD","stale":true,"as_of":null,"position":"POSITION","behind":null}`},
			{"below nothing, of before any event", domain.CachedBalance{Available: domain.MustAmount("-2.5"), Spendable: domain.MustAmount("7.5"), Frozen: true}, true, nil, 200,
				`{"user_id":"spoon","balance":-2.5,"reserved":0,"currency":"USD","stale":true,"as_of":null,"position":null,"behind":null}`},
			{"unknown", domain.CachedBalance{}, false, nil, 503, ""},
			{"the cache is away", domain.CachedBalance{}, true, errAway, 503, ""},
		} {
			a, known := &absent{}, &cache{}
			o.balances = known
			e := startAbsent(t, a, o)
			known.set(func(context.Context, string) (domain.CachedBalance, bool, error) { return c.known, c.is, c.err })
			name := mode + ", " + c.name
			e.wantBalance(name+", while it is there", 200, fresh)
			a.set(refusing)
			e.wantBalance(name, c.status, c.body)
			for _, path := range []string{"/billing/transactions", "/billing/stats"} {
				checkError(t, path, e.get("spoon", path), 503, "service_unavailable", "ledger_unavailable")
			}
			a.set(there)
			e.wantBalance(name+", when it is back", 200, fresh)
		}
	}
}

// wantBalance reads a balance, whatever it is asked to include.
func (e *env) wantBalance(name string, status int, body string) {
	e.t.Helper()
	for _, position := range []string{"", "3:99"} {
		r := e.request("GET", "spoon", "/billing/balance", "")
		if position != "" {
			r.Header.Set("x-billing-position", position)
		}
		got := e.do(r)
		if status == 503 {
			checkError(e.t, name, got, 503, "service_unavailable", "ledger_unavailable")
		} else if got.status != status || masked(got.body) != body || got.header.Get("x-billing-behind") != "" {
			e.t.Errorf("%s: %d %s, want %s", name, got.status, got.body, body)
		}
	}
}

// TestStaleBalanceInTime: nobody waits long for a ledger that does not answer, and not at all where that is
// known; a cache that does not answer either is given up, too.
func TestStaleBalanceInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		known := &cache{}
		a := &absent{}
		e := startAbsent(t, a, options{balances: known}, newPipes())
		known.says("1", false)
		a.set(silent)
		read := func(name string, status int, most time.Duration) {
			t.Helper()
			began := time.Now()
			if got := e.get(name, "/billing/balance"); got.status != status || time.Since(began) != most {
				t.Errorf("%s: %d after %s, want %d after %s: %s", name, got.status, time.Since(began), status, most, got.body)
			}
		}
		read("spoon", 200, 3*time.Second) // the projection is waited for
		read("fork", 200, 3*time.Second)  // whether it is open is; then it is known that nobody answers
		read("fork", 200, 0)
		read("spoon", 200, 0)
		<-time.After(time.Second)
		read("spoon", 200, 3*time.Second)
		known.set(func(ctx context.Context, _ string) (domain.CachedBalance, bool, error) {
			<-ctx.Done()
			return domain.CachedBalance{}, false, ctx.Err()
		})
		read("spoon", 503, 3500*time.Millisecond)
	})
}

// TestStaleAfterSpooling: what was spooled is not in the balance that Redis knew; when it is booked it is.
func TestStaleAfterSpooling(t *testing.T) {
	t.Parallel()
	known := &cache{}
	s := startSpooling(t, options{balances: known})
	known.set(func(context.Context, string) (domain.CachedBalance, bool, error) {
		return domain.CachedBalance{Spendable: domain.MustAmount("100"), Available: domain.MustAmount("100"), Position: domain.Position{Shard: 1, Seq: 2}}, true, nil
	})
	s.holds.Know("spoon", "100", false)
	s.ledger.set(refusing)
	a := s.chat("spoon", chatBody("sim-flat", "x", ""))
	if got := s.get("spoon", "/billing/balance"); got.json("balance").Raw != "100" || got.json("stale").Raw != "true" || got.json("position").Str != "1:2" {
		t.Errorf("spooled: %s", got.body)
	}
	s.ledger.set(there)
	checkError(t, "not booked yet", s.get("spoon", "/billing/requests/"+a.id().String()), 404, "invalid_request_error", "request_not_found")
	s.recovers()
	if got := s.get("spoon", "/billing/balance"); got.json("balance").Raw != "99.99" || got.json("stale").Exists() {
		t.Errorf("booked: %s", got.body)
	}
	if got := s.get("spoon", "/billing/requests/"+a.id().String()); got.json("state").Str != "settled" || got.json("charged").Str != "0.01" {
		t.Errorf("booked: %s", got.body)
	}
}
