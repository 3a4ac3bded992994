package projections

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"llm-gateway/domain"
	"llm-gateway/ledger"
	"llm-gateway/ledger/lease"
	"llm-gateway/ledger/topic"
)

// A projection is rebuilt beside the live one, which goes on being read and moved:
//
//	prepare   an empty table <name>_rebuild, with positions of its own
//	fill      to where the live one was, shard by shard, by the same apply
//	compare   both at the same position, in one dbtx that sees one state
//	catch up  to the end of the ledger
//	swap      a short dbtx in which the projector waits: the last events, the names, the positions
//
// Until the swap commits, nothing that the live table's readers and writers see is touched. Whatever
// ends a rebuild before that leaves at most the table and its positions behind, which the next one
// drops. Two at once are kept apart by a lease; should it fail, by the positions of the fresh table,
// which move only from where a step begins.

// The bounds of a rebuild.
const (
	rebuildConns  = fillShards + 2        // connections: the filling, the lease, and one to ask
	prepareTime   = 30 * time.Second      // a statement that makes or drops a table
	compareTime   = 15 * time.Minute      // a comparison, which reads two tables whole
	liveWait      = 3 * time.Second       // for a projector at work to reach the end of the fresh table
	liveEvery     = 20 * time.Millisecond // between two looks at it
	leaseWait     = lease.Term + lease.Every
	discardTime   = 5 * time.Second
	projectedRows = `SELECT count(*) FROM `
)

// The dbtx that fill are not waited for: what a crash of the server takes of them it takes with the
// table's positions, and the swap's own COMMIT is waited for.
const (
	beginPrepare = `begin; set local lock_timeout = '5s'`
	beginFill    = `begin; set local synchronous_commit = off`
)

// ErrRunning says that another process does the same, or died less than a lease ago.
var ErrRunning = errors.New("another process is at it")

// Events are a ledger's, to be read in order: up to limit of a shard's behind seq after.
// *ledger.Reader has them.
type Events interface {
	Events(ctx context.Context, shard int32, after int64, limit int) ([]domain.Recorded, error)
}

// History is a ledger's topic as a whole. Scan reads a shard from the first record to where they end
// now; Consume goes on from offsets. *topic.Topic has both.
type History interface {
	Scan(ctx context.Context, shard int32) iter.Seq2[*topic.Record, error]
	Consume(offsets []int64) (*topic.Consumer, error)
}

// RebuildConfig says where the tables are, and what they are made from.
type RebuildConfig struct {
	Owner    *pgx.ConnConfig // connects as the owner of the tables
	Meta     ledger.Meta
	Ledger   Events  // needed with a topic too: for what that does not have yet
	Topic    History // nil: the ledger is the source
	Progress Progress
	Log      *slog.Logger // nil = slog.Default()

	patience time.Duration // with a topic that lags; 0 = relayWait
}

// Progress is told how far the filling is: seq of last events of a shard. It may be nil. It is called
// by one goroutine at a time and must not block.
type Progress func(shard int32, seq, last int64)

// The sources of a rebuild.
const (
	SourceLedger = "ledger"
	SourceTopic  = "topic"
)

// Result is what a rebuild or a verification did.
type Result struct {
	Projection  string            `json:"projection"`
	Source      string            `json:"source"` // ledger or topic
	Events      int64             `json:"events"` // that the fresh table was made of
	Rows        int64             `json:"rows"`   // that it came to
	Took        time.Duration     `json:"took_ns"`
	Compared    bool              `json:"compared"`
	NotCompared string            `json:"not_compared,omitempty"` // why not
	Positions   []domain.Position `json:"positions"`              // by shard: where it was compared, or else where it ended
	Differences Differences       `json:"differences"`
	// FilledFromLedger is how many events the ledger gave though the topic was the source: the topic
	// did not have them when they were needed.
	FilledFromLedger int64 `json:"filled_from_ledger"`
	Swapped          bool  `json:"swapped"`
}

// EventsPerSecond is how fast the whole was.
func (r *Result) EventsPerSecond() int64 {
	return r.Events * int64(time.Second) / max(1, int64(r.Took))
}

// Rebuild makes a projection anew, compares it with the live one, and puts it in its place. Differences
// are in the result and do not prevent that: to mend them is what a rebuild is for. On an error the
// live projection is as it was, and the result says how far it came. ErrRunning: another rebuild of
// it is running.
func Rebuild(ctx context.Context, c RebuildConfig, name string) (*Result, error) {
	return c.run(ctx, "rebuild", name, (*builder).rebuild)
}

// Verify compares projections, all where none is named, with ones made anew at the same position. It
// changes nothing. The results are in the order of the names; on an error those that are there.
func Verify(ctx context.Context, c RebuildConfig, names ...string) ([]*Result, error) {
	if len(names) == 0 {
		for _, p := range all {
			names = append(names, p.name())
		}
	}
	var out []*Result
	for _, name := range names {
		result, err := c.run(ctx, "verify", name, (*builder).verify)
		if err != nil {
			return out, err
		}
		out = append(out, result)
	}
	return out, nil
}

// run does one thing, alone, with a fresh table <name>_<what>.
func (c RebuildConfig) run(ctx context.Context, what, name string, do func(*builder, context.Context) error) (*Result, error) {
	pool, err := c.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s of %s: %w", what, name, err)
	}
	defer pool.Close()
	b, err := c.builder(pool, name, name+"_"+what, c.Topic)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	err = c.alone(ctx, pool, what+":"+name, func(ctx context.Context) error { return do(b, ctx) })
	b.finish(time.Since(began))
	if err != nil {
		err = fmt.Errorf("%s of %s: %w", what, name, err)
	}
	return &b.result, err
}

// open connects as the owner.
func (c RebuildConfig) open(ctx context.Context) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig("")
	if err != nil {
		return nil, err
	}
	config.ConnConfig, config.MaxConns = c.Owner.Copy(), rebuildConns
	return pgxpool.NewWithConfig(ctx, config)
}

// alone runs do while it holds a lease. One that a dead process left behind is waited for; one that is
// kept is ErrRunning. The context of do ends when the lease may have been lost.
func (c RebuildConfig) alone(ctx context.Context, pool *pgxpool.Pool, name string, do func(context.Context) error) error {
	keeper := &lease.Keeper{Pool: pool, Owner: uuid.New(), Log: c.Log}
	err := keeper.Alone(ctx, name, leaseWait, do)
	if errors.Is(err, lease.ErrTaken) {
		return ErrRunning
	}
	return err
}

// builder makes one fresh table. What it does is done by one goroutine, but for the filling, in which
// each shard has one.
type builder struct {
	config     RebuildConfig
	projection projection
	table      string  // the fresh one
	topic      History // nil: the ledger is the source
	pool       *pgxpool.Pool
	oid        uint32     // of the fresh table: whoever else has the name since then is not it
	at         []position // of the fresh table, by shard

	mu     sync.Mutex // while filling: guards result, and the calls of Progress
	result Result
}

func (c RebuildConfig) builder(pool *pgxpool.Pool, name, table string, from History) (*builder, error) {
	p, err := find(name)
	if err != nil {
		return nil, err
	}
	if c.patience <= 0 {
		c.patience = relayWait
	}
	b := &builder{config: c, projection: p, table: table, topic: from, pool: pool}
	b.result = Result{Projection: name, Source: SourceLedger}
	if from != nil {
		b.result.Source = SourceTopic
	}
	return b, nil
}

// live is the live table's name.
func (b *builder) live() string { return b.projection.name() }

func (b *builder) rebuild(ctx context.Context) error {
	for _, do := range []func(context.Context) error{b.build, b.compare, b.catchUp, b.swap} {
		if err := do(ctx); err != nil {
			b.discard(ctx)
			return err
		}
	}
	return nil
}

func (b *builder) verify(ctx context.Context) error {
	defer b.discard(ctx)
	if err := b.build(ctx); err != nil {
		return err
	}
	if err := b.compare(ctx); err != nil {
		return err
	}
	return b.count(ctx)
}

// build makes the fresh table and fills it to where the live one is now: never further, or the two
// could not be compared. Where there is no live one it fills it to the end.
func (b *builder) build(ctx context.Context) error {
	if err := b.prepare(ctx); err != nil {
		return fmt.Errorf("making the table %s: %w", b.table, err)
	}
	to, exists, err := b.livePositions(ctx)
	if err == nil && !exists {
		to, err = b.heads(ctx)
	}
	if err == nil && b.topic == nil {
		err = b.analyzeLedger(ctx)
	}
	if err == nil {
		err = b.fill(ctx, to)
	}
	if err != nil {
		return fmt.Errorf("filling %s: %w", b.table, err)
	}
	return b.analyze(ctx)
}

// prepare drops what an earlier run may have left, and makes the empty table.
func (b *builder) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, prepareTime)
	defer cancel()
	return b.inTx(ctx, beginPrepare, func(tx pgx.Tx) error {
		if err := b.drop(ctx, tx); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `SELECT create_projection($1::text, $2::text)`, b.live(), b.table); err != nil {
			return err
		}
		for shard := range int32(b.config.Meta.Shards) {
			none := noPosition(b.config.Meta.ID, shard)
			if _, err := tx.Exec(ctx, insertPosition, b.table, shard, none.hash[:], none.at); err != nil {
				return err
			}
		}
		var err error
		if b.at, err = readPositions(ctx, tx, b.table); err != nil {
			return err
		}
		b.oid, err = tableID(ctx, tx, b.table)
		return err
	})
}

// drop removes the fresh table and its positions.
func (b *builder) drop(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, `DROP TABLE IF EXISTS `+quoted(b.table)); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `DELETE FROM projection_positions WHERE projection = $1`, b.table)
	return err
}

// discard drops the fresh table, where it still is ours. Where that fails, the next run does it.
func (b *builder) discard(ctx context.Context) {
	if lease.Lost(ctx) {
		return // another run's table may have the name
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), discardTime)
	defer cancel()
	b.inTx(ctx, beginPrepare, func(tx pgx.Tx) error { //nolint:errcheck // as the comment says
		if id, err := tableID(ctx, tx, b.table); err != nil || id != b.oid {
			return err
		}
		return b.drop(ctx, tx)
	})
}

// inTx runs do in a dbtx that begins with the given statements, and commits it.
func (b *builder) inTx(ctx context.Context, begin string, do func(pgx.Tx) error) error {
	tx, err := b.pool.BeginTx(ctx, pgx.TxOptions{BeginQuery: begin})
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // after a commit it does nothing
	if err := do(tx); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// querier is what a pool and a dbtx have in common.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// tableID tells apart what bears a name, one after the other; 0 where nothing does.
func tableID(ctx context.Context, q querier, table string) (id uint32, err error) {
	err = q.QueryRow(ctx, `SELECT coalesce(to_regclass($1::text)::oid::bigint, 0)`, quoted(table)).Scan(&id)
	return id, err
}

// livePositions is how far the live table has come, by shard, and whether it exists.
func (b *builder) livePositions(ctx context.Context) (to []int64, exists bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, prepareTime)
	defer cancel()
	err = b.inTx(ctx, "begin", func(tx pgx.Tx) error {
		id, err := tableID(ctx, tx, b.live())
		if err != nil {
			return err
		}
		exists = id != 0
		positions, err := readPositions(ctx, tx, b.live())
		to = seqs(positions)
		return err
	})
	return to, exists, err
}

func seqs(positions []position) []int64 {
	out := make([]int64, len(positions))
	for shard := range positions {
		out[shard] = positions[shard].seq
	}
	return out
}

// heads is where the ledger ends now, by shard.
func (b *builder) heads(ctx context.Context) ([]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, prepareTime)
	defer cancel()
	rows, err := b.pool.Query(ctx, `SELECT last_seq FROM ledger_shards ORDER BY shard`)
	if err != nil {
		return nil, err
	}
	heads, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err == nil && len(heads) != len(b.at) {
		err = fmt.Errorf("ledger_shards has %d rows; this ledger has %d shards", len(heads), len(b.at))
	}
	return heads, err
}

// catchUp brings the fresh table to the ledger's end, and lets a projector that is at work come to the
// same: so that the swap finds the two but a few events apart, and the projector goes on where it is.
func (b *builder) catchUp(ctx context.Context) error {
	to, err := b.heads(ctx)
	if err == nil {
		err = b.fill(ctx, to)
	}
	if err == nil {
		err = b.analyze(ctx)
	}
	if err == nil {
		err = b.count(ctx)
	}
	if err != nil {
		return fmt.Errorf("bringing %s to the end of the ledger: %w", b.table, err)
	}
	return b.awaitLive(ctx)
}

// awaitLive waits until the live table is where the fresh one is, but not for long: there may be no
// projector.
func (b *builder) awaitLive(ctx context.Context) error {
	tick := time.NewTicker(liveEvery)
	defer tick.Stop()
	for until := time.Now().Add(liveWait); time.Now().Before(until); {
		to, exists, err := b.livePositions(ctx)
		if err != nil || !exists || !behind(to, seqs(b.at)) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// behind says whether any of at is below its to.
func behind(at, to []int64) bool {
	for shard := range to {
		if at[shard] < to[shard] {
			return true
		}
	}
	return false
}

// analyze gives the planner figures, so that nobody's first queries scan the new table.
func (b *builder) analyze(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, compareTime)
	defer cancel()
	_, err := b.pool.Exec(ctx, `ANALYZE `+quoted(b.table))
	return err
}

// analyzeLedger does the same for events that have become so many since Postgres last looked that it
// would find each page of them by sorting all that are behind it.
func (b *builder) analyzeLedger(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, compareTime)
	defer cancel()
	var grown bool
	err := b.pool.QueryRow(ctx, `SELECT c.reltuples * 2 < (SELECT sum(last_seq) FROM ledger_shards)
		FROM pg_class c WHERE c.oid = 'ledger_events'::regclass`).Scan(&grown)
	if err == nil && grown {
		_, err = b.pool.Exec(ctx, `ANALYZE ledger_events`)
	}
	return err
}

func (b *builder) count(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, compareTime)
	defer cancel()
	return b.pool.QueryRow(ctx, projectedRows+quoted(b.table)).Scan(&b.result.Rows)
}

// finish fills in what is known at the end.
func (b *builder) finish(took time.Duration) {
	b.result.Took = took
	for shard, at := range b.at {
		b.result.Events += at.seq
		if !b.result.Compared {
			b.result.Positions = append(b.result.Positions, domain.Position{Shard: int32(shard), Seq: at.seq})
		}
	}
}
