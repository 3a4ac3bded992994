package main

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"llm-gateway/migrations/pgtest"
)

const (
	denyLimit  = 8 * time.Second // for a 503 while Postgres is away: the reserve's own bound and some
	awayTime   = 2 * time.Second
	carryBytes = 16 << 10
)

// road says how a connection to a server fares.
type road int

const (
	open   road = iota
	cut         // connections break, new ones too
	frozen      // connections stay, and nothing arrives
	slow        // everything arrives late
	deaf        // what the gateway says arrives, the answers of the connections that there are do not
)

// slowBy is how late everything arrives on a slow road.
const slowBy = 30 * time.Millisecond

// gatePost stands between a gateway and a server.
type gatePost struct {
	listener      net.Listener
	network, addr string
	wait          sync.WaitGroup
	mu            sync.Mutex
	changed       *sync.Cond
	road          road
	closed        bool
	conns         map[net.Conn]bool // whether it leads to the gateway
}

// newGatePost starts one and returns it with the URL that leads through it.
func newGatePost(t testing.TB, server string) (*gatePost, string) {
	t.Helper()
	config, err := pgx.ParseConfig(server)
	if err != nil {
		t.Fatal(err)
	}
	network, addr := pgconn.NetworkAddress(config.Host, config.Port)
	p := postAt(t, "127.0.0.1:0", network, addr)
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

// postAt starts one at an address.
func postAt(t testing.TB, at, network, server string) *gatePost {
	t.Helper()
	p := &gatePost{conns: map[net.Conn]bool{}, network: network, addr: server}
	p.changed = sync.NewCond(&p.mu)
	var err error
	if p.listener, err = net.Listen("tcp", at); err != nil {
		t.Fatal(err)
	}
	p.wait.Go(p.accept)
	t.Cleanup(func() {
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.listener.Close() //nolint:errcheck // the test is over
		p.set(cut)
		p.wait.Wait()
	})
	return p
}

// set changes the road, for connections that there are and for those to come.
func (p *gatePost) set(r road) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.road = r
	if r == cut {
		for conn := range p.conns {
			conn.Close() //nolint:errcheck // that is the point
		}
		clear(p.conns)
	}
	if r == deaf {
		for conn, ofClient := range p.conns {
			if half, ok := conn.(*net.TCPConn); ok && ofClient {
				half.CloseWrite() //nolint:errcheck // that is the point
			}
		}
	}
	p.changed.Broadcast()
}

func (p *gatePost) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial(p.network, p.addr)
		if err != nil || !p.enter(client, server) {
			client.Close() //nolint:errcheck // nothing was said on it
			if server != nil {
				server.Close() //nolint:errcheck // nor on this
			}
			continue
		}
		p.wait.Go(func() { p.carry(server, client) })
		p.wait.Go(func() { p.carry(client, server) })
	}
}

// enter keeps a pair of connections, unless the road is cut.
func (p *gatePost) enter(client, server net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[client], p.conns[server] = true, false
	return p.road != cut && !p.closed
}

// leave closes both ends: the one is gone, and so is the other.
func (p *gatePost) leave(pair ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range pair {
		conn.Close() //nolint:errcheck // it may be closed
		delete(p.conns, conn)
	}
}

// carry copies one way, as long as the road is open.
func (p *gatePost) carry(to, from net.Conn) {
	defer p.leave(to, from)
	buffer := make([]byte, carryBytes)
	for {
		n, err := from.Read(buffer)
		p.mu.Lock()
		for p.road == frozen && !p.closed {
			p.changed.Wait()
		}
		late := p.road == slow && !p.closed
		p.mu.Unlock()
		if late {
			<-time.After(slowBy)
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// TestPostgresAway: while Postgres is away nobody is served and nobody waits for long; what was under
// way ends well when it is back, and is charged once; and nobody has to restart anything.
func TestPostgresAway(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]road{"connections break": cut, "nothing arrives": frozen} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testAway(t, r)
		})
	}
}

func testAway(t *testing.T, r road) {
	direct := pgtest.URL(t)
	post, through := newGatePost(t, direct)
	s, client, token := startServe(t, "DATABASE_URL="+through), newClient(t), tokenFor(t, "waiter")
	ask := func(prompt string, stream bool) reply {
		return chat(t.Context(), client, s.url, token, chatBody(flatModel, prompt, stream, ""))
	}
	if r := ask("all is well", false); r.status != http.StatusOK {
		t.Fatalf("%v", &r)
	}
	running := make(chan reply, 1)
	go func() { running <- ask("sim:tokens=20 sim:pace=100ms", true) }() // two seconds
	eventually(t, settleLimit, "the stream has its reserve", func() bool { return len(auditLedger(t, direct).open()) == 1 })
	post.set(r)
	begin := time.Now()
	denied(t, client, s.url, token)
	remainsUp(t, client, s.url)
	away := max(awayTime, time.Since(begin))
	time.AfterFunc(away-time.Since(begin), func() { post.set(open) })
	survivor := <-running
	t.Logf("Postgres was away for %s; the stream under way ended after %s", away.Round(time.Millisecond), survivor.took.Round(time.Millisecond))
	if survivor.status != http.StatusOK || !survivor.complete || survivor.cost != "0.01" {
		t.Errorf("the stream under way: %v", &survivor)
	}
	begin = time.Now()
	eventually(t, settleLimit, "it is ready again", func() bool {
		status, _ := fetch(t, client, s.url+"/ready", "")
		return status == http.StatusOK
	})
	if r := ask("and again", true); r.status != http.StatusOK || !r.complete {
		t.Errorf("when Postgres was back: %v", &r)
	}
	t.Logf("served again %s after that", time.Since(begin).Round(time.Millisecond))
	var a *audit
	eventually(t, settleLimit, "nothing is left open", func() bool {
		a = auditLedger(t, direct)
		return len(a.open()) == 0
	})
	if l := a.lives[survivor.request]; l == nil || l.commits != 1 {
		t.Errorf("the stream under way is in the ledger as %+v", l)
	}
	a.has("waiter", "99.97")
	verified(t, "DATABASE_URL="+direct)
}

// denied sees that new requests, of known and of unknown accounts, are told to come back, in time.
func denied(t *testing.T, client *http.Client, base, token string) {
	t.Helper()
	replies := make([]reply, 4)
	atOnce(len(replies), func(i int) {
		of := token
		if i >= 2 {
			of = tokenFor(t, fmt.Sprint("unknown-", i))
		}
		replies[i] = chat(t.Context(), client, base, of, chatBody(flatModel, "now?", i%2 == 0, ""))
	})
	for i := range replies {
		r := &replies[i]
		t.Logf("denied after %s: %d %s, Retry-After %s", r.took.Round(time.Millisecond), r.status, r.code, r.header.Get("Retry-After"))
		if r.status != http.StatusServiceUnavailable || r.code != "ledger_unavailable" || r.header.Get("Retry-After") == "" || r.took > denyLimit {
			t.Errorf("while Postgres was away, after %s: %v", r.took, r)
		}
	}
}

// remainsUp sees that the process says of itself what is true.
func remainsUp(t *testing.T, client *http.Client, base string) {
	t.Helper()
	begin := time.Now()
	if status, body := fetch(t, client, base+"/ready", ""); status != http.StatusServiceUnavailable || !strings.Contains(body, "Postgres does not answer") {
		t.Errorf("/ready says %d %s", status, body)
	}
	t.Logf("/ready took %s", time.Since(begin).Round(time.Millisecond))
	if took := time.Since(begin); took > denyLimit {
		t.Errorf("/ready took %s", took)
	}
	if status, _ := fetch(t, client, base+"/health", ""); status != http.StatusOK {
		t.Errorf("/health says %d", status)
	}
}
