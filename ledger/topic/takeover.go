package topic

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// errUnmarked says that a partition does not end with the mark of a transaction's end.
var errUnmarked = errors.New("the partition ends without a mark")

// Producer takes a shard over: from its return on, no earlier producer of the shard can publish, and
// what they left unfinished is aborted. A commit of theirs that was under way is complete.
func (t *Topic) Producer(ctx context.Context, shard int32) (*Producer, error) {
	if err := t.checkShard(shard); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, takeoverTime)
	defer cancel()
	p, err := t.takeOver(ctx, shard)
	if errors.Is(err, errUnmarked) { // it is marked by now
		p, err = t.takeOver(ctx, shard)
	}
	if err != nil {
		return nil, fmt.Errorf("taking shard %d over: %w", shard, err)
	}
	return p, nil
}

// takeOver fences the shard's earlier producers. Where the partition ends after that is where it
// ended for good for them: what comes now comes behind it.
func (t *Topic) takeOver(ctx context.Context, shard int32) (p *Producer, err error) {
	client, err := kgo.NewClient(append(t.config.options(), t.producing(shard)...)...)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			client.Close()
		}
	}()
	id, epoch, err := client.ProducerID(ctx)
	if err != nil {
		return nil, err
	}
	r, start, end, err := t.reader(ctx, shard)
	if err != nil {
		return nil, err
	}
	if end > start {
		marked, err := r.marked(ctx, end-1)
		if err != nil {
			return nil, err
		}
		if !marked {
			return nil, t.mark(ctx, client, shard, id, epoch)
		}
	}
	return &Producer{topic: t, shard: shard, client: client, last: end - 1}, nil
}

// marked says whether the mark of a transaction's end stands at an offset, the last one of the
// partition: there is one after every transaction that has ended.
//
// There is none where kfake was killed in the midst of a transaction. When it starts again it takes the
// transaction for aborted, and writes no mark. A consumer skips what the transaction's producer
// appended up to the mark of its end: without one, it would skip all that is committed after it.
func (r *reader) marked(ctx context.Context, offset int64) (bool, error) {
	r.everything = true
	defer func() { r.everything = false }()
	records, _, err := r.read(ctx, offset)
	if err != nil {
		return false, err
	}
	return len(records) > 0 && records[0].Attrs.IsControl(), nil
}

// mark writes the mark that is missing, by an aborted transaction with nothing in it. It returns
// errUnmarked when it is done: the client that it used does not know of the transaction, and is of no
// use any more.
func (t *Topic) mark(ctx context.Context, client *kgo.Client, shard int32, id int64, epoch int16) error {
	begin := kmsg.NewPtrAddPartitionsToTxnRequest()
	begin.TransactionalID, begin.ProducerID, begin.ProducerEpoch = t.transactionalID(shard), id, epoch
	topic := kmsg.NewAddPartitionsToTxnRequestTopic()
	topic.Topic, topic.Partitions = t.config.Name, []int32{shard}
	begin.Topics = append(begin.Topics, topic)
	begun, err := promptly(ctx, func() (*kmsg.AddPartitionsToTxnResponse, error) { return begin.RequestWith(ctx, client) })
	if err != nil {
		return err
	}
	for _, topic := range begun.Topics {
		for _, partition := range topic.Partitions {
			if err := kerr.ErrorForCode(partition.ErrorCode); err != nil {
				return err
			}
		}
	}
	end := kmsg.NewPtrEndTxnRequest()
	end.TransactionalID, end.ProducerID, end.ProducerEpoch, end.Commit = t.transactionalID(shard), id, epoch, false
	ended, err := promptly(ctx, func() (*kmsg.EndTxnResponse, error) { return end.RequestWith(ctx, client) })
	if err != nil {
		return err
	}
	if err := kerr.ErrorForCode(ended.ErrorCode); err != nil {
		return err
	}
	return errUnmarked
}
