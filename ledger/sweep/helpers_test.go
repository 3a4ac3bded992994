package sweep

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"llm-gateway/domain"
	"llm-gateway/ledger"
	"llm-gateway/ledger/lease"
	"llm-gateway/migrations/pgtest"
)

const patiently = 30 * time.Second // no test waits longer

// The times of the tests on Postgres: as the real ones to each other, but short. A machine that is slow
// makes counts start anew, and costs a test time, not truth.
var (
	quickOwner = ownerTimes{term: 1200 * time.Millisecond, every: 100 * time.Millisecond, retry: 10 * time.Millisecond, start: patiently}
	quick      = times{
		term: 1200 * time.Millisecond, every: 40 * time.Millisecond, look: 400 * time.Millisecond, gap: 600 * time.Millisecond, jump: 300 * time.Millisecond,
		act: 400 * time.Millisecond, append: time.Second, tidyEvery: time.Hour, tidyPause: time.Millisecond, tidy: time.Second,
	}
)

const (
	quickLease = 700 * time.Millisecond // the sweeper's
	quickRenew = 100 * time.Millisecond
)

// postgresLedger makes a ledger in a schema of its own.
func postgresLedger(t testing.TB) (*ledger.Postgres, string) {
	t.Helper()
	url := pgtest.URL(t)
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.Init(t.Context(), config, uuid.New(), 4, "USD"); err != nil {
		t.Fatal(err)
	}
	return openLedger(t, url), url
}

// openLedger is another process's writer to the same ledger.
func openLedger(t testing.TB, url string) *ledger.Postgres {
	t.Helper()
	l, err := ledger.Open(t.Context(), ledger.Config{URL: url, Role: ledger.ServiceRole, Shards: 4, Currency: "USD"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// openPool connects as the service's role does.
func openPool(t testing.TB, url string, pooled bool) *pgxpool.Pool {
	t.Helper()
	conn, err := ledger.ConnConfig(url, ledger.ServiceRole, pooled)
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

// asOwner connects as the owner of the tables.
func asOwner(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func mustExec(t testing.TB, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func queryInt(t testing.TB, conn *pgx.Conn, sql string, args ...any) (n int64) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func mustAppend(t testing.TB, l Ledger, account string, op domain.Op) domain.Outcome {
	t.Helper()
	out, err := l.Append(context.Background(), command(account, op))
	if err != nil {
		t.Fatalf("%T on %s: %v", op, account, err)
	}
	return out
}

func command(account string, op domain.Op) domain.Command {
	return domain.Command{ID: domain.CommandID(uuid.Must(uuid.NewV7())), Account: account, Op: op}
}

// reserve opens an account, and a reservation of an owner.
func reserve(t testing.TB, l Ledger, account string, owner uuid.UUID, amount string) uuid.UUID {
	t.Helper()
	id := uuid.New()
	mustAppend(t, l, account, domain.Open{Grant: domain.MustAmount("100"), Actor: "test"})
	mustAppend(t, l, account, domain.Reserve{RequestID: id, Amount: domain.MustAmount(amount), Data: domain.ReserveData{Surface: "test", Owner: owner}})
	return id
}

// settle charges a request, with the meters and lines that make the charge up.
func settle(request uuid.UUID, amount string) domain.Settle {
	a := domain.MustAmount(amount)
	d := domain.CommitData{Surface: "test", ModelServed: "m", UsageSource: domain.UsageProvider}
	d.Meters[domain.Requests] = 1
	d.Lines = []domain.Line{{Meter: domain.Requests, Quantity: 1, UnitPrice: a, Amount: a}}
	return domain.Settle{RequestID: request, Charge: a, Data: d}
}

// history is a request's events: kinds with amounts, and why.
func history(t testing.TB, r *ledger.Reader, account string, request uuid.UUID) string {
	t.Helper()
	events, err := r.Request(context.Background(), account, request)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range events {
		text := string(e.Event.Kind) + ":" + e.Event.Amount.String()
		switch d := e.Event.Data.(type) {
		case *domain.RefundData:
			text += ":" + string(d.Reason)
		case *domain.OverageData:
			text += ":" + string(d.Reason)
		}
		out = append(out, text)
	}
	return strings.Join(out, " ")
}

// wantClean fails on anything that Verify finds.
func wantClean(t testing.TB, r *ledger.Reader) {
	t.Helper()
	report, err := r.Verify(context.Background(), ledger.VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !report.Clean {
		var text strings.Builder
		report.WriteText(&text) //nolint:errcheck // a Builder takes everything
		t.Fatalf("verify:\n%s", text.String())
	}
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

// counts are what a sweeper has told of.
type counts struct {
	mu       sync.Mutex
	swept    int
	failures int
	looks    int       // that may not be acted on
	acts     int       // that may
	orphans  int       // that looks found, however often
	first    time.Time // when the last unbroken row of looks began
	acted    time.Time // when the first look came that may be acted on
}

func (c *counts) hooks() Hooks {
	return Hooks{
		Swept:  func(n int) { c.locked(func() { c.swept += n }) },
		Failed: func(error) { c.locked(func() { c.failures++ }) },
	}
}

func (c *counts) observed(acts bool, look Look) {
	c.locked(func() {
		c.orphans += len(look.Orphans)
		if acts {
			c.acts++
		} else {
			c.looks++
		}
		if c.first.IsZero() {
			c.first = time.Now()
		}
		if acts && c.acted.IsZero() {
			c.acted = time.Now()
		}
	})
}

func (c *counts) locked(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

func (c *counts) get(of *int) (n int) {
	c.locked(func() { n = *of })
	return n
}

// sweeper starts a quick sweeper, as another process would.
func sweeper(t testing.TB, pool lease.Pool, l Ledger) (*Sweeper, *counts) {
	t.Helper()
	return sweeperOf(t, quick, pool, l)
}

func sweeperOf(t testing.TB, of times, pool lease.Pool, l Ledger) (*Sweeper, *counts) {
	t.Helper()
	c := &counts{}
	s := StartSweeper(context.Background(), Config{
		Pool: pool, Ledger: l, Owner: uuid.New(), Log: slog.New(slog.DiscardHandler), Hooks: c.hooks(),
		times: of, term: quickLease, renew: quickRenew, observed: c.observed,
	})
	t.Cleanup(s.Close)
	return s, c
}

// owned starts a quick owner.
func owned(t testing.TB, pool lease.Pool, owner uuid.UUID) *Owner {
	t.Helper()
	o, err := startOwner(t.Context(), pool, owner, slog.New(slog.DiscardHandler), quickOwner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	return o
}

// state is how a pool is.
type state int

const (
	well     state = iota
	broken         // every statement fails at once
	silent         // no statement is answered before its context ends
	frozen         // statements do not even see their context end, until the state changes
	readOnly       // reads are answered, writes are not
)

var errBroken = errors.New("connection refused")

// faultyPool is a pool that can be taken away.
type faultyPool struct {
	lease.Pool

	mu      sync.Mutex
	state   state
	changed chan struct{} // closed when the state changes
}

func faulty(p lease.Pool) *faultyPool { return &faultyPool{Pool: p, changed: make(chan struct{})} }

func (p *faultyPool) become(s state) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = s
	close(p.changed)
	p.changed = make(chan struct{})
}

// pass waits as long as the state says.
func (p *faultyPool) pass(ctx context.Context, sql string) error {
	p.mu.Lock()
	state, changed := p.state, p.changed
	p.mu.Unlock()
	switch {
	case state == broken:
		return errBroken
	case state == silent, state == readOnly && sql != selectLook:
		<-ctx.Done()
		return ctx.Err()
	case state == frozen:
		<-changed
	}
	return nil
}

func (p *faultyPool) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if err := p.pass(ctx, sql); err != nil {
		return nil, err
	}
	return p.Pool.Query(ctx, sql, args...)
}

func (p *faultyPool) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if err := p.pass(ctx, sql); err != nil {
		return pgconn.CommandTag{}, err
	}
	return p.Pool.Exec(ctx, sql, args...)
}
