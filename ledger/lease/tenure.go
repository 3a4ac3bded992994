package lease

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// tenure is one Run of a Keeper. Its fields belong to Run's goroutine.
type tenure struct {
	keeper      *Keeper
	ctx         context.Context // Run's
	names       []string
	hold        func(ctx context.Context, name string) error
	term, every time.Duration
	retry       time.Duration
	log         *slog.Logger
	away        bool // the last round failed

	held   map[string]*held     // until their goroutine has ended
	resign map[string]time.Time // names that are left to others until then
	ended  chan *held           // has room for one of each name
}

func newTenure(ctx context.Context, k *Keeper, names []string, hold func(context.Context, string) error) *tenure {
	t := &tenure{
		keeper: k, ctx: ctx, names: sorted(names), hold: hold, term: k.Term, every: k.Every, retry: k.Retry, log: k.Log,
		held: map[string]*held{}, resign: map[string]time.Time{},
	}
	if t.term <= 0 {
		t.term = Term
	}
	if t.every <= 0 {
		t.every = Every
	}
	if t.retry <= 0 {
		t.retry = t.every / 4
	}
	if t.log == nil {
		t.log = slog.Default()
	}
	t.ended = make(chan *held, len(t.names))
	return t
}

// round takes and renews once, and starts and ends holds accordingly.
func (t *tenure) round() error {
	began := time.Now()
	wanted := slices.DeleteFunc(slices.Clone(t.names), func(name string) bool { return began.Before(t.resign[name]) })
	if len(wanted) == 0 {
		return nil
	}
	ours, err := t.take(wanted)
	if err != nil {
		return err
	}
	until := began.Add(t.term - t.term/margin)
	if !time.Now().Before(until) {
		return errStopped
	}
	if t.keeper.Renewed != nil {
		t.keeper.Renewed(ours, until)
	}
	for _, name := range ours {
		if h := t.held[name]; h != nil {
			h.extend(until) // one whose time was over stays so, and is followed by a new one when it has ended
		} else if t.ctx.Err() == nil {
			t.start(name, until)
		}
	}
	for name, h := range t.held {
		if !slices.Contains(ours, name) {
			h.cancel(ErrLost)
		}
	}
	return nil
}

// tell logs the beginning and the end of a time without Postgres.
func (t *tenure) tell(err error) {
	if away := err != nil; away != t.away {
		t.away = away
		if away {
			t.log.Warn("leases cannot be renewed; what runs under them ends with them", "error", err)
		} else {
			t.log.Info("leases are renewed again")
		}
	}
}

// wait lets a pause pass, and takes back what ends meanwhile.
func (t *tenure) wait(pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select { // before the next round, which would take a lease again that is to be left to others
		case h := <-t.ended:
			t.forget(h)
			continue
		default:
		}
		select {
		case h := <-t.ended:
			t.forget(h)
		case <-timer.C:
			return
		case <-t.ctx.Done():
			return
		}
	}
}

// forget takes back a hold that has ended. Where it gave up, others may try.
func (t *tenure) forget(h *held) {
	delete(t.held, h.name)
	if h.resigned {
		t.log.Warn("a lease is left to others for a while: what runs under it keeps failing", "lease", h.name)
		t.resign[h.name] = time.Now().Add(t.term)
		t.release([]string{h.name})
	}
}

// end waits for all holds and gives the leases up.
func (t *tenure) end() {
	for len(t.held) > 0 {
		h := <-t.ended
		delete(t.held, h.name)
	}
	t.release(t.names)
}

func (t *tenure) start(name string, until time.Time) {
	h := &held{name: name, until: until}
	h.ctx, h.cancel = context.WithCancelCause(t.ctx)
	h.timer = time.AfterFunc(time.Until(until), h.check)
	t.held[name] = h
	go func() { // owned by the tenure: end waits for it
		defer func() { t.ended <- h }()
		defer h.timer.Stop()
		defer h.cancel(nil)
		h.resigned = t.serve(h)
	}()
}

// serve runs hold again and again as long as the lease is held. It reports true where hold has failed
// so often that others should try.
func (t *tenure) serve(h *held) (resigned bool) {
	ctx := leaseContext{h.ctx, h}
	failures := 0
	for pause := firstPause; ctx.Err() == nil; pause = min(2*pause, longPause) {
		began := time.Now()
		err := t.hold(ctx, h.name)
		if ctx.Err() != nil {
			return false
		}
		if err == nil || time.Since(began) >= steady*t.term {
			pause, failures = firstPause, 0
		}
		if err != nil {
			failures++
			t.log.Warn("what runs under a lease failed; it is started again", "lease", h.name, "pause", pause, "error", err)
		}
		if failures >= patience {
			return true
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return false
}

// held is one lease while it is held, and until what ran under it has ended.
type held struct {
	name     string
	ctx      context.Context
	cancel   context.CancelCauseFunc
	timer    *time.Timer // runs check at until
	resigned bool        // set before the end is told

	mu    sync.Mutex
	until time.Time // by the monotonic clock: a little before the lease ends
}

// extend moves the end of the lease, unless it has passed.
func (h *held) extend(until time.Time) {
	h.check()
	if h.ctx.Err() != nil {
		return
	}
	h.mu.Lock()
	h.until = until
	h.mu.Unlock()
	h.timer.Reset(time.Until(until))
}

// check ends the context when the lease's time is over.
func (h *held) check() {
	h.mu.Lock()
	over := !time.Now().Before(h.until)
	h.mu.Unlock()
	if over {
		h.cancel(ErrLost)
	}
}

// leaseContext is a hold's context. It looks at the clock itself: in a process that was stopped,
// timers are late.
type leaseContext struct {
	context.Context
	held *held
}

// Err implements context.Context.
func (c leaseContext) Err() error {
	if err := c.Context.Err(); err != nil {
		return err
	}
	c.held.check()
	return c.Context.Err()
}

// Lost says whether a hold's context ended because of its lease, and not because all ends.
func Lost(ctx context.Context) bool { return errors.Is(context.Cause(ctx), ErrLost) }
