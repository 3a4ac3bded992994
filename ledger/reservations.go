package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"llm-gateway/domain"
)

// beginReservations keeps the look to the index of what is open, which has the order of owners, however old the
// planner's statistics are: what was settled is not read, and there may be very much of it.
const beginReservations = `begin isolation level repeatable read, read only; set local statement_timeout = '2s';
	set local enable_seqscan = off; set local enable_bitmapscan = off; set local enable_sort = off`

// selectReservations finds the oldest by its event: in a shard the one that was reserved first.
const selectReservations = `SELECT coalesce(sum(o.open), 0)::bigint, coalesce(sum(o.held), 0)::text,
		(coalesce(extract(epoch FROM clock_timestamp() - min(e.occurred_at)), 0) * 1000000)::bigint
	FROM (SELECT r.shard, count(*) AS open, sum(r.held) AS held, min(r.reserved_seq) AS first
		FROM (SELECT shard, held, reserved_seq FROM ledger_reservations WHERE state = 'open' ORDER BY owner OFFSET 0) r GROUP BY r.shard) o
	LEFT JOIN LATERAL (SELECT occurred_at FROM ledger_events e WHERE e.shard = o.shard AND e.seq = o.first) e ON true`

// Reservations is what of the ledger's money is reserved now.
type Reservations struct {
	Open   int64         // that are neither settled nor released
	Held   domain.Amount // what they hold
	Oldest time.Duration // the age of the oldest; 0 where there are none
}

// Reservations counts what is open, in the whole ledger.
func (r *Reader) Reservations(ctx context.Context) (Reservations, error) {
	var out Reservations
	var held string
	var age int64 // microseconds
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	tx, err := r.pool.BeginTx(ctx, pgx.TxOptions{BeginQuery: beginReservations})
	if err == nil {
		defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // it only reads
		err = tx.QueryRow(ctx, selectReservations).Scan(&out.Open, &held, &age)
	}
	if err == nil {
		out.Held, err = domain.ParseAmount(held)
	}
	if err != nil {
		return Reservations{}, fmt.Errorf("reading the open reservations: %w", err)
	}
	out.Oldest = max(0, time.Duration(age)*time.Microsecond)
	return out, nil
}
