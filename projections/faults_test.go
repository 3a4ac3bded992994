package projections

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"llm-gateway/domain"
	"llm-gateway/ledger/lease"
	"llm-gateway/ledger/topic"
)

// breaker breaks one connection, at the n-th time that anything is sent on any.
type breaker struct {
	mu    sync.Mutex
	left  int
	after bool          // the server gets it and answers, and the answer is lost
	on    string        // counts only what contains this; "" = everything
	hold  chan struct{} // not nil: nothing breaks; what is sent waits until it is closed
	held  chan struct{} // closed when something waits
}

func (b *breaker) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	return &brittle{conn, b}, err
}

// due says whether this is the time.
func (b *breaker) due(sent []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.on != "" && !strings.Contains(string(sent), b.on) {
		return false
	}
	b.left--
	return b.left == 0
}

func (b *breaker) broke() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.left <= 0
}

type brittle struct {
	net.Conn
	*breaker
}

func (c *brittle) Write(p []byte) (int, error) {
	if !c.due(p) {
		return c.Conn.Write(p)
	}
	if c.hold != nil {
		close(c.held)
		<-c.hold
		return c.Conn.Write(p)
	}
	defer c.Close() //nolint:errcheck // that is the point
	if !c.after {
		return 0, net.ErrClosed
	}
	if n, err := c.Conn.Write(p); err != nil {
		return n, err
	}
	c.Read(make([]byte, 1)) //nolint:errcheck // the server has done it when it answers
	return len(p), nil
}

// TestKills breaks the connection to Postgres at every single message of a projector, before and after
// the server got it: whatever had been done was done once, and the rest is done by the next one.
func TestKills(t *testing.T) {
	t.Parallel()
	for _, after := range []bool{false, true} {
		t.Run(fmt.Sprintf("after=%t", after), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, false)
			p := newPlay(t, w, newShelf(w.meta))
			for n := 1; ; n++ {
				p.happen(t, 4)
				b := &breaker{left: n, after: after}
				pool := p.connect(t, serviceRole, n%2 == 0, func(c *pgx.ConnConfig) { c.DialFunc = b.dial })
				projector, _ := p.start(t, func(c *Config) { c.Pool, c.Hooks.Lag = pool, nil })
				p.reach(t)
				projector.Close()
				pool.Close()
				if !b.broke() {
					t.Log(n, "messages")
					if n < 10 {
						t.Errorf("there were %d messages only", n)
					}
					break
				}
			}
			p.wantTrue(t)
		})
	}
}

// gated holds what was polled back.
type gated struct {
	Topic
	full chan struct{} // closed when a poll has brought something
	open chan struct{} // closed to let it through
	once sync.Once
}

func (g *gated) Consume(offsets []int64) (Consumer, error) {
	c, err := g.Topic.Consume(offsets)
	return &gatedConsumer{c, g}, err
}

type gatedConsumer struct {
	Consumer
	*gated
}

func (c *gatedConsumer) Poll(ctx context.Context, most int) ([]*topic.Record, error) {
	records, err := c.Consumer.Poll(ctx, most)
	if len(records) > 0 {
		c.once.Do(func() { close(c.full); <-c.open })
	}
	return records, err
}

// TestZombie freezes a projector between reading and applying, lets another do its work, and thaws it:
// nothing is applied twice, and both go on beside each other.
func TestZombie(t *testing.T) {
	onEachTopic(t, func(t *testing.T, w *world, s source) {
		p := newPlay(t, w, s)
		p.happen(t, 30)
		gate := &gated{Topic: s, full: make(chan struct{}), open: make(chan struct{})}
		_, zombie := p.start(t, func(c *Config) { c.Topic = gate })
		<-gate.full
		_, other := p.start(t, nil)
		p.reach(t)
		close(gate.open)
		for range 10 {
			p.happen(t, 10)
			p.reach(t)
		}
		p.wantTrue(t)
		events := int(p.count(t, `SELECT count(*) FROM ledger_events`))
		for _, live := range all {
			sum := func() int { return zombie.did(live.name()) + other.did(live.name()) }
			eventually(t, "both have told", func() bool { return sum() >= events })
			if n := sum(); n != events {
				t.Errorf("%s applied %d events; there are %d", live.name(), n, events)
			}
		}
		if len(zombie.changed())+len(other.changed()) != 0 {
			t.Errorf("what was told: %q, %q", zombie.changed(), other.changed())
		}
	})
}

// TestFrozenInPostgres freezes a projector with everything written and not committed: Postgres ends it
// after some seconds, another goes on, and the thawed one finds that it has done nothing.
func TestFrozenInPostgres(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	p := newPlay(t, w, newShelf(w.meta))
	p.happen(t, 30)
	b := &breaker{left: 3, on: "Q\x00\x00\x00\x0bcommit\x00", hold: make(chan struct{}), held: make(chan struct{})} // 1 and 2: it begins
	pool := p.connect(t, serviceRole, false, func(c *pgx.ConnConfig) { c.DialFunc = b.dial })
	frozen, _ := p.start(t, func(c *Config) { c.Pool, c.Hooks.Lag = pool, nil })
	<-b.held
	if n := w.count(t, `SELECT count(*) FROM pg_locks WHERE relation = 'transactions'::regclass AND mode = 'RowExclusiveLock'`); n != 1 {
		t.Fatalf("%d sessions have written", n)
	}
	_, d := p.start(t, nil)
	p.reach(t)
	close(b.hold)
	p.happen(t, 30)
	p.reach(t)
	frozen.Close()
	p.happen(t, 10)
	p.reach(t)
	p.wantTrue(t)
	if len(d.changed()) != 0 {
		t.Errorf("what was told: %q", d.changed())
	}
}

// TestLease lets two processes take turns by the lease.
func TestLease(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	p := newPlay(t, w, newShelf(w.meta))
	var diaries []*diary
	var projectors []*Projector
	for range 2 {
		projector, d := p.start(t, func(c *Config) {
			c.Lease = &lease.Keeper{Pool: p.pool, Owner: uuid.New(), Log: c.Log}
		})
		projectors, diaries = append(projectors, projector), append(diaries, d)
		p.happen(t, 20)
		p.reach(t)
	}
	if n := diaries[1].did("stats"); n != 0 {
		t.Errorf("the second applied %d events beside the first", n)
	}
	projectors[0].Close()
	p.happen(t, 20)
	p.reach(t)
	eventually(t, "the second has told", func() bool { return diaries[1].did("stats") > 0 })
	p.wantTrue(t)
}

// TestDisorder brings records repeated, out of order and not at all: the last one of each shard is
// enough.
func TestDisorder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	s := newShelf(w.meta)
	p := newPlay(t, w, s)
	_, d := p.start(t, nil)
	draw := &counter{}
	for range 12 {
		p.history.some(t, 25)
		for shard, events := range p.history.events {
			news := events[p.published[shard]:]
			p.published[shard] = len(events)
			if len(news) > 0 {
				s.put(disordered(s, draw, news)...)
			}
		}
		p.reach(t)
	}
	p.wantTrue(t)
	if len(d.changed())+d.restarted() != 0 {
		t.Errorf("what was told: %q, %v", d.changed(), d.reasons())
	}
}

// disordered makes records of events: each at most three times, in some order, the last one surely.
func disordered(s *shelf, draw *counter, events []domain.Recorded) (out []*topic.Record) {
	for _, e := range events {
		for range draw.below(4, "times") {
			i := max(0, len(out)-draw.below(5, "earlier"))
			out = slices.Insert(out, i, s.record(e))
		}
	}
	return append(out, s.record(events[len(events)-1]))
}

// lapsed is a lease's context in a process that was frozen: its time is over, and no timer has run.
type lapsed struct{ context.Context }

func (lapsed) Err() error { return lease.ErrLost }

// TestLapsed holds that whoever comes to after its lease looks at the clock before it writes.
func TestLapsed(t *testing.T) {
	t.Parallel()
	u := &pursuit{Projector: &Projector{}}
	if err := u.advance(lapsed{t.Context()}); !errors.Is(err, lease.ErrLost) {
		t.Errorf("it went on: %v", err)
	}
}

// outage is a Postgres that goes away and comes back.
type outage struct {
	mu    sync.Mutex
	away  bool
	conns []net.Conn
}

func (o *outage) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.away {
		return nil, net.ErrClosed
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err == nil {
		o.conns = append(o.conns, conn)
	}
	return conn, err
}

func (o *outage) leave(away bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.away = away; len(o.conns) > 0; o.conns = o.conns[1:] {
		o.conns[0].Close() //nolint:errcheck // that is the point
	}
}

// TestPostgresAway takes Postgres away for a while: nothing is halted by that, and all goes on.
func TestPostgresAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	p := newPlay(t, w, newShelf(w.meta))
	var o outage
	pool := p.connect(t, serviceRole, false, func(c *pgx.ConnConfig) { c.DialFunc = o.dial })
	_, d := p.start(t, func(c *Config) { c.Pool = pool })
	for range 3 {
		p.happen(t, 20)
		p.reach(t)
		tries := d.restarted()
		o.leave(true)
		p.happen(t, 20)
		eventually(t, "it tries again", func() bool { return d.restarted() > tries+2 })
		o.leave(false)
		p.reach(t)
	}
	p.wantTrue(t)
	if len(d.changed()) != 0 {
		t.Errorf("what was told: %q", d.changed())
	}
}
