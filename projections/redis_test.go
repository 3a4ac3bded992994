package projections

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

func TestRedisURL(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		addrs    string
		user     string
		password string
		db       int
		tls      bool
		master   string
	}{
		"redis://host":                             {addrs: "host:6379"},
		"redis://host/":                            {addrs: "host:6379"},
		"redis://host:7000/3":                      {addrs: "host:7000", db: 3},
		"redis://:secret@host:1/0":                 {addrs: "host:1", password: "secret"},
		"redis://user:secret@host":                 {addrs: "host:6379", user: "user", password: "secret"},
		"redis://user:s%2Fe%3Fc%40r%23t@host":      {addrs: "host:6379", user: "user", password: "s/e?c@r#t"},
		"redis://user:se@cret@host":                {addrs: "host:6379", user: "user", password: "se@cret"},
		"rediss://user:secret@host:6380":           {addrs: "host:6380", user: "user", password: "secret", tls: true},
		"redis://[::1]:7000":                       {addrs: "[::1]:7000"},
		"redis://[::1],[::2]:7000":                 {addrs: "[::1]:6379 [::2]:7000"},
		"redis://:secret@a:1,b,c:3":                {addrs: "a:1 b:6379 c:3", password: "secret"},
		"rediss://a:1,b:2":                         {addrs: "a:1 b:2", tls: true},
		"redis://a,b:5/2?master_name=main":         {addrs: "a:26379 b:5", db: 2, master: "main"},
		"redis://:secret@s:26379?master_name=main": {addrs: "s:26379", password: "secret", master: "main"},
	} {
		o, err := redisOptions(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := strings.Join(o.Addrs, " "); got != want.addrs || o.Username != want.user || o.Password != want.password ||
			o.DB != want.db || (o.TLSConfig != nil) != want.tls || o.MasterName != want.master {
			t.Errorf("%s: %s %q %q %d %t %q", text, got, o.Username, o.Password, o.DB, o.TLSConfig != nil, o.MasterName)
		}
		if want.tls && (o.TLSConfig.InsecureSkipVerify || o.TLSConfig.MinVersion < tls.VersionTLS12) {
			t.Errorf("%s: TLS that is none", text)
		}
	}
}

// TestRedisURLKeepsTheSecret: whatever is wrong with a URL, the message does not quote it.
func TestRedisURLKeepsTheSecret(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "hunter2", "hunter2:6379", "host:6379", ":hunter2@host", "http://:hunter2@host", "redis:/:hunter2@host", "REDIS://:hunter2@host",
		"redis://", "redis://:hunter2@", "redis://:hunter2@:6379", "redis://:hunter2@host:port", "redis://:hunter2@host:99999999", "redis://:hunter2@a,,b",
		"redis://:hunter2@a,b:", "redis://:hunter2@a,b/1", "redis://:hunter2@ho st", "redis://:hunter2@[::1", "redis://:hunter2@::1", "redis://a:b:hunter2",
		"redis://:hun/ter2@host", "redis://:12/hunter2@host", "redis://:hunter2?@host", "redis://:hunter2#x@host", "redis://:hunter2%zz@host", "redis://:hunter2\x7f@host",
		"redis://:hunter2@host/hunter2", "redis://:hunter2@host/-1", "redis://:hunter2@host/0/hunter2", "redis://:hunter2@host/0#hunter2",
		"redis://host?password=hunter2", "redis://host?hunter2", "redis://host?master_name=", "redis://host?master_name=a&master_name=hunter2",
		"redis://host?sentinel_password=hunter2", "redis://host?master_name=a;b=hunter2", "redis://host?read_timeout=0",
		"redis://:hunter2@" + strings.Repeat("a,", maxRedisHosts) + "a",
	} {
		client, err := OpenRedis(text, nil)
		if err == nil {
			client.Close()
			t.Errorf("%q was accepted", text)
		} else if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "ter2") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestRedisClients(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]func(c redis.UniversalClient) bool{
		"redis://host/1":            func(c redis.UniversalClient) bool { o, ok := c.(*redis.Client); return ok && o.Options().DB == 1 },
		"redis://a,b":               func(c redis.UniversalClient) bool { _, ok := c.(*redis.ClusterClient); return ok },
		"redis://a,b?master_name=m": func(c redis.UniversalClient) bool { _, ok := c.(*redis.Client); return ok },
	} {
		client, err := OpenRedis(text, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !want(client) {
			t.Errorf("%s: %T", text, client)
		}
		client.Close()
	}
}

// TestRedisTLS: to a server whose certificate nobody vouches for, nothing is said.
func TestRedisTLS(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	c := openQuickCache(t, "rediss://"+server.Addr())
	if err := c.Put(t.Context(), []Balance{balanceAt("alice", 0, 1)}); err == nil {
		t.Error("a server without TLS was talked to")
	}
}

func TestCircuit(t *testing.T) {
	t.Parallel()
	now := time.Duration(0)
	c := &circuit{clock: func() time.Duration { return now }}
	ctx, gone := context.WithCancel(t.Context())
	gone()
	broken := errors.New("broken")
	steps := []struct {
		at      time.Duration
		allowed bool
		ctx     context.Context
		end     error
	}{
		{0, true, t.Context(), nil},
		{1, true, t.Context(), redis.Nil},
		{2, true, t.Context(), redis.ErrNoScript},
		{3, true, ctx, context.Canceled}, // the caller's own doing
		{4, true, t.Context(), broken},
		{5, false, nil, nil},
		{3 + redisPause, false, nil, nil},
		{4 + redisPause, true, t.Context(), context.DeadlineExceeded}, // one goes to see
		{5 + redisPause, false, nil, nil},
		{4 + 2*redisPause, true, ctx, context.Canceled}, // it saw nothing: the next one goes
		{5 + 2*redisPause, false, nil, nil},
		{4 + 3*redisPause, true, t.Context(), nil},
		{5 + 3*redisPause, true, t.Context(), nil},
		{6 + 3*redisPause, true, t.Context(), io.EOF},
		{7 + 3*redisPause, false, nil, nil},
	}
	for _, s := range steps {
		now = s.at
		if _, got := c.allow(t.Context()); got != s.allowed {
			t.Fatalf("at %d allowed is %t", s.at, got)
		}
		if s.allowed {
			c.report(s.ctx, s.end)
		}
	}
}

// TestCircuitLetsOneThrough: of all that come when the pause is over, one goes to see.
func TestCircuitLetsOneThrough(t *testing.T) {
	t.Parallel()
	c := &circuit{clock: func() time.Duration { return redisPause }}
	c.until.Store(int64(redisPause))
	var wait sync.WaitGroup
	var allowed atomic.Int32
	for range 64 {
		wait.Go(func() {
			if _, ok := c.allow(t.Context()); ok {
				allowed.Add(1)
			}
		})
	}
	if wait.Wait(); allowed.Load() != 1 {
		t.Errorf("%d went", allowed.Load())
	}
}

// TestUselessReplies: a Redis that answers, and only that it cannot, is away.
func TestUselessReplies(t *testing.T) {
	t.Parallel()
	for reply, want := range map[string]bool{
		"LOADING Redis is loading the dataset in memory": true,
		"NOAUTH Authentication required.":                true,
		"ERR max number of clients reached":              true,
		"CLUSTERDOWN Hash slot not served":               true,
		"WRONGTYPE Operation against a key holding":      false,
		"BUSYKEY Target key name already exists.":        false,
		"ERR unknown command":                            false,
	} {
		server := miniredis.RunT(t)
		c := openCache(t, "redis://"+server.Addr())
		wantNothing(t, c, "alice")
		server.SetError(reply)
		for _, use := range []func() error{
			func() error { _, _, err := c.Balance(t.Context(), "alice"); return err },
			func() error { return c.Put(t.Context(), []Balance{balanceAt("alice", 0, 1)}) },
		} {
			use()
			if err := use(); errors.Is(err, ErrRedisAway) != want {
				t.Errorf("after %q: %v", reply, err)
			}
		}
	}
}

// TestRedisAway: whichever way Redis goes, the next command finds out within a named time, those after
// it do not even ask, and once it is back the cache goes on without anybody's doing.
func TestRedisAway(t *testing.T) {
	t.Parallel()
	servers := map[string]string{"embedded": "redis://" + miniredis.RunT(t).Addr(), "real": os.Getenv("REDIS_URL")}
	for name, server := range servers {
		for how, away := range map[string]valveState{"refused": shut, "silent": stuck} {
			t.Run(name+"/"+how, func(t *testing.T) {
				t.Parallel()
				if server == "" {
					t.Skip("REDIS_URL is not set: run `make test-real`")
				}
				v, through := newValve(t, server)
				c, direct := openQuickCache(t, through), openCache(t, server)
				direct.prefix = c.prefix
				put(t, direct, balanceAt("alice", 0, 7))
				findRedis(t, c)
				for range 2 {
					v.set(away)
					loseRedis(t, c)
					v.set(open)
					findRedis(t, c)
				}
			})
		}
	}
}

// loseRedis takes it that Redis is away from now on.
func loseRedis(t *testing.T, c *Cache) {
	t.Helper()
	const most = redisPoolTime + redisDialTime + 2*redisIOTime + time.Second // a second for a busy machine
	began := time.Now()
	if _, found, err := c.Balance(t.Context(), "alice"); err == nil || found || time.Since(began) > most {
		t.Fatalf("after %s: %t, %v", time.Since(began), found, err)
	}
	// What comes in the pause is answered without a look at the network; one in a pause goes to see.
	asked := 0
	began = time.Now()
	for range 1000 {
		if _, _, err := c.Balance(t.Context(), "alice"); err == nil {
			t.Fatal("it answered")
		} else if !errors.Is(err, ErrRedisAway) {
			asked++
		}
	}
	if most := 1 + int(time.Since(began)/redisPause); asked > most {
		t.Errorf("%d of 1000 asked, in %s", asked, time.Since(began))
	}
	if err := c.Put(t.Context(), []Balance{balanceAt("alice", 0, 6)}); err == nil {
		t.Fatal("a balance was put")
	}
}

// findRedis waits until Redis is used, and it must know what it knew.
func findRedis(t *testing.T, c *Cache) {
	t.Helper()
	waitFor(t, func() bool {
		b, found, err := c.Balance(t.Context(), "alice")
		if err == nil && (!found || b.Position.Seq != 7) {
			t.Fatalf("it knows %+v, %t", b, found)
		}
		return err == nil
	})
	waitFor(t, func() bool { return c.Put(t.Context(), []Balance{balanceAt("alice", 0, 6)}) == nil })
}

// waitFor polls for what other goroutines bring about.
func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !done(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen")
		}
	}
}

// TestRedisRestarts: connections that lie in the pool from before do not keep it from coming back.
func TestRedisRestarts(t *testing.T) {
	t.Parallel()
	for name, hosts := range map[string]int{"one": 1, "cluster": 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := miniredis.RunT(t)
			c := openQuickCache(t, "redis://"+strings.Join(slices.Repeat([]string{server.Addr()}, hosts), ","))
			for range 3 {
				usePool(t, c)
				server.Close()
				loseRedis(t, c)
				if err := server.Restart(); err != nil {
					t.Fatal(err)
				}
				server.FlushAll()
				waitFor(t, func() bool { return c.Put(t.Context(), []Balance{balanceAt("alice", 0, 1)}) == nil })
				waitFor(t, func() bool { _, found, _ := c.Balance(t.Context(), "alice"); return found })
			}
		})
	}
}

// usePool makes as many connections as there may be.
func usePool(t *testing.T, c *Cache) {
	t.Helper()
	var wait sync.WaitGroup
	for range 4 * redisConns {
		wait.Go(func() { c.Balance(context.Background(), "alice") })
	}
	wait.Wait()
}

// TestRedisLeftAlone: a caller who went away is no reason to leave Redis alone.
func TestRedisLeftAlone(t *testing.T) {
	onEachCache(t, func(t *testing.T, c *Cache) {
		wantNothing(t, c, "alice")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		c.Balance(ctx, "alice")
		c.Put(ctx, []Balance{balanceAt("bob", 0, 1)})
		wantNothing(t, c, "alice")
	})
}

type valveState int

const (
	open  valveState = iota
	shut             // connections are broken, and new ones too
	stuck            // nothing passes, and nobody is told
)

// valve stands between a client and a server.
type valve struct {
	server string
	wait   sync.WaitGroup

	mu    sync.Mutex
	state valveState
	conns []net.Conn
}

// newValve starts one before the server of a URL, and returns the URL that leads through it.
func newValve(t testing.TB, server string) (*valve, string) {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v := &valve{server: u.Host}
	v.wait.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			v.link(conn)
		}
	})
	t.Cleanup(func() {
		listener.Close()
		v.set(shut)
		v.wait.Wait()
	})
	u.Host = listener.Addr().String()
	return v, u.String()
}

func (v *valve) set(s valveState) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.state == stuck || s == shut { // what was swallowed does not come back
		for _, conn := range v.conns {
			conn.Close()
		}
		v.conns = nil
	}
	v.state = s
}

func (v *valve) now() valveState {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.state
}

func (v *valve) link(client net.Conn) {
	server, err := net.Dial("tcp", v.server)
	v.mu.Lock()
	defer v.mu.Unlock()
	if err != nil || v.state == shut {
		client.Close()
		if err == nil {
			server.Close()
		}
		return
	}
	v.conns = append(v.conns, client, server)
	v.wait.Go(func() { v.copy(server, client) })
	v.wait.Go(func() { v.copy(client, server) })
}

// copy ends when either end does.
func (v *valve) copy(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if v.now() != open {
			continue
		}
		if _, err := to.Write(slices.Clone(buffer[:n])); err != nil {
			return
		}
	}
}
