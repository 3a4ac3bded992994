package main

import (
	"context"
	"net/url"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"llm-gateway/cmd/llm-gateway/embedded"
)

const (
	oldestRedis   = 6                         // major version
	checkRedisKey = "llm-gateway:{check}:tmp" // what a check writes, for a second
	checkRedisTTL = "1000"                    // milliseconds
)

// checkScript does what the cache's scripts do, on a key of its own.
const checkScript = `redis.call('HSET', KEYS[1], 'a', '1') redis.call('PEXPIRE', KEYS[1], ARGV[1])
local v = redis.call('HGET', KEYS[1], 'a') redis.call('DEL', KEYS[1]) return v`

// checkRedisServer connects to Redis as `serve` does, and names what is missing.
func checkRedisServer(ctx context.Context, s *Settings) (f findings) {
	url, _ := f.serverAt(s, "REDIS_URL", string(s.RedisURL), func(e embedded.Endpoints) string { return e.RedisURL })
	if url == "" {
		return f
	}
	at := Secret(url)
	client, err := openRedis(s, at)
	if err != nil {
		f.failf("connection", "REDIS_URL: %s", err)
		return f
	}
	defer client.Close() //nolint:errcheck // nothing is left on it
	if err := client.Ping(ctx).Err(); err != nil {
		f.failf("connection", "REDIS_URL: %s", redisError(err, at))
		return f
	}
	f.okf("connection", "it answers")
	f.redisTLS(at)
	if !f.median("PING", func() error { return client.Ping(ctx).Err() }) {
		return f
	}
	if got, err := client.Eval(ctx, checkScript, []string{checkRedisKey}, checkRedisTTL).Text(); err != nil || got != "1" {
		f.failf("scripts", "REDIS_URL: the login must be allowed EVAL, EVALSHA, HSET, HGET, PEXPIRE and DEL: %s", redisError(err, at))
	} else {
		f.okf("scripts", "Lua runs, and the keys can be written")
	}
	f.redisServer(ctx, client, s)
	return f
}

// redisTLS looks at the URL: who has connected by it has what it says.
func (f *findings) redisTLS(at Secret) {
	scheme, rest, _ := strings.Cut(string(at), "://")
	host := rest[strings.LastIndexByte(rest, '@')+1:]
	if u, err := url.Parse(string(at)); err == nil {
		host = u.Hostname()
	}
	login := strings.Contains(rest, "@")
	switch {
	case local(host):
		f.okf("TLS", "not needed on this machine")
	case scheme == "rediss":
		f.okf("TLS", "encrypted, and the certificate is checked")
	default:
		f.warnf("TLS", "none: balances and the password can be read on the way. Use rediss:// in REDIS_URL")
	}
	if !login && !local(host) {
		f.warnf("login", "REDIS_URL has no password: whoever reaches this Redis can change what balances it shows")
	}
}

// redisServer reads what the server says of itself. One that says nothing is taken as it is.
func (f *findings) redisServer(ctx context.Context, client redis.UniversalClient, s *Settings) {
	text, err := client.Info(ctx).Result()
	if err != nil {
		f.skipf("server", "it does not tell of itself (INFO)")
		return
	}
	info := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			info[name] = value
		}
	}
	if version, told := info["redis_version"]; told {
		major, _, _ := strings.Cut(version, ".")
		n, _ := strconv.Atoi(major)
		f.either(n >= oldestRedis, "version", version, verdictWarn, version+": "+strconv.Itoa(oldestRedis)+" or newer has been tried")
	} else {
		f.skipf("version", "it does not tell")
	}
	if info["role"] == "slave" {
		f.failf("primary", "this is a replica, which takes no writes: REDIS_URL must lead to the primary, or name the sentinels (?master_name=)")
	}
	if _, clustered := client.(*redis.ClusterClient); info["cluster_enabled"] == "1" {
		f.either(clustered, "cluster", "it is one, and is spoken to as one; keys are tagged by account", verdictFail,
			"it is a cluster: name several of its nodes in REDIS_URL, with commas between them")
	}
	f.eviction(info, s)
}

// eviction: a cache of balances may lose keys, since it refills. Holds may not: they bound what is spent while
// Postgres is away.
func (f *findings) eviction(info map[string]string, s *Settings) {
	policy, bounded := info["maxmemory_policy"], info["maxmemory"] != "" && info["maxmemory"] != "0"
	switch spool := s.Degraded == degradedSpool; {
	case policy == "":
		f.skipf("eviction", "it does not tell")
	case !bounded:
		f.okf("eviction", "maxmemory is not set: nothing is evicted")
	case spool && policy != "noeviction":
		f.warnf("eviction", "%s: with BILLING_DEGRADED=spool a hold that is evicted can be spent twice while Postgres is away. Use noeviction, and room", policy)
	case !spool && policy == "noeviction":
		f.warnf("eviction", "noeviction: when maxmemory is reached, balances are not renewed any more, and the early no is lost. allkeys-lru is safe here: the cache refills")
	default:
		f.okf("eviction", "%s", policy)
	}
}
