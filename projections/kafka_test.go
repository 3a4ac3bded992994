package projections

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"llm-gateway/domain"
	"llm-gateway/ledger"
	"llm-gateway/ledger/topic"
	"llm-gateway/ledger/topic/topictest"
)

// TestTopicAway takes the topic away for a while, at the start and in the middle.
func TestTopicAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	s := newShelf(w.meta)
	p := newPlay(t, w, s)
	p.happen(t, 20)
	s.leave(errAway)
	_, d := p.start(t, nil)
	for range 2 {
		tries := d.restarted()
		eventually(t, "it tries again", func() bool { return d.restarted() > tries+3 })
		s.leave(nil)
		p.reach(t)
		s.leave(errAway)
		p.happen(t, 20)
	}
	s.leave(nil)
	p.reach(t)
	p.wantTrue(t)
	for _, err := range d.reasons() {
		if !errors.Is(err, errAway) {
			t.Errorf("it began again: %v", err)
		}
	}
	if len(d.changed()) != 0 {
		t.Errorf("what was told: %q", d.changed())
	}
}

// TestRecreated makes the topic anew beneath a running projector, in Kafka.
func TestRecreated(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	config := topictest.Config(t, worldShards, w.meta.ID)
	p := newPlay(t, w, &published{realTopic{topictest.Open(t, config)}})
	_, d := p.start(t, nil)
	p.happen(t, 30)
	p.reach(t)
	client, err := kgo.NewClient(kgo.SeedBrokers(config.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := kadm.NewClient(client).DeleteTopic(t.Context(), config.Name); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it notices", func() bool { return d.restarted() > 0 })
	again, err := topic.Open(config)
	if err == nil {
		err = again.Ensure(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(again.Close)
	p.topic = &published{realTopic{again}}
	p.history.some(t, 30)
	clear(p.published)
	p.publish(t)
	p.reach(t)
	p.wantTrue(t)
	if len(d.changed()) != 0 {
		t.Errorf("what was told: %q", d.changed())
	}
}

// TestHints starts a projector with every offset that a position could remember from another topic,
// and with more events in the ledger and the topic than it has applied. No record comes afterwards.
func TestHints(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	s := newShelf(w.meta)
	p := newPlay(t, w, s)
	p.happen(t, 10)
	projector, _ := p.start(t, nil)
	p.reach(t)
	projector.Close()
	for shard, at := range p.positions(t, "stats") {
		if records := s.records[shard]; at.offset != records[len(records)-1].Offset+1 {
			t.Errorf("shard %d goes on at offset %d", shard, at.offset)
		}
	}
	snapshot := p.save(t)
	p.happen(t, 30)
	for _, offset := range hints(s) {
		p.restore(t, snapshot)
		p.exec(t, `UPDATE projection_positions SET next_offset = $1`, offset)
		projector, d := p.start(t, nil)
		p.reach(t)
		projector.Close()
		if len(d.changed())+d.restarted() != 0 {
			t.Errorf("%d: what was told: %q, %v", offset, d.changed(), d.reasons())
		}
	}
	p.wantTrue(t)
}

// hints are all offsets around those that there are.
func hints(s *shelf) (out []int64) {
	for offset := range slices.Max(s.ends) + 3 {
		out = append(out, offset)
	}
	return append(out, 1<<40)
}

// save copies the live tables, restore brings the copies back.
func (p *play) save(t testing.TB) []string {
	t.Helper()
	tables := []string{"projection_positions"}
	for _, live := range all {
		tables = append(tables, live.name())
	}
	for _, table := range tables {
		p.exec(t, `CREATE TABLE saved_`+table+` AS TABLE `+table)
	}
	return tables
}

func (p *play) restore(t testing.TB, tables []string) {
	t.Helper()
	for _, table := range tables {
		p.exec(t, `DELETE FROM `+table)
		p.exec(t, `INSERT INTO `+table+` TABLE saved_`+table)
	}
}

// archive is a ledger in memory with long shards.
type archive struct {
	mu     sync.Mutex
	events [][]domain.Recorded // by shard
	asked  func(shard int32, after int64, limit int)
}

func (a *archive) Events(_ context.Context, shard int32, after int64, limit int) ([]domain.Recorded, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.asked != nil {
		a.asked(shard, after, limit)
	}
	events := a.events[shard]
	return events[min(after, int64(len(events))):min(after+int64(limit), int64(len(events)))], nil
}

func (a *archive) Heads(context.Context) ([]ledger.Head, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []ledger.Head
	for shard, events := range a.events {
		out = append(out, ledger.Head{Shard: int32(shard), Seq: int64(len(events))})
	}
	return out, nil
}

func (a *archive) add(events []domain.Recorded) {
	a.mu.Lock()
	defer a.mu.Unlock()
	shard := events[0].Event.Shard
	a.events[shard] = append(a.events[shard], events...)
}

// counted counts the events that are asked for.
type counted struct {
	Ledger
	n *atomic.Int64
}

func (c counted) Events(ctx context.Context, shard int32, after int64, limit int) ([]domain.Recorded, error) {
	c.n.Add(int64(limit))
	return c.Ledger.Events(ctx, shard, after, limit)
}

// polls tells of every poll.
type polls struct {
	Topic
	tell func()
}

func (p polls) Consume(offsets []int64) (Consumer, error) {
	c, err := p.Topic.Consume(offsets)
	return toldConsumer{c, p.tell}, err
}

type toldConsumer struct {
	Consumer
	tell func()
}

func (c toldConsumer) Poll(ctx context.Context, most int) ([]*topic.Record, error) {
	c.tell()
	return c.Consumer.Poll(ctx, most)
}

// TestFarBehind has one projection catch up a long way from the ledger, in every shard: meanwhile the
// others follow the topic, and no round reads more than its share.
func TestFarBehind(t *testing.T) { //nolint:gocognit // one story, told in order
	t.Parallel()
	const long = 5 * catchUp
	w := newWorld(t, false)
	s := newShelf(w.meta)
	a := &archive{events: make([][]domain.Recorded, worldShards)}
	var chains []*topictest.Chain
	for shard := range int32(worldShards) {
		chains = append(chains, topictest.ChainOf(t, w.meta.ID, shard, worldShards))
		events := chains[shard].Next(t, long)
		a.add(events)
		s.publish(t, events)
		steps := w.steps(t, "", events)
		for i := range steps {
			steps[i].offset = long + 1
		}
		if err := w.apply(steps[0], steps[2]); err != nil { // not transactions
			t.Fatal(err)
		}
	}
	p := &play{world: w, topic: s}
	pages, late := 0, 0
	a.asked = func(_ int32, after int64, limit int) {
		if limit == 1 {
			return // the hash of the last event
		}
		if pages++; limit > pageEvents {
			t.Errorf("a page of %d behind %d", limit, after)
		}
		if pages == 2 { // now something new comes
			for _, c := range chains {
				events := c.Next(t, 10)
				a.events[c.Shard] = append(a.events[c.Shard], events...)
				s.publish(t, events)
			}
		}
		if pages > 2+2*catchUp/pageEvents {
			for _, name := range []string{"balances", "stats"} {
				for shard, at := range w.positions(t, name) {
					if at.seq < long+10 {
						late++
						t.Logf("page %d: %s is at %d in shard %d", pages, name, at.seq, shard)
					}
				}
			}
		}
	}
	var inRound atomic.Int64
	_, d := p.start(t, func(c *Config) {
		c.Ledger, c.Topic = counted{a, &inRound}, polls{s, func() {
			if n := inRound.Swap(0); n > catchUp {
				t.Errorf("%d events were read in one round", n)
			}
		}}
	})
	eventually(t, "all have caught up", func() bool {
		return w.count(t, `SELECT count(*) FROM projection_positions WHERE seq = $1`, long+10) == int64(len(all)*worldShards)
	})
	if pages < worldShards*long/pageEvents || late > 0 || len(d.changed()) > 0 {
		t.Errorf("%d pages, %d times late; told: %q", pages, late, d.changed())
	}
	if n := w.count(t, `SELECT count(*) FROM transactions`); n != worldShards*(long+10) {
		t.Errorf("%d transactions", n)
	}
	if from := s.opens()[0]; slices.Min(from) < long-1 {
		t.Errorf("the topic was read from %v", from)
	}
}

// TestShortLedger holds that a ledger which has less than the topic brought is an error, and no silence.
func TestShortLedger(t *testing.T) {
	t.Parallel()
	id := uuid.New()
	chain := topictest.ChainOf(t, id, 0, 1)
	events := chain.Next(t, 10)
	for there := range events {
		p := Projector{Config: Config{Ledger: &archive{events: [][]domain.Recorded{events[:there]}}}}
		s := &shard{tail: position{seq: chain.Seq, hash: chain.Hash}, run: events[9:]}
		got, err := p.newPages().step(t.Context(), s, &follower{projection: stats{}, at: noPosition(id, 0)})
		if (there < 9) != errors.Is(err, errBroken) || there == 9 && len(got.events) != 10 {
			t.Errorf("%d events: a step of %d, %v", there, len(got.events), err)
		}
	}
}
