package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"llm-gateway/domain"
	"llm-gateway/ledger/topic"
)

// selectServer tells servers, and what became of a server, apart: the start of the process (a promoted
// replica has its own, and so has a server that was restored and started again), the database and its
// events' file (made anew where a dump was read back), and, where no pooler stands in between that may
// know the server by several, the address.
func selectServer(pooled bool) string {
	address := "inet_server_addr(), inet_server_port()"
	if pooled {
		address = "'pooled'"
	}
	return `SELECT concat_ws(' ', extract(epoch FROM pg_postmaster_start_time()), ` + address + `,
		(SELECT oid FROM pg_database WHERE datname = current_database()), pg_relation_filenode('ledger_events'))`
}

// selectEnds reads, of each shard, the head and the hashes of two events, none where they are missing, and
// who answers.
const selectEnds = `SELECT s.shard, s.last_seq, s.last_hash, s.epoch, p.hash, k.hash, (%s)
	FROM unnest($1::int[], $2::bigint[], $3::bigint[]) w(shard, published, seen)
	JOIN ledger_shards s ON s.shard = w.shard
	LEFT JOIN ledger_events p ON p.shard = w.shard AND p.seq = w.published
	LEFT JOIN ledger_events k ON k.shard = w.shard AND k.seq = w.seen`

var errServerChanged = errors.New("another server answers than before")

// sameServer reads selectServer's answer.
func (l *laneConn) sameServer(row pgx.Row) error {
	var server string
	if err := row.Scan(&server); err != nil {
		return err
	}
	if server != l.server {
		return errServerChanged
	}
	return nil
}

// tail is a witness's answer about a shard.
type tail struct {
	record *topic.Record // nil: the partition is empty
	err    error
}

// end is what a look compares of one shard.
type end struct {
	shard     int32
	tail      tail
	seen      *head // the highest head seen before, if any
	read      bool  // what follows was read from the ledger
	head      head
	published []byte
	known     []byte // the hash of the event that seen ended with
}

// look compares the ends of shards with what is known of them elsewhere, and keeps the verdicts. No lock
// is held in Postgres while the witness is asked. An error means that Postgres did not answer.
func (g *tailGuard) look(ctx context.Context, l *laneConn, shards []int32, patient bool) (map[int32]verdict, error) {
	began := time.Now()
	ends := g.ends(shards)
	if g.witness != nil { // first the topic, then the ledger: the relay goes on publishing in between
		for shard, t := range g.ask(ctx, shards, patient) {
			ends[shard].tail = t
		}
	}
	if err := g.read(ctx, l, ends); err != nil {
		return nil, fmt.Errorf("comparing the ends of shards: %w", err)
	}
	out := map[int32]verdict{}
	for shard, e := range ends {
		v := verdict{err: g.judge(e, l.server), silent: e.tail.err != nil, server: l.server, began: began}
		out[shard] = v
		g.keep(e, v)
	}
	return out, nil
}

// ends brings what this writer remembers.
func (g *tailGuard) ends(shards []int32) map[int32]*end {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make(map[int32]*end, len(shards))
	for _, shard := range shards {
		e := &end{shard: shard}
		if h, ok := g.seen[shard]; ok {
			e.seen = &h
		}
		out[shard] = e
	}
	return out
}

// ask asks the witness for the tails of shards, some at a time and all within tailTime. Where it has just
// failed to answer, an impatient asker takes that for the answer, so that a lane does not wait for each
// shard anew.
func (g *tailGuard) ask(ctx context.Context, shards []int32, patient bool) map[int32]tail {
	out := make(map[int32]tail, len(shards))
	if err := g.silentNow(); err != nil && !patient {
		for _, shard := range shards {
			out[shard] = tail{err: err}
		}
		return out
	}
	ctx, cancel := context.WithTimeout(ctx, tailTime)
	defer cancel()
	next := make(chan int32, len(shards))
	for _, shard := range shards {
		next <- shard
	}
	close(next)
	var mu sync.Mutex
	var askers sync.WaitGroup
	for range min(tailsAtOnce, len(shards)) {
		askers.Go(func() {
			for shard := range next {
				record, err := g.witness.Tail(ctx, shard)
				mu.Lock()
				out[shard] = tail{record, err}
				mu.Unlock()
			}
		})
	}
	askers.Wait()
	g.heard(out)
	return out
}

func (g *tailGuard) silentNow() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.silence != nil && time.Since(g.silent) < g.pause {
		return g.silence
	}
	return nil
}

// heard remembers whether the witness failed to answer.
func (g *tailGuard) heard(tails map[int32]tail) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.silence = nil
	for _, t := range tails {
		if t.err != nil {
			g.silence, g.silent = t.err, time.Now()
		}
	}
}

// read fills in what the ledger has, where there is something to compare it with.
func (g *tailGuard) read(ctx context.Context, l *laneConn, ends map[int32]*end) error {
	var shards []int32
	var published, seen []int64
	for shard, e := range ends {
		if g.witness == nil && e.seen == nil {
			continue
		}
		var p, k int64
		if e.tail.record != nil {
			p = e.tail.record.Seq
		}
		if e.seen != nil {
			k = e.seen.Seq
		}
		shards, published, seen = append(shards, shard), append(published, p), append(seen, k)
	}
	if len(shards) == 0 {
		return nil
	}
	rows, err := l.conn.Query(ctx, fmt.Sprintf(selectEnds, l.asks), shards, published, seen)
	if err != nil {
		return err
	}
	defer rows.Close()
	n := 0
	for ; rows.Next(); n++ {
		if err := l.scanEnd(rows, ends); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if n != len(shards) {
		return fmt.Errorf("of %d shards %d have a head: the ledger is not whole", len(shards), n)
	}
	return nil
}

func (l *laneConn) scanEnd(rows pgx.Rows, ends map[int32]*end) error {
	var shard int32
	var h head
	var hash, published, known []byte
	var server string
	if err := rows.Scan(&shard, &h.Seq, &hash, &h.Epoch, &published, &known, &server); err != nil {
		return err
	}
	if server != l.server {
		return errServerChanged
	}
	h.Hash = domain.Hash(hash)
	e := ends[shard]
	e.read, e.head, e.published, e.known = true, h, published, known
	return nil
}

// has says whether the ledger has an event: hash is what it has at that seq. The head speaks for the last
// one.
func (e *end) has(seq int64, want domain.Hash, hash []byte) bool {
	switch {
	case seq > e.head.Seq:
		return false
	case seq == e.head.Seq:
		return want == e.head.Hash
	case seq == 0:
		return true // that is nothing yet, and anything continues it
	}
	return string(want[:]) == string(hash)
}

// judge says why a shard may not be appended to, or nil. The epoch of a recovered ledger is higher than
// that of what was remembered: then the topic alone decides.
func (g *tailGuard) judge(e *end, server string) error {
	if r := e.tail.record; r != nil {
		if err := g.compare(e, r); err != nil {
			return err
		}
	}
	if s := e.seen; s != nil && e.head.Epoch <= s.Epoch && (e.head.Epoch < s.Epoch || !e.has(s.Seq, s.Hash, e.known)) {
		return fmt.Errorf("%w: shard %d: this gateway has seen %s committed (epoch %d), the ledger ends at %d (epoch %d) or has another event there",
			ErrTailLost, e.shard, s.at(e.shard), s.Epoch, e.head.Seq, e.head.Epoch)
	}
	if e.tail.err != nil && !g.agrees(e.shard, agreed{server, e.head.Epoch}) {
		return fmt.Errorf("%w: shard %d: this server was not compared before, and the topic does not answer: %w",
			ErrTailUnknown, e.shard, e.tail.err)
	}
	return nil
}

// compare holds the topic's last record against the ledger.
func (g *tailGuard) compare(e *end, r *topic.Record) error {
	at := domain.Position{Shard: e.shard, Seq: r.Seq}
	switch {
	case r.Source != g.source || r.Seq < 1:
		return fmt.Errorf("%w: shard %d: %w: the last record (offset %d) is of %.80q at seq %d, not of this ledger",
			ErrTailLost, e.shard, topic.ErrMismatch, r.Offset, r.Source, r.Seq)
	case r.Seq > e.head.Seq:
		return fmt.Errorf("%w: shard %d: the topic ends at %s, the ledger at seq %d; `ledger recover --from-topic` appends what is missing",
			ErrTailLost, e.shard, at, e.head.Seq)
	case !e.has(r.Seq, r.Hash, e.published):
		return fmt.Errorf("%w: shard %d: the ledger has another event at %s than the topic: the history has forked",
			ErrTailLost, e.shard, at)
	}
	return nil
}

func (g *tailGuard) agrees(shard int32, with agreed) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.agreed[shard] == with
}

// keep remembers a verdict and tells who watches. A ledger that was recovered without what this writer had
// seen is gone on with, and what is gone is named.
func (g *tailGuard) keep(e *end, v verdict) {
	g.telling.Lock()
	defer g.telling.Unlock()
	g.mu.Lock()
	was := g.verdicts[e.shard]
	if was.began.After(v.began) { // another look began later, and is done already
		g.mu.Unlock()
		return
	}
	g.verdicts[e.shard] = v
	if errors.Is(v.err, ErrTailLost) {
		delete(g.agreed, e.shard)
	}
	if v.err == nil && g.witness != nil && e.tail.err == nil {
		g.agreed[e.shard] = agreed{v.server, e.head.Epoch}
	}
	var lost error
	if v.err == nil && e.read {
		lost = g.goOn(e)
	}
	g.mu.Unlock()
	if g.hooks.Refused != nil && reason(was.err) != reason(v.err) {
		g.hooks.Refused(e.shard, v.err)
	}
	if lost != nil && g.hooks.Lost != nil {
		g.hooks.Lost(lost)
	}
}

// goOn takes a head that was found fine as seen. It says what is gone where that is of a higher epoch.
// mu must be held.
func (g *tailGuard) goOn(e *end) (lost error) {
	was, ok := g.seen[e.shard]
	switch {
	case !ok || e.head.continues(was):
		g.seen[e.shard] = e.head
	case e.head.Epoch > was.Epoch:
		g.seen[e.shard] = e.head
		if e.seen != nil && !e.has(e.seen.Seq, e.seen.Hash, e.known) {
			lost = fmt.Errorf("shard %d: the ledger was recovered up to %s without %s, which this gateway had seen committed",
				e.shard, e.head.at(e.shard), e.seen.at(e.shard))
		}
	}
	return lost
}

// reason is the kind of a refusal: its text may change from look to look.
func reason(err error) error {
	for _, kind := range []error{ErrTailLost, ErrTailUnknown} {
		if errors.Is(err, kind) {
			return kind
		}
	}
	return nil
}
