// Package limit decides whether a model call fits into the limits of its account, its API key, and everybody
// together: requests per minute and per hour, tokens per minute.
//
// The problem: several gateways must let through as many calls as one would, for the price of no further
// round trip; and the limits must hold, more or less, while what they share is away.
//
// Invariants:
//   - What a limit holds is decided in one place: by one script of Redis that all gateways share, or by this
//     process's memory. Neither lets through one call more than the limit (domain/gcra.go).
//   - A call that one limit refuses takes nothing of the others. An account's and its key's limits are taken in
//     one step; everybody's is in another slot of a cluster, and is given back where the account's refuses.
//   - Where Redis does not answer in time, memory decides, for that call. It knows what this process has let
//     through, and what Redis said last that all have, so that it goes on from there, and does not begin anew:
//     a slow answer does not multiply a limit that is used up. Redis is not told of it afterwards: an outage
//     lets through at most one limit more for each gateway.
//   - Giving back waits for nothing: it has a queue with a bound, and a lost one makes a limit stricter until
//     it has drained, or where more was used than taken, laxer by that.
//   - Nothing here lets a call pass that its account cannot pay for: money is the ledger's.
//
// Tests: one suite over memory, the embedded Redis, a cluster and a real Redis; the arithmetic in domain is
// held to its properties; the limiter under a store that fails, is slow, and is half away.
package limit

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"llm-gateway/domain"
)

// The bounds of giving back.
const (
	// returnsWaiting bounds what waits to be given back. Beyond it nothing is given back.
	returnsWaiting = 4096
	// returnsAtOnce is how much of it one round trip takes.
	returnsAtOnce = 64
	// returnTime bounds that round trip.
	returnTime = 200 * time.Millisecond
	// sayAgain is how long the log says nothing more of a shared store that comes and goes.
	sayAgain = 30 * time.Second
)

// errNotShared: there is only memory.
var errNotShared = errors.New("limits are not shared")

// Shared is what all gateways have together: Redis. It is asked within ctx.
type Shared interface {
	// Admit takes a request from its own limits, all of them or none, and the same from everybody's; and reads
	// the account's projected balance, if that is wanted. One round trip.
	Admit(ctx context.Context, a *domain.RateAsk, balance bool) domain.Admission
	// Adjust changes what requests have taken. One round trip.
	Adjust(ctx context.Context, adjustments []domain.RateAdjustment) error
}

// Config is what a limiter is made of.
type Config struct {
	Shared Shared // nil = only memory
	Now    func() time.Time
	Log    *slog.Logger
	Count  func(scope, result string) // counts what came of it; nil = nothing does
}

// Limiter takes requests from limits. It is safe for concurrent use; Close ends it.
type Limiter struct {
	shared  Shared
	memory  *Memory
	now     func() time.Time
	log     *slog.Logger
	count   func(scope, result string)
	returns chan domain.RateAdjustment
	closed  chan struct{}
	once    sync.Once
	wait    sync.WaitGroup

	mu    sync.Mutex
	alone bool      // the log says last that the shared store does not answer
	said  time.Time // when
}

// New starts a limiter.
func New(c Config) *Limiter {
	if c.Count == nil {
		c.Count = func(string, string) {}
	}
	l := &Limiter{shared: c.Shared, memory: NewMemory(memoryHolders), now: c.Now, log: c.Log, count: c.Count,
		returns: make(chan domain.RateAdjustment, returnsWaiting), closed: make(chan struct{})}
	if l.shared != nil {
		l.wait.Go(l.run)
	}
	return l
}

// Close ends the background work. What still waits to be given back is dropped.
func (l *Limiter) Close() {
	l.once.Do(func() { close(l.closed) })
	l.wait.Wait()
}

// Grant is a request that was admitted, or was not.
type Grant struct {
	Ask      domain.RateAsk
	Levels   [domain.RateScopes]domain.Levels // what the buckets hold now
	Scope    domain.RateScope                 // whose limit refused it
	Refused  *domain.Refusal                  // nil = admitted
	Balance  domain.CachedBalance
	Asked    bool  // the balance was asked for
	Known    bool  // there is one
	Err      error // it could not be read
	ownThere bool  // the shared store has what its own limits took
	allThere bool  // the same of everybody's
}

// Admit takes a request from all its limits, or from none. With balance it also reads the account's projected
// balance on the way, which takes a Shared.
func (l *Limiter) Admit(ctx context.Context, a domain.RateAsk, balance bool) *Grant {
	g := &Grant{Ask: a}
	own, all := domain.RateTaken{Err: errNotShared}, domain.RateTaken{Err: errNotShared}
	if l.shared != nil {
		g.Asked = balance
		reply := l.shared.Admit(ctx, &a, balance)
		g.Balance, g.Known, g.Err = reply.Balance, reply.Known, reply.BalanceErr
		own, all = reply.Own, reply.All
		l.heard(&a, errors.Join(own.Err, all.Err))
	}
	g.ownThere, g.allThere = own.Err == nil, all.Err == nil
	if !g.ownThere {
		own = l.memory.TakeOwn(&a, l.milli())
	}
	if !g.allThere {
		all = l.memory.TakeAll(&a, l.milli())
	}
	g.Levels = own.Levels
	g.Levels[domain.RateAll] = all.Levels[domain.RateAll]
	l.decide(g, own.Fits, all.Fits)
	return g
}

// decide says what came of it, and gives back what one limit took where another refuses.
func (l *Limiter) decide(g *Grant, own, all bool) {
	switch {
	case own && all: // it is taken
	case own:
		g.Levels[domain.RateAccount] = g.without(domain.RateAccount)
		g.Levels[domain.RateKey] = g.without(domain.RateKey)
		l.undo(g, domain.RateAdjustment{Ask: g.Ask, Own: g.Ask.Want.Negative()})
	case all:
		g.Levels[domain.RateAll] = g.without(domain.RateAll)
		l.undo(g, domain.RateAdjustment{Ask: g.Ask, All: g.Ask.Want.Negative()})
	}
	l.remember(g, own && all)
	for i, q := range g.Ask.Quotas {
		scope := domain.RateScope(i)
		if q.None() {
			continue
		}
		if r := q.Refused(g.Levels[scope], g.Ask.Want); (!own && scope != domain.RateAll || !all && scope == domain.RateAll) && r != nil && longer(r, g.Refused) {
			g.Refused, g.Scope = r, scope
		}
	}
	l.counted(g)
}

// longer says whether a refusal takes longer than another; nil takes no time.
func longer(r, than *domain.Refusal) bool {
	return than == nil || r.Never && !than.Never || r.Never == than.Never && r.Wait > than.Wait
}

// without is what a scope's buckets hold without the request. They are drained: it takes no clock.
func (g *Grant) without(scope domain.RateScope) domain.Levels {
	return g.Ask.Quotas[scope].Adjust(g.Levels[scope], 0, g.Ask.Want.Negative())
}

func (l *Limiter) counted(g *Grant) {
	if g.Refused != nil {
		l.count(g.Scope.String(), "refused")
		return
	}
	for i, q := range g.Ask.Quotas {
		if !q.None() {
			l.count(domain.RateScope(i).String(), "admitted")
		}
	}
}

// Settle says how many tokens an admitted request has used after all: what it took beyond that is given back,
// and what it did not take is taken now. It never waits. A request is settled at most once.
func (l *Limiter) Settle(g *Grant, tokens int64) {
	if g == nil || g.Refused != nil {
		return
	}
	var by domain.Quantities
	by[domain.TokensMinute] = domain.OneRequest(tokens)[domain.TokensMinute] - g.Ask.Want[domain.TokensMinute]
	a := domain.RateAdjustment{Ask: g.Ask, Own: by, All: by}
	if !a.Nothing() {
		l.memory.Adjust(&a, l.milli())
	}
	_, there := split(g, a)
	l.giveBack(there)
}

// remember keeps in memory, too, what the shared store has let through here, and what it says that all gateways
// have: from there memory goes on where the store does not answer.
func (l *Limiter) remember(g *Grant, admitted bool) {
	if !g.ownThere && !g.allThere {
		return
	}
	a := domain.RateAdjustment{Ask: g.Ask}
	if admitted {
		_, a = split(g, domain.RateAdjustment{Ask: g.Ask, Own: g.Ask.Want, All: g.Ask.Want})
	}
	l.memory.learn(&a, g, l.milli())
}

// undo gives back what a refused request has taken, where it was taken.
func (l *Limiter) undo(g *Grant, a domain.RateAdjustment) {
	here, there := split(g, a)
	if !here.Nothing() {
		l.memory.Adjust(&here, l.milli())
	}
	l.giveBack(there)
}

// split parts an adjustment into what memory was asked for, and what the shared store.
func split(g *Grant, a domain.RateAdjustment) (here, there domain.RateAdjustment) {
	here, there = a, a
	if g.ownThere {
		here.Own = domain.Quantities{}
	} else {
		there.Own = domain.Quantities{}
	}
	if g.allThere {
		here.All = domain.Quantities{}
	} else {
		there.All = domain.Quantities{}
	}
	return here, there
}

// giveBack tells the shared store, soon.
func (l *Limiter) giveBack(a domain.RateAdjustment) {
	if a.Nothing() {
		return
	}
	select {
	case l.returns <- a:
	default:
		l.count("return", "dropped")
	}
}

// run gives back, until Close.
func (l *Limiter) run() {
	for {
		select {
		case <-l.closed:
			return
		case first := <-l.returns:
			l.send(first)
		}
	}
}

func (l *Limiter) send(first domain.RateAdjustment) {
	batch := []domain.RateAdjustment{first}
gather:
	for len(batch) < returnsAtOnce {
		select {
		case next := <-l.returns:
			batch = append(batch, next)
		default:
			break gather
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), returnTime)
	defer cancel()
	if err := l.shared.Adjust(ctx, batch); err != nil {
		for range batch {
			l.count("return", "lost")
		}
	}
}

// heard counts where a request's limits were kept, and says in the log when the shared store is away, and
// when it is back. A request that nothing limits says nothing.
func (l *Limiter) heard(a *domain.RateAsk, failed error) {
	if !a.Own() && a.Quotas[domain.RateAll].None() {
		return
	}
	where := "shared"
	if failed != nil {
		where = "memory"
	}
	l.count("store", where)
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if l.alone == (failed != nil) || now.Sub(l.said) < sayAgain && failed != nil {
		return
	}
	l.alone, l.said = failed != nil, now
	if failed != nil {
		l.log.Warn("the rate limits are kept in this process's memory while Redis does not answer", "error", failed)
		return
	}
	l.log.Info("the rate limits are kept in Redis again")
}

func (l *Limiter) milli() int64 { return l.now().UnixMilli() }
