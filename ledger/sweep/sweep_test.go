package sweep

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"llm-gateway/domain"
	"llm-gateway/ledger"
	"llm-gateway/migrations/pgtest"
)

// leaseOf writes an owner's lease that lasts for an interval from now.
func leaseOf(t testing.TB, conn *pgx.Conn, owner uuid.UUID, lasts string) {
	t.Helper()
	mustExec(t, conn, `INSERT INTO ledger_leases (name, owner, until) VALUES ($1, $2, now() + $3::interval)
		ON CONFLICT (name) DO UPDATE SET until = excluded.until`, ownerLease(owner), owner.String(), lasts)
}

const expiredOne = "reserve:1 refund:1:expired"

// TestOrphans refunds what the dead left, once, with sweepers in two processes, directly and as behind a
// pooler; and nothing of the living or of what has been settled.
func TestOrphans(t *testing.T) {
	t.Parallel()
	for name, pooled := range map[string]bool{"direct": false, "pooled": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, url := postgresLedger(t)
			b := openLedger(t, url)
			pool, conn := openPool(t, url, pooled), asOwner(t, url)
			never, lapsed, alive := uuid.New(), uuid.New(), owned(t, pool, uuid.New())
			leaseOf(t, conn, lapsed, "-1 millisecond")
			orphans := map[uuid.UUID]string{}
			for i := range 20 {
				account := fmt.Sprint("account-", i)
				orphans[reserve(t, a, account, never, "1")] = account
				orphans[reserve(t, a, account, lapsed, "1")] = account
			}
			stream := reserve(t, a, "account-1", alive.id, "1")
			done := reserve(t, a, "account-1", never, "1")
			mustAppend(t, a, "account-1", settle(done, "0.25"))

			_, one := sweeper(t, openPool(t, url, pooled), a)
			_, two := sweeper(t, openPool(t, url, pooled), b)
			eventually(t, "all orphans were refunded", func() bool { return one.get(&one.swept)+two.get(&two.swept) >= len(orphans) })
			before := one.get(&one.acts) + two.get(&two.acts)
			eventually(t, "they have looked again", func() bool { return one.get(&one.acts)+two.get(&two.acts) > before+3 })
			for id, account := range orphans {
				if got := history(t, a.Reader, account, id); got != expiredOne {
					t.Errorf("an orphan: %s", got)
				}
			}
			if got := history(t, a.Reader, "account-1", stream); got != "reserve:1" {
				t.Errorf("a living owner's: %s", got)
			}
			if got := history(t, a.Reader, "account-1", done); got != "reserve:1 commit:0.25 refund:0.75:remainder" {
				t.Errorf("a settled one: %s", got)
			}
			if n := one.get(&one.swept) + two.get(&two.swept); n != len(orphans) {
				t.Errorf("%d refunds were counted", n)
			}
			wantClean(t, a.Reader)
		})
	}
}

// TestSweeperDies lets another one take over, with a count of its own.
func TestSweeperDies(t *testing.T) {
	t.Parallel()
	l, url := postgresLedger(t)
	pool := faulty(openPool(t, url, false))
	_, one := sweeper(t, pool, l)
	eventually(t, "the first sweeps", func() bool { return one.get(&one.acts) > 0 })
	pool.become(broken)
	id := reserve(t, l, "alice", uuid.New(), "1")
	began := time.Now()
	_, two := sweeper(t, openPool(t, url, false), l)
	eventually(t, "the second refunds", func() bool { return two.get(&two.swept) == 1 })
	if took := time.Since(began); took < quick.term {
		t.Errorf("it took %s, less than a term", took)
	}
	if got := history(t, l.Reader, "alice", id); got != expiredOne || one.get(&one.swept) != 0 {
		t.Errorf("%s; the first refunded %d", got, one.get(&one.swept))
	}
}

// TestNotBefore leaves a dead owner's reservations alone until its lease has run out, however long the
// sweeper has been ready, and while the sweeper has not seen Postgres for a whole term.
func TestNotBefore(t *testing.T) {
	t.Parallel()
	t.Run("its lease", func(t *testing.T) {
		t.Parallel()
		l, url := postgresLedger(t)
		conn, owner := asOwner(t, url), uuid.New()
		_, c := sweeper(t, openPool(t, url, false), l)
		eventually(t, "it is ready", func() bool { return c.get(&c.acts) > 0 })
		leaseOf(t, conn, owner, "1500 milliseconds")
		reserve(t, l, "alice", owner, "1")
		eventually(t, "it was refunded", func() bool { return c.get(&c.swept) == 1 })
		early := queryInt(t, conn, `SELECT count(*) FROM ledger_events e, ledger_leases l
			WHERE e.kind = 'refund' AND l.name LIKE 'owner:%' AND e.occurred_at < l.until`)
		if early != 0 {
			t.Error("it was refunded before its owner's lease ran out")
		}
	})
	t.Run("a whole term", func(t *testing.T) {
		t.Parallel()
		l, url := postgresLedger(t)
		reserve(t, l, "alice", uuid.New(), "1")
		_, c := sweeper(t, openPool(t, url, false), l)
		eventually(t, "it was refunded", func() bool { return c.get(&c.swept) == 1 })
		c.mu.Lock()
		defer c.mu.Unlock()
		if took := c.acted.Sub(c.first); took < quick.term || c.looks < 3 {
			t.Errorf("it acted %s after its first look, and %d more", took, c.looks)
		}
	})
}

// lapsed waits until an owner's lease has run out by Postgres's clock.
func lapsed(t testing.TB, conn *pgx.Conn, owners ...*Owner) {
	t.Helper()
	for _, o := range owners {
		eventually(t, "a lease has run out", func() bool {
			return queryInt(t, conn, `SELECT count(*) FROM ledger_leases WHERE name = $1 AND until >= now()`, ownerLease(o.id)) == 0
		})
		if o.Held() {
			t.Error("it is held though it has run out")
		}
	}
}

// outage is two gateways, and a sweeper, that Postgres can be taken away from.
type outage struct {
	l        *ledger.Postgres
	conn     *pgx.Conn
	owners   []*Owner
	pools    []*faultyPool // of the owners
	requests []uuid.UUID
	sweeps   *faultyPool
	sweeper  *counts
}

func newOutage(t *testing.T) *outage {
	l, url := postgresLedger(t)
	o := &outage{l: l, conn: asOwner(t, url), sweeps: faulty(openPool(t, url, false))}
	for i := range 2 {
		pool := faulty(openPool(t, url, false))
		o.pools = append(o.pools, pool)
		o.owners = append(o.owners, owned(t, pool, uuid.New()))
		t.Cleanup(func() { pool.become(well) }) // before they close
		o.requests = append(o.requests, reserve(t, l, fmt.Sprint("account-", i), o.owners[i].id, "1"))
	}
	slower := quick
	slower.term = 2 * time.Second // so that a slow machine has the time to do what the test wants within it
	_, o.sweeper = sweeperOf(t, slower, o.sweeps, l)
	t.Cleanup(func() { o.sweeps.become(well) })
	eventually(t, "the sweeper is ready", func() bool { return o.sweeper.get(&o.sweeper.acts) > 0 })
	return o
}

// holds waits until all owners hold their leases again, and the sweeper is ready again.
func (o *outage) holds(t *testing.T) {
	t.Helper()
	for _, owner := range o.owners {
		eventually(t, "it is held again", owner.Held)
	}
	acts := o.sweeper.get(&o.sweeper.acts)
	eventually(t, "the sweeper acts again", func() bool { return o.sweeper.get(&o.sweeper.acts) > acts+3 })
	for i, id := range o.requests {
		if got := history(t, o.l.Reader, fmt.Sprint("account-", i), id); got != "reserve:1" {
			t.Errorf("a living owner's: %s", got)
		}
	}
	if n := o.sweeper.get(&o.sweeper.swept); n != 0 {
		t.Errorf("%d were refunded", n)
	}
}

// TestOutage takes Postgres away for longer than a lease, in every way. When it is back, the sweeper
// sees only orphans; the owners renew first.
func TestOutage(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]state{"refusing": broken, "silent": silent, "frozen": frozen} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOutage(t)
			for _, p := range append(slices.Clone(o.pools), o.sweeps) {
				p.become(s)
			}
			lapsed(t, o.conn, o.owners...)
			acts, orphans := o.sweeper.get(&o.sweeper.acts), o.sweeper.get(&o.sweeper.orphans)
			o.sweeps.become(well)
			eventually(t, "the sweeper sees orphans", func() bool { return o.sweeper.get(&o.sweeper.orphans) > orphans+3 })
			for _, p := range o.pools {
				p.become(well)
			}
			if o.sweeper.get(&o.sweeper.acts) != acts {
				t.Fatal("it acts at once")
			}
			o.holds(t)
		})
	}
}

// TestWritesStall takes only writes away: looks go on, and see orphans everywhere. The sweeper's own
// lease ends first.
func TestWritesStall(t *testing.T) {
	t.Parallel()
	o := newOutage(t)
	for _, p := range append(slices.Clone(o.pools), o.sweeps) {
		p.become(readOnly)
	}
	lapsed(t, o.conn, o.owners...)
	for _, p := range append(slices.Clone(o.pools), o.sweeps) {
		p.become(well)
	}
	o.holds(t)
}

// TestLate settles what was swept: one overage, once.
func TestLate(t *testing.T) {
	t.Parallel()
	l, url := postgresLedger(t)
	id := reserve(t, l, "alice", uuid.New(), "4")
	_, c := sweeper(t, openPool(t, url, false), l)
	eventually(t, "it was refunded", func() bool { return c.get(&c.swept) == 1 })
	mustAppend(t, l, "alice", settle(id, "3"))
	_, err := l.Append(t.Context(), command("alice", settle(id, "3")))
	if r := new(domain.Rejection); !errors.As(err, &r) || r.Reason != domain.RejectAlreadySettled {
		t.Errorf("settled again: %v", err)
	}
	if got := history(t, l.Reader, "alice", id); got != "reserve:4 refund:4:expired overage:3:late" {
		t.Error(got)
	}
	if a, err := l.Account(t.Context(), "alice"); err != nil || a.Available.String() != "97" || !a.Reserved.IsZero() {
		t.Errorf("%+v, %v", a, err)
	}
	wantClean(t, l.Reader)
}

// TestRace lets two sweep at once, over two ledgers, without a lease, while owners come back and settle
// all: each reservation ends once, and the balances add up.
func TestRace(t *testing.T) {
	t.Parallel()
	a, url := postgresLedger(t)
	ledgers := []*ledger.Postgres{a, openLedger(t, url)}
	pool := openPool(t, url, false)
	kinds := map[string]int{}
	charged := 0
	for range 20 {
		if kinds[expiredOne+" overage:0.5:late"] > 0 && kinds["reserve:1 commit:0.5 refund:0.5:remainder"] > 0 {
			break
		}
		charged++
		race(t, ledgers, NewStore(pool), kinds)
	}
	t.Logf("%v", kinds)
	if len(kinds) != 2 {
		t.Errorf("they ended as %v", kinds)
	}
	for i := range raceAccounts {
		want := domain.MustAmount("100").Sub(domain.MustAmount("5").Times(int64(charged)))
		if got, err := a.Account(t.Context(), fmt.Sprint("account-", i)); err != nil || !got.Available.Equal(want) || !got.Reserved.IsZero() {
			t.Errorf("%+v, %v; available should be %s", got, err, want)
		}
	}
	wantClean(t, a.Reader)
}

const raceAccounts, raceEach = 30, 10

// race makes reservations of a dead owner, and lets sweepers and settlers at them.
func race(t *testing.T, ledgers []*ledger.Postgres, store Store, kinds map[string]int) {
	t.Helper()
	dead := uuid.New()
	requests := map[uuid.UUID]string{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range raceAccounts {
		all.Go(func() {
			for range raceEach {
				account := fmt.Sprint("account-", i)
				id := reserve(t, ledgers[0], account, dead, "1")
				mu.Lock()
				requests[id] = account
				mu.Unlock()
			}
		})
	}
	all.Wait()
	begun, once := make(chan struct{}), &sync.Once{}
	for _, l := range ledgers {
		all.Go(func() {
			times := quick
			times.term, times.act = 0, patiently // a second look may act, and for long
			r := &Rounds{Store: store, Ledger: l, Log: quiet, times: times}
			r.observed = func(acts bool, _ Look) {
				if acts {
					once.Do(func() { close(begun) })
				}
			}
			for range 3 {
				if _, err := r.Step(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	<-begun
	for id, account := range requests {
		all.Go(func() { mustAppend(t, ledgers[1], account, settle(id, "0.5")) })
	}
	all.Wait()
	for id, account := range requests {
		kinds[history(t, ledgers[0].Reader, account, id)]++
	}
}

// TestSweeperClose ends a sweeper amid everything, and leaves no lease behind.
func TestSweeperClose(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	pool := faulty(openPool(t, url, false))
	s, c := sweeper(t, pool, nil)
	eventually(t, "it looks", func() bool { return c.get(&c.looks) > 0 })
	s.Close()
	if n := queryInt(t, asOwner(t, url), `SELECT count(*) FROM ledger_leases`); n != 0 {
		t.Errorf("%d leases are left", n)
	}
	s, _ = sweeper(t, pool, nil)
	pool.become(silent)
	s.Close()
	if c.get(&c.failures) != 0 {
		t.Error("an end is told of as a failure")
	}
}
