package ledger

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"llm-gateway/domain"
	"llm-gateway/ledger/topic"
)

// verifyPage is how many events one statement of Verify reads.
const verifyPage = 2000

// ServiceRole is the role that everything but `migrate` works as; the migrations make it.
const ServiceRole = "llm_gateway"

// Progress is told how far a shard has been read: seq of last events. It may be nil.
type Progress func(shard int32, seq, last int64)

// Copy is a copy of the events outside Postgres: the topic.
type Copy interface {
	// Scan reads a shard's committed records in order, from the first one to where they end when it is
	// called or later.
	Scan(ctx context.Context, shard int32) iter.Seq2[*topic.Record, error]
}

// VerifyOptions say what Verify asks beside the ledger itself.
type VerifyOptions struct {
	Progress Progress
	Topic    Copy // nil: the topic is not asked, and the report says so
}

// Verify reads the whole ledger in one database transaction that sees one state, beside whoever is
// writing, and holds everything that is derived against the events: chain, columns, heads, balances,
// reservations, references, and that the database still refuses to change events; and, where it is
// asked, the topic. What it finds is in the report; an error means that it could not read. It keeps the
// accounts, reservations and references of one shard in memory at a time, never the events.
//
// While it runs, Postgres cannot vacuum away what was updated since it began.
func (r *Reader) Verify(ctx context.Context, o VerifyOptions) (*Report, error) {
	began := time.Now()
	tx, err := r.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // nothing was written
	report, err := verify(ctx, tx, r.pool, o)
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	report.Seconds = time.Since(began).Seconds()
	return report, nil
}

// verify is Verify in a database transaction that sees one state; now sees what is committed now.
func verify(ctx context.Context, tx, now querier, o VerifyOptions) (*Report, error) {
	meta, err := readMeta(ctx, tx)
	if err != nil {
		return nil, err
	}
	v := &verifier{tx: tx, now: now, meta: meta, report: newReport(meta, o.Topic != nil), progress: o.Progress,
		topic: o.Topic, heads: map[int32]headRow{}}
	if err := v.run(ctx); err != nil {
		return nil, err
	}
	v.report.balance()
	v.report.Clean = len(v.report.Counts) == 0
	return v.report, nil
}

// verifier is one run of Verify.
type verifier struct {
	tx, now  querier
	meta     Meta
	report   *Report
	progress Progress
	topic    Copy // may be nil
	heads    map[int32]headRow
}

// headRow is a row of ledger_shards as it is, which may be nothing that the writer would write.
type headRow struct {
	seq  int64
	hash []byte
	time pgtype.Timestamptz
}

func (v *verifier) run(ctx context.Context) error {
	for _, step := range []func(context.Context) error{v.readHeads, v.strays, v.triggers, v.rights} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	for shard := range int32(v.meta.Shards) {
		s := newShardCheck(v, shard)
		for _, step := range []func(context.Context) error{s.replay, s.ids, s.accounts, s.reservations, s.references, s.copied} {
			if err := step(ctx); err != nil {
				return fmt.Errorf("shard %d: %w", shard, err)
			}
		}
	}
	return nil
}

// each calls scan for every row of a query.
func (v *verifier) each(ctx context.Context, scan func(pgx.Rows) error, sql string, args ...any) error {
	return eachOf(ctx, v.tx, scan, sql, args...)
}

func eachOf(ctx context.Context, q querier, scan func(pgx.Rows) error, sql string, args ...any) error {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// readHeads loads ledger_shards: a row for each shard and for no other.
func (v *verifier) readHeads(ctx context.Context) error {
	err := v.each(ctx, func(rows pgx.Rows) error {
		var shard int32
		var h headRow
		if err := rows.Scan(&shard, &h.seq, &h.hash, &h.time); err != nil {
			return err
		}
		v.heads[shard] = h
		if shard < 0 || int(shard) >= v.meta.Shards {
			v.report.findf(CheckShards, domain.Position{}, "", "ledger_shards has shard %d; this ledger has %d shards", shard, v.meta.Shards)
		}
		return nil
	}, `SELECT shard, last_seq, last_hash, last_time FROM ledger_shards ORDER BY shard`)
	for shard := range int32(v.meta.Shards) {
		if _, ok := v.heads[shard]; !ok && err == nil {
			v.report.findf(CheckShards, domain.Position{}, "", "ledger_shards has no row for shard %d", shard)
		}
	}
	return err
}

// strays looks for rows in shards that the ledger does not have.
func (v *verifier) strays(ctx context.Context) error {
	for _, table := range []string{"ledger_events", "ledger_accounts", "ledger_reservations", "ledger_idempotency"} {
		err := v.each(ctx, func(rows pgx.Rows) error {
			var shard int32
			var n int64
			if err := rows.Scan(&shard, &n); err != nil {
				return err
			}
			v.report.findf(CheckShards, domain.Position{}, "", "%s has %d rows in shard %d; this ledger has %d shards",
				table, n, shard, v.meta.Shards)
			return nil
		}, `SELECT shard, count(*) FROM `+table+` WHERE shard < 0 OR shard >= $1 GROUP BY shard ORDER BY shard`, v.meta.Shards)
		if err != nil {
			return err
		}
	}
	return nil
}

// guards are the triggers that refuse changes, with pg_trigger's bits: BEFORE a statement (2), and
// DELETE (8), UPDATE (16), TRUNCATE (32).
var guards = []struct {
	name string
	bits int16
}{{"ledger_events_immutable", 2 | 8 | 16}, {"ledger_events_no_truncate", 2 | 32}}

// triggers checks that the guards exist, fire always (no WHEN, no columns) and refuse first of all.
func (v *verifier) triggers(ctx context.Context) error {
	type trigger struct {
		enabled string
		bits    int16
		refuses bool
	}
	have := map[string]trigger{}
	err := v.each(ctx, func(rows pgx.Rows) error {
		var name string
		var t trigger
		err := rows.Scan(&name, &t.enabled, &t.bits, &t.refuses)
		have[name] = t
		return err
	}, `SELECT t.tgname::text, t.tgenabled::text, t.tgtype,
			t.tgqual IS NULL AND t.tgattr::text = '' AND p.prosrc ~* '^\s*BEGIN\s+RAISE\s+EXCEPTION\s'
		FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid WHERE t.tgrelid = 'ledger_events'::regclass`)
	for _, g := range guards {
		t, ok := have[g.name]
		switch {
		case err != nil:
		case !ok:
			v.report.findf(CheckImmutable, domain.Position{}, "", "the trigger %s is missing", g.name)
		case t.enabled != "O" && t.enabled != "A":
			v.report.findf(CheckImmutable, domain.Position{}, "", "the trigger %s is disabled", g.name)
		case t.bits != g.bits || !t.refuses:
			v.report.findf(CheckImmutable, domain.Position{}, "", "the trigger %s is not as it was made", g.name)
		}
	}
	return err
}

// rights checks that the service's role could not change events even without the triggers.
func (v *verifier) rights(ctx context.Context) error {
	known := false
	err := v.each(ctx, func(rows pgx.Rows) error {
		var right string
		var has bool
		known = true
		if err := rows.Scan(&right, &has); err != nil {
			return err
		}
		if has {
			v.report.findf(CheckImmutable, domain.Position{}, "", "the role %s has the right to %s ledger_events", ServiceRole, right)
		}
		return nil
	}, `SELECT p.right, has_table_privilege(r.oid, 'ledger_events', p.right)
			OR p.right = 'UPDATE' AND has_any_column_privilege(r.oid, 'ledger_events', 'UPDATE')
		FROM pg_roles r, unnest(ARRAY['UPDATE', 'DELETE', 'TRUNCATE']) AS p("right") WHERE r.rolname = $1`, ServiceRole)
	if err == nil && !known {
		v.report.findf(CheckImmutable, domain.Position{}, "", "the role %s does not exist", ServiceRole)
	}
	return err
}
