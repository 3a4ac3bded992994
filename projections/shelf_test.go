package projections

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"llm-gateway/domain"
	"llm-gateway/ledger"
	"llm-gateway/ledger/topic"
	"llm-gateway/ledger/topic/topictest"
)

// source is a topic and who fills it.
type source interface {
	Topic
	publish(t testing.TB, events []domain.Recorded)
}

// onEachTopic runs a test on a topic in memory, and on one in Kafka.
func onEachTopic(t *testing.T, test func(t *testing.T, w *world, s source)) {
	t.Helper()
	t.Parallel()
	t.Run("shelf", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, false)
		test(t, w, newShelf(w.meta))
	})
	t.Run("kafka", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, true)
		test(t, w, &published{realTopic{topictest.New(t, worldShards, w.meta.ID)}})
	})
}

// published is a real topic.
type published struct{ realTopic }

func (p *published) publish(t testing.TB, events []domain.Recorded) {
	t.Helper()
	if len(events) == 0 {
		return
	}
	producer, err := p.Producer(t.Context(), events[0].Event.Shard)
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	for batch := range slices.Chunk(events, topic.MaxTransaction) {
		if _, err := producer.Publish(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
}

// shelf is a topic in memory. It can lie, vanish and come back.
type shelf struct {
	source string

	mu      sync.Mutex
	records [][]*topic.Record
	ends    []int64       // the next offset; there are more offsets than records
	made    int           // how often it was created
	away    error         // what every call answers; nil: it is there
	changed chan struct{} // closed by the next change
	opened  [][]int64     // from where it was consumed
}

var errAway = errors.New("the topic is away")

func newShelf(m ledger.Meta) *shelf {
	return &shelf{source: topic.Source(m.ID), records: make([][]*topic.Record, m.Shards), ends: make([]int64, m.Shards),
		changed: make(chan struct{})}
}

// change changes it and wakes who waits.
func (s *shelf) change(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
	close(s.changed)
	s.changed = make(chan struct{})
}

// record makes the record of an event.
func (s *shelf) record(e domain.Recorded) *topic.Record {
	return &topic.Record{Shard: e.Event.Shard, Key: e.Event.Account, Seq: e.Event.Seq, Hash: e.Hash, Source: s.source, Payload: e.Payload}
}

// publish adds events, and a marker behind them as a transaction would.
func (s *shelf) publish(_ testing.TB, events []domain.Recorded) {
	var records []*topic.Record
	for _, e := range events {
		records = append(records, s.record(e))
	}
	s.put(records...)
}

func (s *shelf) put(records ...*topic.Record) {
	s.change(func() {
		for _, r := range records {
			r.Offset = s.ends[r.Shard]
			s.records[r.Shard] = append(s.records[r.Shard], r)
			s.ends[r.Shard]++
		}
		for _, r := range records {
			s.ends[r.Shard] = r.Offset + 2
		}
	})
}

// recreate empties it; the offsets begin again.
func (s *shelf) recreate() {
	s.change(func() {
		s.made++
		for shard := range s.records {
			s.records[shard], s.ends[shard] = nil, 0
		}
	})
}

func (s *shelf) leave(err error) { s.change(func() { s.away = err }) }

// opens says from where it was consumed, each time.
func (s *shelf) opens() [][]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.opened)
}

func (s *shelf) Consume(offsets []int64) (Consumer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened = append(s.opened, slices.Clone(offsets))
	return &shelfConsumer{shelf: s, next: slices.Clone(offsets), made: s.made}, s.away
}

func (s *shelf) Tail(_ context.Context, shard int32) (*topic.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.records[shard]); n > 0 && s.away == nil {
		return s.records[shard][n-1], nil
	}
	return nil, s.away
}

type shelfConsumer struct {
	*shelf
	next []int64
	made int
}

func (c *shelfConsumer) Close() {}

func (c *shelfConsumer) Poll(ctx context.Context, most int) ([]*topic.Record, error) {
	for {
		records, changed, err := c.take(most)
		if err != nil || len(records) > 0 {
			return records, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-changed:
		}
	}
}

func (c *shelfConsumer) take(most int) (out []*topic.Record, changed chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away != nil {
		return nil, nil, c.away
	}
	if c.made != c.shelf.made {
		return nil, nil, errors.New("the topic was re-created")
	}
	for shard, records := range c.records {
		if c.next[shard] > c.ends[shard] {
			c.next[shard] = 0 // out of range
		}
		for _, r := range records {
			if r.Offset >= c.next[shard] && len(out) < most {
				out = append(out, r)
				c.next[shard] = r.Offset + 1
			}
		}
	}
	return out, c.changed, nil
}

// always is a lease that is never lost.
type always struct{}

func (always) Run(ctx context.Context, names []string, hold func(context.Context, string) error) {
	for ctx.Err() == nil {
		hold(ctx, names[0]) //nolint:errcheck // it tells its hooks
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}
