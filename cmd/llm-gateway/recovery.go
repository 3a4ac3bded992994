package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"llm-gateway/domain"
	"llm-gateway/gateway/observe"
	"llm-gateway/ledger"
	"llm-gateway/ledger/journal"
	"llm-gateway/ledger/sweep"
)

const (
	// leaseConns are the connections that leases are kept by: their own, so that nobody's slow query keeps
	// a living owner from being seen.
	leaseConns = 2
	// leasePing bounds the look whether a connection that rested is still one.
	leasePing = time.Second
	// drainJournal bounds how long an orderly end waits for the ledger to take what is in the journal. The
	// next start goes on.
	drainJournal = 3 * time.Second
)

// journalDir is where the journal of a DATA_DIR is.
func journalDir(dataDir string) string { return filepath.Join(dataDir, "journal") }

// recovery is what outlives a death: the journal of this DATA_DIR, the lease by which this process is
// known to live, and the sweeper that gives back what others reserved and can settle no more.
type recovery struct {
	journal *journal.Journal
	pool    *pgxpool.Pool
	owner   *sweep.Owner
	sweeper *sweep.Sweeper
	end     context.CancelFunc // of the draining
	wait    sync.WaitGroup
}

// openJournal opens the journal of a DATA_DIR.
func openJournal(dataDir string, metrics *observe.Metrics, log *slog.Logger) (*journal.Journal, error) {
	return journal.Open(journalDir(dataDir), journal.Options{Log: log, Hooks: journal.Hooks{
		Waiting: metrics.JournalWaiting, Drained: metrics.JournalDrained,
		Refused: func(c domain.Command, err error) {
			metrics.JournalRefused()
			log.Error("the ledger refuses what waited in the journal: see `llm-gateway ledger journal`",
				"account", c.Account, "billing_request_id", c.Op.Request(), "error", err)
		},
	}})
}

// startRecovery takes this process's lease, without which it must not reserve.
func startRecovery(ctx context.Context, j *journal.Journal, config ledger.Config, owner uuid.UUID, log *slog.Logger) (*recovery, error) {
	pool, err := leasePool(ctx, config)
	if err != nil {
		return nil, err
	}
	r := &recovery{journal: j, pool: pool, end: func() {}}
	if r.owner, err = sweep.StartOwner(ctx, pool, owner, log); err != nil {
		pool.Close()
		return nil, err
	}
	return r, nil
}

// run begins to drain the journal, by book, and to sweep.
func (r *recovery) run(ctx context.Context, book journal.Append, l *ledger.Postgres, owner uuid.UUID, metrics *observe.Metrics, failed func(error), log *slog.Logger) {
	draining, end := context.WithCancel(context.WithoutCancel(ctx))
	r.end = end
	r.wait.Go(func() {
		if err := r.journal.Run(draining, book); err != nil {
			log.Error("the journal does not drain", "error", err)
		}
	})
	r.sweeper = sweep.StartSweeper(ctx, sweep.Config{Pool: r.pool, Ledger: l, Owner: owner, Log: log,
		Hooks: sweep.Hooks{Swept: metrics.Swept, Failed: func(err error) {
			metrics.SweepFailed(err)
			failed(err)
		}}})
}

func leasePool(ctx context.Context, c ledger.Config) (*pgxpool.Pool, error) {
	conn, err := ledger.ConnConfig(c.URL, c.Role, c.Pooled)
	if err != nil {
		return nil, err
	}
	config, err := pgxpool.ParseConfig("")
	if err != nil {
		return nil, err
	}
	config.ConnConfig, config.MaxConns, config.PingTimeout = conn, leaseConns, leasePing
	return pgxpool.NewWithConfig(ctx, config)
}

// settled waits, for a while, until the journal is empty. Nothing puts into it any more.
func (r *recovery) settled() {
	ctx, cancel := context.WithTimeout(context.Background(), drainJournal)
	defer cancel()
	tick := time.NewTicker(drainJournal / 100)
	defer tick.Stop()
	for {
		if n, _, _ := r.journal.Waiting(); n == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// close ends them, when all requests have been settled. The lease is given up last: what is still
// reserved then is an orphan's.
func (r *recovery) close() {
	if r.sweeper != nil {
		r.sweeper.Close()
		r.settled()
	}
	r.end()
	r.wait.Wait()
	r.owner.Close()
	r.pool.Close()
}
