package gateway_test

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"llm-gateway/domain"
	"llm-gateway/gateway"
)

// projected is a Projections over the events that went through a commandLog. Stopped, it stays where
// it is and says how far behind that is.
type projected struct {
	ledger  gateway.Facts
	mu      sync.Mutex
	stopped bool
	shards  map[int32]*shardView
	home    map[string]int32 // the shard of each account
	lines   map[string][]domain.Transaction
	used    map[domain.ConsumptionKey]domain.Consumption
}

// shardView is how far one shard has come.
type shardView struct {
	waiting       map[int64]*domain.Event
	books         *domain.Books
	applied, head int64
	at            time.Time
}

func newProjected(ledger gateway.Facts) *projected {
	return &projected{ledger: ledger, shards: map[int32]*shardView{}, home: map[string]int32{}, lines: map[string][]domain.Transaction{},
		used: map[domain.ConsumptionKey]domain.Consumption{}}
}

// publish takes the events of one append, in whatever order appends come here.
func (p *projected) publish(events []domain.Recorded) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range events {
		e := &events[i].Event
		s := p.shards[e.Shard]
		if s == nil {
			s = &shardView{waiting: map[int64]*domain.Event{}, books: domain.NewBooks()}
			p.shards[e.Shard] = s
		}
		if p.home[e.Account] = e.Shard; e.Seq > s.applied {
			s.waiting[e.Seq], s.head = e, max(s.head, e.Seq)
		}
	}
}

func (p *projected) setStopped(stopped bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if stopped {
		for _, s := range p.shards {
			p.catchUp(s)
		}
	}
	p.stopped = stopped
}

// catchUp applies what has come without a gap.
func (p *projected) catchUp(s *shardView) {
	for e := s.waiting[s.applied+1]; e != nil && !p.stopped; e = s.waiting[s.applied+1] {
		if err := s.books.Apply(e); err != nil {
			panic(err)
		}
		if line, ok := domain.TransactionOf(e); ok {
			p.lines[e.Account] = append(p.lines[e.Account], line)
		}
		if key, c, ok := domain.ConsumptionOf(e); ok {
			p.used[key] = p.used[key].Add(c)
		}
		delete(s.waiting, e.Seq)
		s.applied, s.at = e.Seq, e.OccurredAt
	}
}

// reach waits for what is on its way, and calls read, which looks at the tables, with the reading.
func (p *projected) reach(account string, atLeast domain.Position, read func(*shardView)) domain.Reading {
	if a, err := p.ledger.Account(context.Background(), account); err != nil || a == nil || a.LastSeq < atLeast.Seq {
		atLeast = domain.Position{} // what nobody has appended does not come
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for tries := 0; ; tries++ {
		if r, ok := p.try(account, atLeast, read, tries == 1000); ok {
			return r
		}
		<-tick.C
	}
}

func (p *projected) try(account string, atLeast domain.Position, read func(*shardView), last bool) (domain.Reading, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	shard := domain.ShardOf(account, testShards)
	s := p.shards[shard]
	if s == nil {
		s = &shardView{books: domain.NewBooks()}
	}
	p.catchUp(s)
	late := s.applied < s.head || atLeast.Shard == shard && s.applied < atLeast.Seq
	if late && !p.stopped && !last {
		return domain.Reading{}, false
	}
	read(s)
	return domain.Reading{Position: domain.Position{Shard: shard, Seq: s.applied}, AsOf: s.at, Behind: s.head - s.applied}, true
}

// Balance implements gateway.Projections.
func (p *projected) Balance(_ context.Context, account string, atLeast domain.Position) (a *domain.Account, r domain.Reading, _ error) {
	r = p.reach(account, atLeast, func(s *shardView) {
		if found := s.books.Accounts[account]; found != nil {
			copied := *found
			a = &copied
		}
	})
	return a, r, nil
}

// Transactions implements gateway.Projections.
func (p *projected) Transactions(_ context.Context, account string, limit, offset int, atLeast domain.Position) (out []domain.Transaction, r domain.Reading, _ error) {
	r = p.reach(account, atLeast, func(*shardView) {
		out = slices.Clone(p.lines[account])
		slices.Reverse(out)
		out = out[min(offset, len(out)):]
		out = out[:min(limit, len(out))]
	})
	return out, r, nil
}

// Stats implements gateway.Projections.
func (p *projected) Stats(_ context.Context, account string, q domain.StatsQuery, atLeast domain.Position) (out []domain.StatsRow, r domain.Reading, _ error) {
	r = p.reach(account, atLeast, func(*shardView) { out = p.grouped(account, q) })
	return out, r, nil
}

// Margins implements gateway.Projections.
func (p *projected) Margins(_ context.Context, q domain.MarginQuery) (m domain.Margins, _ error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for shard, s := range p.shards {
		if p.catchUp(s); q.Account == "" || domain.ShardOf(q.Account, testShards) == shard {
			m.Behind += s.head - s.applied
		}
	}
	m.Rows = p.grouped(q.Account, q.StatsQuery)
	for i := range m.Rows {
		m.Total = m.Total.Add(m.Rows[i].Consumption)
	}
	m.More, m.Rows = len(m.Rows) > q.Limit, m.Rows[:min(q.Limit, len(m.Rows))]
	return m, nil
}

// grouped adds up what an account used, or where it is "", all.
func (p *projected) grouped(account string, q domain.StatsQuery) (out []domain.StatsRow) {
	groups := map[domain.StatsRow]domain.Consumption{}
	for key, c := range p.used {
		if account != "" && key.Account != account || key.Hour.Before(q.From) || !key.Hour.Before(q.To) {
			continue
		}
		group := map[domain.StatsGroup]domain.StatsRow{domain.StatsByHour: {Start: key.Hour}, domain.StatsByModel: {Name: key.Model},
			domain.StatsByDay: {Start: key.Hour.Truncate(24 * time.Hour)}, domain.StatsByProvider: {Name: key.Provider},
			domain.StatsByAccount: {Name: key.Account}}[q.Group]
		groups[group] = groups[group].Add(c)
	}
	for group, c := range groups {
		group.Consumption = c
		out = append(out, group)
	}
	slices.SortFunc(out, func(a, b domain.StatsRow) int {
		return cmp.Or(a.Start.Compare(b.Start), b.Amount.Cmp(a.Amount), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// cached is what a cache filled by this projection knows.
func (p *projected) cached(account string) (c domain.CachedBalance, known bool) {
	p.reach(account, domain.Position{}, func(s *shardView) {
		if a := s.books.Accounts[account]; a != nil {
			c = domain.CachedBalance{Spendable: a.Spendable(), Frozen: a.Frozen, Position: domain.Position{Shard: p.home[account], Seq: a.LastSeq}}
			known = true
		}
	})
	return c, known
}

// cache is a Balances that answers as its test says.
type cache struct {
	mu      sync.Mutex
	answer  func(ctx context.Context, account string) (domain.CachedBalance, bool, error) // nil = it knows nobody
	asked   int
	refills []string
}

// set changes what the cache says from now on.
func (c *cache) set(answer func(ctx context.Context, account string) (domain.CachedBalance, bool, error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = answer
}

// says lets the cache know so much of everybody.
func (c *cache) says(spendable string, frozen bool) {
	known := domain.CachedBalance{Spendable: domain.MustAmount(spendable), Frozen: frozen}
	c.set(func(context.Context, string) (domain.CachedBalance, bool, error) { return known, true, nil })
}

// follows lets the cache say what a projection says.
func (c *cache) follows(p *projected) {
	c.set(func(_ context.Context, account string) (domain.CachedBalance, bool, error) {
		known, ok := p.cached(account)
		return known, ok, nil
	})
}

func (c *cache) fails() {
	c.set(func(context.Context, string) (domain.CachedBalance, bool, error) {
		return domain.CachedBalance{}, true, errAway
	})
}

// Balance implements gateway.Balances.
func (c *cache) Balance(ctx context.Context, account string) (domain.CachedBalance, bool, error) {
	c.mu.Lock()
	c.asked++
	answer := c.answer
	c.mu.Unlock()
	if answer == nil {
		return domain.CachedBalance{}, false, nil
	}
	return answer(ctx, account)
}

// RefillSoon implements gateway.Balances.
func (c *cache) RefillSoon(account string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refills = append(c.refills, account)
}

func (c *cache) count() (asked int, refills []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked, slices.Clone(c.refills)
}
