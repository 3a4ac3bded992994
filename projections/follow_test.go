package projections

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"

	"llm-gateway/domain"
	"llm-gateway/ledger"
)

// play is a ledger that things happen to, and a topic that is told of them when the test says so.
type play struct {
	*world
	ledger    *ledger.Postgres
	history   *history
	topic     source
	published map[int32]int // events, by shard
}

func newPlay(t testing.TB, w *world, s source) *play {
	t.Helper()
	l := w.ledger(t)
	p := &play{world: w, ledger: l, topic: s, published: map[int32]int{}}
	p.history = newHistory(t, &counter{}, 6, l.Append)
	return p
}

// happen makes things happen and publishes them.
func (p *play) happen(t testing.TB, things int) {
	t.Helper()
	p.history.some(t, things)
	p.publish(t)
}

// publish publishes what was not.
func (p *play) publish(t testing.TB) {
	t.Helper()
	for shard, events := range p.history.events {
		p.topic.publish(t, events[p.published[shard]:])
		p.published[shard] = len(events)
	}
}

// skip leaves what was not published out.
func (p *play) skip() {
	for shard, events := range p.history.events {
		p.published[shard] = len(events)
	}
}

// diary is what a projector's hooks told.
type diary struct {
	mu       sync.Mutex
	applied  map[string]int
	lag      map[place]int64
	halted   map[place]error
	changes  []string
	restarts []error
}

func (d *diary) hooks() Hooks {
	d.applied, d.lag, d.halted = map[string]int{}, map[place]int64{}, map[place]error{}
	return Hooks{
		Applied: func(name string, events int) {
			d.note(func() { d.applied[name] += events })
		},
		Lag: func(name string, shard int32, events int64) {
			d.note(func() { d.lag[place{name, shard}] = events })
		},
		Halted: func(name string, shard int32, err error) {
			d.note(func() {
				d.changes = append(d.changes, fmt.Sprintf("%s %d %t", name, shard, err == nil))
				if d.halted[place{name, shard}] = err; err == nil {
					delete(d.halted, place{name, shard})
				}
			})
		},
		Restarted: func(err error) {
			d.note(func() { d.restarts = append(d.restarts, err) })
		},
	}
}

func (d *diary) note(do func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	do()
}

// stopped are the places that are halted now.
func (d *diary) stopped() map[place]error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.halted)
}

// changed are the changes from going on to halted and back.
func (d *diary) changed() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.changes)
}

// reasons are why reading began again.
func (d *diary) reasons() []error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.restarts)
}

func (d *diary) restarted() int { return len(d.reasons()) }

// did is how many events a projection has applied.
func (d *diary) did(projection string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.applied[projection]
}

// start starts a projector; change may alter what it works with.
func (p *play) start(t testing.TB, change func(*Config)) (*Projector, *diary) {
	t.Helper()
	d := &diary{}
	c := Config{Pool: p.pool, Meta: p.meta, Ledger: p.ledger, Topic: p.topic, Lease: always{}, Hooks: d.hooks(),
		Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&c)
	}
	projector := Start(context.Background(), c)
	t.Cleanup(projector.Close)
	return projector, d
}

// behind counts the places that have not reached their shard's head.
func (p *play) behind(t testing.TB, names ...string) int64 {
	t.Helper()
	if names == nil {
		names = []string{"balances", "stats", "transactions"}
	}
	return p.count(t, `SELECT count(*) FROM ledger_shards s CROSS JOIN unnest($1::text[]) AS n(name)
		LEFT JOIN projection_positions p ON p.projection = n.name AND p.shard = s.shard
		WHERE coalesce(p.seq, 0) <> s.last_seq`, names)
}

// reach waits until projections have reached the ledger's heads.
func (p *play) reach(t testing.TB, names ...string) {
	t.Helper()
	eventually(t, "the projections reach the ledger", func() bool { return p.behind(t, names...) == 0 })
}

// wantTrue holds the live tables against the ledger's own, and against tables that were made at once.
func (p *play) wantTrue(t testing.TB) {
	t.Helper()
	if n := p.difference(t, `TABLE balances`, `TABLE ledger_accounts`); n != 0 {
		t.Errorf("%d balances differ from the ledger's", n)
	}
	suffix := p.tables(t)
	for shard := range int32(worldShards) {
		if events := p.fromLedger(t, shard); len(events) > 0 {
			p.mustApply(t, suffix, events)
		}
	}
	p.wantSame(t, "", suffix)
	p.wantSums(t, "", p.history)
}

func (p *play) fromLedger(t testing.TB, shard int32) []domain.Recorded {
	t.Helper()
	events, err := p.ledger.Events(context.Background(), shard, 0, ledger.MaxEvents)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

// TestFollows starts with a topic that is full already, goes on with what comes, and goes on again
// after a restart.
func TestFollows(t *testing.T) {
	onEachTopic(t, func(t *testing.T, w *world, s source) {
		p := newPlay(t, w, s)
		p.happen(t, 60)
		projector, d := p.start(t, nil)
		p.reach(t)
		for range 5 {
			p.happen(t, 10)
			p.reach(t)
		}
		p.wantTrue(t)
		projector.Close()
		p.happen(t, 30)
		projector, d2 := p.start(t, nil)
		p.reach(t)
		p.wantTrue(t)
		projector.Close() // so that its hooks have told
		events := int(p.count(t, `SELECT count(*) FROM ledger_events`))
		for _, live := range all {
			if n := d.did(live.name()) + d2.did(live.name()); n != events {
				t.Errorf("%s applied %d events; there are %d", live.name(), n, events)
			}
		}
		if len(d.reasons())+len(d2.reasons())+len(d.stopped())+len(d2.stopped()) != 0 {
			t.Errorf("it restarted or stopped: %v, %v", d.reasons(), d2.reasons())
		}
	})
}

// TestLag holds that the lag is told by everyone, also while nobody follows.
func TestLag(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	s := newShelf(w.meta)
	p := newPlay(t, w, s)
	s.leave(errAway)
	p.happen(t, 20)
	_, d := p.start(t, nil)
	total := 3 * p.count(t, `SELECT sum(last_seq)::bigint FROM ledger_shards`)
	lag := func(want int64) func() bool {
		return func() bool {
			d.mu.Lock()
			defer d.mu.Unlock()
			var sum int64
			for _, n := range d.lag {
				sum += n
			}
			return sum == want && len(d.lag) == len(all)*worldShards
		}
	}
	eventually(t, "all that there is to be behind", lag(total))
	s.leave(nil)
	eventually(t, "nothing to be behind", lag(0))
	p.wantTrue(t)
}
