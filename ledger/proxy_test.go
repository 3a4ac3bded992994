package ledger

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// fault is what a proxy does to a statement.
type fault int

const (
	noFault   fault = iota
	cutBefore       // the connection breaks; the server never sees the statement
	cutAfter        // the server executes it and answers; the answer is lost with the connection
	cutAtOnce       // the statement is sent and the connection broken: what happens is open
	rollback        // the server is asked to roll back instead
)

// proxy stands between a writer and Postgres and breaks connections at a chosen statement.
type proxy struct {
	listener      net.Listener
	network, addr string // of the server
	wait          sync.WaitGroup

	mu       sync.Mutex
	judge    func(sql string) fault // nil = noFault
	prepared func(name string)      // nil, or called for statements that the server is to keep
	faults   int                    // how many were done
	away     bool                   // breaks every connection
	links    map[*link]struct{}
}

// newProxy starts a proxy and returns it with the URL that leads through it.
func newProxy(t testing.TB, server string) (*proxy, string) {
	t.Helper()
	config, err := pgx.ParseConfig(server)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{links: map[*link]struct{}{}}
	p.network, p.addr = pgconn.NetworkAddress(config.Host, config.Port)
	if p.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	p.wait.Go(p.accept)
	t.Cleanup(func() {
		p.listener.Close() //nolint:errcheck // the test is over
		p.leave(true)
		p.wait.Wait()
	})
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("sslmode", "disable")
	q.Del("host")
	u.Host, u.RawQuery = p.listener.Addr().String(), q.Encode()
	return p, u.String()
}

// every lets the n-th of the statements that match, the 2n-th and so on have the fault.
func (p *proxy) every(n int, f fault, match func(sql string) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := 0
	p.faults = 0
	p.judge = func(sql string) fault {
		if !match(sql) {
			return noFault
		}
		if seen++; seen%n != 0 {
			return noFault
		}
		p.faults++
		return f
	}
}

// once lets the next statement that matches have the fault.
func (p *proxy) once(f fault, match func(sql string) bool) {
	p.every(1, f, func(sql string) bool { return p.faults == 0 && match(sql) })
}

func (p *proxy) done() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.faults
}

// leave breaks all connections, and new ones while it is away.
func (p *proxy) leave(away bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = away
	for l := range p.links {
		l.cut()
	}
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial(p.network, p.addr)
		if err != nil {
			client.Close() //nolint:errcheck // nothing was said on it
			continue
		}
		l := &link{proxy: p, client: client, server: server, statements: map[string]string{}}
		p.mu.Lock()
		p.links[l] = struct{}{}
		if p.away {
			l.cut()
		}
		p.mu.Unlock()
		p.wait.Go(l.up)
		p.wait.Go(l.down)
	}
}

// link is one connection through the proxy.
type link struct {
	*proxy
	client, server net.Conn
	statements     map[string]string // prepared, by name; used by up only
	muted          sync.Mutex        // guards mute
	mute           bool              // answers are swallowed; the next ReadyForQuery cuts
}

func (l *link) cut() {
	l.client.Close() //nolint:errcheck // that is the point
	l.server.Close() //nolint:errcheck // that is the point
}

// up carries what the client sends: the start-up packet, then typed messages.
func (l *link) up() {
	defer l.forget()
	in := bufio.NewReader(l.client)
	for kind := byte(0); ; {
		message, err := readMessage(in, kind == 0)
		if err != nil {
			return
		}
		f := noFault
		if kind = message[0]; kind != 0 {
			f = l.consult(message)
		} else {
			kind = 'p' // the start-up packet, whose length begins with a 0
		}
		switch f {
		case cutBefore:
			return
		case rollback:
			message = append([]byte{'Q', 0, 0, 0, 4 + 9}, "rollback\x00"...)
		case cutAfter:
			l.silence()
		}
		if _, err := l.server.Write(message); err != nil || f == cutAtOnce {
			return
		}
	}
}

func (l *link) silence() {
	l.muted.Lock()
	l.mute = true
	l.muted.Unlock()
}

func (l *link) forget() {
	l.cut()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.links, l)
}

// down carries what the server answers.
func (l *link) down() {
	defer l.cut()
	in := bufio.NewReader(l.server)
	for {
		message, err := readMessage(in, false)
		if err != nil {
			return
		}
		l.muted.Lock()
		mute := l.mute
		l.muted.Unlock()
		if mute && message[0] == 'Z' {
			return
		}
		if mute {
			continue
		}
		if _, err := l.client.Write(message); err != nil {
			return
		}
	}
}

// consult asks the judge about the statements that are executed: Query and Bind.
func (l *link) consult(message []byte) fault {
	sql, body := "", message[5:]
	l.mu.Lock()
	defer l.mu.Unlock()
	switch message[0] {
	case 'P':
		name, rest, _ := bytes.Cut(body, []byte{0})
		text, _, _ := bytes.Cut(rest, []byte{0})
		l.statements[string(name)] = string(text)
		if len(name) > 0 && l.prepared != nil {
			l.prepared(string(name))
		}
		return noFault
	case 'B':
		_, rest, _ := bytes.Cut(body, []byte{0})
		name, _, _ := bytes.Cut(rest, []byte{0})
		sql = l.statements[string(name)]
	case 'Q':
		sql = string(bytes.TrimSuffix(body, []byte{0}))
	default:
		return noFault
	}
	if l.judge == nil {
		return noFault
	}
	return l.judge(sql)
}

// readMessage reads one message whole; the start-up packet has no type byte.
func readMessage(in *bufio.Reader, startup bool) ([]byte, error) {
	head := 5
	if startup {
		head = 4
	}
	message := make([]byte, head)
	if _, err := io.ReadFull(in, message); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(message[head-4:]) - 4
	if size > 1<<26 {
		return nil, io.ErrUnexpectedEOF
	}
	message = append(message, make([]byte, size)...) //nolint:makezero // the head is filled already
	_, err := io.ReadFull(in, message[head:])
	return message, err
}
