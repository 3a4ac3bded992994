package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"llm-gateway/domain"
)

var _ Putter = (*Cache)(nil)

// memo is a cache in memory that can fail and hang.
type memo struct {
	mu       sync.Mutex
	balances map[string]Balance
	puts     int
	err      error
	hangs    bool
}

func (m *memo) Put(ctx context.Context, balances []Balance) error {
	m.mu.Lock()
	m.puts++
	err, hangs := m.err, m.hangs
	m.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range balances {
		if m.balances[b.Account].Position.Seq <= b.Position.Seq && err == nil {
			m.balances[b.Account] = b
		}
	}
	return err
}

func (m *memo) set(err error, hangs bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err, m.hangs = err, hangs
}

func (m *memo) snapshot() (map[string]Balance, int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.balances), m.puts
}

// agrees says whether the cache has the given accounts as the ledger has them.
func (m *memo) agrees(t *testing.T, p *play, accounts ...string) bool {
	t.Helper()
	balances, _ := m.snapshot()
	for _, name := range accounts {
		a, err := p.ledger.Account(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		b := balances[name]
		at := domain.Position{Shard: domain.ShardOf(name, worldShards), Seq: a.LastSeq}
		if b.Account != name || b.Position != at || b.Epoch != int64(at.Shard)+5 || b.Frozen != a.Frozen ||
			!b.Available.Equal(a.Available) || !b.Reserved.Equal(a.Reserved) || !b.CreditLimit.Equal(a.CreditLimit) {
			return false
		}
	}
	return true
}

// TestCacheIsTold holds that the cache gets every balance as it is in the end, with its position and
// epoch, and that one which fails or hangs holds nobody up.
func TestCacheIsTold(t *testing.T) {
	bothModes(t, func(t *testing.T, w *world) {
		p := newPlay(t, w, newShelf(w.meta))
		p.exec(t, `UPDATE ledger_shards SET epoch = shard + 5`)
		m := &memo{balances: map[string]Balance{}}
		var failures atomic.Int64
		projector, d := p.start(t, func(c *Config) { c.Cache, c.Hooks.NotCached = m, func(error) { failures.Add(1) } })
		for _, trouble := range []struct {
			err   error
			hangs bool
		}{{nil, false}, {errors.New("no cache"), false}, {nil, true}} {
			p.happen(t, 20)
			p.reach(t)
			eventually(t, "the cache is told", func() bool { return m.agrees(t, p, p.history.accounts...) })
			before, puts := m.snapshot()
			m.set(trouble.err, trouble.hangs)
			p.happen(t, 30)
			p.reach(t)
			eventually(t, "it was tried", func() bool { _, n := m.snapshot(); return n > puts })
			if trouble.err != nil || trouble.hangs {
				told := failures.Load()
				eventually(t, "failures are told of", func() bool { return failures.Load() > told })
			} else if failures.Load() > 0 {
				t.Error("a failure is told of, and there was none")
			}
			if after, _ := m.snapshot(); (trouble.err != nil || trouble.hangs) && !maps.Equal(after, before) {
				t.Error("the cache took something")
			}
			m.set(nil, false)
		}
		eventually(t, "the cache is told", func() bool { return m.agrees(t, p, p.history.accounts...) })
		projector.Close()
		if len(d.changed())+d.restarted() != 0 {
			t.Errorf("what was told: %q, %v", d.changed(), d.reasons())
		}
	})
}

// TestCacherIsBounded holds what waits, and that the oldest give way.
func TestCacherIsBounded(t *testing.T) {
	t.Parallel()
	c := newCacher(nil, nil, slog.New(slog.DiscardHandler), nil)
	for i := range maxWaiting + 10 {
		for range 2 {
			c.touch(int32(i%7), []domain.Recorded{{Event: domain.Event{Account: fmt.Sprint(i)}}})
		}
	}
	if len(c.order) != maxWaiting || len(c.waiting) != maxWaiting {
		t.Errorf("%d wait, %d are known", len(c.order), len(c.waiting))
	}
	var shards []int32
	var all []string
	for {
		s, accounts := c.next()
		if len(accounts) == 0 {
			break
		}
		if len(accounts) > putAtOnce {
			t.Errorf("%d at once", len(accounts))
		}
		shards, all = append(shards, s...), append(all, accounts...)
	}
	if len(all) != maxWaiting || all[0] != "10" || slices.Max(shards) != 6 || shards[0] != 10%7 || len(c.waiting) != 0 {
		t.Errorf("%d came out, the first is %s of shard %d", len(all), all[0], shards[0])
	}
}
