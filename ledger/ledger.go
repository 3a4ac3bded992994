package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"llm-gateway/domain"
)

// The bounds of the writer.
const (
	MaxBatch    = 256              // commands in one database transaction
	maxKept     = 4 << 20          // bytes of answers kept in one, beyond its last command's: what fits attemptTime
	queueLength = 8192             // commands that wait in one lane; one more is domain.ErrOverloaded
	RetryWindow = 60 * time.Second // how long a command is tried while Postgres is away
	attemptTime = 8 * time.Second  // one try of one batch
	firstPause  = 10 * time.Millisecond
	longPause   = time.Second
)

// ErrClosed says that the ledger has been closed; nothing happened.
var ErrClosed = errors.New("ledger closed")

// store makes one batch of commands durable in one step: all that it accepts, or nothing. The
// answers are in the order of the commands. A lane is used by one caller at a time.
//
// An error means that no answer is known. guilty says whether a command of the batch caused it
// (then splitting finds it); any other error may pass, and the batch is tried again. A command whose
// shard refuses is answered with the reason, and costs the others nothing.
type store interface {
	append(ctx context.Context, lane int, batch []domain.Command) ([]answer, error)
	guilty(err error) bool
	close()
}

// answer is what one command of a batch gets: an outcome, or the error that it alone caused.
type answer struct {
	outcome domain.Outcome
	err     error
}

// Hooks let the wiring watch the writer; nil functions are not called. They are called by lanes, at
// the same time by several, while callers wait: they must not block.
type Hooks struct {
	Batch func(size int, took time.Duration) // after each batch that became durable
	Retry func(err error)                    // before a batch is tried again

	// Appended is handed the new events of each batch that became durable, in order within each
	// shard, before the callers get their answers: whoever has an answer may rely on it that the
	// events were handed over. They are shared and must not be changed. What is found to have
	// happened before is not handed over again, so what a try wrote whose COMMIT got no answer never
	// is: whoever must have every event reads in the ledger what is missing here.
	Appended func(events []domain.Recorded)

	// Refused is told that a shard begins to refuse appends, or does so for another reason
	// (ErrTailLost, ErrTailUnknown), and with nil that it goes on.
	Refused func(shard int32, err error)
	// Lost is told that a ledger was recovered without events that this writer had seen committed.
	Lost func(err error)
}

// Ledger appends. It is safe for concurrent use; Close ends it.
type Ledger struct {
	store  store
	shards int
	lanes  []chan *pending
	hooks  Hooks
	now    func() time.Time
	window time.Duration // RetryWindow; tests shorten it before they append
	wait   sync.WaitGroup

	mu     sync.RWMutex // held for reading while queueing, for writing by Close
	closed bool
}

// pending is a command on its way. done has room for the one answer, so that a lane never waits
// for a caller.
type pending struct {
	command domain.Command
	until   time.Time // no new try after this
	done    chan answer
}

// start runs a writer over a store. lanes goroutines live until Close.
func start(s store, shards, lanes int, hooks Hooks) *Ledger {
	l := &Ledger{store: s, shards: shards, hooks: hooks, now: time.Now, window: RetryWindow}
	for i := range lanes {
		queue := make(chan *pending, queueLength)
		l.lanes = append(l.lanes, queue)
		l.wait.Go(func() { l.run(i, queue) })
	}
	return l
}

// Append makes a command happen and returns its outcome once it is durable. Errors: a
// *domain.Rejection (decided, nothing written), domain.ErrUnstorable, domain.ErrOverloaded, ErrClosed, or
// domain.ErrUnavailable and ctx's error, after which it is not known whether it happened. A shard that
// refuses (ErrTailLost, ErrTailUnknown, both domain.ErrUnavailable) says so at once. ctx bounds the
// waiting and, by its deadline, the tries; a try that is under way goes on without the caller.
func (l *Ledger) Append(ctx context.Context, c domain.Command) (domain.Outcome, error) {
	if err := c.Validate(); err != nil {
		return domain.Outcome{}, err
	}
	p := &pending{command: c, until: l.now().Add(l.window), done: make(chan answer, 1)}
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(p.until) {
		p.until = deadline
	}
	if err := l.enqueue(p); err != nil {
		return domain.Outcome{}, err
	}
	select {
	case a := <-p.done:
		return a.outcome, a.err
	case <-ctx.Done():
		return domain.Outcome{}, ctx.Err()
	}
}

func (l *Ledger) enqueue(p *pending) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return ErrClosed
	}
	lane := int(domain.ShardOf(p.command.Account, l.shards)) % len(l.lanes)
	select {
	case l.lanes[lane] <- p:
		return nil
	default:
		return domain.ErrOverloaded
	}
}

// Close stops accepting, lets what has queued become durable (or run out of its RetryWindow), and
// returns when the lanes have ended.
func (l *Ledger) Close() {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		for _, queue := range l.lanes {
			close(queue)
		}
	}
	l.mu.Unlock()
	l.wait.Wait()
	l.store.close()
}

// run is a lane: it takes what has queued, makes it durable, and answers, until the queue closes.
func (l *Ledger) run(lane int, queue <-chan *pending) {
	batch := make([]*pending, 0, MaxBatch)
	for first := range queue {
		batch = gather(append(batch[:0], first), queue)
		l.commit(lane, batch)
	}
}

// gather takes what has queued already, without waiting for more.
func gather(batch []*pending, queue <-chan *pending) []*pending {
	for kept := batch[0].keeps(); len(batch) < MaxBatch && kept < maxKept; {
		select {
		case p, ok := <-queue:
			if !ok {
				return batch
			}
			batch, kept = append(batch, p), kept+p.keeps()
		default:
			return batch
		}
	}
	return batch
}

// keeps is the length of the answer that a command keeps.
func (p *pending) keeps() int {
	if o, ok := p.command.Op.(domain.Settle); ok && o.Response != nil {
		return len(o.Response.Body)
	}
	return 0
}

// commit tries a batch until it is durable, has been split down to a guilty command, or has run out
// of time. Every member gets exactly one answer.
func (l *Ledger) commit(lane int, batch []*pending) {
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		answers, err := l.attempt(lane, batch)
		switch {
		case err == nil:
			l.handOver(answers)
			for i, p := range batch {
				p.done <- answers[i]
			}
			return
		case l.store.guilty(err) && len(batch) > 1:
			l.commit(lane, batch[:len(batch)/2])
			l.commit(lane, batch[len(batch)/2:])
			return
		case l.store.guilty(err):
			batch[0].done <- answer{err: fmt.Errorf("%w: %w", domain.ErrUnstorable, err)}
			return
		}
		if batch = l.expire(batch, pause, err); len(batch) == 0 {
			return
		}
		if l.hooks.Retry != nil {
			l.hooks.Retry(err)
		}
		time.Sleep(pause)
	}
}

// attempt is one try, on a context of its own: no caller can cancel it half-way.
func (l *Ledger) attempt(lane int, batch []*pending) ([]answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), attemptTime)
	defer cancel()
	commands := make([]domain.Command, len(batch))
	for i, p := range batch {
		commands[i] = p.command
	}
	began := l.now()
	answers, err := l.store.append(ctx, lane, commands)
	if err == nil && l.hooks.Batch != nil {
		if decided := len(batch) - refused(answers); decided > 0 {
			l.hooks.Batch(decided, l.now().Sub(began))
		}
	}
	return answers, err
}

// refused counts the commands whose shard took no appends.
func refused(answers []answer) (n int) {
	for _, a := range answers {
		if a.err != nil && errors.Is(a.err, domain.ErrUnavailable) {
			n++
		}
	}
	return n
}

// handOver tells what a batch has added. A command that stands in the batch twice is a repeat the
// second time.
func (l *Ledger) handOver(answers []answer) {
	if l.hooks.Appended == nil {
		return
	}
	var events []domain.Recorded
	for _, a := range answers {
		if a.err == nil && !a.outcome.Repeated {
			events = append(events, a.outcome.Events...)
		}
	}
	if len(events) > 0 {
		l.hooks.Appended(events)
	}
}

// expire answers the members whose time would be over after the pause, and returns the others.
func (l *Ledger) expire(batch []*pending, pause time.Duration, cause error) []*pending {
	next := l.now().Add(pause)
	var kept []*pending
	for _, p := range batch {
		if next.Before(p.until) {
			kept = append(kept, p)
			continue
		}
		p.done <- answer{err: fmt.Errorf("%w: %w", domain.ErrUnavailable, cause)}
	}
	return kept
}
