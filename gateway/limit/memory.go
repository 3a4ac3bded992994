package limit

import (
	"container/list"
	"sync"

	"llm-gateway/domain"
)

// memoryHolders bounds the accounts and keys whose limits are kept in memory: at most about 30 MB. Of more,
// those that were idle longest are forgotten, and begin again with all of their limits. So a flood of more
// accounts than this within an hour loosens the limits of those that hardly call, and of no others; whose
// accounts there are is decided by who may sign tokens.
const memoryHolders = 100_000

// holder is whose buckets they are.
type holder struct {
	scope        domain.RateScope
	account, key string
}

type buckets struct {
	of     holder
	levels domain.Levels
}

// Memory keeps limits in this process's memory. It is safe for concurrent use.
type Memory struct {
	most int

	mu     sync.Mutex
	known  map[holder]*list.Element // of *buckets
	recent *list.List               // the one used last in front
	all    domain.Levels            // everybody's: never forgotten
}

// NewMemory keeps the limits of so many accounts and keys.
func NewMemory(most int) *Memory {
	return &Memory{most: most, known: map[holder]*list.Element{}, recent: list.New()}
}

// TakeOwn takes a request from its account's and its key's limits, or from neither. now is in milliseconds
// since the epoch.
func (m *Memory) TakeOwn(a *domain.RateAsk, now int64) (t domain.RateTaken) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t.Fits = true
	for _, h := range own(a) {
		levels, fits := a.Quotas[h.scope].Take(m.levels(h), now, a.Want)
		t.Levels[h.scope], t.Fits = levels, t.Fits && fits
	}
	for _, h := range own(a) {
		if !t.Fits { // what one limit took is not taken
			t.Levels[h.scope] = a.Quotas[h.scope].Drained(m.levels(h), now)
		}
		m.keep(h, t.Levels[h.scope])
	}
	return t
}

// TakeAll takes a request from everybody's limits.
func (m *Memory) TakeAll(a *domain.RateAsk, now int64) (t domain.RateTaken) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all, t.Fits = a.Quotas[domain.RateAll].Take(m.all, now, a.Want)
	t.Levels[domain.RateAll] = m.all
	return t
}

// Adjust changes what a request has taken.
func (m *Memory) Adjust(a *domain.RateAdjustment, now int64) {
	if a.Nothing() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, h := range own(&a.Ask) {
		m.keep(h, a.Ask.Quotas[h.scope].Adjust(m.levels(h), now, a.Own))
	}
	m.all = a.Ask.Quotas[domain.RateAll].Adjust(m.all, now, a.All)
}

// learn puts in what a request took of a store that all gateways share, and makes the buckets hold no less than
// they do there. It is strict: where answers overtake each other, or others give back, memory may hold more than
// the store does, until it has drained.
func (m *Memory) learn(a *domain.RateAdjustment, g *Grant, now int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if g.ownThere {
		for _, h := range own(&a.Ask) {
			q := a.Ask.Quotas[h.scope]
			m.keep(h, q.AtLeast(q.Adjust(m.levels(h), now, a.Own), g.Levels[h.scope]))
		}
	}
	if q := a.Ask.Quotas[domain.RateAll]; g.allThere {
		m.all = q.AtLeast(q.Adjust(m.all, now, a.All), g.Levels[domain.RateAll])
	}
}

// own lists who has limits of their own.
func own(a *domain.RateAsk) []holder {
	var out []holder
	if !a.Quotas[domain.RateAccount].None() {
		out = append(out, holder{domain.RateAccount, a.Account, ""})
	}
	if a.Key != "" && !a.Quotas[domain.RateKey].None() {
		out = append(out, holder{domain.RateKey, a.Account, a.Key})
	}
	return out
}

func (m *Memory) levels(h holder) domain.Levels {
	if e := m.known[h]; e != nil {
		return e.Value.(*buckets).levels
	}
	return domain.Levels{}
}

// keep remembers what a holder's buckets hold, in place of whose were idle longest.
func (m *Memory) keep(h holder, levels domain.Levels) {
	if e := m.known[h]; e != nil {
		e.Value.(*buckets).levels = levels
		m.recent.MoveToFront(e)
		return
	}
	if m.recent.Len() >= m.most {
		last := m.recent.Back()
		delete(m.known, last.Value.(*buckets).of)
		m.recent.Remove(last)
	}
	m.known[h] = m.recent.PushFront(&buckets{h, levels})
}
