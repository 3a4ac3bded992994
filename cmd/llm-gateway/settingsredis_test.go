package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestRedisByParts: a Redis can be named by its host, port and database; REDIS_URL wins, and the parts are read only
// where they are used.
func TestRedisByParts(t *testing.T) {
	t.Parallel()
	const service = "REDIS_PORT=tcp://10.0.0.7:6379" // as Kubernetes sets it beside a Service of the name redis
	file := writeFile(t, filepath.Join(t.TempDir(), "ca.pem"), "x")
	for _, c := range []struct {
		set  string // settings with spaces between them
		want string // the URL, or what the problem says
	}{
		{"", ""},
		{"REDIS_PORT=6380 REDIS_DB=2", ""},
		{service, ""},
		{"REDIS_HOST=redis", "redis://redis:6379/0"},
		{"REDIS_HOST=redis_1.example.com REDIS_PORT=6380 REDIS_DB=2", "redis://redis_1.example.com:6380/2"},
		{"REDIS_HOST=10.0.0.7 REDIS_DB=15", "redis://10.0.0.7:6379/15"},
		{"REDIS_HOST=::1", "redis://[::1]:6379/0"},
		{"REDIS_URL=rediss://:p@h:6380/3 REDIS_HOST=other REDIS_DB=x " + service, "rediss://:p@h:6380/3"},
		{"REDIS_HOST=redis " + service, `REDIS_PORT: it must be a whole number from 1 to 65535, not "tcp://`},
		{"REDIS_HOST=redis REDIS_PORT=0", "REDIS_PORT: it must be a whole number from 1 to 65535"},
		{"REDIS_HOST=redis REDIS_DB=-1", "REDIS_DB: it must be a whole number from 0"},
		{"REDIS_HOST=redis:6379", "REDIS_HOST: it must be an IP address or a host name, without a port"},
		{"REDIS_HOST=u:p@redis", "REDIS_HOST: it must be an IP address or a host name"},
		{"REDIS_HOST=a,b", "REDIS_HOST: it must be an IP address or a host name"},
		{"REDIS_HOST=redis/1?x=y", "REDIS_HOST: it must be an IP address or a host name"},
		{"REDIS_HOST=redis REDIS_CA_FILE=" + file, "a rediss:// REDIS_URL"},
	} {
		s, err := load(t, "", strings.Fields(c.set)...)
		if err != nil {
			if c.want == "" || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", c.set, err, c.want)
			}
			continue
		}
		if string(s.RedisURL) != c.want {
			t.Errorf("%s: %q, want %q", c.set, string(s.RedisURL), c.want)
		}
	}
}
