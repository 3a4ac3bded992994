package simulation

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/ledger"
)

// carelessLedger is a ledger with the bugs that gateways have had. It takes the rules from domain, as the
// real ones do, and breaks one of them where its bug says so.
type carelessLedger struct {
	w    *world
	meta ledger.Meta

	mu      sync.Mutex // guards all below
	books   *domain.Books
	heads   []ledger.Head
	last    []time.Time
	events  [][]domain.Recorded
	earlier map[uuid.UUID][]domain.Recorded
	answers map[uuid.UUID]*domain.Response
}

func newCarelessLedger(w *world) *carelessLedger {
	l := &carelessLedger{
		w: w, meta: ledger.Meta{ID: uuid.New(), Shards: w.plan.shards, Currency: "USD"}, books: domain.NewBooks(),
		earlier: map[uuid.UUID][]domain.Recorded{}, answers: map[uuid.UUID]*domain.Response{},
	}
	for shard := range int32(w.plan.shards) {
		l.heads = append(l.heads, ledger.Head{Shard: shard, Hash: domain.GenesisHash(l.meta.ID, shard)})
	}
	l.last, l.events = make([]time.Time, w.plan.shards), make([][]domain.Recorded, w.plan.shards)
	return l
}

// Append implements gateway.Ledger. What it decided on is not what it writes to, where its bug is to look
// first and to act later.
func (l *carelessLedger) Append(ctx context.Context, c domain.Command) (domain.Outcome, error) {
	f := ctx.Value(flightKey{}).(*flight)
	drafts, out, err := l.decide(c)
	if drafts == nil || err != nil {
		return out, err
	}
	_, reserve := c.Op.(domain.Reserve)
	if l.w.bug == bugCheckThenAct && reserve {
		l.pause(f, "acts on what was checked for")
		return l.write(c, drafts), nil
	}
	if l.w.bug == bugEarlyPublish {
		if f.p.relay != nil {
			f.p.relay.Feed(l.make(c, drafts))
		}
		if l.pause(f, "commits what was published of") != goOn {
			return domain.Outcome{}, unavailable(errBroken)
		}
		if drafts, out, err = l.decide(c); drafts == nil || err != nil {
			return out, err
		}
	}
	return l.write(c, drafts), nil
}

// pause is the moment between two things that should be one.
func (l *carelessLedger) pause(f *flight, what string) fate {
	return l.w.s.park(context.Background(), &parked{name: "ledger " + what + " " + f.name, proc: f.p, kind: kindAppend, loose: f.p.isDead()})
}

// decide answers a repeat, or says what a command leads to.
func (l *carelessLedger) decide(c domain.Command) ([]domain.Draft, domain.Outcome, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if events, ok := l.earlier[c.ID]; ok {
		return nil, l.outcome(c, events, true), nil
	}
	l.forget(c)
	if use, ok := l.books.FirstUse(c); ok {
		return nil, l.outcome(c, l.earlier[domain.CommandID(use.ID)], true), nil
	}
	drafts, err := l.books.Decide(c, domain.EventTime(time.Now()))
	if err == nil && len(drafts) == 0 {
		return nil, l.outcome(c, nil, true), nil
	}
	return drafts, domain.Outcome{}, err
}

// forget is what a bug does not look at. The caller holds mu.
func (l *carelessLedger) forget(c domain.Command) {
	switch o := c.Op.(type) {
	case domain.Settle:
		r, a := l.books.Reservations[o.RequestID], l.books.Accounts[c.Account]
		if l.w.bug == bugSettledTwice && r != nil && r.State == domain.ReservationSettled {
			r.State, r.Held = domain.ReservationOpen, r.Amount
			a.Reserved = a.Reserved.Add(r.Amount)
		}
	case domain.Reserve:
		if l.w.bug == bugEarlyKey {
			delete(l.books.Keys, domain.Key{Account: c.Account, Key: o.Data.IdempotencyKey})
		}
	case domain.Credit:
		if l.w.bug == bugTwoCredits {
			delete(l.books.References, domain.Reference{Account: c.Account, Key: o.Data.Reference})
		}
	}
}

// make makes the events of drafts as they would stand now.
func (l *carelessLedger) make(c domain.Command, drafts []domain.Draft) []domain.Recorded {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.build(c, drafts)
}

// build is make for who holds mu.
func (l *carelessLedger) build(c domain.Command, drafts []domain.Draft) (out []domain.Recorded) {
	shard := domain.ShardOf(c.Account, l.meta.Shards)
	h, at := l.heads[shard], domain.EventTime(time.Now())
	if at.Before(l.last[shard]) {
		at = l.last[shard]
	}
	for n, draft := range drafts {
		h.Seq++
		event := draft.Stamp(c, n, domain.Event{Shard: shard, Seq: h.Seq, Currency: l.meta.Currency, OccurredAt: at})
		payload, err := domain.Encode(&event)
		if err != nil {
			panic(err)
		}
		h.Hash = domain.ChainHash(h.Hash, payload)
		out = append(out, domain.Recorded{Event: event, Payload: payload, Hash: h.Hash})
	}
	return out
}

// write makes drafts true, whatever has happened since they were decided on.
func (l *carelessLedger) write(c domain.Command, drafts []domain.Draft) domain.Outcome {
	l.mu.Lock()
	defer l.mu.Unlock()
	events := l.build(c, drafts)
	for i := range events {
		if key, _, ok := domain.KeyOf(&events[i].Event); ok {
			delete(l.books.Keys, key) // it was free when that was looked at
		}
		if err := l.books.Apply(&events[i].Event); err != nil {
			panic(fmt.Sprintf("a careless ledger has its limits: %v", err))
		}
	}
	last := &events[len(events)-1]
	shard := last.Event.Shard
	l.heads[shard].Seq, l.heads[shard].Hash, l.last[shard] = last.Event.Seq, last.Hash, last.Event.OccurredAt
	l.events[shard] = append(l.events[shard], events...)
	l.earlier[c.ID] = events
	if o, ok := c.Op.(domain.Settle); ok && o.Response != nil {
		l.answers[o.RequestID] = o.Response
	}
	return l.outcome(c, events, false)
}

// outcome is the answer to a command. The caller holds mu.
func (l *carelessLedger) outcome(c domain.Command, events []domain.Recorded, again bool) domain.Outcome {
	return domain.Outcome{Events: events, Repeated: again, Account: *l.books.Accounts[c.Account]}
}

// Account implements gateway.Facts.
func (l *carelessLedger) Account(_ context.Context, name string) (*domain.Account, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.books.Accounts[name]; a != nil {
		copied := *a
		return &copied, nil
	}
	return nil, nil
}

// Request implements gateway.Facts.
func (l *carelessLedger) Request(_ context.Context, account string, id uuid.UUID) (out []domain.Recorded, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events[domain.ShardOf(account, l.meta.Shards)] {
		if e.Event.RequestID == id && e.Event.Account == account {
			out = append(out, e)
		}
	}
	return out, nil
}

// Response implements gateway.Facts.
func (l *carelessLedger) Response(_ context.Context, _ string, id uuid.UUID) (*domain.Response, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answers[id], nil
}

// Witnessed implements gateway.Facts: no simulated client asks for it.
func (l *carelessLedger) Witnessed(context.Context, string, uuid.UUID) ([]domain.Witnessed, error) {
	return nil, domain.ErrUnavailable
}

// BalanceAt implements gateway.Facts, as Witnessed does.
func (l *carelessLedger) BalanceAt(context.Context, string, time.Time) (domain.Past, error) {
	return domain.Past{}, domain.ErrUnavailable
}

// Statement implements store; nobody in the simulated world asks for one.
func (l *carelessLedger) Statement(context.Context, string, domain.Month) (*domain.Statement, error) {
	return nil, nil
}

// Meta implements store.
func (l *carelessLedger) Meta() ledger.Meta { return l.meta }

// Events implements store.
func (l *carelessLedger) Events(_ context.Context, shard int32, after int64, limit int) ([]domain.Recorded, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	page := l.events[shard]
	page = page[min(after, int64(len(page))):]
	return page[:min(limit, len(page)):len(page)], nil
}

// Heads implements store.
func (l *carelessLedger) Heads(context.Context) ([]ledger.Head, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]ledger.Head(nil), l.heads...), nil
}

// Close implements store.
func (l *carelessLedger) Close() {}
