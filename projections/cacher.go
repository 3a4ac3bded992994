package projections

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"llm-gateway/domain"
)

// The bounds of telling the cache.
const (
	maxWaiting = 10_000          // accounts that wait to be put
	putAtOnce  = 500             // accounts in one Put
	putTime    = 2 * time.Second // reading and putting them
	putPause   = time.Second     // after a Put that failed
)

// cacher tells the cache the balances of accounts that changed: whatever they are by then, so that an
// account that changes faster is put less often. It holds nobody up. An account that is dropped because
// too many wait, or because the process died, stays in the cache as it was until it changes again: a
// cache may be behind.
type cacher struct {
	pool   *pgxpool.Pool
	cache  Putter
	log    *slog.Logger
	failed func(error)   // told of each Put that failed; nil = nobody is
	wake   chan struct{} // has room for one: somebody waits
	away   bool          // the last Put failed; run's own

	mu      sync.Mutex
	waiting map[string]int32 // account -> shard
	order   []string         // the waiting, the oldest first
}

func newCacher(pool *pgxpool.Pool, cache Putter, log *slog.Logger, failed func(error)) *cacher {
	return &cacher{pool: pool, cache: cache, log: log, failed: failed, wake: make(chan struct{}, 1), waiting: map[string]int32{}}
}

// touch notes the accounts of events that were applied.
func (c *cacher) touch(shard int32, events []domain.Recorded) {
	c.mu.Lock()
	for i := range events {
		c.add(events[i].Event.Account, shard)
	}
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// add notes one account; mu is held.
func (c *cacher) add(account string, shard int32) {
	if _, waits := c.waiting[account]; waits {
		return
	}
	if len(c.order) >= maxWaiting {
		delete(c.waiting, c.order[0])
		c.order = c.order[1:]
	}
	c.waiting[account] = shard
	c.order = append(c.order, account)
}

// next takes the oldest that wait.
func (c *cacher) next() (shards []int32, accounts []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	accounts = c.order[:min(len(c.order), putAtOnce)]
	c.order = c.order[len(accounts):]
	for _, account := range accounts {
		shards = append(shards, c.waiting[account])
		delete(c.waiting, account)
	}
	return shards, accounts
}

// run puts what waits, until ctx ends.
func (c *cacher) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		}
		for ctx.Err() == nil {
			shards, accounts := c.next()
			if len(accounts) == 0 {
				break
			}
			if err := c.put(ctx, shards, accounts); err != nil {
				c.again(ctx, shards, accounts, err)
			} else if c.away {
				c.away = false
				c.log.Info("the cache takes balances again")
			}
		}
	}
}

// again notes accounts whose Put failed, and waits a little.
func (c *cacher) again(ctx context.Context, shards []int32, accounts []string, err error) {
	if !c.away && ctx.Err() == nil {
		c.away = true
		c.log.Warn("balances cannot be put into the cache; they are put again", "error", err)
	}
	if c.failed != nil && ctx.Err() == nil {
		c.failed(err)
	}
	c.mu.Lock()
	for i, account := range accounts {
		c.add(account, shards[i])
	}
	c.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-time.After(putPause):
	}
}

// put reads accounts as they are now, and puts them.
func (c *cacher) put(ctx context.Context, shards []int32, accounts []string) error {
	ctx, cancel := context.WithTimeout(ctx, putTime)
	defer cancel()
	found, err := c.pool.Query(ctx, selectBalances, shards, accounts)
	if err != nil {
		return fmt.Errorf("reading balances: %w", err)
	}
	balances, err := pgx.CollectRows(found, scanCached)
	if err != nil {
		return fmt.Errorf("reading balances: %w", err)
	}
	if len(balances) == 0 {
		return nil
	}
	return c.cache.Put(ctx, balances)
}

// selectBalances reads a balance and its shard's epoch as of one moment. LIMIT makes it an index look-up
// for each, whatever is known of the tables' sizes.
const selectBalances = `SELECT w.shard, w.account, b.available::text, b.reserved::text, b.credit_limit::text, b.frozen, b.last_seq, s.epoch
	FROM unnest($1::int[], $2::text[]) AS w(shard, account)
	JOIN ledger_shards s ON s.shard = w.shard
	CROSS JOIN LATERAL (SELECT available, reserved, credit_limit, frozen, last_seq FROM balances b WHERE b.shard = w.shard AND b.account = w.account LIMIT 1) b`

func scanCached(row pgx.CollectableRow) (Balance, error) {
	var b Balance
	var available, reserved, limit string
	err := row.Scan(&b.Position.Shard, &b.Account, &available, &reserved, &limit, &b.Frozen, &b.Position.Seq, &b.Epoch)
	if err == nil {
		err = parseAmounts([]string{available, reserved, limit}, &b.Available, &b.Reserved, &b.CreditLimit)
	}
	return b, err
}
