package lease

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"llm-gateway/migrations/pgtest"
)

// bothWays runs a test on a direct connection, and on one as behind a transaction pooler.
func bothWays(t *testing.T, test func(t *testing.T, pool Pool)) {
	for name, pooled := range map[string]bool{"direct": false, "pooled": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, openPool(t, pgtest.URL(t), pooled))
		})
	}
}

// TestDeathAndRelease takes leases over from who died, and from who ended.
func TestDeathAndRelease(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, pool Pool) {
		r := newReferee(t)
		const n, term = 3, 2 * time.Second
		a := playFor(t, term, pool, uuid.New(), names(n), r.hold("a"))
		eventually(t, "a holds all", func() bool { return r.holds("a") == n })
		b := playFor(t, term, pool, uuid.New(), names(n), r.hold("b"))
		c := playFor(t, term, pool, uuid.New(), names(n), r.hold("c"))
		eventually(t, "b and c have asked", func() bool { return b.pool.count() > 5 && c.pool.count() > 5 })
		if got := r.holds("a"); got != n {
			t.Fatalf("a, alive, holds %d of %d", got, n)
		}

		a.pool.become(broken) // it cannot even give its leases up
		a.cancel()
		died := time.Now()
		<-a.ended
		eventually(t, "others hold all", func() bool { return r.holds("b")+r.holds("c") == n })
		if took := time.Since(died); took < term/2 {
			t.Errorf("they were taken over after %s: before their end", took)
		}

		b.end()
		eventually(t, "c holds all", func() bool { return r.holds("c") == n })
		c.end()
		var left int
		rows, err := pool.Query(t.Context(), `SELECT count(*) FROM ledger_leases`)
		if err == nil && rows.Next() {
			err = rows.Scan(&left)
			rows.Close()
		}
		if err != nil || left != 0 {
			t.Errorf("%d leases are left, %v", left, err)
		}
	})
}

// TestReleaseIsAtOnce does not wait for a lease's end where its holder has ended.
func TestReleaseIsAtOnce(t *testing.T) {
	t.Parallel()
	pool, r := openPool(t, pgtest.URL(t), false), newReferee(t)
	long := &Keeper{Pool: pool, Owner: uuid.New(), Term: time.Hour, Every: testEvery}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		long.Run(ctx, names(2), r.hold("long"))
	}()
	eventually(t, "the first holds both", func() bool { return r.holds("long") == 2 })
	play(t, pool, uuid.New(), names(2), r.hold("b"))
	cancel()
	<-ended
	eventually(t, "the second holds both", func() bool { return r.holds("b") == 2 })
}

// TestPostgresAway wants a hold to end before its lease does, however Postgres is away, and to begin
// again when it is back.
func TestPostgresAway(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]state{"refusing": broken, "silent": silent, "frozen": frozen} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReferee(t)
			ends := make(chan time.Time, 100)
			why := make(chan error, 100)
			a := play(t, openPool(t, pgtest.URL(t), false), uuid.New(), names(1), func(ctx context.Context, name string) error {
				err := r.hold("a")(ctx, name)
				ends <- time.Now()
				why <- err
				return err
			})
			for range 3 {
				eventually(t, "it holds", func() bool { return r.holds("a") == 1 })
				a.pool.become(s)
				end := <-ends
				if after := end.Sub(a.pool.last()); after < testTerm/2 || after > 2*testTerm {
					t.Errorf("the hold ended %s after the last renewal began", after)
				}
				if err := <-why; !errors.Is(err, ErrLost) {
					t.Errorf("it ended because of %v", err)
				}
				a.pool.become(well)
			}
			eventually(t, "it holds again", func() bool { return r.holds("a") == 1 })
		})
	}
}

// TestOverlap lets keepers die, freeze and be cut off at random while the referee looks.
func TestOverlap(t *testing.T) {
	t.Parallel()
	const keepers, n = 4, 5
	pool, r := openPool(t, pgtest.URL(t), false), newReferee(t)
	var players []*player
	for i := range keepers {
		players = append(players, play(t, pool, uuid.New(), names(n), r.hold(string(rune('a'+i)))))
	}
	total := func() (sum int) {
		for i := range keepers {
			sum += r.holds(string(rune('a' + i)))
		}
		return sum
	}
	for i := range 6 {
		eventually(t, "all are held", func() bool { return total() == n })
		for j, p := range players {
			if r.holds(string(rune('a'+j))) > 0 {
				p.pool.become([]state{broken, silent, frozen}[i%3])
			}
		}
		eventually(t, "all are held by another", func() bool {
			moved := 0
			for j, p := range players {
				p.pool.mu.Lock()
				if p.pool.state == well {
					moved += r.holds(string(rune('a' + j)))
				}
				p.pool.mu.Unlock()
			}
			return moved == n
		})
		for _, p := range players {
			p.pool.become(well)
		}
	}
}

// TestSameOwner starts again, as the same owner, after an end that gave nothing up.
func TestSameOwner(t *testing.T) {
	t.Parallel()
	const long = 10 * time.Second
	pool, r, owner := openPool(t, pgtest.URL(t), false), newReferee(t), uuid.New()
	a := playFor(t, long, pool, owner, names(2), r.hold("a"))
	eventually(t, "it holds", func() bool { return r.holds("a") == 2 })
	a.pool.become(broken)
	a.cancel()
	<-a.ended
	again := time.Now()
	playFor(t, long, pool, owner, names(2), r.hold("again"))
	eventually(t, "it holds again", func() bool { return r.holds("again") == 2 })
	if took := time.Since(again); took > long/2 {
		t.Errorf("it waited for its own leases: %s", took)
	}
}

// TestManyNames keeps many leases by one statement a round.
func TestManyNames(t *testing.T) {
	t.Parallel()
	const n, long = 1024, 10 * time.Second
	pool, r := openPool(t, pgtest.URL(t), false), newReferee(t)
	a := playFor(t, long, pool, uuid.New(), names(n), r.hold("a"))
	b := playFor(t, long, pool, uuid.New(), names(n), r.hold("b"))
	eventually(t, "all are held", func() bool { return r.holds("a")+r.holds("b") == n })
	before := a.pool.count() + b.pool.count()
	began := time.Now()
	eventually(t, "some rounds have passed", func() bool { return a.pool.count()+b.pool.count() >= before+20 })
	if took := time.Since(began); took < 8*testEvery {
		t.Errorf("20 statements of two keepers took %s: more than one a round", took)
	}
	if r.started("a")+r.started("b") != n {
		t.Errorf("%d and %d holds were started for %d leases", r.started("a"), r.started("b"), n)
	}
	a.end()
	eventually(t, "b holds all", func() bool { return r.holds("b") == n })
}

// TestHoldReturns starts a hold again, with and without an error, after pauses; one that keeps failing
// leaves the lease to another.
func TestHoldReturns(t *testing.T) {
	t.Parallel()
	t.Run("without an error", func(t *testing.T) {
		t.Parallel()
		r := newReferee(t)
		play(t, openPool(t, pgtest.URL(t), false), uuid.New(), names(1), func(ctx context.Context, name string) error {
			r.begin(ctx, "a", name)
			r.end("a", name)
			return nil
		})
		began := time.Now()
		eventually(t, "it was started four times", func() bool { return r.started("a") >= 4 })
		if took := time.Since(began); took < 3*firstPause {
			t.Errorf("three pauses took %s", took)
		}
	})
	t.Run("with errors for ever", func(t *testing.T) {
		t.Parallel()
		pool, r := openPool(t, pgtest.URL(t), false), newReferee(t)
		var failing atomic.Bool
		failing.Store(true)
		patient := func(who string) func(context.Context, string) error {
			return func(ctx context.Context, name string) error {
				if who == "a" && failing.Load() {
					r.begin(ctx, who, name)
					defer r.end(who, name)
					return errors.New("this process reaches nothing")
				}
				return r.hold(who)(ctx, name)
			}
		}
		play(t, pool, uuid.New(), names(1), patient("a"))
		eventually(t, "a has tried", func() bool { return r.started("a") > 0 })
		b := play(t, pool, uuid.New(), names(1), patient("b"))
		eventually(t, "b holds", func() bool { return r.holds("b") == 1 })
		if got := r.started("a"); got != patience {
			t.Errorf("a gave up after %d tries", got)
		}
		failing.Store(false)
		b.end()
		eventually(t, "a holds, now that it can", func() bool { return r.holds("a") == 1 })
	})
}

// TestRenewed wants to be told of each renewal, until when it lasts, and of leases that others have; and
// tries often while Postgres is away.
func TestRenewed(t *testing.T) {
	t.Parallel()
	const often = 2 * time.Millisecond
	pool := openPool(t, pgtest.URL(t), false)
	type told struct {
		names int
		until time.Time
	}
	var last atomic.Pointer[told]
	start := func(own *faultyPool, term time.Duration, renewed func([]string, time.Time)) {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		k := &Keeper{Pool: own, Owner: uuid.New(), Term: term, Every: testEvery, Retry: often, Renewed: renewed}
		go func() {
			defer close(ended)
			k.Run(ctx, names(2), newReferee(t).hold("it"))
		}()
		t.Cleanup(func() {
			own.become(well)
			cancel()
			<-ended
		})
	}
	own := newFaultyPool(pool)
	start(own, testTerm, func(names []string, until time.Time) { last.Store(&told{len(names), until}) })
	eventually(t, "it is told", func() bool { return last.Load() != nil })
	asked := own.last()
	if got := last.Load(); got.names != 2 || !got.until.After(asked) || got.until.After(time.Now().Add(testTerm)) {
		t.Errorf("told of %d leases until %s, asked for at %s", got.names, got.until, asked)
	}

	own.become(broken)
	before, began := own.count(), time.Now()
	eventually(t, "it has tried often", func() bool { return own.count() >= before+20 })
	if took := time.Since(began); took > 20*testEvery/4 {
		t.Errorf("20 tries took %s", took)
	}
	var others atomic.Bool
	start(newFaultyPool(pool), time.Hour, func(names []string, _ time.Time) { others.Store(len(names) == 2) })
	eventually(t, "another has them", others.Load)
	own.become(well)
	eventually(t, "it is told that it has none", func() bool { return last.Load().names == 0 })
}
