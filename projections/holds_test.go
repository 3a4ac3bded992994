package projections

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"llm-gateway/domain"
	"llm-gateway/gateway"
	"llm-gateway/gateway/spooltest"
)

var _ gateway.Spool = (*Cache)(nil)

// knower puts balances into a cache, each newer than the one before.
type knower struct {
	*Cache
	seq atomic.Int64
}

func (k *knower) know(t fataler, account, spendable string, frozen bool) {
	t.Helper()
	put(t, k.Cache, Balance{Account: account, Available: domain.MustAmount(spendable), Frozen: frozen, Position: domain.Position{Seq: k.seq.Add(1)}})
}

func (k *knower) forget(t fataler, account string) {
	t.Helper()
	if err := k.client.Del(context.Background(), k.key(account)).Err(); err != nil {
		t.Fatalf("DEL: %v", err)
	}
}

func TestHolds(t *testing.T) {
	onEachCache(t, func(t *testing.T, c *Cache) {
		k := &knower{Cache: c}
		spooltest.Conform(t, spooltest.Subject{Spool: c,
			Know:   func(account, spendable string, frozen bool) { k.know(t, account, spendable, frozen) },
			Forget: func(account string) { k.forget(t, account) }})
	})
}

// TestHoldsOnCredit: what may be spent is the credit limit too.
func TestHoldsOnCredit(t *testing.T) {
	onEachCache(t, func(t *testing.T, c *Cache) {
		amount := domain.MustAmount
		put(t, c, Balance{Account: "alice", Available: amount("-2.5"), CreditLimit: amount("10"), Position: domain.Position{Seq: 1}})
		wantHeld(t, c, "7.5", "7.5")
		wantHeld(t, c, "0.000000001", "0.000000001 0")
	})
}

// wantHeld takes a hold for alice: want is what it needs and, where it is refused, what there is.
func wantHeld(t fataler, c *Cache, amount, want string) {
	t.Helper()
	err := c.Hold(context.Background(), "alice", uuid.New(), domain.MustAmount(amount))
	got, rejection := amount, new(domain.Rejection)
	if errors.As(err, &rejection) {
		got = rejection.Needed.String() + " " + rejection.Available.String()
	} else if err != nil {
		t.Fatalf("a hold of %s: %v", amount, err)
	}
	if got != want {
		t.Fatalf("a hold of %s: %s, want %s", amount, got, want)
	}
}

// TestHoldsAreRoundedUp: what is set aside is never less than what is due, and what there is never more.
func TestHoldsAreRoundedUp(t *testing.T) {
	onEachCache(t, func(t *testing.T, c *Cache) {
		put(t, c, Balance{Account: "alice", Available: domain.MustAmount("0.000000003999"), Position: domain.Position{Seq: 1}})
		wantHeld(t, c, "0.000000003001", "0.000000003001 0.000000003")
		wantHeld(t, c, "0.000000000001", "0.000000000001")
		id := uuid.New()
		if err := c.Hold(t.Context(), "alice", id, domain.MustAmount("0.000000001")); err != nil {
			t.Fatal(err)
		}
		wantHeld(t, c, "0.000000001001", "0.000000001001 0.000000001")
		if err := c.Charge(t.Context(), "alice", id, domain.MustAmount("0.000000000999")); err != nil {
			t.Fatal(err)
		}
		wantHeld(t, c, "0.000000001", "0.000000001")
		wantHeld(t, c, "0.000000000001", "0.000000000001 0")
	})
	rapid.Check(t, func(t *rapid.T) {
		a := domain.MustAmount(rapid.StringMatching(`(0|[1-9][0-9]{0,25})(\.[0-9]{1,12})?`).Draw(t, "amount"))
		exact, _ := new(big.Rat).SetString(a.String())
		units, ok := new(big.Rat).SetString(ceilUnits(a))
		if !ok {
			t.Fatalf("%s became %q", a, ceilUnits(a))
		}
		over := units.Mul(units, big.NewRat(1, 1_000_000_000)).Sub(units, exact)
		if over.Sign() < 0 || over.Cmp(big.NewRat(1, 1_000_000_000)) >= 0 {
			t.Fatalf("%s became %s units", a, ceilUnits(a))
		}
	})
}

// TestIntegers holds the scripts' arithmetic against math/big's.
func TestIntegers(t *testing.T) {
	script := redis.NewScript(integersText + `
		local a, b = ARGV[1], ARGV[2]
		if above(a, b) then return {'1', sum(a, b, 1), sum(a, b, -1)} end
		return {'0', sum(a, b, 1), sum(b, a, -1)}`)
	edges := rapid.SampledFrom([]string{"0", "1", "9", "10", "9999999", "10000000", "10000001", "99999999999999", "100000000000000", "9007199254740993",
		strings.Repeat("9", 36), "1" + strings.Repeat("0", 36), "8", "7777777", strings.Repeat("1", 35)})
	number := rapid.OneOf(edges, rapid.StringMatching(`0|[1-9][0-9]{0,40}`), rapid.StringMatching(`[1-9]0{0,30}[0-9]{0,8}`))
	onEachCache(t, func(t *testing.T, c *Cache) {
		rapid.Check(t, func(rt *rapid.T) {
			a, b := number.Draw(rt, "a"), number.Draw(rt, "b")
			got, err := script.Run(context.Background(), c.client, []string{c.key("alice")}, a, b).StringSlice()
			if err != nil {
				rt.Fatal(err)
			}
			x, _ := new(big.Int).SetString(a, 10)
			y, _ := new(big.Int).SetString(b, 10)
			more := "0"
			if x.Cmp(y) > 0 {
				more = "1"
			}
			difference := new(big.Int).Sub(x, y)
			want := []string{more, new(big.Int).Add(x, y).String(), difference.Abs(difference).String()}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				rt.Fatalf("%s and %s: %v, want %v", a, b, got, want)
			}
		})
	})
}

// TestHoldsArithmetic: of any balance and any holds, what is left is exact.
func TestHoldsArithmetic(t *testing.T) {
	digits := rapid.StringMatching(`(0|[1-9][0-9]{0,25})(\.[0-9]{1,9})?`)
	onEachCache(t, func(t *testing.T, c *Cache) {
		k := &knower{Cache: c}
		rapid.Check(t, func(rt *rapid.T) {
			account := "a-" + uuid.NewString()
			spendable := rapid.SampledFrom([]string{"", "", "", "-"}).Draw(rt, "sign") + digits.Draw(rt, "spendable")
			k.know(rt, account, spendable, false)
			left, _ := new(big.Rat).SetString(domain.MustAmount(spendable).String())
			for range rapid.IntRange(1, 6).Draw(rt, "holds") {
				amount := domain.MustAmount(digits.Draw(rt, "amount"))
				needs, _ := new(big.Rat).SetString(amount.String())
				err := c.Hold(context.Background(), account, uuid.New(), amount)
				rejection := new(domain.Rejection)
				switch affords := needs.Sign() == 0 || left.Cmp(needs) >= 0; {
				case affords && err != nil, !affords && !errors.As(err, &rejection):
					rt.Fatalf("a hold of %s of %s: %v", amount, left.FloatString(9), err)
				case !affords:
					if there, _ := new(big.Rat).SetString(rejection.Available.String()); there.Cmp(left) != 0 {
						rt.Fatalf("%s of %s is left, says %v", amount, left.FloatString(9), err)
					}
				default:
					left.Sub(left, needs)
				}
			}
		})
	})
}

// TestHoldsGarbage: whatever is at the keys, the script answers; what is no balance is not known, and what
// is no hold holds nothing and is cleared away. A total that can be read is believed.
func TestHoldsGarbage(t *testing.T) {
	onEachCache(t, func(t *testing.T, c *Cache) {
		ctx, k, key := context.Background(), &knower{Cache: c}, c.holdsKey("alice")
		odd := rapid.OneOf(rapid.SampledFrom(oddNumbers), rapid.String(), rapid.Just("-5"), rapid.Just("1e3"))
		rapid.Check(t, func(rt *rapid.T) {
			c.client.Del(ctx, key)
			k.know(rt, "alice", "1", false)
			valid := int64(0)
			switch rapid.IntRange(0, 5).Draw(rt, "what") {
			case 0:
				c.client.Set(ctx, key, odd.Draw(rt, "text"), 0)
			case 1:
				c.client.RPush(ctx, key, "1")
			default:
				for range rapid.IntRange(0, 4).Draw(rt, "holds") {
					value := rapid.SampledFrom([]string{"", "1", "100000000", "30000000"}).Draw(rt, "hold")
					if n, ok := new(big.Int).SetString(value, 10); ok {
						valid += n.Int64()
					} else {
						value = "x" + odd.Draw(rt, "odd")
					}
					c.client.HSet(ctx, key, uuid.NewString(), value)
				}
				if rapid.Bool().Draw(rt, "with a total") {
					c.client.HSet(ctx, key, "total", "x"+odd.Draw(rt, "total"))
				}
			}
			left := new(big.Rat).SetFrac64(1_000_000_000-valid, 1_000_000_000)
			wantHeld(rt, c, "99", "99 "+strings.TrimRight(strings.TrimRight(left.FloatString(9), "0"), "."))
			id := uuid.New()
			if err := c.Hold(ctx, "alice", id, domain.MustAmount("0.1")); err != nil {
				rt.Fatal(err)
			}
			if err := c.Drop(ctx, "alice", id); err != nil {
				rt.Fatal(err)
			}
			if got, err := c.client.HGet(ctx, key, "total").Result(); valid > 0 && (err != nil || got != fmt.Sprint(valid)) || valid == 0 && !errors.Is(err, redis.Nil) {
				rt.Fatalf("the total is %q, %v; want %d", got, err, valid)
			}
		})
	})
}

// TestHoldsOddFields: one text at a time in each place of the hash of holds, and of the balance.
func TestHoldsOddFields(t *testing.T) {
	onEachCache(t, func(t *testing.T, c *Cache) {
		ctx, k, id := t.Context(), &knower{Cache: c}, uuid.New()
		for _, text := range oddNumbers {
			for _, field := range []string{"total", id.String(), uuid.NewString()} {
				c.client.Del(ctx, c.holdsKey("alice"))
				k.know(t, "alice", "1", false)
				c.client.HSet(ctx, c.holdsKey("alice"), field, text)
				for _, amount := range []string{"0.1", "0.2"} {
					rejection := new(domain.Rejection)
					if err := c.Hold(ctx, "alice", id, domain.MustAmount(amount)); err != nil && !errors.As(err, &rejection) {
						t.Errorf("%s is %q: %v", field, text, err)
					}
					if err := c.Charge(ctx, "alice", id, domain.MustAmount("0.05")); err != nil {
						t.Errorf("%s is %q: %v", field, text, err)
					}
				}
			}
			for _, field := range cacheFields {
				k.know(t, "alice", "1", false)
				c.client.HSet(ctx, c.key("alice"), field, text)
				_, known, err := c.Balance(ctx, "alice")
				if held := c.Hold(ctx, "alice", uuid.New(), domain.Zero); err != nil || errors.Is(held, domain.ErrBalanceUnknown) == known {
					t.Errorf("%s is %q: %v, known to Go: %t, %v", field, text, held, known, err)
				}
			}
		}
		c.client.Del(ctx, c.key("alice"))
		c.client.Set(ctx, c.key("alice"), "text", 0)
		if err := c.Hold(ctx, "alice", uuid.New(), domain.Zero); !errors.Is(err, domain.ErrBalanceUnknown) {
			t.Errorf("a text for a balance: %v", err)
		}
	})
}

// TestHoldsRepair: a total that cannot be that of the holds beside it is added up again, and a hold that
// cannot be read holds nothing.
func TestHoldsRepair(t *testing.T) {
	onEachCache(t, func(t *testing.T, c *Cache) {
		ctx, k, id := t.Context(), &knower{Cache: c}, uuid.New()
		for _, tt := range []struct{ total, own, other, want string }{
			{"5", "600000000", "100000000", "0.9"},         // less than one of them
			{"5", "600000000", "x", "1"},                   // and the other is none
			{"100000000", "x", "100000000", "0.9"},         // its own is none
			{"100000000", "-5", "100000000", "0.9"},        // the same
			{"700000000", "600000000", "100000000", "0.9"}, // right
		} {
			for _, want := range []string{wantHold, wantCharge} {
				c.client.Del(ctx, c.holdsKey("alice"))
				k.know(t, "alice", "1", false)
				c.client.HSet(ctx, c.holdsKey("alice"), "total", tt.total, id.String(), tt.own, uuid.NewString(), tt.other)
				if want == wantHold {
					err, rejection := c.Hold(ctx, "alice", id, domain.MustAmount("99")), new(domain.Rejection)
					if !errors.As(err, &rejection) || rejection.Available.String() != tt.want {
						t.Errorf("%+v: %v", tt, err)
					}
				}
				if err := c.Drop(ctx, "alice", id); err != nil {
					t.Errorf("%+v: %v", tt, err)
				}
				wantHeld(t, c, "99", "99 "+tt.want)
			}
		}
	})
}

// TestHoldsLife: holds outlive the balance that they were taken from, and end by themselves.
func TestHoldsLife(t *testing.T) {
	onEachCache(t, func(t *testing.T, c *Cache) {
		ctx, k, id := t.Context(), &knower{Cache: c}, uuid.New()
		k.know(t, "alice", "1", false)
		for _, step := range []struct {
			name   string
			do     func() error
			renews bool
		}{
			{"a hold", func() error { return c.Hold(ctx, "alice", id, domain.MustAmount("0.3")) }, true},
			{"the same again", func() error { return c.Hold(ctx, "alice", id, domain.MustAmount("0.3")) }, false},
			{"another", func() error { return c.Hold(ctx, "alice", uuid.New(), domain.MustAmount("0.3")) }, true},
			{"a charge", func() error { return c.Charge(ctx, "alice", id, domain.MustAmount("0.2")) }, true},
			{"an end", func() error { return c.Drop(ctx, "alice", id) }, false},
		} {
			c.client.PExpire(ctx, c.holdsKey("alice"), time.Minute)
			if err := step.do(); err != nil {
				t.Fatal(err)
			}
			if left := c.client.PTTL(ctx, c.holdsKey("alice")).Val(); left <= 0 || (left > holdsLife-time.Minute) != step.renews {
				t.Errorf("after %s they live for %s", step.name, left)
			}
		}
		if balance := c.client.PTTL(ctx, c.key("alice")).Val(); balance <= 0 || balance > holdsLife {
			t.Errorf("the balance lives for %s, and its holds for %s", balance, holdsLife)
		}
	})
	server := miniredis.RunT(t)
	c := openCache(t, "redis://"+server.Addr())
	k := &knower{Cache: c}
	k.know(t, "alice", "1", false)
	wantHeld(t, c, "1", "1")
	server.FastForward(holdsLife)
	k.know(t, "alice", "1", false)
	wantHeld(t, c, "1", "1")
	if err := c.Drop(t.Context(), "alice", uuid.New()); err != nil {
		t.Fatal(err)
	}
}

// TestHoldsLeaveNothing: when the last hold is gone, so is the key.
func TestHoldsLeaveNothing(t *testing.T) {
	onEachCache(t, func(t *testing.T, c *Cache) {
		k, ids := &knower{Cache: c}, []uuid.UUID{uuid.New(), uuid.New()}
		k.know(t, "alice", "1", false)
		for _, id := range ids {
			if err := c.Hold(t.Context(), "alice", id, domain.MustAmount("0.3")); err != nil {
				t.Fatal(err)
			}
		}
		for i, id := range ids {
			if n := c.client.Exists(t.Context(), c.holdsKey("alice")).Val(); n != 1 {
				t.Errorf("%d: there is no key", i)
			}
			if err := c.Drop(t.Context(), "alice", id); err != nil {
				t.Fatal(err)
			}
		}
		if left := c.client.HGetAll(t.Context(), c.holdsKey("alice")).Val(); len(left) > 0 {
			t.Errorf("left is %v", left)
		}
	})
}

func TestHoldsAreBounded(t *testing.T) {
	onEachCache(t, func(t *testing.T, c *Cache) {
		ctx, k := t.Context(), &knower{Cache: c}
		k.know(t, "alice", "1", false)
		fields := []any{"total", fmt.Sprint(maxHolds - 1)}
		for range maxHolds - 1 {
			fields = append(fields, uuid.NewString(), "1")
		}
		if err := c.client.HSet(ctx, c.holdsKey("alice"), fields...).Err(); err != nil {
			t.Fatal(err)
		}
		last := uuid.New()
		for range 2 { // the last one, and the same again
			if err := c.Hold(ctx, "alice", last, domain.MustAmount("0.1")); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Hold(ctx, "alice", last, domain.MustAmount("0.2")); err != nil {
			t.Errorf("another amount of one that is held: %v", err)
		}
		if err := c.Hold(ctx, "alice", uuid.New(), domain.MustAmount("0.1")); !errors.Is(err, domain.ErrOverloaded) {
			t.Errorf("one too many: %v", err)
		}
		wantHeld(t, c, "99", "99 0.799980001") // what is not there for want of money is told first
		if err := c.Drop(ctx, "alice", last); err != nil {
			t.Fatal(err)
		}
		wantHeld(t, c, "0.1", "0.1")
	})
}

// commands counts what is sent to Redis.
type commands struct{ n atomic.Int64 }

func (c *commands) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *commands) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.n.Add(1)
		return next(ctx, cmd)
	}
}

func (c *commands) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// TestHoldsCostOneRoundTrip, once Redis knows the script; one that has forgotten it is told it again.
func TestHoldsCostOneRoundTrip(t *testing.T) {
	t.Parallel()
	c := openCache(t, "redis://"+miniredis.RunT(t).Addr())
	sent, k := &commands{}, &knower{Cache: c}
	k.know(t, "alice", "100", false)
	wantHeld(t, c, "1", "1")
	c.client.AddHook(sent)
	for _, change := range []func() error{
		func() error { return c.Hold(t.Context(), "alice", uuid.New(), domain.MustAmount("1")) },
		func() error { return c.Charge(t.Context(), "alice", uuid.New(), domain.MustAmount("1")) },
		func() error { return c.Drop(t.Context(), "alice", uuid.New()) },
	} {
		before := sent.n.Load()
		if err := change(); err != nil || sent.n.Load() != before+1 {
			t.Errorf("%d commands, %v", sent.n.Load()-before, err)
		}
	}
	if err := c.client.ScriptFlush(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	wantHeld(t, c, "1", "1")
}

// TestHoldsAway: a Redis that is away is no answer, in no time.
func TestHoldsAway(t *testing.T) {
	t.Parallel()
	v, through := newValve(t, "redis://"+miniredis.RunT(t).Addr())
	c := openQuickCache(t, through)
	k := &knower{Cache: c}
	k.know(t, "alice", "1", false)
	wantHeld(t, c, "0.1", "0.1")
	v.set(shut)
	for _, use := range []func() error{
		func() error { return c.Hold(t.Context(), "alice", uuid.New(), domain.MustAmount("0.1")) },
		func() error { return c.Charge(t.Context(), "alice", uuid.New(), domain.MustAmount("0.1")) },
		func() error { return c.Drop(t.Context(), "alice", uuid.New()) },
	} {
		rejection := new(domain.Rejection)
		if err := use(); err == nil || errors.As(err, &rejection) || errors.Is(err, domain.ErrBalanceUnknown) {
			t.Errorf("without Redis: %v", err)
		}
	}
	if err := c.Hold(t.Context(), "alice", uuid.New(), domain.MustAmount("-1")); err == nil {
		t.Error("less than nothing was held")
	}
	v.set(open)
	waitFor(t, func() bool { return c.Drop(t.Context(), "alice", uuid.New()) == nil })
	wantHeld(t, c, "1", "1 0.9")
}

// TestHoldsKeys: an account's holds are in the slot of its balance.
func TestHoldsKeys(t *testing.T) {
	t.Parallel()
	c := NewCache(nil, uuid.MustParse("01234567-89ab-4def-8123-456789abcdef"), cacheShards)
	if got, want := c.holdsKey("org:alice@example.com"), "llmgw:01234567:{org:alice@example.com}:holds"; got != want {
		t.Errorf("the key is %s, not %s", got, want)
	}
	for i := range 50 {
		if account := fmt.Sprint("account-", i); slot(c.holdsKey(account)) != slot(c.key(account)) {
			t.Errorf("the holds of %s are elsewhere", account)
		}
	}
}
