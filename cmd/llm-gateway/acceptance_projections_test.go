package main

// What is read: rebuilt while it is served, and never needed to decide about money.

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"llm-gateway/domain"
	"llm-gateway/migrations/pgtest"
)

var projectionNames = []string{"balances", "transactions", "stats"}

// rebuiltEqual rebuilds every projection from the topic and from the ledger, beside whoever is
// serving: each must be what the live one was at the same position.
func rebuiltEqual(t testing.TB, env []string) {
	t.Helper()
	for _, from := range []string{"topic", "ledger"} {
		for _, name := range projectionNames {
			r := parsed[rebuildOut](t, env, "projections", "rebuild", name, "--from", from)
			if !r.Compared || !r.Equal || !r.Swapped {
				t.Errorf("%s rebuilt from the %s: %+v", name, from, r)
			}
		}
	}
	succeeds(t, env, "projections", "verify")
}

// execAsOwner runs SQL as the tables' owner.
func execAsOwner(t testing.TB, databaseURL, sql string, args ...any) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context())) //nolint:errcheck // it was committed
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// TestProjectionDropped: each projection's table is dropped under load, and rebuilt while the gateways
// serve.
func TestProjectionDropped(t *testing.T) {
	t.Parallel()
	all, url := gateways(t, 2, append(newWitness(t).settings(), "BILLING_DEFAULT_BALANCE="+loadBalance)...)
	publishedAt(t, url)
	env := []string{"DATABASE_URL=" + url, "BILLING_DEFAULT_BALANCE=" + loadBalance}
	client, token := newClient(t), tokenFor(t, loadAccount(0))
	stop, sent := background(t, []string{all[0].url, all[1].url})
	for i, name := range projectionNames {
		goneOn(t, sent, 200)
		execAsOwner(t, url, `DROP TABLE `+name)
		goneOn(t, sent, 100)
		from := []string{"topic", "ledger"}[i%2]
		if r := parsed[rebuildOut](t, env, "projections", "rebuild", name, "--from", from); r.Compared || !r.Swapped {
			t.Errorf("%s rebuilt from the %s after it was dropped: %+v", name, from, r)
		}
	}
	goneOn(t, sent, 200)
	replies := stop()
	checkReplies(t, auditLedger(t, url), replies)
	auditProjections(t, url)
	for _, path := range []string{"/billing/balance", "/billing/transactions", "/billing/stats"} {
		if status, body := fetch(t, client, all[0].url+path, token); status != http.StatusOK {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	rebuiltEqual(t, env)
	verified(t, env...)
}

// stopProjector gives the projector's lease to nobody.
func stopProjector(t testing.TB, databaseURL string) {
	t.Helper()
	execAsOwner(t, databaseURL, `INSERT INTO ledger_leases (name, owner, until) VALUES ('projector', gen_random_uuid(), 'infinity')
		ON CONFLICT (name) DO UPDATE SET owner = EXCLUDED.owner, until = EXCLUDED.until`)
}

// TestProjectorAndRedisStopped: what is read stands still, and what is decided does not.
func TestProjectorAndRedisStopped(t *testing.T) {
	t.Parallel()
	for _, cache := range []string{"no Redis", "a stale Redis"} {
		t.Run(cache, func(t *testing.T) {
			t.Parallel()
			testStopped(t, cache == "no Redis")
		})
	}
}

func testStopped(t *testing.T, noRedis bool) {
	const requests, affords = 256, 100
	url := pgtest.URL(t)
	env := []string{"DATABASE_URL=" + url, "BILLING_DEFAULT_BALANCE=1.009"}
	if noRedis {
		env = append(env, "REDIS_URL=redis://127.0.0.1:1/0")
	}
	succeeds(t, env, "migrate")
	all := []*served{startServe(t, env...), startServe(t, env...)}
	client, token := newClient(t), tokenFor(t, "spender")
	ask := func(i int) reply {
		return chat(t.Context(), client, all[i%2].url, token, chatBody(flatModel, fmt.Sprint("request ", i), i/2%2 == 0, ""))
	}
	good := 0
	if r := ask(0); r.status == http.StatusOK { // the account is open, and the cache knows of it
		good++
	}
	caughtUp(t, url)
	stopProjector(t, url)
	eventually(t, takeOverLimit, "the projector has stopped", func() bool { return !projects(t, url, ask, &good) })
	replies := make([]reply, requests)
	atOnce(requests, func(i int) { replies[i] = ask(i) })
	for i := range replies {
		switch r := &replies[i]; {
		case r.status == http.StatusOK && r.complete:
			good++
		case r.status != http.StatusPaymentRequired:
			t.Errorf("%v", r)
		}
	}
	if good != affords {
		t.Errorf("%d succeeded, want %d", good, affords)
	}
	status, body := fetch(t, client, all[0].url+"/billing/balance", token)
	if status != http.StatusOK || strings.Contains(body, `"behind":0`) {
		t.Errorf("a balance that stands still: %d %s", status, body)
	}
	succeeds(t, env, "account", "credit", "spender", "0.5", "--reference", "top-up")
	falselyRefused(t, ask)
	auditLedger(t, url).has("spender", "0.499")
	verified(t, env...)
}

// projects says whether the projector still moves: it makes one more charge and waits for it.
func projects(t *testing.T, databaseURL string, ask func(int) reply, good *int) bool {
	t.Helper()
	const behind = `SELECT count(*) FROM ledger_shards s JOIN projection_positions p USING (shard) WHERE p.projection = 'balances' AND p.seq < s.last_seq`
	if countRows(t, databaseURL, behind) > 0 {
		return false
	}
	if r := ask(1); r.status == http.StatusOK {
		*good++
	}
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); {
		if countRows(t, databaseURL, behind) == 0 {
			return true
		}
	}
	return false
}

// falselyRefused sees that a second after a top-up, at the latest, requests are served. On a machine that other
// tests have to themselves for a while, it may be later that this is seen.
func falselyRefused(t *testing.T, ask func(int) reply) {
	t.Helper()
	most := time.Duration(sized(10_000, 1500)) * time.Millisecond
	begin := time.Now()
	for {
		r := ask(0)
		if r.status == http.StatusOK {
			t.Logf("served %s after the top-up", time.Since(begin).Round(time.Millisecond))
			return
		}
		if time.Since(begin) > most {
			t.Fatalf("%s after the top-up: %v", time.Since(begin), &r)
		}
	}
}

// TestFlushAllUnderLoad: the cache is emptied again and again, and no charge is another.
func TestFlushAllUnderLoad(t *testing.T) {
	t.Parallel()
	server := os.Getenv("REDIS_URL")
	if server == "" {
		t.Skip("REDIS_URL is not set: run `make test`, which starts an embedded Redis")
	}
	options, err := redis.ParseURL(server)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	defer client.Close()
	w := newWitness(t)
	all, url := gateways(t, 2, append(w.settings(), "BILLING_DEFAULT_BALANCE="+loadBalance)...)
	n, flushes := sized(1000, 5000), 0
	done := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		tick := time.NewTicker(lookAgain)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				if err := client.FlushAll(t.Context()).Err(); err != nil {
					t.Error(err)
					return
				}
				flushes++
			}
		}
	})
	replies := sendLoad(t, []string{all[0].url, all[1].url}, n)
	close(done)
	wait.Wait()
	t.Logf("%d requests, %d times FLUSHALL", n, flushes)
	checkLoad(t, auditLedger(t, url), replies, w)
	auditProjections(t, url)
	refilled(t, client, all[0].url, url)
}

// refilled sees that what was flushed comes back once it is asked for.
func refilled(t *testing.T, client *redis.Client, base, databaseURL string) {
	t.Helper()
	var ledger string
	ask(t, databaseURL, `SELECT left(id::text, 8) FROM ledger_meta`, &ledger)
	eventually(t, settleLimit, "the balance is in Redis again", func() bool {
		chat(t.Context(), newClient(t), base, tokenFor(t, loadAccount(0)), loadBody(0))
		keys, err := client.Keys(t.Context(), "llmgw:"+ledger+":*").Result()
		return err == nil && len(keys) > 0
	})
}

// shows says whether a balance includes the event at a position (shard:seq). One that does not must say that
// it is behind.
func shows(t testing.TB, body, position string) bool {
	t.Helper()
	var answer struct {
		Position string
		Behind   int64
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	at, err := domain.ParsePosition(position)
	if err != nil {
		t.Fatal(err)
	}
	is, err := domain.ParsePosition(answer.Position)
	if err == nil && is.Shard == at.Shard && is.Seq >= at.Seq {
		return true
	}
	if answer.Behind <= 0 {
		t.Errorf("without the charge at %s, and not said to be behind: %s", position, body)
	}
	return false
}

// TestVisible measures how long after its answer a request's charge is in /billing/balance. An answer without it
// says so, and it comes. How few such answers there are depends on a Kafka that gets its share of the machine:
// that is asked for in the full form, which runs alone.
func TestVisible(t *testing.T) {
	all, url := gateways(t, 1, append(newWitness(t).settings(), "BILLING_DEFAULT_BALANCE="+loadBalance)...)
	publishedAt(t, url)
	base, client, token := all[0].url, newClient(t), tokenFor(t, "watcher")
	measure := func(n int) (took []time.Duration, behind int) {
		for i := range n {
			r := chat(t.Context(), client, base, token, chatBody(flatModel, fmt.Sprint("visible? ", i), i%2 == 0, ""))
			if r.status != http.StatusOK {
				t.Fatalf("%v", &r)
			}
			begin := time.Now()
			status, body := fetch(t, client, base+"/billing/balance", token)
			took = append(took, time.Since(begin))
			if status != http.StatusOK {
				t.Fatalf("%d %s", status, body)
			}
			if !shows(t, body, r.position) {
				behind++
			}
		}
		slices.Sort(took)
		return took, behind
	}
	n := sized(40, 500)
	idle, behind := measure(n)
	t.Logf("idle: visible after p50 %s, p99 %s, at most %s; %d of %d answers were behind", idle[n/2], idle[n*99/100], idle[n-1], behind, n)
	stop, _ := background(t, []string{base})
	busy, behindBusy := measure(n)
	stop()
	t.Logf("with %d busy connections beside: p50 %s, p99 %s, at most %s; %d of %d answers were behind",
		loadConnections, busy[n/2], busy[n*99/100], busy[n-1], behindBusy, n)
	if full() && (behind > 0 || behindBusy > n/20) {
		t.Errorf("%d and %d of %d reads did not show the caller's own charge", behind, behindBusy, n)
	}
	last := chat(t.Context(), client, base, token, chatBody(flatModel, "the last", false, ""))
	eventually(t, catchUpLimit, "a charge is visible", func() bool {
		_, body := fetch(t, client, base+"/billing/balance", token)
		return shows(t, body, last.position)
	})
	auditProjections(t, url)
}
