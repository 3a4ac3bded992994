package projections

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"llm-gateway/domain"
	"llm-gateway/ledger/topic"
)

// The bounds of filling a table.
const (
	fillShards = 2                // shards at a time
	fillAhead  = 1                // pages of a shard that are read while one is written, beside the one being read
	fillEvents = 2000             // events of a page at most
	fillBytes  = 4 << 20          // payloads of a page, about
	fillTime   = 60 * time.Second // writing one page
	relayWait  = 10 * time.Second // for the topic to get what the ledger has, without any progress
)

// page is consecutive events of one shard.
type page struct {
	shard  int32
	events []domain.Recorded
	offset int64 // where in the partition reading goes on; 0: not known
	last   int64 // the seq that the reading is to end at
	gap    bool  // the ledger gave it though the topic is the source
}

// pageSeq is pages to be read one after the other; those of a shard follow each other. An error comes last.
type pageSeq = iter.Seq2[page, error]

// fill brings the table to the given seqs: from its source, and, where that is the topic and lags
// behind, the rest from the ledger.
func (b *builder) fill(ctx context.Context, to []int64) error {
	err := b.eachBehind(ctx, to, func(ctx context.Context, shard int32) error {
		switch {
		case b.topic == nil:
			return b.pump(ctx, func(ctx context.Context) pageSeq { return b.ledgerPages(ctx, shard, to[shard]) })
		case b.at[shard].seq == 0:
			return b.pump(ctx, func(ctx context.Context) pageSeq { return b.scanPages(ctx, shard, to[shard]) })
		}
		return nil
	})
	if err != nil || b.topic == nil || !behind(seqs(b.at), to) {
		return err
	}
	if err := b.pump(ctx, func(ctx context.Context) pageSeq { return b.tailPages(ctx, seqs(b.at), to) }); err != nil {
		return err
	}
	return b.eachBehind(ctx, to, func(ctx context.Context, shard int32) error {
		return b.pump(ctx, func(ctx context.Context) pageSeq { return b.ledgerPages(ctx, shard, to[shard]) })
	})
}

// eachBehind calls do for every shard that is not there yet, for a few at a time, and returns the first
// error, which ends the others.
func (b *builder) eachBehind(ctx context.Context, to []int64, do func(ctx context.Context, shard int32) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	todo := make(chan int32, len(to))
	for shard := range to {
		if b.at[shard].seq < to[shard] {
			todo <- int32(shard)
		}
	}
	close(todo)
	var wait sync.WaitGroup
	for range fillShards {
		wait.Go(func() {
			for shard := range todo {
				if ctx.Err() != nil {
					return
				}
				if err := do(ctx, shard); err != nil {
					cancel(fmt.Errorf("shard %d: %w", shard, err))
				}
			}
		})
	}
	wait.Wait()
	return context.Cause(ctx)
}

// pump writes pages, each in a dbtx of its own, while the next ones are being read and decoded.
func (b *builder) pump(ctx context.Context, read func(context.Context) pageSeq) error {
	ctx, cancel := context.WithCancel(ctx)
	ahead := make(chan page, fillAhead)
	var failed error // read after ahead is closed
	var wait sync.WaitGroup
	wait.Go(func() {
		defer close(ahead)
		for p, err := range read(ctx) {
			if failed = err; err != nil {
				return
			}
			select {
			case ahead <- p:
			case <-ctx.Done():
				failed = ctx.Err()
				return
			}
		}
	})
	defer wait.Wait()
	defer cancel()
	for p := range ahead {
		if err := b.write(ctx, p); err != nil {
			return err
		}
	}
	return failed
}

// write applies a page in a dbtx of its own.
func (b *builder) write(ctx context.Context, p page) error {
	ctx, cancel := context.WithTimeout(ctx, fillTime)
	defer cancel()
	var to position
	err := b.inTx(ctx, beginFill, func(tx pgx.Tx) (err error) {
		to, err = b.add(ctx, tx, p)
		return err
	})
	if err == nil {
		b.moved(p, to)
	}
	return err
}

// reach brings the table to the given seqs within a dbtx, one page after the other.
func (b *builder) reach(ctx context.Context, tx pgx.Tx, to []int64, from History) error {
	sources := []func() pageSeq{}
	if from != nil && behind(seqs(b.at), to) {
		sources = append(sources, func() pageSeq { return b.tailPages(ctx, seqs(b.at), to) })
	}
	for shard := range int32(len(to)) {
		sources = append(sources, func() pageSeq { return b.ledgerPages(ctx, shard, to[shard]) })
	}
	for _, source := range sources {
		for p, err := range source() {
			if err != nil {
				return err
			}
			at, err := b.add(ctx, tx, p)
			if err != nil {
				return err
			}
			b.moved(p, at)
		}
	}
	return nil
}

// add is the step of a page: the same apply as the live table's.
func (b *builder) add(ctx context.Context, tx pgx.Tx, p page) (position, error) {
	from := b.at[p.shard]
	s := step{projection: b.projection, table: b.table, shard: p.shard, from: from, events: p.events, offset: max(from.offset, p.offset)}
	if err := apply(ctx, tx, []step{s}); err != nil {
		return position{}, err
	}
	return s.to(), nil
}

// moved notes that a page was applied.
func (b *builder) moved(p page, to position) {
	b.at[p.shard] = to
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.gap {
		b.result.FilledFromLedger += int64(len(p.events))
	}
	if b.config.Progress != nil {
		b.config.Progress(p.shard, to.seq, p.last)
	}
}

// errShort says that the ledger does not have what the live table has applied.
var errShort = errors.New("the ledger ends too early")

// ledgerPages reads a shard from the ledger. A page has as many events as the one before it makes
// expect to stay below fillBytes: in memory an event is a few times its payload.
func (b *builder) ledgerPages(ctx context.Context, shard int32, to int64) pageSeq {
	after := b.at[shard].seq
	return func(yield func(page, error) bool) {
		limit := int64(fillEvents)
		for after < to {
			events, err := b.config.Ledger.Events(ctx, shard, after, int(min(limit, to-after)))
			if err == nil && len(events) == 0 {
				err = fmt.Errorf("%w: shard %d at %d, and %d is needed", errShort, shard, after, to)
			}
			if err != nil {
				yield(page{}, err)
				return
			}
			size := 0
			for i := range events {
				size += len(events[i].Payload)
			}
			limit = min(fillEvents, max(1, int64(fillBytes)*int64(len(events))/int64(max(1, size))))
			after = events[len(events)-1].Event.Seq
			if !yield(page{shard: shard, events: events, last: to, gap: b.topic != nil}, nil) {
				return
			}
		}
	}
}

// collector gathers a shard's records into pages. What is at or below seq has been there before; a
// record that does not follow is an error: the topic is to be looked into.
type collector struct {
	shard  int32
	seq    int64 // of the last record taken
	to     int64
	size   int
	events []domain.Recorded
	offset int64
}

func (c *collector) take(r *topic.Record) error {
	switch {
	case r.Seq > 0 && (r.Seq <= c.seq || c.seq >= c.to):
		return nil
	case r.Seq > c.seq+1:
		return fmt.Errorf("the topic has a gap: record %d of partition %d is seq %d, and seq %d is not before it",
			r.Offset, r.Shard, r.Seq, c.seq+1)
	}
	e, err := r.Event()
	if err != nil {
		return err
	}
	c.seq, c.offset, c.size = r.Seq, r.Offset+1, c.size+len(r.Payload)
	c.events = append(c.events, e)
	return nil
}

func (c *collector) full() bool { return len(c.events) >= fillEvents || c.size >= fillBytes }

// page hands over what was gathered.
func (c *collector) page() page {
	p := page{shard: c.shard, events: c.events, offset: c.offset, last: c.to}
	c.events, c.size = nil, 0
	return p
}

// scanPages reads a shard from the beginning of the topic to where that ends.
func (b *builder) scanPages(ctx context.Context, shard int32, to int64) pageSeq {
	return func(yield func(page, error) bool) {
		c := &collector{shard: shard, to: to}
		for record, err := range b.topic.Scan(ctx, shard) {
			if err == nil {
				err = c.take(record)
			}
			if err != nil {
				yield(page{}, err)
				return
			}
			if c.full() && !yield(c.page(), nil) {
				return
			}
			if c.seq >= to {
				break
			}
		}
		if len(c.events) > 0 {
			yield(c.page(), nil)
		}
	}
}

// tailPages reads all shards on from where they are. It ends when all are where they are to be, or when
// nothing that is needed has come for a while.
func (b *builder) tailPages(ctx context.Context, at, to []int64) pageSeq {
	offsets, shards := make([]int64, len(at)), make([]*collector, len(at))
	for shard := range at {
		offsets[shard] = b.at[shard].offset
		shards[shard] = &collector{shard: int32(shard), seq: at[shard], to: to[shard]}
	}
	return func(yield func(page, error) bool) {
		consumer, err := b.topic.Consume(offsets)
		if err != nil {
			yield(page{}, err)
			return
		}
		defer consumer.Close()
		for progress := time.Now(); behind(at, to) && time.Since(progress) < b.config.patience; {
			records, err := poll(ctx, consumer, time.Until(progress.Add(b.config.patience)))
			if err == nil {
				err = share(records, shards)
			}
			if err != nil {
				yield(page{}, err)
				return
			}
			for shard, c := range shards {
				if len(c.events) == 0 {
					continue
				}
				at[shard], progress = c.seq, time.Now()
				if !yield(c.page(), nil) {
					return
				}
			}
		}
	}
}

// poll waits for records, but no longer than that.
func poll(ctx context.Context, consumer *topic.Consumer, wait time.Duration) ([]*topic.Record, error) {
	short, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	records, err := consumer.Poll(short, fillEvents)
	if err != nil && ctx.Err() == nil && short.Err() != nil {
		return nil, nil // the waiting ended, nothing else
	}
	return records, err
}

func share(records []*topic.Record, shards []*collector) error {
	for _, r := range records {
		if r.Shard < 0 || int(r.Shard) >= len(shards) {
			return fmt.Errorf("record %d is of partition %d, and there are %d shards", r.Offset, r.Shard, len(shards))
		}
		if err := shards[r.Shard].take(r); err != nil {
			return err
		}
	}
	return nil
}
