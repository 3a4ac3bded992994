package ledger

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
)

// memoryLanes is how many lanes a Memory ledger has: two, so that tests see more than one.
const memoryLanes = 2

// Memory is a whole ledger in memory: the second implementation of the contract, for tests and
// simulation. Nothing survives it. It keeps payloads and hashes as Postgres does.
type Memory struct {
	*Ledger
	store *memoryStore
}

// NewMemory starts an empty ledger in memory. hooks, if given, is one.
func NewMemory(id uuid.UUID, shards int, currency string, now func() time.Time, hooks ...Hooks) *Memory {
	s := &memoryStore{
		shards: shards, currency: currency, now: now,
		meta:  Meta{ID: id, Shards: shards, Currency: currency},
		heads: map[int32]head{}, events: map[int32][]written{}, books: domain.NewBooks(),
		earlier: map[uuid.UUID][]domain.Recorded{}, answers: map[uuid.UUID]*domain.Response{},
	}
	for shard := range int32(shards) {
		s.heads[shard] = head{Hash: domain.GenesisHash(id, shard)}
	}
	var h Hooks
	if len(hooks) > 0 {
		h = hooks[0]
	}
	return &Memory{Ledger: start(s, shards, min(memoryLanes, shards), h), store: s}
}

// memoryStore implements store. All fields below mu are guarded by it.
type memoryStore struct {
	shards   int
	currency string
	now      func() time.Time
	meta     Meta

	mu      sync.Mutex
	heads   map[int32]head
	events  map[int32][]written
	books   *domain.Books
	earlier map[uuid.UUID][]domain.Recorded
	answers map[uuid.UUID]*domain.Response
}

func (s *memoryStore) append(_ context.Context, _ int, batch []domain.Command) ([]answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := want(batch, s.shards)
	state := s.load(w)
	for _, c := range batch {
		if events, ok := s.earlier[c.ID]; ok {
			state.earlier[c.ID] = events
		}
	}
	p, err := decide(state, batch, w.shardOf, s.currency, s.now())
	if err != nil {
		return nil, err
	}
	s.keep(p)
	return p.answers, nil
}

func (s *memoryStore) guilty(error) bool { return true } // nothing else can fail here
func (s *memoryStore) close()            {}

// load copies what the batch may look at, so that a batch that fails leaves no trace.
func (s *memoryStore) load(w *wanted) *loaded {
	l := &loaded{heads: map[int32]head{}, books: domain.NewBooks(), earlier: map[uuid.UUID][]domain.Recorded{}}
	for _, shard := range w.shards {
		l.heads[shard] = s.heads[shard]
	}
	for _, name := range w.accounts {
		if a := s.books.Accounts[name]; a != nil {
			copied := *a
			l.books.Accounts[name] = &copied
		}
	}
	requests := slices.Clone(w.requests)
	for _, key := range w.keys {
		if use, ok := s.books.Keys[key]; ok {
			l.books.Keys[key], requests = use, append(requests, use.RequestID)
		}
	}
	for _, id := range requests {
		if r := s.books.Reservations[id]; r != nil {
			copied := *r
			l.books.Reservations[id] = &copied
		}
	}
	for _, ref := range w.references {
		if use, ok := s.books.References[ref]; ok {
			l.books.References[ref] = use
			l.earlier[use.ID] = s.earlier[use.ID]
		}
	}
	return l
}

func (s *memoryStore) keep(p *plan) {
	maps.Copy(s.heads, p.heads)
	for _, w := range p.events {
		s.events[w.event.Shard] = append(s.events[w.event.Shard], w)
		id := domain.CommandID(w.event.ID)
		s.earlier[id] = append(s.earlier[id], w.recorded())
		if m, ok := w.event.Data.(*domain.MovementData); ok {
			s.books.References[domain.Reference{Account: w.event.Account, Key: m.Reference}] = domain.Use{
				ID: w.event.ID, Seq: w.event.Seq, Kind: w.event.Kind, Amount: w.event.Amount}
		}
		if key, use, ok := domain.KeyOf(&w.event); ok {
			s.books.Keys[key] = use
		}
	}
	maps.Copy(s.answers, p.responses)
	for name, a := range p.accounts {
		s.books.Accounts[name] = &a
	}
	for id, r := range p.reservations {
		s.books.Reservations[id] = &r
	}
}

// Account returns an account as it is now, or nil.
func (m *Memory) Account(_ context.Context, name string) (*domain.Account, error) {
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	a := m.store.books.Accounts[name]
	if a == nil {
		return nil, nil
	}
	copied := *a
	return &copied, nil
}

// Request returns the events of one request of an account, in order.
func (m *Memory) Request(_ context.Context, account string, id uuid.UUID) ([]domain.Recorded, error) {
	return m.pick(account, func(e *domain.Event) bool { return e.RequestID == id }), nil
}

// BalanceAt is an account's balances at a moment, from the events.
func (m *Memory) BalanceAt(_ context.Context, account string, at time.Time) (domain.Past, error) {
	past := domain.Past{Position: domain.Position{Shard: domain.ShardOf(account, m.store.shards)}}
	for _, r := range m.pick(account, func(e *domain.Event) bool { return !e.OccurredAt.After(at) }) {
		past = domain.Past{Balances: past.After(&r.Event), Position: r.Event.Position(), OccurredAt: r.Event.OccurredAt}
	}
	return past, nil
}

// Witnessed returns the events of one request of an account, with what stood before each.
func (m *Memory) Witnessed(_ context.Context, account string, id uuid.UUID) ([]domain.Witnessed, error) {
	shard, before := domain.ShardOf(account, m.store.shards), domain.Balances{}
	var out []domain.Witnessed
	for _, r := range m.pick(account, func(*domain.Event) bool { return true }) {
		if r.Event.RequestID == id {
			out = append(out, domain.Witnessed{Recorded: r, Previous: m.hashBefore(shard, r.Event.Seq), Before: before, Column: r.Event.Amount})
		}
		before = before.After(&r.Event)
	}
	return out, nil
}

func (m *Memory) hashBefore(shard int32, seq int64) *domain.Hash {
	if seq == 1 {
		return new(domain.GenesisHash(m.store.meta.ID, shard))
	}
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	return new(m.store.events[shard][seq-2].recorded().Hash)
}

// Response returns the answer that was kept of an account's request, or nil.
func (m *Memory) Response(_ context.Context, account string, id uuid.UUID) (*domain.Response, error) {
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	if r := m.store.books.Reservations[id]; r == nil || r.Account != account {
		return nil, nil
	}
	return m.store.answers[id], nil
}

// Meta is which ledger it is.
func (m *Memory) Meta() Meta { return m.store.meta }

// Events returns up to limit of a shard's events behind seq after, in order.
func (m *Memory) Events(_ context.Context, shard int32, after int64, limit int) ([]domain.Recorded, error) {
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	page := m.store.events[shard]
	page = page[min(max(after, 0), int64(len(page))):]
	page = page[:min(limit, len(page), MaxEvents)]
	out := make([]domain.Recorded, len(page))
	for i := range page {
		out[i] = page[i].recorded()
	}
	return out, nil
}

// Heads returns every shard's head, in the order of shards.
func (m *Memory) Heads(context.Context) ([]Head, error) {
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	out := make([]Head, m.store.shards)
	for shard := range out {
		h := m.store.heads[int32(shard)]
		out[shard] = Head{Shard: int32(shard), Seq: h.Seq, Hash: h.Hash, Epoch: h.Epoch}
	}
	return out, nil
}

// Transactions returns an account's movements of money in or out, newest first.
func (m *Memory) Transactions(_ context.Context, account string, limit, offset int) ([]domain.Recorded, error) {
	all := m.pick(account, func(e *domain.Event) bool { return isTransaction(e.Kind) })
	slices.Reverse(all)
	all = all[min(offset, len(all)):]
	return all[:min(limit, len(all))], nil
}

func (m *Memory) pick(account string, keep func(*domain.Event) bool) []domain.Recorded {
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	var out []domain.Recorded
	for _, w := range m.store.events[domain.ShardOf(account, m.store.shards)] {
		if w.event.Account == account && keep(&w.event) {
			out = append(out, w.recorded())
		}
	}
	return out
}
