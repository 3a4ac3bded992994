package simulation

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/gateway"
	"llm-gateway/ledger"
)

// store is the ledger that all processes share: ledger.Memory, or a careless one in which a bug is
// planted.
type store interface {
	gateway.Ledger
	gateway.Facts
	Meta() ledger.Meta
	Events(ctx context.Context, shard int32, after int64, limit int) ([]domain.Recorded, error)
	Heads(ctx context.Context) ([]ledger.Head, error)
	Close()
}

// callerKey is where a context says for whom something is done.
type callerKey struct{}

func withCaller(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, callerKey{}, name)
}

func callerOf(ctx context.Context) string {
	name, _ := ctx.Value(callerKey{}).(string)
	return name
}

// The pauses of a writer between two tries, as ledger.Ledger makes them, and how long it tries.
const (
	firstPause  = 10 * time.Millisecond
	longPause   = time.Second
	retryWindow = 60 * time.Second
)

// writer is a process's way to the ledger, as a ledger.Postgres of its own would be: what its callers
// ask for goes on without them, in order within a lane, and is tried again under the same id until it is
// decided or its time is over.
type writer struct {
	p *process

	mu    sync.Mutex  // guards all below
	lanes [][]*flight // what is under way
	names map[string]int
}

func newWriter(p *process) *writer {
	return &writer{p: p, lanes: make([][]*flight, p.w.plan.shards), names: map[string]int{}}
}

// answer is what a command comes to.
type answer struct {
	outcome domain.Outcome
	err     error
}

// flight is a command on its way.
type flight struct {
	p       *process
	name    string
	command domain.Command
	lane    int32
	began   time.Time
	until   time.Time // no new try after this
	done    chan answer
}

// Append implements gateway.Ledger.
func (w *writer) Append(ctx context.Context, c domain.Command) (domain.Outcome, error) {
	if w.p.isDead() {
		return domain.Outcome{}, unavailable(errDead)
	}
	if w.p.w.bug == bugForgottenRefund && isAbort(c.Op) {
		return domain.Outcome{}, nil
	}
	f, err := w.launch(ctx, c), error(nil)
	select {
	case a := <-f.done:
		w.p.w.ended(c, a.err)
		return a.outcome, a.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	w.p.w.ended(c, err)
	return domain.Outcome{}, err
}

// ended notes whether the end of a request was made durable. One that neither the ledger nor the disk took
// for as long as it is insisted on may stay reserved as long as its owner lives.
func (w *world) ended(c domain.Command, err error) {
	if _, reserve := c.Op.(domain.Reserve); reserve || c.Op.Request() == uuid.Nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	id := c.Op.Request()
	switch began, tried := w.tried[id]; {
	case err == nil:
		delete(w.unended, id)
	case !tried:
		w.tried[id] = time.Now()
	case time.Since(began) > insistTime:
		w.unended[id] = true
	}
}

// insistTime is a little less than a gateway insists on a settlement.
const insistTime = 59 * time.Second

func unavailable(cause error) error { return fmt.Errorf("%w: %w", domain.ErrUnavailable, cause) }

func isAbort(op domain.Op) bool {
	o, release := op.(domain.Release)
	return release && o.Reason == domain.RefundClientAbort
}

func (w *writer) launch(ctx context.Context, c domain.Command) *flight {
	name := w.p.w.describe(callerOf(ctx), c)
	f := &flight{p: w.p, command: c, until: time.Now().Add(retryWindow), done: make(chan answer, 1),
		lane: domain.ShardOf(c.Account, w.p.w.plan.shards), began: time.Now()}
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(f.until) {
		f.until = deadline
	}
	w.mu.Lock()
	w.names[name]++
	f.name = fmt.Sprintf("%s appends %s #%d", w.p.name, name, w.names[name])
	w.lanes[f.lane] = append(w.lanes[f.lane], f)
	w.mu.Unlock()
	go f.fly()
	return f
}

// foremost says whether a flight is the first of its lane: the others wait for it. Of those that began at
// one instant, where nobody can tell who came first, it is the first by name.
func (f *flight) foremost() bool {
	w := f.p.writer
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, other := range w.lanes[f.lane] {
		if other.began.Before(f.began) || other.began.Equal(f.began) && other.name < f.name {
			return false
		}
	}
	return true
}

func (f *flight) end() {
	w := f.p.writer
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lanes[f.lane] = slices.DeleteFunc(w.lanes[f.lane], func(other *flight) bool { return other == f })
}

// fly tries until the command is decided.
func (f *flight) fly() {
	defer f.end()
	if f.answeredEarly() {
		f.done <- answer{}
	}
	for pause, next := firstPause, (time.Time{}); ; pause = min(2*pause, longPause) {
		a, decided := f.try(next, pause == firstPause)
		if !decided && time.Now().Add(pause).After(f.until) {
			a, decided = answer{err: unavailable(errBroken)}, true
		}
		if decided {
			select {
			case f.done <- a:
			default: // a planted bug has answered already
			}
			return
		}
		next = time.Now().Add(pause)
	}
}

// answeredEarly is a planted bug.
func (f *flight) answeredEarly() bool {
	_, reserve := f.command.Op.(domain.Reserve)
	_, settle := f.command.Op.(domain.Settle)
	return reserve && f.p.w.bug == bugEarlyReserve || settle && f.p.w.bug == bugEarlySettlement
}

// try is one try. What was done and got no answer is found by its id when it is tried again. Only the
// first can meet a full queue.
func (f *flight) try(after time.Time, first bool) (a answer, decided bool) {
	switch f.p.w.s.park(context.Background(), &parked{name: f.name, proc: f.p, flight: f, kind: kindAppend, after: after}) {
	case dead:
		return answer{err: unavailable(errDead)}, true
	case failBefore:
		return answer{}, false
	case failAfter:
		f.commit()
		return answer{}, false
	case refused:
		return answer{err: domain.ErrOverloaded}, first
	case twice:
		f.commit()
		return f.commit(), true
	case slow:
		f.p.w.slow.Store(true)
	}
	return f.commit(), true
}

// commit hands the command to the ledger; new events are handed to the process's relay.
func (f *flight) commit() answer {
	out, err := f.p.w.store.Append(withFlight(context.Background(), f), f.command)
	if err == nil && !out.Repeated && f.p.relay != nil {
		f.p.relay.Feed(out.Events)
	}
	return answer{out, err}
}

// flightKey is where a context has the flight that it is for: planted bugs look at it.
type flightKey struct{}

func withFlight(ctx context.Context, f *flight) context.Context {
	return context.WithValue(ctx, flightKey{}, f)
}

// describe names a command after the attempt that it is about, and whoever asks for it where that is
// another.
func (w *world) describe(caller string, c domain.Command) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	about := c.Account
	if o, ok := c.Op.(domain.Reserve); ok {
		w.requests[o.RequestID] = o.Data.KeyID
	}
	if id := c.Op.Request(); id != uuid.Nil {
		about = w.requests[id]
	}
	if caller == about {
		caller = ""
	}
	what := fmt.Sprintf("%T", c.Op)[len("domain."):]
	switch o := c.Op.(type) {
	case domain.Release:
		what += " " + string(o.Reason)
	case domain.Credit:
		what += " " + o.Data.Reference
	}
	if caller != "" {
		about = caller + ": " + about
	}
	return about + " " + what
}

// facts is how a process reads the ledger.
type facts struct{ p *process }

func (f *facts) read(ctx context.Context, what string) error {
	if _, err := f.p.enter(ctx, kindRead, callerOf(ctx)+" reads "+what); err != nil {
		return unavailable(err)
	}
	return nil
}

// Account implements gateway.Facts.
func (f *facts) Account(ctx context.Context, name string) (*domain.Account, error) {
	if err := f.read(ctx, "the account"); err != nil {
		return nil, err
	}
	if row, _ := f.p.w.database.tables.balance(name, domain.ShardOf(name, f.p.w.plan.shards)); row != nil && f.p.w.bug == bugStaleHead {
		return row, nil
	}
	return f.p.w.store.Account(ctx, name)
}

// Request implements gateway.Facts.
func (f *facts) Request(ctx context.Context, account string, id uuid.UUID) ([]domain.Recorded, error) {
	if err := f.read(ctx, "the request"); err != nil {
		return nil, err
	}
	return f.p.w.store.Request(ctx, account, id)
}

// Witnessed implements gateway.Facts.
func (f *facts) Witnessed(ctx context.Context, account string, id uuid.UUID) ([]domain.Witnessed, error) {
	if err := f.read(ctx, "the request"); err != nil {
		return nil, err
	}
	return f.p.w.store.Witnessed(ctx, account, id)
}

// BalanceAt implements gateway.Facts.
func (f *facts) BalanceAt(ctx context.Context, account string, at time.Time) (domain.Past, error) {
	if err := f.read(ctx, "the past"); err != nil {
		return domain.Past{}, err
	}
	return f.p.w.store.BalanceAt(ctx, account, at)
}

// Response implements gateway.Facts.
func (f *facts) Response(ctx context.Context, account string, id uuid.UUID) (*domain.Response, error) {
	if err := f.read(ctx, "the answer"); err != nil {
		return nil, err
	}
	return f.p.w.store.Response(ctx, account, id)
}

// Statement implements gateway.Statements.
func (f *facts) Statement(ctx context.Context, account string, m domain.Month) (*domain.Statement, error) {
	if err := f.read(ctx, "a statement"); err != nil {
		return nil, err
	}
	return f.p.w.store.Statement(ctx, account, m)
}

// follower is how a process's relay and projector read the ledger.
type follower struct{ p *process }

// Meta implements relay.Ledger.
func (f *follower) Meta() ledger.Meta { return f.p.w.store.Meta() }

// Events implements relay.Ledger.
func (f *follower) Events(ctx context.Context, shard int32, after int64, limit int) ([]domain.Recorded, error) {
	if _, err := f.p.enter(ctx, kindRead, fmt.Sprintf("relay reads shard %d", shard)); err != nil {
		return nil, err
	}
	return f.p.w.store.Events(ctx, shard, after, limit)
}

// Heads implements relay.Ledger.
func (f *follower) Heads(ctx context.Context) ([]ledger.Head, error) {
	if err := f.p.look(ctx, kindRead, "relay looks at the heads"); err != nil {
		return nil, err
	}
	return f.p.w.store.Heads(ctx)
}
