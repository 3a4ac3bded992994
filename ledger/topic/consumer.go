package topic

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The bounds of consuming.
const (
	fetchWait     = time.Second // how long Kafka holds a question while there is nothing new
	heldBytes     = 16 << 20    // of records in one answer, shared by the partitions
	mostBytes     = 1 << 20     // of one partition's share
	leastBytes    = 64 << 10    // of one partition's share
	unpackedBytes = 64 << 20    // of one batch when it is unpacked
)

// partitionBytes is how much one answer may hold of one partition, but for a batch that is greater.
func (c Config) partitionBytes() int32 {
	return int32(min(max(heldBytes/c.Shards, leastBytes), mostBytes))
}

// fetchBytes is how much one answer may hold. It is so much that the limits of the partitions are
// always reached first: kfake, when an answer is cut at this limit, leaves out which of the records in
// it were aborted, and they would be read as committed.
func (c Config) fetchBytes() int32 {
	return int32(min(c.Shards*(int(c.partitionBytes())+defaultBatch), maxResponse))
}

// Consumer reads the topic onward.
type Consumer struct {
	topic  *Topic
	client *kgo.Client
}

// Consume reads all shards, read committed, from the given offsets on. An offset that is not there
// means the first record that is.
func (t *Topic) Consume(offsets []int64) (*Consumer, error) {
	if len(offsets) != t.config.Shards {
		return nil, fmt.Errorf("%d offsets for %d shards", len(offsets), t.config.Shards)
	}
	from := make(map[int32]kgo.Offset, len(offsets))
	for shard, offset := range offsets {
		from[int32(shard)] = kgo.NewOffset().AtStart()
		if offset >= 0 {
			from[int32(shard)] = kgo.NewOffset().At(offset)
		}
	}
	client, err := kgo.NewClient(append(t.config.options(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{t.config.Name: from}),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(fetchWait),
		kgo.FetchMaxBytes(t.config.fetchBytes()),
		kgo.FetchMaxPartitionBytes(t.config.partitionBytes()),
		kgo.MaxDecompressBatchBytes(unpackedBytes),
	)...)
	if err != nil {
		return nil, fmt.Errorf("consuming topic %s: %w", t.config.Name, err)
	}
	return &Consumer{topic: t, client: client}, nil
}

// Poll waits for records, at most max of them, in order within each shard. An error means that the
// topic cannot be read, or has been re-created: close the consumer and begin again. When ctx ends
// first, there are no records, and the error is ctx's: the consumer is as good as before.
func (c *Consumer) Poll(ctx context.Context, max int) ([]*Record, error) {
	if max < 1 {
		return nil, fmt.Errorf("polling for %d records", max)
	}
	for {
		fetches := c.client.PollRecords(ctx, max)
		ended := ctx.Err()
		if ended != nil && fetches.NumRecords() == 0 {
			return nil, ended
		}
		for _, failed := range fetches.Errors() {
			if ended == nil || !errors.Is(failed.Err, ended) {
				return nil, fmt.Errorf("consuming shard %d: %w", failed.Partition, failed.Err)
			}
		}
		if records := c.decode(fetches); len(records) > 0 {
			return records, nil
		}
	}
}

func (c *Consumer) decode(fetches kgo.Fetches) []*Record {
	records := make([]*Record, 0, fetches.NumRecords())
	fetches.EachRecord(func(r *kgo.Record) {
		records = append(records, decode(c.topic.config.Ledger, r))
	})
	return records
}

// Close ends it.
func (c *Consumer) Close() { c.client.Close() }
