package projections

import (
	"context"
	"fmt"
	"slices"

	"llm-gateway/domain"
)

// pages reads from the ledger, within one round, what the topic did not bring. Projections that miss
// the same events share them.
type pages struct {
	ledger Ledger
	read   map[span][]domain.Recorded
	left   int  // events that may still be read in this round
	more   bool // there is more to read
}

type span struct {
	shard int32
	after int64
	n     int
}

func (p *Projector) newPages() *pages {
	return &pages{ledger: p.Ledger, read: map[span][]domain.Recorded{}, left: catchUp}
}

// step is a projection's next one in a shard: over what the topic brought in this round, or over a page
// of the ledger, and on over what the topic brought where the page leads up to it. It has no events
// where there is nothing to do, or no more this round. It is errBroken where the ledger has a gap.
func (p *pages) step(ctx context.Context, s *shard, f *follower) (step, error) {
	next := step{projection: f.projection, table: f.projection.name(), shard: s.number, from: f.at, offset: f.at.offset}
	upTo := s.tail.seq - int64(len(s.run)) // the last event before the run
	if missing := upTo - f.at.seq; missing > 0 {
		n := int(min(missing, pageEvents))
		page, err := p.page(ctx, span{s.number, f.at.seq, n})
		if err != nil || page == nil {
			return step{}, err
		}
		if int64(n) < missing {
			p.more, next.events = true, page
			return next, nil
		}
		next.events = slices.Concat(page, s.run)
	} else if f.at.seq < s.tail.seq {
		next.events = s.run[-missing:]
	}
	if len(s.run) > 0 {
		next.offset = s.offset
	}
	return next, nil
}

// page reads the n events behind a place; nil where it is too much for this round.
func (p *pages) page(ctx context.Context, at span) ([]domain.Recorded, error) {
	if events, ok := p.read[at]; ok {
		return events, nil
	}
	if at.n > p.left {
		p.more = true
		return nil, nil
	}
	events, err := p.ledger.Events(ctx, at.shard, at.after, at.n)
	if err == nil && len(events) < at.n {
		err = fmt.Errorf("%w: the ledger has %d of the %d events behind %s", errBroken, len(events), at.n,
			domain.Position{Shard: at.shard, Seq: at.after})
	}
	if err != nil {
		return nil, err
	}
	p.left -= at.n
	p.read[at] = events
	return events, nil
}
