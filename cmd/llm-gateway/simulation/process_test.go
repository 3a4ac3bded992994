package simulation

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"llm-gateway/cmd/llm-gateway/pricebook"
	"llm-gateway/domain"
	"llm-gateway/gateway"
	"llm-gateway/gateway/observe"
	"llm-gateway/gateway/provider"
	"llm-gateway/ledger/lease"
	"llm-gateway/ledger/relay"
	"llm-gateway/ledger/sweep"
)

var (
	errDead   = errors.New("simulated: the process is dead")
	errBroken = errors.New("simulated: the call failed")
)

// What processes of all runs share, because it takes long to make and holds nothing of a run.
var (
	allMetrics = sync.OnceValue(observe.NewMetrics)
	allTokens  = sync.OnceValue(func() *gateway.Tokens {
		t, err := gateway.NewTokens("HS256", []byte("nobody signs anything here"))
		if err != nil {
			panic(err)
		}
		return t
	})
)

// machine is where a gateway runs, again and again: its disk outlives the processes.
type machine struct {
	w       *world
	name    string
	paper   *paper
	starts  int
	process *process // nil: none runs; written by the scheduler, under the world's mu
}

// process is one start of a gateway, with everything that runs beside it.
type process struct {
	w       *world
	on      *machine
	name    string // calls are named after it
	id      uuid.UUID
	life    *life
	ctx     context.Context
	cancel  context.CancelFunc
	writer  *writer
	runs    sync.WaitGroup // what ends with the process, but not the gateway's own
	serving sync.WaitGroup // requests, until their last byte
	told    bool           // to end; written by the scheduler

	// What boot makes. Nobody looks before it is ready, but who ends a process.
	disk     disk
	owner    *sweep.Owner
	sweeper  *sweep.Sweeper
	draining context.CancelFunc // ends the draining of the journal
	drained  chan struct{}      // closed when that has ended
	relay    *relay.Relay
	gateway  *gateway.Gateway
	booted   chan struct{} // closed when boot has ended

	mu      sync.Mutex // guards all below
	ready   bool       // it takes requests
	gone    bool       // dead
	leaving bool       // it takes no more requests
	frozen  time.Time  // until when
}

func (p *process) isDead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gone
}

func (p *process) isFrozen(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return now.Before(p.frozen)
}

// zombieTime is how long a process that goes on after a freeze may do what it was about to, before its
// timers have told it that it is too late.
const zombieTime = time.Second

func (p *process) isZombie(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return now.Before(p.frozen.Add(zombieTime))
}

// takesRequests says whether it has begun to, and not ended.
func (p *process) takesRequests() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ready && !p.leaving && !p.gone
}

// enter is what every call of a process to the outside begins with: it waits for its fate. An error
// means that nothing is to happen.
func (p *process) enter(ctx context.Context, k kind, what string) (fate, error) {
	return p.wants(ctx, &parked{name: p.name + " " + what, proc: p, kind: k})
}

func (p *process) wants(ctx context.Context, q *parked) (fate, error) {
	f := p.w.s.park(ctx, q)
	switch f {
	case dead:
		return f, errDead
	case cancelled:
		return f, context.Cause(ctx)
	case failBefore, refused:
		return f, errBroken
	}
	return f, nil
}

// look is enter for calls that are many and change nothing: it only waits where the process is frozen.
func (p *process) look(ctx context.Context, k kind, what string) error {
	if p.isDead() {
		return errDead
	}
	if p.isFrozen(time.Now()) {
		if _, err := p.wants(ctx, &parked{name: p.name + " " + what, proc: p, kind: k, twin: true}); err != nil {
			return err
		}
	}
	if p.w.isAway(boundaries[k].needs) {
		return errBroken
	}
	return ctx.Err()
}

// start begins a new process on a machine.
func (m *machine) start() {
	m.starts++
	w := m.w
	p := &process{w: w, on: m, name: fmt.Sprintf("%s#%d", m.name, m.starts), id: uuid.New(), booted: make(chan struct{}), drained: make(chan struct{})}
	p.life = &life{name: p.name, owner: p.id.String()}
	w.database.register(p.life)
	w.lives, w.processes = append(w.lives, p.life), append(w.processes, p)
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.writer = newWriter(p)
	m.set(p)
	w.s.trace.notef("%s starts", p.name)
	failed := make(chan struct{})
	go func() {
		defer close(p.booted)
		if err := p.boot(); err != nil {
			close(failed)
		}
	}()
	w.watch(p, failed, p.booted)
}

func (m *machine) set(p *process) {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	m.process = p
}

// boot does what serve does at its start, in its order.
func (p *process) boot() (err error) {
	if p.disk, err = p.on.open(); err != nil {
		return err
	}
	if p.owner, err = sweep.StartOwner(p.ctx, &leasePool{p}, p.id, p.w.log); err != nil {
		return err
	}
	ctx, end := context.WithCancel(p.ctx)
	p.draining = end
	go p.drain(ctx)
	p.sweeper = sweep.StartSweeper(p.ctx, sweep.Config{Pool: &leasePool{p}, Ledger: &sweptLedger{p.writer}, Owner: p.id, Log: p.w.log})
	p.follow()
	p.gateway = p.makeGateway()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ready = true
	return nil
}

// sweptLedger is a process's ledger for its sweeper. It notes, for the auditor, when a refund was asked
// for.
type sweptLedger struct{ *writer }

// Append implements sweep.Ledger.
func (l *sweptLedger) Append(ctx context.Context, c domain.Command) (domain.Outcome, error) {
	w := l.p.w
	w.mu.Lock()
	if id := c.Op.Request().String(); w.swept[id].IsZero() {
		w.swept[id] = time.Now()
	}
	w.mu.Unlock()
	return l.writer.Append(withCaller(ctx, "sweeper"), c)
}

// run starts what runs until the process ends.
func (p *process) run(do func(context.Context)) { p.runs.Go(func() { do(p.ctx) }) }

// follow starts the relay and the projector.
func (p *process) follow() {
	if p.w.bug == bugLateCommits {
		p.run((&naiveRelay{p: p}).run)
	} else {
		p.relay = relay.Start(p.ctx, relay.Config{Topic: &brokerClient{p}, Name: topicName, Ledger: &follower{p}, Pool: &leasePool{p},
			Owner: p.id, Log: p.w.log})
	}
	keeper := &lease.Keeper{Pool: &leasePool{p}, Owner: p.id, Log: p.w.log}
	p.run(func(ctx context.Context) {
		keeper.Run(ctx, []string{projectorLease}, func(ctx context.Context, _ string) error { return (&projector{p: p}).run(ctx) })
	})
}

func (p *process) makeGateway() *gateway.Gateway {
	g, err := gateway.New(gateway.Config{
		Ledger: p.writer, Facts: &facts{p}, Projections: &views{p}, Balances: &cacheClient{p}, Journal: &journalClient{p}, Keys: &keys{p.w},
		Tokens: allTokens(), Catalog: func() *gateway.Catalog {
			return &gateway.Catalog{Prices: pricebook.Builtin(), Providers: map[string]provider.Provider{provider.SimulatedName: &model{p}}}
		},
		Owner: p.id, Owned: p.owner.Held, Currency: "USD", DefaultBalance: domain.MustAmount(p.w.plan.balance),
		ReservePolicy: gateway.ReservePolicy(p.w.plan.policy), Version: "simulation", Environment: "development",
		Metrics: allMetrics(), Log: p.w.log,
	})
	if err != nil {
		panic(err)
	}
	return g
}

// die ends a process at this instant. Of what it has under way in Postgres, the foremost of each lane
// may have left it already: a coin says so.
func (p *process) die() {
	p.mu.Lock()
	p.gone = true
	p.mu.Unlock()
	p.life.ended = true
	p.on.set(nil)
	under := slices.DeleteFunc(p.w.s.waiting(), func(q *parked) bool { return q.proc != p || q.loose })
	p.loosen(under)
	for _, q := range under {
		if !q.loose {
			p.w.s.release(q, dead)
		}
	}
	p.cancel()
	p.runs.Go(p.bury)
}

// bury ends what does not end with the process's context, once nothing of it has any effect.
func (p *process) bury() {
	<-p.booted
	if p.disk != nil { // first: who comes back needs it
		p.disk.Close() //nolint:errcheck // what it acknowledged was durable before
	}
	if p.owner != nil {
		p.owner.Close()
	}
	if p.sweeper != nil {
		p.sweeper.Close()
		<-p.drained
	}
	if p.relay != nil {
		p.relay.Close()
	}
	if p.gateway != nil {
		p.gateway.Close()
	}
}

// freeze stops a process for a while. What has left it goes on.
func (p *process) freeze(d time.Duration) {
	p.mu.Lock()
	p.frozen = time.Now().Add(d)
	p.mu.Unlock()
	p.loosen(slices.DeleteFunc(p.w.s.waiting(), func(q *parked) bool { return q.proc != p }))
}

// loosen lets some of a process's calls have left it: of those to the ledger the foremost of each lane, as a
// coin says.
func (p *process) loosen(calls []*parked) {
	p.w.s.mu.Lock()
	defer p.w.s.mu.Unlock()
	for _, q := range calls {
		if q.flight != nil && q.flight.foremost() && p.w.s.rng.IntN(2) == 0 {
			q.loose = true
		}
	}
}

// thaw lets a frozen process go on.
func (p *process) thaw() {
	if !p.isFrozen(time.Now()) {
		return
	}
	p.mu.Lock()
	p.frozen = time.Now()
	p.mu.Unlock()
}

const (
	drainTime   = 10 * time.Second // requests under way may end, when a process is told to
	leaveTime   = time.Second      // between becoming unready and taking no more requests
	journalTime = 3 * time.Second  // for the ledger to take what is in the journal
	relayTime   = 3 * time.Second  // for the topic to have everything
)

// stop ends a process in order, as serve does: each stage is a step of its own.
func (p *process) stop() {
	p.gateway.Leave()
	p.wait(leaveTime)
	p.stage("takes no more requests")
	p.mu.Lock()
	p.leaving = true
	p.mu.Unlock()
	p.endRequests()
	p.stage("ends its sweeper")
	p.sweeper.Close()
	for waited := time.Duration(0); waited < journalTime && p.waiting() > 0 && !p.isDead(); waited += journalTime / 10 {
		p.wait(journalTime / 10)
	}
	p.stage("drains its journal no longer")
	p.draining()
	<-p.drained
	p.stage("gives its lease up")
	p.owner.Close()
	p.endRelay()
	p.stage("ends")
	p.cancel()
}

// waiting is how many commands its journal has.
func (p *process) waiting() int {
	n, _, _ := p.disk.Waiting()
	return n
}

func (p *process) endRequests() {
	ended := make(chan struct{})
	go func() {
		p.serving.Wait()
		p.gateway.Close()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(drainTime):
		p.stage("waits no longer")
		p.gateway.Stop()
		<-ended
	}
}

func (p *process) endRelay() {
	p.stage("ends its relay")
	if p.relay == nil {
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, relayTime)
	defer cancel()
	p.relay.Drain(ctx) //nolint:errcheck // the next relay goes on where this one ended
	p.relay.Close()
}

func (p *process) stage(what string) {
	p.enter(context.Background(), kindOutside, what) //nolint:errcheck // a process that is dead ends all the same
}

// wait lets a time pass in the process, or its death.
func (p *process) wait(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.ctx.Done():
	}
}

// keys finds the identity of an attempt by its own key, which the events then name.
type keys struct{ w *world }

// Lookup implements gateway.Keys.
func (k *keys) Lookup(_ context.Context, hash [sha256.Size]byte) (*gateway.Identity, error) {
	return k.w.identities[hash], nil
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
