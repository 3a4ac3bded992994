package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"llm-gateway/domain"
	"llm-gateway/ledger/topic"
)

// Why a life ends and the next one begins at once.
var (
	errMoved     = errors.New("Kafka is another cluster than it was")
	errRecreated = errors.New("the topic was re-created")
	errGone      = errors.New("the topic is gone")
	errEmptied   = errors.New("the topic's records were deleted")
	errShrunk    = errors.New("the topic ends before where it ended")
	errLedger    = errors.New("the ledger is behind the topic, or differs from it")
)

// halts says whether an error stops a shard loudly.
func halts(err error) bool {
	for _, e := range []error{ErrDiverged, ErrGap, topic.ErrMismatch, domain.ErrSchemaTooNew, domain.ErrEvent} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// hold is one life, under the lease. It returns nil where something was published in it.
func (s *shard) hold(ctx context.Context, cluster string) error {
	s.mu.Lock()
	s.tenure = ctx
	s.mu.Unlock()
	err := s.live(ctx, cluster)
	published := s.end()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if s.relay.config.Hooks.Restarted != nil {
		s.relay.config.Hooks.Restarted(s.number, err)
	}
	log := s.relay.log.With("shard", s.number)
	switch {
	case halts(err):
		log.Error("publishing has stopped, and waiting does not mend it", "error", err)
		sleep(ctx, s.relay.config.times.halt)
	case published:
		log.Warn("publishing begins again from the tail", "error", err)
		return nil
	}
	return err
}

// live takes the shard over and publishes until something goes wrong.
func (s *shard) live(ctx context.Context, cluster string) error {
	p, err := s.takeOver(ctx, cluster)
	if err != nil {
		return err
	}
	defer p.Close()
	var began time.Time
	for {
		if err := s.ready(ctx, began); err != nil {
			return err
		}
		events, at, err := s.next(ctx)
		if err != nil {
			return err
		}
		if len(events) == 0 {
			continue
		}
		began = time.Now()
		if err := s.publish(ctx, p, events, at); err != nil {
			return err
		}
	}
}

// takeOver makes this process the only one that can publish the shard, and finds out where to go on.
func (s *shard) takeOver(ctx context.Context, cluster string) (Producer, error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	kafka := s.relay.config.Topic
	now, err := kafka.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	if now != cluster {
		return nil, fmt.Errorf("%w: %s, not %s", errMoved, now, cluster)
	}
	id, err := s.relay.ensure(ctx)
	if err != nil {
		return nil, err
	}
	p, err := kafka.Producer(ctx, s.number)
	if err != nil {
		return nil, err
	}
	if err := s.place(ctx, id); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// ensure makes sure of the topic once for each topic that is found, and returns its id.
func (r *Relay) ensure(ctx context.Context) (id [16]byte, err error) {
	select {
	case <-r.ensuring:
	case <-ctx.Done():
		return id, ctx.Err()
	}
	defer func() { r.ensuring <- struct{}{} }()
	state, err := r.config.Topic.State(ctx)
	if err == nil && r.ensured != nil && state.ID == *r.ensured {
		return state.ID, nil
	}
	if err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) {
		return id, err
	}
	if err := r.config.Topic.Ensure(ctx); err != nil {
		return id, err
	}
	if state, err = r.config.Topic.State(ctx); err != nil {
		return id, err
	}
	r.ensured = &state.ID
	return state.ID, nil
}

// place reads where the partition ends, and holds that against the ledger. The producer before it has
// seen to it that this is the end for good. The extent comes after the tail: whatever is deleted
// behind it is noticed.
func (s *shard) place(ctx context.Context, id [16]byte) error {
	tail, err := s.relay.config.Topic.Tail(ctx, s.number)
	if err != nil {
		return err
	}
	state, err := s.relay.config.Topic.State(ctx)
	if err != nil {
		return err
	}
	seen := extent{id: state.ID, start: state.Starts[s.number], end: state.Ends[s.number], offset: -1}
	if state.ID != id {
		return errRecreated
	}
	at := position{hash: domain.GenesisHash(s.relay.config.Ledger.Meta().ID, s.number), offset: -1}
	if tail != nil {
		if tail.Offset < seen.start {
			return errEmptied
		}
		at.offset, seen.offset = tail.Offset, tail.Offset
		if s.lost.id != id || tail.Offset >= s.lost.below { // only this goroutine writes it
			if at, err = s.agreed(ctx, tail); err != nil {
				return err
			}
		}
	}
	s.begin(at, seen)
	return nil
}

// agreed is the position of the topic's last record, which the ledger must have too.
func (s *shard) agreed(ctx context.Context, tail *topic.Record) (position, error) {
	at := position{tail.Seq, tail.Hash, tail.Offset}
	if tail.Seq < 1 {
		return at, fmt.Errorf("%w: the topic's record at offset %d has no position", ErrDiverged, tail.Offset)
	}
	events, err := s.relay.config.Ledger.Events(ctx, s.number, tail.Seq-1, 1)
	if err != nil {
		return at, err
	}
	if len(events) == 0 || events[0].Event.Seq != tail.Seq {
		return at, fmt.Errorf("%w: the topic ends with seq %d, which the ledger does not have", ErrDiverged, tail.Seq)
	}
	if events[0].Hash != tail.Hash || !bytes.Equal(events[0].Payload, tail.Payload) {
		return at, fmt.Errorf("%w: they have different events at seq %d", ErrDiverged, tail.Seq)
	}
	return at, nil
}

// ready waits until there is something to publish, and until enough has gathered: the interval since
// the last transaction began is over, or the next one would be full.
func (s *shard) ready(ctx context.Context, began time.Time) error {
	for {
		if err := s.judged(); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rest := Interval - time.Since(began)
		switch n := s.pending(); {
		case n >= topic.MaxTransaction || n > 0 && rest <= 0:
			return nil
		case n > 0:
			sleep(ctx, rest)
		default:
			select {
			case <-s.wake:
			case <-ctx.Done():
			}
		}
	}
}

// next returns what comes behind the position, and the position behind that: what was fed, where it
// follows, or else what the ledger has. None is an answer: more was told of than there is. Where the
// ledger has fewer events than are asked for, they are all that was committed, and so whole commands.
func (s *shard) next(ctx context.Context) ([]domain.Recorded, position, error) {
	s.mu.Lock()
	from, head := s.at, s.head
	s.mu.Unlock()
	if events := s.take(from.seq); len(events) > 0 {
		if at, err := from.after(events); err == nil {
			return events, at, nil
		}
		s.forget() // the ledger decides
	}
	read, err := s.relay.config.Ledger.Events(ctx, s.number, from.seq, topic.MaxTransaction+1)
	if err != nil {
		return nil, from, err
	}
	events := whole(read)
	at, err := from.after(events)
	if err == nil && len(read) <= topic.MaxTransaction && at.seq < head {
		err = fmt.Errorf("%w: behind seq %d there is nothing, and the shard's head is %d", ErrGap, at.seq, head)
	}
	if err != nil {
		return nil, from, err
	}
	if len(events) == 0 {
		s.forget()
	}
	return events, at, nil
}

// publish is one transaction. One that is under way when the lease ends gets a moment to end well: if
// another has taken over, Kafka refuses it.
func (s *shard) publish(ctx context.Context, p Producer, events []domain.Recorded, at position) error {
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		sleep(own, s.relay.config.times.grace)
		cancel()
	})()
	last, err := p.Publish(own, events)
	if err != nil {
		return err
	}
	if at.offset = last; last <= s.at.offset { // nobody else moves it
		return fmt.Errorf("%w: offset %d comes behind %d", errShrunk, last, s.at.offset)
	}
	s.moved(at)
	if s.relay.config.Hooks.Published != nil {
		s.relay.config.Hooks.Published(s.number, len(events))
	}
	return nil
}
