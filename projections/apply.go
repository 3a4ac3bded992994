package projections

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"llm-gateway/domain"
)

// apply takes all steps in the given database transaction, which the caller commits: each one's
// position moves only from where the step begins (errMoved otherwise), and only over events that
// extend its hash (errBroken). After an error the caller rolls back.
//
// It is one round trip. All locks are taken in one order, positions before rows: two processes that
// apply the same events wait for each other, and never in a circle.
func apply(ctx context.Context, tx pgx.Tx, steps []step) error {
	steps = slices.Clone(steps)
	slices.SortFunc(steps, func(a, b step) int {
		return cmp.Or(cmp.Compare(a.table, b.table), cmp.Compare(a.shard, b.shard))
	})
	if err := checkSteps(steps); err != nil {
		return err
	}
	b := &pgx.Batch{}
	for i := range steps {
		move(b, &steps[i])
	}
	for i := range steps {
		s := &steps[i]
		if s.from.seq == 0 {
			wantEmpty(b, s)
		}
		s.projection.fold(b, s.table, s.shard, s.events)
	}
	return tx.SendBatch(ctx, b).Close()
}

// move queues the conditional move of a step's position: it is what makes a step happen once.
func move(b *pgx.Batch, s *step) {
	sql, to := movePosition, s.to()
	if s.from.seq == 0 {
		sql = beginPosition
	}
	b.Queue(sql, s.table, s.shard, s.from.seq, to.seq, to.hash[:], to.at, to.offset).Exec(func(tag pgconn.CommandTag) error {
		if tag.RowsAffected() != 1 {
			return fmt.Errorf("%w: %s is not at %s", errMoved, s.table, domain.Position{Shard: s.shard, Seq: s.from.seq})
		}
		return nil
	})
}

// wantEmpty queues the check that a table which has applied nothing holds nothing: one whose positions
// were lost would count everything twice.
func wantEmpty(b *pgx.Batch, s *step) {
	b.Queue(`SELECT EXISTS (SELECT FROM `+quoted(s.table)+` WHERE shard = $1)`, s.shard).QueryRow(func(row pgx.Row) error {
		var filled bool
		if err := row.Scan(&filled); err != nil {
			return err
		}
		if filled {
			return fmt.Errorf("%w: %s has rows of shard %d and no position there: rebuild it", errBroken, s.table, s.shard)
		}
		return nil
	})
}

// checkSteps holds the steps against their positions. Projections that go the same way together are
// checked once.
func checkSteps(steps []step) error {
	type way struct {
		first *domain.Recorded
		n     int
		shard int32
		seq   int64
		hash  domain.Hash
	}
	checked := map[way]bool{}
	for i := range steps {
		s := &steps[i]
		if len(s.events) == 0 {
			return fmt.Errorf("%w: no events for %s", errBroken, s.table)
		}
		w := way{&s.events[0], len(s.events), s.shard, s.from.seq, s.from.hash}
		if checked[w] {
			continue
		}
		if err := follow(s.from, s.shard, s.events); err != nil {
			return fmt.Errorf("%s: %w", s.table, err)
		}
		checked[w] = true
	}
	return nil
}

// follow says what is wrong with the first of the events that does not follow from a position, one after
// the other.
func follow(from position, shard int32, events []domain.Recorded) error {
	seq, hash := from.seq, from.hash
	for i := range events {
		e := &events[i]
		if e.Event.Shard != shard || e.Event.Seq != seq+1 {
			return fmt.Errorf("%w: %s comes after %s", errBroken, e.Event.Position(), domain.Position{Shard: shard, Seq: seq})
		}
		if hash = domain.ChainHash(hash, e.Payload); hash != e.Hash {
			return fmt.Errorf("%w: the hash of %s does not extend that of %s", errBroken, e.Event.Position(), domain.Position{Shard: shard, Seq: seq})
		}
		seq++
	}
	return nil
}
