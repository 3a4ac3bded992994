package projections

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"llm-gateway/domain"
)

// maxDifferences is how many differences are listed. All are counted: a table that is wrong as a whole
// must fill neither the memory nor the screen.
const maxDifferences = 50

// beginCompare begins a dbtx that sees one state, from its first query on.
const beginCompare = `begin isolation level repeatable read; set local timezone = 'UTC'`

// Difference is a row that a live table has wrong. The texts name the columns that differ, of a row
// that is missing or extra all.
type Difference struct {
	Kind  string `json:"kind"` // missing, extra, different
	Key   string `json:"key"`
	Live  string `json:"live,omitempty"`
	Fresh string `json:"fresh,omitempty"` // as the events have it
}

// The kinds of differences.
const (
	DifferenceMissing = "missing"   // the live table lacks the row
	DifferenceExtra   = "extra"     // the events do not make the row
	DifferenceValues  = "different" // it has other values
)

// Differences are the rows in which a live table and a fresh one differ.
type Differences struct {
	Missing   int64        `json:"missing"`
	Extra     int64        `json:"extra"`
	Different int64        `json:"different"`
	List      []Difference `json:"list,omitempty"` // the first of them
}

// Count is how many there are.
func (d *Differences) Count() int64 { return d.Missing + d.Extra + d.Different }

func (d *Differences) add(found Difference) {
	switch found.Kind {
	case DifferenceMissing:
		d.Missing++
	case DifferenceExtra:
		d.Extra++
	default:
		d.Different++
	}
	if len(d.List) < maxDifferences {
		d.List = append(d.List, found)
	}
}

// errIncomparable says that the live table is not one that can be compared.
var errIncomparable = errors.New("not to be compared")

// compare holds the live table against the fresh one, at the live one's position. One dbtx sees one
// state of both, and brings the fresh table there: the projector need not stop. Meanwhile Postgres
// cannot vacuum away what was updated since.
func (b *builder) compare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, compareTime)
	defer cancel()
	was, found := slices.Clone(b.at), Differences{}
	var at []position
	err := b.inTx(ctx, beginCompare, func(tx pgx.Tx) (err error) {
		if at, err = b.meetLive(ctx, tx); err == nil {
			found, err = b.differences(ctx, tx, at)
		}
		return err
	})
	switch {
	case err == nil:
		b.result.Compared, b.result.Differences, b.result.Positions = true, found, places(at)
	case errors.Is(err, errIncomparable):
		b.at, b.result.NotCompared = was, err.Error()
	default:
		return fmt.Errorf("comparing %s with %s: %w", b.live(), b.table, err)
	}
	return nil
}

// meetLive brings the fresh table to where the live one is, and returns that. The lock comes before the
// first query, and with it the state that is seen: a table that was swapped in after that would look
// empty.
func (b *builder) meetLive(ctx context.Context, tx pgx.Tx) ([]position, error) {
	if _, err := tx.Exec(ctx, `LOCK TABLE `+quoted(b.live())+` IN ACCESS SHARE MODE`); err != nil {
		return nil, incomparable(err)
	}
	at, err := readPositions(ctx, tx, b.live())
	if err != nil {
		return nil, err
	}
	if behind(seqs(at), seqs(b.at)) {
		return nil, fmt.Errorf("%w: the position of %s went back meanwhile", errIncomparable, b.live())
	}
	return at, b.reach(ctx, tx, seqs(at), b.topic)
}

// incomparable tells a live table that is gone, or has other columns, from what else may happen.
func incomparable(err error) error {
	pg := new(pgconn.PgError)
	if errors.As(err, &pg) && slices.Contains([]string{undefinedTable, "42703", "42804", "42809", "42883"}, pg.Code) {
		return fmt.Errorf("%w: %s", errIncomparable, pg.Message)
	}
	return err
}

// undefinedTable is the SQLSTATE of a table that is not there.
const undefinedTable = "42P01"

func places(at []position) []domain.Position {
	out := make([]domain.Position, len(at))
	for shard := range at {
		out[shard] = domain.Position{Shard: int32(shard), Seq: at[shard].seq}
	}
	return out
}

// differences reads all rows in which the two tables differ. A live position with another hash is one
// too: the table was made from another history.
func (b *builder) differences(ctx context.Context, tx pgx.Tx, at []position) (Differences, error) {
	var d Differences
	for shard := range at {
		if live, fresh := at[shard].hash, b.at[shard].hash; live != fresh {
			d.add(Difference{DifferenceValues, fmt.Sprintf("position %d:%d", shard, at[shard].seq),
				"hash=" + hex.EncodeToString(live[:]), "hash=" + hex.EncodeToString(fresh[:])})
		}
	}
	key, others := b.projection.columns()
	rows, err := tx.Query(ctx, selectDifferences(b.live(), b.table, key, others))
	if err != nil {
		return d, incomparable(err)
	}
	var keys []string
	var live, fresh []*string // nil: there is no such row
	_, err = pgx.ForEachRow(rows, []any{&keys, &live, &fresh}, func() error {
		d.add(difference(key, others, keys, live, fresh))
		return nil
	})
	return d, incomparable(err)
}

// selectDifferences joins two tables by their key and returns what is not the same in both, each side
// as the texts of its columns.
func selectDifferences(live, fresh string, key, others []string) string {
	side := func(alias string, columns []string, cast string) string {
		out := make([]string, len(columns))
		for i, c := range columns {
			out[i] = alias + "." + quoted(c) + cast
		}
		return strings.Join(out, ", ")
	}
	either, on := make([]string, len(key)), make([]string, len(key))
	for i, k := range key {
		either[i] = fmt.Sprintf("coalesce(l.%[1]s, r.%[1]s)", quoted(k))
		on[i] = fmt.Sprintf("l.%[1]s = r.%[1]s", quoted(k))
	}
	first := quoted(key[0])
	return `SELECT ARRAY[` + strings.Join(either, "::text, ") + `::text],
			CASE WHEN l.` + first + ` IS NOT NULL THEN ARRAY[` + side("l", others, "::text") + `] END,
			CASE WHEN r.` + first + ` IS NOT NULL THEN ARRAY[` + side("r", others, "::text") + `] END
		FROM ` + quoted(live) + ` l FULL JOIN ` + quoted(fresh) + ` r ON ` + strings.Join(on, " AND ") + `
		WHERE l.` + first + ` IS NULL OR r.` + first + ` IS NULL
			OR (` + side("l", others, "") + `) IS DISTINCT FROM (` + side("r", others, "") + `)
		ORDER BY ` + strings.Join(either, ", ")
}

func difference(key, others, keys []string, live, fresh []*string) Difference {
	d := Difference{Kind: DifferenceValues, Key: texts(key, keys)}
	var l, f []string
	switch {
	case live == nil:
		d.Kind, f = DifferenceMissing, values(others, fresh, nil)
	case fresh == nil:
		d.Kind, l = DifferenceExtra, values(others, live, nil)
	default:
		l, f = values(others, live, fresh), values(others, fresh, live)
	}
	d.Live, d.Fresh = strings.Join(l, " "), strings.Join(f, " ")
	return d
}

func texts(names, of []string) string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = name + "=" + of[i]
	}
	return strings.Join(out, " ")
}

// values names the columns, where there is another side only those that differ from it.
func values(names []string, of, from []*string) (out []string) {
	text := func(s *string) string {
		if s == nil {
			return "null"
		}
		return *s
	}
	for i, name := range names {
		if from == nil || text(of[i]) != text(from[i]) {
			out = append(out, name+"="+text(of[i]))
		}
	}
	return out
}
