package sweep

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/ledger/lease"
)

// The times of an owner's lease.
const (
	OwnerTerm  = 10 * time.Second // it lasts so long from its last renewal; a sweeper must see Postgres as long
	OwnerEvery = 3 * time.Second  // between two renewals

	ownerRetry = 100 * time.Millisecond // between two tries while Postgres is away
	startTime  = 10 * time.Second       // to have the lease at the start
)

// Owner is this process's right to have reservations. It is safe for concurrent use; Close ends it.
type Owner struct {
	id    uuid.UUID
	log   *slog.Logger
	base  time.Time    // what until counts from: the monotonic clock has no zero of its own
	until atomic.Int64 // Held until this long after base

	closed atomic.Bool
	first  chan struct{} // closed when the lease is held for the first time
	once   sync.Once
	cancel context.CancelFunc
	wait   sync.WaitGroup
}

// ownerTimes are the constants above; tests shorten them.
type ownerTimes struct{ term, every, retry, start time.Duration }

var usualOwner = ownerTimes{OwnerTerm, OwnerEvery, ownerRetry, startTime}

// StartOwner takes the lease of an owner and keeps it until Close. It returns when the lease is held, or
// an error where it cannot be had within startTime, or ctx ends before: a gateway must not reserve then.
// ctx bounds nothing but that. log may be nil.
func StartOwner(ctx context.Context, pool lease.Pool, owner uuid.UUID, log *slog.Logger) (*Owner, error) {
	return startOwner(ctx, pool, owner, log, usualOwner)
}

func startOwner(ctx context.Context, pool lease.Pool, owner uuid.UUID, log *slog.Logger, t ownerTimes) (*Owner, error) {
	if owner == uuid.Nil {
		return nil, errors.New("an owner needs an id")
	}
	if log == nil {
		log = slog.Default()
	}
	o := &Owner{id: owner, log: log, base: time.Now(), first: make(chan struct{})}
	keeper := &lease.Keeper{Pool: pool, Owner: owner, Log: log, Term: t.term, Every: t.every, Retry: t.retry, Renewed: o.renewed}
	// Not on ctx: the lease is given up last, when all is settled.
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	o.cancel = cancel
	o.wait.Go(func() { keeper.Run(life, []string{ownerLease(owner)}, o.hold) })
	if err := o.begin(ctx, t.start); err != nil {
		o.Close()
		return nil, err
	}
	return o, nil
}

// ownerLease is the name of an owner's lease. The look builds it too.
func ownerLease(owner uuid.UUID) string { return "owner:" + owner.String() }

// begin waits until the lease is held.
func (o *Owner) begin(ctx context.Context, bound time.Duration) error {
	late := time.NewTimer(bound)
	defer late.Stop()
	select {
	case <-o.first:
		return nil
	case <-late.C:
		return fmt.Errorf("%w: this process could not get its lease within %s", domain.ErrUnavailable, bound)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// renewed is told after each renewal.
func (o *Owner) renewed(names []string, until time.Time) {
	if len(names) == 0 { // another process start with the same id: it shall be seen, not shared
		o.until.Store(0)
		return
	}
	o.until.Store(int64(until.Sub(o.base)))
	o.once.Do(func() { close(o.first) })
}

// hold does nothing under the lease but tell of its loss.
func (o *Owner) hold(ctx context.Context, _ string) error {
	<-ctx.Done()
	if lease.Lost(ctx) {
		o.log.Warn("this gateway's lease has run out: it reserves nothing until it is renewed", "owner", o.id)
	}
	return context.Cause(ctx)
}

// Held says whether the lease is held now, by this process's own monotonic clock. It looks at the
// clock itself: in a process that was stopped, timers are late. That is all it costs.
func (o *Owner) Held() bool {
	until := time.Duration(o.until.Load())
	return time.Since(o.base) < until && !o.closed.Load()
}

// Close gives the lease up, and with it what is still reserved: a gateway settles everything before. It
// returns within OwnerEvery, for a renewal that is under way, and the time that package lease takes for
// giving up. Where Postgres is away, the lease runs out.
func (o *Owner) Close() {
	o.closed.Store(true)
	o.cancel()
	o.wait.Wait()
}
