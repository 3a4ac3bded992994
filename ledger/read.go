package ledger

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"llm-gateway/domain"
)

const (
	poolConns = 8               // connections that read
	readTime  = 5 * time.Second // one read
)

// Reader answers questions from the ledger's tables, on connections apart from those that append.
// What it answers was committed. It is safe for concurrent use.
type Reader struct {
	pool *pgxpool.Pool
	meta Meta
}

// OpenReader connects to an initialised ledger for reading only.
func OpenReader(ctx context.Context, c Config) (*Reader, error) {
	conn, err := ConnConfig(c.URL, c.Role, c.Pooled)
	if err != nil {
		return nil, err
	}
	config, err := pgxpool.ParseConfig("")
	if err != nil {
		return nil, err
	}
	conn.Tracer = c.PoolTracer
	config.ConnConfig, config.MaxConns = conn, poolConns
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	meta, err := readMeta(ctx, pool)
	if err != nil {
		pool.Close()
		return nil, err
	}
	return &Reader{pool: pool, meta: meta}, nil
}

// Close closes the connections.
func (r *Reader) Close() { r.pool.Close() }

// Meta says which ledger this is.
func (r *Reader) Meta() Meta { return r.meta }

// Pool gives the connections to those who keep tables beside the ledger's.
func (r *Reader) Pool() *pgxpool.Pool { return r.pool }

// ClockSkew is how far this process's clock is ahead of Postgres's; half the round trip is what it
// may be off by.
func (r *Reader) ClockSkew(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	var server time.Time
	began := time.Now()
	if err := r.pool.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&server); err != nil {
		return 0, err
	}
	took := time.Since(began)
	return began.Add(took / 2).Sub(server), nil
}

const selectAccount = `SELECT account, available::text, reserved::text, credit_limit::text, frozen, last_seq
	FROM ledger_accounts WHERE shard = $1 AND account = $2`

// Account returns an account as it is now, or nil where it is not open.
func (r *Reader) Account(ctx context.Context, name string) (*domain.Account, error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	a, err := scanAccount(r.pool.QueryRow(ctx, selectAccount, domain.ShardOf(name, r.meta.Shards), name))
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return a, err
}

// Request returns the events of one request of an account, in order; none where there is no such
// request, or it is another account's.
func (r *Reader) Request(ctx context.Context, account string, id uuid.UUID) ([]domain.Recorded, error) {
	// A settlement's events follow each other: a commit, and a refund or an overage.
	return r.recorded(ctx, `SELECT e.payload, e.hash FROM ledger_reservations r
		JOIN ledger_events e ON e.shard = r.shard AND e.request_id = r.request_id
			AND e.seq = ANY(ARRAY[r.reserved_seq, r.settled_seq, r.settled_seq + 1, r.settled_seq + 2, r.late_seq])
		WHERE r.shard = $1 AND r.request_id = $2 AND r.account = $3 ORDER BY e.seq`,
		domain.ShardOf(account, r.meta.Shards), pgUUID(id), account)
}

// Response returns the answer that was kept of an account's request, or nil.
func (r *Reader) Response(ctx context.Context, account string, id uuid.UUID) (*domain.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	var kept domain.Response
	err := r.pool.QueryRow(ctx, `SELECT a.body, a.broken FROM ledger_responses a
		JOIN ledger_reservations r ON r.shard = a.shard AND r.request_id = a.request_id
		WHERE a.shard = $1 AND a.request_id = $2 AND r.account = $3`,
		domain.ShardOf(account, r.meta.Shards), pgUUID(id), account).Scan(&kept.Body, &kept.Broken)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &kept, nil
}

// transactionKinds are the events that move money into or out of an account: what a statement
// lists. available + reserved is their sum.
var transactionKinds = []string{
	string(domain.KindCredit), string(domain.KindDebit), string(domain.KindCommit), string(domain.KindOverage),
}

func isTransaction(k domain.Kind) bool {
	return slices.Contains(transactionKinds, string(k))
}

// Transactions returns an account's movements of money in or out, newest first.
func (r *Reader) Transactions(ctx context.Context, account string, limit, offset int) ([]domain.Recorded, error) {
	return r.recorded(ctx, `SELECT payload, hash FROM ledger_events
		WHERE shard = $1 AND account = $2 AND kind = ANY($3) ORDER BY seq DESC LIMIT $4 OFFSET $5`,
		domain.ShardOf(account, r.meta.Shards), account, transactionKinds, limit, offset)
}

func (r *Reader) recorded(ctx context.Context, sql string, args ...any) ([]domain.Recorded, error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	rows, err := r.pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (domain.Recorded, error) {
		var payload, hash []byte
		if err := row.Scan(&payload, &hash); err != nil {
			return domain.Recorded{}, err
		}
		e, err := domain.Decode(payload)
		if err != nil {
			return domain.Recorded{}, err
		}
		return domain.Recorded{Event: *e, Payload: payload, Hash: domain.Hash(hash)}, nil
	})
}
