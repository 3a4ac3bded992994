package limit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"llm-gateway/domain"
	"llm-gateway/gateway/limit"
)

var errAway = errors.New("it is away")

// moody is a Shared in memory that can be away, in whole or in half, and counts what it is told.
type moody struct {
	memory *limit.Memory

	mu       sync.Mutex
	own, all error
	asked    int
	given    []domain.RateAdjustment
}

func (m *moody) set(own, all error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.own, m.all = own, all
}

// Admit implements limit.Shared.
func (m *moody) Admit(_ context.Context, a *domain.RateAsk, balance bool) (out domain.Admission) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	if out.Own = (domain.RateTaken{Err: m.own}); m.own == nil {
		out.Own = m.memory.TakeOwn(a, time.Now().UnixMilli())
	}
	if out.All = (domain.RateTaken{Err: m.all}); m.all == nil {
		out.All = m.memory.TakeAll(a, time.Now().UnixMilli())
	}
	out.Known, out.BalanceErr = balance && m.own == nil, m.own
	return out
}

// Adjust implements limit.Shared.
func (m *moody) Adjust(_ context.Context, adjustments []domain.RateAdjustment) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.own != nil {
		return m.own
	}
	m.given = append(m.given, adjustments...)
	for i := range adjustments {
		m.memory.Adjust(&adjustments[i], time.Now().UnixMilli())
	}
	return nil
}

// watched is a limiter with what it logs and counts. It runs in a bubble of synctest.
type watched struct {
	*limit.Limiter
	shared *moody
	logs   bytes.Buffer

	mu     sync.Mutex
	counts map[string]int
}

func watch(t *testing.T) *watched {
	w := &watched{shared: &moody{memory: limit.NewMemory(100)}, counts: map[string]int{}}
	w.Limiter = limit.New(limit.Config{Shared: w.shared, Now: time.Now, Log: slog.New(slog.NewTextHandler(&w.logs, nil)),
		Count: func(scope, result string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.counts[scope+" "+result]++
		}})
	t.Cleanup(w.Close)
	return w
}

func (w *watched) count(what string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.counts[what]
}

// through admits so many and says how many came through.
func (w *watched) through(n int, a domain.RateAsk) (out int) {
	for range n {
		if w.Admit(context.Background(), a, false).Refused == nil {
			out++
		}
	}
	return out
}

// TestSharedAway: while the shared store is away memory goes on with what this process has let through; the
// log says so once, and once that it is over.
func TestSharedAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a := watch(t), ask("alice", "", 0, hourly(10))
		if n := w.through(4, a); n != 4 {
			t.Fatalf("%d of 4", n)
		}
		w.shared.set(errAway, errAway)
		if n := w.through(20, a); n != 6 {
			t.Errorf("%d of the 6 that are left", n)
		}
		w.shared.set(nil, nil)
		if n := w.through(20, a); n != 6 {
			t.Errorf("%d of the 6 that the shared store has left", n)
		}
		for range 5 { // it comes and goes
			w.shared.set(errAway, nil)
			w.through(1, a)
			w.shared.set(nil, nil)
			w.through(1, a)
		}
		if away, back := strings.Count(w.logs.String(), "level=WARN"), strings.Count(w.logs.String(), "level=INFO"); away != 1 || back != 1 {
			t.Errorf("%d and %d lines:\n%s", away, back, &w.logs)
		}
		if memory, refused := w.count("store memory"), w.count("account refused"); memory != 25 || refused == 0 {
			t.Errorf("%d by memory, %d refused", memory, refused)
		}
	})
}

// TestKnowsOthers: where the shared store does not answer, memory goes on from what it said last of all gateways'
// use, not only from what this process let through; whether it admitted then or refused.
func TestKnowsOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here := watch(t)
		for name, c := range map[string]struct{ others, own, left int }{"admitted": {6, 1, 3}, "refused": {10, 0, 0}, "not asked": {10, -1, 10}} {
			a := ask(name, "k", 0, hourly(50), hourly(10), hourly(1000))
			here.shared.set(nil, nil)
			for range c.others {
				here.shared.memory.TakeOwn(&a, time.Now().UnixMilli())
			}
			if c.own >= 0 {
				if n := here.through(1, a); n != c.own {
					t.Errorf("%s: %d came through while it was there", name, n)
				}
			}
			here.shared.set(errAway, errAway)
			if n := here.through(20, a); n != c.left {
				t.Errorf("%s: %d came through after that, not %d", name, n, c.left)
			}
		}
	})
}

// TestHalfAway: everybody's limit may be on a server that is away, alone, and the other way round.
func TestHalfAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t)
		w.shared.set(nil, errAway)
		if n := w.through(20, ask("alice", "", 0, hourly(10), domain.Quotas{}, hourly(4))); n != 4 {
			t.Errorf("%d of everybody's 4", n)
		}
		synctest.Wait()
		if n := w.through(20, ask("alice", "", 0, hourly(10))); n != 6 {
			t.Errorf("%d: what everybody's limit refused was to be given back", n)
		}
	})
}

// TestUndone: what one limit took is given back where another refuses, without a wait.
func TestUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t)
		both := ask("alice", "", 0, hourly(2), domain.Quotas{}, hourly(5))
		if n := w.through(20, both); n != 2 {
			t.Fatalf("%d of alice's 2", n)
		}
		synctest.Wait()
		g := w.Admit(context.Background(), ask("bob", "", 0, hourly(10), domain.Quotas{}, hourly(5)), false)
		l, _ := hourly(5).Limit(domain.RequestsHour)
		if left := l.Remaining(g.Levels[domain.RateAll][domain.RequestsHour].Used); g.Refused != nil || left != 2 {
			t.Errorf("%+v: %d are left of 5, of which 3 are used", g.Refused, left)
		}
		if g := w.Admit(context.Background(), both, false); g.Refused == nil || g.Scope != domain.RateAccount || g.Refused.Wait < 1 {
			t.Errorf("%+v", g)
		}
	})
}

// TestSettle: a request's tokens are what it used, in the shared store and in memory; a request is given back
// once, and one that was refused never.
func TestSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t)
		tokens := func(n int64) domain.RateAsk { return ask("alice", "", n, domain.Quotas{domain.TokensMinute: 100}) }
		first := w.Admit(context.Background(), tokens(80), false)
		refused := w.Admit(context.Background(), tokens(80), false)
		if first.Refused != nil || refused.Refused == nil {
			t.Fatalf("%+v, %+v", first, refused)
		}
		w.Settle(refused, 0)
		w.Settle(first, 30)
		synctest.Wait()
		if g := w.Admit(context.Background(), tokens(71), false); g.Refused == nil {
			t.Error("71 of the 70 that are left")
		}
		w.shared.set(errAway, errAway)
		if g := w.Admit(context.Background(), tokens(71), false); g.Refused == nil {
			t.Error("71 of the 70 that are left, in memory")
		}
		w.shared.set(nil, nil)
		last := w.Admit(context.Background(), tokens(70), false)
		if last.Refused != nil {
			t.Errorf("70 of 70: %+v", last.Refused)
		}
		w.Settle(last, 90) // more than it took
		synctest.Wait()
		if g := w.Admit(context.Background(), tokens(1), false); g.Refused == nil || g.Refused.Wait < 12_000 {
			t.Errorf("there are 20 too many: %+v", g.Refused)
		}
		w.Settle(nil, 5)
		if len(w.shared.given) != 2 {
			t.Errorf("given back: %+v", w.shared.given)
		}
	})
}

// TestNothingLimited: a request without limits is asked for its balance alone, and is counted nowhere.
func TestNothingLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t)
		g := w.Admit(context.Background(), ask("alice", "", 5), true)
		if !g.Asked || !g.Known || g.Refused != nil {
			t.Errorf("%+v", g)
		}
		w.Settle(g, 7)
		synctest.Wait()
		if len(w.counts) != 0 || len(w.shared.given) != 0 {
			t.Errorf("%v, %v", w.counts, w.shared.given)
		}
	})
}

// TestFlood: memory keeps so many accounts and no more; of a flood, those that go on calling stay.
func TestFlood(t *testing.T) {
	t.Parallel()
	m := limit.NewMemory(10)
	now := int64(1)
	take := func(account string) bool {
		now++
		a := ask(account, "", 0, hourly(3))
		return m.TakeOwn(&a, now).Fits
	}
	busy := 0
	for i := range 1000 {
		if take("busy") {
			busy++
		}
		take(fmt.Sprint("flood", i))
	}
	if busy != 3 {
		t.Errorf("%d of 3 in a flood", busy)
	}
	for range 3 {
		if !take("flood0") {
			t.Error("who was idle longest begins anew")
		}
	}
	if kept := limit.Kept(m); kept != 10 {
		t.Errorf("%d are kept", kept)
	}
}
