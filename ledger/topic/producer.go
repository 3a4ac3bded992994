package topic

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"llm-gateway/domain"
)

// The bounds of producing.
const (
	MaxTransaction = 500 // events in one Publish

	maxBatchBytes   = 1_000_000        // bytes in one batch; what a topic takes by default is a little more
	takeoverTime    = 15 * time.Second // the longest that ending a predecessor's transaction may take
	publishTime     = 10 * time.Second
	transactionTime = 30 * time.Second // after it Kafka aborts what nobody took over; longer than a Publish lasts
	unknownRetries  = 2                // how often a topic may be not there before that is believed
	markerPause     = 5 * time.Millisecond
)

// Producer publishes one shard, alone. It is not safe for concurrent use.
type Producer struct {
	topic  *Topic
	shard  int32
	client *kgo.Client
	last   int64 // the offset behind which the next record must come
	seq    int64 // of the last event published; 0 before the first
	broken error // why it cannot be used any more
}

// transactionalID is the name under which a shard's producers fence each other.
func (t *Topic) transactionalID(shard int32) string {
	return t.config.Name + "-" + strconv.Itoa(int(shard))
}

// producing are a producer's options. Snappy, because it costs less than it saves: of a hundred charges
// in a transaction, producing, keeping and consuming took 8 microseconds of CPU each with it (kfake and
// client in one process), 10 with lz4 and 12 with none. One event alone costs the same with all.
func (t *Topic) producing(shard int32) []kgo.Opt {
	return []kgo.Opt{
		kgo.TransactionalID(t.transactionalID(shard)),
		kgo.TransactionTimeout(transactionTime),
		kgo.ConcurrentTransactionsBackoff(markerPause),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.SnappyCompression()),
		kgo.ProducerBatchMaxBytes(maxBatchBytes),
		kgo.MaxBufferedRecords(MaxTransaction),
		kgo.ManualFlushing(), // a transaction is one batch, not a first record and then the rest
		kgo.ProduceRequestTimeout(requestTime),
		kgo.RecordDeliveryTimeout(publishTime),
		kgo.UnknownTopicRetries(unknownRetries),
	}
}

// Publish appends events in one transaction, MaxTransaction at most and in the order of seq, and
// returns the offset of the last. An error is ErrFenced or something else; after it, it is not known
// whether they were published, and the producer must be closed.
func (p *Producer) Publish(ctx context.Context, events []domain.Recorded) (last int64, err error) {
	if p.broken != nil {
		return 0, p.broken
	}
	if err = p.check(events); err == nil {
		last, err = p.transact(ctx, events)
	}
	if err != nil {
		if fenced(err) {
			err = fmt.Errorf("%w: %w", ErrFenced, err)
		}
		p.broken = fmt.Errorf("publishing to shard %d: %w", p.shard, err)
		return 0, p.broken
	}
	p.last, p.seq = last, events[len(events)-1].Event.Seq
	return last, nil
}

// check refuses what must never be in the topic.
func (p *Producer) check(events []domain.Recorded) error {
	if len(events) == 0 || len(events) > MaxTransaction {
		return fmt.Errorf("%d events in a transaction of 1 to %d", len(events), MaxTransaction)
	}
	seq := p.seq
	for i := range events {
		e := &events[i].Event
		if e.Shard != p.shard || seq != 0 && e.Seq != seq+1 {
			return fmt.Errorf("event %s cannot follow %s", e.Position(), domain.Position{Shard: p.shard, Seq: seq})
		}
		if n := len(events[i].Payload); n == 0 || n > domain.MaxPayload {
			return fmt.Errorf("event %s has a payload of %d bytes", e.Position(), n)
		}
		seq = e.Seq
	}
	return nil
}

// transact publishes all of it or nothing. The client renews its producer id by itself after some
// errors, and goes on: what it had sent before is aborted then, and the rest must not be committed.
func (p *Producer) transact(ctx context.Context, events []domain.Recorded) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, publishTime)
	defer cancel()
	id, epoch, err := p.client.ProducerID(ctx)
	if err != nil {
		return 0, err
	}
	if err := p.client.BeginTransaction(); err != nil {
		return 0, err
	}
	sent := &receipts{offset: p.last}
	for i := range events {
		r := encode(p.topic.config.Ledger, &events[i])
		r.Topic = p.topic.config.Name
		p.client.Produce(ctx, r, sent.take)
	}
	if err := p.client.Flush(ctx); err != nil {
		return 0, err
	}
	last, err := sent.all(len(events))
	if err != nil {
		return 0, err
	}
	if err := p.settled(ctx); err != nil {
		return 0, err
	}
	switch id2, epoch2, err := p.client.ProducerID(ctx); {
	case err != nil:
		return 0, err
	case id2 != id || epoch2 != epoch:
		return 0, errors.New("the producer was renewed in the midst of a transaction")
	}
	return promptly(ctx, func() (int64, error) { return last, p.client.EndTransaction(ctx, kgo.TryCommit) })
}

// settled waits until the client has noted where the topic's partitions are. It asks for that when a
// record is produced for the first time, sends the record, and takes the note only then. A transaction
// that ends in between looks to it as if nothing had been produced: it aborts it, and says that it went
// well. Aborting what is buffered, which is nothing, waits for the lock under which the note is taken.
func (p *Producer) settled(ctx context.Context) error {
	if p.seq != 0 {
		return nil // it was noted in the transaction before
	}
	return p.client.AbortBufferedRecords(ctx)
}

// receipts are the answers to the records of one transaction. Their offsets must rise, from behind
// what had been published before: else the topic is not the one it was.
type receipts struct {
	mu     sync.Mutex
	offset int64 // of the last record answered
	count  int
	err    error // the first
}

// take is called by the client, once for each record, in their order.
func (s *receipts) take(r *kgo.Record, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	switch {
	case s.err != nil:
	case err != nil:
		s.err = err
	case r.Offset <= s.offset:
		s.err = fmt.Errorf("%w: a record was appended at offset %d, after one at %d", errRecreated, r.Offset, s.offset)
	default:
		s.offset = r.Offset
	}
}

func (s *receipts) all(events int) (last int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil && s.count != events {
		return 0, fmt.Errorf("%d of %d records were answered", s.count, events)
	}
	return s.offset, s.err
}

// fenced says whether an error means that Kafka does not take this producer any more. Which of the
// words it uses depends on its version and on what the fenced one was about to do.
func fenced(err error) bool {
	for _, e := range []*kerr.Error{kerr.ProducerFenced, kerr.InvalidProducerEpoch, kerr.InvalidProducerIDMapping, kerr.UnknownProducerID, kerr.InvalidTxnState} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Close gives the producer up without waiting for anything.
func (p *Producer) Close() { p.client.Close() }
