package projections

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"llm-gateway/domain"
	"llm-gateway/ledger"
)

// The bounds of the read queries.
const (
	readTime = 5 * time.Second // one statement

	followTime  = time.Second            // how long a read waits for the position that it is to include
	followFirst = 2 * time.Millisecond   // the first pause between two looks at the position
	followLong  = 100 * time.Millisecond // the longest

	// MaxTransactions bounds one page of transactions.
	MaxTransactions = 1000
	// maxStatsRows bounds one answer of Stats: more than eleven years of hours.
	maxStatsRows = 100_000
)

// ErrTooMany says that an answer has more rows than an answer may have: ask for less.
var ErrTooMany = errors.New("too many rows")

// Reader answers questions from the projections. It is safe for concurrent use.
//
// An answer and its Reading come from one statement, which sees one state: the Reading is true of just
// that answer. A read is to include the account's own last event in the ledger, whichever gateway wrote
// it, and what the caller asks for (atLeast): it waits up to a second for the projection to get there,
// and then answers with what there is; the Reading tells. The zero position, one of another shard than
// the account's, and one that the ledger does not have are not waited for.
//
// A projection whose table is gone cannot be read until it is rebuilt: the error is Postgres's
// undefined_table (42P01). While a rebuild exchanges the table, reads wait for a moment.
type Reader struct {
	pool *pgxpool.Pool
	meta ledger.Meta
}

// NewReader reads with the pool's rights: the service's role suffices. The pool stays the caller's.
func NewReader(pool *pgxpool.Pool, meta ledger.Meta) *Reader { return &Reader{pool: pool, meta: meta} }

// Balance returns an account as its projection has it, or nil where that has no such account (yet).
func (r *Reader) Balance(ctx context.Context, account string, atLeast domain.Position) (*domain.Account, domain.Reading, error) {
	found, reading, err := read(ctx, r, query[*domain.Account]{table: "balances", sql: balanceSQL, scan: scanBalance}, account, atLeast)
	if err != nil || len(found) == 0 {
		return nil, reading, err
	}
	found[0].Name = account
	return found[0], reading, nil
}

// Transactions returns a page of an account's statement, newest first, of at most MaxTransactions lines.
func (r *Reader) Transactions(ctx context.Context, account string, limit, offset int, atLeast domain.Position) ([]domain.Transaction, domain.Reading, error) {
	return read(ctx, r, query[domain.Transaction]{
		table: "transactions", sql: transactionsSQL, scan: scanTransaction,
		args: []any{int64(max(0, min(limit, MaxTransactions))), int64(max(0, offset))},
	}, account, atLeast)
}

// Stats returns an account's consumption in groups: hours and days in their order, models and
// providers by amount, the dearest first. Groups without consumption are left out. It fails with
// ErrTooMany where there are more groups than an answer may have.
func (r *Reader) Stats(ctx context.Context, account string, s domain.StatsQuery, atLeast domain.Position) ([]domain.StatsRow, domain.Reading, error) {
	sql, ok := statsSQL[s.Group]
	if !ok {
		return nil, domain.Reading{}, fmt.Errorf("statistics cannot be grouped by %.40q", s.Group)
	}
	rows, reading, err := read(ctx, r, query[domain.StatsRow]{
		table: "stats", sql: sql, scan: scanStats,
		args: []any{s.From.UTC(), s.To.UTC(), int64(maxStatsRows + 1)},
	}, account, atLeast)
	if err == nil && len(rows) > maxStatsRows {
		return nil, reading, fmt.Errorf("%w: more than %d groups", ErrTooMany, maxStatsRows)
	}
	return rows, reading, err
}

// query is one question to one projection, about shard $1 and account $2.
type query[T any] struct {
	table string
	sql   string
	args  []any // from $3 on
	scan  func(scan func(dest ...any) error) (T, error)
}

// read asks; where the answer does not include what it is to include, it waits and asks once more.
func read[T any](ctx context.Context, r *Reader, q query[T], account string, atLeast domain.Position) ([]T, domain.Reading, error) {
	shard := domain.ShardOf(account, r.meta.Shards)
	rows, reading, err := ask(ctx, r, q, shard, account)
	if err == nil && reading.Behind > 0 {
		var want domain.Position
		if want, err = r.wanted(ctx, shard, account, reading, atLeast); err == nil && want.Seq > reading.Position.Seq {
			if err = r.follow(ctx, q.table, want); err == nil {
				rows, reading, err = ask(ctx, r, q, shard, account)
			}
		}
	}
	if err != nil {
		return nil, domain.Reading{}, fmt.Errorf("reading the projection %s: %w", q.table, err)
	}
	return rows, reading, nil
}

// wanted is what an answer that is behind should include: the account's last event, or atLeast if that
// is later and the ledger has it.
func (r *Reader) wanted(ctx context.Context, shard int32, account string, reading domain.Reading, atLeast domain.Position) (domain.Position, error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	want := domain.Position{Shard: shard}
	err := r.pool.QueryRow(ctx, `SELECT coalesce(max(last_seq), 0) FROM ledger_accounts WHERE shard = $1 AND account = $2`,
		shard, account).Scan(&want.Seq)
	if head := reading.Position.Seq + reading.Behind; atLeast.Shard == shard && atLeast.Seq <= head {
		want.Seq = max(want.Seq, atLeast.Seq)
	}
	return want, err
}

// follow waits until a projection has reached a position, but not for long.
func (r *Reader) follow(ctx context.Context, table string, want domain.Position) error {
	until := time.Now().Add(followTime)
	for pause := followFirst; time.Now().Before(until); pause = min(2*pause, followLong) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		reached, err := r.reached(ctx, table, want)
		if err != nil || reached {
			return err
		}
	}
	return nil
}

func (r *Reader) reached(ctx context.Context, table string, want domain.Position) (reached bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	err = r.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM projection_positions WHERE projection = $1 AND shard = $2 AND seq >= $3)`,
		table, want.Shard, want.Seq).Scan(&reached)
	return reached, err
}

// The answers begin with where the projection stands and where the ledger's shard ends. They have one
// row at least, in which the fourth column, the answer's first, is null where there is nothing.
const (
	ofReading   = 3
	readingHead = `SELECT coalesce(p.seq, 0), p.occurred_at, h.last_seq, x.* FROM ledger_shards h
		LEFT JOIN projection_positions p ON p.shard = h.shard AND p.projection = `
	readingTail = ` ON true WHERE h.shard = $1`

	balanceSQL = readingHead + `'balances' LEFT JOIN LATERAL (
		SELECT available::text, reserved::text, credit_limit::text, frozen, last_seq
		FROM balances WHERE shard = $1 AND account = $2) x` + readingTail

	transactionsSQL = readingHead + `'transactions' LEFT JOIN LATERAL (
		SELECT seq, id, kind, amount::text, reference, reason, surface, model, request_id, occurred_at
		FROM transactions WHERE shard = $1 AND account = $2 ORDER BY seq DESC LIMIT $3 OFFSET $4) x` + readingTail + `
		ORDER BY x.seq DESC`
)

// statsSQL is what each group is asked by. An hour or day is a time, a model or provider a name.
var statsSQL = map[domain.StatsGroup]string{
	domain.StatsByHour:     statsBy(`''::text`, `hour`, `x.start`),
	domain.StatsByDay:      statsBy(`''::text`, `date_trunc('day', hour, 'UTC')`, `x.start`),
	domain.StatsByModel:    statsBy(`model`, `NULL::timestamptz`, `x.amount DESC, x.name COLLATE "C"`),
	domain.StatsByProvider: statsBy(`provider`, `NULL::timestamptz`, `x.amount DESC, x.name COLLATE "C"`),
}

func statsBy(name, start, order string) string {
	return readingHead + `'stats' LEFT JOIN LATERAL (
		SELECT ` + name + ` AS name, ` + start + ` AS start, ` + statsSums() + `, sum(amount) AS amount
		FROM stats WHERE shard = $1 AND account = $2 AND hour >= $3 AND hour < $4 GROUP BY 1, 2 LIMIT $5) x` + readingTail + `
		ORDER BY ` + order
}

// statsSums are the sums of a group, as scanStats reads them; of no rows they are 0.
func statsSums() string {
	var sums strings.Builder
	for _, column := range append([]string{"requests"}, meterColumns()...) {
		fmt.Fprintf(&sums, "coalesce(sum(%s), 0)::bigint, ", column)
	}
	return sums.String() + `coalesce(sum(amount), 0)::text, coalesce(sum(cost), 0)::text`
}

// ask puts the question, in one statement.
func ask[T any](ctx context.Context, r *Reader, q query[T], shard int32, account string) (out []T, reading domain.Reading, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	rows, err := r.pool.Query(ctx, q.sql, append([]any{shard, account}, q.args...)...)
	if err != nil {
		return nil, reading, err
	}
	defer rows.Close()
	var seq, head int64
	var at pgtype.Timestamptz
	known := false
	for rows.Next() {
		known = true
		dest := []any{&seq, &at, &head}
		if rows.RawValues()[ofReading] == nil {
			err = rows.Scan(append(dest, make([]any, len(rows.RawValues())-ofReading)...)...)
		} else {
			var row T
			row, err = q.scan(func(more ...any) error { return rows.Scan(append(dest, more...)...) })
			out = append(out, row)
		}
		if err != nil {
			return nil, reading, err
		}
	}
	if err := rows.Err(); err != nil {
		return nil, reading, err
	}
	if !known {
		return nil, reading, fmt.Errorf("ledger_shards has no row for shard %d", shard)
	}
	return out, readingOf(shard, seq, head, at), nil
}

// readingOf tells how current a position is. An answer that includes all there is, is of now.
func readingOf(shard int32, seq, head int64, at pgtype.Timestamptz) domain.Reading {
	r := domain.Reading{Position: domain.Position{Shard: shard, Seq: seq}, Behind: max(0, head-seq)}
	switch {
	case r.Behind == 0:
		r.AsOf = domain.EventTime(time.Now())
	case seq > 0:
		r.AsOf = at.Time.UTC()
	}
	return r
}

func scanBalance(scan func(...any) error) (*domain.Account, error) {
	var a domain.Account
	var available, reserved, limit string
	if err := scan(&available, &reserved, &limit, &a.Frozen, &a.LastSeq); err != nil {
		return nil, err
	}
	return &a, parseAmounts([]string{available, reserved, limit}, &a.Available, &a.Reserved, &a.CreditLimit)
}

func scanTransaction(scan func(...any) error) (domain.Transaction, error) {
	var t domain.Transaction
	var id [16]byte
	var request pgtype.UUID // null where there is none, and then uuid.Nil
	var amount string
	err := scan(&t.Seq, &id, &t.Kind, &amount, &t.Reference, &t.Reason, &t.Surface, &t.Model, &request, &t.OccurredAt)
	if err != nil {
		return t, err
	}
	t.ID, t.RequestID, t.OccurredAt = id, request.Bytes, t.OccurredAt.UTC()
	return t, parseAmounts([]string{amount}, &t.Amount)
}

func scanStats(scan func(...any) error) (domain.StatsRow, error) {
	var row domain.StatsRow
	var start pgtype.Timestamptz // null where the group is a name, and then the zero time
	var amount, cost string
	dest := []any{&row.Name, &start, &row.Requests}
	for i := range row.Meters {
		dest = append(dest, &row.Meters[i])
	}
	if err := scan(append(dest, &amount, &cost, nil)...); err != nil {
		return row, err
	}
	row.Start = start.Time.UTC()
	return row, parseAmounts([]string{amount, cost}, &row.Amount, &row.Cost)
}

// parseAmounts reads numerics as the database writes them.
func parseAmounts(texts []string, into ...*domain.Amount) (err error) {
	for i, text := range texts {
		if *into[i], err = domain.ParseAmount(text); err != nil {
			return err
		}
	}
	return nil
}
