package ledger

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"llm-gateway/domain"
	"llm-gateway/ledger/topic"
)

// The bounds of looking for a lost tail.
const (
	tailTime    = 3 * time.Second // asking the witness, all shards of one look together
	tailsAtOnce = 16              // questions to the witness at the same time
	lookTime    = 10 * time.Second
	lookPause   = time.Second // between two looks at the shards that refuse
	maxLooks    = 3           // in one try of a batch
)

// TailWitness knows the end of each shard apart from Postgres: the topic.
type TailWitness interface {
	// Tail returns the last committed record of a shard, or nil where there is none. It ends with ctx.
	Tail(ctx context.Context, shard int32) (*topic.Record, error)
}

// Why a shard refuses appends. Both are domain.ErrUnavailable: nothing happened, and callers hear it
// at once.
var (
	// ErrTailLost says that the ledger does not have what the topic, or this writer, knows to have been
	// committed: it was restored to the past, or a stale replica was promoted. An append would fork the
	// history. `ledger recover` mends it.
	ErrTailLost = fmt.Errorf("%w: the ledger has lost its tail", domain.ErrUnavailable)
	// ErrTailUnknown says that the topic cannot be asked and this server was never compared with it.
	ErrTailUnknown = fmt.Errorf("%w: the ledger cannot be compared with the topic", domain.ErrUnavailable)
)

// Refusal is a shard that takes no appends, and why.
type Refusal struct {
	Shard int32
	Err   error // ErrTailLost or ErrTailUnknown, with what was found
}

// Refused lists the shards that take no appends, by shard. To ask is to want them looked at again:
// a gateway that is not ready, and so gets no requests, sees by this alone that it is.
func (p *Postgres) Refused() []Refusal {
	p.appends.tails.demand()
	return p.appends.tails.refusals()
}

// tailGuard keeps writers from forking the history of a server that has lost its tail. It is safe for
// concurrent use.
//
// A shard must be looked at before a connection first appends to it. The look compares the topic's last
// record, and the last head that this writer has seen committed, with the ledger. What it found holds for
// connections to the same server that were made before it. A refusal is looked at again on demand; where
// the witness does not answer, in the background, so that no lane waits for it.
type tailGuard struct {
	witness TailWitness // may be nil
	source  string      // ce_source of this ledger's records
	shards  int
	hooks   Hooks
	connect func(context.Context) (*laneConn, error)
	pause   time.Duration // lookPause; tests shorten it before the first look

	life context.Context // of the looks in the background
	end  context.CancelFunc
	wait sync.WaitGroup

	telling sync.Mutex // held while a verdict is kept and told, so that hooks hear of them in order

	mu       sync.Mutex // guards what follows
	closed   bool
	looking  bool              // a look in the background is under way
	looked   time.Time         // when the last one began
	silent   time.Time         // when the witness last failed to answer
	silence  error             // and how
	seen     map[int32]head    // the highest head of each shard that was seen committed
	agreed   map[int32]agreed  // where each shard last agreed with the witness
	verdicts map[int32]verdict // what the last look at each shard found
}

// agreed is the server, and the epoch on it, that a shard was compared on. With the witness away it may
// be appended to, and no other: a recovery that stopped half-way is not what was compared.
type agreed struct {
	server string
	epoch  int64
}

// verdict is what a look found.
type verdict struct {
	err    error // nil: the shard may be appended to
	silent bool  // the witness did not answer
	server string
	began  time.Time
}

func newTailGuard(m Meta, w TailWitness, hooks Hooks, connect func(context.Context) (*laneConn, error)) *tailGuard {
	life, end := context.WithCancel(context.Background())
	return &tailGuard{
		witness: w, source: m.source(), shards: m.Shards, hooks: hooks, connect: connect, pause: lookPause,
		life: life, end: end,
		seen: map[int32]head{}, agreed: map[int32]agreed{}, verdicts: map[int32]verdict{},
	}
}

// begin looks at all shards, in the background: whether they may be appended to is known before anybody
// asks, and the witness may be away later.
func (g *tailGuard) begin() {
	if g.witness == nil {
		return
	}
	all := make([]int32, g.shards)
	for i := range all {
		all[i] = int32(i)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.background(all)
}

func (g *tailGuard) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.end()
	g.wait.Wait()
}

// admit says which of the shards refuse. Those that a look since the connection was made found fine cost
// a map look-up each.
func (g *tailGuard) admit(ctx context.Context, l *laneConn, shards []int32) (map[int32]error, error) {
	var unknown []int32
	for _, shard := range shards {
		if !l.fine[shard] {
			unknown = append(unknown, shard)
		}
	}
	if len(unknown) == 0 {
		return nil, nil
	}
	known := g.known(l, unknown)
	unknown = slices.DeleteFunc(unknown, func(shard int32) bool { _, ok := known[shard]; return ok })
	if len(unknown) > 0 {
		found, err := g.look(ctx, l, unknown, false)
		if err != nil {
			return nil, err
		}
		maps.Copy(known, found)
	}
	refused := map[int32]error{}
	for shard, v := range known {
		if v.err != nil {
			refused[shard] = v.err
			continue
		}
		l.fine[shard] = true
	}
	if len(refused) > 0 {
		g.demand()
	}
	return refused, nil
}

// known returns the verdicts that hold for a connection. A refusal holds for a while, so that a shard that
// refuses is not looked at by everyone who asks; and for longer where the witness does not answer, so that
// no lane waits for it: then the look in the background tells.
func (g *tailGuard) known(l *laneConn, shards []int32) map[int32]verdict {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := map[int32]verdict{}
	for _, shard := range shards {
		v, ok := g.verdicts[shard]
		stale := v.err != nil && time.Since(v.began) >= g.pause && !v.silent
		if ok && !stale && v.server == l.server && v.began.After(l.since) {
			out[shard] = v
		}
	}
	return out
}

// forget lets the next batch look at shards again.
func (g *tailGuard) forget(l *laneConn, shards []int32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, shard := range shards {
		delete(l.fine, shard)
		delete(g.verdicts, shard)
	}
}

// continues says whether a head can have become of an earlier one by appending.
func (h head) continues(was head) bool {
	return h.Epoch == was.Epoch && (h.Seq > was.Seq || h.Seq == was.Seq && h.Hash == was.Hash)
}

// odd returns the shards whose locked heads cannot have become of those seen before.
func (g *tailGuard) odd(heads map[int32]head) (odd []int32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for shard, h := range heads {
		if was, ok := g.seen[shard]; ok && !h.continues(was) {
			odd = append(odd, shard)
		}
	}
	return odd
}

// saw remembers heads that are committed. What is remembered only rises.
func (g *tailGuard) saw(heads map[int32]head) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for shard, h := range heads {
		if was, ok := g.seen[shard]; !ok || h.continues(was) {
			g.seen[shard] = h
		}
	}
}

// oddHeads is why a batch was not decided.
type oddHeads struct{ shards []int32 }

func (o *oddHeads) Error() string { return fmt.Sprintf("the heads of shards %v went back", o.shards) }

func (g *tailGuard) refusals() (out []Refusal) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, shard := range slices.Sorted(maps.Keys(g.verdicts)) {
		if err := g.verdicts[shard].err; err != nil {
			out = append(out, Refusal{shard, err})
		}
	}
	return out
}

// demand looks again at the shards that refuse, in the background and not too often.
func (g *tailGuard) demand() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Since(g.looked) < g.pause {
		return
	}
	var shards []int32
	for shard, v := range g.verdicts {
		if v.err != nil && time.Since(v.began) >= g.pause {
			shards = append(shards, shard)
		}
	}
	if len(shards) > 0 {
		g.background(shards)
	}
}

// background looks at shards on a connection of its own, one look at a time. Where Postgres does not
// answer, the shards stay as they were until the next demand. mu must be held.
func (g *tailGuard) background(shards []int32) {
	if g.closed || g.looking {
		return
	}
	g.looking, g.looked = true, time.Now()
	g.wait.Go(func() {
		ctx, cancel := context.WithTimeout(g.life, lookTime)
		defer cancel()
		if l, err := g.connect(ctx); err == nil {
			g.look(ctx, l, shards, true) //nolint:errcheck // as above
			l.drop()
		}
		g.mu.Lock()
		g.looking = false
		g.mu.Unlock()
	})
}
