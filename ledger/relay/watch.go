package relay

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"

	"llm-gateway/ledger"
	"llm-gateway/ledger/topic"
)

// What one goroutine per process looks at for all shards: the ledger's heads, because other gateways
// append too, and the topic, because others can delete it. Both tell the shards what they saw; what
// an answer is held against was read before the question.

// sight is a shard at the moment of a question.
type sight struct {
	held   bool
	life   int // 0: there is none
	at     position
	extent extent
}

// sights are all shards at this moment, and whether any is held, and lives.
func (r *Relay) sights() (all []sight, held, live bool) {
	for _, s := range r.shards {
		s.mu.Lock()
		one := sight{s.held(), s.life.number, s.at, s.life.extent}
		s.mu.Unlock()
		all = append(all, one)
		held = held || one.held
		live = live || one.life != 0
	}
	return all, held, live
}

// pollHeads looks at the ledger's heads until ctx ends: often while something happens.
func (r *Relay) pollHeads(ctx context.Context) {
	pause, away := PollBusy, false
	for ctx.Err() == nil {
		busy, err := r.lookAtHeads(ctx)
		if gone := err != nil && ctx.Err() == nil; gone != away {
			if away = gone; away {
				r.log.Warn("the ledger's heads cannot be read", "error", err)
			}
		}
		if pause = min(2*pause, r.config.times.pollIdle); busy {
			pause = PollBusy
		}
		sleep(ctx, pause)
	}
}

func (r *Relay) lookAtHeads(ctx context.Context) (busy bool, err error) {
	before, held, _ := r.sights()
	if !held {
		return false, nil
	}
	heads, err := r.config.Ledger.Heads(ctx)
	if err != nil {
		return false, err
	}
	for _, h := range heads {
		if r.shards[h.Shard].seeHead(h, before[h.Shard]) {
			busy = true
		}
	}
	return busy, nil
}

// seeHead takes in a shard's head, and says whether something happens there. A ledger that is behind
// the topic, or differs, ends the life; the next takeover says in what.
func (s *shard) seeHead(h ledger.Head, before sight) (busy bool) {
	s.mu.Lock()
	busy = h.Seq != s.head
	s.head = h.Seq
	lag, placed, held := max(0, h.Seq-s.at.seq), s.placed, s.held()
	if before.life != 0 && before.life == s.life.number {
		busy = busy || lag > 0
		if h.Seq < before.at.seq || h.Seq == before.at.seq && h.Hash != before.at.hash {
			s.sentence(errLedger)
		}
	}
	s.mu.Unlock()
	if lag > 0 {
		s.awake()
	}
	if held && placed && s.relay.config.Hooks.Lag != nil {
		s.relay.config.Hooks.Lag(s.number, lag)
	}
	return busy
}

// sentence ends the present life. The caller has the lock.
func (s *shard) sentence(why error) {
	if s.life.verdict == nil {
		s.life.verdict = why
	}
	s.awake()
}

// checkTopic looks at the topic's identity and extent until ctx ends.
func (r *Relay) checkTopic(ctx context.Context) {
	for ctx.Err() == nil {
		sleep(ctx, r.config.times.check)
		before, _, live := r.sights()
		if !live {
			continue
		}
		state, err := r.config.Topic.State(ctx)
		gone := errors.Is(err, kerr.UnknownTopicOrPartition)
		if err != nil && !gone {
			continue // Kafka is away: publishing will notice, or it is back by then
		}
		for i, s := range r.shards {
			s.seeTopic(state, gone, before[i])
		}
	}
}

// seeTopic takes in what the topic is like.
func (s *shard) seeTopic(state topic.State, gone bool, before sight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if before.life == 0 || before.life != s.life.number {
		return
	}
	if gone {
		s.sentence(errGone)
		return
	}
	now := extent{state.ID, state.Starts[s.number], state.Ends[s.number], before.at.offset}
	was := before.extent
	switch {
	case now.id != was.id:
		s.sentence(errRecreated)
	case now.end < was.end:
		s.sentence(errShrunk)
	case now.start <= was.start || now.offset < 0: // nothing was deleted, or there was nothing
	case now.start > was.offset:
		s.sentence(errEmptied) // all that was there at the last look is gone
	default:
		s.relay.log.Error("the topic has lost its beginning; it has to be deleted to be filled again from the ledger",
			"shard", s.number, "first_offset", now.start)
	}
	s.life.extent = now
}
