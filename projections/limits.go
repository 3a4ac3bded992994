package projections

import (
	"context"
	_ "embed" // for the script
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"llm-gateway/domain"
)

// Limits of model calls are kept in Redis, so that all gateways have them together. They stand beside the
// balance, in the account's slot of a cluster: `llmgw:<ledger>:{<account>}:limits`, and with the key's id
// behind that those of an API key. What everybody has together is at `llmgw:<ledger>:limits`, in a slot of its
// own. So a request asks in one round trip: the balance, its own limits in one script, everybody's in another.
// Redis's clock is the only one.

// limitsLife is how long a hash stays that is not changed: twice the longest period, when all that it held
// has drained.
const limitsLife = 2 * time.Hour

//go:embed limits.lua
var limitsText string

// changeLimits takes from limits, or adjusts what they hold.
var changeLimits = redis.NewScript(limitsText)

// limitFields are the fields of a hash of limits, by window.
var limitFields = [domain.Windows]string{domain.RequestsMinute: "rm", domain.RequestsHour: "rh", domain.TokensMinute: "tm"}

// limitChange is one run of the script.
type limitChange struct {
	keys   []string
	args   []any
	places []limitPlace // of the answer's levels
	cmd    *redis.Cmd
}

// limitPlace is whose bucket it is.
type limitPlace struct {
	scope  domain.RateScope
	window domain.Window
}

func newLimitChange(wanted string) *limitChange {
	return &limitChange{args: []any{wanted, limitsLife.Milliseconds()}}
}

// add asks about a holder's limits; none where it has none.
func (c *limitChange) add(key string, scope domain.RateScope, q domain.Quotas, by domain.Quantities) {
	if q.None() {
		return
	}
	c.keys = append(c.keys, key)
	for i := range q {
		w := domain.Window(i)
		if l, limited := q.Limit(w); limited {
			// What is more than the limit fits no better for being larger, and must not leave what a double holds.
			by := min(max(by[w], -2*l.Most), 2*l.Most)
			c.args = append(c.args, len(c.keys), limitFields[w], l.Most, l.Period, by)
			c.places = append(c.places, limitPlace{scope, w})
		}
	}
}

// own asks about the limits of an account and its API key.
func (c *Cache) own(wanted string, a *domain.RateAsk, by domain.Quantities) *limitChange {
	out := newLimitChange(wanted)
	base := c.prefix + "{" + a.Account + "}:limits"
	out.add(base, domain.RateAccount, a.Quotas[domain.RateAccount], by)
	if a.Key != "" {
		out.add(base+":"+a.Key, domain.RateKey, a.Quotas[domain.RateKey], by)
	}
	return out
}

// all asks about everybody's.
func (c *Cache) all(wanted string, a *domain.RateAsk, by domain.Quantities) *limitChange {
	out := newLimitChange(wanted)
	out.add(c.prefix+"limits", domain.RateAll, a.Quotas[domain.RateAll], by)
	return out
}

// changes runs them in one round trip, with whatever the pipeline has already; those that a server did not
// know the script of in a second one. Each has its own error.
func (c *Cache) changes(ctx context.Context, pipe redis.Pipeliner, all ...*limitChange) {
	for _, ch := range all {
		if len(ch.places) > 0 {
			ch.cmd = changeLimits.EvalSha(ctx, pipe, ch.keys, ch.args...)
		}
	}
	if pipe.Len() == 0 {
		return
	}
	pipe.Exec(ctx) //nolint:errcheck // each command has its own error
	pipe = c.client.Pipeline()
	for _, ch := range all {
		if ch.cmd != nil && redis.HasErrorPrefix(ch.cmd.Err(), "NOSCRIPT") {
			ch.cmd = changeLimits.Eval(ctx, pipe, ch.keys, ch.args...)
		}
	}
	if pipe.Len() > 0 {
		pipe.Exec(ctx) //nolint:errcheck // each command has its own error
	}
}

// taken reads the script's answer. Whoever has no limits fits.
func (ch *limitChange) taken() (t domain.RateTaken) {
	if ch.cmd == nil {
		return domain.RateTaken{Fits: true}
	}
	answer, err := ch.cmd.Slice()
	if err == nil && len(answer) != len(ch.places)+1 {
		err = errors.New("the script's answer is not one")
	}
	if err != nil {
		return domain.RateTaken{Err: fmt.Errorf("asking Redis for limits: %w", err)}
	}
	t.Fits = answer[0] == int64(1)
	for i, p := range ch.places {
		text, _ := answer[i+1].(string)
		used, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return domain.RateTaken{Err: fmt.Errorf("Redis answered limits with %.60q", answer)}
		}
		t.Levels[p.scope][p.window].Used = used
	}
	return t
}

// Admit asks in one round trip whether a request fits into the limits, and takes it from them if so, and what
// is known of the account's balance, if that is wanted. Its own limits and everybody's are each taken all or
// none; where only one of the two fits, the caller gives the other back (Adjust).
func (c *Cache) Admit(ctx context.Context, a *domain.RateAsk, balance bool) (out domain.Admission) {
	if domain.CheckAccount(a.Account) != nil { // there is no such account
		out.Own.Fits, out.All.Fits = true, true
		return out
	}
	pipe := c.client.Pipeline()
	var fields *redis.SliceCmd
	if balance {
		fields = pipe.HMGet(ctx, c.key(a.Account), cacheFields...)
	}
	own, all := c.own("take", a, a.Want), c.all("take", a, a.Want)
	c.changes(ctx, pipe, own, all)
	if balance {
		out.Balance, out.Known, out.BalanceErr = c.balanceOf(a.Account, fields)
	}
	out.Own, out.All = own.taken(), all.taken()
	return out
}

// Adjust changes what requests have taken, in one round trip for all of them. After an error some may not
// have been changed.
func (c *Cache) Adjust(ctx context.Context, adjustments []domain.RateAdjustment) error {
	var all []*limitChange
	for i := range adjustments {
		a := &adjustments[i]
		if a.Nothing() || domain.CheckAccount(a.Ask.Account) != nil {
			continue
		}
		all = append(all, c.own("adjust", &a.Ask, a.Own))
		if a.All != (domain.Quantities{}) {
			all = append(all, c.all("adjust", &a.Ask, a.All))
		}
	}
	c.changes(ctx, c.client.Pipeline(), all...)
	var failed error
	for _, ch := range all {
		if err := ch.taken().Err; err != nil && failed == nil {
			failed = err
		}
	}
	return failed
}
