package projections

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"llm-gateway/domain"
)

// marginGroups is what each group's name and start are, and the order of the groups.
var marginGroups = map[domain.StatsGroup][3]string{
	domain.StatsByHour:     {`''::text`, `hour`, `x.start`},
	domain.StatsByDay:      {`''::text`, `date_trunc('day', hour, 'UTC')`, `x.start`},
	domain.StatsByModel:    {`model`, `NULL::timestamptz`, byAmount},
	domain.StatsByProvider: {`provider`, `NULL::timestamptz`, byAmount},
	domain.StatsByAccount:  {`account`, `NULL::timestamptz`, byAmount},
}

const byAmount = `x.amount DESC, x.name COLLATE "C"`

// marginsSQL is the question about one group: of shard $1 or all (-1), account $2 or all (”), from $3 to $4,
// $5 rows. The first row is the total, which there always is.
func marginsSQL(g [3]string) string {
	//nolint:unqueryvet // x has just what is named below
	return `SELECT r.behind, r.as_of, x.* FROM
		(SELECT sum(greatest(0, h.last_seq - coalesce(p.seq, 0)))::bigint AS behind,
			min(coalesce(p.occurred_at, 'epoch')) FILTER (WHERE h.last_seq > coalesce(p.seq, 0)) AS as_of
		FROM ledger_shards h LEFT JOIN projection_positions p ON p.shard = h.shard AND p.projection = 'stats'
		WHERE $1::int IN (-1, h.shard)) r CROSS JOIN
		(SELECT grouping(name) = 1 AS whole, name, start, ` + statsSums() + `, sum(amount) AS amount
		FROM (SELECT s.*, ` + g[0] + ` AS name, ` + g[1] + ` AS start FROM stats s
			WHERE $1::int IN (-1, shard) AND $2::text IN ('', account) AND hour >= $3 AND hour < $4) n
		GROUP BY GROUPING SETS ((name, start), ())) x
		ORDER BY x.whole DESC, ` + g[2] + ` LIMIT $5`
}

// Margins returns the consumption of one account or of all, in groups and as a whole, of one moment. It does
// not wait for anything: the answer says what it includes. It reads the statistics of the whole time; what
// takes longer than a read may is an error.
func (r *Reader) Margins(ctx context.Context, q domain.MarginQuery) (domain.Margins, error) {
	group, ok := marginGroups[q.Group]
	if !ok {
		return domain.Margins{}, fmt.Errorf("margins cannot be grouped by %.40q", q.Group)
	}
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	shard, limit := int32(-1), max(0, min(q.Limit, maxStatsRows))
	if q.Account != "" {
		shard = domain.ShardOf(q.Account, r.meta.Shards)
	}
	rows, err := r.pool.Query(ctx, marginsSQL(group), shard, q.Account, q.From.UTC(), q.To.UTC(), int64(limit+2))
	if err != nil {
		return domain.Margins{}, fmt.Errorf("reading the margins: %w", err)
	}
	out, err := collectMargins(rows)
	if err != nil {
		return domain.Margins{}, fmt.Errorf("reading the margins: %w", err)
	}
	if out.More = len(out.Rows) > limit; out.More {
		out.Rows = out.Rows[:limit]
	}
	return out, nil
}

func collectMargins(rows pgx.Rows) (out domain.Margins, err error) {
	defer rows.Close()
	for rows.Next() {
		var at pgtype.Timestamptz
		var whole bool
		var name pgtype.Text // null in the total
		row, err := scanStats(func(more ...any) error {
			more[0] = &name
			return rows.Scan(append([]any{&out.Behind, &at, &whole}, more...)...)
		})
		if err != nil {
			return out, err
		}
		if row.Name = name.String; !whole {
			out.Rows = append(out.Rows, row)
			continue
		}
		out.Total = row.Consumption
		if at.Valid && at.Time.Unix() > 0 {
			out.AsOf = at.Time.UTC()
		}
	}
	return out, rows.Err()
}
