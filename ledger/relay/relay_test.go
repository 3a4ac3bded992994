package relay

import (
	"context"
	"sync/atomic"
	"testing"
	"time"
)

// TestCopies copies what is appended from many sides at once, with and without Feed: all of it, once,
// in order.
func TestCopies(t *testing.T) {
	t.Parallel()
	for name, fed := range map[string]bool{"fed": true, "polled": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.append(100) // what was there before
			p := w.start()
			if fed {
				w.feed.Store(p.Relay)
			}
			w.append(1000)
			w.settle()
			w.append(1)
			w.settle()
			if got, want := p.published(), w.total(); got != want {
				t.Errorf("%d of %d events were published", got, want)
			}
			if errs := p.restarted(); len(errs) > 0 {
				t.Errorf("it began again because of %v", errs)
			}
			eventually(t, "no shard lags", func() bool {
				p.mu.Lock()
				defer p.mu.Unlock()
				return len(p.lag) == testShards && p.lag[0]+p.lag[1]+p.lag[2]+p.lag[3] == 0
			})
		})
	}
}

// TestPace gathers under load: no shard has more transactions than fit.
func TestPace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var transactions [testShards]atomic.Int64
	p := w.start(func(c *Config) { c.Hooks.Published = func(shard int32, _ int) { transactions[shard].Add(1) } })
	w.feed.Store(p.Relay)
	p.holdsAll(t)
	began := time.Now()
	stop := w.background()
	eventually(t, "some time has passed", func() bool { return time.Since(began) > 20*Interval })
	stop()
	most := int64(time.Since(began)/Interval) + 2
	for shard := range transactions {
		if n := transactions[shard].Load(); n > most || n < 5 {
			t.Errorf("shard %d had %d transactions, where %d fit", shard, n, most)
		}
	}
	w.settle()
}

// TestDrain publishes all before the end, and gives up where it cannot.
func TestDrain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.start()
	p.holdsAll(t)
	for range 5 {
		w.append(100)
		if err := p.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, want := p.published(), w.total(); got != want {
			t.Fatalf("%d of %d events were published", got, want)
		}
	}
	p.wire.away()
	w.append(1)
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := p.Drain(short); err == nil {
		t.Error("it says that all is published, with Kafka away")
	}
	began := time.Now()
	p.Close()
	if took := time.Since(began); took > closeGrace+2*time.Second {
		t.Errorf("Close took %s", took)
	}
	if err := p.Drain(t.Context()); err != nil {
		t.Errorf("what it does not publish any more is none of its business: %v", err)
	}
}

// TestCloseInTransaction lets a transaction that is under way end well.
func TestCloseInTransaction(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.append(5)
	p := w.start(quiet, func(c *Config) { c.times.grace = patiently }) // this machine may be slow
	w.settle()
	w.wantKnown(p)
	p.wire.arm(2, freeze)
	w.must(w.one(w.onShard(1)))
	eventually(t, "it is in a transaction", func() bool { return p.wire.happened() })
	p.cancel()
	p.wire.heal()
	p.end()
	w.settle()
}

// TestTakeOver moves the shards when a process dies, and when one ends, while others append.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.start()
	w.feed.Store(a.Relay)
	a.holdsAll(t)
	stop := w.background()
	b := w.start()
	eventually(t, "a has published", func() bool { return a.published() > 100 })
	if b.published() != 0 {
		t.Error("b has published, and has no lease")
	}
	a.die()
	b.holdsAll(t)
	eventually(t, "b has published", func() bool { return b.published() > 100 })
	c := w.start()
	w.feed.Store(c.Relay)
	b.end()
	c.holdsAll(t)
	eventually(t, "c has published", func() bool { return c.published() > 100 })
	stop()
	w.settle()
}

// TestKafkaAway lets Kafka be away at the start, for a moment, and until publishing gives up.
func TestKafkaAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.append(20)
	p := w.start()
	p.wire.away()
	w.feed.Store(p.Relay)
	w.append(20)
	p.wire.heal()
	w.settle()
	for _, long := range []bool{false, true} {
		stop := w.background()
		p.wire.away()
		before := w.total()
		eventually(t, "many more were appended", func() bool { return w.total() > before+200 })
		if long {
			eventually(t, "all shards have given up", func() bool { return p.alive() == 0 })
		}
		stop()
		p.wire.heal()
		w.settle()
	}
}

// movingTopic is a Kafka that becomes another cluster.
type movingTopic struct {
	Topic

	cluster chan string // has the present one
}

func (m movingTopic) Cluster(context.Context) (string, error) {
	c := <-m.cluster
	m.cluster <- c
	return c, nil
}

// TestClusterMoves names the leases after the cluster that Kafka is now.
func TestClusterMoves(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cluster := make(chan string, 1)
	cluster <- "one"
	p := w.start(func(c *Config) { c.Topic = movingTopic{c.Topic, cluster} })
	p.holdsAll(t)
	<-cluster
	cluster <- "two"
	w.append(10)
	w.settle()
	p.wire.arm(1, cut)
	eventually(t, "the leases have moved", func() bool {
		w.append(1)
		p.wire.arm(1, cut)
		return w.leases("relay:one:%") == 0 && w.leases("relay:two:%") == testShards
	})
	p.wire.disarm()
	w.settle()
}
