package topic_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"llm-gateway/domain"
	"llm-gateway/ledger/topic"
	"llm-gateway/ledger/topic/topictest"
)

const shards = 4

// bench is a topic of the test's own, one shard of it, and events for that.
type bench struct {
	*topic.Topic
	config  topic.Config
	shard   int32
	chain   *topictest.Chain
	cluster *kfake.Cluster // nil: it is shared
}

func newBench(t *testing.T) *bench {
	t.Helper()
	config := topictest.Config(t, shards, uuid.New())
	return &bench{
		Topic: topictest.Open(t, config), config: config, shard: 2,
		chain: topictest.ChainOf(t, config.Ledger, 2, shards),
	}
}

// producer takes the shard over; it is closed when the test ends.
func (b *bench) producer(t *testing.T) *topic.Producer {
	t.Helper()
	p, err := b.Producer(t.Context(), b.shard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// publish publishes the next n events, and returns them and the last one's offset, which can be read.
func (b *bench) publish(t *testing.T, p *topic.Producer, n int) ([]domain.Recorded, int64) {
	t.Helper()
	events := b.chain.Next(t, n)
	last, err := p.Publish(t.Context(), events)
	if err != nil {
		t.Fatal(err)
	}
	b.readable(t, last)
	return events, last
}

// readable waits until an offset that was published can be read. Kafka answers a commit before it has
// written the mark that ends the transaction, and until then reading ends before it.
func (b *bench) readable(t *testing.T, offset int64) {
	t.Helper()
	within(t, topic.CallTime, "what was published can be read", func() bool {
		s, err := b.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s.Ends[b.shard] > offset
	})
}

// noisy are the next n events, made so long that they do not get shorter by compression.
func (b *bench) noisy(t *testing.T, n, size int) []domain.Recorded {
	t.Helper()
	defer func() { b.chain.Pad = "" }()
	var events []domain.Recorded
	for range n {
		b.chain.Pad = noise(size)
		events = append(events, b.chain.Next(t, 1)...)
	}
	return events
}

// noise is text that does not get shorter by compression.
func noise(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = '0' + byte(rand.IntN(64))
		if b[i] == '\\' {
			b[i] = '!'
		}
	}
	return string(b)
}

// seqs are the seqs that are committed, in order; every record must hold.
func (b *bench) seqs(t *testing.T) []int64 {
	t.Helper()
	var seqs []int64
	for r, err := range b.Scan(t.Context(), b.shard) {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Event(); err != nil {
			t.Fatal(err)
		}
		seqs = append(seqs, r.Seq)
	}
	return seqs
}

// tail is the seq of the last record; 0 where there is none.
func (b *bench) tail(t *testing.T) int64 {
	t.Helper()
	r, err := b.Tail(t.Context(), b.shard)
	if err != nil {
		t.Fatal(err)
	}
	if r == nil {
		return 0
	}
	return r.Seq
}

// want checks that exactly the seqs from first to last are committed, the last one soon: see readable.
func (b *bench) want(t *testing.T, first, last int64) {
	t.Helper()
	if last >= first {
		within(t, topic.CallTime, fmt.Sprintf("seq %d is committed", last), func() bool { return b.tail(t) >= last })
	}
	got := b.seqs(t)
	for i, seq := range got {
		if seq != first+int64(i) {
			t.Fatalf("after %d committed records comes seq %d, want %d to %d", i, seq, first, last)
		}
	}
	if int64(len(got)) != last-first+1 {
		t.Fatalf("%d records are committed, want %d to %d", len(got), first, last)
	}
	if last < first {
		last = 0
	}
	if tail := b.tail(t); tail != last {
		t.Fatalf("the tail is %d, want %d", tail, last)
	}
}

// raw is a client as anybody could have one.
func (b *bench) raw(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append(opts,
		kgo.SeedBrokers(b.config.Brokers...),
		kgo.DefaultProduceTopic(b.config.Name),
		kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// predecessor is a producer of the shard that has begun a transaction and appended events to it, and
// then does nothing more.
func (b *bench) predecessor(t *testing.T, events []domain.Recorded) *kgo.Client {
	t.Helper()
	client := b.raw(t, kgo.TransactionalID(b.config.Name+"-2"))
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for i := range events {
		r := topic.Encode(b.config.Ledger, &events[i])
		if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	return client
}

// abandon leaves n transactions of one record each in the shard that were aborted.
func (b *bench) abandon(t *testing.T, n int) {
	t.Helper()
	events := b.chain.Next(t, 1)
	b.chain.Seq--
	client := b.predecessor(t, nil)
	for i := range n {
		if i > 0 {
			if err := client.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
		}
		if err := client.ProduceSync(t.Context(), topic.Encode(b.config.Ledger, &events[0])).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := client.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
			t.Fatal(err)
		}
	}
}

// admin is an administrator of the cluster.
func (b *bench) admin(t *testing.T) *kadm.Client {
	t.Helper()
	return kadm.NewClient(b.raw(t))
}

// recreate deletes the topic and makes it again.
func (b *bench) recreate(t *testing.T) {
	t.Helper()
	b.delete(t)
	within(t, 20*time.Second, "the topic is made again", func() bool { return b.Ensure(t.Context()) == nil })
}

// delete deletes the topic, and waits until the broker has heard of that: who answers is the controller.
func (b *bench) delete(t *testing.T) {
	t.Helper()
	if _, err := b.admin(t).DeleteTopic(t.Context(), b.config.Name); err != nil {
		t.Fatal(err)
	}
	within(t, topic.CallTime, "the topic is gone", func() bool {
		_, err := b.State(t.Context())
		return errors.Is(err, kerr.UnknownTopicOrPartition)
	})
}

// empty deletes the shard's records before an offset.
func (b *bench) empty(t *testing.T, before int64) {
	t.Helper()
	offsets := make(kadm.Offsets)
	offsets.AddOffset(b.config.Name, b.shard, before, -1)
	resps, err := b.admin(t).DeleteRecords(t.Context(), offsets)
	if err == nil {
		err = resps.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// within waits until something is so.
func within(t *testing.T, bound time.Duration, what string, so func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !so() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("waited %s, and it is not so that %s", bound, what)
		}
	}
}

// wantError checks that an error is what it must be.
func wantError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}
