package simulation

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"llm-gateway/domain"
	"llm-gateway/ledger/relay"
	"llm-gateway/ledger/topic"
)

const (
	topicName       = "llm.usage.v1"
	transactionTime = 30 * time.Second // after it the broker aborts what nobody ended
)

// broker is a Kafka with one topic: transactional producers that fence each other by their epochs, marks
// at the ends of transactions, and reading of what is committed.
type broker struct {
	bug bug

	mu         sync.Mutex // guards all below
	topic      byte       // which one it is: it can be deleted and made again
	gone       bool
	partitions []*partition
}

// partition is a log. Its fields are guarded by the broker's mu.
type partition struct {
	records      []record
	epoch        int // of the producer that may write
	transactions int // so far
}

type recordState uint8

const (
	pending recordState = iota
	committed
	aborted
	mark // the end of a transaction
)

type record struct {
	state       recordState
	epoch       int
	transaction int
	at          time.Time
	event       domain.Recorded
}

func newBroker(shards int, b bug) *broker {
	k := &broker{bug: b}
	for range shards {
		k.partitions = append(k.partitions, &partition{})
	}
	return k
}

// drop deletes the topic, with all that is in it.
func (k *broker) drop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.gone = true
	for _, p := range k.partitions {
		p.records = nil
		p.epoch++ // nobody's transaction goes on in another topic: package topic sees to that
	}
}

// ensure makes the topic where there is none.
func (k *broker) ensure() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.gone {
		k.gone = false
		k.topic++
	}
}

// which topic it is, of those that were made.
func (k *broker) which() byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.topic
}

// state is the topic's identity and extent.
func (k *broker) state() (s topic.State, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.gone {
		return topic.State{}, kerr.UnknownTopicOrPartition
	}
	s.ID = [16]byte{1, k.topic}
	for _, p := range k.partitions {
		s.Starts, s.Ends = append(s.Starts, 0), append(s.Ends, p.stable())
	}
	return s, nil
}

// end ends the pending transaction of an epoch, or of any (-1).
func (p *partition) end(epoch int, as recordState) {
	found := false
	for i := range p.records {
		if r := &p.records[i]; r.state == pending && (epoch < 0 || r.epoch == epoch) {
			r.state, found = as, true
		}
	}
	if found {
		p.records = append(p.records, record{state: mark, epoch: epoch, at: time.Now()})
	}
}

// stable is the offset of the first record whose transaction has not ended, or the end of the log.
func (p *partition) stable() int64 {
	for i := range p.records {
		r := &p.records[i]
		if r.state != pending {
			continue
		}
		if time.Since(r.at) < transactionTime {
			return int64(i)
		}
		p.epoch++
		p.end(r.epoch, aborted)
	}
	return int64(len(p.records))
}

// takeOver makes the caller the one that may write.
func (k *broker) takeOver(shard int32) (epoch int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.partitions[shard]
	p.epoch++
	p.end(-1, aborted)
	return p.epoch
}

// produce appends records to a transaction that is not ended yet.
func (k *broker) produce(shard int32, epoch int, events []domain.Recorded) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.partitions[shard]
	p.stable()
	if k.gone {
		return kerr.UnknownTopicOrPartition
	}
	if epoch != p.epoch && k.bug != bugNoFence {
		return topic.ErrFenced
	}
	p.transactions++
	for _, e := range events {
		p.records = append(p.records, record{pending, epoch, p.transactions, time.Now(), e})
	}
	return nil
}

// commit ends a transaction, and returns the offset of its last record.
func (k *broker) commit(shard int32, epoch int) (last int64, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.partitions[shard]
	p.stable()
	if k.gone {
		return 0, kerr.UnknownTopicOrPartition
	}
	if epoch != p.epoch && k.bug != bugNoFence {
		return 0, topic.ErrFenced
	}
	last = int64(len(p.records)) - 1
	p.end(epoch, committed)
	return last, nil
}

// read returns the committed records from an offset on, some at most, and where reading goes on. An offset
// that is not there means the first record that is.
func (k *broker) read(shard int32, from int64, most int) (out []domain.Recorded, next int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.partitions[shard]
	if next = from; from > int64(len(p.records)) {
		next = 0
	}
	for stable := p.stable(); next < stable && len(out) < most; next++ {
		if r := &p.records[next]; r.state == committed {
			out = append(out, r.event)
		}
	}
	return out, next
}

// transactionsOf tells for each committed record of a partition in which transaction it was.
func (k *broker) transactionsOf(shard int32) (out []int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.partitions[shard].records {
		if r.state == committed {
			out = append(out, r.transaction)
		}
	}
	return out
}

// tail is the last committed record, nil where there is none.
func (k *broker) tail(shard int32) *topic.Record {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.partitions[shard]
	for i := p.stable() - 1; i >= 0; i-- {
		if r := &p.records[i]; r.state == committed {
			return &topic.Record{Shard: shard, Offset: i, Key: r.event.Event.Account, Seq: r.event.Event.Seq,
				Hash: r.event.Hash, Payload: r.event.Payload}
		}
	}
	return nil
}

// brokerClient is a process's relay.Topic.
type brokerClient struct{ p *process }

// Cluster implements relay.Topic.
func (c *brokerClient) Cluster(ctx context.Context) (string, error) {
	return "the cluster", c.p.look(ctx, kindFetch, "relay asks for the cluster")
}

// Ensure implements relay.Topic.
func (c *brokerClient) Ensure(ctx context.Context) error {
	if err := c.p.look(ctx, kindFetch, "relay ensures the topic"); err != nil {
		return err
	}
	c.p.w.broker.ensure()
	return nil
}

// State implements relay.Topic.
func (c *brokerClient) State(ctx context.Context) (topic.State, error) {
	if err := c.p.look(ctx, kindFetch, "relay looks at the topic"); err != nil {
		return topic.State{}, err
	}
	return c.p.w.broker.state()
}

// Tail implements relay.Topic.
func (c *brokerClient) Tail(ctx context.Context, shard int32) (*topic.Record, error) {
	if _, err := c.p.enter(ctx, kindFetch, fmt.Sprintf("relay reads the tail of %d", shard)); err != nil {
		return nil, err
	}
	return c.p.w.broker.tail(shard), nil
}

// Producer implements relay.Topic.
func (c *brokerClient) Producer(ctx context.Context, shard int32) (relay.Producer, error) {
	f, err := c.p.enter(ctx, kindProduce, fmt.Sprintf("relay takes over %d", shard))
	if err != nil {
		return nil, err
	}
	epoch := c.p.w.broker.takeOver(shard)
	if f == failAfter {
		return nil, errBroken
	}
	return &producer{p: c.p, shard: shard, epoch: epoch}, nil
}

// producer is a process's relay.Producer.
type producer struct {
	p     *process
	shard int32
	epoch int
}

// Publish implements relay.Producer.
func (r *producer) Publish(ctx context.Context, events []domain.Recorded) (last int64, err error) {
	if r.p.w.bug == bugSplitCommand && len(events) > 1 {
		if _, err := r.Publish(ctx, events[:1]); err != nil {
			return 0, err
		}
		return r.Publish(ctx, events[1:])
	}
	k := r.p.w.broker
	if err := r.step(ctx, "produces to", func() error { return k.produce(r.shard, r.epoch, events) }); err != nil {
		return 0, err
	}
	err = r.step(ctx, "commits to", func() error {
		last, err = k.commit(r.shard, r.epoch)
		return err
	})
	return last, err
}

func (r *producer) step(ctx context.Context, what string, do func() error) error {
	f, err := r.p.enter(ctx, kindProduce, fmt.Sprintf("relay %s %d", what, r.shard))
	if err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	if f == failAfter {
		return errBroken
	}
	return nil
}

// Close implements relay.Producer.
func (r *producer) Close() {}
