package ledger

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"llm-gateway/domain"
)

// MaxEvents bounds one call of Events.
const MaxEvents = 10_000

// Events returns up to limit of a shard's events behind seq after, in order. It is how everything
// that follows the ledger fills a gap, and how it begins.
func (r *Reader) Events(ctx context.Context, shard int32, after int64, limit int) ([]domain.Recorded, error) {
	events, err := r.recorded(ctx, `SELECT payload, hash FROM ledger_events
		WHERE shard = $1 AND seq > $2 ORDER BY seq LIMIT $3`, shard, after, min(limit, MaxEvents))
	if err != nil {
		return nil, fmt.Errorf("reading shard %d behind %d: %w", shard, after, err)
	}
	return events, nil
}

// Head is the end of a shard, as committed.
type Head struct {
	Shard int32
	Seq   int64 // 0: the shard is empty
	Hash  domain.Hash
	Epoch int64 // how often the shard was recovered
}

// Heads returns every shard's head, in the order of shards.
func (r *Reader) Heads(ctx context.Context) ([]Head, error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	rows, err := r.pool.Query(ctx, `SELECT shard, last_seq, last_hash, epoch FROM ledger_shards ORDER BY shard`)
	if err != nil {
		return nil, fmt.Errorf("reading the heads: %w", err)
	}
	heads, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Head, error) {
		var h Head
		var hash []byte
		if err := row.Scan(&h.Shard, &h.Seq, &hash, &h.Epoch); err != nil {
			return Head{}, err
		}
		h.Hash = domain.Hash(hash)
		return h, nil
	})
	if err == nil && len(heads) != r.meta.Shards {
		err = fmt.Errorf("ledger_shards has %d rows; this ledger has %d shards", len(heads), r.meta.Shards)
	}
	return heads, err
}
