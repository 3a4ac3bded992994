package gateway_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"llm-gateway/domain"
)

// lockstep are two gateways that are asked the same: one with a cache that lies, one without any.
type lockstep struct {
	plain   *env
	gated   *gated
	account string
	changed time.Time // when the account was last changed behind the gateways' backs
}

// both does the same to the account in both ledgers.
func (l *lockstep) both(do func(*env)) {
	do(l.plain)
	do(l.gated.env)
	l.changed = l.gated.clock.now()
}

// lie lets the cache say anything.
func (l *lockstep) lie(t *rapid.T) {
	c := l.gated.cache
	switch rapid.SampledFrom([]string{"truth", "behind", "miss", "error", "anything", "anything", "anything"}).Draw(t, "cache") {
	case "truth":
		c.set(func(context.Context, string) (domain.CachedBalance, bool, error) {
			a := l.gated.account(l.account)
			return domain.CachedBalance{Spendable: a.Spendable(), Frozen: a.Frozen}, true, nil
		})
	case "behind":
		c.follows(l.gated.views)
	case "miss":
		c.set(nil)
	case "error":
		c.fails()
	default:
		known := domain.CachedBalance{Frozen: rapid.Bool().Draw(t, "says frozen"), Epoch: rapid.Int64().Draw(t, "epoch"),
			Position: domain.Position{Shard: rapid.Int32().Draw(t, "shard"), Seq: rapid.Int64().Draw(t, "seq")},
			Spendable: domain.MustAmount(rapid.SampledFrom([]string{"0", "-1", "0.000000000001", "0.0001", "0.009999999999", "0.01", "1",
				"99999999999999999999999999", "-99999999999999999999999999"}).Draw(t, "says"))}
		c.set(func(context.Context, string) (domain.CachedBalance, bool, error) { return known, true, nil })
	}
	l.gated.heads.set(rapid.IntRange(0, 9).Draw(t, "heads") == 9, nil)
	l.gated.views.setStopped(rapid.Bool().Draw(t, "projector stopped"))
}

// told is what a client learns of an answer, but for ids and times.
func told(a answer) string {
	if a.status != 200 {
		return fmt.Sprint(a.status, a.body)
	}
	return fmt.Sprint(a.status, a.header.Get("x-billing-cost"), a.header.Get("x-billing-output-cap"), a.json("usage").Raw)
}

// ask asks both. What the one with the cache says is what the other says; only a refusal may be of a
// second ago, and a second later it must be the same.
func (l *lockstep) ask(t *rapid.T) {
	body := chatBody(rapid.SampledFrom([]string{"sim-flat", "sim-free", "sim-small", "sim-small"}).Draw(t, "model"),
		rapid.SampledFrom([]string{"x", "sim:tokens=900", "sim:status=500", strings.Repeat(" international", rapid.IntRange(20, 500).Draw(t, "words"))}).Draw(t, "prompt"),
		rapid.SampledFrom([]string{"", `,"max_tokens":500`, `,"n":2`}).Draw(t, "more"))
	want, got := l.plain.chat(l.account, body), l.gated.chat(l.account, body)
	if told(got) == told(want) {
		return
	}
	if stale := l.gated.clock.now().Sub(l.changed) < time.Second; !stale || got.status != 402 && got.status != 403 {
		t.Fatalf("%s\nwithout a cache %s", told(got), told(want))
	}
	l.gated.clock.pass(time.Second)
	if got = l.gated.chat(l.account, body); told(got) != told(want) {
		t.Fatalf("a second later %s\nwithout a cache %s", told(got), told(want))
	}
}

func (l *lockstep) step(t *rapid.T) {
	amount := domain.MustAmount(rapid.SampledFrom([]string{"0.003", "0.01", "0.02", "0.1"}).Draw(t, "amount"))
	switch rapid.SampledFrom([]string{"ask", "ask", "ask", "ask", "credit", "debit", "lend", "freeze", "clock", "clock"}).Draw(t, "step") {
	case "ask":
		l.ask(t)
	case "credit":
		l.both(func(e *env) { e.credit(l.account, amount.String()) })
	case "debit":
		l.both(func(e *env) {
			e.append(l.account, domain.Debit{Amount: amount, Data: domain.MovementData{Reference: fmt.Sprint("d", len(e.asked.reserved(l.account)), time.Now()), Actor: "test"}, Force: true})
		})
	case "lend":
		l.both(func(e *env) { e.lend(l.account, amount.String()) })
	case "freeze":
		frozen := rapid.IntRange(0, 2).Draw(t, "frozen") == 0
		l.both(func(e *env) { e.freeze(l.account, frozen) })
	case "clock":
		l.gated.clock.pass(time.Duration(rapid.IntRange(1, 1500).Draw(t, "ms")) * time.Millisecond)
	}
}

// TestWhateverTheCacheSays: the outcome of a call is what it is without a cache, except that a refusal
// may be a second old; and an account's head is read at most once in a second.
func TestWhateverTheCacheSays(t *testing.T) {
	t.Parallel()
	l := &lockstep{plain: start(t, options{balance: "0.02"}), gated: startGated(t, options{balance: "0.02"})}
	l.plain.o.overages, l.gated.o.overages = true, true // forced debits
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		l.account = fmt.Sprintf("lied-to-%d", n)
		l.gated.clock.pass(time.Second)
		l.gated.cache.set(nil)
		l.gated.heads.set(false, nil)
		l.both(func(e *env) { e.get(l.account, "/v1/models") })
		for range rapid.IntRange(5, 20).Draw(rt, "steps") {
			l.lie(rt)
			l.step(rt)
		}
		reads := l.gated.heads.confirmed(l.account)
		for i := 1; i < len(reads); i++ {
			if reads[i].Sub(reads[i-1]) < time.Second {
				rt.Fatalf("the head was read twice in a second: %v", reads)
			}
		}
	})
	t.Log(l.gated.verdicts())
}
