package projections

import (
	"context"
	"errors"
)

// errPast says that a projection has got past what the topic was left at: it was rebuilt.
var errPast = errors.New("a projection is past what broke the topic off")

// look reads the positions again, for a rebuild may have exchanged a table for one that is elsewhere,
// and tries everything again that is halted, each alone.
func (u *pursuit) look(ctx context.Context) error {
	if err := u.reload(ctx); err != nil {
		return err
	}
	var ways []way
	for _, s := range u.shards {
		for _, f := range s.followers {
			if s.broken != nil && f.at.seq > s.tail.seq {
				return errPast
			}
			if f.halted != nil {
				ways = append(ways, way{s, f})
			}
		}
	}
	if len(ways) > 0 {
		if err := u.alone(ctx, ways, u.newPages()); err != nil {
			return err
		}
	}
	return u.mend(ctx)
}

// mend takes back what was reported of those that have no step to take: they have got all that there is.
func (u *pursuit) mend(ctx context.Context) error {
	reported := u.reported()
	if len(reported) == 0 {
		return nil
	}
	heads, err := u.Ledger.Heads(ctx)
	if err != nil {
		return err
	}
	for _, at := range reported {
		s := u.shards[at.shard]
		for _, f := range s.followers {
			if f.projection.name() == at.projection && s.broken == nil && f.at.seq >= heads[at.shard].Seq {
				f.halted = nil
				u.report(at, nil)
			}
		}
	}
	return nil
}
