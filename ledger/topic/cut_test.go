package topic_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"llm-gateway/ledger/topic"
)

// saboteur dials connections and breaks one of them at a chosen moment.
type saboteur struct {
	mu    sync.Mutex
	left  int    // so many reads and writes go well, and the next one breaks; negative: none does
	late  bool   // what breaks a write lets it pass first: it arrives, and the answer is lost
	stay  bool   // nothing connects any more after it
	broke func() // called when it happens
	hit   bool
	inner dial // nil: the network

	read atomic.Int64 // bytes
}

// arm makes the n-th read or write from now on the one that breaks.
func (s *saboteur) arm(n int, broke func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left, s.hit, s.broke = n-1, false, broke
}

// calm stops breaking, and tells whether anything was broken.
func (s *saboteur) calm() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left, s.broke = -1, nil
	return s.hit
}

// breaks says whether the moment has come.
func (s *saboteur) breaks() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left < 0 || s.hit {
		return false
	}
	s.left--
	s.hit = s.left < 0
	if s.hit && s.broke != nil {
		s.broke()
	}
	return s.hit
}

func (s *saboteur) dial(ctx context.Context, network, address string) (net.Conn, error) {
	s.mu.Lock()
	away := s.hit && s.stay && s.broke != nil
	s.mu.Unlock()
	if away {
		return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("cut off")}
	}
	inner := s.inner
	if inner == nil {
		inner = (&net.Dialer{}).DialContext
	}
	conn, err := inner(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &cutConn{Conn: conn, by: s}, nil
}

type cutConn struct {
	net.Conn
	by *saboteur
}

func (c *cutConn) Read(p []byte) (int, error) {
	if c.by.breaks() {
		c.Close()
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Read(p)
	c.by.read.Add(int64(n))
	return n, err
}

func (c *cutConn) Write(p []byte) (int, error) {
	if !c.by.breaks() {
		return c.Conn.Write(p)
	}
	if c.by.late {
		c.Conn.Write(p)
	}
	c.Close()
	return 0, net.ErrClosed
}

// ways are the ways in which a connection breaks.
var ways = map[string]*saboteur{
	"lost, and back":       {},
	"arrived, and back":    {late: true},
	"lost, and cut off":    {stay: true},
	"arrived, and cut off": {late: true, stay: true},
}

// The moments at which a call is broken: it must go well before there are many. With few, what is cut
// are not the connections that it uses: it takes two requests at least, and an answer to each.
const (
	fewMoments  = 4
	manyMoments = 200
)

// everyMoment has a call broken at its first read or write, at its second, and so on, until nothing breaks
// any more.
func everyMoment(t *testing.T, try func(n int) (cut bool)) {
	t.Helper()
	n := 1
	for try(n) {
		if n++; n > manyMoments {
			t.Fatal("it never goes well")
		}
	}
	if n <= fewMoments {
		t.Errorf("it was cut at %d moments only", n-1)
	}
	t.Logf("%d moments", n-1)
}

// TestPublishCut breaks the connection at every read and write of a Publish. Whoever takes over finds
// the transaction whole or not at all; and whole, if Publish said so.
func TestPublishCut(t *testing.T) {
	t.Parallel()
	for name, way := range ways {
		for size, pad := range map[string]int{"one batch": 0, "two batches": 60_000} {
			t.Run(name+", "+size, func(t *testing.T) {
				t.Parallel()
				const events = 20
				b := newBench(t)
				s := &saboteur{late: way.late, stay: way.stay, left: -1}
				victim := b.sabotaged(t, s)
				b.chain.Pad = strings.Repeat("x", pad)
				everyMoment(t, func(n int) bool { return b.publishCut(t, victim, s, n, events) })
				b.want(t, 1, b.chain.Seq)
			})
		}
	}
}

// sabotaged is the same topic over connections that break.
func (b *bench) sabotaged(t *testing.T, s *saboteur) *topic.Topic {
	t.Helper()
	config := b.config
	config.Dial = s.dial
	victim, err := topic.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(victim.Close)
	return victim
}

// publishCut is one Publish that breaks at the n-th read or write, and what a relay does after it.
func (b *bench) publishCut(t *testing.T, victim *topic.Topic, s *saboteur, n, count int) (cut bool) {
	t.Helper()
	p, err := victim.Producer(t.Context(), b.shard)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	before := b.chain.Seq
	events := b.chain.Next(t, count)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.arm(n, func() {
		if s.stay {
			time.AfterFunc(30*time.Millisecond, cancel) // it tries again for long, and would be cut off as long
		}
	})
	_, err = p.Publish(ctx, events)
	cut = s.calm()
	if !cut && err != nil {
		t.Fatalf("nothing broke, and it failed: %v", err)
	}
	next := b.producer(t)
	defer next.Close()
	tail := b.tail(t)
	switch {
	case tail == b.chain.Seq:
	case tail == before && err == nil:
		t.Fatalf("cut at %d: it said that %d events were published, and they were not", n, count)
	case tail == before:
		if _, err := next.Publish(t.Context(), events); err != nil {
			t.Fatal(err)
		}
	default:
		t.Fatalf("cut at %d: the tail is %d, want %d or %d", n, tail, before, b.chain.Seq)
	}
	return cut
}

// TestTakeoverCut breaks the connection at every read and write of a takeover. However it ends, the
// next one works, and what was left unfinished stays unseen.
func TestTakeoverCut(t *testing.T) {
	t.Parallel()
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			s := &saboteur{late: way.late, stay: way.stay, left: -1}
			everyMoment(t, func(n int) bool {
				b.predecessor(t, b.chain.Next(t, 1)).Close()
				b.chain.Seq--
				cut := b.takeoverCut(t, s, n)
				b.publish(t, b.producer(t), 1)
				return cut
			})
			b.want(t, 1, b.chain.Seq)
		})
	}
}

func (b *bench) takeoverCut(t *testing.T, s *saboteur, n int) (cut bool) {
	t.Helper()
	victim := b.sabotaged(t, s)
	defer victim.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.arm(n, func() {
		if s.stay {
			time.AfterFunc(30*time.Millisecond, cancel)
		}
	})
	p, err := victim.Producer(ctx, b.shard)
	cut = s.calm()
	switch {
	case err == nil:
		p.Close()
	case !cut:
		t.Fatalf("nothing broke, and it failed: %v", err)
	}
	return cut
}
