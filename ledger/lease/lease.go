package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// The times of a lease.
const (
	Term  = 6 * time.Second // a lease lasts this long from its last renewal
	Every = 2 * time.Second // between two renewals

	margin      = 10                    // this part of a Term before its end, what runs under a lease is told to end
	releaseTime = 2 * time.Second       // giving up all leases at the end
	firstPause  = 50 * time.Millisecond // before a hold that returned is started again
	longPause   = 5 * time.Second       // the longest such pause
	patience    = 6                     // holds that fail in a row before the lease is given up for a Term
	steady      = 5                     // a hold that lasted so many Terms was none that failed in a row
)

// ErrLost is the cause of the end of a hold's context when the lease was lost, or may have been.
var ErrLost = errors.New("the lease was lost")

// errStopped makes the next round come soon: what was renewed then may have ended meanwhile.
var errStopped = errors.New("the answer came when the lease's time was over")

// Pool is where leases are kept: plain statements, each a transaction of its own. A *pgxpool.Pool is
// one, also behind a transaction pooler.
type Pool interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// Keeper takes leases for one owner. Its fields are set before Run.
type Keeper struct {
	Pool  Pool
	Owner uuid.UUID     // one process start
	Log   *slog.Logger  // nil = slog.Default()
	Term  time.Duration // 0 = Term; the same in all processes
	Every time.Duration // 0 = Every
	Retry time.Duration // between two tries while renewing fails; 0 = a quarter of Every

	// Renewed, if there is one, is told after each round that Postgres answered which of the leases are
	// held, and until when by this process's monotonic clock: a little before they end. Run calls it,
	// and it must not block.
	Renewed func(names []string, until time.Time)
}

// Run takes the named leases whenever they are free, and keeps them. For each one that it holds, hold
// runs, alone, on a context that ends when the lease was lost or may have been (cause ErrLost), when
// it was given up, or when ctx ends. Once hold has returned it is started again, on the same context,
// as long as the lease is held: after a short pause where it returned nil, having done some of its
// work, and after longer and longer ones where it returned errors, having done nothing. Run returns
// when ctx has ended and all holds have: then the leases have been given up.
func (k *Keeper) Run(ctx context.Context, names []string, hold func(ctx context.Context, name string) error) {
	t := newTenure(ctx, k, names, hold)
	for ctx.Err() == nil {
		err := t.round()
		t.tell(err)
		if err != nil {
			t.wait(t.retry)
		} else {
			t.wait(t.every)
		}
	}
	t.end()
}

// takeLeases takes and renews. Leases that others hold are left out before the insert, which would
// lock their rows; whoever is just being overtaken there is told apart by the last WHERE. All keepers
// name leases in the same order, so that no two wait for each other.
const takeLeases = `INSERT INTO ledger_leases AS l (name, owner, until)
	SELECT n.name, $2::uuid, now() + $3::bigint * interval '1 microsecond'
	FROM unnest($1::text[]) WITH ORDINALITY AS n (name, place)
	WHERE NOT EXISTS (SELECT FROM ledger_leases h WHERE h.name = n.name AND h.owner <> $2::uuid AND h.until >= now())
	ORDER BY n.place
	ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, until = excluded.until
	WHERE l.owner = excluded.owner OR l.until < now()
	RETURNING l.name`

// take returns which of the leases are ours for a term from before it was called.
func (t *tenure) take(names []string) ([]string, error) {
	// Not on the caller's context: a statement that is cancelled may still be executed, after the
	// leases were given up.
	ctx, cancel := context.WithTimeout(context.Background(), t.every)
	defer cancel()
	rows, err := t.keeper.Pool.Query(ctx, takeLeases, names, t.owner(), t.term.Microseconds())
	if err != nil {
		return nil, fmt.Errorf("taking leases: %w", err)
	}
	ours, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("taking leases: %w", err)
	}
	return ours, nil
}

// release gives leases up. Where that fails they run out by themselves.
func (t *tenure) release(names []string) {
	ctx, cancel := context.WithTimeout(context.Background(), releaseTime)
	defer cancel()
	_, err := t.keeper.Pool.Exec(ctx, `DELETE FROM ledger_leases WHERE name = ANY($1::text[]) AND owner = $2::uuid`, names, t.owner())
	if err != nil {
		t.log.Warn("leases could not be given up: they run out by themselves", "error", err)
	}
}

func (t *tenure) owner() pgtype.UUID { return pgtype.UUID{Bytes: t.keeper.Owner, Valid: true} }

// sorted is a copy in the order that all keepers share.
func sorted(names []string) []string {
	names = slices.Clone(names)
	slices.Sort(names)
	return slices.Compact(names)
}
