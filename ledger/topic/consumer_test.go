package topic_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"llm-gateway/domain"
	"llm-gateway/ledger/topic"
	"llm-gateway/ledger/topic/topictest"
)

// consume begins at offsets; the consumer is closed when the test ends.
func (b *bench) consume(t *testing.T, offsets ...int64) *topic.Consumer {
	t.Helper()
	if len(offsets) == 0 {
		offsets = make([]int64, shards)
	}
	c, err := b.Consume(offsets)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// poll polls until so many records of the shard have come, and checks that each is the next one.
func (b *bench) poll(t *testing.T, c *topic.Consumer, first int64, count int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for next := first; next < first+int64(count); {
		records, err := c.Poll(ctx, 100)
		if err != nil {
			t.Fatalf("waiting for seq %d: %v", next, err)
		}
		for _, r := range records {
			if e, err := r.Event(); err != nil || e.Event.Seq != next {
				t.Fatalf("seq %d came, want %d: %v", r.Seq, next, err)
			}
			next++
		}
	}
}

// TestConsume: all shards at once, in order within each, never more than asked for.
func TestConsume(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	c := b.consume(t)
	const each, most = 50, 7
	for shard := range int32(shards) {
		chain := topictest.ChainOf(t, b.config.Ledger, shard, shards)
		p, err := b.Producer(t.Context(), shard)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		for range each / 10 {
			if _, err := p.Publish(t.Context(), chain.Next(t, 10)); err != nil {
				t.Fatal(err)
			}
		}
	}
	var seqs, offsets [shards]int64
	for read := 0; read < shards*each; {
		records, err := c.Poll(t.Context(), most)
		if err != nil {
			t.Fatal(err)
		}
		if len(records) == 0 || len(records) > most {
			t.Fatalf("%d records, want 1 to %d", len(records), most)
		}
		for _, r := range records {
			if r.Seq != seqs[r.Shard]+1 || r.Offset < offsets[r.Shard] {
				t.Fatalf("seq %d at offset %d of shard %d comes after seq %d", r.Seq, r.Offset, r.Shard, seqs[r.Shard])
			}
			if _, err := r.Event(); err != nil {
				t.Fatal(err)
			}
			seqs[r.Shard], offsets[r.Shard] = r.Seq, r.Offset+1
		}
		read += len(records)
	}
	onward := b.consume(t, offsets[:]...)
	b.publish(t, b.skip(t, each), 3)
	b.poll(t, onward, each+1, 3)
}

// skip is a producer of the shard for events behind a seq.
func (b *bench) skip(t *testing.T, seq int64) *topic.Producer {
	t.Helper()
	b.chain.Seq = seq
	return b.producer(t)
}

// TestConsumeFrom: where reading begins, for offsets that are there and others.
func TestConsumeFrom(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		offset int64
		first  int64
	}{
		"the first":         {0, 4}, // 1 to 3 are deleted
		"before the first":  {2, 4},
		"a negative one":    {-1, 4},
		"one that is there": {6, 6}, // 0-2, mark, 4-8, mark
		"a mark":            {9, 9},
		"behind the last":   {1000, 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			p := b.producer(t)
			b.publish(t, p, 3)
			b.publish(t, p, 5)
			b.empty(t, 4)
			consumer := b.consume(t, 0, 0, c.offset, 0)
			if c.first == 9 {
				b.publish(t, p, 1)
			}
			b.poll(t, consumer, c.first, int(b.chain.Seq-c.first)+1)
			b.publish(t, p, 2)
			b.poll(t, consumer, b.chain.Seq-1, 2)
		})
	}
}

func TestConsumeWrongOffsets(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	if _, err := b.Consume(make([]int64, shards+1)); err == nil {
		t.Error("there is an offset too many, and it consumes")
	}
	if _, err := b.consume(t).Poll(t.Context(), 0); err == nil {
		t.Error("it polls for no records")
	}
}

// TestConsumeCommitted: neither what is aborted nor what is open is seen, over many fetches, with
// transactions that are taken over between ones that are not.
func TestConsumeCommitted(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const rounds = 12
	for range rounds {
		events := b.noisy(t, 12, 20_000)
		b.predecessor(t, events[:6])
		if _, err := b.producer(t).Publish(t.Context(), events); err != nil {
			t.Fatal(err)
		}
	}
	open := b.predecessor(t, b.chain.Next(t, 3))
	c := b.consume(t)
	b.poll(t, c, 1, rounds*12)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	records, err := c.Poll(ctx, 1)
	if len(records) != 0 {
		t.Errorf("seq %d of an open transaction is seen", records[0].Seq)
	}
	wantError(t, err, context.DeadlineExceeded)
	if err := open.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	b.poll(t, c, rounds*12+1, 3)
}

// TestConsumeSoon: what is committed while nothing was there comes out soon after.
func TestConsumeSoon(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	p := b.producer(t)
	c := b.consume(t)
	b.publish(t, p, 1)
	b.poll(t, c, 1, 1)
	const soon, tries = 500 * time.Millisecond, 30 // a loaded machine is slow; Kafka's wait is a second
	var slowest time.Duration
	for range tries {
		if _, err := p.Publish(t.Context(), b.chain.Next(t, 1)); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		b.poll(t, c, b.chain.Seq, 1)
		slowest = max(slowest, time.Since(began))
	}
	t.Logf("the slowest of %d came after %s", tries, slowest)
	if slowest > soon {
		t.Errorf("a record came %s after it was committed, want %s at most", slowest, soon)
	}
}

// TestConsumeTopicGone: a topic that is deleted, or is another one by now, is an error and not a
// long silence.
func TestConsumeTopicGone(t *testing.T) {
	t.Parallel()
	for name, gone := range map[string]func(b *bench, t *testing.T){
		"deleted":    (*bench).delete,
		"re-created": (*bench).recreate,
		"re-created and filled": func(b *bench, t *testing.T) {
			b.recreate(t)
			b.chain.Seq = 0
			b.publish(t, b.producer(t), 20)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.publish(t, b.producer(t), 3)
			c := b.consume(t)
			b.poll(t, c, 1, 3)
			gone(b, t)
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			records, err := c.Poll(ctx, 100)
			if len(records) != 0 {
				t.Fatalf("%d records of another topic came", len(records))
			}
			wantError(t, err, kerr.UnknownTopicID)
			t.Logf("it took %s", time.Since(began))
		})
	}
}

// TestPollCancelled: a wait that is given up costs no record.
func TestPollCancelled(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	p := b.producer(t)
	c := b.consume(t)
	var events []domain.Recorded
	for next := int64(1); next <= 50; {
		if len(events) < 50 {
			more, _ := b.publish(t, p, 1)
			events = append(events, more...)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.Int64N(int64(2*time.Millisecond))))
		records, err := c.Poll(ctx, 10)
		cancel()
		if err != nil {
			wantError(t, err, context.DeadlineExceeded)
			continue
		}
		for _, r := range records {
			if r.Seq != next {
				t.Fatalf("seq %d came, want %d", r.Seq, next)
			}
			next++
		}
	}
}

// TestConsumerClosed: who polls a closed consumer is told.
func TestConsumerClosed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	c := b.consume(t)
	done := make(chan error, 1)
	go func() {
		_, err := c.Poll(t.Context(), 1)
		done <- err
	}()
	c.Close()
	wantError(t, <-done, kgo.ErrClientClosed)
	_, err := c.Poll(t.Context(), 1)
	wantError(t, err, kgo.ErrClientClosed)
}
