package ledger

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
)

// head is the end of a shard's chain.
type head struct {
	Seq  int64
	Hash domain.Hash
	Time time.Time // of the last event; the next one is not earlier
	// Epoch counts how often the shard was recovered.
	Epoch int64
}

func (h head) at(shard int32) domain.Position { return domain.Position{Shard: shard, Seq: h.Seq} }

// wanted is what must be loaded to decide on a batch.
type wanted struct {
	shards     []int32 // ascending: the order of locking
	accounts   []string
	requests   []uuid.UUID
	shardOf    map[string]int32
	requestAt  map[uuid.UUID]int32
	references []domain.Reference
	keys       []domain.Key
}

func want(batch []domain.Command, shards int) *wanted {
	w := &wanted{shardOf: map[string]int32{}, requestAt: map[uuid.UUID]int32{}}
	for _, c := range batch {
		shard, known := w.shardOf[c.Account]
		if !known {
			shard = domain.ShardOf(c.Account, shards)
			w.shardOf[c.Account] = shard
		}
		if id := c.Op.Request(); id != uuid.Nil {
			w.requestAt[id] = shard
		}
		if key := c.Op.Key(); key != "" {
			w.references = append(w.references, domain.Reference{Account: c.Account, Key: key})
		}
		if o, ok := c.Op.(domain.Reserve); ok && o.Data.IdempotencyKey != "" {
			w.keys = append(w.keys, domain.Key{Account: c.Account, Key: o.Data.IdempotencyKey})
		}
	}
	w.accounts = slices.Sorted(maps.Keys(w.shardOf))
	w.requests = slices.Collect(maps.Keys(w.requestAt))
	for _, shard := range w.shardOf {
		w.shards = append(w.shards, shard)
	}
	slices.Sort(w.shards)
	w.shards = slices.Compact(w.shards)
	return w
}

// loaded is the locked state that a batch is decided on.
type loaded struct {
	heads map[int32]head
	books *domain.Books
	// earlier has the events of commands that happened before, by command id.
	earlier map[uuid.UUID][]domain.Recorded
}

// written is one event on its way into the store, with the bytes that are kept.
type written struct {
	event   domain.Event
	payload []byte
	hash    domain.Hash
}

func (w *written) recorded() domain.Recorded {
	return domain.Recorded{Event: w.event, Payload: w.payload, Hash: w.hash}
}

// plan is what a batch comes to: the answers, and what to write so that they are true.
type plan struct {
	answers      []answer
	events       []written
	heads        map[int32]head                        // as they become
	accounts     map[string]domain.Account             // as they become
	seqs         map[string]int64                      // each account's last seq before; 0 = opened by this batch
	reservations map[uuid.UUID]domain.Reservation      // as they become
	states       map[uuid.UUID]domain.ReservationState // each one's state before; "" = made by this batch
	responses    map[uuid.UUID]*domain.Response        // of requests that this batch settles
}

func newPlan(state *loaded, commands int) *plan {
	return &plan{
		answers: make([]answer, commands), heads: maps.Clone(state.heads),
		accounts: map[string]domain.Account{}, seqs: map[string]int64{},
		reservations: map[uuid.UUID]domain.Reservation{},
		states:       map[uuid.UUID]domain.ReservationState{},
		responses:    map[uuid.UUID]*domain.Response{},
	}
}

// batchDecider decides one batch. It changes the loaded books; they belong to it.
type batchDecider struct {
	*plan
	state    *loaded
	currency string
	now      time.Time
	done     map[uuid.UUID]int // command id -> index of its first answer in this batch
}

// decide runs the rules over a batch, command by command, on the locked state. It is pure: the
// same state, batch and time give the same plan, on any store.
func decide(state *loaded, batch []domain.Command, shardOf map[string]int32, currency string, now time.Time) (*plan, error) {
	d := &batchDecider{
		plan:  newPlan(state, len(batch)),
		state: state, currency: currency, now: domain.EventTime(now), done: map[uuid.UUID]int{},
	}
	for i, c := range batch {
		if first, twice := d.done[c.ID]; twice {
			d.answers[i] = repeated(d.answers[first])
			continue
		}
		d.done[c.ID] = i
		events, again, err := d.one(c, shardOf[c.Account])
		if err != nil {
			if _, rejected := err.(*domain.Rejection); !rejected { //nolint:errorlint // Decide returns it bare
				return nil, err
			}
			d.answers[i] = answer{err: err}
			continue
		}
		if o, ok := c.Op.(domain.Settle); ok && !again && o.Response != nil && events[0].Event.Kind == domain.KindCommit {
			d.responses[o.RequestID] = o.Response
		}
		d.answers[i].outcome = domain.Outcome{Events: events, Repeated: again}
		if a := state.books.Accounts[c.Account]; a != nil {
			d.answers[i].outcome.Account = *a
		}
	}
	d.collect()
	return d.plan, nil
}

func repeated(a answer) answer {
	a.outcome.Repeated = a.err == nil
	return a
}

// one decides a single command; again says that it had happened before.
func (d *batchDecider) one(c domain.Command, shard int32) (events []domain.Recorded, again bool, err error) {
	if events, ok := d.state.earlier[c.ID]; ok {
		return events, true, nil
	}
	if use, ok := d.state.books.FirstUse(c); ok {
		return d.firstUse(use), true, nil
	}
	drafts, err := d.state.books.Decide(c, d.next(shard))
	if err != nil {
		return nil, false, err
	}
	if len(drafts) == 0 {
		return nil, true, nil
	}
	return d.write(c, shard, drafts)
}

// next is when the next event of a shard occurs: now, but never before the one before it.
func (d *batchDecider) next(shard int32) time.Time {
	if h := d.heads[shard]; d.now.Before(h.Time) {
		return h.Time
	}
	return d.now
}

// firstUse finds the event that a reference was first used by: loaded, or of this very batch.
func (d *batchDecider) firstUse(use domain.Use) []domain.Recorded {
	if events, ok := d.state.earlier[use.ID]; ok {
		return events
	}
	for _, w := range d.events {
		if w.event.ID == use.ID {
			return []domain.Recorded{w.recorded()}
		}
	}
	return nil
}

// write gives the drafts their places, encodes them once, and applies them. All are encoded before
// any is applied: a command happens whole or not at all.
func (d *batchDecider) write(c domain.Command, shard int32, drafts []domain.Draft) ([]domain.Recorded, bool, error) {
	h := d.heads[shard]
	h.Time = d.next(shard)
	var news []written
	for n, draft := range drafts {
		h.Seq++
		at := domain.Event{Shard: shard, Seq: h.Seq, Currency: d.currency, OccurredAt: h.Time}
		event := draft.Stamp(c, n, at)
		payload, err := domain.Encode(&event)
		if err != nil {
			return nil, false, &domain.Rejection{Reason: domain.RejectInvalid, Account: c.Account, Detail: err.Error()}
		}
		h.Hash = domain.ChainHash(h.Hash, payload)
		news = append(news, written{event, payload, h.Hash})
	}
	recorded := make([]domain.Recorded, 0, len(news))
	for i := range news {
		if err := d.apply(&news[i].event); err != nil {
			return nil, false, err
		}
		recorded = append(recorded, news[i].recorded())
	}
	d.heads[shard] = h
	d.events = append(d.events, news...)
	return recorded, false, nil
}

// apply moves the books on and remembers what was there before, which is what the store's
// statements will insist on.
func (d *batchDecider) apply(e *domain.Event) error {
	books := d.state.books
	if _, seen := d.seqs[e.Account]; !seen {
		d.seqs[e.Account] = 0
		if a := books.Accounts[e.Account]; a != nil {
			d.seqs[e.Account] = a.LastSeq
		}
	}
	if _, seen := d.states[e.RequestID]; !seen && e.RequestID != uuid.Nil {
		d.states[e.RequestID] = ""
		if r := books.Reservations[e.RequestID]; r != nil {
			d.states[e.RequestID] = r.State
		}
	}
	if err := books.Apply(e); err != nil {
		return fmt.Errorf("the ledger's tables contradict its rules: %w", err)
	}
	return nil
}

// collect copies out what the batch has changed.
func (d *batchDecider) collect() {
	for name := range d.seqs {
		d.accounts[name] = *d.state.books.Accounts[name]
	}
	for id := range d.states {
		d.reservations[id] = *d.state.books.Reservations[id]
	}
}
