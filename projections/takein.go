package projections

import (
	"context"
	"errors"
	"fmt"

	"llm-gateway/domain"
	"llm-gateway/ledger/topic"
)

// takeIn makes runs of consecutive events of what the topic brought, one for each shard.
func (u *pursuit) takeIn(ctx context.Context, records []*topic.Record) error {
	for _, s := range u.shards {
		s.run = nil
	}
	for _, r := range records {
		if r.Shard < 0 || int(r.Shard) >= len(u.shards) {
			return fmt.Errorf("the topic has a shard %d; this ledger has %d", r.Shard, len(u.shards))
		}
		s := u.shards[r.Shard]
		if s.broken != nil {
			continue
		}
		err := u.takeRecord(ctx, s, r)
		if errors.Is(err, errBroken) {
			u.breakOff(s, fmt.Errorf("offset %d of partition %d: %w", r.Offset, r.Shard, err))
		} else if err != nil {
			return err
		}
	}
	return nil
}

// takeRecord adds a record to its shard's run, if it is new and follows. Where events are missing
// before it, the run begins anew with it: the projections read what is missing from the ledger. It is
// errBroken where they will not find it there, or the record is not one of this ledger's events.
func (u *pursuit) takeRecord(ctx context.Context, s *shard, r *topic.Record) error {
	if want := topic.Source(u.Meta.ID); r.Source != want {
		return fmt.Errorf("%w: a record of %.100q, not of %s", errBroken, r.Source, want)
	}
	if 0 < r.Seq && r.Seq <= s.tail.seq {
		return nil // seen: not worth decoding
	}
	event, err := r.Event()
	if err != nil {
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	if event.Event.Seq <= s.tail.seq {
		return nil
	}
	before, run := s.tail, s.run
	if event.Event.Seq > s.tail.seq+1 {
		if before, err = u.ledgerPosition(ctx, s.number, event.Event.Seq-1); err != nil {
			return err
		}
		run = nil
	}
	news := []domain.Recorded{event}
	if err := follow(before, s.number, news); err != nil {
		return err
	}
	run = append(run, event)
	s.run, s.offset = run, r.Offset+1
	s.tail = position{seq: event.Event.Seq, hash: event.Hash}
	return nil
}
