package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"llm-gateway/domain"
	"llm-gateway/ledger/topic"
)

// ErrNotInitialised says that the database holds no ledger yet (`llm-gateway migrate` makes one).
var ErrNotInitialised = errors.New("the ledger is not initialised")

// Meta is which ledger a database holds. It is fixed when the ledger is initialised.
type Meta struct {
	ID       uuid.UUID `json:"ledger_id"`
	Shards   int       `json:"shards"`
	Currency string    `json:"currency"`
}

// Check refuses a configuration for another ledger (ErrMismatch): 0 and "" ask for nothing.
func (m Meta) Check(shards int, currency string) error {
	if shards != 0 && shards != m.Shards {
		return fmt.Errorf("%w: LEDGER_SHARDS is %d, but this ledger was initialised with %d and keeps that for good",
			ErrMismatch, shards, m.Shards)
	}
	if currency != "" && currency != m.Currency {
		return fmt.Errorf("%w: BILLING_CURRENCY is %s, but this ledger was initialised in %s and keeps that for good",
			ErrMismatch, currency, m.Currency)
	}
	return nil
}

// source is ce_source of the ledger's records in the topic.
func (m Meta) source() string { return topic.Source(m.ID) }

// querier is what a connection, a pool and a dbtx have in common.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func readMeta(ctx context.Context, q querier) (Meta, error) {
	var m Meta
	var id [16]byte
	err := q.QueryRow(ctx, `SELECT id, shards, currency FROM ledger_meta`).Scan(&id, &m.Shards, &m.Currency)
	m.ID = id
	pg := new(pgconn.PgError)
	if errors.Is(err, pgx.ErrNoRows) || errors.As(err, &pg) && pg.Code == "42P01" {
		return Meta{}, ErrNotInitialised
	}
	return m, err
}

// Init makes the ledger in a migrated database: its id, its shards, their genesis hashes. Where
// there is one already it changes nothing, and refuses (ErrMismatch) another number of shards or
// another currency. It runs as the tables' owner; the service's role has no right to it.
func Init(ctx context.Context, config *pgx.ConnConfig, id uuid.UUID, shards int, currency string) (Meta, error) {
	if shards < 1 || shards > domain.MaxShards {
		return Meta{}, fmt.Errorf("LEDGER_SHARDS must be from 1 to %d, not %d", domain.MaxShards, shards)
	}
	if err := domain.CheckCurrency(currency); err != nil {
		return Meta{}, fmt.Errorf("BILLING_CURRENCY: %w", err)
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return Meta{}, err
	}
	defer drop(conn)
	tx, err := conn.Begin(ctx)
	if err != nil {
		return Meta{}, err
	}
	tag, err := tx.Exec(ctx, `INSERT INTO ledger_meta (id, shards, currency) VALUES ($1, $2, $3)
		ON CONFLICT (singleton) DO NOTHING`, pgUUID(id), shards, currency)
	if err != nil {
		return Meta{}, err
	}
	if tag.RowsAffected() == 1 {
		if err := insertShards(ctx, tx, id, shards); err != nil {
			return Meta{}, err
		}
	}
	if err := tx.Commit(ctx); err != nil {
		return Meta{}, err
	}
	m, err := readMeta(ctx, conn)
	if err != nil {
		return Meta{}, err
	}
	return m, m.Check(shards, currency)
}

func insertShards(ctx context.Context, tx pgx.Tx, id uuid.UUID, shards int) error {
	for shard := range int32(shards) {
		genesis := domain.GenesisHash(id, shard)
		_, err := tx.Exec(ctx, `INSERT INTO ledger_shards (shard, last_seq, last_hash, last_time)
			VALUES ($1, 0, $2, 'epoch')`, shard, genesis[:])
		if err != nil {
			return err
		}
	}
	return nil
}
