package projections

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"llm-gateway/domain"
	"llm-gateway/ledger"
)

// The statements that move a position. A table without positions has applied nothing: its first step
// in a shard makes the row.
const (
	movePosition = `UPDATE projection_positions SET seq = $4, hash = $5, occurred_at = $6, next_offset = $7
		WHERE projection = $1 AND shard = $2 AND seq = $3`
	beginPosition = `INSERT INTO projection_positions AS p (projection, shard, seq, hash, occurred_at, next_offset)
		VALUES ($1, $2, $4, $5, $6, $7) ON CONFLICT (projection, shard) DO UPDATE SET seq = excluded.seq,
			hash = excluded.hash, occurred_at = excluded.occurred_at, next_offset = excluded.next_offset
		WHERE p.seq = $3`
	selectMeta      = `SELECT id, shards FROM ledger_meta`
	selectPositions = `SELECT shard, seq, hash, occurred_at, next_offset FROM projection_positions WHERE projection = $1`
	// insertPosition leaves a row that is there alone, and does not wait for whoever is just moving it.
	insertPosition = `INSERT INTO projection_positions (projection, shard, seq, hash, occurred_at)
		SELECT $1::text, $2::int, 0, $3::bytea, $4::timestamptz
		WHERE NOT EXISTS (SELECT FROM projection_positions WHERE projection = $1 AND shard = $2)
		ON CONFLICT (projection, shard) DO NOTHING`
)

// noPosition is that of a shard of an empty table.
func noPosition(id uuid.UUID, shard int32) position {
	return position{hash: domain.GenesisHash(id, shard), at: time.Unix(0, 0).UTC()}
}

// readPositions returns the positions of a table, by shard; a table that has none yet is given those
// of an empty one.
func readPositions(ctx context.Context, tx pgx.Tx, table string) ([]position, error) {
	var id [16]byte
	var shards int
	if err := tx.QueryRow(ctx, selectMeta).Scan(&id, &shards); err != nil {
		return nil, fmt.Errorf("reading which ledger this is: %w", err)
	}
	out := make([]position, shards)
	for shard := range out {
		out[shard] = noPosition(id, int32(shard))
	}
	found, err := tx.Query(ctx, selectPositions, table)
	if err != nil {
		return nil, fmt.Errorf("reading the positions of %s: %w", table, err)
	}
	defer found.Close()
	for found.Next() {
		var shard int32
		var p position
		var hash []byte
		if err := found.Scan(&shard, &p.seq, &hash, &p.at, &p.offset); err != nil {
			return nil, fmt.Errorf("reading the positions of %s: %w", table, err)
		}
		if shard < 0 || int(shard) >= shards {
			return nil, fmt.Errorf("%w: %s has a position in shard %d of %d", errBroken, table, shard, shards)
		}
		p.hash, p.at = domain.Hash(hash), p.at.UTC()
		out[shard] = p
	}
	return out, found.Err()
}

// ensurePositions makes the rows of live tables that have none, so that whoever asks how far a
// projection is finds it at the beginning rather than nowhere.
func ensurePositions(ctx context.Context, tx pgx.Tx, m ledger.Meta) error {
	b := &pgx.Batch{}
	for _, p := range all {
		for shard := range int32(m.Shards) {
			none := noPosition(m.ID, shard)
			b.Queue(insertPosition, p.name(), shard, none.hash[:], none.at)
		}
	}
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("making the positions: %w", err)
	}
	return nil
}
