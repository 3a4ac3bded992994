package sweep

import (
	"context"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
)

// The bounds of a round.
const (
	LookLimit = 1024 // orphans that one look brings
	inFlight  = 256  // releases that wait for the ledger at once: a full batch
	tidyLimit = 500  // rows of each table that one tidying deletes
)

// Ledger is the one door.
type Ledger interface {
	Append(ctx context.Context, c domain.Command) (domain.Outcome, error)
}

// Orphan is an open reservation whose owner has no lease.
type Orphan struct {
	RequestID uuid.UUID
	Account   string
	Owner     uuid.UUID
}

// Look is what a sweeper sees of Postgres at one moment.
type Look struct {
	Started time.Time // when the server began, by its own account
	Now     time.Time // the server's clock
	Orphans []Orphan
}

// Store is where a sweeper looks, and what it tidies.
type Store interface {
	// Look brings at most limit orphans, as of one moment after it was called.
	Look(ctx context.Context, limit int) (Look, error)
	// Tidy deletes what nobody needs any more, at most limit rows of each kind, and says whether more may
	// be left.
	Tidy(ctx context.Context, limit int) (more bool, err error)
}

// Hooks let the wiring watch the sweeper; nil functions are not called. They must not block.
type Hooks struct {
	Swept  func(n int)     // so many orphans were refunded
	Failed func(err error) // a round failed, or a part of it
}

// Rounds is a sweeper's work, one step after the other, without a lease or a pause of its own:
// StartSweeper drives it, and so may a simulation. A look only reads; that Postgres takes writes, which
// owners need, is known by the sweeper's lease, so a Rounds lives as long as one hold of it. Its fields
// are set before the first Step. It is not safe for concurrent use.
type Rounds struct {
	Store  Store
	Ledger Ledger
	Log    *slog.Logger     // nil = slog.Default()
	Now    func() time.Time // a clock that never goes back; nil = time.Now
	Hooks  Hooks

	times    times // zero = usual
	watch    watch
	tidyAt   time.Time // not before
	failing  bool      // the last round left something that failed
	observed func(acts bool, look Look)
}

// Step looks once and, where Postgres has been seen for long enough, refunds the orphans that it found.
// It returns after which pause the next step is due. After an error the count starts anew. ctx is that
// of the lease, and ends a step early: what the ledger has been handed is waited for, at most
// appendTime.
func (r *Rounds) Step(ctx context.Context) (pause time.Duration, err error) {
	r.fill()
	began := r.Now()
	look, acts, err := r.look(ctx, began)
	if err == nil && acts {
		var more bool
		if more, err = r.sweep(ctx, began, look.Orphans); err == nil && more {
			return 0, nil
		}
		if err == nil && r.tidy(ctx) {
			return r.times.tidyPause, nil
		}
	}
	if err != nil {
		r.watch.broke()
		r.failed(ctx, err)
	}
	return r.times.every, err
}

func (r *Rounds) fill() {
	if r.times == (times{}) {
		r.times = usual
	}
	if r.Now == nil {
		r.Now = time.Now
	}
	if r.Log == nil {
		r.Log = slog.Default()
	}
}

// look looks, and says whether what it found may be acted on.
func (r *Rounds) look(ctx context.Context, began time.Time) (look Look, acts bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.times.look)
	defer cancel()
	if look, err = r.Store.Look(ctx, LookLimit); err != nil {
		return Look{}, false, err
	}
	acts = r.watch.saw(began, r.Now(), look, r.times)
	if r.observed != nil {
		r.observed(acts, look)
	}
	return look, acts, nil
}

// tidy tidies up when it is time to, and says whether it should go on soon. Where it fails, it is tried
// again when it is time again: sweeping does not depend on it.
func (r *Rounds) tidy(ctx context.Context) (more bool) {
	now := r.Now()
	if now.Before(r.tidyAt) {
		return false
	}
	bounded, cancel := context.WithTimeout(ctx, r.times.tidy)
	defer cancel()
	more, err := r.Store.Tidy(bounded, tidyLimit)
	if err != nil {
		r.Log.Warn("the sweeper could not tidy up", "error", err)
		r.failed(ctx, err)
	}
	if err != nil || !more {
		r.tidyAt = now.Add(r.times.tidyEvery)
	}
	return err == nil && more
}

// failed tells of a failure, unless it comes from the end.
func (r *Rounds) failed(ctx context.Context, err error) {
	if r.Hooks.Failed != nil && ctx.Err() == nil {
		r.Hooks.Failed(err)
	}
}
