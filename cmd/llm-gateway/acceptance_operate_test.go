package main

import (
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"llm-gateway/gateway"
	"llm-gateway/gateway/health"
	"llm-gateway/migrations/pgtest"
)

// seenLimit is for a check to see what has happened: its own bound, its interval, and a slow machine.
const seenLimit = time.Minute

// healthLimit is for /health and /live to answer: they ask nobody, so this is a slow machine's time. Who waited for
// a server that is away would take longer.
const healthLimit = 4 * time.Second

// adminToken signs a token of an administrator.
func adminToken(t testing.TB) string {
	t.Helper()
	tokens, err := gateway.NewTokens("HS256", []byte(testSecret))
	if err != nil {
		t.Fatal(err)
	}
	token, err := tokens.Sign("operator", gateway.RoleAdmin, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// healthOf is what /health/detailed says.
func healthOf(t testing.TB, client *http.Client, base, token string) (r struct {
	health.Report
	Stale   bool
	Billing bool
	Version string
}) {
	t.Helper()
	status, body := fetch(t, client, base+"/health/detailed", token)
	if status != http.StatusOK && status != http.StatusServiceUnavailable {
		t.Fatalf("/health/detailed: %d %s", status, body)
	}
	if err := json.Unmarshal([]byte(body), &r); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return r
}

// killable is a server that a test takes away and brings back.
type killable struct {
	component  string
	kill, back func()
	overall    health.State // while it is away
	ready      int          // what /ready answers then
	alsoDown   []string
}

// kafkaAt is a Kafka at a port of its own, which comes back empty.
func kafkaAt(t testing.TB) (broker string, kill, back func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	broker = l.Addr().String()
	_, text, _ := net.SplitHostPort(broker)
	port, _ := strconv.Atoi(text)
	l.Close() //nolint:errcheck // the broker takes its port
	var k *kfake.Cluster
	back = func() {
		if k, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(port)); err != nil {
			t.Fatal(err)
		}
	}
	back()
	t.Cleanup(func() { k.Close() })
	return broker, func() { k.Close() }, back
}

// TestComponentsAway takes each server away and brings it back, and reads at each moment what /health,
// /live, /ready, /health/detailed, /health/history, the metrics and the log say.
func TestComponentsAway(t *testing.T) {
	t.Parallel()
	direct := pgtest.URL(t)
	postgres, through := newGatePost(t, direct)
	broker, killKafka, kafkaBack := kafkaAt(t)
	env := []string{"DATABASE_URL=" + through, "KAFKA_BROKERS=" + broker, "KAFKA_USAGE_TOPIC=" + topicOf(direct),
		"HEALTH_CHECK_INTERVAL=200ms", "LOG_LEVEL=INFO"}
	all := []killable{
		{"postgres", func() { postgres.set(cut) }, func() { postgres.set(open) }, health.Down, http.StatusServiceUnavailable, nil},
		{"kafka", killKafka, kafkaBack, health.Degraded, http.StatusOK, nil},
	}
	if at, err := url.Parse(os.Getenv("REDIS_URL")); err == nil && at.Host != "" {
		redis := postAt(t, "127.0.0.1:0", "tcp", at.Host)
		at.Host = redis.listener.Addr().String()
		env = append(env, "REDIS_URL="+at.String())
		all = append(all, killable{"redis", func() { redis.set(cut) }, func() { redis.set(open) }, health.Degraded, http.StatusOK, nil})
	}
	s, client, admin := startServe(t, env...), newClient(t), adminToken(t)
	chat(t.Context(), client, s.url, tokenFor(t, "somebody"), chatBody(flatModel, "hello", false, ""))
	eventually(t, seenLimit, "all is up", func() bool { return healthOf(t, client, s.url, admin).State == health.Up })
	for _, k := range all {
		away(t, s, client, admin, &k)
	}
	status, body := fetch(t, client, s.url+"/health/history", admin)
	for _, want := range []string{`"postgres":"down"`, `"kafka":"down"`, `"status":"degraded"`, `"status":"up"`} {
		if status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("the history lacks %s: %d %.300s", want, status, body)
		}
	}
	verified(t, "DATABASE_URL="+direct)
}

// away is the story of one server.
func away(t *testing.T, s *served, client *http.Client, admin string, k *killable) {
	t.Helper()
	before := healthOf(t, client, s.url, admin).Components[k.component]
	k.kill()
	began := time.Now()
	eventually(t, seenLimit, k.component+" is seen to be down", func() bool {
		return healthOf(t, client, s.url, admin).Components[k.component].State == health.Down
	})
	t.Logf("%s: seen to be down after %s", k.component, time.Since(began).Round(time.Millisecond))
	now := healthOf(t, client, s.url, admin)
	c := now.Components[k.component]
	if now.State != k.overall || c.Detail == "" || !c.Since.After(before.Since) || now.Stale || !now.Billing {
		t.Errorf("%s away: %s, %+v", k.component, now.State, c)
	}
	if status, body := fetch(t, client, s.url+"/ready", ""); status != k.ready || k.ready == http.StatusOK && !strings.Contains(body, `"`+k.component+`"`) {
		t.Errorf("%s away: /ready says %d %s", k.component, status, body)
	}
	for _, path := range []string{"/health", "/live"} {
		began := time.Now()
		if status, body := fetch(t, client, s.url+path, ""); status != http.StatusOK || time.Since(began) > healthLimit {
			t.Errorf("%s away: %s says %d %s after %s", k.component, path, status, body, time.Since(began))
		}
	}
	k.answered(t, s, client, "0")
	says(t, s, client, k.component, "0", `"level":"ERROR","message":"a component is down","component":"`+k.component+`"`)
	k.back()
	began = time.Now()
	eventually(t, seenLimit, k.component+" is back", func() bool { return healthOf(t, client, s.url, admin).State == health.Up })
	t.Logf("%s: all is up %s after it is back", k.component, time.Since(began).Round(time.Millisecond))
	if again := healthOf(t, client, s.url, admin).Components[k.component]; !again.Since.After(c.Since) || again.Detail != "" {
		t.Errorf("%s back: %+v", k.component, again)
	}
	eventually(t, seenLimit, "it is ready", func() bool {
		status, body := fetch(t, client, s.url+"/ready", "")
		return status == http.StatusOK && body == `{"status":"ready"}`
	})
	k.answered(t, s, client, "1")
	says(t, s, client, k.component, "1", `"message":"a component is up","component":"`+k.component+`"`)
}

// answered looks for the metric that the alerts go by.
func (k *killable) answered(t *testing.T, s *served, client *http.Client, up string) {
	t.Helper()
	want := `dependency_up{dependency="` + k.component + `"} ` + up + "\n"
	eventually(t, seenLimit, "the metrics say "+want, func() bool {
		_, metrics := fetch(t, client, s.url+"/metrics", "")
		return strings.Contains(metrics, want)
	})
}

// says looks for a component's state in the metrics and in the log.
func says(t *testing.T, s *served, client *http.Client, component, up, line string) {
	t.Helper()
	want := `health_component_up{component="` + component + `"} ` + up + "\n"
	eventually(t, seenLimit, "the metrics say "+want, func() bool {
		_, metrics := fetch(t, client, s.url+"/metrics", "")
		return strings.Contains(metrics, want)
	})
	if !strings.Contains(s.stdout.String(), line) {
		t.Errorf("the log lacks %s", line)
	}
}

// TestHealthIsForOperators: what reveals topology takes an administrator, unless the operator chose
// otherwise; what balancers ask takes nobody.
func TestHealthIsForOperators(t *testing.T) {
	t.Parallel()
	closed := startServe(t, onPostgres(t, "HEALTH_CHECK_INTERVAL=200ms", "APP_VERSION=7.8.9")...)
	public := startServe(t, "BILLING_ENABLED=false", "HEALTH_DETAILS=public", "HEALTH_CHECK_INTERVAL=200ms")
	client := newClient(t)
	for _, path := range []string{"/health/detailed", "/health/system", "/health/history"} {
		for token, want := range map[string]int{"": 401, tokenFor(t, "somebody"): 403, adminToken(t): 200} {
			eventually(t, seenLimit, path, func() bool {
				status, _ := fetch(t, client, closed.url+path, token)
				return status == want
			})
		}
		eventually(t, seenLimit, path+" in public", func() bool {
			status, _ := fetch(t, client, public.url+path, "")
			return status == http.StatusOK
		})
	}
	if _, body := fetch(t, client, closed.url+"/health", ""); !containsAll(body, `"version":"7.8.9"`, `"billing":true`) {
		t.Errorf("/health: %s", body)
	}
	if _, body := fetch(t, client, closed.url+"/metrics", ""); !strings.Contains(body, `llm_gateway_build_info{version="7.8.9"} 1`) {
		t.Error("the metrics do not say which version runs")
	}
	var system struct {
		Unknown []string `json:"unknown"`
		RSS     int64    `json:"memory_rss"`
	}
	_, body := fetch(t, client, closed.url+"/health/system", adminToken(t))
	if err := json.Unmarshal([]byte(body), &system); err != nil || !slices.Contains(system.Unknown, "memory_rss") && system.RSS < 1<<20 {
		t.Errorf("/health/system: %v %s", err, body)
	}
}
