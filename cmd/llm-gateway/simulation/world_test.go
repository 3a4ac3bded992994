package simulation

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/gateway"
	"llm-gateway/ledger"
)

// world is everything in one run.
type world struct {
	s    *scheduler
	plan *plan
	bug  bug
	log  *slog.Logger
	dir  func() string // a directory of the run's own, made when it is first asked for

	store    store
	slow     atomic.Bool // the next batch of the ledger answers late
	database *database
	broker   *broker
	cache    *cache
	machines []*machine

	attempts   map[string]*attempt
	order      []*attempt // as planned
	identities map[[sha256.Size]byte]*gateway.Identity
	lives      []*life
	processes  []*process    // all that ever were
	over       chan struct{} // closed when clients are not to wait any more
	clients    sync.WaitGroup
	idle       chan struct{} // closed when all clients have ended

	quiet   bool     // nothing goes wrong any more
	leaks   []string // what stayed reserved though nothing was in the way
	calmed  time.Time
	due     []event
	crashes int
	freezes int
	tally   tally

	mu       sync.Mutex              // guards all below
	requests map[uuid.UUID]string    // the attempt of each billing request
	tried    map[uuid.UUID]time.Time // when the end of a request first failed
	unended  map[uuid.UUID]bool      // requests whose end nobody took
	kept     map[string]time.Time    // when a request's end was first on a disk
	swept    map[string]time.Time    // when a sweeper first asked for a refund
	alarms   []alarm
	outages  []span // of Postgres
	away     [services]time.Time
	credits  []*credited
}

// event is something that the scheduler does at a time.
type event struct {
	at time.Time
	do func()
}

func newWorld(seed uint64, b bug, t *trace, dir func() string) *world {
	w := &world{
		s: newScheduler(seed, t), bug: b, log: discard(), dir: dir,
		attempts: map[string]*attempt{}, identities: map[[sha256.Size]byte]*gateway.Identity{},
		over: make(chan struct{}), idle: make(chan struct{}), requests: map[uuid.UUID]string{},
		tried: map[uuid.UUID]time.Time{}, unended: map[uuid.UUID]bool{}, kept: map[string]time.Time{}, swept: map[string]time.Time{}, tally: tally{},
	}
	w.plan = makePlan(rand.New(rand.NewPCG(seed, 1)))
	w.store = w.openStore()
	w.database = newDatabase(w.store.Meta())
	w.broker, w.cache = newBroker(w.plan.shards, b), newCache(b)
	for i := range w.plan.gateways {
		w.machines = append(w.machines, &machine{w: w, name: fmt.Sprintf("g%d", i+1), paper: newPaper(w)})
	}
	for _, c := range w.plan.clients {
		for _, call := range c.calls {
			for _, p := range call.attempts {
				w.enrol(w.makeAttempt(call, p))
			}
			if call.reads != nil {
				w.enrol(w.makeAttempt(call, call.reads))
			}
		}
	}
	return w
}

// enrol makes an attempt and its key known.
func (w *world) enrol(a *attempt) {
	w.attempts[a.name], w.order = a, append(w.order, a)
	w.identities[gateway.HashKey(secretOf(a.name))] = a.identity()
}

// openStore opens the ledger: in memory, or the careless one where a bug of the ledger is planted.
func (w *world) openStore() store {
	if careless[w.bug] {
		return newCarelessLedger(w)
	}
	return ledger.NewMemory(uuid.New(), w.plan.shards, "USD", time.Now, ledger.Hooks{Appended: func(events []domain.Recorded) {
		if w.slow.CompareAndSwap(true, false) {
			w.s.park(context.Background(), &parked{kind: kindAnswer, name: fmt.Sprintf("ledger answers for shard %d", events[0].Event.Shard)})
		}
	}})
}

func (w *world) attempt(name string) *attempt {
	a := w.attempts[name]
	if a == nil {
		panic("no attempt is named " + name)
	}
	return a
}

// processOn is what runs on a machine; nil: nothing that takes requests.
func (w *world) processOn(i int) *process {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.machines[i].process; p != nil && p.takesRequests() {
		return p
	}
	return nil
}

func (w *world) isAway(s service) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return s != noService && time.Now().Before(w.away[s])
}

// eventsOf is what the ledger has of a shard.
func (w *world) eventsOf(shard int32) []domain.Recorded {
	events, err := w.store.Events(context.Background(), shard, 0, ledger.MaxEvents)
	if err != nil {
		panic(err)
	}
	return events
}

// start begins the run: processes first, then who uses them.
func (w *world) start() {
	for _, m := range w.machines {
		m.start()
	}
	for _, c := range w.plan.clients {
		w.clients.Go(func() { w.runClient(c) })
	}
	for i, c := range w.plan.credits {
		w.credits = append(w.credits, &credited{account: c.account, amount: c.amount, reference: c.reference})
		w.clients.Go(func() { w.runCredit(i, c) })
	}
	go func() {
		w.clients.Wait()
		close(w.idle)
	}()
}

// later lets the scheduler do something at a time from now.
func (w *world) later(d time.Duration, do func()) {
	w.due = append(w.due, event{time.Now().Add(d), do})
	slices.SortStableFunc(w.due, func(a, b event) int { return a.at.Compare(b.at) })
}

// doDue does the first thing that is due, and says whether there was one.
func (w *world) doDue() bool {
	if len(w.due) == 0 || time.Now().Before(w.due[0].at) {
		return false
	}
	e := w.due[0]
	w.due = w.due[1:]
	e.do()
	return true
}
