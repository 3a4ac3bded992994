package topic_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"llm-gateway/domain"
	"llm-gateway/ledger/topic"
	"llm-gateway/ledger/topic/topictest"
)

func TestPublish(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	p := b.producer(t)
	before := int64(-1)
	for _, n := range []int{1, 2, topic.MaxTransaction, 1, 17} {
		_, last := b.publish(t, p, n)
		if last < before+int64(n) {
			t.Errorf("%d events behind offset %d end at %d", n, before, last)
		}
		before = last
		tail, err := b.Tail(t.Context(), b.shard)
		if err != nil || tail.Offset != last || tail.Seq != b.chain.Seq {
			t.Fatalf("the tail is %+v, %v; want seq %d at offset %d", tail, err, b.chain.Seq, last)
		}
	}
	b.want(t, 1, b.chain.Seq)
}

// TestPublishGreat: a transaction of the greatest events goes out in many batches, none greater than
// what the least topic that is accepted takes.
func TestPublishGreat(t *testing.T) {
	t.Parallel()
	b := unmade(t)
	b.make(t, shards, with("max.message.bytes", "1000000"))
	if err := b.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := b.producer(t).Publish(t.Context(), b.noisy(t, 64, domain.MaxPayload-600)); err != nil {
		t.Fatal(err)
	}
	b.want(t, 1, 64)
}

// TestPublishRefuses: what must never be in the topic is not sent.
func TestPublishRefuses(t *testing.T) {
	t.Parallel()
	for name, events := range map[string]func(t *testing.T, b *bench) []domain.Recorded{
		"nothing":  func(*testing.T, *bench) []domain.Recorded { return nil },
		"too many": func(t *testing.T, b *bench) []domain.Recorded { return b.chain.Next(t, topic.MaxTransaction+1) },
		"another shard": func(t *testing.T, b *bench) []domain.Recorded {
			return topictest.ChainOf(t, b.config.Ledger, 1, shards).Next(t, 1)
		},
		"a gap": func(t *testing.T, b *bench) []domain.Recorded {
			events := b.chain.Next(t, 3)
			return append(events[:1], events[2])
		},
		"a gap behind what went before": func(t *testing.T, b *bench) []domain.Recorded { return b.chain.Next(t, 2)[1:] },
		"too long": func(t *testing.T, b *bench) []domain.Recorded {
			events := b.chain.Next(t, 1)
			events[0].Payload = make([]byte, domain.MaxPayload+1)
			return events
		},
		"empty": func(t *testing.T, b *bench) []domain.Recorded {
			events := b.chain.Next(t, 1)
			events[0].Payload = nil
			return events
		},
		"the wrong order": func(t *testing.T, b *bench) []domain.Recorded {
			events := b.chain.Next(t, 2)
			events[0], events[1] = events[1], events[0]
			return events
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			p := b.producer(t)
			b.publish(t, p, 1)
			if _, err := p.Publish(t.Context(), events(t, b)); err == nil {
				t.Error("it was published")
			}
			b.want(t, 1, 1)
			if _, err := p.Publish(t.Context(), b.chain.Next(t, 1)); err == nil {
				t.Error("a producer goes on after an error")
			}
		})
	}
}

// TestFenced: who has been taken over publishes nothing, however often it tries.
func TestFenced(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	old := b.producer(t)
	b.publish(t, old, 2)
	next := b.producer(t)
	_, err := old.Publish(t.Context(), b.chain.Next(t, 1))
	wantError(t, err, topic.ErrFenced)
	b.chain.Seq--
	_, err = old.Publish(t.Context(), b.chain.Next(t, 1))
	wantError(t, err, topic.ErrFenced)
	b.chain.Seq--
	b.want(t, 1, 2)
	b.publish(t, next, 3)
	b.want(t, 1, 5)
}

// TestFencedUnused: a producer that never published is fenced as well.
func TestFencedUnused(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	old := b.producer(t)
	b.publish(t, b.producer(t), 2)
	_, err := old.Publish(t.Context(), b.chain.Next(t, 1))
	wantError(t, err, topic.ErrFenced)
	b.want(t, 1, 2)
}

// TestTakeoverOfOpenTransaction: what a dead producer appended and did not commit is never seen, and
// hides nothing behind it.
func TestTakeoverOfOpenTransaction(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	events := b.chain.Next(t, 5)
	dead := b.predecessor(t, events[:3])
	b.want(t, 1, 0)
	p := b.producer(t)
	b.want(t, 1, 0)
	if _, err := p.Publish(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	if err := dead.EndTransaction(t.Context(), kgo.TryCommit); err == nil {
		t.Error("the dead one's commit was taken")
	}
	b.want(t, 1, 5)
}

// TestTakeoverAtAnyMoment: one producer takes over from the other in the midst of what that does,
// again and again. What is committed in the end is everything, once, in order.
func TestTakeoverAtAnyMoment(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const total, takeovers = 8000, 20
	events := b.chain.Next(t, total)
	var running sync.WaitGroup
	defer running.Wait()
	for range takeovers {
		p := b.producer(t)
		from := b.tail(t)
		fenced := make(chan error, 1)
		running.Go(func() { fenced <- publishAll(t.Context(), p, events[from:]) })
		select {
		case err := <-fenced:
			t.Fatalf("nobody took over, and it ended: %v", err)
		case <-time.After(time.Duration(rand.Int64N(int64(8 * time.Millisecond)))):
		}
		b.producer(t)
		// Kafka 4.1 knows no word for a commit that comes while it takes over: it fails within.
		if err := <-fenced; err != nil && !errors.Is(err, topic.ErrFenced) && !errors.Is(err, kerr.UnknownServerError) {
			t.Fatal(err)
		}
	}
	if err := publishAll(t.Context(), b.producer(t), events[b.tail(t):]); err != nil {
		t.Fatal(err)
	}
	b.want(t, 1, total)
}

// publishAll publishes events a few at a time, until they are out or something fails.
func publishAll(ctx context.Context, p *topic.Producer, events []domain.Recorded) error {
	for len(events) > 0 {
		n := min(len(events), 1+rand.IntN(7))
		if _, err := p.Publish(ctx, events[:n]); err != nil {
			return err
		}
		events = events[n:]
	}
	return nil
}

// TestTopicGone: a producer whose topic is deleted, or is another one by now, fails soon.
func TestTopicGone(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		first int // events before
		gone  func(b *bench, t *testing.T)
	}{
		"deleted":                     {3, (*bench).delete},
		"deleted before the first":    {0, (*bench).delete},
		"re-created":                  {3, (*bench).recreate},
		"re-created before the first": {0, (*bench).recreate},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			filler := b.producer(t)
			b.publish(t, filler, 3)
			p := b.producer(t)
			if c.first > 0 {
				b.publish(t, p, c.first)
			}
			c.gone(b, t)
			began := time.Now()
			if _, err := p.Publish(t.Context(), b.chain.Next(t, 1)); err == nil {
				t.Error("it published to a topic that is gone")
			}
			if took := time.Since(began); took > topic.PublishTime/2 {
				t.Errorf("it took %s", took)
			}
		})
	}
}

// TestNoTopic: without a topic there are errors that say so, and nothing is made.
func TestNoTopic(t *testing.T) {
	t.Parallel()
	tp, err := topic.Open(topictest.Config(t, shards, uuid.New()))
	if err != nil {
		t.Fatal(err)
	}
	defer tp.Close()
	_, err = tp.State(t.Context())
	wantError(t, err, kerr.UnknownTopicOrPartition)
	_, err = tp.Tail(t.Context(), 0)
	wantError(t, err, kerr.UnknownTopicOrPartition)
	_, err = tp.Producer(t.Context(), 0)
	wantError(t, err, kerr.UnknownTopicOrPartition)
	for _, err := range tp.Scan(t.Context(), 0) {
		wantError(t, err, kerr.UnknownTopicOrPartition)
	}
	_, err = tp.State(t.Context())
	wantError(t, err, kerr.UnknownTopicOrPartition)
}

// TestPublishCancelled: a caller that gives up gets its error at once, and the next one finds the
// transaction whole or not at all.
func TestPublishCancelled(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	p := b.producer(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := p.Publish(ctx, b.chain.Next(t, 5))
	wantError(t, err, context.Canceled)
	b.producer(t)
	if n := b.tail(t); n != 0 && n != 5 {
		t.Errorf("%d of 5 events are committed", n)
	}
}

// TestPublishFirst: what a new producer publishes first is committed when it says so, and is there when
// the next one has taken over. The client learns of the topic only then, and it has answered before it
// had noted what it learned.
func TestPublishFirst(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const each = 50
	var group sync.WaitGroup
	for shard := range int32(shards) {
		group.Go(func() {
			chain := topictest.ChainOf(t, b.config.Ledger, shard, shards)
			for range each {
				if err := b.publishFirst(t, shard, chain); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
}

// publishFirst publishes one event by a new producer, and takes over from that.
func (b *bench) publishFirst(t *testing.T, shard int32, chain *topictest.Chain) error {
	p, err := b.Producer(t.Context(), shard)
	if err != nil {
		return err
	}
	defer p.Close()
	last, err := p.Publish(t.Context(), chain.Next(t, 1))
	if err != nil {
		return err
	}
	next, err := b.Producer(t.Context(), shard)
	if err != nil {
		return err
	}
	defer next.Close()
	tail, err := b.Tail(t.Context(), shard)
	if err == nil && (tail == nil || tail.Offset != last) {
		err = fmt.Errorf("published at offset %d, and the tail is %+v", last, tail)
	}
	return err
}
