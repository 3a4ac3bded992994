package embedded

import (
	"crypto/rand"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// redisTick is how often the time of the embedded Redis moves on: its keys expire by nothing else.
// (miniredis could look at all of them at every command instead.)
const redisTick = time.Second

// Redis is a Redis in this process. It keeps nothing across restarts, and nothing in it has to be
// kept: what the gateway puts there are copies, and whoever misses one puts it there again.
type Redis struct {
	server *miniredis.Miniredis
	url    string
	stop   chan struct{}
	wait   sync.WaitGroup
}

// StartRedis starts an empty one on a free port of the loopback address, with a password that only its
// URL knows: other users of this machine can reach the port.
func StartRedis() (*Redis, error) {
	r := &Redis{server: miniredis.NewMiniRedis(), stop: make(chan struct{})}
	password := rand.Text()
	r.server.RequireAuth(password)
	if err := r.server.StartAddr(net.JoinHostPort(loopback, "0")); err != nil {
		return nil, fmt.Errorf("embedded redis: %w", err)
	}
	u := url.URL{Scheme: "redis", User: url.UserPassword("", password), Host: r.server.Addr(), Path: "/0"}
	r.url = u.String()
	r.wait.Go(r.tick)
	return r, nil
}

// URL is the connection string, password included: redis://:<password>@127.0.0.1:<port>/0
func (r *Redis) URL() string { return r.url }

// Stop ends it, with all connections to it.
func (r *Redis) Stop() {
	close(r.stop)
	r.wait.Wait()
	r.server.Close()
}

// tick moves its time on by the time that has passed, however late the ticks come.
func (r *Redis) tick() {
	ticker := time.NewTicker(redisTick)
	defer ticker.Stop()
	for last := time.Now(); ; {
		select {
		case <-r.stop:
			return
		case now := <-ticker.C:
			r.server.FastForward(elapsed(last, now))
			last = now
		}
	}
}

// elapsed is the time between two moments by the calendar, for the other clock stands still while the
// machine sleeps; but not less than by that one, for somebody may set the calendar back.
func elapsed(from, to time.Time) time.Duration {
	return max(to.Sub(from), to.Round(0).Sub(from.Round(0)))
}
