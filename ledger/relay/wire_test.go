package relay

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"llm-gateway/ledger/lease"
)

var errWire = errors.New("the connection broke")

// gate is what everything that a process does passes: while it is shut, the process is frozen.
type gate struct {
	mu   sync.Mutex
	shut chan struct{} // nil = open; closed when it opens
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut == nil {
		g.shut = make(chan struct{})
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut != nil {
		close(g.shut)
		g.shut = nil
	}
}

func (g *gate) pass() {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut != nil {
		<-shut
	}
}

// what happens at the n-th step of a wire.
type mishap int

const (
	none   mishap = iota
	cut           // the connection breaks: before a write, or after a read, whose bytes are lost
	freeze        // the process freezes
	halt          // the process stops itself: wire.stop
)

// wire is all connections of one process to Kafka. A step is a write, or a read that brought
// something, on any of them.
type wire struct {
	gate gate
	stop func() // for halt

	mu     sync.Mutex
	links  map[*link]struct{}
	broken bool
	mishap mishap
	after  int // steps until the mishap
	steps  int // since arm
	done   bool
}

func newWire() *wire { return &wire{links: map[*link]struct{}{}} }

func (w *wire) dial(ctx context.Context, network, address string) (net.Conn, error) {
	w.gate.pass()
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken {
		conn.Close()
		return nil, errWire
	}
	l := &link{conn, w}
	w.links[l] = struct{}{}
	return l, nil
}

// arm lets the n-th step from now have a mishap.
func (w *wire) arm(n int, m mishap) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mishap, w.after, w.steps, w.done = m, n, 0, false
}

// disarm says whether the mishap has happened; it will not any more.
func (w *wire) disarm() (happened bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mishap = none
	return w.done
}

func (w *wire) happened() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.done
}

// away breaks all connections, and new ones until heal.
func (w *wire) away() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken = true
	for l := range w.links {
		l.Conn.Close()
	}
}

func (w *wire) heal() {
	w.gate.open()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken, w.mishap = false, none
}

// step counts, and does what is due.
func (w *wire) step() (broken bool) {
	w.mu.Lock()
	due := none
	if w.steps++; w.mishap != none && !w.done && w.steps == w.after {
		due, w.done = w.mishap, true
	}
	w.mu.Unlock()
	switch due {
	case freeze:
		w.gate.close()
	case halt:
		w.stop()
	}
	w.gate.pass()
	return due == cut
}

// link is one connection.
type link struct {
	net.Conn

	wire *wire
}

func (l *link) Write(b []byte) (int, error) {
	if l.wire.step() {
		l.Conn.Close()
		return 0, errWire
	}
	return l.Conn.Write(b)
}

func (l *link) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if err == nil && l.wire.step() {
		l.Conn.Close()
		return 0, errWire
	}
	return n, err
}

func (l *link) Close() error {
	l.wire.mu.Lock()
	delete(l.wire.links, l)
	l.wire.mu.Unlock()
	return l.Conn.Close()
}

// gatedPool is a process's way to its leases.
type gatedPool struct {
	lease.Pool

	gate   *gate
	mu     sync.Mutex
	broken bool
}

// breakOff takes Postgres away for good.
func (p *gatedPool) breakOff() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broken = true
}

func (p *gatedPool) pass() error {
	p.gate.pass()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken {
		return errWire
	}
	return nil
}

func (p *gatedPool) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if err := p.pass(); err != nil {
		return nil, err
	}
	return p.Pool.Query(ctx, sql, args...)
}

func (p *gatedPool) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if err := p.pass(); err != nil {
		return pgconn.CommandTag{}, err
	}
	return p.Pool.Exec(ctx, sql, args...)
}
