package ledger

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"llm-gateway/domain"
	"llm-gateway/migrations/pgtest"
)

// fillShard makes a ledger whose shard 0 has rows that look like events to Postgres, and of which it knows
// nothing yet: as of a ledger just restored.
func fillShard(t *testing.T, rows int) *pgx.Conn {
	t.Helper()
	conn := owner(t, pgtest.URL(t))
	mustExec(t, conn, `ALTER TABLE ledger_events SET (autovacuum_enabled = off)`)
	mustExec(t, conn, `INSERT INTO ledger_events (shard, seq, schema, id, request_id, kind, account, debit, credit, amount,
			currency, occurred_at, payload, hash)
		SELECT 0, n, 1, gen_random_uuid(), md5(n::text)::uuid, (ARRAY['reserve', 'commit', 'refund'])[n % 3 + 1], 'a' || n % 50,
			'd', 'c', 1, 'USD', now(), convert_to(repeat(md5(n::text), 9), 'UTF8'), sha256(n::text::bytea)
		FROM generate_series(1, $1::int) n`, rows)
	return conn
}

// planned is a part of what EXPLAIN says that Postgres did.
type planned struct {
	Rows    float64   `json:"Actual Rows"`
	Removed float64   `json:"Rows Removed by Filter"`
	Plans   []planned `json:"Plans"`
}

// most is the most rows that one step read.
func (p planned) most() float64 {
	most := p.Rows + p.Removed
	for _, part := range p.Plans {
		most = max(most, part.most())
	}
	return most
}

// TestPages: a page of a long shard costs what a page is, wherever it is, before Postgres has statistics too:
// whoever reads a ledger to its end must not read the rest of it for each page.
func TestPages(t *testing.T) {
	t.Parallel()
	const rows, at, page = 20_000, 5_000, 100
	conn := fillShard(t, rows)
	for name, c := range map[string]struct {
		sql  string
		args []any
	}{
		"verify":      {selectEvents, []any{0, at, page}},
		"its first":   {selectEvents, []any{0, math.MinInt64, page}},
		"Events":      {selectPage, []any{0, at, page}},
		"Audit":       {selectCharges, []any{0, at, at + page}},
		"EachCharge":  {selectSpanCharges, []any{0, at, at + page}},
		"one account": {selectOfAccount, []any{0, "a7", at, rows, page}},
	} {
		var text []byte
		args := append([]any{pgx.QueryExecModeSimpleProtocol}, c.args...)
		if err := conn.QueryRow(t.Context(), `EXPLAIN (ANALYZE, FORMAT JSON) `+c.sql, args...).Scan(&text); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var got []struct{ Plan planned }
		if err := json.Unmarshal(text, &got); err != nil || len(got) != 1 {
			t.Fatalf("%s: %s, %v", name, text, err)
		}
		if most := got[0].Plan.most(); most == 0 || most > 2*page {
			t.Errorf("%s reads %.0f rows for a page of %d", name, most, page)
		}
	}
}

// TestPagesOfHoles: pages tell of every event there is, behind holes and at the ends of what a seq can be.
func TestPagesOfHoles(t *testing.T) {
	t.Parallel()
	p, url := openPostgres(t)
	mustOpen(t, p, "alice", "1")
	for n := range 8 {
		if _, err := p.Append(t.Context(), command("alice", credit("1", fmt.Sprint(n)))); err != nil {
			t.Fatal(err)
		}
	}
	shard := domain.ShardOf("alice", testShards)
	conn := owner(t, url)
	mustExec(t, conn, `ALTER TABLE ledger_events DISABLE TRIGGER ALL`)
	mustExec(t, conn, `ALTER TABLE ledger_events DROP CONSTRAINT ledger_events_seq_check`)
	for from, to := range map[int64]int64{3: -7, 4: 100, 5: math.MaxInt64, 6: math.MinInt64 + 1, 9: math.MaxInt64 - 1} {
		mustExec(t, conn, `UPDATE ledger_events SET seq = $3 WHERE shard = $1 AND seq = $2`, shard, from, to)
	}
	want := []int64{math.MinInt64 + 1, -7, 1, 2, 7, 8, 10, 100, math.MaxInt64 - 1, math.MaxInt64}
	for _, limit := range []int{1, 2, 3, 100} {
		var got []int64
		for after, n := int64(math.MinInt64), 1; n > 0; {
			rows, err := conn.Query(t.Context(), pageOf(`seq`), shard, after, limit)
			if err != nil {
				t.Fatal(err)
			}
			page, err := pgx.CollectRows(rows, pgx.RowTo[int64])
			if err != nil {
				t.Fatal(err)
			}
			if n = len(page); n > limit {
				t.Fatalf("%d events for a limit of %d", n, limit)
			}
			if n > 0 {
				got, after = append(got, page...), page[n-1]
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("by pages of %d: %d, not %d", limit, got, want)
		}
	}
	if report := mustVerify(t, p.Reader); report.Events != int64(len(want)) {
		t.Errorf("verify saw %d events of %d", report.Events, len(want))
	}
}
