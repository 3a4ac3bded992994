package projections

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// The bounds of the swap.
const (
	swapTries  = 60                    // somebody may read the live table for long
	swapPause  = 20 * time.Millisecond // after the first try; then longer and longer
	swapLong   = time.Second           // the longest pause
	swapTime   = 10 * time.Second      // one try
	swapEvents = 2 * fillEvents        // that are added while the projector waits; more are added before
)

// beginSwap keeps a try short: who waits for a table's exclusive lock makes all others wait behind it.
// The lock's time is below Postgres's deadlock_timeout, so that it is the swap that gives way.
const beginSwap = `begin; set local lock_timeout = '400ms'; set local statement_timeout = '5s';
	set local idle_in_transaction_session_timeout = '5s'; set local synchronous_commit = on`

// errFar says that the live table has moved on by too much to add it while the projector waits.
var errFar = errors.New("the live table is too far ahead")

// swap puts the fresh table in the live one's place. Any try may fail for a lock that others hold, and
// of a lost connection it is not known whether the swap happened: the table's id tells.
func (b *builder) swap(ctx context.Context) error {
	pause := swapPause
	for try := 1; ; try++ {
		was := slices.Clone(b.at)
		err := b.trySwap(ctx)
		if err == nil || b.swapped(ctx) {
			b.result.Swapped = true
			return nil
		}
		b.at = was
		if try == swapTries || ctx.Err() != nil || !passes(err) {
			return fmt.Errorf("swapping %s for %s: %w", b.live(), b.table, err)
		}
		if errors.Is(err, errFar) {
			if err := b.catchUp(ctx); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, swapLong)
	}
}

// passes says whether the swap may succeed when it is tried again.
func passes(err error) bool {
	pg := new(pgconn.PgError)
	if errors.As(err, &pg) {
		return slices.Contains([]string{"55P03", "40P01", "40001", "57014"}, pg.Code) || // a lock, a deadlock, its time
			pg.Code[:2] == "08" || pg.Code[:2] == "57" // the connection, a restart
	}
	return !errors.Is(err, errBroken) && !errors.Is(err, errMoved) && !errors.Is(err, errShort) && !errors.Is(err, errGone)
}

// errGone says that the fresh table is not there any more.
var errGone = errors.New("another run has taken the table away")

// swapped says whether the fresh table bears the live one's name. Where Postgres cannot be asked, the
// next try finds out.
func (b *builder) swapped(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, prepareTime)
	defer cancel()
	id, err := tableID(ctx, b.pool, b.live())
	return err == nil && id == b.oid
}

// trySwap is the dbtx of the swap. The locks are taken in the projector's order, positions first.
func (b *builder) trySwap(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, swapTime)
	defer cancel()
	return b.inTx(ctx, beginSwap, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `SELECT FROM projection_positions WHERE projection = $1 ORDER BY shard FOR UPDATE`, b.live())
		if err != nil {
			return err
		}
		if id, err := tableID(ctx, tx, b.table); err != nil || id != b.oid {
			return errors.Join(err, errGone)
		}
		if err := b.overtake(ctx, tx); err != nil {
			return err
		}
		if err := b.rename(ctx, tx); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO projection_positions AS l (projection, shard, seq, hash, occurred_at, next_offset)
			SELECT $1::text, shard, seq, hash, occurred_at, next_offset FROM projection_positions WHERE projection = $2::text
			ON CONFLICT (projection, shard) DO UPDATE SET seq = excluded.seq, hash = excluded.hash, occurred_at = excluded.occurred_at,
				next_offset = coalesce(least(nullif(l.next_offset, 0), nullif(excluded.next_offset, 0)), 0)`, b.live(), b.table)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `DELETE FROM projection_positions WHERE projection = $1`, b.table)
		return err
	})
}

// overtake adds the few events that the live table has and the fresh one has not, so that nobody reads
// an older state after a newer one. A live table that is gone has nothing that was read.
func (b *builder) overtake(ctx context.Context, tx pgx.Tx) error {
	id, err := tableID(ctx, tx, b.live())
	if err != nil || id == 0 {
		return err
	}
	live, err := readPositions(ctx, tx, b.live())
	if err != nil {
		return err
	}
	missing := int64(0)
	for shard, at := range live {
		missing += max(0, at.seq-b.at[shard].seq)
	}
	if missing > swapEvents {
		return fmt.Errorf("%w: by %d events", errFar, missing)
	}
	return b.reach(ctx, tx, seqs(live), nil)
}

// rename drops the live table and gives the fresh one its name, and to its key's index the name that
// the next fresh one would be in the way of.
func (b *builder) rename(ctx context.Context, tx pgx.Tx) error {
	var index string
	err := tx.QueryRow(ctx, `SELECT conname::text FROM pg_constraint WHERE conrelid = $1::bigint::oid AND contype = 'p'`, b.oid).Scan(&index)
	if err != nil {
		return fmt.Errorf("looking for the key of %s: %w", b.table, err)
	}
	live := quoted(b.live())
	for _, sql := range []string{
		`DROP TABLE IF EXISTS ` + live,
		`ALTER TABLE ` + quoted(b.table) + ` RENAME TO ` + live,
		`ALTER TABLE ` + live + ` RENAME CONSTRAINT ` + quoted(index) + ` TO ` + quoted(b.live()+"_pkey"),
	} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}
