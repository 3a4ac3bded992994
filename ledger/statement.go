package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"llm-gateway/domain"
)

const (
	// sumTime bounds the one statement that adds up an account's whole history: about a second for each
	// million events.
	sumTime = time.Minute
	// spanPage is how many events of a span are read at once.
	spanPage = 1000
	// settledAfter is how long after a time no event can occur before it any more: far above what the
	// clocks of gateways may differ by.
	settledAfter = time.Minute
)

// seqsAtSQL finds, for each time in $2, the last event of shard $1 that occurred before it: 0 where none
// did. Time never runs backwards within a shard and seq has no gaps, so halving the shard finds it by some
// twenty keys, without an index on the time. OFFSET 0 keeps each look-up one by key.
const seqsAtSQL = `WITH RECURSIVE search(n, at, lo, hi) AS (
		SELECT a.n, a.at, 0::bigint, h.last_seq FROM unnest($2::timestamptz[]) WITH ORDINALITY AS a(at, n)
			CROSS JOIN ledger_shards h WHERE h.shard = $1
		UNION ALL
		SELECT s.n, s.at, CASE WHEN e.occurred_at < s.at THEN e.seq ELSE s.lo END, CASE WHEN e.occurred_at < s.at THEN s.hi ELSE e.seq - 1 END
		FROM search s CROSS JOIN LATERAL (
			SELECT seq, occurred_at FROM ledger_events WHERE shard = $1 AND seq = (s.lo + s.hi + 1) / 2 OFFSET 0) e
		WHERE s.lo < s.hi)
	SELECT lo FROM search WHERE lo >= hi ORDER BY n`

// seqsAt returns, for each time, the last event of a shard that occurred before it.
func (r *Reader) seqsAt(ctx context.Context, shard int32, times ...time.Time) ([]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	rows, err := r.pool.Query(ctx, seqsAtSQL, shard, times)
	if err != nil {
		return nil, err
	}
	seqs, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err == nil && len(seqs) != len(times) {
		err = fmt.Errorf("shard %d has a gap: %d of %d times were found", shard, len(seqs), len(times))
	}
	return seqs, err
}

// statementSumsSQL adds up account $2 of shard $1 as of seq $3 and as of seq $4, and what it reserved in
// between. It is domain.Event.Change in SQL; Statement.Finish holds both against each other.
const statementSumsSQL = `WITH moved AS (
		SELECT seq, kind, amount,
			CASE kind WHEN 'credit' THEN amount WHEN 'refund' THEN amount WHEN 'debit' THEN -amount
				WHEN 'overage' THEN -amount WHEN 'reserve' THEN -amount ELSE 0 END AS available,
			CASE kind WHEN 'reserve' THEN amount WHEN 'commit' THEN -amount WHEN 'refund' THEN -amount ELSE 0 END AS reserved
		FROM ledger_events WHERE shard = $1 AND account = $2 AND seq <= $4)
	SELECT coalesce(sum(available) FILTER (WHERE seq <= $3), 0)::text, coalesce(sum(reserved) FILTER (WHERE seq <= $3), 0)::text,
		coalesce(sum(available), 0)::text, coalesce(sum(reserved), 0)::text,
		coalesce(sum(amount) FILTER (WHERE kind = 'reserve' AND seq > $3), 0)::text
	FROM moved`

// Statement makes the statement of an account's month from its events; nil where the account is not open.
// The month's events are read in pages, and are not kept; opening and closing balance are sums over all
// events before. It is domain.ErrStatement where these do not agree, and domain.ErrStatementLong where a
// month has more lines than a statement may have.
func (r *Reader) Statement(ctx context.Context, account string, m domain.Month) (*domain.Statement, error) {
	open, err := r.Account(ctx, account)
	if err != nil || open == nil {
		return nil, err
	}
	shard := domain.ShardOf(account, r.meta.Shards)
	// Whether the month is over is asked first: what occurs after that is beyond it.
	complete, err := r.over(ctx, shard, m)
	if err != nil {
		return nil, err
	}
	seqs, err := r.seqsAt(ctx, shard, m.From, m.To)
	if err != nil {
		return nil, err
	}
	opening, end, err := r.statementSums(ctx, shard, account, seqs[0], seqs[1])
	if err != nil {
		return nil, err
	}
	s := domain.NewStatement(account, r.meta.Currency, m, opening)
	if err := r.eachOfAccount(ctx, shard, account, seqs[0], seqs[1], s.Add); err != nil {
		return nil, err
	}
	end.Complete = complete
	return s, s.Finish(end)
}

// over says whether no event of a shard can occur within a month any more.
func (r *Reader) over(ctx context.Context, shard int32, m domain.Month) (over bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	err = r.pool.QueryRow(ctx, `SELECT last_time >= $2 OR clock_timestamp() >= $3 FROM ledger_shards WHERE shard = $1`,
		shard, m.To, m.To.Add(settledAfter)).Scan(&over)
	return over, err
}

func (r *Reader) statementSums(ctx context.Context, shard int32, account string, after, upTo int64) (opening domain.StatementBalance, end domain.StatementEnd, err error) {
	ctx, cancel := context.WithTimeout(ctx, sumTime)
	defer cancel()
	texts := make([]string, 5)
	err = r.pool.QueryRow(ctx, statementSumsSQL, shard, account, after, upTo).Scan(&texts[0], &texts[1], &texts[2], &texts[3], &texts[4])
	if err != nil {
		return opening, end, err
	}
	sums := make([]domain.Amount, len(texts))
	if err := parseAmounts(texts, &sums[0], &sums[1], &sums[2], &sums[3], &sums[4]); err != nil {
		return opening, end, err
	}
	return domain.NewStatementBalance(sums[0], sums[1]),
		domain.StatementEnd{Closing: domain.NewStatementBalance(sums[2], sums[3]), Reserved: sums[4]}, nil
}

// eachOfAccount calls do with an account's events behind seq after, up to seq upTo, in order. Reserves are
// left out: they are a third of all events, and move nothing out of the account.
func (r *Reader) eachOfAccount(ctx context.Context, shard int32, account string, after, upTo int64, do func(*domain.Event) error) error {
	return paged(after, func(after int64) ([]domain.Recorded, error) {
		return r.recorded(ctx, selectOfAccount, shard, account, after, upTo, spanPage)
	}, do)
}

const selectOfAccount = `SELECT payload, hash FROM ledger_events
	WHERE shard = $1 AND account = $2 AND seq > $3 AND seq <= $4 AND kind <> 'reserve' ORDER BY seq LIMIT $5`

const selectSpanCharges = `SELECT payload, hash` + pageOfCharges

// EachCharge calls do with every commit and overage that occurred at from or later and before to, shard
// by shard, each in order.
func (r *Reader) EachCharge(ctx context.Context, from, to time.Time, do func(*domain.Event) error) error {
	spans, err := r.Spans(ctx, "", from, to)
	if err != nil {
		return err
	}
	for _, s := range spans {
		for after := s.After; after < s.UpTo; after += spanPage {
			events, err := r.recorded(ctx, selectSpanCharges, s.Shard, after, min(after+spanPage, s.UpTo))
			if err != nil {
				return err
			}
			for i := range events {
				if err := do(&events[i].Event); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// paged calls do with the events of one page after another, each behind the last event of the one before,
// until a page is not full.
func paged(after int64, page func(after int64) ([]domain.Recorded, error), do func(*domain.Event) error) error {
	for {
		events, err := page(after)
		if err != nil {
			return err
		}
		for i := range events {
			if err := do(&events[i].Event); err != nil {
				return err
			}
			after = events[i].Event.Seq
		}
		if len(events) < spanPage {
			return nil
		}
	}
}

// Statement makes the statement of an account's month from its events; nil where the account is not open.
func (m *Memory) Statement(ctx context.Context, account string, month domain.Month) (*domain.Statement, error) {
	if a, err := m.Account(ctx, account); err != nil || a == nil {
		return nil, err
	}
	before := m.pick(account, func(e *domain.Event) bool { return e.OccurredAt.Before(month.From) })
	opening := balanceAfter(domain.StatementBalance{}, before)
	s := domain.NewStatement(account, m.store.meta.Currency, month, opening)
	within := m.pick(account, func(e *domain.Event) bool {
		return !e.OccurredAt.Before(month.From) && e.OccurredAt.Before(month.To)
	})
	end := domain.StatementEnd{Closing: balanceAfter(opening, within), Complete: !m.store.now().Before(month.To.Add(settledAfter))}
	for i := range within {
		e := &within[i].Event
		if e.Kind == domain.KindReserve {
			end.Reserved = end.Reserved.Add(e.Amount)
		}
		if err := s.Add(e); err != nil {
			return nil, err
		}
	}
	return s, s.Finish(end)
}

// balanceAfter is a balance after some more events.
func balanceAfter(b domain.StatementBalance, events []domain.Recorded) domain.StatementBalance {
	available, reserved := b.Available, b.Reserved
	for i := range events {
		a, r := events[i].Event.Change()
		available, reserved = available.Add(a), reserved.Add(r)
	}
	return domain.NewStatementBalance(available, reserved)
}
