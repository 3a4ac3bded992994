package simulation

import (
	"context"
	"fmt"
	"sync"

	"llm-gateway/domain"
)

// cache is a Redis with projected balances.
type cache struct {
	bug bug

	mu   sync.Mutex
	rows map[string]domain.CachedBalance
	sent map[string]int // by account: it tells puts apart

	newest map[string]int64 // by account: the highest seq that was put
}

func newCache(b bug) *cache {
	return &cache{bug: b, rows: map[string]domain.CachedBalance{}, sent: map[string]int{}, newest: map[string]int64{}}
}

// send puts a balance behind everybody's back: it may be late, twice, or lost.
func (c *cache) send(p *process, account string, b domain.CachedBalance) {
	c.mu.Lock()
	c.sent[account]++
	name := fmt.Sprintf("%s caches the balance of %s #%d", p.name, account, c.sent[account])
	c.mu.Unlock()
	go func() {
		switch p.w.s.park(p.ctx, &parked{name: name, proc: p, kind: kindCacheWrite}) {
		case twice:
			c.put(account, b)
			if p.w.s.park(p.ctx, &parked{name: name, proc: p, kind: kindCacheWrite, loose: true}) == goOn {
				c.put(account, b)
			}
		case goOn, failAfter:
			c.put(account, b)
		}
	}()
}

// put stores a balance where it is newer than what is there.
func (c *cache) put(account string, b domain.CachedBalance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rows[account].Position.Seq > b.Position.Seq && c.bug != bugCacheBackwards {
		return
	}
	c.rows[account] = b
	c.newest[account] = max(c.newest[account], b.Position.Seq)
}

// flush forgets everything.
func (c *cache) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.rows)
	clear(c.newest)
}

// cacheClient is a process's gateway.Balances.
type cacheClient struct{ p *process }

// Balance implements gateway.Balances.
func (c *cacheClient) Balance(ctx context.Context, account string) (domain.CachedBalance, bool, error) {
	if _, err := c.p.enter(ctx, kindCacheRead, callerOf(ctx)+" asks the cache"); err != nil {
		return domain.CachedBalance{}, false, err
	}
	k := c.p.w.cache
	k.mu.Lock()
	defer k.mu.Unlock()
	b, ok := k.rows[account]
	return b, ok, nil
}

// RefillSoon implements gateway.Balances.
func (c *cacheClient) RefillSoon(account string) {
	shard := domain.ShardOf(account, c.p.w.plan.shards)
	if row, _ := c.p.w.database.tables.balance(account, shard); row != nil {
		c.p.w.cache.send(c.p, account, domain.CachedBalance{Spendable: row.Spendable(), Available: row.Available, Reserved: row.Reserved, Frozen: row.Frozen,
			Position: domain.Position{Shard: shard, Seq: row.LastSeq}})
	}
}
