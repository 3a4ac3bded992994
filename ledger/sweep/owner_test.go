package sweep

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/ledger/lease"
)

// quiet is a log that nobody reads.
var quiet = slog.New(slog.DiscardHandler)

// TestConstants holds the times to what the protocol says about them.
func TestConstants(t *testing.T) {
	t.Parallel()
	if slack := OwnerTerm - OwnerEvery; lease.Term >= slack {
		t.Errorf("where writes stall, the sweeper's lease of %s may outlive an owner's, of which %s may be left", lease.Term, slack)
	} else if lookGap >= slack || clockJump >= slack {
		t.Errorf("a gap of %s or a jump of %s goes unseen, and an owner may have but %s", lookGap, clockJump, slack)
	}
	if Every+lookTime >= lookGap || Every+tidyTime >= lookGap {
		t.Errorf("with looks every %s that take %s, or after a tidying of %s, a gap of %s is none", Every, lookTime, tidyTime, lookGap)
	}
	if OwnerEvery+ownerRetry >= OwnerTerm/2 {
		t.Errorf("an owner has not twice the time to renew before a sweeper acts: %s every %s", OwnerTerm, OwnerEvery)
	}
	if quickLease >= quickOwner.term-quickOwner.every || quick.gap >= quickOwner.term-quickOwner.every || quick.term != quickOwner.term {
		t.Error("the tests' times are not to each other as the real ones are")
	}
}

// startIn starts an owner in the world, with the real times.
func startIn(t *testing.T, l *link) *Owner {
	t.Helper()
	o, err := StartOwner(t.Context(), l, uuid.New(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// TestHeld takes Postgres away in every way: Held is true for nine tenths of a term, then false, and
// true again right after Postgres is back.
func TestHeld(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]state{"refusing": broken, "silent": silent, "frozen": frozen} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newWorld(t).link()
				o := startIn(t, l)
				defer o.Close()
				pass(time.Hour - time.Minute)
				for range 3 { // the renewals are at multiples of OwnerEvery from the start, here as at first
					pass(time.Minute)
					synctest.Wait()
					if !o.Held() {
						t.Fatal("it is not held while Postgres is there")
					}
					l.become(s)
					pass(OwnerTerm - OwnerTerm/10 - OwnerEvery)
					if !o.Held() {
						t.Fatal("one lost renewal ends it")
					}
					pass(OwnerEvery)
					if o.Held() {
						t.Fatal("it is held though it has run out")
					}
					pass(time.Minute)
					l.become(well)
					pass(2 * ownerRetry)
					if !o.Held() {
						t.Fatal("it is not held again")
					}
				}
			})
		})
	}
}

// TestHeldLooksAtTheClock wants no timer and no goroutine between the end of a lease and what Held says.
func TestHeldLooksAtTheClock(t *testing.T) {
	t.Parallel()
	o := &Owner{base: time.Now(), first: make(chan struct{}), log: quiet}
	if o.Held() {
		t.Error("it is held before it was had")
	}
	o.renewed([]string{"it"}, time.Now().Add(time.Hour))
	if !o.Held() {
		t.Error("it is not held")
	}
	o.base = o.base.Add(-time.Hour) // an hour has passed
	if o.Held() {
		t.Error("it is held though an hour has passed")
	}
	o.renewed([]string{"it"}, time.Now().Add(time.Hour))
	if !o.Held() {
		t.Error("it is not held, once renewed")
	}
	o.renewed(nil, time.Now().Add(time.Hour))
	if o.Held() {
		t.Error("it is held though another has it")
	}
}

// TestHeldIsCheap wants no allocation: it is asked on every request.
func TestHeldIsCheap(t *testing.T) {
	o := &Owner{base: time.Now()}
	o.until.Store(int64(time.Hour))
	if n := testing.AllocsPerRun(1000, func() { o.Held() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkHeld(b *testing.B) {
	o := &Owner{base: time.Now()}
	o.until.Store(int64(time.Hour))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if !o.Held() {
				b.Error("it is not held")
				return
			}
		}
	})
}

// TestStartOwner wants the lease before it returns, or an error within the bound; and nothing left of it
// either way.
func TestStartOwner(t *testing.T) {
	t.Parallel()
	t.Run("away", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			l := newWorld(t).link()
			l.become(broken)
			began := time.Now()
			o, err := StartOwner(t.Context(), l, uuid.New(), quiet)
			if !errors.Is(err, domain.ErrUnavailable) || o != nil {
				t.Fatalf("%v, %v", o, err)
			}
			if took := time.Since(began); took < startTime || took > startTime+OwnerEvery+2*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	})
	t.Run("late", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			l := newWorld(t).link()
			l.become(silent)
			time.AfterFunc(startTime-time.Second, func() { l.become(well) })
			o := startIn(t, l)
			defer o.Close()
			if !o.Held() {
				t.Error("it is not held")
			}
		})
	})
	t.Run("given up", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			l := newWorld(t).link()
			l.become(silent)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := StartOwner(ctx, l, uuid.New(), quiet); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		})
	})
	t.Run("nobody", func(t *testing.T) {
		t.Parallel()
		if _, err := StartOwner(t.Context(), nil, uuid.Nil, nil); err == nil {
			t.Error("uuid.Nil owns something")
		}
	})
}

// TestOwnerOutlivesItsStart keeps the lease when the context of the start has ended, until Close.
func TestOwnerOutlivesItsStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithCancel(t.Context())
		o, err := StartOwner(ctx, w.link(), uuid.New(), quiet)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		pass(time.Hour)
		if !o.Held() || len(w.leases) != 1 {
			t.Errorf("held: %v; leases: %v", o.Held(), w.leases)
		}
		o.Close()
		if o.Held() || len(w.leases) != 0 {
			t.Errorf("closed; held: %v; leases: %v", o.Held(), w.leases)
		}
	})
}

// TestCloseIsBounded closes an owner whose Postgres does not answer.
func TestCloseIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newWorld(t).link()
		o := startIn(t, l)
		l.become(silent)
		pass(OwnerEvery + time.Second) // a renewal is under way
		began := time.Now()
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			o.Close()
		}()
		synctest.Wait()
		if o.Held() {
			t.Error("it is held while it is closed")
		}
		<-closed
		if took := time.Since(began); took > OwnerEvery+2*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}
