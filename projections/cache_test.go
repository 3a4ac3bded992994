package projections

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"os"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"llm-gateway/domain"
)

const cacheShards = 8

// caches are what the suite runs on: the embedded Redis, the same as a cluster of one server, and the
// real one at REDIS_URL, which other tests use at the same time.
var caches = map[string]func(t *testing.T) *Cache{
	"embedded": func(t *testing.T) *Cache {
		return openCache(t, "redis://"+miniredis.RunT(t).Addr())
	},
	"cluster": func(t *testing.T) *Cache {
		addr := miniredis.RunT(t).Addr()
		return openCache(t, "redis://"+addr+","+addr)
	},
	"real": func(t *testing.T) *Cache {
		if os.Getenv("REDIS_URL") == "" {
			t.Skip("REDIS_URL is not set: run `make test-real`")
		}
		return openCache(t, os.Getenv("REDIS_URL"))
	},
}

// openCache makes the cache of a ledger that no other test has. It has patience, unlike that of a
// gateway: the machine may be busy with other tests.
func openCache(t testing.TB, url string) *Cache {
	t.Helper()
	options, err := redisOptions(url)
	if err != nil {
		t.Fatal(err)
	}
	options.DialTimeout, options.ReadTimeout, options.WriteTimeout, options.PoolTimeout = time.Minute, time.Minute, time.Minute, time.Minute
	client := newRedis(options)
	t.Cleanup(func() { client.Close() })
	return NewCache(client, uuid.New(), cacheShards)
}

// openQuickCache is openCache as a gateway has it.
func openQuickCache(t testing.TB, url string) *Cache {
	t.Helper()
	client, err := OpenRedis(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return NewCache(client, uuid.New(), cacheShards)
}

func onEachCache(t *testing.T, test func(t *testing.T, c *Cache)) {
	t.Helper()
	t.Parallel()
	for name, open := range caches {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

// balanceAt is a balance that tells by its amount where it is from.
func balanceAt(account string, epoch, seq int64) Balance {
	return Balance{
		Account: account, Epoch: epoch, Position: domain.Position{Shard: domain.ShardOf(account, cacheShards), Seq: seq},
		Available: domain.MustAmount("1").Times(seq).Add(domain.MustAmount("0.000000001").Times(epoch % 1000)),
		Reserved:  domain.MustAmount("0.000000000001").Times(seq % 1000),
		Frozen:    seq%2 == 1,
	}
}

// cached is what the cache must say after a put.
func cached(b Balance) domain.CachedBalance {
	return domain.CachedBalance{Spendable: b.Available.Add(b.CreditLimit), Available: b.Available, Reserved: b.Reserved,
		Frozen: b.Frozen, Position: b.Position, Epoch: b.Epoch}
}

func same(a, b domain.CachedBalance) bool {
	return a.Spendable.Equal(b.Spendable) && a.Available.Equal(b.Available) && a.Reserved.Equal(b.Reserved) && a.Frozen == b.Frozen && a.Position == b.Position && a.Epoch == b.Epoch
}

type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

func put(t fataler, c *Cache, balances ...Balance) {
	t.Helper()
	if err := c.Put(context.Background(), balances); err != nil {
		t.Fatalf("Put: %v", err)
	}
}

func wantCached(t fataler, c *Cache, account string, want domain.CachedBalance) {
	t.Helper()
	got, found, err := c.Balance(context.Background(), account)
	if err != nil || !found || !same(got, want) {
		t.Fatalf("the cache knows %+v, %t, %v of %s, not %+v", got, found, err, account, want)
	}
}

func wantNothing(t fataler, c *Cache, account string) {
	t.Helper()
	if got, found, err := c.Balance(context.Background(), account); err != nil || found {
		t.Fatalf("the cache knows %+v, %t, %v of %s", got, found, err, account)
	}
}

func TestCacheKeeps(t *testing.T) {
	onEachCache(t, func(t *testing.T, c *Cache) {
		wantNothing(t, c, "alice")
		amount := domain.MustAmount
		for spendable, b := range map[string]Balance{
			"0":                     {},
			"12.3":                  {Available: amount("12.3")},
			"7.5":                   {Available: amount("-2.5"), CreditLimit: amount("10")},
			"-3":                    {Available: amount("-3")},
			"0.000000001":           {Available: amount("0.000000001999")},
			"-0.000000001":          {Available: amount("-0.000000000001")},
			"-1.000000001":          {Available: amount("-1.000000000001")},
			"9007199254740993":      {Available: amount("9007199254740993")}, // 2^53 + 1
			"100000000000000000000": {Available: amount("99999999999999999999.999999999999"), CreditLimit: amount("0.000000000001")},
			// What the columns can hold at most, and the sum of two of those.
			"99999999999999999999999999.999999999":  {Available: amount("99999999999999999999999999.999999999999")},
			"199999999999999999999999999.999999999": {Available: amount("99999999999999999999999999.999999999999"), CreditLimit: amount("99999999999999999999999999.999999999999")},
			"-100000000000000000000000000":          {Available: amount("-99999999999999999999999999.999999999999")},
		} {
			account := "a" + strings.TrimPrefix(spendable, "-") + strconv.Itoa(len(spendable))
			b.Reserved = b.CreditLimit // as exact as any
			b.Account, b.Epoch, b.Position, b.Frozen = account, math.MaxInt64, domain.Position{Shard: 3, Seq: math.MaxInt64}, len(account)%2 == 0
			put(t, c, b)
			got, found, err := c.Balance(t.Context(), account)
			if err != nil || !found || got.Spendable.String() != spendable || !got.Available.Equal(b.Available) || !got.Reserved.Equal(b.Reserved) || got.Frozen != b.Frozen ||
				got.Position != (domain.Position{Shard: domain.ShardOf(account, cacheShards), Seq: math.MaxInt64}) || got.Epoch != b.Epoch {
				t.Errorf("%s became %+v, %t, %v", spendable, got, found, err)
			}
		}
	})
}

// TestCacheOrder: what is there gives way to what is newer, and to nothing else.
func TestCacheOrder(t *testing.T) {
	const big53, most = int64(1) << 53, int64(math.MaxInt64)
	onEachCache(t, func(t *testing.T, c *Cache) {
		for i, tt := range []struct {
			had, put [2]int64 // epoch and seq
			replaced bool
		}{
			{[2]int64{0, 1}, [2]int64{0, 2}, true},
			{[2]int64{0, 2}, [2]int64{0, 1}, false},
			{[2]int64{0, 9}, [2]int64{0, 10}, true},
			{[2]int64{0, 10}, [2]int64{0, 9}, false},
			{[2]int64{0, 1000}, [2]int64{1, 1}, true},
			{[2]int64{1, 1}, [2]int64{0, 1000}, false},
			{[2]int64{9, 1}, [2]int64{10, 1}, true},
			{[2]int64{10, 1}, [2]int64{9, 5}, false},
			{[2]int64{0, big53}, [2]int64{0, big53 + 1}, true},
			{[2]int64{0, big53 + 1}, [2]int64{0, big53}, false},
			{[2]int64{0, most - 1}, [2]int64{0, most}, true},
			{[2]int64{0, most}, [2]int64{0, most - 1}, false},
			{[2]int64{big53 + 1, 1}, [2]int64{big53, most}, false},
			{[2]int64{big53, most}, [2]int64{big53 + 1, 1}, true},
		} {
			account := fmt.Sprint("account-", i)
			had, next := balanceAt(account, tt.had[0], tt.had[1]), balanceAt(account, tt.put[0], tt.put[1])
			put(t, c, had)
			put(t, c, next)
			put(t, c, had)
			if want := had; tt.replaced {
				wantCached(t, c, account, cached(next))
			} else {
				wantCached(t, c, account, cached(want))
			}
		}
	})
}

// edges are where comparing numbers goes wrong.
var edges = []int64{0, 1, 2, 9, 10, 11, 99, 100, 1<<53 - 1, 1 << 53, 1<<53 + 1, 1<<53 + 2, math.MaxInt64 - 1, math.MaxInt64}

func genPlaces(t *rapid.T) (out []Balance) {
	n := rapid.IntRange(1, 12).Draw(t, "puts")
	for range n {
		out = append(out, balanceAt("alice", rapid.SampledFrom(edges).Draw(t, "epoch"), rapid.SampledFrom(edges).Draw(t, "seq")))
	}
	return out
}

func compare(a, b Balance) int {
	return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Position.Seq, b.Position.Seq))
}

// TestCacheConverges: in whatever order, at the same moment, together or one by one: the highest stays.
func TestCacheConverges(t *testing.T) {
	onEachCache(t, func(t *testing.T, c *Cache) {
		rapid.Check(t, func(rt *rapid.T) {
			clearCache(rt, c)
			balances := genPlaces(rt)
			highest := balances[0]
			for _, b := range balances {
				if compare(b, highest) > 0 {
					highest = b
				}
			}
			if rapid.Bool().Draw(rt, "together") {
				put(rt, c, balances...)
			} else {
				var wait sync.WaitGroup
				failed := make([]error, len(balances))
				for i, b := range balances {
					wait.Go(func() { failed[i] = c.Put(context.Background(), []Balance{b, b}) })
				}
				wait.Wait()
				for _, err := range failed {
					if err != nil {
						rt.Fatal(err)
					}
				}
			}
			wantCached(rt, c, "alice", cached(highest))
		})
	})
}

// clearCache is what FLUSHALL does to this cache, without doing it to the other tests'.
func clearCache(t fataler, c *Cache) {
	t.Helper()
	if err := c.client.Del(context.Background(), c.key("alice")).Err(); err != nil {
		t.Fatalf("DEL: %v", err)
	}
}

func TestCacheIsCleared(t *testing.T) {
	onEachCache(t, func(t *testing.T, c *Cache) {
		put(t, c, balanceAt("alice", 1, 5))
		clearCache(t, c)
		wantNothing(t, c, "alice")
		put(t, c, balanceAt("alice", 0, 4)) // whatever comes first is better than nothing
		wantCached(t, c, "alice", cached(balanceAt("alice", 0, 4)))
		put(t, c, balanceAt("alice", 1, 5))
		wantCached(t, c, "alice", cached(balanceAt("alice", 1, 5)))
		if err := c.client.ScriptFlush(t.Context()).Err(); err != nil { // a restart forgets scripts, too
			t.Fatal(err)
		}
		put(t, c, balanceAt("alice", 1, 6), balanceAt("bob", 1, 2), balanceAt("alice", 1, 7))
		wantCached(t, c, "alice", cached(balanceAt("alice", 1, 7)))
		wantCached(t, c, "bob", cached(balanceAt("bob", 1, 2)))
	})
}

// oddNumbers are texts that some parser or other takes for an integer, and those at the bounds.
var oddNumbers = []string{
	"", "-", "0", "-0", "00", "007", "-007", "+1", "-1", "1.0", "1e3", "0x10", "1_0", " 1", "1 ", "1\n", "1\x00", "\x001", "nan", "inf",
	"9223372036854775806", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "10000000000000000000",
	strings.Repeat("9", 36), strings.Repeat("9", 37), strings.Repeat("9", 38), "-" + strings.Repeat("9", 38), strings.Repeat("9", 39), "-" + strings.Repeat("9", 36), "-1" + strings.Repeat("0", 36), strings.Repeat("1", 400), "１",
}

// TestCacheGarbage: whatever is at the key, it is either a balance for both who puts and who reads,
// or nothing for both. What only one of them took for a balance would stay, and never be found.
func TestCacheGarbage(t *testing.T) {
	number := rapid.OneOf(rapid.Int64().AsAny(), rapid.Uint64().AsAny(), rapid.SampledFrom(oddNumbers).AsAny(), rapid.String().AsAny())
	onEachCache(t, func(t *testing.T, c *Cache) {
		ctx, key := context.Background(), c.key("alice")
		rapid.Check(t, func(rt *rapid.T) {
			clearCache(rt, c)
			var err error
			switch rapid.IntRange(0, 7).Draw(rt, "what") {
			case 0:
				err = c.client.Set(ctx, key, fmt.Sprint(number.Draw(rt, "text")), 0).Err()
			case 1:
				err = c.client.RPush(ctx, key, "1", "2").Err()
			case 2:
				err = c.client.SAdd(ctx, key, "epoch").Err()
			case 3:
				err = c.client.ZAdd(ctx, key, redis.Z{Score: 1, Member: "seq"}).Err()
			default:
				// A balance in which one or two fields are not as they were.
				for i, value := range []any{"5", "9", "-12", "1", "-2000", "0"} {
					switch rapid.IntRange(0, 5).Draw(rt, cacheFields[i]) {
					case 0:
						value = number.Draw(rt, "value")
					case 1:
						value = rapid.SampledFrom(oddNumbers).Draw(rt, "odd")
					case 2:
						continue
					}
					err = errors.Join(err, c.client.HSet(ctx, key, cacheFields[i], fmt.Sprint(value)).Err())
				}
			}
			if err != nil {
				rt.Fatal(err)
			}
			before, found, err := c.Balance(ctx, "alice")
			if err != nil {
				rt.Fatal(err)
			}
			b := balanceAt("alice", rapid.SampledFrom(edges).Draw(rt, "epoch"), rapid.SampledFrom(edges).Draw(rt, "seq"))
			put(rt, c, b)
			want := cached(b)
			if found && cmp.Or(cmp.Compare(before.Epoch, want.Epoch), cmp.Compare(before.Position.Seq, want.Position.Seq)) > 0 {
				want = before
			}
			wantCached(rt, c, "alice", want)
		})
	})
}

// TestCacheOddNumbers is TestCacheGarbage for each field and each text.
func TestCacheOddNumbers(t *testing.T) {
	onEachCache(t, func(t *testing.T, c *Cache) {
		for _, field := range cacheFields {
			for _, text := range oddNumbers {
				values := map[string]string{"epoch": "5", "seq": "9", "spendable": "-12", "frozen": "1", "available": "-2000", "reserved": "0"}
				values[field] = text
				clearCache(t, c)
				if err := c.client.HSet(t.Context(), c.key("alice"), values).Err(); err != nil {
					t.Fatal(err)
				}
				want, found, err := c.Balance(t.Context(), "alice")
				if err != nil {
					t.Fatal(err)
				}
				if !found || want.Epoch == 0 {
					want = cached(balanceAt("alice", 0, 10))
				}
				put(t, c, balanceAt("alice", 0, 10))
				if got, found, err := c.Balance(t.Context(), "alice"); err != nil || !found || !same(got, want) {
					t.Errorf("with %s %q: %+v, %t, %v, not %+v", field, text, got, found, err, want)
				}
			}
		}
	})
}

func TestCacheLife(t *testing.T) {
	onEachCache(t, func(t *testing.T, c *Cache) {
		ctx, key := t.Context(), c.key("alice")
		life := func() time.Duration {
			left, err := c.client.PTTL(ctx, key).Result()
			if err != nil {
				t.Fatal(err)
			}
			return left
		}
		shorten := func() {
			if err := c.client.Expire(ctx, key, time.Hour).Err(); err != nil {
				t.Fatal(err)
			}
		}
		put(t, c, balanceAt("alice", 0, 5))
		if left := life(); left < cacheLife-time.Minute || left > cacheLife {
			t.Errorf("it lives for %s", left)
		}
		shorten()
		put(t, c, balanceAt("alice", 0, 5)) // the same again
		if left := life(); left < cacheLife-time.Minute {
			t.Errorf("put again, it lives for %s", left)
		}
		shorten()
		put(t, c, balanceAt("alice", 0, 4))
		if left := life(); left > time.Hour {
			t.Errorf("what was not put lives for %s", left)
		}
	})
}

// TestCacheManyAtOnce: more than a pipeline takes, with some that cannot be put among them.
func TestCacheManyAtOnce(t *testing.T) {
	onEachCache(t, func(t *testing.T, c *Cache) {
		var balances []Balance
		for i := range 5*cacheBatch + 7 {
			balances = append(balances, balanceAt(fmt.Sprint("account-", i), 1, int64(i+1)))
		}
		rand.Shuffle(len(balances), reflect.Swapper(balances))
		put(t, c, balances...)
		for _, b := range balances {
			wantCached(t, c, b.Account, cached(b))
		}
		huge := domain.MustAmount("90000000000000000000000000").Times(math.MaxInt64)
		for name, b := range map[string]Balance{
			"no account":   balanceAt("", 0, 1),
			"a brace":      balanceAt("a}b", 0, 1),
			"epoch":        balanceAt("alice", -1, 1),
			"seq":          balanceAt("alice", 0, -1),
			"out of range": {Account: "alice", Available: huge},
			"far below":    {Account: "alice", Available: huge.Neg()},
			"reserved":     {Account: "alice", Reserved: huge},
		} {
			if err := c.Put(t.Context(), []Balance{balanceAt("bob", 0, 1), b, balanceAt("carol", 0, 1)}); err == nil {
				t.Errorf("%s: put", name)
			}
			wantNothing(t, c, b.Account)
			wantCached(t, c, "bob", cached(balanceAt("bob", 0, 1)))
			wantCached(t, c, "carol", cached(balanceAt("carol", 0, 1)))
		}
		put(t, c)
	})
}

// TestSpendableUnits holds the rounding against exact fractions: units x 1e-9 is not above the
// amount, and one unit more is.
func TestSpendableUnits(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,12})?`).Draw(t, "amount")
		a := domain.MustAmount(text)
		if rapid.Bool().Draw(t, "sum") {
			text2 := rapid.StringMatching(`(0|[1-9][0-9]{0,25})(\.[0-9]{1,12})?`).Draw(t, "limit")
			a = a.Add(domain.MustAmount(text2))
		}
		exact, ok := new(big.Rat).SetString(a.String())
		units, ok2 := new(big.Int).SetString(floorUnits(a, spendableScale).String(), 10)
		if !ok || !ok2 {
			t.Fatalf("%s became %q", a, floorUnits(a, spendableScale).String())
		}
		step := big.NewRat(1, 1_000_000_000)
		low := new(big.Rat).Mul(new(big.Rat).SetInt(units), step)
		if low.Cmp(exact) > 0 || new(big.Rat).Add(low, step).Cmp(exact) <= 0 {
			t.Fatalf("%s became %s units", a, units)
		}
		back, ok := parseUnits(units.String(), spendableDigits, spendableScale)
		if got, _ := new(big.Rat).SetString(back.String()); !ok || got.Cmp(low) != 0 {
			t.Fatalf("%s units are read as %s", units, back)
		}
	})
}

// TestCacheKeys: all keys of an account are in one slot of a cluster, and accounts are spread.
func TestCacheKeys(t *testing.T) {
	t.Parallel()
	if slot("123456789") != 0x31c3 {
		t.Fatal("this is not the cluster's CRC-16")
	}
	c := NewCache(nil, uuid.MustParse("01234567-89ab-4def-8123-456789abcdef"), cacheShards)
	if got, want := c.key("org:alice@example.com"), "llmgw:01234567:{org:alice@example.com}:balance"; got != want {
		t.Errorf("the key is %s, not %s", got, want)
	}
	used := map[uint16]bool{}
	for i := range 200 {
		account := fmt.Sprint("account-", i)
		if slot(c.key(account)) != slot("other:{"+account+"}:key") || slot(c.key(account)) != slot(account) {
			t.Errorf("%s is not in its account's slot", c.key(account))
		}
		used[slot(account)] = true
	}
	if len(used) < 150 {
		t.Errorf("200 accounts are in %d slots", len(used))
	}
}

// slot is a key's in a Redis cluster: CRC-16 (XMODEM) of what is in the first braces.
func slot(key string) uint16 {
	if _, after, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(after, "}"); ok && tag != "" {
			key = tag
		}
	}
	crc := uint16(0)
	for i := range len(key) {
		crc ^= uint16(key[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc % 16384
}
