package simulation

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"llm-gateway/ledger"
)

// database is what is in Postgres beside the ledger: leases and projections. Each method is one
// transaction.
type database struct {
	tables *tables

	mu      sync.Mutex // guards all below
	leases  map[string]leaseRow
	lives   map[string]*life // by owner
	started time.Time        // when the server began
}

type leaseRow struct {
	owner uuid.UUID
	until time.Time
}

func newDatabase(m ledger.Meta) *database {
	return &database{leases: map[string]leaseRow{}, lives: map[string]*life{}, started: time.Now(), tables: newTables(m)}
}

// register makes an owner known to the auditor.
func (d *database) register(l *life) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lives[l.owner] = l
}

// restart is a restart of the server: what was committed is there.
func (d *database) restart() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.started = time.Now()
}

func (d *database) startedAt() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.started
}

// take takes and renews leases as package lease's statement does.
func (d *database) take(names []string, owner uuid.UUID, term time.Duration) (ours []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	for _, name := range names {
		if row, ok := d.leases[name]; ok && row.owner != owner && !row.until.Before(now) {
			continue
		}
		d.leases[name] = leaseRow{owner, now.Add(term)}
		d.held(name, now, now.Add(term))
		ours = append(ours, name)
	}
	return ours
}

func (d *database) release(names []string, owner uuid.UUID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range names {
		if d.leases[name].owner == owner {
			delete(d.leases, name)
			d.givenUp(name, time.Now())
		}
	}
}

// leasePool is a process's lease.Pool. It knows the statements of the packages lease and sweep.
type leasePool struct{ p *process }

var errStatement = errors.New("simulated: a statement that nobody knows here")

// Query implements lease.Pool.
func (l *leasePool) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if strings.HasPrefix(sql, "WITH RECURSIVE owners") {
		return l.look(ctx, args[0].(int))
	}
	if !strings.HasPrefix(sql, "INSERT INTO ledger_leases") {
		return nil, errStatement
	}
	names, owner, micros := args[0].([]string), args[1].(pgtype.UUID), args[2].(int64)
	f, err := l.p.enter(ctx, kindLease, "takes "+leaseOf(names))
	if err != nil {
		return nil, err
	}
	ours := l.p.w.database.take(names, owner.Bytes, time.Duration(micros)*time.Microsecond)
	if f == failAfter {
		return nil, errBroken
	}
	return &rows{n: len(ours), scan: func(i int, into []any) { *into[0].(*string) = ours[i] }}, nil
}

// Exec implements lease.Pool. Nothing here is old enough to be tidied up.
func (l *leasePool) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if strings.HasPrefix(sql, "DELETE FROM ledger_responses") || strings.HasPrefix(sql, "DELETE FROM ledger_leases WHERE name IN") {
		return pgconn.NewCommandTag("DELETE 0"), l.p.look(ctx, kindRead, "sweeper tidies up")
	}
	if !strings.HasPrefix(sql, "DELETE FROM ledger_leases WHERE name = ANY") {
		return pgconn.CommandTag{}, errStatement
	}
	names, owner := args[0].([]string), args[1].(pgtype.UUID)
	f, err := l.giveUp(ctx, names)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	l.p.w.database.release(names, owner.Bytes)
	if f == failAfter {
		return pgconn.CommandTag{}, errBroken
	}
	return pgconn.NewCommandTag("DELETE 1"), nil
}

// giveUp waits for the fate of giving leases up. Several shards that keep failing resign at one instant, in
// any order: so that does not wait.
func (l *leasePool) giveUp(ctx context.Context, names []string) (fate, error) {
	what := "gives up " + leaseOf(names)
	if strings.HasPrefix(names[0], "relay:") {
		return goOn, l.p.look(ctx, kindLease, what)
	}
	return l.p.enter(ctx, kindLease, what)
}

// leaseOf names leases in calls: a keeper has one call at a time, and no ids belong into names.
func leaseOf(names []string) string {
	switch first := names[0]; {
	case first == projectorLease || first == "sweeper":
		return "the " + first + "'s lease"
	case strings.HasPrefix(first, ownerPrefix):
		return "its lease"
	}
	return "the relay's leases"
}

// rows are so many rows, as pgx's.
type rows struct {
	pgx.Rows // nothing else of it is used

	n, at int
	scan  func(i int, into []any)
}

// Next implements pgx.Rows.
func (r *rows) Next() bool { r.at++; return r.at <= r.n }

// Scan implements pgx.Rows.
func (r *rows) Scan(into ...any) error { r.scan(r.at-1, into); return nil }

// Err implements pgx.Rows.
func (r *rows) Err() error { return nil }

// Close implements pgx.Rows.
func (r *rows) Close() {}

// CommandTag implements pgx.Rows.
func (r *rows) CommandTag() pgconn.CommandTag { return pgconn.CommandTag{} }
