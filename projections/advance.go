package projections

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"llm-gateway/domain"
)

// The bounds of applying.
const (
	applyTime    = 8 * time.Second // one database transaction
	rollbackTime = time.Second
)

// beginApply begins a database transaction of derived tables. They need no flush of their own: the
// position is lost with what it stands for, and the events are applied again. A projector that
// freezes in the middle holds up the one that replaces it for seconds at most.
const beginApply = `begin isolation level read committed; set local synchronous_commit = off;
	set local lock_timeout = 200; set local statement_timeout = 5000; set local idle_in_transaction_session_timeout = 5000`

// inTx runs do in a database transaction.
func (p *Projector) inTx(ctx context.Context, do func(pgx.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, applyTime)
	defer cancel()
	tx, err := p.Pool.BeginTx(ctx, pgx.TxOptions{BeginQuery: beginApply})
	if err != nil {
		return err
	}
	defer rollback(tx)
	if err := do(tx); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// rollback ends a database transaction, unless it was committed.
func rollback(tx pgx.Tx) {
	ctx, cancel := context.WithTimeout(context.Background(), rollbackTime)
	defer cancel()
	tx.Rollback(ctx) //nolint:errcheck // where it fails, the connection ends, and the transaction with it
}

// reload reads all positions.
func (u *pursuit) reload(ctx context.Context) error {
	return u.inTx(ctx, func(tx pgx.Tx) error {
		for i, p := range all {
			positions, err := readPositions(ctx, tx, p.name())
			if err != nil {
				return err
			}
			if len(positions) != len(u.shards) {
				return fmt.Errorf("the ledger has %d shards now, not %d", len(positions), len(u.shards))
			}
			for _, s := range u.shards {
				s.followers[i].at = positions[s.number]
			}
		}
		return nil
	})
}

// advance takes every projection a step further in every shard, all in one database transaction. If
// that fails, each one goes alone, so that one that cannot go on does not hold up the others.
func (u *pursuit) advance(ctx context.Context) error {
	if ctx.Err() != nil { // a process that was frozen sees here that its lease is over
		return ctx.Err()
	}
	var ways []way
	var steps []step
	pages := u.newPages()
	for i := range u.shards {
		s := u.shards[(u.turn+i)%len(u.shards)]
		for _, f := range s.followers {
			if f.halted != nil {
				continue
			}
			next, err := pages.step(ctx, s, f)
			if err = u.settle(s, f, err); err != nil {
				return err
			}
			if len(next.events) > 0 {
				ways, steps = append(ways, way{s, f}), append(steps, next)
			}
		}
	}
	u.turn++
	u.behind = pages.more
	if len(steps) == 0 {
		return nil
	}
	u.last = time.Now()
	err := u.take(ctx, steps)
	switch {
	case err == nil:
		for i, w := range ways {
			u.took(w, &steps[i])
		}
		return nil
	case ofServer(err):
		return err
	}
	return u.alone(ctx, ways, pages)
}

// way is one projection's in one shard.
type way struct {
	*shard
	*follower
}

// alone takes steps one by one, from where the positions are now.
func (u *pursuit) alone(ctx context.Context, ways []way, pages *pages) error {
	if err := u.reload(ctx); err != nil {
		return err
	}
	for _, w := range ways {
		next, err := pages.step(ctx, w.shard, w.follower)
		if err == nil && len(next.events) > 0 {
			if err = u.take(ctx, []step{next}); err == nil {
				u.took(w, &next)
			}
		}
		if err = u.settle(w.shard, w.follower, err); err != nil {
			return err
		}
	}
	u.behind = u.behind || pages.more
	return nil
}

// take applies steps in one database transaction.
func (u *pursuit) take(ctx context.Context, steps []step) error {
	return u.inTx(ctx, func(tx pgx.Tx) error { return apply(ctx, tx, steps) })
}

// took follows up on a step that was taken.
func (u *pursuit) took(w way, s *step) {
	w.at, w.halted = s.to(), nil
	if w.broken == nil {
		u.report(place{s.table, w.number}, nil)
	}
	if u.Hooks.Applied != nil {
		u.Hooks.Applied(s.table, len(s.events))
	}
	if u.cacher != nil && s.table == (balances{}).name() {
		u.cacher.touch(s.shard, s.events)
	}
}

// settle judges why a projection did not get on: nothing to speak of, its own trouble (it is halted),
// or everybody's, which is returned.
func (u *pursuit) settle(s *shard, f *follower, err error) error {
	if err == nil || ofServer(err) {
		return err
	}
	if isOvertaken(err) {
		u.behind = true
		return nil
	}
	f.halted = err
	u.report(place{f.projection.name(), s.number}, err)
	return nil
}

// isOvertaken says whether another process is at the same rows, or was: the position tells what to do
// next. 55P03 is a lock that was not to be had, 40 a deadlock.
func isOvertaken(err error) bool {
	pg := new(pgconn.PgError)
	return errors.Is(err, errMoved) || errors.As(err, &pg) && (pg.Code == "55P03" || strings.HasPrefix(pg.Code, "40"))
}

// awayClasses are the SQLSTATE classes of a server that cannot be worked with: connection, read only,
// resources, operator (but for a statement's own timeout), system.
var awayClasses = []string{"08", "25", "53", "57", "58"}

// ofServer says whether an error is of Postgres as a whole, and no projection's own.
func ofServer(err error) bool {
	if errors.Is(err, errBroken) || errors.Is(err, errMoved) || errors.Is(err, domain.ErrEvent) {
		return false
	}
	pg := new(pgconn.PgError)
	if !errors.As(err, &pg) {
		return true
	}
	return pg.Code != "57014" && slices.Contains(awayClasses, pg.Code[:min(2, len(pg.Code))])
}
