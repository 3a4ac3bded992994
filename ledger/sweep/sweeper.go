package sweep

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"llm-gateway/ledger/lease"
)

// sweeperLease says who sweeps.
const sweeperLease = "sweeper"

// Config says where a sweeper looks, and through what it refunds.
type Config struct {
	Pool   lease.Pool
	Ledger Ledger
	Owner  uuid.UUID    // this process start
	Log    *slog.Logger // nil = slog.Default()
	Hooks  Hooks

	times       times // tests shorten them; zero = usual
	term, renew time.Duration
	observed    func(acts bool, look Look)
}

// Sweeper sweeps whenever this process holds the lease for it. Close ends it.
type Sweeper struct {
	config Config
	cancel context.CancelFunc
	wait   sync.WaitGroup
}

// StartSweeper runs a sweeper until Close, or until ctx ends. Postgres need not be there yet.
func StartSweeper(ctx context.Context, c Config) *Sweeper {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	s := &Sweeper{config: c}
	ctx, s.cancel = context.WithCancel(ctx)
	keeper := &lease.Keeper{Pool: c.Pool, Owner: c.Owner, Log: c.Log, Term: c.term, Every: c.renew}
	s.wait.Go(func() { keeper.Run(ctx, []string{sweeperLease}, s.hold) })
	return s
}

// Close ends sweeping, gives the lease up, and returns when all has ended: what the ledger has been
// handed is waited for, at most appendTime.
func (s *Sweeper) Close() {
	s.cancel()
	s.wait.Wait()
}

// hold sweeps as long as the lease is held. Its count starts with it. An error ends it, so that the
// lease is left to others where this process cannot do the work.
func (s *Sweeper) hold(ctx context.Context, _ string) error {
	r := &Rounds{
		Store: NewStore(s.config.Pool), Ledger: s.config.Ledger, Log: s.config.Log, Hooks: s.config.Hooks,
		times: s.config.times, observed: s.config.observed,
	}
	for ctx.Err() == nil {
		pause, err := r.Step(ctx)
		if err != nil {
			return err
		}
		sleep(ctx, pause)
	}
	return context.Cause(ctx)
}

// sleep lets a time pass, or ctx end.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
