package projections

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"llm-gateway/domain"
)

// The bounds of refilling.
const (
	refillQueue   = 1024            // accounts that wait
	refillWorkers = 2               // accounts at a time, and connections to Postgres
	refillTime    = 2 * time.Second // one account
)

// Refiller is a Cache that fills itself again from the table of balances: after a loss of what Redis
// held the accounts come back one by one, as they are asked for. It is safe for concurrent use;
// Close ends it.
type Refiller struct {
	*Cache
	pool   *pgxpool.Pool
	failed func(error)
	queue  chan string
	ctx    context.Context
	cancel context.CancelFunc
	wait   sync.WaitGroup

	mu     sync.Mutex
	wanted map[string]bool // accounts in the queue or at work: at most refillQueue + refillWorkers
	closed bool
}

// NewRefiller starts a refiller. failed, if not nil, is told of each account that could not be
// refilled, by one of refillWorkers goroutines.
func NewRefiller(c *Cache, pool *pgxpool.Pool, failed func(error)) *Refiller {
	r := &Refiller{Cache: c, pool: pool, failed: failed, queue: make(chan string, refillQueue), wanted: map[string]bool{}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	for range refillWorkers {
		r.wait.Go(r.run)
	}
	return r
}

// RefillSoon puts the account's projected balance into the cache, soon and in the background. It
// never waits; it does nothing where the account is waiting already, or too many are. A refill that
// was dropped is asked for again by the account's next request.
func (r *Refiller) RefillSoon(account string) {
	if domain.CheckAccount(account) != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.wanted[account] {
		return
	}
	select {
	case r.queue <- account:
		r.wanted[account] = true
	default:
	}
}

// Close ends the background work and returns when it has ended. What still waits is dropped.
func (r *Refiller) Close() {
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		close(r.queue)
	}
	r.mu.Unlock()
	r.cancel()
	r.wait.Wait()
}

func (r *Refiller) run() {
	for account := range r.queue {
		if r.ctx.Err() != nil {
			continue // closing: what waits is dropped
		}
		err := r.refill(account)
		r.mu.Lock()
		delete(r.wanted, account)
		r.mu.Unlock()
		if err != nil && r.failed != nil && r.ctx.Err() == nil {
			r.failed(err)
		}
	}
}

// refill asks Redis first, so that Postgres is not read for one that is away.
func (r *Refiller) refill(account string) error {
	ctx, cancel := context.WithTimeout(r.ctx, refillTime)
	defer cancel()
	if _, _, err := r.Balance(ctx, account); err != nil {
		return err
	}
	b, err := readBalance(ctx, r.pool, account, r.shards)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil // not projected yet, or no such account
	}
	if err != nil {
		return fmt.Errorf("reading the balance of %s: %w", account, err)
	}
	return r.Put(ctx, []Balance{b})
}

// selectBalance reads the epoch in the same snapshot as the row: a balance from before a recovery
// never carries the epoch after it.
const selectBalance = `SELECT b.available::text, b.reserved::text, b.credit_limit::text, b.frozen, b.last_seq, s.epoch
	FROM balances b JOIN ledger_shards s ON s.shard = b.shard WHERE b.shard = $1 AND b.account = $2`

func readBalance(ctx context.Context, pool *pgxpool.Pool, account string, shards int) (Balance, error) {
	b := Balance{Account: account, Position: domain.Position{Shard: domain.ShardOf(account, shards)}}
	var money [3]string
	err := pool.QueryRow(ctx, selectBalance, b.Position.Shard, account).
		Scan(&money[0], &money[1], &money[2], &b.Frozen, &b.Position.Seq, &b.Epoch)
	if err != nil {
		return Balance{}, err
	}
	for i, to := range []*domain.Amount{&b.Available, &b.Reserved, &b.CreditLimit} {
		if *to, err = domain.ParseAmount(money[i]); err != nil {
			return Balance{}, err
		}
	}
	return b, nil
}
