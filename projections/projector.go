package projections

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"llm-gateway/domain"
	"llm-gateway/ledger"
	"llm-gateway/ledger/topic"
)

// LeaseName is the lease under which one process at a time moves the projections.
const LeaseName = "projector"

// Ledger is where the events that the topic did not bring are read from.
type Ledger interface {
	// Events returns up to limit of a shard's events behind seq after, in order.
	Events(ctx context.Context, shard int32, after int64, limit int) ([]domain.Recorded, error)
	// Heads returns every shard's head, in the order of shards.
	Heads(ctx context.Context) ([]ledger.Head, error)
}

// Topic is where the events come from.
type Topic interface {
	// Consume reads all shards from the given offsets on. An offset that is not there means the first
	// record that is.
	Consume(offsets []int64) (Consumer, error)
	// Tail returns the last committed record of a shard, or nil where there is none.
	Tail(ctx context.Context, shard int32) (*topic.Record, error)
}

// Consumer brings records.
type Consumer interface {
	// Poll waits for records, at most max of them, in order within each shard. Where ctx ends first, the
	// error is ctx's; any other means that this consumer is of no more use.
	Poll(ctx context.Context, max int) ([]*topic.Record, error)
	Close()
}

// OfTopic makes a Topic of the ledger's topic.
func OfTopic(t *topic.Topic) Topic { return realTopic{t} }

type realTopic struct{ *topic.Topic }

func (t realTopic) Consume(offsets []int64) (Consumer, error) {
	c, err := t.Topic.Consume(offsets)
	if err != nil { // not a nil *Consumer in an interface
		return nil, err
	}
	return c, nil
}

// Lease says when this process moves the projections: lease.Keeper.
type Lease interface {
	// Run calls hold whenever the lease is this process's, again and again, until ctx ends.
	Run(ctx context.Context, names []string, hold func(ctx context.Context, name string) error)
}

// Putter is told the balances that have changed: Cache.
type Putter interface {
	// Put stores balances where they are newer than what is there. After an error it is not known
	// which; they are put again.
	Put(ctx context.Context, balances []Balance) error
}

// Hooks let the wiring watch the projector; nil functions are not called. They must not block.
type Hooks struct {
	Applied   func(projection string, events int)                // after each database transaction
	Lag       func(projection string, shard int32, events int64) // how far behind the ledger, at an interval
	Halted    func(projection string, shard int32, err error)    // it stopped; nil: it goes on, or another process has the lease
	Restarted func(err error)                                    // why reading begins again from the positions
	NotCached func(err error)                                    // why balances could not be put into the cache; they are put again
}

// Config says what a projector works with.
type Config struct {
	Pool   *pgxpool.Pool // as the service's role
	Meta   ledger.Meta
	Ledger Ledger
	Topic  Topic
	Lease  Lease
	Cache  Putter // nil = none
	Hooks  Hooks
	Log    *slog.Logger // nil = slog.Default()
}

// Projector keeps the live projections up with the topic. Any number of processes may run one: under
// the lease one works, and what a second one did by mistake would change nothing. Close ends it.
type Projector struct {
	Config
	cacher *cacher // nil where there is no cache
	cancel context.CancelFunc
	wait   sync.WaitGroup

	mu     sync.Mutex // guards halted
	halted map[place]bool
}

// place is one projection in one shard.
type place struct {
	projection string
	shard      int32
}

// Start begins to follow the topic, whenever the lease is this process's.
func Start(ctx context.Context, c Config) *Projector {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &Projector{Config: c, cancel: cancel, halted: map[place]bool{}}
	if c.Cache != nil {
		p.cacher = newCacher(c.Pool, c.Cache, c.Log, c.Hooks.NotCached)
		p.wait.Go(func() { p.cacher.run(ctx) })
	}
	if c.Hooks.Lag != nil {
		p.wait.Go(func() { p.watch(ctx) })
	}
	p.wait.Go(func() {
		c.Lease.Run(ctx, []string{LeaseName}, func(ctx context.Context, _ string) error { return p.run(ctx) })
	})
	return p
}

// Close ends it: what is under way in Postgres is rolled back.
func (p *Projector) Close() {
	p.cancel()
	p.wait.Wait()
}

// run follows the topic from where the positions are, until ctx ends (nil) or something fails that is
// no projection's own: Kafka or Postgres is away, the topic was re-created. Whoever calls it calls it
// again after a pause.
func (p *Projector) run(ctx context.Context) error {
	u := &pursuit{Projector: p}
	err := u.begin(ctx)
	for err == nil {
		err = u.round(ctx)
	}
	if u.consumer != nil {
		u.consumer.Close()
	}
	if ctx.Err() != nil {
		p.forget()
		return nil //nolint:nilerr // whatever failed, failed because it is over
	}
	if p.Hooks.Restarted != nil {
		p.Hooks.Restarted(err)
	}
	return fmt.Errorf("following the topic: %w", err)
}

// report tells of a change: a projection stopped in a shard, or goes on (nil).
func (p *Projector) report(at place, err error) {
	p.mu.Lock()
	changed := p.halted[at] != (err != nil)
	p.halted[at] = err != nil
	p.mu.Unlock()
	if !changed {
		return
	}
	if err != nil {
		p.Log.Error("a projection has stopped in one shard", "projection", at.projection, "shard", at.shard, "error", err)
	} else {
		p.Log.Info("a projection goes on", "projection", at.projection, "shard", at.shard)
	}
	if p.Hooks.Halted != nil {
		p.Hooks.Halted(at.projection, at.shard, err)
	}
}

// forget takes back what was reported as halted: another process sees to it now.
func (p *Projector) forget() {
	for _, at := range p.reported() {
		p.mu.Lock()
		p.halted[at] = false
		p.mu.Unlock()
		if p.Hooks.Halted != nil {
			p.Hooks.Halted(at.projection, at.shard, nil)
		}
	}
}

// reported are the places that were reported as halted.
func (p *Projector) reported() (out []place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for at, halted := range p.halted {
		if halted {
			out = append(out, at)
		}
	}
	return out
}

// watchEvery is how often the lag is told.
const watchEvery = time.Second

// watch tells how far behind the ledger every projection is, whoever moves it.
func (p *Projector) watch(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		if err := p.lag(ctx); err != nil && ctx.Err() == nil {
			p.Log.Debug("the projections' lag cannot be read", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (p *Projector) lag(ctx context.Context) error {
	heads, err := p.Ledger.Heads(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, applyTime)
	defer cancel()
	tx, err := p.Pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer rollback(tx)
	for _, live := range all {
		positions, err := readPositions(ctx, tx, live.name())
		if err != nil {
			return err
		}
		for _, h := range heads {
			p.Hooks.Lag(live.name(), h.Shard, max(0, h.Seq-positions[h.Shard].seq))
		}
	}
	return nil
}
