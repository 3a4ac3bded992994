package simulation

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"llm-gateway/domain"
	"llm-gateway/ledger"
)

// The projector: the pure functions are domain's, the protocol is that of package projections, followed here
// in a few lines because that one speaks SQL.

const (
	projectorLease = "projector"
	fetchPause     = 400 * time.Millisecond // between two looks at a topic in which nothing happens
	fetchMost      = 50
)

// tables are the projections with their positions.
type tables struct {
	mu        sync.Mutex
	positions []place
	balances  map[string]*domain.Account
	lines     []line
	stats     map[statKey]domain.Consumption
}

// place is how far a shard has been applied.
type place struct {
	seq    int64
	hash   domain.Hash
	offset int64 // where reading goes on: a hint
	topic  byte  // in which topic
}

type line struct {
	account string
	domain.Transaction
}

type statKey struct{ account, model string }

func newTables(m ledger.Meta) *tables {
	t := &tables{balances: map[string]*domain.Account{}, stats: map[statKey]domain.Consumption{}}
	for shard := range int32(m.Shards) {
		t.positions = append(t.positions, place{hash: domain.GenesisHash(m.ID, shard)})
	}
	return t
}

var errMoved = errors.New("simulated: the position has moved")

func (t *tables) position(shard int32) place {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.positions[shard]
}

// apply takes consecutive events in and moves the position, in one database transaction: only from where
// the events begin, unless a planted bug forgets that.
func (t *tables) apply(shard int32, events []domain.Recorded, hint place, unconditional bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.positions[shard].seq != events[0].Event.Seq-1 && !unconditional {
		return errMoved
	}
	for i := range events {
		t.fold(&events[i].Event)
	}
	last := events[len(events)-1]
	t.positions[shard] = place{last.Event.Seq, last.Hash, hint.offset, hint.topic}
	return nil
}

func (t *tables) fold(e *domain.Event) {
	a := t.balances[e.Account]
	if a == nil {
		a = &domain.Account{Name: e.Account}
		t.balances[e.Account] = a
	}
	available, reserved := e.Change()
	a.Available, a.Reserved, a.LastSeq = a.Available.Add(available), a.Reserved.Add(reserved), e.Seq
	if d, ok := e.Data.(*domain.AccountData); ok && d.CreditLimit != nil {
		a.CreditLimit = *d.CreditLimit
	}
	if d, ok := e.Data.(*domain.AccountData); ok && d.Frozen != nil {
		a.Frozen = *d.Frozen
	}
	if l, ok := domain.TransactionOf(e); ok {
		t.lines = append(t.lines, line{e.Account, l})
	}
	if key, c, ok := domain.ConsumptionOf(e); ok {
		k := statKey{key.Account, key.Model}
		t.stats[k] = t.stats[k].Add(c)
	}
}

// balance is a copy of an account's row, and its shard's position.
func (t *tables) balance(account string, shard int32) (*domain.Account, place) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a := t.balances[account]; a != nil {
		copied := *a
		return &copied, t.positions[shard]
	}
	return nil, t.positions[shard]
}

// projector moves the projections of all shards on, under the lease.
type projector struct {
	p  *process
	at []place
}

// run follows the topic until ctx ends or something fails; whoever calls it calls it again.
func (r *projector) run(ctx context.Context) error {
	for {
		if _, err := r.p.enter(ctx, kindRead, "projector reads its positions"); err != nil {
			return err
		}
		r.at = r.at[:0]
		for shard := range r.p.w.broker.partitions {
			r.at = append(r.at, r.p.w.database.tables.position(int32(shard)))
		}
		err := r.follow(ctx)
		if !errors.Is(err, errMoved) {
			return err
		}
	}
}

func (r *projector) follow(ctx context.Context) error {
	for {
		busy := false
		for shard := range r.at {
			moved, err := r.advance(ctx, int32(shard))
			if err != nil {
				return err
			}
			busy = busy || moved
		}
		if !busy {
			r.p.wait(fetchPause)
		}
		if err := ctx.Err(); err != nil { // also where the process was frozen, and its lease is over
			return err
		}
	}
}

// advance applies what the topic has beyond the position.
func (r *projector) advance(ctx context.Context, shard int32) (moved bool, err error) {
	at := &r.at[shard]
	if now := r.p.w.broker.which(); at.topic != now {
		at.topic, at.offset = now, 0
	}
	if records, _ := r.p.w.broker.read(shard, at.offset, 1); len(records) == 0 {
		return false, r.p.look(ctx, kindFetch, "projector waits for records")
	}
	f, err := r.p.enter(ctx, kindFetch, fmt.Sprintf("projector fetches from %d", shard))
	if err != nil {
		return false, err
	}
	if f == twice { // and again what had come before
		at.offset = 0
	}
	records, next := r.p.w.broker.read(shard, at.offset, fetchMost)
	at.offset = next
	events, err := r.follows(ctx, shard, *at, records)
	if err != nil || len(events) == 0 {
		return len(records) > 0, err
	}
	if err := r.apply(ctx, shard, events, *at); err != nil {
		return false, err
	}
	last := events[len(events)-1]
	at.seq, at.hash = last.Event.Seq, last.Hash
	return true, r.cache(ctx, events)
}

// follows makes of records what comes right behind a position: what is known is skipped, what is missing
// is read from the ledger.
func (r *projector) follows(ctx context.Context, shard int32, at place, records []domain.Recorded) (events []domain.Recorded, err error) {
	for _, record := range records {
		switch seq := record.Event.Seq; {
		case seq <= at.seq:
			continue
		case seq > at.seq+1:
			if _, err := r.p.enter(ctx, kindRead, fmt.Sprintf("projector reads shard %d", shard)); err != nil {
				return nil, err
			}
			missing, err := r.p.w.store.Events(ctx, shard, at.seq, int(seq-at.seq))
			if err != nil {
				return nil, err
			}
			return append(events, missing...), nil
		}
		if domain.ChainHash(at.hash, record.Payload) != record.Hash {
			return events, nil // halted: the record is not the event that must stand here
		}
		at.seq, at.hash = record.Event.Seq, record.Hash
		events = append(events, record)
	}
	return events, nil
}

func (r *projector) apply(ctx context.Context, shard int32, events []domain.Recorded, hint place) error {
	f, err := r.p.enter(ctx, kindApply, fmt.Sprintf("projector applies to %d", shard))
	if err != nil {
		return err
	}
	if err := r.p.w.database.tables.apply(shard, events, hint, r.p.w.bug == bugZombieProjector); err != nil {
		return err
	}
	if f == failAfter {
		return errBroken
	}
	return nil
}

// cache puts the balances that have changed, as they are now. Nobody waits for it.
func (r *projector) cache(ctx context.Context, events []domain.Recorded) error {
	done := map[string]bool{}
	for i := range events {
		account, shard := events[i].Event.Account, events[i].Event.Shard
		if done[account] {
			continue
		}
		done[account] = true
		row, _ := r.p.w.database.tables.balance(account, shard)
		if row == nil {
			continue
		}
		r.p.w.cache.send(r.p, account, domain.CachedBalance{Spendable: row.Spendable(), Available: row.Available, Reserved: row.Reserved, Frozen: row.Frozen,
			Position: domain.Position{Shard: shard, Seq: row.LastSeq}})
	}
	return ctx.Err()
}
