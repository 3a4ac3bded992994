package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"llm-gateway/ledger"
)

const (
	testTerm  = 600 * time.Millisecond
	testEvery = 100 * time.Millisecond
	patiently = 20 * time.Second // no test waits longer
)

// openPool connects as the service's role does.
func openPool(t testing.TB, url string, pooled bool) *pgxpool.Pool {
	t.Helper()
	conn, err := ledger.ConnConfig(url, "llm_gateway", pooled)
	if err != nil {
		t.Fatal(err)
	}
	config, err := pgxpool.ParseConfig("")
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig, config.MaxConns = conn, 4
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// eventually waits until what is asked becomes true.
func eventually(t testing.TB, what string, true func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patiently)
	for !true() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%s: not within %s", what, patiently)
		}
	}
}

// referee sees who holds what, and that nobody else does at the same time: whoever begins must find
// the context of the one before him at its end, though that one may not have woken up yet.
type referee struct {
	t  testing.TB
	mu sync.Mutex

	holder map[string]string
	ctx    map[string]context.Context // the holder's
	starts map[string]int             // by holder
}

func newReferee(t testing.TB) *referee {
	return &referee{t: t, holder: map[string]string{}, ctx: map[string]context.Context{}, starts: map[string]int{}}
}

func (r *referee) begin(ctx context.Context, who, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if other, held := r.holder[name]; held && (other == who || r.ctx[name].Err() == nil) {
		r.t.Errorf("%s holds %s while %s does", who, name, other)
	}
	r.holder[name], r.ctx[name] = who, ctx
	r.starts[who]++
}

func (r *referee) end(who, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.holder[name] == who {
		delete(r.holder, name)
	}
}

// holds says how many leases somebody holds.
func (r *referee) holds(who string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, holder := range r.holder {
		if holder == who {
			n++
		}
	}
	return n
}

func (r *referee) started(who string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.starts[who]
}

// hold holds until it is told to end.
func (r *referee) hold(who string) func(ctx context.Context, name string) error {
	return func(ctx context.Context, name string) error {
		r.begin(ctx, who, name)
		defer r.end(who, name)
		<-ctx.Done()
		return context.Cause(ctx)
	}
}

// player is a keeper that runs.
type player struct {
	pool   *faultyPool
	cancel context.CancelFunc
	ended  chan struct{}
}

// play starts a keeper over a pool of its own, of leases of testTerm.
func play(t testing.TB, pool Pool, owner uuid.UUID, names []string, hold func(context.Context, string) error) *player {
	t.Helper()
	return playFor(t, testTerm, pool, owner, names, hold)
}

func playFor(t testing.TB, term time.Duration, pool Pool, owner uuid.UUID, names []string, hold func(context.Context, string) error) *player {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &player{pool: newFaultyPool(pool), cancel: cancel, ended: make(chan struct{})}
	k := &Keeper{Pool: p.pool, Owner: owner, Log: slog.New(slog.DiscardHandler), Term: term, Every: testEvery}
	go func() {
		defer close(p.ended)
		k.Run(ctx, names, hold)
	}()
	t.Cleanup(p.end)
	return p
}

func (p *player) end() {
	p.pool.become(well)
	p.cancel()
	<-p.ended
}

// state is how a pool is.
type state int

const (
	well   state = iota
	broken       // every statement fails at once
	silent       // no statement is answered before its context ends
	frozen       // statements do not even see their context end, until the state changes
)

var errBroken = errors.New("connection refused")

// faultyPool is a pool that can be taken away.
type faultyPool struct {
	Pool

	mu      sync.Mutex
	state   state
	changed chan struct{} // closed when the state changes
	asked   []time.Time   // when statements that succeeded began
	queries int
}

func newFaultyPool(p Pool) *faultyPool { return &faultyPool{Pool: p, changed: make(chan struct{})} }

func (p *faultyPool) become(s state) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = s
	close(p.changed)
	p.changed = make(chan struct{})
}

// pass waits as long as the state says.
func (p *faultyPool) pass(ctx context.Context) error {
	p.mu.Lock()
	state, changed := p.state, p.changed
	p.queries++
	p.mu.Unlock()
	switch state {
	case broken:
		return errBroken
	case silent:
		<-ctx.Done()
		return ctx.Err()
	case frozen:
		<-changed
	}
	return nil
}

func (p *faultyPool) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if err := p.pass(ctx); err != nil {
		return nil, err
	}
	began := time.Now()
	rows, err := p.Pool.Query(ctx, sql, args...)
	if err == nil {
		p.mu.Lock()
		p.asked = append(p.asked, began)
		p.mu.Unlock()
	}
	return rows, err
}

func (p *faultyPool) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if err := p.pass(ctx); err != nil {
		return pgconn.CommandTag{}, err
	}
	return p.Pool.Exec(ctx, sql, args...)
}

// last is when the last statement that succeeded began.
func (p *faultyPool) last() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[len(p.asked)-1]
}

func (p *faultyPool) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queries
}

func names(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprint("relay:cluster:topic:", i))
	}
	return out
}
