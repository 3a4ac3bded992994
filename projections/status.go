package projections

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"llm-gateway/domain"
)

// StatusRow is how far one projection is in one shard.
type StatusRow struct {
	Projection string          `json:"projection"`
	Shard      int32           `json:"shard"`
	Position   domain.Position `json:"-"`
	Seq        int64           `json:"seq"`    // of the last event applied; 0: none
	Head       int64           `json:"head"`   // where the ledger's shard ends
	Behind     int64           `json:"behind"` // events between the two
	AsOf       time.Time       `json:"as_of"`  // when that event occurred; where nothing is missing, now
	Exists     bool            `json:"exists"` // false: the table is gone, and a rebuild makes it
}

// Status returns how far every projection is in every shard, of one moment.
func (r *Reader) Status(ctx context.Context) ([]StatusRow, error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	names := make([]string, len(all))
	for i, p := range all {
		names[i] = p.name()
	}
	rows, err := r.pool.Query(ctx, `SELECT n.name, h.shard, coalesce(p.seq, 0), p.occurred_at, h.last_seq, to_regclass(quote_ident(n.name)) IS NOT NULL
		FROM unnest($1::text[]) WITH ORDINALITY AS n(name, place) CROSS JOIN ledger_shards h
		LEFT JOIN projection_positions p ON p.projection = n.name AND p.shard = h.shard ORDER BY n.place, h.shard`, names)
	if err != nil {
		return nil, fmt.Errorf("reading the projections' positions: %w", err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (StatusRow, error) {
		var s StatusRow
		var at pgtype.Timestamptz
		if err := row.Scan(&s.Projection, &s.Shard, &s.Seq, &at, &s.Head, &s.Exists); err != nil {
			return s, err
		}
		reading := readingOf(s.Shard, s.Seq, s.Head, at)
		s.Position, s.Behind, s.AsOf = reading.Position, reading.Behind, reading.AsOf
		return s, nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the projections' positions: %w", err)
	}
	return out, nil
}
