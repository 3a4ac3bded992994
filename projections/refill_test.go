package projections

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/jackc/pgx/v5/pgxpool"

	"llm-gateway/domain"
	"llm-gateway/migrations/pgtest"
)

// What the gateway wants of a cache.
var _ interface {
	Balance(ctx context.Context, account string) (domain.CachedBalance, bool, error)
	RefillSoon(account string)
	Close()
} = (*Refiller)(nil)

// refillPool gives a schema with the balances of some accounts, all shards being in the given epoch.
func refillPool(t *testing.T, epoch int64, balances ...Balance) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), pgtest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	for shard := range cacheShards {
		if _, err := pool.Exec(t.Context(), `INSERT INTO ledger_shards (shard, last_seq, last_hash, last_time, epoch)
			VALUES ($1, 0, $2, now(), $3)`, shard, make([]byte, 32), epoch); err != nil {
			t.Fatal(err)
		}
	}
	for _, b := range balances {
		if _, err := pool.Exec(t.Context(), `INSERT INTO balances VALUES ($1, $2, $3, $4, $5, $6, $7)`, b.Position.Shard, b.Account,
			b.Available.String(), b.Reserved.String(), b.CreditLimit.String(), b.Frozen, b.Position.Seq); err != nil {
			t.Fatal(err)
		}
	}
	return pool
}

func openRefiller(t *testing.T, c *Cache, pool *pgxpool.Pool, failed func(error)) *Refiller {
	t.Helper()
	r := NewRefiller(c, pool, failed)
	t.Cleanup(r.Close)
	return r
}

func TestRefill(t *testing.T) {
	alice, bob := balanceAt("alice", 3, 7), balanceAt("bob", 3, 8)
	alice.Available, alice.CreditLimit = domain.MustAmount("-1.000000000001"), domain.MustAmount("5")
	pool := refillPool(t, 3, alice, bob)
	onEachCache(t, func(t *testing.T, c *Cache) {
		r := openRefiller(t, c, pool, func(err error) { t.Error(err) })
		wantNothing(t, c, "alice")
		for _, account := range []string{"alice", "nobody", "bob", "not an account", ""} {
			r.RefillSoon(account)
		}
		waitFor(t, func() bool { _, found, _ := c.Balance(t.Context(), "bob"); return found })
		waitFor(t, func() bool { _, found, _ := c.Balance(t.Context(), "alice"); return found })
		want := cached(alice)
		want.Spendable = domain.MustAmount("3.999999999")
		wantCached(t, c, "alice", want)
		wantCached(t, c, "bob", cached(bob))
		wantNothing(t, c, "nobody")
		// What is newer by the time stays.
		put(t, c, balanceAt("alice", 3, 9))
		r.RefillSoon("alice")
		waitFor(t, r.idle)
		wantCached(t, c, "alice", cached(balanceAt("alice", 3, 9)))
	})
}

// TestOldEntries: what a release wrote that kept less is no balance, gives way to any, and is never half
// of one.
func TestOldEntries(t *testing.T) {
	onEachCache(t, func(t *testing.T, c *Cache) {
		for _, missing := range cacheFields {
			clearCache(t, c)
			put(t, c, balanceAt("alice", 7, 9))
			if err := c.client.HDel(t.Context(), c.key("alice"), missing).Err(); err != nil {
				t.Fatal(err)
			}
			wantNothing(t, c, "alice")
			put(t, c, balanceAt("alice", 0, 1))
			wantCached(t, c, "alice", cached(balanceAt("alice", 0, 1)))
		}
	})
}

// idle says whether nothing waits and nothing is at work.
func (r *Refiller) idle() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.wanted) == 0
}

// TestRefillUnderLoad: all who miss ask at once, while the cache loses everything again.
func TestRefillUnderLoad(t *testing.T) {
	t.Parallel()
	var balances []Balance
	for i := range 200 {
		balances = append(balances, balanceAt(fmt.Sprint("account-", i), 1, int64(i+1)))
	}
	server := miniredis.RunT(t)
	r := openRefiller(t, openCache(t, "redis://"+server.Addr()), refillPool(t, 1, balances...), func(err error) { t.Error(err) })
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for _, b := range balances {
				if _, found, _ := r.Balance(t.Context(), b.Account); !found {
					r.RefillSoon(b.Account)
				}
			}
		})
	}
	server.FlushAll()
	wait.Wait()
	waitFor(t, func() bool {
		missing := 0
		for _, b := range balances {
			if _, found, _ := r.Balance(t.Context(), b.Account); !found {
				missing++
				r.RefillSoon(b.Account)
			}
		}
		return missing == 0
	})
	for _, b := range balances {
		wantCached(t, r.Cache, b.Account, cached(b))
	}
}

// TestRefillIsBounded: an account waits once, too many are dropped, and nobody is kept waiting.
func TestRefillIsBounded(t *testing.T) {
	t.Parallel()
	r := NewRefiller(openCache(t, "redis://127.0.0.1:1"), nil, nil)
	r.Close()
	r.closed, r.queue = false, make(chan string, 3) // without anybody at work
	for range 3 {
		r.RefillSoon("alice")
	}
	if len(r.queue) != 1 {
		t.Errorf("one account waits %d times", len(r.queue))
	}
	for i := range 10 {
		r.RefillSoon(fmt.Sprint("account-", i))
	}
	if len(r.queue) != 3 || len(r.wanted) != 3 {
		t.Errorf("%d and %d wait, where 3 may", len(r.queue), len(r.wanted))
	}
	<-r.queue
	delete(r.wanted, "alice")
	r.RefillSoon("bob")
	if len(r.queue) != 3 || !r.wanted["bob"] {
		t.Error("no room was made")
	}
	if r.Close(); r.ctx.Err() == nil {
		t.Error("not closed")
	}
	r.RefillSoon("carol")
	r.Close()
}

// TestRefillFails: what is away is named, Postgres is not asked for a Redis that is away, and what was
// asked for is asked for again by the next request.
func TestRefillFails(t *testing.T) {
	t.Parallel()
	v, through := newValve(t, "redis://"+miniredis.RunT(t).Addr())
	c := openQuickCache(t, through)
	alice := balanceAt("alice", 0, 7)
	pool := refillPool(t, 0, alice)
	gone, err := pgxpool.New(t.Context(), "postgres://127.0.0.1:1/postgres?connect_timeout=1")
	if err != nil {
		t.Fatal(err)
	}
	defer gone.Close()
	failures := make(chan error, 100)
	failed := func(err error) {
		select {
		case failures <- err:
		default: // nobody reads any more, while it fails again and again
		}
	}

	without := openRefiller(t, c, gone, failed)
	without.RefillSoon("alice")
	if err := <-failures; !strings.Contains(err.Error(), "reading the balance of alice") {
		t.Errorf("without Postgres: %v", err)
	}
	waitFor(t, without.idle) // an account that is still at work is not taken again
	v.set(shut)
	without.RefillSoon("alice")
	if err := <-failures; !strings.Contains(err.Error(), "Redis") {
		t.Errorf("without both: %v", err)
	}
	waitFor(t, without.idle)
	v.set(open)
	r := openRefiller(t, c, pool, failed)
	waitFor(t, func() bool {
		r.RefillSoon("alice")
		_, found, _ := r.Balance(t.Context(), "alice")
		return found
	})
	wantCached(t, c, "alice", cached(alice))
}

// TestRefillCloses while it works and is asked.
func TestRefillCloses(t *testing.T) {
	t.Parallel()
	c := openCache(t, "redis://"+miniredis.RunT(t).Addr())
	pool := refillPool(t, 0, balanceAt("alice", 0, 7))
	for range 10 {
		r := NewRefiller(c, pool, func(err error) {
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		stop := make(chan struct{})
		var wait sync.WaitGroup
		for i := range 4 {
			wait.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
						r.RefillSoon(fmt.Sprintf("account-%d-%d", i, n%500))
					}
				}
			})
		}
		waitFor(t, func() bool { r.mu.Lock(); defer r.mu.Unlock(); return len(r.wanted) > 10 })
		began := time.Now()
		r.Close()
		if took := time.Since(began); took > refillTime {
			t.Errorf("it took %s to close", took)
		}
		close(stop)
		wait.Wait()
		r.RefillSoon("alice")
		if r.Close(); r.ctx.Err() == nil {
			t.Error("not closed")
		}
	}
}
