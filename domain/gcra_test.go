package domain

import (
	"bufio"
	"fmt"
	"math"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestLimitTable runs the lives of buckets in testdata/limits.txt.
func TestLimitTable(t *testing.T) {
	t.Parallel()
	file, err := os.Open("testdata/limits.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close() //nolint:errcheck // it is read
	var l Limit
	var v Level
	steps := 0
	for n, lines := 1, bufio.NewScanner(file); lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if fields := strings.Fields(line); fields[0] == "limit" {
			fmt.Sscan(fields[1]+" "+fields[2], &l.Most, &l.Period) //nolint:errcheck // an invalid one fails below
			if v = (Level{}); !l.Valid() {
				t.Fatalf("line %d: %+v is not a limit", n, l)
			}
			continue
		}
		step, want, _ := strings.Cut(line, " -> ")
		var now, quantity int64
		var what, got string
		if _, err := fmt.Sscan(step, &now, &what, &quantity); err != nil {
			t.Fatalf("line %d: %v", n, err)
		}
		v = l.Drained(v, now)
		if what == "adjust" {
			v = l.Adjust(v, quantity)
			got = fmt.Sprint(l.Remaining(v.Used), l.Reset(v.Used))
		} else {
			fits, wait := false, int64(0)
			if v, fits = l.Take(v, quantity); !fits {
				wait = l.Wait(v.Used, quantity)
			}
			got = fmt.Sprint(map[bool]string{true: "yes", false: "no"}[fits], " ", l.Remaining(v.Used), " ", wait, " ", l.Reset(v.Used))
		}
		if got != want {
			t.Errorf("line %d: %s -> %s, not %s", n, step, got, want)
		}
		steps++
	}
	if steps < 40 {
		t.Errorf("only %d steps", steps)
	}
}

func limits() *rapid.Generator[Limit] {
	return rapid.Custom(func(t *rapid.T) Limit {
		most := rapid.OneOf(rapid.Int64Range(1, 100), rapid.Int64Range(1, MaxQuota)).Draw(t, "most")
		return Limit{most, rapid.SampledFrom([]int64{minutePeriod, hourPeriod, 1, 7}).Draw(t, "period")}
	})
}

// TestLimitProperties: whatever is asked at whatever times, as much comes through in any span of time as the
// limit allows at once, and what the rate adds in that span; and no less: who was refused was refused rightly.
func TestLimitProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l := limits().Draw(t, "limit")
		var v Level
		type passed struct{ at, quantity int64 }
		var through []passed
		now := rapid.Int64Range(0, 1<<42).Draw(t, "begin")
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now += rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(0, 2*l.Period), rapid.Int64Range(0, 1+l.Period/l.Most)).Draw(t, "later")
			quantity := rapid.OneOf(rapid.Just(int64(1)), rapid.Int64Range(0, 2*l.Most)).Draw(t, "quantity")
			v = l.Drained(v, now)
			before, fits := v, false
			if v, fits = l.Take(v, quantity); !fits {
				if v != before {
					t.Fatalf("a refusal took something: %+v, was %+v", v, before)
				}
				checkWait(t, l, v, now, quantity)
				continue
			}
			through = append(through, passed{now, quantity})
			sum := new(big.Int)
			for _, p := range slices.Backward(through) { // sum <= most + most * span / period
				sum.Add(sum, big.NewInt(p.quantity))
				span := now - p.at
				allowed := new(big.Int).Mul(big.NewInt(l.Most), big.NewInt(l.Period+span))
				if new(big.Int).Mul(sum, big.NewInt(l.Period)).Cmp(allowed) > 0 {
					t.Fatalf("%v came through in %d ms, of %+v", sum, span, l)
				}
			}
		}
	})
}

// checkWait: after the wait it fits, and not before.
func checkWait(t *rapid.T, l Limit, v Level, now, quantity int64) {
	wait := l.Wait(v.Used, quantity)
	if quantity > l.Most {
		return
	}
	if wait < 1 {
		t.Fatalf("%d of %+v were refused, with nothing to wait for: %+v", quantity, l, v)
	}
	if _, fits := l.Take(l.Drained(v, now+wait), quantity); !fits {
		t.Fatalf("%d of %+v do not fit after %d ms: %+v", quantity, l, wait, v)
	}
	if _, fits := l.Take(l.Drained(v, now+wait-1), quantity); fits {
		t.Fatalf("%d of %+v fit before %d ms: %+v", quantity, l, wait, v)
	}
}

// TestLimitHostile: no stored level, clock or quantity overflows, or brings a bucket out of its bounds; a
// clock that goes back gives nothing; what is given back never makes room for more than the limit.
func TestLimitHostile(t *testing.T) {
	t.Parallel()
	any64 := rapid.OneOf(rapid.Int64(), rapid.SampledFrom([]int64{math.MinInt64, math.MinInt64 + 1, -1, 0, 1, 1 << 53, math.MaxInt64 - 1, math.MaxInt64}))
	rapid.Check(t, func(t *rapid.T) {
		l := limits().Draw(t, "limit")
		v, now := Level{any64.Draw(t, "used"), any64.Draw(t, "at")}, any64.Draw(t, "now")
		d := l.Drained(v, now)
		taken, _ := l.Take(d, any64.Draw(t, "taken"))
		adjusted := l.Adjust(taken, any64.Draw(t, "adjusted"))
		for _, x := range []Level{d, taken, adjusted} {
			if x.Used < 0 || x.Used > maxDebt*l.capacity() || x.Used >= 1<<53 {
				t.Fatalf("%+v of %+v", x, l)
			}
			if r := l.Remaining(x.Used); r < 0 || r > l.Most {
				t.Fatalf("%d remain of %+v", r, l)
			}
			if w := l.Wait(x.Used, 1); w < 0 || w > maxDebt*l.Period {
				t.Fatalf("a wait of %d for %+v", w, l)
			}
		}
		back := rapid.Int64Range(0, maxDebt*l.Period).Draw(t, "back")
		if now > math.MinInt64+back && d.At == now {
			if again := l.Drained(d, now-back); again.Used != d.Used {
				t.Fatalf("%d ms back drained %+v to %+v", back, d, again)
			}
		}
	})
}

// TestQuotas: a request is taken from all limits or from none, and of several that refuse it the slowest
// speaks.
func TestQuotas(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.Int64Range(0, 5)
		q := Quotas{most.Draw(t, "a minute"), most.Draw(t, "an hour"), 100 * most.Draw(t, "tokens")}
		var v Levels
		for now := int64(1); now < 20_000; now += rapid.Int64Range(0, 4000).Draw(t, "later") + 1 {
			want := OneRequest(rapid.Int64Range(0, 300).Draw(t, "want"))
			before := q.Drained(v, now)
			after, fits := q.Take(v, now, want)
			refused := q.Refused(before, want)
			switch {
			case fits != (refused == nil):
				t.Fatalf("fits %v, and %+v", fits, refused)
			case !fits && after != before:
				t.Fatalf("a refusal changed %+v to %+v", before, after)
			case !fits && refused.Wait < 1:
				t.Fatalf("%+v", refused)
			}
			if !fits && !refused.Never {
				if _, fits := q.Take(after, now+refused.Wait, want); !fits {
					t.Fatalf("%+v is not over after its wait", refused)
				}
			}
			if v = after; q.None() && !fits {
				t.Fatal("nothing is limited")
			}
		}
		if returned := q.Adjust(v, 20_001, OneRequest(maxTaken).Negative()); q[TokensMinute] > 0 && returned[TokensMinute].Used != 0 {
			t.Fatalf("%+v", returned)
		}
	})
}

// TestQuotaChecks: what can be a limit, and what an override changes.
func TestQuotaChecks(t *testing.T) {
	t.Parallel()
	n := func(v int64) *int64 { return &v }
	usual := Quotas{60, 1000, 0}
	for _, c := range []struct {
		change QuotaChange
		want   Quotas
		ok     bool
	}{
		{QuotaChange{}, usual, true},
		{QuotaChange{n(0), nil, nil}, Quotas{0, 1000, 0}, true},
		{QuotaChange{n(5), n(6), n(7)}, Quotas{5, 6, 7}, true},
		{QuotaChange{nil, nil, n(MaxQuota)}, Quotas{60, 1000, MaxQuota}, true},
		{QuotaChange{nil, nil, n(MaxQuota + 1)}, Quotas{60, 1000, MaxQuota + 1}, false},
		{QuotaChange{n(-1), nil, nil}, Quotas{-1, 1000, 0}, false},
	} {
		if got, err := c.change.Over(usual), c.change.Check(); got != c.want || (err == nil) != c.ok {
			t.Errorf("%v: %v, %v", c.change, got, err)
		}
	}
}
