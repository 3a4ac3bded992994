package ledger

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"llm-gateway/domain"
)

// MaxEvents bounds one call of Events.
const MaxEvents = 10_000

// pageOf is the statement that reads some columns of a page: of shard $1 the first event behind seq $2, wherever that
// is, and the rest of the $3 seqs from there on. It has as many events, unless the shard ends or has a hole there, and
// none only where nothing is behind $2. It bounds the seqs instead of the rows: of a ledger whose statistics nobody
// has gathered yet, such as one just restored, Postgres may read and sort all that it is asked for, whatever the limit.
func pageOf(columns string) string {
	return `WITH page AS (SELECT min(seq) AS first FROM ledger_events WHERE shard = $1 AND seq > $2)
		SELECT ` + columns + ` FROM ledger_events
		WHERE shard = $1 AND seq >= (SELECT first FROM page)
			AND seq <= (SELECT least(first - 1, 9223372036854775807 - $3::bigint) + $3::bigint FROM page)
		ORDER BY seq`
}

var selectPage = pageOf(`payload, hash`)

// Events returns up to limit of a shard's events behind seq after, in order; none where there are none behind it,
// and fewer than limit also before a hole. It is how everything that follows the ledger fills a gap, and how it begins.
func (r *Reader) Events(ctx context.Context, shard int32, after int64, limit int) ([]domain.Recorded, error) {
	events, err := r.recorded(ctx, selectPage, shard, after, min(limit, MaxEvents))
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
