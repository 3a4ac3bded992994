package gateway_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"llm-gateway/domain"
	"llm-gateway/gateway"
)

// asking is a Projections that remembers what reads had to include.
type asking struct {
	gateway.Projections

	mu      sync.Mutex
	atLeast []domain.Position
	blind   bool // it has seen no account
}

func (a *asking) ask(at domain.Position) (blind bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.atLeast = append(a.atLeast, at)
	return a.blind && at.Seq == 0
}

// last is what the last read had to include.
func (a *asking) last() domain.Position {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.atLeast[len(a.atLeast)-1]
}

// Balance implements gateway.Projections. Blind, it sees an account only when it is told to wait for it.
func (a *asking) Balance(ctx context.Context, account string, at domain.Position) (*domain.Account, domain.Reading, error) {
	blind := a.ask(at)
	found, r, err := a.Projections.Balance(ctx, account, at)
	if blind {
		found = nil
	}
	return found, r, err
}

// Transactions implements gateway.Projections.
func (a *asking) Transactions(ctx context.Context, account string, limit, offset int, at domain.Position) ([]domain.Transaction, domain.Reading, error) {
	a.ask(at)
	return a.Projections.Transactions(ctx, account, limit, offset, at)
}

// Stats implements gateway.Projections.
func (a *asking) Stats(ctx context.Context, account string, q domain.StatsQuery, at domain.Position) ([]domain.StatsRow, domain.Reading, error) {
	a.ask(at)
	return a.Projections.Stats(ctx, account, q, at)
}

func startAsking(t *testing.T, o options) (*env, *asking) {
	a := &asking{}
	o.views = func(p gateway.Projections) gateway.Projections { a.Projections = p; return a }
	return start(t, o), a
}

// reads are the answers that projections give.
var reads = []string{"/billing/balance", "/billing/transactions", "/billing/stats"}

// TestReadsFollowWrites: what the gateway did to an account is what a read has to include: its opening,
// a settlement whole and streamed, a release.
func TestReadsFollowWrites(t *testing.T) {
	t.Parallel()
	e, views := startAsking(t, options{})
	check := func(what string, want domain.Position) {
		t.Helper()
		for _, path := range reads {
			if a := e.get("mona", path); a.status != 200 || views.last() != want {
				t.Errorf("%s, %s: %d, at least %s, want %s", what, path, a.status, views.last(), want)
			}
		}
	}
	shard := domain.ShardOf("mona", testShards)
	check("opened", domain.Position{Shard: shard, Seq: 2})
	whole := e.chat("mona", chatBody("sim-small", "x", ""))
	at, err := domain.ParsePosition(whole.header.Get("x-billing-position"))
	if err != nil {
		t.Fatal(err)
	}
	check("whole", at)
	streamed := e.post("mona", streamPath, chatBody("sim-small", "x", "")).events(t)
	if at, err = domain.ParsePosition(streamed.bill(t).Get("position").Str); err != nil {
		t.Fatal(err)
	}
	check("streamed", at)
	e.chat("mona", chatBody("sim-small", "sim:status=500", ""))
	check("released", domain.Position{Shard: shard, Seq: at.Seq + 2})
	e.chat("mona", chatBody("no-such-model", "x", ""))
	e.credit("mona", "1") // behind the gateway's back
	check("nothing more", domain.Position{Shard: shard, Seq: at.Seq + 2})
}

func TestPositionAskedFor(t *testing.T) {
	t.Parallel()
	e, views := startAsking(t, options{})
	e.get("nils", "/v1/models")
	own := domain.Position{Shard: domain.ShardOf("nils", testShards), Seq: 2}
	other := own.Shard + 1
	get := func(path, position string) answer {
		r := e.request(http.MethodGet, "nils", path, "")
		r.Header.Set("x-billing-position", position)
		return e.do(r)
	}
	for position, want := range map[domain.Position]domain.Position{
		{Shard: own.Shard, Seq: 1}: own, own: own,
		{Shard: own.Shard, Seq: 3}:         {Shard: own.Shard, Seq: 3},
		{Shard: other, Seq: 9}:             own,
		{Shard: own.Shard, Seq: 1<<63 - 1}: {Shard: own.Shard, Seq: 1<<63 - 1},
		{Shard: 1<<31 - 1, Seq: 1<<63 - 1}: own,
	} {
		for _, path := range reads {
			if a := get(path, position.String()); a.status != 200 || views.last() != want {
				t.Errorf("%s, %s: %d, at least %s, want %s", path, position, a.status, views.last(), want)
			}
		}
	}
	for _, position := range []string{"x", "1", ":", "1:", ":1", "1:0", "-1:1", "1:-1", "01:1", "1:1 ,2:2", "1:1:1", "1:9223372036854775808", "2147483648:1",
		"1:1e3", strings.Repeat("1", 5000)} {
		for _, path := range reads {
			a := get(path, position)
			checkError(t, position, a, 400, "invalid_request_error", "invalid_value")
			if a.json("error.param").Str != "x-billing-position" {
				t.Errorf("%s, %.20q: %s", path, position, a.body)
			}
		}
	}
	again, views := startAsking(t, options{share: e}) // it has done nothing for the account
	far := domain.Position{Shard: other, Seq: 9}
	r := again.request(http.MethodGet, "nils", "/billing/balance", "")
	r.Header.Set("x-billing-position", far.String())
	if a := again.do(r); a.status != 200 || views.last() != far {
		t.Errorf("of another gateway: %d, at least %s", a.status, views.last())
	}
	if a := get("/v1/models", "x"); a.status != 200 {
		t.Errorf("where nothing is read by position: %d", a.status)
	}
}

// TestReadsBehind: while the projector stands still, reads say what it knew, as of when, and how far
// behind that is.
func TestReadsBehind(t *testing.T) {
	t.Parallel()
	now := &clock{at: time.Now().Add(time.Hour)}
	e := start(t, options{now: now.now})
	e.chat("olga", chatBody("sim-flat", "x", ""))
	current := e.get("olga", "/billing/balance")
	at := time.Now()
	if got := current.json("as_of").Time(); !got.Equal(domain.EventTime(now.now())) || current.json("behind").Raw != "0" || current.header.Get("x-billing-behind") != "" {
		t.Errorf("current: %s, %v", current.body, current.header)
	}
	e.views.setStopped(true)
	e.chat("olga", chatBody("sim-flat", "x", ""))
	for _, path := range reads {
		a := e.get("olga", path)
		asOf := a.json("as_of").Time()
		if a.status != 200 || a.json("behind").Raw != "2" || a.header.Get("x-billing-behind") != "2" ||
			a.json("position").Str != current.json("position").Str || asOf.After(at) || at.Sub(asOf) > time.Minute {
			t.Errorf("%s behind: %d %s %v", path, a.status, a.body, a.header)
		}
	}
	if a := e.get("olga", "/billing/balance"); a.json("balance").Raw != "99.99" {
		t.Errorf("the balance has moved: %s", a.body)
	}
	e.views.setStopped(false)
	if a := e.get("olga", "/billing/balance"); a.json("balance").Raw != "99.98" || a.json("behind").Raw != "0" {
		t.Errorf("afterwards: %s", a.body)
	}
}

// TestReadsBeforeTheFirstEvent: a projection that has never heard of an open account says that it is
// behind, not that there is no such account.
func TestReadsBeforeTheFirstEvent(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	e.views.setStopped(true)
	if a := e.chat("pia", chatBody("sim-flat", "x", "")); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	a := e.get("pia", "/billing/balance")
	checkError(t, "no row", a, 503, "service_unavailable", "projection_behind")
	if a.header.Get("Retry-After") == "" || a.header.Get("x-billing-behind") != "4" {
		t.Errorf("%v", a.header)
	}
	for path, empty := range map[string]string{"/billing/transactions": "transactions", "/billing/stats": "data"} {
		a := e.get("pia", path)
		if a.status != 200 || a.json(empty).Raw != "[]" || a.json("position").Raw != "null" || a.json("as_of").Raw != "null" || a.json("behind").Raw != "4" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	e.views.setStopped(false)
	if a := e.get("pia", "/billing/balance"); a.status != 200 || a.json("balance").Raw != "99.99" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestAccountOpenedElsewhere: an account that another gateway opened is waited for as one of our own.
func TestAccountOpenedElsewhere(t *testing.T) {
	t.Parallel()
	e := start(t, options{balance: "7"})
	e.chat("rudi", chatBody("sim-flat", "x", ""))
	other, views := startAsking(t, options{balance: "7", share: e})
	views.blind = true
	a := other.get("rudi", "/billing/balance")
	want := domain.Position{Shard: domain.ShardOf("rudi", testShards), Seq: e.account("rudi").LastSeq}
	if a.status != 200 || a.json("balance").Raw != "6.99" || views.last() != want {
		t.Errorf("%d %s, waited for %s; want %s", a.status, a.body, views.last(), want)
	}
}
