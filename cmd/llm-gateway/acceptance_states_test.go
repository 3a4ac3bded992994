package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"llm-gateway/gateway/health"
	"llm-gateway/migrations/pgtest"
)

// stated is a gateway whose states are looked at.
type stated struct {
	t      *testing.T
	s      *served
	client *http.Client
	admin  string
}

func watch(t *testing.T, s *served) *stated {
	w := &stated{t, s, newClient(t), adminToken(t)}
	eventually(t, seenLimit, "it is checked", func() bool {
		status, _ := fetch(t, w.client, s.url+"/health/detailed", w.admin)
		return status == http.StatusOK
	})
	return w
}

// sees waits until a component, or "provider NAME", is in a state, and that must be said by its detail, by the
// metrics and in the log.
func (w *stated) sees(component string, state health.State, detail, level string) *health.Component {
	w.t.Helper()
	var c *health.Component
	eventually(w.t, seenLimit, component+" is "+string(state), func() bool {
		r := healthOf(w.t, w.client, w.s.url, w.admin)
		c = r.Components[component]
		if name, ok := strings.CutPrefix(component, health.ProviderPrefix); ok {
			c = r.Providers[name]
		}
		return c != nil && c.State == state && strings.Contains(c.Detail, detail)
	})
	up := "0"
	if state == health.Up {
		up = "1"
	}
	says(w.t, w.s, w.client, component, up, `"level":"`+level+`","message":"a component is `+string(state)+`","component":"`+component+`"`)
	return c
}

// wants looks for lines of the metrics.
func (w *stated) wants(lines ...string) {
	w.t.Helper()
	for _, line := range lines {
		eventually(w.t, seenLimit, "the metrics say "+line, func() bool {
			_, metrics := fetch(w.t, w.client, w.s.url+"/metrics", "")
			return strings.Contains(metrics, "\n"+line+"\n")
		})
	}
}

// is looks at what balancers ask, and at the whole.
func (w *stated) is(overall health.State, ready int, says string) {
	w.t.Helper()
	if r := healthOf(w.t, w.client, w.s.url, w.admin); r.State != overall {
		w.t.Errorf("the whole is %s, not %s", r.State, overall)
	}
	if status, body := fetch(w.t, w.client, w.s.url+"/ready", ""); status != ready || !strings.Contains(body, says) {
		w.t.Errorf("/ready says %d %s", status, body)
	}
}

// TestComponentsAwayLong: Postgres is away for longer than the lease of a process lasts, with an answer under way.
func TestComponentsAwayLong(t *testing.T) {
	t.Parallel()
	direct := pgtest.URL(t)
	post, through := newGatePost(t, direct)
	w := watch(t, startServe(t, "DATABASE_URL="+through, "HEALTH_CHECK_INTERVAL=200ms", "LOG_LEVEL=INFO"))
	running := make(chan reply, 1)
	go func() {
		running <- chat(t.Context(), w.client, w.s.url, tokenFor(t, "waiter"), chatBody(flatModel, "sim:tokens=20 sim:pace=50ms", true, ""))
	}()
	eventually(t, settleLimit, "the stream has its reserve", func() bool { return len(auditLedger(t, direct).open()) == 1 })
	post.set(cut)
	w.sees("postgres", health.Down, "does not answer", "ERROR")
	w.is(health.Down, http.StatusServiceUnavailable, "Postgres does not answer")
	w.sees("journal", health.Degraded, "settlements wait for Postgres", "WARN")
	w.wants("journal_waiting_commands 1")
	if r := <-running; r.status != http.StatusOK || !r.complete {
		t.Errorf("the stream under way: %v", &r)
	}
	w.sees("lease", health.Down, "it reserves nothing", "ERROR")
	post.set(open)
	for _, component := range []string{"postgres", "lease", "journal"} {
		w.sees(component, health.Up, "", "INFO")
	}
	w.wants("journal_waiting_commands 0")
	eventually(t, seenLimit, "all is up", func() bool { return healthOf(t, w.client, w.s.url, w.admin).State == health.Up })
	w.is(health.Up, http.StatusOK, `{"status":"ready"}`)
	verified(t, "DATABASE_URL="+direct)
}

// TestComponentsAwayProjection: a projection's table is dropped, and made anew.
func TestComponentsAwayProjection(t *testing.T) {
	t.Parallel()
	direct := pgtest.URL(t)
	w := watch(t, startServe(t, "DATABASE_URL="+direct, "HEALTH_CHECK_INTERVAL=200ms", "LOG_LEVEL=INFO"))
	for _, name := range projectionNames {
		execAsOwner(t, direct, `DROP TABLE `+name)
		w.sees("projection "+name, health.Down, "projections rebuild", "ERROR")
		w.is(health.Degraded, http.StatusOK, `{"status":"ready"`)
		succeeds(t, []string{"DATABASE_URL=" + direct}, "projections", "rebuild", name, "--from", "ledger")
		w.sees("projection "+name, health.Up, "", "INFO")
	}
}

// TestComponentsAwayTail: Postgres was restored to the past, and its tail is brought back.
func TestComponentsAwayTail(t *testing.T) {
	t.Parallel()
	live := ownDatabase(t)
	published := publishedAt(t, live)
	serveOnce(t, live, "heir")
	past := copyDatabase(t, live)
	serveOnce(t, live, "heir", "heir")
	published.audit(t)
	w := watch(t, startServe(t, "DATABASE_URL="+past, "HEALTH_CHECK_INTERVAL=200ms", "LOG_LEVEL=INFO"))
	refuses(t, w.client, w.s.url, "heir")
	w.sees("ledger", health.Down, "lost its tail", "ERROR")
	w.is(health.Down, http.StatusServiceUnavailable, "lost its tail")
	w.wants("ledger_refused_shards 1", "ledger_tail_lost_shards 1")
	recoverTail(t, past)
	w.sees("ledger", health.Up, "", "INFO")
	w.wants("ledger_refused_shards 0", "ledger_tail_lost_shards 0")
	eventually(t, seenLimit, "all is up, the journal empty again", func() bool { return healthOf(t, w.client, w.s.url, w.admin).State == health.Up })
	w.is(health.Up, http.StatusOK, `{"status":"ready"`)
	serves(t, w.client, w.s.url, "heir")
}

// TestComponentsAwayProvider: a provider cannot be reached, and a model of another one fails and recovers: their
// circuits open, half open and close.
func TestComponentsAwayProvider(t *testing.T) {
	t.Parallel()
	f := startFailing(t, 1, "RETRY_ENABLED=false", "CIRCUIT_BREAKER_FAILURE_THRESHOLD=3", "CIRCUIT_BREAKER_RECOVERY_TIMEOUT=5", "HEALTH_CHECK_INTERVAL=200ms", "LOG_LEVEL=INFO")
	w := watch(t, f.all[0])
	for range 3 {
		f.want(0, "fickle", openAIOne, false, http.StatusBadGateway, "upstream_error")
		f.want(0, claude, claudeOne+";n=states;fault=529", false, http.StatusBadGateway, "upstream_error")
	}
	c := w.sees("provider down", health.Down, "its circuit is open; the last failure: unreached", "ERROR")
	if facts := fmt.Sprint(c.Facts["circuits"]); !containsAll(facts, "opened_at", "retry_at", "unreached") {
		t.Errorf("its circuits are told as %s", facts)
	}
	w.sees("provider anthropic", health.Down, "1 of its models have circuits that are not closed: "+claude, "ERROR")
	w.is(health.Degraded, http.StatusOK, `{"status":"ready"}`)
	model := `llm_provider_circuit_state{model="` + claude + `",provider="anthropic"} `
	w.wants(`llm_provider_circuit_state{model="",provider="down"} 2`, model+"2", model+"1") // the last one when its time is over
	f.want(0, claude, claudeOne+";n=states", false, http.StatusOK, "")
	w.wants(model + "0")
	if c := w.sees("provider anthropic", health.Up, "", "INFO"); c.Facts["circuits"] != nil || c.Facts["failed"] != 0.0 {
		t.Errorf("the circuit is closed, and told as %v", c.Facts)
	}
	log := f.all[0].stdout.String()
	for _, line := range []string{`"message":"a circuit is open","provider":"down","model":""`, `"message":"a circuit is open","provider":"anthropic","model":"` + claude + `"`,
		`"message":"a circuit is half_open","provider":"anthropic"`, `"message":"a circuit is closed","provider":"anthropic"`} {
		if !strings.Contains(log, line) {
			t.Errorf("the log lacks %s", line)
		}
	}
	if !slices.ContainsFunc(strings.Split(log, "\n"), func(line string) bool {
		return containsAll(line, `"message":"request"`, `"model":"`+claude+`"`, `"provider":"anthropic"`, `"code":"upstream_error"`)
	}) {
		t.Error("the log has no line of a request that failed")
	}
}

// clockOff moves the clock of a Postgres, as those see it who find the schema's functions before Postgres's own.
func clockOff(t *testing.T, databaseURL, by string) {
	t.Helper()
	execAsOwner(t, databaseURL, `CREATE OR REPLACE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
		$$SELECT pg_catalog.clock_timestamp() + interval '`+by+`'$$`)
}

// TestComponentsAwayClock: Postgres's clock and the gateway's part, either way, and come together again.
func TestComponentsAwayClock(t *testing.T) {
	t.Parallel()
	direct := pgtest.URL(t)
	clockOff(t, direct, "0")
	skewed := changed(t, direct, func(u *url.URL) {
		q := u.Query()
		q.Set("search_path", q.Get("search_path")+",pg_catalog")
		u.RawQuery = q.Encode()
	})
	w := watch(t, startServe(t, "DATABASE_URL="+skewed, "HEALTH_CHECK_INTERVAL=200ms", "LOG_LEVEL=INFO"))
	const tolerated = "at most 2s is tolerated"
	for _, m := range []struct {
		by     string
		state  health.State
		detail string
		level  string
		ready  int
		reason string
		skew   func(milliseconds float64) bool // what the facts say of the gateway's clock
	}{
		{"-1500 ms", health.Degraded, "drifts", "WARN", http.StatusOK, `{"status":"ready"}`, func(ms float64) bool { return ms > 0 }},
		{"-4 s", health.Down, tolerated, "ERROR", http.StatusServiceUnavailable, "this gateway's clock is ", func(ms float64) bool { return ms > 2000 }},
		{"0", health.Up, "", "INFO", http.StatusOK, `{"status":"ready"}`, func(ms float64) bool { return -1000 <= ms && ms <= 1000 }},
		{"4 s", health.Down, tolerated, "ERROR", http.StatusServiceUnavailable, "this gateway's clock is -", func(ms float64) bool { return ms < -2000 }},
		{"0", health.Up, "", "INFO", http.StatusOK, `{"status":"ready"}`, func(ms float64) bool { return -1000 <= ms && ms <= 1000 }},
	} {
		clockOff(t, direct, m.by)
		c := w.sees("clock", m.state, m.detail, m.level)
		if ms, ok := c.Facts["skew_ms"].(float64); !ok || !m.skew(ms) {
			t.Errorf("Postgres's clock is off by %s: %v", m.by, c.Facts)
		}
		eventually(t, seenLimit, "the whole is "+string(m.state), func() bool { return healthOf(t, w.client, w.s.url, w.admin).State == m.state })
		w.is(m.state, m.ready, m.reason)
		serves(t, w.client, w.s.url, "punctual") // who is sent here all the same is served: the order of events is no clock's
	}
	if !strings.Contains(w.s.stdout.String(), `"message":"not ready","error":"this gateway's clock is`) {
		t.Error("the log does not say why it was not ready")
	}
	verified(t, "DATABASE_URL="+direct)
}

// lie puts a record into the topic that pretends to follow the last event of an account's shard, and returns the
// shard.
func (p published) lie(t *testing.T, account string) (shard int32) {
	t.Helper()
	last := &kgo.Record{}
	for _, records := range p.read(t) {
		if end := records[len(records)-1]; string(end.Key) == account {
			last = end
		}
	}
	r := &kgo.Record{Topic: p.topic, Partition: last.Partition, Key: last.Key, Headers: slices.Clone(last.Headers)}
	for i, h := range r.Headers {
		if h.Key != "ledger_seq" {
			continue
		}
		seq, err := strconv.Atoi(string(h.Value))
		if err != nil {
			t.Fatal(err)
		}
		r.Headers[i].Value = []byte(strconv.Itoa(seq + 1))
		r.Value = bytes.Replace(last.Value, fmt.Appendf(nil, `"seq":%d`, seq), fmt.Appendf(nil, `"seq":%d`, seq+1), 1)
	}
	client, _ := p.client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
	return r.Partition
}

// TestComponentsAwayHalt: somebody writes into the topic what is no event of the ledger. Nothing that is read is made
// of it: the projections stand still before it, until one is made anew from the ledger, which takes them past it.
func TestComponentsAwayHalt(t *testing.T) {
	t.Parallel()
	direct := pgtest.URL(t)
	topic := publishedAt(t, direct)
	w := watch(t, startServe(t, "DATABASE_URL="+direct, "HEALTH_CHECK_INTERVAL=200ms", "LOG_LEVEL=INFO"))
	behind := func() (out struct{ Behind int64 }) {
		_, body := fetch(t, w.client, w.s.url+"/billing/balance", tokenFor(t, "reader"))
		if err := json.Unmarshal([]byte(body), &out); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		return out
	}
	serves(t, w.client, w.s.url, "reader")
	topic.audit(t)
	caughtUp(t, direct)
	shard := topic.lie(t, "reader")
	halted := func(name, one string) string {
		return fmt.Sprintf(`projection_halted{projection="%s",shard="%d"} %s`, name, shard, one)
	}
	for _, name := range projectionNames {
		w.sees("projection "+name, health.Degraded, "it stands still in 1 shards; the log says why", "WARN")
		w.wants(halted(name, "1"))
		if line := fmt.Sprintf(`"level":"ERROR","message":"a projection has stopped in one shard","projection":"%s","shard":%d,"error":"offset `, name, shard); !strings.Contains(w.s.stdout.String(), line) {
			t.Errorf("the log lacks %s", line)
		}
	}
	w.is(health.Degraded, http.StatusOK, `{"status":"ready"}`)
	serves(t, w.client, w.s.url, "reader")
	if n := behind().Behind; n <= 0 {
		t.Errorf("the balance says that it is %d events behind", n)
	}
	succeeds(t, []string{"DATABASE_URL=" + direct}, "projections", "rebuild", projectionNames[0])
	for _, name := range projectionNames {
		w.sees("projection "+name, health.Up, "", "INFO")
		w.wants(halted(name, "0"))
	}
	eventually(t, seenLimit, "all is up", func() bool { return healthOf(t, w.client, w.s.url, w.admin).State == health.Up })
	w.is(health.Up, http.StatusOK, `{"status":"ready"}`)
	serves(t, w.client, w.s.url, "reader")
	caughtUp(t, direct)
	if n := behind().Behind; n != 0 {
		t.Errorf("the balance says that it is %d events behind", n)
	}
	auditProjections(t, direct)
	if r := run(t, []string{"DATABASE_URL=" + direct}, "ledger", "verify"); r.status != 1 || !containsAll(r.stdout, "its bytes are not the ledger's", "NOT CLEAN") {
		t.Errorf("ledger verify does not name what was put there, and ended with %d:\n%s%s", r.status, r.stdout, r.stderr)
	}
	deleteTopic(t, topic.brokers, topic.topic) // the relay makes it anew
	topic.audit(t)
	serves(t, w.client, w.s.url, "reader")
	caughtUp(t, direct)
	whole(t, direct)
	w.wants(halted(projectionNames[0], "0"))
}
