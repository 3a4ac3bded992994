package limit_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"llm-gateway/domain"
	"llm-gateway/gateway/limit"
	"llm-gateway/projections"
)

// store is what takes from limits: memory and Redis pass the same suite.
type store interface {
	admit(t fataler, a domain.RateAsk) (own, all domain.RateTaken)
	adjust(t fataler, a domain.RateAdjustment)
	// pass lets time pass; 0 where the clock is not the test's.
	pass(d time.Duration) bool
}

type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

type inMemory struct {
	*limit.Memory
	now *atomic.Int64
}

func (m inMemory) admit(_ fataler, a domain.RateAsk) (own, all domain.RateTaken) {
	return m.TakeOwn(&a, m.now.Load()), m.TakeAll(&a, m.now.Load())
}

func (m inMemory) adjust(_ fataler, a domain.RateAdjustment) { m.Adjust(&a, m.now.Load()) }

func (m inMemory) pass(d time.Duration) bool { m.now.Add(d.Milliseconds()); return true }

type inRedis struct {
	*projections.Cache
	clock func(d time.Duration) bool
}

// storeTime is the patience of tests, for a machine that is busy.
const storeTime = 30 * time.Second

func (r inRedis) admit(t fataler, a domain.RateAsk) (own, all domain.RateTaken) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), storeTime)
	defer cancel()
	out := r.Admit(ctx, &a, false)
	if out.Own.Err != nil || out.All.Err != nil {
		t.Fatalf("%v, %v", out.Own.Err, out.All.Err)
	}
	return out.Own, out.All
}

func (r inRedis) adjust(t fataler, a domain.RateAdjustment) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), storeTime)
	defer cancel()
	if err := r.Adjust(ctx, []domain.RateAdjustment{a}); err != nil {
		t.Fatalf("%v", err)
	}
}

func (r inRedis) pass(d time.Duration) bool { return r.clock(d) }

// openCache is a cache of a ledger that no other test has. It has patience, unlike that of a gateway: the
// machine may be busy with other tests.
func openCache(t testing.TB, url string) *projections.Cache {
	t.Helper()
	addrs := strings.TrimPrefix(url, "redis://")
	options := &redis.UniversalOptions{Addrs: strings.Split(addrs, ","), ReadTimeout: storeTime, WriteTimeout: storeTime, PoolTimeout: storeTime, DialTimeout: storeTime}
	if one, err := redis.ParseURL(url); err == nil && len(options.Addrs) == 1 {
		options.Addrs, options.DB, options.Username, options.Password, options.TLSConfig = []string{one.Addr}, one.DB, one.Username, one.Password, one.TLSConfig
	}
	client := redis.NewUniversalClient(options)
	t.Cleanup(func() { client.Close() }) //nolint:errcheck // the test has ended
	return projections.NewCache(client, uuid.New(), 8)
}

func embedded(t testing.TB, url func(addr string) string) store {
	server := miniredis.RunT(t)
	now := time.UnixMilli(1_764_000_000_000)
	server.SetTime(now)
	var mu sync.Mutex
	return inRedis{openCache(t, url(server.Addr())), func(d time.Duration) bool {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(d)
		server.SetTime(now)
		if d > 0 {
			server.FastForward(d) // lives end, too
		}
		return true
	}}
}

var stores = map[string]func(t testing.TB) store{
	"memory": func(testing.TB) store {
		m := inMemory{limit.NewMemory(1000), new(atomic.Int64)}
		m.now.Store(1_764_000_000_000)
		return m
	},
	"embedded": func(t testing.TB) store { return embedded(t, func(addr string) string { return "redis://" + addr }) },
	"cluster": func(t testing.TB) store {
		return embedded(t, func(addr string) string { return "redis://" + addr + "," + addr })
	},
	"real": func(t testing.TB) store {
		if os.Getenv("REDIS_URL") == "" {
			t.Skip("REDIS_URL is not set: run `make test-real`")
		}
		return inRedis{openCache(t, os.Getenv("REDIS_URL")), func(time.Duration) bool { return false }}
	},
}

func onEach(t *testing.T, test func(t *testing.T, s store)) {
	t.Helper()
	t.Parallel()
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

// ask is one request of an account; its quotas are the account's, its key's and everybody's.
func ask(account, key string, tokens int64, quotas ...domain.Quotas) domain.RateAsk {
	a := domain.RateAsk{Account: account, Key: key, Want: domain.OneRequest(tokens)}
	copy(a.Quotas[:], quotas)
	return a
}

// hourly are so many requests an hour: none comes back while a test runs.
func hourly(n int64) domain.Quotas { return domain.Quotas{domain.RequestsHour: n} }

// TestExactly: of many requests at once as many come through as the limit says, the account's, the key's, and
// everybody's.
func TestExactly(t *testing.T) {
	onEach(t, func(t *testing.T, s store) {
		for name, c := range map[string]struct {
			ask  func(i int) domain.RateAsk
			want int64
		}{
			"an account's minute": {func(int) domain.RateAsk { return ask("minute", "", 0, domain.Quotas{domain.RequestsMinute: 1}) }, 1},
			"an account's hour":   {func(int) domain.RateAsk { return ask("hour", "", 0, hourly(17)) }, 17},
			"a key's":             {func(int) domain.RateAsk { return ask("keyed", "k1", 0, hourly(100), hourly(5)) }, 5},
			"two keys'": {func(i int) domain.RateAsk {
				return ask("keys", fmt.Sprint("k", i%2), 0, hourly(8), hourly(5))
			}, 8},
			"everybody's": {func(i int) domain.RateAsk {
				return ask(fmt.Sprint("many", i), "", 0, hourly(1), domain.Quotas{}, hourly(11))
			}, 11},
			"no limits": {func(int) domain.RateAsk { return ask("free", "", 0) }, 64},
		} {
			var through atomic.Int64
			var wait sync.WaitGroup
			for i := range 64 {
				wait.Go(func() {
					if own, all := s.admit(t, c.ask(i)); own.Fits && all.Fits {
						through.Add(1)
					}
				})
			}
			if wait.Wait(); through.Load() != c.want {
				t.Errorf("%s: %d came through, not %d", name, through.Load(), c.want)
			}
		}
	})
}

// TestAllOrNothing: a request that the key's limit refuses takes nothing of the account's, and the other way
// round; nor one that is too large in tokens.
func TestAllOrNothing(t *testing.T) {
	onEach(t, func(t *testing.T, s store) {
		tight := ask("alice", "k", 0, hourly(3), hourly(1))
		for i := range 10 {
			if own, _ := s.admit(t, tight); own.Fits != (i == 0) {
				t.Fatalf("request %d: %+v", i, own)
			}
		}
		large := ask("alice", "", 101, domain.Quotas{0, 3, 100})
		if own, _ := s.admit(t, large); own.Fits {
			t.Fatalf("101 tokens of 100: %+v", own)
		}
		for i := range 4 {
			own, _ := s.admit(t, ask("alice", "", 1, domain.Quotas{0, 3, 100}))
			if own.Fits != (i < 2) {
				t.Fatalf("request %d of the two that are left: %+v", i, own)
			}
			if left := (domain.Limit{Most: 3, Period: 3_600_000}).Remaining(own.Levels[domain.RateAccount][domain.RequestsHour].Used); left != max(1-int64(i), 0) {
				t.Fatalf("request %d: %d are left", i, left)
			}
		}
	})
}

// TestGiveBack: tokens that were not used are there again, and never more than the limit; those that were used
// beyond what was taken are missed.
func TestGiveBack(t *testing.T) {
	onEach(t, func(t *testing.T, s store) {
		q := domain.Quotas{domain.TokensMinute: 1_000_000_000}
		l, _ := q.Limit(domain.TokensMinute)
		left := func(own domain.RateTaken) float64 { // in parts of the limit: it drains meanwhile
			return float64(l.Remaining(own.Levels[domain.RateAccount][domain.TokensMinute].Used)) / float64(l.Most)
		}
		most := ask("alice", "", l.Most, q)
		if own, _ := s.admit(t, most); !own.Fits || left(own) > 0.01 {
			t.Fatalf("%+v", own)
		}
		if own, _ := s.admit(t, most); own.Fits {
			t.Fatalf("twice: %+v", own)
		}
		back := domain.RateAdjustment{Ask: most, Own: domain.Quantities{domain.TokensMinute: -l.Most / 2}}
		s.adjust(t, back)
		own, _ := s.admit(t, ask("alice", "", 0, q))
		if part := left(own); part < 0.5 || part > 0.9 {
			t.Fatalf("half was given back, and there is %f", part)
		}
		for range 3 {
			s.adjust(t, back)
		}
		if own, _ = s.admit(t, most); !own.Fits || left(own) > 0.01 {
			t.Fatalf("all was given back and more: %+v", own)
		}
		s.adjust(t, domain.RateAdjustment{Ask: most, Own: domain.Quantities{domain.TokensMinute: 1 << 62}})
		if own, _ = s.admit(t, ask("alice", "", 0, q)); own.Fits {
			t.Fatalf("it is in debt: %+v", own)
		}
		if used := own.Levels[domain.RateAccount][domain.TokensMinute].Used; used > 2*l.Most*l.Period {
			t.Fatalf("its debt is %d", used)
		}
	})
}

// TestRefill: what drains is there again, on the store's own clock.
func TestRefill(t *testing.T) {
	onEach(t, func(t *testing.T, s store) {
		quick := ask("alice", "", 0, domain.Quotas{domain.RequestsMinute: 600}) // one each 100 ms
		through := 0
		for own, _ := s.admit(t, quick); own.Fits; own, _ = s.admit(t, quick) {
			through++
		}
		if through < 600 {
			t.Fatalf("%d", through)
		}
		began := time.Now()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for own, _ := s.admit(t, quick); !own.Fits; own, _ = s.admit(t, quick) {
			if !s.pass(time.Millisecond) {
				<-tick.C
			}
			if time.Since(began) > storeTime {
				t.Fatal("it does not come back")
			}
		}
	})
}

// TestSameAsDomain: whatever is asked and given back, and however the clock goes, every store holds what the
// rules in domain say.
func TestSameAsDomain(t *testing.T) {
	onEach(t, func(t *testing.T, s store) {
		if !s.pass(0) {
			t.Skip("its clock is its own")
		}
		run := 0
		rapid.Check(t, func(t *rapid.T) {
			run++
			now, account := int64(0), fmt.Sprint("account", run)
			most := rapid.OneOf(rapid.Int64Range(0, 20), rapid.SampledFrom([]int64{0, 7, 999_999_999, domain.MaxQuota}))
			q := domain.Quotas{most.Draw(t, "a minute"), most.Draw(t, "an hour"), most.Draw(t, "tokens")}
			var model domain.Levels
			for range rapid.IntRange(1, 10).Draw(t, "steps") {
				later := rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(-200_000, 200_000), rapid.Int64Range(0, 4_000_000)).Draw(t, "later")
				s.pass(time.Duration(later) * time.Millisecond)
				now += later
				quantity := rapid.OneOf(rapid.Int64Range(0, 30), rapid.Int64Range(-1<<40, 1<<40)).Draw(t, "tokens")
				if rapid.Bool().Draw(t, "adjusts") {
					a := domain.RateAdjustment{Ask: ask(account, "", 0, q), Own: domain.Quantities{domain.TokensMinute: quantity}}
					if s.adjust(t, a); !a.Nothing() {
						model = q.Adjust(model, now, a.Own)
					}
					continue
				}
				a := ask(account, "", quantity, q)
				own, _ := s.admit(t, a)
				var fits bool
				model, fits = q.Take(model, now, a.Want)
				if own.Fits != fits || usedOf(own.Levels[domain.RateAccount]) != usedOf(model) {
					t.Fatalf("%+v of %v: it says %v %v, the rules %v %v", a.Want, q, own.Fits, usedOf(own.Levels[domain.RateAccount]), fits, usedOf(model))
				}
			}
		})
	})
}

func usedOf(levels domain.Levels) (out [domain.Windows]int64) {
	for w := range levels {
		out[w] = levels[w].Used
	}
	return out
}
