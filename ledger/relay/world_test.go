package relay

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"llm-gateway/domain"
	"llm-gateway/ledger"
	"llm-gateway/ledger/relay/relaytest"
	"llm-gateway/ledger/topic"
	"llm-gateway/ledger/topic/topictest"
	"llm-gateway/migrations/pgtest"
)

const (
	testShards = 4
	patiently  = 60 * time.Second // no test waits longer for one thing: a real Kafka on a busy machine stands still for ten seconds at times
)

// testTimes are short, and in proportion.
var testTimes = times{
	check: 100 * time.Millisecond, halt: 300 * time.Millisecond, term: 400 * time.Millisecond, every: 80 * time.Millisecond,
}

// world is a ledger, a Kafka and who looks at both from outside.
type world struct {
	t      testing.TB
	url    string // of the tables' owner
	ledger *ledger.Postgres
	config topic.Config
	topic  *topic.Topic
	admin  *kadm.Client
	feed   atomic.Pointer[Relay] // is fed what is appended
	n      atomic.Int64          // accounts so far
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, url: pgtest.URL(t)}
	config, err := pgx.ParseConfig(w.url)
	if err != nil {
		t.Fatal(err)
	}
	meta, err := ledger.Init(t.Context(), config, uuid.New(), testShards, "USD")
	if err != nil {
		t.Fatal(err)
	}
	w.ledger = w.open(w.url)
	w.config = topictest.Config(t, testShards, meta.ID)
	if w.topic, err = topic.Open(w.config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.topic.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(w.config.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	w.admin = kadm.NewClient(client)
	return w
}

// open opens the ledger as the service does.
func (w *world) open(url string) *ledger.Postgres {
	w.t.Helper()
	p, err := ledger.Open(w.t.Context(), ledger.Config{
		URL: url, Role: ledger.ServiceRole, Shards: testShards, Currency: "USD",
		Hooks: ledger.Hooks{Appended: func(events []domain.Recorded) {
			if r := w.feed.Load(); r != nil {
				r.Feed(events)
			}
		}},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(p.Close)
	return p
}

// append opens n accounts, from several sides at once.
func (w *world) append(n int) {
	w.t.Helper()
	const sides = 8
	var wait sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(n))
	for range sides {
		wait.Go(func() {
			for left.Add(-1) >= 0 {
				if err := w.one(fmt.Sprint("account-", w.n.Add(1))); err != nil {
					w.t.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
}

// one opens an account, which is two events.
func (w *world) one(account string) error {
	_, err := w.ledger.Append(context.Background(), domain.Command{
		ID: domain.CommandID(uuid.Must(uuid.NewV7())), Account: account, Op: domain.Open{Actor: "test"},
	})
	return err
}

// onShard names a new account of a shard.
func (w *world) onShard(shard int32) string {
	for {
		if account := fmt.Sprint("account-", w.n.Add(1)); domain.ShardOf(account, testShards) == shard {
			return account
		}
	}
}

// background appends until the returned function is called, which waits for the end.
func (w *world) background() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() {
		for ctx.Err() == nil {
			w.append(8)
			sleep(ctx, 2*time.Millisecond)
		}
	})
	return func() {
		cancel()
		wait.Wait()
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// records counts a partition's.
func (w *world) records(shard int32) (n int) {
	w.t.Helper()
	for _, err := range w.topic.Scan(w.t.Context(), shard) {
		w.must(err)
		n++
	}
	return n
}

// produce appends a record to a partition, past every relay.
func (w *world) produce(shard int32, value string) {
	w.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(w.config.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	w.must(err)
	defer client.Close()
	w.must(client.ProduceSync(w.t.Context(), &kgo.Record{Topic: w.config.Name, Partition: shard, Value: []byte(value)}).FirstErr())
}

// total is how many events the ledger has.
func (w *world) total() (n int) {
	w.t.Helper()
	heads, err := w.ledger.Heads(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, h := range heads {
		n += int(h.Seq)
	}
	return n
}

// leases counts the leases of a name like this.
func (w *world) leases(like string) (n int) {
	w.t.Helper()
	err := w.ledger.Pool().QueryRow(w.t.Context(), `SELECT count(*) FROM ledger_leases WHERE name LIKE $1`, like).Scan(&n)
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// settle waits until the topic has caught up, and wants it to be the ledger.
func (w *world) settle() {
	w.t.Helper()
	relaytest.Settle(w.t, w.ledger.Reader, w.topic, patiently)
	relaytest.WantEqual(w.t, w.ledger.Reader, w.topic)
}

// deleteTopic deletes it, and waits until the broker has heard of that: who answers is the controller.
// Another may be there by then.
func (w *world) deleteTopic() {
	w.t.Helper()
	id := func() kadm.TopicID {
		topics, err := w.admin.ListTopics(w.t.Context(), w.config.Name)
		w.must(err)
		return topics[w.config.Name].ID
	}
	before := id()
	_, err := w.admin.DeleteTopic(w.t.Context(), w.config.Name)
	w.must(err)
	eventually(w.t, "the topic is gone", func() bool { return id() != before })
}

// deleteRecords deletes everything that is in the topic now.
func (w *world) deleteRecords() {
	w.t.Helper()
	ends, err := w.admin.ListEndOffsets(w.t.Context(), w.config.Name)
	if err != nil {
		w.t.Fatal(err)
	}
	deleted, err := w.admin.DeleteRecords(w.t.Context(), ends.Offsets())
	if err == nil {
		err = deleted.Error()
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// process is one gateway's relay, with all that it has to itself.
type process struct {
	*Relay
	wire    *wire
	pool    *gatedPool
	cancel  context.CancelFunc
	topic   *topic.Topic
	closing sync.Once

	mu       sync.Mutex
	restarts []error
	count    map[int32]int   // published, by shard
	lag      map[int32]int64 // as last told
}

// start runs a relay as a process of its own does.
func (w *world) start(change ...func(*Config)) *process {
	w.t.Helper()
	p := &process{wire: newWire(), count: map[int32]int{}, lag: map[int32]int64{}}
	config := w.config
	config.Dial = p.wire.dial
	var err error
	if p.topic, err = topic.Open(config); err != nil {
		w.t.Fatal(err)
	}
	p.pool = &gatedPool{Pool: w.ledger.Pool(), gate: &p.wire.gate}
	c := Config{
		Topic: OfTopic(p.topic), Name: config.Name, Ledger: w.ledger, Pool: p.pool, Owner: uuid.New(),
		Hooks: p.hooks(), Log: slog.New(slog.DiscardHandler), times: testTimes,
	}
	for _, f := range change {
		f(&c)
	}
	var ctx context.Context
	ctx, p.cancel = context.WithCancel(context.Background())
	p.Relay = Start(ctx, c)
	w.t.Cleanup(p.end)
	return p
}

func (p *process) hooks() Hooks {
	return Hooks{
		Restarted: func(_ int32, err error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.restarts = append(p.restarts, err)
		},
		Published: func(shard int32, events int) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.count[shard] += events
		},
		Lag: func(shard int32, events int64) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.lag[shard] = events
		},
	}
}

// end ends the process cleanly, whatever was done to it.
func (p *process) end() {
	p.wire.heal()
	p.closing.Do(func() {
		p.Close()
		p.cancel()
		p.topic.Close()
	})
}

// die ends it without a chance to give anything up.
func (p *process) die() {
	p.wire.away()
	p.pool.breakOff()
	p.wire.disarm()
	p.wire.gate.open()
	p.closing.Do(func() {
		p.Close()
		p.cancel()
		p.topic.Close()
	})
}

// published is how many events it has published.
func (p *process) published() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, count := range p.count {
		n += count
	}
	return n
}

func (p *process) restarted() []error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]error(nil), p.restarts...)
}

// alive is how many shards it publishes.
func (p *process) alive() (n int) {
	all, _, _ := p.sights()
	for _, s := range all {
		if s.held && s.life != 0 {
			n++
		}
	}
	return n
}

// holdsAll waits until it publishes all shards.
func (p *process) holdsAll(t testing.TB) {
	t.Helper()
	eventually(t, "it publishes all shards", func() bool { return p.alive() == testShards })
}

// eventually waits until what is asked becomes true.
func eventually(t testing.TB, what string, true func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patiently)
	for !true() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%s: not within %s", what, patiently)
		}
	}
}
