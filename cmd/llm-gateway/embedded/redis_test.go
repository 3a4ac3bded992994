package embedded

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// TestRedis: it answers whoever has its URL, nobody without its password, and its keys expire.
func TestRedis(t *testing.T) {
	t.Parallel()
	r, err := StartRedis()
	if err != nil {
		t.Fatal(err)
	}
	client := redisAt(t, r.URL())
	if err := client.Set(t.Context(), "kept", "yes", time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	if err := client.Set(t.Context(), "gone", "yes", 2*redisTick).Err(); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(r.URL())
	if err != nil {
		t.Fatal(err)
	}
	u.User = nil
	if err := redisAt(t, u.String()).Ping(t.Context()).Err(); err == nil || !strings.Contains(err.Error(), "NOAUTH") {
		t.Errorf("without the password: %v", err)
	}
	begin := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for client.Exists(t.Context(), "gone").Val() == 1 {
		if time.Since(begin) > 10*redisTick {
			t.Fatal("a key does not expire")
		}
		<-tick.C
	}
	if took := time.Since(begin); took < redisTick/2 || client.Exists(t.Context(), "kept").Val() != 1 {
		t.Errorf("expired after %s; the other: %d", took, client.Exists(t.Context(), "kept").Val())
	}
	r.Stop()
	if err := client.Ping(t.Context()).Err(); err == nil {
		t.Error("it answers after Stop")
	}
}

func redisAt(t *testing.T, url string) *redis.Client {
	t.Helper()
	options, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	t.Cleanup(func() { client.Close() }) //nolint:errcheck // the test is over
	return client
}

func TestElapsed(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for name, c := range map[string]struct {
		to   time.Time
		want time.Duration
	}{
		"nothing":          {now, 0},
		"a second":         {now.Add(time.Second), time.Second},
		"an hour of sleep": {now.Round(0).Add(time.Hour), time.Hour}, // the calendar alone has moved
	} {
		if got := elapsed(now, c.to); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
