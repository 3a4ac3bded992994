package gateway_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"llm-gateway/domain"
	"llm-gateway/gateway"
	limits "llm-gateway/gateway/limit"
)

// guards are all that stands around a call beside its money, each of it a lease that every ending must give back
// once: one slot for requests in flight, limits that are shared, a circuit that lets one probe through, kept
// answers. All stores have faults.
type guards struct {
	f      *faults
	primed bool // what is asked has been answered before, to somebody else
	drawer drawer

	mu     sync.Mutex
	memory *limits.Memory
	tokens map[string]int64 // what is taken and not given back, by account
}

// guardRecovery is longer than anything takes: a probe that was lost is not forgotten.
const guardRecovery = time.Hour

// around puts the guards around a gateway.
func (g *guards) around(t *testing.T, o *options) {
	g.memory, g.tokens = limits.NewMemory(10), map[string]int64{}
	now := o.now
	if now == nil {
		now = time.Now
	}
	l := limits.New(limits.Config{Shared: g, Now: now, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(l.Close)
	usual := domain.Quotas{domain.RequestsHour: 1000, domain.TokensMinute: domain.MaxQuota}
	o.limits = gateway.RateLimits{Limiter: l, Account: usual, All: usual}
	o.inFlight = gateway.InFlight{Most: 1, PerAccount: 1, Wait: time.Second}
	o.failing = gateway.Resilience{Circuits: domain.CircuitRules{Failures: 1, Recovery: guardRecovery}, RetryPercent: 20}
	o.caching = gateway.Caching{Store: g, Keep: 2 * guardRecovery, Shared: true}
}

// Admit implements limits.Shared. Its balance says no, so that the ledger's own is read.
func (g *guards) Admit(_ context.Context, a *domain.RateAsk, balance bool) (out domain.Admission) {
	struck := g.f.hit("Admit")
	g.mu.Lock()
	defer g.mu.Unlock()
	if !struck || g.f.after {
		now := time.Now().UnixMilli()
		out.Own, out.All = g.memory.TakeOwn(a, now), g.memory.TakeAll(a, now)
		g.tokens[a.Account] += a.Want[domain.TokensMinute]
	}
	if struck {
		return domain.Admission{BalanceErr: errAway, Own: domain.RateTaken{Err: errAway}, All: domain.RateTaken{Err: errAway}}
	}
	out.Known = balance
	return out
}

// Adjust implements limits.Shared.
func (g *guards) Adjust(_ context.Context, adjustments []domain.RateAdjustment) error {
	struck := g.f.hit("Adjust")
	g.mu.Lock()
	defer g.mu.Unlock()
	if struck && !g.f.after {
		return errAway
	}
	for i := range adjustments {
		a := &adjustments[i]
		g.memory.Adjust(a, time.Now().UnixMilli())
		g.tokens[a.Ask.Account] += a.Own[domain.TokensMinute]
	}
	if struck {
		return errAway
	}
	return nil
}

// Get implements gateway.ResponseCache.
func (g *guards) Get(ctx context.Context, key string) ([]byte, error) {
	if g.f.hit("kept Get") {
		return nil, errAway
	}
	return g.drawer.Get(ctx, key)
}

// Put implements gateway.ResponseCache.
func (g *guards) Put(ctx context.Context, key string, value []byte, keep time.Duration) error {
	struck := g.f.hit("kept Put")
	if struck && !g.f.after {
		return errAway
	}
	if err := g.drawer.Put(ctx, key, value, keep); err != nil || !struck {
		return err
	}
	return errAway
}

// begin lets another account ask the same, if it is to be kept, and fail, so that the circuit is open. pass lets
// the recovery time pass: then it is half open.
func (g *guards) begin(e *env, path, body string, pass func()) (requests int) {
	e.t.Helper()
	g.f.pause(true)
	defer g.f.pause(false)
	if g.primed {
		requests++
		if a := e.post("primer", path, body); a.status != 200 {
			e.t.Fatalf("priming: %d %s", a.status, a.body)
		}
	}
	requests++
	if a := e.chat("primer", chatBody("sim-small", "sim:status=500", "")); a.status != 502 {
		e.t.Fatalf("opening the circuit: %d %s", a.status, a.body)
	}
	pass()
	return requests
}

// free: no slot is taken, and no probe under way.
func (g *guards) free(e *env, name string, now time.Time) {
	e.t.Helper()
	if taken, accounts, waiting := gateway.SlotsOf(e.gw).Kept(); taken+accounts+waiting != 0 {
		e.t.Errorf("%s: %d slots of %d accounts are taken, %d wait", name, taken, accounts, waiting)
	}
	if bytes, accounts := gateway.BodiesOf(e.gw); bytes != 0 || accounts != 0 {
		e.t.Errorf("%s: %d bytes of bodies of %d accounts are being read", name, bytes, accounts)
	}
	if probing := gateway.Probing(e.gw, now); len(probing) != 0 {
		e.t.Errorf("%s: for ever probing %v", name, probing)
	}
}

// released: nothing is held any more, of any guard; and where the shared limits have answered throughout, an
// account has used of its tokens what it was charged for.
func (g *guards) released(e *env, name, account string) {
	e.t.Helper()
	g.free(e, name, time.Now())
	if s := g.f.struck(); s == "Admit" || s == "Adjust" {
		return
	}
	var charged int64
	for _, id := range e.asked.reserved(account) {
		if l := e.life(account, id); l.commit != nil {
			m := l.commitData().Meters
			charged += m.InputTokens() + m.OutputTokens()
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.tokens[account] != charged {
		e.t.Errorf("%s: %d tokens count against the limit, %d were charged", name, g.tokens[account], charged)
	}
}
