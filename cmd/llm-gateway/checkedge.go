package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"llm-gateway/domain"
)

// soonOver is how long before its end a certificate is to be renewed.
const soonOver = 30 * 24 * time.Hour

// certificates looks at the gateway's own ones for Kafka and Redis; the servers' are checked by connecting.
func (p *production) certificates() {
	for _, of := range []struct {
		name  string
		trust trustFiles
	}{{"KAFKA", p.settings.KafkaTrust}, {"REDIS", p.settings.RedisTrust}} {
		if of.trust.Key == "" {
			continue
		}
		if info, err := os.Stat(of.trust.Key); err == nil {
			p.either(info.Mode().Perm()&0o004 == 0, of.name+"_KEY_FILE", "it is not for everybody to read", verdictWarn, "every login of this machine can read it: chmod o-r")
		}
		config, err := of.trust.config()
		if err != nil || len(config.Certificates) == 0 || config.Certificates[0].Leaf == nil {
			continue // it has been told
		}
		end := config.Certificates[0].Leaf.NotAfter
		switch left := end.Sub(p.now); {
		case left <= 0:
			p.failf(of.name+"_CERT_FILE", "it was valid until %s: renew it", end.Format(time.DateOnly))
		case left < soonOver:
			p.warnf(of.name+"_CERT_FILE", "it is valid until %s alone: renew it", end.Format(time.DateOnly))
		default:
			p.okf(of.name+"_CERT_FILE", "it is valid until %s", end.Format(time.DateOnly))
		}
	}
}

// watching is what tells an operator that something is wrong.
func (p *production) watching() {
	s := p.settings
	p.either(s.LogLevel > slog.LevelDebug, "LOG_LEVEL", s.LogLevel.String(), verdictWarn, "DEBUG: a line for every retry of a client. Set it to INFO")
	why := unwritable(s.LogFile)
	p.either(why == "", "LOG_FILE", or(s.LogFile, "stdout"), verdictFail, "it cannot be written, and serve does not start: "+why)
	p.either(!s.Debug, "DEBUG", "false", verdictWarn, "true: the log is text that machines do not read. Set it to false")
	p.either(!s.HealthPublic, "HEALTH_DETAILS", detailsAdmin, verdictWarn, "public: everybody can read what stands behind the gateway, and what of it is away")
	p.either(s.HealthProbes, "HEALTH_PROBES", "providers that nobody calls are asked for their models", verdictWarn, "off: nobody knows how a provider is that nobody calls")
	p.either(s.ShutdownDelay > 0, "SHUTDOWN_DELAY", s.ShutdownDelay.String(), verdictWarn, "0s: a balancer sends requests to a gateway that has left. Set it to longer than its checks of /ready are apart")
	p.either(s.Prometheus, "PROMETHEUS_ENABLED", "/metrics is served; see that somebody reads it, and has alerts (docs/operating.md)", verdictWarn, "false: nobody is told when something is wrong")
	p.either(s.UserBalances == 0, "METRICS_USER_BALANCE", balancesOff, verdictWarn, "whoever can read /metrics, which takes no credential, reads accounts and balances")
}

// unwritable says why LOG_FILE cannot be written, and "" where it can. What is not there yet is not made.
func unwritable(path string) string {
	if path == "" {
		return ""
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		if beside, failed := os.CreateTemp(filepath.Dir(path), ".check-*"); failed == nil {
			file, err = beside, nil
			defer os.Remove(beside.Name()) //nolint:errcheck // it was only a try
		}
	}
	if err != nil {
		return reason(err)
	}
	file.Close() //nolint:errcheck // nothing was written
	return ""
}

// receivers are told of requests and errors, where they are set.
func (p *production) receivers(ctx context.Context) {
	t, told := &p.settings.Telemetry, false
	for _, one := range []struct {
		name, at string
		on       bool
	}{
		{"OTEL_EXPORTER_OTLP_ENDPOINT", t.tracesURL(), t.tracesURL() != ""},
		{"LANGFUSE_HOST", t.LangfuseHost, t.Langfuse},
		{"SENTRY_DSN", string(t.SentryDSN), t.SentryDSN != ""},
	} {
		u, err := url.Parse(one.at)
		if !one.on || err != nil {
			continue
		}
		told = true
		if why := connects(ctx, u, p.timeout); why != "" {
			p.warnf(one.name, "%s; requests do not wait for it, and what it would be told is dropped", why)
			continue
		}
		p.either(u.Scheme == "https" || local(u.Hostname()), one.name, "it can be reached", verdictWarn, "it can be reached, by http: its key can be read on the way")
	}
	if !told {
		p.skipf("telemetry", "no receiver of traces or errors is set (docs/telemetry.md)")
	}
}

// connects says why a server cannot be reached, and "" where it can; nothing is sent there. Where a proxy is on
// the way, that is what must be reached.
func connects(ctx context.Context, to *url.URL, timeout time.Duration) string {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if proxy, err := http.ProxyFromEnvironment(&http.Request{URL: to}); err == nil && proxy != nil {
		to = proxy
	}
	port, secure := or(to.Port(), "80"), to.Scheme == "https"
	if secure {
		port = or(to.Port(), "443")
	}
	var d interface {
		DialContext(ctx context.Context, network, addr string) (net.Conn, error)
	} = &net.Dialer{}
	if secure {
		d = &tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS12, ServerName: to.Hostname()}}
	}
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(to.Hostname(), port))
	if err != nil {
		return "no connection: " + reason(err)
	}
	conn.Close() //nolint:errcheck // nothing was said on it
	return ""
}

// edge is who may ask.
func (p *production) edge() {
	s := p.settings
	p.either(!slices.Contains(s.AllowedHosts, "*"), "ALLOWED_HOSTS", strings.Join(s.AllowedHosts, ", "), verdictWarn, "any Host header is taken: name yours")
	p.either(!slices.Contains(s.CORSOrigins, "*"), "CORS_ORIGINS", or(strings.Join(s.CORSOrigins, ", "), "no web page may call this gateway"), verdictWarn,
		"any web page may call this gateway with a token that it has: name yours")
	switch {
	case slices.ContainsFunc(s.TrustedProxies, everybody):
		p.failf("TRUSTED_PROXIES", "it takes in every address, so every client can say that it is another one: name your proxies alone")
	case len(s.TrustedProxies) == 0:
		p.okf("TRUSTED_PROXIES", "none: the log has the address that connects. Name the balancer before the gateway, if there is one")
	default:
		p.okf("TRUSTED_PROXIES", "%s", strings.Join(s.TrustedProxies, ", "))
	}
	p.either(!s.SharedIDs, "SHARED_PROVIDER_IDS", sharedRefuse, verdictWarn, "allow: every account can name what providers keep for all others. That is for one tenant alone")
	if s.CacheStore != cacheOff {
		p.either(!s.CacheShared, "RESPONSE_CACHE_SHARED", "false", verdictWarn, "true: whoever asks can find out what other accounts have asked")
	}
}

// everybody says whether a network is all of them.
func everybody(network string) bool {
	prefix, err := netip.ParsePrefix(network)
	return err == nil && prefix.Bits() == 0
}

// limits are what one client, and one failing provider, can take.
func (p *production) limits() {
	l := &p.settings.Limits
	perAccount := l.Account[domain.RequestsMinute] + l.Account[domain.RequestsHour] + l.Account[domain.TokensMinute]
	p.either(perAccount > 0, "RATE_LIMIT_REQUESTS_PER_MINUTE", fmt.Sprintf("%d, and %d an hour, for an account that has no limits of its own", l.Account[domain.RequestsMinute], l.Account[domain.RequestsHour]),
		verdictWarn, "no account has a limit, unless it has one of its own: one client can take all that there is")
	p.either(l.Storage == limitsInRedis, "RATE_LIMIT_STORAGE", limitsInRedis, verdictWarn, "memory: each gateway has limits of its own, so several let through several times as much")
	p.either(l.InFlight.Most > 0, "MAX_IN_FLIGHT", strconv.Itoa(l.InFlight.Most), verdictWarn, "0: a flood takes all the memory that there is")
	p.either(p.settings.CircuitEnabled, "CIRCUIT_BREAKER_ENABLED", "true", verdictWarn, "false: every caller of a provider that is away waits for it")
	p.either(p.settings.RetryBudget > 0 || !p.settings.RetryEnabled, "RETRY_BUDGET_PERCENT", strconv.Itoa(p.settings.RetryBudget), verdictWarn, "0: an outage of a provider is multiplied by RETRY_MAX_ATTEMPTS")
}
