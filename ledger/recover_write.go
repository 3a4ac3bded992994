package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"llm-gateway/domain"
)

const (
	selectHashes = `SELECT seq, hash FROM ledger_events WHERE shard = $1 AND seq BETWEEN $2 AND $3 ORDER BY seq`

	raiseEpoch = `UPDATE ledger_shards SET epoch = epoch + 1 WHERE shard = $1 AND epoch = $2`
)

// flush compares and writes what has gathered, in this order: nothing is appended behind a fork.
func (r *recovery) flush(ctx context.Context) error {
	if err := r.same(ctx, r.compare); err != nil {
		return err
	}
	r.compare = r.compare[:0]
	if len(r.news) > 0 {
		if err := r.write(ctx); err != nil {
			return err
		}
		r.news = r.news[:0]
	}
	if r.options.Progress != nil {
		r.options.Progress(r.shard, r.last.seq, r.topic)
	}
	return nil
}

// same holds records, which follow each other, against the ledger's events at their places.
func (r *recovery) same(ctx context.Context, records []linked) error {
	if len(records) == 0 {
		return nil
	}
	rows, err := r.lane.conn.Query(ctx, selectHashes, r.shard, records[0].seq, records[len(records)-1].seq)
	if err != nil {
		return err
	}
	have, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (linked, error) {
		var l linked
		var hash []byte
		err := row.Scan(&l.seq, &hash)
		if err == nil {
			l.hash = domain.Hash(hash)
		}
		return l, err
	})
	if err != nil {
		return fmt.Errorf("reading the ledger's hashes: %w", err)
	}
	for i, record := range records {
		switch {
		case i >= len(have):
			return fmt.Errorf("%w: it had an event at %s, and has none now", ErrMoved, r.at(record.seq))
		case have[i].seq != record.seq:
			return fmt.Errorf("%w: the ledger has no event at %s, and later ones", ErrFork, r.at(record.seq))
		case have[i].hash != record.hash:
			return fmt.Errorf("%w at %s: the ledger's hash is %x, the topic's %x (offset %d)",
				ErrFork, r.at(record.seq), have[i].hash, record.hash, record.offset)
		}
	}
	r.out.Compared += int64(len(records))
	return nil
}

// write appends what has gathered in one dbtx, by the statements of every append.
func (r *recovery) write(ctx context.Context) error {
	s, conn := r.store, r.lane.conn
	state, err := s.lockAndLoad(ctx, r.lane, wantEvents(r.shard, r.news))
	if err != nil {
		return err
	}
	if r.options.Dry {
		if err := rollBack(ctx, conn); err != nil {
			return err
		}
		return r.rehearse(state)
	}
	events, err := r.missing(ctx, state.heads[r.shard])
	if err != nil {
		return errors.Join(err, rollBack(ctx, conn))
	}
	if len(events) == 0 { // another recovery was faster
		r.head = state.heads[r.shard]
		r.out.Head, r.out.Epoch = r.head.Seq, r.head.Epoch
		return rollBack(ctx, conn)
	}
	p, err := planEvents(state, r.shard, events, r.ended)
	if err != nil {
		return errors.Join(err, rollBack(ctx, conn))
	}
	if err := s.write(ctx, conn, p, state.heads); err != nil {
		if s.guilty(err) {
			err = fmt.Errorf("%w: behind %s: %w", ErrRecord, r.at(r.head.Seq), err)
		}
		return err
	}
	h := p.heads[r.shard]
	if !r.raised {
		if err := r.raise(ctx, &h); err != nil {
			return err
		}
	}
	if err := commit(ctx, conn); err != nil {
		return err
	}
	r.raised = true
	r.wrote(h, p.events, len(events))
	return nil
}

// wrote counts what became durable: events, of which the first n are the topic's.
func (r *recovery) wrote(h head, events []written, n int) {
	r.head = h
	r.out.Head, r.out.Epoch = h.Seq, h.Epoch
	r.out.Appended += int64(n)
	r.out.Completed += int64(len(events) - n)
	for i := range events {
		r.out.Kinds[events[i].event.Kind]++
	}
}

// missing returns what of the gathered events a locked head still lacks. Those that it has are compared.
func (r *recovery) missing(ctx context.Context, locked head) ([]written, error) {
	if locked.Seq < r.head.Seq || locked.Seq == r.head.Seq && locked.Hash != r.head.Hash || locked.Epoch < r.head.Epoch {
		return nil, fmt.Errorf("%w from %d (epoch %d) to %d (epoch %d)", ErrMoved, r.head.Seq, r.head.Epoch, locked.Seq, locked.Epoch)
	}
	n := min(max(0, int(locked.Seq-r.news[0].event.Seq)+1), len(r.news))
	var there []linked
	for i := range r.news[:n] {
		there = append(there, linked{seq: r.news[i].event.Seq, hash: r.news[i].hash})
	}
	return r.news[n:], r.same(ctx, there)
}

// planEvents is what events that exist already come to on the locked state: decide for what was decided
// elsewhere. After the last of all, what must follow it is added.
func planEvents(state *loaded, shard int32, events []written, last bool) (*plan, error) {
	d := &batchDecider{plan: newPlan(state, 0), state: state}
	h := state.heads[shard]
	for i := range events {
		w := &events[i]
		if err := w.continues(&h); err != nil {
			return nil, err
		}
		if err := d.apply(&w.event); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrRecord, err)
		}
	}
	d.events = slices.Clip(events)
	if last {
		if err := d.complete(&h); err != nil {
			return nil, err
		}
	}
	d.heads[shard] = h
	d.collect()
	return d.plan, nil
}

// complete ends a settlement that the topic ends within. The event is the one that was lost, to the byte,
// if the same release writes it.
func (d *batchDecider) complete(h *head) error {
	e := &d.events[len(d.events)-1].event
	commit, ok := e.Data.(*domain.CommitData)
	if !ok {
		return nil
	}
	r := d.state.books.Reservations[e.RequestID]
	draft := domain.Draft{Kind: domain.KindRefund, RequestID: e.RequestID, Amount: r.Held,
		Data: &domain.RefundData{Reason: domain.RefundRemainder, SpooledAt: commit.SpooledAt}}
	if r.Amount.Equal(e.Amount) { // nothing remains; perhaps it was not enough
		draft.Kind, draft.Amount = domain.KindOverage, excess(commit, e.Amount)
		draft.Data = &domain.OverageData{Reason: domain.OverageBeyondBound, CommitData: *commit}
	}
	if draft.Amount.Sign() <= 0 {
		return nil
	}
	at := domain.Event{Shard: e.Shard, Seq: h.Seq + 1, Currency: e.Currency, OccurredAt: e.OccurredAt}
	const second = 1 // of a settlement's events, the commit being number 0
	next := written{event: draft.Stamp(domain.Command{ID: domain.CommandID(e.ID), Account: e.Account}, second, at)}
	payload, err := domain.Encode(&next.event)
	if err != nil {
		return fmt.Errorf("what must follow %s: %w", e.Position(), err)
	}
	next.payload, next.hash = payload, domain.ChainHash(h.Hash, payload)
	if err := next.continues(h); err != nil {
		return err
	}
	d.events = append(d.events, next)
	return d.apply(&d.events[len(d.events)-1].event)
}

// excess is what a charge's lines come to beyond what was committed.
func excess(d *domain.CommitData, committed domain.Amount) (sum domain.Amount) {
	for _, l := range d.Lines {
		sum = sum.Add(l.Amount)
	}
	return sum.Sub(committed)
}

// continues moves a head on by an event, if that is the next one.
func (w *written) continues(h *head) error {
	e := &w.event
	hash := domain.ChainHash(h.Hash, w.payload)
	switch {
	case e.Seq != h.Seq+1 || hash != w.hash:
		return fmt.Errorf("%w: %s does not continue the ledger at %d", ErrFork, e.Position(), h.Seq)
	case e.OccurredAt.Before(h.Time):
		return fmt.Errorf("%w: %s occurred at %s, the event before it at %s", ErrRecord, e.Position(), stamp(e.OccurredAt), stamp(h.Time))
	}
	h.Seq, h.Hash, h.Time = e.Seq, hash, e.OccurredAt
	return nil
}

// raise counts a recovery, in its first dbtx that writes.
func (r *recovery) raise(ctx context.Context, h *head) error {
	tag, err := r.lane.conn.Exec(ctx, raiseEpoch, r.shard, h.Epoch)
	if err != nil {
		return fmt.Errorf("raising the epoch: %w", err)
	}
	if tag.RowsAffected() != 1 {
		return fmt.Errorf("%w: raising the epoch reports %d rows", errCount, tag.RowsAffected())
	}
	h.Epoch++
	return nil
}

// giveUp raises the epoch without appending anything.
func (r *recovery) giveUp(ctx context.Context) error {
	state, err := r.store.lockAndLoad(ctx, r.lane, wantEvents(r.shard, nil))
	if err != nil {
		return err
	}
	h := state.heads[r.shard]
	if err := r.raise(ctx, &h); err != nil {
		return err
	}
	if err := commit(ctx, r.lane.conn); err != nil {
		return err
	}
	r.raised = true
	r.out.Head, r.out.Epoch = h.Seq, h.Epoch
	return nil
}

// rehearse does what write would do, on books that are kept from batch to batch. The locked state of the
// first batch stands for all.
func (r *recovery) rehearse(state *loaded) error {
	if locked := state.heads[r.shard]; locked.Seq != r.out.Before {
		return fmt.Errorf("the ledger moved from %d to %d meanwhile: somebody appends to it", r.out.Before, locked.Seq)
	}
	for name, a := range state.books.Accounts {
		if r.books.Accounts[name] == nil {
			r.books.Accounts[name] = a
		}
	}
	for id, v := range state.books.Reservations {
		if r.books.Reservations[id] == nil {
			r.books.Reservations[id] = v
		}
	}
	for ref, use := range state.books.References {
		if _, ok := r.books.References[ref]; !ok {
			r.books.References[ref] = use
		}
	}
	for key, use := range state.books.Keys {
		if _, ok := r.books.Keys[key]; !ok {
			r.books.Keys[key] = use
		}
	}
	h := r.head
	state.books, state.heads[r.shard] = r.books, h
	p, err := planEvents(state, r.shard, r.news, r.ended)
	if err != nil {
		return err
	}
	if h = p.heads[r.shard]; r.out.Appended == 0 {
		h.Epoch++
	}
	r.wrote(h, p.events, len(r.news))
	return nil
}
