package projections

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"llm-gateway/domain"
)

// maxSample bounds the rows that are shown beside each other.
const maxSample = 20

// SourceLive is the live table, beside the sources of a rebuild.
const SourceLive = "live"

// Digest is a table in one line: two tables have the same rows exactly if they have the same digest.
type Digest struct {
	Source string `json:"source"` // live, topic or ledger
	Exists bool   `json:"exists"` // false: there is no live table
	Rows   int64  `json:"rows"`
	SHA256 string `json:"sha256"` // hex; of the rows as text, in the order of their keys
}

// SampleRow is one row in the three tables; "" where it is not there.
type SampleRow struct {
	Key    string `json:"key"`
	Live   string `json:"live"`
	Topic  string `json:"topic"`
	Ledger string `json:"ledger"`
}

// Sides are a projection's live table, one made from the topic and one made from the ledger, all at
// the same position.
type Sides struct {
	Projection string            `json:"projection"`
	Positions  []domain.Position `json:"positions"` // by shard
	Digests    [3]Digest         `json:"digests"`   // live, topic, ledger
	Sample     []SampleRow       `json:"sample"`    // the first rows by key
	// FilledFromLedger is how many events of the topic's side the topic did not have yet.
	FilledFromLedger int64         `json:"filled_from_ledger"`
	Took             time.Duration `json:"took_ns"`
}

// Equal says whether the three are the same, to the last digit.
func (s *Sides) Equal() bool {
	same := func(d Digest) bool { return d.Exists && d.SHA256 == s.Digests[0].SHA256 && d.Rows == s.Digests[0].Rows }
	return !slices.ContainsFunc(s.Digests[:], func(d Digest) bool { return !same(d) })
}

// SideBySide makes a projection from the topic and from the ledger and shows both beside the live one,
// at one position: the live table's, or where there is none the ledger's end. It changes nothing.
func SideBySide(ctx context.Context, c RebuildConfig, name string) (*Sides, error) {
	if c.Topic == nil {
		return nil, fmt.Errorf("%s side by side: there is no topic", name)
	}
	pool, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	out, began := &Sides{Projection: name}, time.Now()
	err = c.alone(ctx, pool, "sides:"+name, func(ctx context.Context) error { return c.sides(ctx, pool, out) })
	if err != nil {
		return nil, fmt.Errorf("%s side by side: %w", name, err)
	}
	out.Took = time.Since(began)
	return out, nil
}

func (c RebuildConfig) sides(ctx context.Context, pool *pgxpool.Pool, out *Sides) error {
	var both [2]*builder
	for i, from := range []History{c.Topic, nil} {
		b, err := c.builder(pool, out.Projection, out.Projection+"_side_"+strconv.Itoa(i+1), from)
		if err != nil {
			return err
		}
		defer b.discard(ctx)
		if err := b.build(ctx); err != nil {
			return err
		}
		both[i] = b
	}
	_, exists, err := both[0].livePositions(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, compareTime)
	defer cancel()
	err = both[0].inTx(ctx, beginCompare, func(tx pgx.Tx) error { return out.fill(ctx, tx, both, exists) })
	out.FilledFromLedger = both[0].result.FilledFromLedger
	return err
}

// fill brings both tables to one position and digests all three, in one dbtx.
func (s *Sides) fill(ctx context.Context, tx pgx.Tx, both [2]*builder, exists bool) error {
	to := seqs(both[0].at)
	for shard := range to {
		to[shard] = max(to[shard], both[1].at[shard].seq)
	}
	if exists {
		at, err := both[0].meetLive(ctx, tx)
		if err != nil {
			return err
		}
		to = seqs(at)
	}
	for _, b := range both {
		if err := b.reach(ctx, tx, to, b.topic); err != nil {
			return err
		}
	}
	s.Positions = places(both[0].at)
	tables := [3]string{both[0].live(), both[0].table, both[1].table}
	for i, source := range [3]string{SourceLive, SourceTopic, SourceLedger} {
		s.Digests[i] = Digest{Source: source, Exists: i > 0 || exists}
		if err := s.Digests[i].take(ctx, tx, both[0].projection, tables[i]); err != nil {
			return fmt.Errorf("digesting %s: %w", tables[i], err)
		}
	}
	if !exists {
		tables[0] = "" // shown as empty
	}
	return s.sample(ctx, tx, both[0].projection, tables)
}

// take reads a table row by row: however big it is, it is never in memory. What COPY writes for these
// columns depends on nothing but their values, so that psql and sha256sum come to the same.
func (d *Digest) take(ctx context.Context, tx pgx.Tx, p projection, table string) error {
	if !d.Exists {
		return nil
	}
	key, others := p.columns()
	hash := sha256.New()
	tag, err := tx.Conn().PgConn().CopyTo(ctx, hash, `COPY (SELECT `+strings.Join(append(slices.Clone(key), others...), ", ")+
		` FROM `+quoted(table)+` ORDER BY `+inOrder(key)+`) TO STDOUT`)
	d.Rows, d.SHA256 = tag.RowsAffected(), hex.EncodeToString(hash.Sum(nil))
	return err
}

// inOrder orders by a key in the same way on every server, whatever its collation.
func inOrder(key []string) string {
	out := make([]string, len(key))
	for i, k := range key {
		out[i] = k
		if slices.Contains(textKeys, k) {
			out[i] += ` COLLATE "C"`
		}
	}
	return strings.Join(out, ", ")
}

// textKeys are the columns in keys that are text.
var textKeys = []string{"account", "model", "provider"}

// sample shows the first rows of the three tables beside each other; of a table "", none.
func (s *Sides) sample(ctx context.Context, tx pgx.Tx, p projection, tables [3]string) error {
	key, others := p.columns()
	sql := make([]string, len(tables))
	for i, table := range tables {
		none := ""
		if table == "" {
			table, none = tables[1], " WHERE false"
		}
		sql[i] = fmt.Sprintf(`(SELECT %s, concat_ws(' ', %s) AS text%d FROM %s%s)`, strings.Join(key, ", "), labelled(others), i, quoted(table), none)
	}
	using := ` USING (` + strings.Join(key, ", ") + `) `
	rows, err := tx.Query(ctx, `SELECT concat_ws(' ', `+labelled(key)+`), coalesce(text0, ''), coalesce(text1, ''), coalesce(text2, '')
		FROM `+sql[0]+` l FULL JOIN `+sql[1]+` t`+using+`FULL JOIN `+sql[2]+` g`+using+`
		ORDER BY `+inOrder(key)+` LIMIT `+strconv.Itoa(maxSample))
	if err != nil {
		return fmt.Errorf("sampling: %w", err)
	}
	s.Sample, err = pgx.CollectRows(rows, pgx.RowToStructByPos[SampleRow])
	return err
}

// labelled is an expression list of texts name=value.
func labelled(columns []string) string {
	out := make([]string, len(columns))
	for i, c := range columns {
		out[i] = `'` + c + `=' || ` + c
	}
	return strings.Join(out, ", ")
}
