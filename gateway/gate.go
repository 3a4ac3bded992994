package gateway

import (
	"context"
	"sync"
	"time"

	"llm-gateway/domain"
	"llm-gateway/gateway/limit"
	"llm-gateway/gateway/observe"
)

// The gate spares the ledger the calls of those who cannot pay. A projected balance, from a cache, may
// say no; nobody's yes is needed, for the ledger says it. The cache may be late, empty, wrong or away:
// its no counts only where the account's own head, read once and believed for a second, says it too.

const (
	// gateTime bounds the wait for the cache. Beyond it the call goes on without its opinion.
	gateTime = 50 * time.Millisecond
	// confirmTime bounds the reading of an account's head. Beyond it the call goes on to its reserve.
	confirmTime = 500 * time.Millisecond
	// confirmFresh is how long a head that was read is believed: a top-up takes effect within it.
	confirmFresh = time.Second
	// confirmationsKept bounds how many accounts' heads are read in confirmFresh. Beyond it calls go on
	// to their reserve.
	confirmationsKept = 10_000
)

// Balances is a cache of projected balances.
type Balances interface {
	// Balance answers in one round trip, within ctx; false where the cache does not know the account. A
	// cache that is known to be away fails at once.
	Balance(ctx context.Context, account string) (domain.CachedBalance, bool, error)
	// RefillSoon asks for an account that is missing to be filled in. It never blocks, and nothing
	// depends on its being done.
	RefillSoon(account string)
}

// gated says whether the gate has a say on a call. A repeat is answered whatever the balance. While the
// ledger is away and money is held in the cache nothing can be confirmed, and the hold asks the same cache.
func (g *Gateway) gated(k *call) bool {
	return g.gate != nil && k.key == "" && (!g.spools() || !g.outage.away())
}

// refuseEarly refuses a call that its account cannot afford in any form, as the ledger would: with 402,
// or 403 where the account is frozen. It leaves the call as it is. What the cache said when the call was
// admitted is not asked again.
func (g *Gateway) refuseEarly(ctx context.Context, k *call, admitted *limit.Grant) error {
	if !g.gated(k) {
		return nil
	}
	verdict, rejection := g.judge(ctx, k, admitted)
	g.metrics.Gate(verdict)
	if rejection == nil {
		return nil
	}
	return ledgerError(rejection)
}

// judge asks the cache, and confirms its no.
func (g *Gateway) judge(ctx context.Context, k *call, admitted *limit.Grant) (observe.Verdict, *domain.Rejection) {
	cached, known, err := g.gate.ask(ctx, k.who.Account, admitted)
	switch {
	case err != nil:
		return observe.GateError, nil //nolint:nilerr // no opinion: the call goes on
	case !known:
		g.gate.balances.RefillSoon(k.who.Account)
		return observe.GateUnknown, nil
	case g.refusal(k, cached.Spendable, cached.Frozen) == nil:
		return observe.GateYes, nil
	}
	head := g.gate.confirm(ctx, k.who.Account)
	if head == nil {
		return observe.GateError, nil
	}
	if rejection := g.refusal(k, head.Spendable(), head.Frozen); rejection != nil {
		return observe.GateNo, rejection
	}
	return observe.GateOverruled, nil
}

// refusal is how a reserve of the call would end on such an account, after all that reserve does to
// make it smaller; nil where it would succeed.
func (g *Gateway) refusal(k *call, spendable domain.Amount, frozen bool) *domain.Rejection {
	if frozen {
		return &domain.Rejection{Reason: domain.RejectAccountFrozen, Account: k.who.Account}
	}
	if k.bound.Amount.IsZero() || !spendable.Less(k.bound.Amount) {
		return nil
	}
	needed := k.bound.Amount
	if spendable.Sign() > 0 { // who has nothing is not worth counting for
		counted, least, err := g.smallest(k)
		if err != nil || !spendable.Less(least) {
			return nil //nolint:nilerr // an error is the reserve's to tell
		}
		needed = counted
	}
	return &domain.Rejection{Reason: domain.RejectInsufficientFunds, Account: k.who.Account, Needed: needed, Available: spendable}
}

// smallest is what the call can cost once its input is counted, and the least that it can be cut down
// to from there.
func (g *Gateway) smallest(k *call) (counted, least domain.Amount, err error) {
	need := k.need
	need.InputTokens = k.exactInput(k.target)
	bound, err := k.version.Bound(need)
	if err != nil || !g.mayCap(k) {
		return bound.Amount, bound.Amount, err
	}
	need.OutputTokens = outputBound(k.asked, 1, k.model)
	lowest, err := k.version.Bound(need)
	return bound.Amount, lowest.Amount, err
}

// gate asks the cache, and keeps the heads that confirmed or overruled its noes.
type gate struct {
	balances Balances
	facts    Facts
	now      func() time.Time

	mu            sync.Mutex
	turned        time.Time                // when recent began
	recent, older map[string]*confirmation // by account; older is what recent was before, and forgotten next
}

// confirmation is one reading of an account's head.
type confirmation struct {
	began time.Time
	done  chan struct{}   // closed when the reading has ended
	head  *domain.Account // guarded by gate.mu, replaced and never changed; nil = not known
}

func newGate(b Balances, f Facts, now func() time.Time) *gate {
	return &gate{balances: b, facts: f, now: now, recent: map[string]*confirmation{}, older: map[string]*confirmation{}}
}

// ask asks the cache, for a short time, unless it has answered already.
func (g *gate) ask(ctx context.Context, account string, admitted *limit.Grant) (domain.CachedBalance, bool, error) {
	if admitted != nil && admitted.Asked {
		return admitted.Balance, admitted.Known, admitted.Err
	}
	ctx, cancel := context.WithTimeout(ctx, gateTime)
	defer cancel()
	return g.balances.Balance(ctx, account)
}

// confirm returns an account's head, not older than confirmFresh; nil where it cannot be had. However
// many ask at once, one of them reads.
func (g *gate) confirm(ctx context.Context, account string) *domain.Account {
	c, mine := g.confirmation(account)
	if c == nil {
		return nil
	}
	if mine {
		g.read(ctx, account, c)
	}
	<-c.done
	g.mu.Lock()
	defer g.mu.Unlock()
	return c.head
}

// confirmation finds the reading of an account's head that counts now. Where there is none it begins
// one, which is the caller's (mine) to do; nil where too many have begun.
func (g *gate) confirmation(account string) (c *confirmation, mine bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	if now.Sub(g.turned) >= confirmFresh {
		g.older, g.recent, g.turned = g.recent, map[string]*confirmation{}, now
	}
	if c := g.find(account); c != nil && now.Sub(c.began) < confirmFresh {
		return c, false
	}
	if len(g.recent) >= confirmationsKept {
		return nil, false
	}
	c = &confirmation{began: now, done: make(chan struct{})}
	g.recent[account] = c
	return c, true
}

func (g *gate) find(account string) *confirmation {
	if c := g.recent[account]; c != nil {
		return c
	}
	return g.older[account]
}

// read reads the head, whether or not the client that it is read for is still there: others wait too.
func (g *gate) read(ctx context.Context, account string, c *confirmation) {
	defer close(c.done)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), confirmTime)
	defer cancel()
	head, err := g.facts.Account(ctx, account)
	if err != nil || head == nil {
		return // the reserve will meet the same, and say so
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	c.learn(head)
}

// saw takes over a head that came with an append, so that what came back by this gateway's own
// settlement is not refused for the rest of the second.
func (g *gate) saw(account string, head *domain.Account) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c := g.find(account); c != nil {
		known := *head
		c.learn(&known)
	}
}

// learn keeps the newer head. One without an event is none: it would say that nothing is there.
func (c *confirmation) learn(head *domain.Account) {
	if head.LastSeq > 0 && (c.head == nil || c.head.LastSeq < head.LastSeq) {
		c.head = head
	}
}
