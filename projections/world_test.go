package projections

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"llm-gateway/domain"
	"llm-gateway/ledger"
	"llm-gateway/migrations/pgtest"
)

const (
	worldShards = 3
	serviceRole = "llm_gateway"
)

// world is a database with a ledger, and how the projections' code sees it.
type world struct {
	url   string
	meta  ledger.Meta
	owner *pgxpool.Pool // may do everything
	pool  *pgxpool.Pool // as the service
	made  atomic.Int64  // tables made
}

func newWorld(t testing.TB, pooled bool) *world {
	t.Helper()
	return newWorldOf(t, worldShards, pooled)
}

func newWorldOf(t testing.TB, shards int, pooled bool) *world {
	t.Helper()
	w := &world{url: pgtest.URL(t)}
	config, err := pgx.ParseConfig(w.url)
	if err != nil {
		t.Fatal(err)
	}
	if w.meta, err = ledger.Init(t.Context(), config, uuid.New(), shards, "USD"); err != nil {
		t.Fatal(err)
	}
	w.owner, w.pool = w.connect(t, "", false, nil), w.connect(t, serviceRole, pooled, nil)
	return w
}

// connect makes a pool; change may alter how it connects.
func (w *world) connect(t testing.TB, role string, pooled bool, change func(*pgx.ConnConfig)) *pgxpool.Pool {
	t.Helper()
	conn, err := ledger.ConnConfig(w.url, role, pooled)
	if err != nil {
		t.Fatal(err)
	}
	config, err := pgxpool.ParseConfig("")
	if err != nil {
		t.Fatal(err)
	}
	conn.RuntimeParams["synchronous_commit"] = "off" // the tests do not crash the server
	if change != nil {
		change(conn)
	}
	config.ConnConfig, config.MaxConns = conn, 4
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// ledger opens the real one, as the service.
func (w *world) ledger(t testing.TB) *ledger.Postgres {
	t.Helper()
	l, err := ledger.Open(t.Context(), ledger.Config{URL: w.url, Role: serviceRole, Shards: worldShards, Currency: "USD"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func (w *world) exec(t tester, sql string, args ...any) {
	t.Helper()
	if _, err := w.owner.Exec(context.Background(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func (w *world) count(t tester, sql string, args ...any) (n int64) {
	t.Helper()
	if err := w.owner.QueryRow(context.Background(), sql, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// text asks for one value as Postgres writes it.
func (w *world) text(t tester, sql string, args ...any) (s string) {
	t.Helper()
	if err := w.owner.QueryRow(context.Background(), sql, args...).Scan(&s); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return s
}

// tables makes empty tables of all projections, and returns their suffix.
func (w *world) tables(t tester) string {
	t.Helper()
	suffix := fmt.Sprintf("_%d", w.made.Add(1))
	for _, p := range all {
		w.exec(t, `SELECT create_projection($1, $2)`, p.name(), p.name()+suffix)
	}
	return suffix
}

// empty empties tables, their positions with them.
func (w *world) empty(t tester, suffixes ...string) {
	t.Helper()
	for _, suffix := range suffixes {
		for _, p := range all {
			w.exec(t, `DELETE FROM `+p.name()+suffix)
		}
	}
	w.exec(t, `DELETE FROM projection_positions`)
}

// positions reads a table's positions.
func (w *world) positions(t tester, table string) []position {
	t.Helper()
	out, err := w.tryPositions(table)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (w *world) tryPositions(table string) (out []position, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), longWait)
	defer cancel()
	err = pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) (err error) {
		out, err = readPositions(ctx, tx, table)
		return err
	})
	return out, err
}

// steps are those of all projections, to the tables with a suffix, from where their positions are.
func (w *world) steps(t tester, suffix string, events []domain.Recorded) (out []step) {
	t.Helper()
	for _, p := range all {
		table, shard := p.name()+suffix, events[0].Event.Shard
		out = append(out, step{projection: p, table: table, shard: shard, from: w.positions(t, table)[shard], events: events})
	}
	return out
}

// apply takes steps in one database transaction.
func (w *world) apply(steps ...step) error {
	ctx, cancel := context.WithTimeout(context.Background(), longWait)
	defer cancel()
	return pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error { return apply(ctx, tx, steps) })
}

func (w *world) mustApply(t tester, suffix string, events []domain.Recorded) {
	t.Helper()
	if err := w.apply(w.steps(t, suffix, events)...); err != nil {
		t.Fatal(err)
	}
}

// difference counts the rows of two tables, or queries, that the other has not.
func (w *world) difference(t tester, a, b string) int64 {
	t.Helper()
	return w.count(t, fmt.Sprintf(`SELECT count(*) FROM ((%s EXCEPT ALL %s) UNION ALL (%s EXCEPT ALL %s)) d`, a, b, b, a))
}

// wantSame holds all tables of one suffix against those of another.
func (w *world) wantSame(t tester, a, b string) {
	t.Helper()
	for _, p := range all {
		if n := w.difference(t, "TABLE "+p.name()+a, "TABLE "+p.name()+b); n != 0 {
			t.Errorf("%s: %d rows differ between %q and %q", p.name(), n, a, b)
		}
	}
}

// contents is all that a table holds, to see whether it changes.
func (w *world) contents(t tester, table string) string {
	t.Helper()
	return w.text(t, fmt.Sprintf(`SELECT coalesce(string_agg(t::text, E'\n' ORDER BY t::text), '') FROM %s t`, table))
}

// everything is what all live tables and positions hold.
func (w *world) everything(t tester) string {
	t.Helper()
	var out []string
	for _, p := range all {
		out = append(out, w.contents(t, p.name()))
	}
	return strings.Join(append(out, w.contents(t, "projection_positions")), "\n")
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline, tick := time.After(longWait), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

// steadyClock is a clock that goes on by half an hour each time.
func steadyClock() func() time.Time {
	now := time.Date(2026, 3, 1, 22, 59, 0, 0, time.UTC)
	return func() time.Time {
		now = now.Add(30 * time.Minute)
		return now
	}
}
