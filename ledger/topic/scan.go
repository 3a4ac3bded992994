package topic

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The bounds of reading a partition by single requests.
const (
	readTime   = 10 * time.Second       // to get on by a record, all tries together
	readWait   = 500 * time.Millisecond // how long Kafka may wait for what it said is there
	readBytes  = 1 << 20                // of one fetch; a batch that is greater comes whole
	tailWindow = 2                      // the offsets that Tail looks at first: a record and its commit
)

// Tail returns the last committed record of a shard, or nil where there is none. Behind the last
// record there always is the mark of its commit, and there may be more marks, and what was aborted:
// it looks at the last few offsets, then at twice as many before those, until a record is found.
func (t *Topic) Tail(ctx context.Context, shard int32) (*Record, error) {
	r, start, end, err := t.reader(ctx, shard)
	if err != nil {
		return nil, fmt.Errorf("looking for the tail of shard %d: %w", shard, err)
	}
	for window := int64(tailWindow); end > start; window *= 2 {
		begin := max(start, end-window)
		last, err := r.last(ctx, begin, end)
		if err != nil {
			return nil, fmt.Errorf("looking for the tail of shard %d: %w", shard, err)
		}
		if last != nil {
			return decode(t.config.Ledger, last), nil
		}
		end = begin
	}
	return nil, nil
}

// Scan reads a shard's committed records from the first one to where they end when the reading
// begins. An error comes last, and once.
func (t *Topic) Scan(ctx context.Context, shard int32) iter.Seq2[*Record, error] {
	return func(yield func(*Record, error) bool) {
		r, from, end, err := t.reader(ctx, shard)
		for err == nil && from < end {
			var records []*kgo.Record
			if records, from, err = r.read(ctx, from); err != nil {
				break
			}
			for _, record := range records {
				if record.Offset >= end || !yield(decode(t.config.Ledger, record), nil) {
					return
				}
			}
		}
		if err != nil {
			yield(nil, fmt.Errorf("reading shard %d: %w", shard, err))
		}
	}
}

// reader reads one partition by single requests: nothing of it lives between two of them.
type reader struct {
	topic  *Topic
	shard  int32
	id     [16]byte
	leader int32

	everything bool // also what is not committed, and the marks of transactions
}

// reader finds a shard and what is to be read of it now: [start, end).
func (t *Topic) reader(ctx context.Context, shard int32) (r *reader, start, end int64, err error) {
	if err := t.checkShard(shard); err != nil {
		return nil, 0, 0, err
	}
	e, err := t.extent(ctx, shard)
	return &reader{topic: t, shard: shard, id: e.id, leader: -1}, e.start, e.end, err
}

// last returns the last committed record in [from, end), or nil. What has been committed behind end
// since then may come too, and is later still.
func (r *reader) last(ctx context.Context, from, end int64) (last *kgo.Record, err error) {
	for from < end {
		var records []*kgo.Record
		if records, from, err = r.read(ctx, from); err != nil {
			return nil, err
		}
		if n := len(records); n > 0 {
			last = records[n-1]
		}
	}
	return last, nil
}

// errNoProgress says that there is nothing where Kafka said that there is something.
var errNoProgress = errors.New("nothing came, and there should be records")

// read returns what is at an offset, which must be before the last stable one, and where to go on:
// further on, always. What may pass, a moved leader or a broken connection, it tries again for readTime.
func (r *reader) read(ctx context.Context, offset int64) ([]*kgo.Record, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	for failures := 1; ; failures++ {
		records, next, err := r.fetch(ctx, offset)
		if err == nil && next <= offset {
			err = errNoProgress
		}
		if err == nil {
			return records, next, nil
		}
		if !passes(err) {
			return nil, 0, err
		}
		r.leader = -1
		select {
		case <-time.After(pause(failures)):
		case <-ctx.Done():
			return nil, 0, fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}

// passes says whether trying again may help.
func passes(err error) bool {
	switch {
	case errors.Is(err, ErrMismatch), errors.Is(err, errRecreated), errors.Is(err, kgo.ErrClientClosed),
		errors.Is(err, context.Canceled), errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID):
		return false
	case errors.As(err, new(*kerr.Error)):
		return kerr.IsRetriable(err)
	}
	return true // the connection, or no leader
}

// fetch is one request.
func (r *reader) fetch(ctx context.Context, offset int64) ([]*kgo.Record, int64, error) {
	if r.leader < 0 {
		l, err := promptly(ctx, func() (layout, error) { return r.topic.layout(ctx) })
		if err != nil {
			return nil, 0, err
		}
		if l.id != r.id {
			return nil, 0, errRecreated
		}
		if r.leader = l.leaders[r.shard]; r.leader < 0 {
			return nil, 0, kerr.LeaderNotAvailable
		}
	}
	resp, err := r.topic.client.Broker(int(r.leader)).Request(ctx, r.request(offset))
	if err != nil {
		return nil, 0, err
	}
	return r.parse(resp.(*kmsg.FetchResponse), offset)
}

func (r *reader) request(offset int64) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis = int32(readWait.Milliseconds())
	req.MinBytes = 1
	req.MaxBytes = math.MaxInt32 // what bounds it is the partition's limit: see Config.fetchBytes
	req.IsolationLevel = 1       // read committed
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic, topic.TopicID = r.topic.config.Name, r.id
	partition := kmsg.NewFetchRequestTopicPartition()
	partition.Partition, partition.FetchOffset, partition.PartitionMaxBytes = r.shard, offset, readBytes
	topic.Partitions = append(topic.Partitions, partition)
	req.Topics = append(req.Topics, topic)
	return req
}

// parse takes the committed records out of an answer, and says where to go on behind them and behind
// what was aborted.
func (r *reader) parse(resp *kmsg.FetchResponse, offset int64) ([]*kgo.Record, int64, error) {
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, 0, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 || resp.Topics[0].Partitions[0].Partition != r.shard {
		return nil, 0, errNoProgress
	}
	opts := kgo.ProcessFetchPartitionOpts{
		Offset: offset, IsolationLevel: kgo.ReadCommitted(), Topic: r.topic.config.Name, Partition: r.shard,
	}
	if r.everything {
		opts.IsolationLevel, opts.KeepControlRecords = kgo.ReadUncommitted(), true
	}
	fetched, next := kgo.ProcessFetchPartition(opts, &resp.Topics[0].Partitions[0], decompressor, nil)
	return fetched.Records, next, fetched.Err
}

// decompressor keeps its buffers; it is safe for concurrent use.
var decompressor = kgo.DefaultDecompressor()
