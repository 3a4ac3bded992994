package projections

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"llm-gateway/domain"
	"llm-gateway/ledger/topic"
)

// The bounds of following.
const (
	maxBatch   = 2000                  // events that are taken from the topic in one round
	pageEvents = 1000                  // events that are read from the ledger at once
	catchUp    = 2000                  // events that are read from the ledger in one round, all projections together
	gatherTime = 20 * time.Millisecond // from one database transaction to the next, under load
	lookEvery  = time.Second           // how often positions are read again, and halted projections tried
	noWait     = time.Millisecond      // what a round waits for records when there is other work
)

// pursuit is one run along the topic, from the positions on. It belongs to one goroutine.
type pursuit struct {
	*Projector
	consumer Consumer
	shards   []*shard
	last     time.Time // when the last database transaction began
	looked   time.Time // when the positions were last read for no reason
	turn     int       // which shard comes first when the ledger is read
	behind   bool      // there is more to read from the ledger than the last round did
}

// shard is how far the pursuit is in one shard.
type shard struct {
	number    int32
	tail      position          // of the last event that is known: what the projections follow up to
	run       []domain.Recorded // the events up to tail that the topic brought in this round
	offset    int64             // where in the partition it goes on behind run
	broken    error             // why the topic is not followed any further
	followers []*follower       // one for each projection
}

// follower is one live projection in one shard.
type follower struct {
	projection projection
	at         position
	halted     error // nil: it goes on
}

// begin reads the positions and starts to consume from them.
func (u *pursuit) begin(ctx context.Context) error {
	u.shards, u.looked = make([]*shard, u.Meta.Shards), time.Now()
	for i := range u.shards {
		u.shards[i] = &shard{number: int32(i)}
		for _, p := range all {
			u.shards[i].followers = append(u.shards[i].followers, &follower{projection: p})
		}
	}
	err := u.inTx(ctx, func(tx pgx.Tx) error { return ensurePositions(ctx, tx, u.Meta) })
	if err == nil {
		err = u.reload(ctx)
	}
	if err != nil {
		return err
	}
	offsets := make([]int64, len(u.shards))
	for i, s := range u.shards {
		if offsets[i], err = u.start(ctx, s); err != nil {
			return err
		}
	}
	u.consumer, err = u.Topic.Consume(offsets)
	return err
}

// start finds where a shard is followed from: behind the projection that is furthest; the others catch
// up from the ledger. The furthest one's offset is a hint from what may have been another topic, so the
// last record that there is now is read in any case: whatever lies before it is then found missing.
func (u *pursuit) start(ctx context.Context, s *shard) (offset int64, err error) {
	for _, f := range s.followers {
		if f.at.seq > s.tail.seq || f.at.seq == s.tail.seq && f.at.offset > offset {
			s.tail.seq, offset = f.at.seq, f.at.offset
		}
	}
	tail, err := u.ledgerPosition(ctx, s.number, s.tail.seq)
	switch {
	case err == nil:
		s.tail = tail
	case errors.Is(err, errBroken):
		u.breakOff(s, err)
	default:
		return 0, err
	}
	last, err := u.Topic.Tail(ctx, s.number)
	if err != nil {
		return 0, fmt.Errorf("reading the end of shard %d of the topic: %w", s.number, err)
	}
	if last == nil {
		return 0, nil
	}
	return min(offset, last.Offset), nil
}

// ledgerPosition is the position of an event of the ledger; errBroken where there is none.
func (u *pursuit) ledgerPosition(ctx context.Context, shard int32, seq int64) (position, error) {
	if seq == 0 {
		return noPosition(u.Meta.ID, shard), nil
	}
	events, err := u.Ledger.Events(ctx, shard, seq-1, 1)
	switch {
	case errors.Is(err, domain.ErrEvent):
		return position{}, fmt.Errorf("%w: %w", errBroken, err)
	case err != nil:
		return position{}, err
	case len(events) == 0 || events[0].Event.Seq != seq:
		return position{}, fmt.Errorf("%w: the ledger has no %s", errBroken, domain.Position{Shard: shard, Seq: seq})
	}
	return position{seq: seq, hash: events[0].Hash}, nil
}

// round takes what the topic brought, and applies it.
func (u *pursuit) round(ctx context.Context) error {
	records, err := u.gather(ctx)
	if err == nil {
		err = u.takeIn(ctx, records)
	}
	if err == nil {
		err = u.advance(ctx)
	}
	if err == nil && time.Since(u.looked) >= lookEvery {
		u.looked = time.Now()
		err = u.look(ctx)
	}
	return err
}

// gather waits for records. Under load it lets some time pass since the last database transaction, and
// so makes fewer of them; what comes after a silence is taken at once.
func (u *pursuit) gather(ctx context.Context) ([]*topic.Record, error) {
	wait := lookEvery
	if u.behind {
		wait = noWait
	}
	records, err := u.poll(ctx, wait, maxBatch)
	for err == nil && len(records) > 0 && len(records) < maxBatch {
		wait = gatherTime - time.Since(u.last)
		if wait <= 0 {
			break
		}
		var more []*topic.Record
		more, err = u.poll(ctx, wait, maxBatch-len(records))
		records = append(records, more...)
	}
	return records, err
}

// poll is one poll of bounded length.
func (u *pursuit) poll(ctx context.Context, wait time.Duration, most int) ([]*topic.Record, error) {
	polling, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	records, err := u.consumer.Poll(polling, most)
	if polling.Err() != nil && errors.Is(err, polling.Err()) {
		err = ctx.Err()
	}
	return records, err
}

// breakOff stops following the topic in one shard, until the pursuit begins again: what is in a topic
// does not mend.
func (u *pursuit) breakOff(s *shard, err error) {
	s.broken = err
	for _, f := range s.followers {
		u.report(place{f.projection.name(), s.number}, err)
	}
}
