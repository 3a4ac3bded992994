package relay

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/ledger"
	"llm-gateway/ledger/lease"
	"llm-gateway/ledger/topic"
)

// The times of a relay.
const (
	Interval   = 50 * time.Millisecond  // between the beginnings of two transactions of a shard, unless the next is full
	PollBusy   = 25 * time.Millisecond  // between two looks at the ledger's heads while something happens
	PollIdle   = 250 * time.Millisecond // the same while nothing does; from one to the other it doubles
	CheckEvery = 2 * time.Second        // between two looks at the topic's identity and extent
	HaltPause  = 30 * time.Second       // before a shard that stopped loudly is tried again

	startTime    = 60 * time.Second       // taking one shard over, all of it
	closeGrace   = time.Second            // for a transaction that is under way when its lease ends
	drainTick    = 5 * time.Millisecond   // between Drain's looks
	clusterPause = 200 * time.Millisecond // before Kafka is asked again for its cluster; it doubles
	clusterLong  = 5 * time.Second        // the longest such pause
)

// The bounds of what waits in memory. What is beyond them is read from the ledger again.
const (
	feedEvents = 4096     // fed events of one shard
	feedBytes  = 32 << 20 // payloads of fed events of all shards
)

// Errors that stop a shard loudly: waiting does not mend them. topic.ErrMismatch, and events that this
// release cannot read, do the same.
var (
	ErrDiverged = errors.New("the topic and the ledger tell different histories")
	ErrGap      = errors.New("the ledger has a gap")
)

// Topic is where events go: OfTopic. A *topic.Topic has the contract.
type Topic interface {
	Cluster(ctx context.Context) (string, error)
	Ensure(ctx context.Context) error
	State(ctx context.Context) (topic.State, error)
	Tail(ctx context.Context, shard int32) (*topic.Record, error)
	Producer(ctx context.Context, shard int32) (Producer, error)
}

// Producer publishes one shard, alone. A *topic.Producer has the contract.
type Producer interface {
	Publish(ctx context.Context, events []domain.Recorded) (last int64, err error)
	Close()
}

// OfTopic makes a Topic of the ledger's topic.
func OfTopic(t *topic.Topic) Topic { return realTopic{t} }

type realTopic struct{ *topic.Topic }

func (t realTopic) Producer(ctx context.Context, shard int32) (Producer, error) {
	p, err := t.Topic.Producer(ctx, shard)
	if err != nil { // not a nil *Producer in an interface
		return nil, err
	}
	return p, nil
}

// Ledger is where events come from. A *ledger.Reader is one, and has the contract. What it answers was
// committed, and is not older than what it answered before.
type Ledger interface {
	Meta() ledger.Meta
	Events(ctx context.Context, shard int32, after int64, limit int) ([]domain.Recorded, error)
	Heads(ctx context.Context) ([]ledger.Head, error)
}

// Hooks let the wiring watch the relay; nil functions are not called. They must not block.
type Hooks struct {
	Lag       func(shard int32, events int64) // of a shard that this process publishes, at each look at the heads
	Published func(shard int32, events int)   // after each transaction
	Restarted func(shard int32, err error)    // when publishing a shard ended and begins again from its tail
}

// Config says what a relay copies, and where.
type Config struct {
	Topic  Topic
	Name   string // of the topic: KAFKA_USAGE_TOPIC
	Ledger Ledger
	Pool   lease.Pool
	Owner  uuid.UUID // one process start
	Hooks  Hooks
	Log    *slog.Logger // nil = slog.Default()

	times times // tests change them
}

// times are the constants above and those of lease; 0 stands for the constant.
type times struct {
	pollIdle, check, halt, grace, term, every time.Duration
}

func (t times) filled() times {
	fill := func(d *time.Duration, constant time.Duration) {
		if *d <= 0 {
			*d = constant
		}
	}
	fill(&t.pollIdle, PollIdle)
	fill(&t.check, CheckEvery)
	fill(&t.halt, HaltPause)
	fill(&t.grace, closeGrace)
	return t
}

// Relay publishes the shards whose leases this process holds. It is safe for concurrent use; Close
// ends it.
type Relay struct {
	config Config
	log    *slog.Logger
	shards []*shard
	cancel context.CancelFunc
	wait   sync.WaitGroup

	fedBytes atomic.Int64  // of all shards' fed payloads
	ensuring chan struct{} // has one element; who takes it may look after the topic and set ensured
	ensured  *[16]byte     // the id of the topic that Ensure found to be as it must be; nil = none yet
}

// Start runs a relay until Close, or until ctx ends. Kafka and Postgres need not be there yet.
func Start(ctx context.Context, c Config) *Relay {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	c.times = c.times.filled()
	r := &Relay{config: c, log: c.Log, ensuring: make(chan struct{}, 1)}
	r.ensuring <- struct{}{}
	for number := range int32(c.Ledger.Meta().Shards) {
		r.shards = append(r.shards, newShard(r, number))
	}
	ctx, r.cancel = context.WithCancel(ctx)
	r.wait.Go(func() { r.supervise(ctx) })
	r.wait.Go(func() { r.pollHeads(ctx) })
	r.wait.Go(func() { r.checkTopic(ctx) })
	return r
}

// Close ends publishing, gives the leases up, and returns when all goroutines have ended. What a
// transaction that was under way has come to, whoever is next finds out.
func (r *Relay) Close() {
	r.cancel()
	r.wait.Wait()
}

// Feed hands over events that have just become durable, whole commands, so that they need not be read
// again. It never blocks. Where they do not follow each other, or there is no room, they are dropped: the
// relay then reads them from the ledger.
func (r *Relay) Feed(events []domain.Recorded) {
	for len(events) > 0 {
		number, n := events[0].Event.Shard, 1
		for n < len(events) && events[n].Event.Shard == number {
			n++
		}
		if number >= 0 && int(number) < len(r.shards) {
			r.shards[number].feed(events[:n])
		}
		events = events[n:]
	}
}

// Drain waits until all that the ledger has now, of the shards that this process publishes, is in the
// topic, or until ctx ends.
func (r *Relay) Drain(ctx context.Context) error {
	heads, err := r.config.Ledger.Heads(ctx)
	if err != nil {
		return err
	}
	for _, h := range heads {
		r.shards[h.Shard].known(h.Seq)
	}
	ticker := time.NewTicker(drainTick)
	defer ticker.Stop()
	for _, h := range heads {
		for !r.shards[h.Shard].reached(h.Seq) {
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// supervise runs the keeper of the leases, which are named after the cluster that Kafka is.
func (r *Relay) supervise(ctx context.Context) {
	pause := clusterPause
	for ctx.Err() == nil {
		cluster, err := r.config.Topic.Cluster(ctx)
		if err == nil {
			r.keep(ctx, cluster)
			pause = clusterPause
			continue
		}
		if ctx.Err() == nil && pause < clusterLong {
			r.log.Warn("Kafka is away; events wait in the ledger", "error", err)
		}
		sleep(ctx, pause)
		pause = min(2*pause, clusterLong)
	}
}

// keep holds leases until ctx ends, or Kafka is found to be another cluster.
func (r *Relay) keep(ctx context.Context, cluster string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	shards := make(map[string]*shard, len(r.shards))
	var names []string
	for _, s := range r.shards {
		name := "relay:" + cluster + ":" + r.config.Name + ":" + strconv.Itoa(int(s.number))
		names = append(names, name)
		shards[name] = s
	}
	keeper := &lease.Keeper{
		Pool: r.config.Pool, Owner: r.config.Owner, Log: r.log,
		Term: r.config.times.term, Every: r.config.times.every,
	}
	keeper.Run(ctx, names, func(ctx context.Context, name string) error {
		err := shards[name].hold(ctx, cluster)
		if errors.Is(err, errMoved) {
			cancel()
		}
		return err
	})
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
