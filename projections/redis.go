package projections

import (
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// The bounds of talking to Redis. It must never make a request slow: what it does not answer at once, Postgres
// answers, or this process's memory. Callers have deadlines of their own, of which these are the longest that
// any request has (for its rate limits): a Redis that is merely slow is not one that is away.
const (
	redisDialTime = 200 * time.Millisecond // one try to connect, its TLS included
	redisIOTime   = 250 * time.Millisecond // sending a command, and again until its answer
	redisPoolTime = 250 * time.Millisecond // until a connection is free
	redisIdleTime = 5 * time.Minute        // what firewalls tend to forget after that
	redisConns    = 32                     // to each server
	redisDials    = 1                      // tries to connect; go-redis would make 5
	redisRetries  = -1                     // none; go-redis would make 3. A failure costs the pause, and repeating it the time again
	// redisRedirects is how often a command follows a cluster's slots to another server.
	redisRedirects = 3
	// redisBackoff is what lies between those, where the server did not say which it is.
	redisBackoff  = 5 * time.Millisecond
	maxRedisHosts = 64 // addresses in a URL
)

// errRedisURL says all there is to say about a URL without quoting it: there is a password in it.
var errRedisURL = errors.New("the Redis URL cannot be used: it must look like redis://user:password@host:port/database, " +
	"with rediss:// for TLS, several host:port with commas between them for a cluster, " +
	"or sentinels as those hosts with ?master_name=... (and sentinel_username, sentinel_password)")

// OpenRedis makes the client for a REDIS_URL. It connects when it is used, so Redis may be away now.
// Any use may fail with ErrRedisAway, which costs no time. The caller closes it. trust is what rediss:// is
// spoken with; nil = by the system's certificate authorities.
func OpenRedis(text string, trust *tls.Config) (redis.UniversalClient, error) {
	options, err := redisOptions(text)
	if err != nil {
		return nil, err
	}
	if trust != nil && options.TLSConfig != nil {
		options.TLSConfig = trust.Clone()
	}
	return newRedis(options), nil
}

func newRedis(options *redis.UniversalOptions) redis.UniversalClient {
	logging.Disable() // it would write each failure to standard error; whoever called is told of it
	client := redis.NewUniversalClient(options)
	if cluster, ok := client.(*redis.ClusterClient); ok {
		// One for each server: one that is away takes its own accounts with it and no others.
		cluster.OnNewNode(func(node *redis.Client) { node.AddHook(newCircuit()) })
	} else {
		client.AddHook(newCircuit())
	}
	return client
}

// redisOptions reads a REDIS_URL. Package net/url refuses several hosts in one URL, so they are taken
// out first.
func redisOptions(text string) (*redis.UniversalOptions, error) {
	scheme, rest, _ := strings.Cut(text, "://")
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	authority, tail := rest[:end], rest[end:]
	at := strings.LastIndexByte(authority, '@')
	u, err := url.Parse("redis://" + authority[:at+1] + "host" + tail)
	if err != nil || scheme != "redis" && scheme != "rediss" || u.Fragment != "" {
		return nil, errRedisURL
	}
	o := redisDefaults()
	if scheme == "rediss" {
		o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12} // the name is that of each host
	}
	o.Username = u.User.Username()
	o.Password, _ = u.User.Password()
	if !addQuery(o, u.RawQuery) || !addDatabase(o, u.Path) || !addHosts(o, authority[at+1:]) {
		return nil, errRedisURL
	}
	if len(o.Addrs) > 1 && o.MasterName == "" && o.DB != 0 {
		return nil, errors.New("the Redis URL cannot be used: a cluster has no database but 0")
	}
	return o, nil
}

func redisDefaults() *redis.UniversalOptions {
	return &redis.UniversalOptions{
		ClientName:            "llm-gateway",
		DialTimeout:           redisDialTime,
		DialerRetries:         redisDials,
		ReadTimeout:           redisIOTime,
		WriteTimeout:          redisIOTime,
		ContextTimeoutEnabled: true,
		PoolTimeout:           redisPoolTime,
		PoolSize:              redisConns,
		MaxActiveConns:        redisConns,
		PipelinePoolSize:      -1, // pipelines share those
		ConnMaxIdleTime:       redisIdleTime,
		MaxRetries:            redisRetries,
		MaxRedirects:          redisRedirects,
		MinRetryBackoff:       redisBackoff,
		MaxRetryBackoff:       redisBackoff,
		DisableIdentity:       true,
		// A command more on each new connection, for a service that few have.
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}

// addQuery knows few options on purpose: one that is not known is a mistake, not a wish.
func addQuery(o *redis.UniversalOptions, query string) bool {
	values, err := url.ParseQuery(query)
	if err != nil {
		return false
	}
	for name, v := range values {
		if len(v) != 1 || v[0] == "" {
			return false
		}
		switch name {
		case "master_name":
			o.MasterName = v[0]
		case "sentinel_username":
			o.SentinelUsername = v[0]
		case "sentinel_password":
			o.SentinelPassword = v[0]
		default:
			return false
		}
	}
	return o.MasterName != "" || o.SentinelUsername == "" && o.SentinelPassword == ""
}

func addDatabase(o *redis.UniversalOptions, path string) bool {
	name := strings.TrimPrefix(path, "/")
	if name == "" {
		return true
	}
	n, err := strconv.ParseUint(name, 10, 16)
	o.DB = int(n)
	return err == nil
}

func addHosts(o *redis.UniversalOptions, hosts string) bool {
	port := "6379"
	if o.MasterName != "" {
		port = "26379"
	}
	for host := range strings.SplitSeq(hosts, ",") {
		u, err := url.Parse("redis://" + host)
		if err != nil || u.Hostname() == "" || u.Host != host || host[0] != '[' && strings.Count(host, ":") > 1 || len(o.Addrs) == maxRedisHosts {
			return false
		}
		p := port
		if u.Hostname() != strings.Trim(host, "[]") {
			p = u.Port()
		}
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return false
		}
		o.Addrs = append(o.Addrs, net.JoinHostPort(u.Hostname(), p))
	}
	return true
}
