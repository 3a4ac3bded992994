package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"llm-gateway/domain"
)

// selectPast adds up an account's events to the last one that occurred by a time. Times never run backwards
// within a shard, and the index on (shard, account, seq) finds both.
const selectPast = `WITH last AS (SELECT seq, occurred_at FROM ledger_events
		WHERE shard = $1 AND account = $2 AND occurred_at <= $3 ORDER BY seq DESC LIMIT 1)
	SELECT last.seq, last.occurred_at, e.kind, sum(e.amount)::text
	FROM last JOIN ledger_events e ON e.shard = $1 AND e.account = $2 AND e.seq <= last.seq GROUP BY 1, 2, 3`

// BalanceAt is an account's balances at a moment, from the events: all that occurred at or before it. An
// account that was not open then, or never was, has the zero Past but for its shard.
func (r *Reader) BalanceAt(ctx context.Context, account string, at time.Time) (domain.Past, error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	past := domain.Past{Position: domain.Position{Shard: domain.ShardOf(account, r.meta.Shards)}}
	err := eachOf(ctx, r.pool, func(rows pgx.Rows) error {
		var e domain.Event
		var sum string
		if err := rows.Scan(&past.Position.Seq, &past.OccurredAt, &e.Kind, &sum); err != nil {
			return err
		}
		past.OccurredAt = past.OccurredAt.UTC()
		if err := parseAmounts([]string{sum}, &e.Amount); err != nil {
			return err
		}
		past.Balances = past.After(&e)
		return nil
	}, selectPast, past.Position.Shard, account, domain.EventTime(at))
	if err != nil {
		return domain.Past{}, fmt.Errorf("reading the balance of the past: %w", err)
	}
	return past, nil
}

// AccountOf is whose request it is; "" where there is no such request.
func (r *Reader) AccountOf(ctx context.Context, request uuid.UUID) (account string, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	err = r.pool.QueryRow(ctx, `SELECT account FROM ledger_reservations
		WHERE shard IN (SELECT generate_series(0, $1 - 1)) AND request_id = $2`, r.meta.Shards, pgUUID(request)).Scan(&account)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	return account, err
}

// selectWitnessed is the events of a request with the hashes before them.
const selectWitnessed = `SELECT e.seq, e.payload, e.hash, p.hash, e.amount::text FROM ledger_reservations r
	JOIN ledger_events e ON e.shard = r.shard AND e.request_id = r.request_id
		AND e.seq = ANY(ARRAY[r.reserved_seq, r.settled_seq, r.settled_seq + 1, r.settled_seq + 2, r.late_seq])
	LEFT JOIN ledger_events p ON p.shard = e.shard AND p.seq = e.seq - 1
	WHERE r.shard = $1 AND r.request_id = $2 AND r.account = $3 ORDER BY e.seq`

// Witnessed returns the events of one request of an account, as Request does, with the hashes and the
// account's balances before each. It adds up all of the account's events before the request's last one.
func (r *Reader) Witnessed(ctx context.Context, account string, id uuid.UUID) ([]domain.Witnessed, error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	shard := domain.ShardOf(account, r.meta.Shards)
	var all []domain.Witnessed
	var seqs []int64
	err := eachOf(ctx, r.pool, func(rows pgx.Rows) error {
		w, seq, err := scanWitnessed(rows, r.meta.ID, shard)
		all, seqs = append(all, w), append(seqs, seq)
		return err
	}, selectWitnessed, shard, pgUUID(id), account)
	if err == nil && len(all) > 0 {
		err = r.witnessBalances(ctx, shard, account, all, seqs)
	}
	if err != nil {
		return nil, fmt.Errorf("reading request %s: %w", id, err)
	}
	return all, nil
}

func scanWitnessed(row pgx.Row, ledger uuid.UUID, shard int32) (w domain.Witnessed, seq int64, err error) {
	var hash, previous []byte
	var amount string
	if err := row.Scan(&seq, &w.Payload, &hash, &previous, &amount); err != nil {
		return w, seq, err
	}
	if err := parseAmounts([]string{amount}, &w.Column); err != nil {
		return w, seq, err
	}
	w.Hash = domain.Hash(hash)
	switch {
	case seq == 1:
		w.Previous = new(domain.GenesisHash(ledger, shard))
	case previous != nil:
		w.Previous = new(domain.Hash(previous))
	}
	e, err := domain.Decode(w.Payload)
	if err != nil {
		return w, seq, fmt.Errorf("the event at %s is unreadable: %w", domain.Position{Shard: shard, Seq: seq}, err)
	}
	w.Event = *e
	return w, seq, nil
}

// selectBefore adds up an account's events by which of some positions they come before: 0 is before the
// first, and an event at a position is of the group behind it.
const selectBefore = `SELECT width_bucket(seq, $3::bigint[]), kind, sum(amount)::text FROM ledger_events
	WHERE shard = $1 AND account = $2 AND seq < $4 GROUP BY 1, 2`

// witnessBalances fills in Before of each event.
func (r *Reader) witnessBalances(ctx context.Context, shard int32, account string, all []domain.Witnessed, seqs []int64) error {
	groups := make([]domain.Balances, len(all))
	err := eachOf(ctx, r.pool, func(rows pgx.Rows) error {
		var group int
		var e domain.Event
		var sum string
		if err := rows.Scan(&group, &e.Kind, &sum); err != nil {
			return err
		}
		err := parseAmounts([]string{sum}, &e.Amount)
		groups[group] = groups[group].After(&e)
		return err
	}, selectBefore, shard, account, seqs, seqs[len(seqs)-1])
	var sum domain.Balances
	for i := range all {
		sum = domain.Balances{Available: sum.Available.Add(groups[i].Available), Reserved: sum.Reserved.Add(groups[i].Reserved)}
		all[i].Before = sum
	}
	return err
}
