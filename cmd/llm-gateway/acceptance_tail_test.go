package main

// A Postgres that has lost its tail. The restore is an operator's: a whole database, put in the place of
// the one that had more. The topic stays, and from it the tail comes back.

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"llm-gateway/domain"
	"llm-gateway/ledger"
	"llm-gateway/ledger/relay"
)

// relayLimit is for a relay that had stopped loudly to have published everything.
const relayLimit = relay.HaltPause + topicLimit

// ledgerRows are the tables that a recovery brings back as they were, row by row. What the heads say
// comes back too, but for the epoch.
var ledgerRows = []string{"ledger_events", "ledger_accounts", "ledger_reservations", "ledger_idempotency"}

// TestTailLost: a gateway whose Postgres was restored to the past refuses rather than forks the history,
// says what to do, and goes on by itself when that was done.
func TestTailLost(t *testing.T) {
	t.Parallel()
	t.Run("a gateway that starts", func(t *testing.T) {
		t.Parallel()
		testStartsOnThePast(t)
	})
	t.Run("gateways under load", func(t *testing.T) {
		t.Parallel()
		testRestoredUnderLoad(t)
	})
}

// testStartsOnThePast loses what one account did, so that its shard refuses and the others do not.
func testStartsOnThePast(t *testing.T) {
	live := ownDatabase(t)
	p, client := publishedAt(t, live), newClient(t)
	const heir, more = "heir", 10
	lost, other := shardOf(heir), "other"
	for i := 0; shardOf(other) == lost; i++ {
		other = fmt.Sprint("other-", i)
	}
	serveOnce(t, live, heir, other)
	past := copyDatabase(t, live)
	serveOnce(t, live, slices.Repeat([]string{heir}, more)...)
	p.audit(t)

	s := startServe(t, "DATABASE_URL="+past)
	refuses(t, client, s.url, heir)
	serves(t, client, s.url, other)
	if status, body := fetch(t, client, s.url+"/ready", ""); status != http.StatusServiceUnavailable || !saysRecover(body) {
		t.Errorf("/ready says %d %s", status, body)
	}
	bringsBack(t, live, past, lost, 2*more) // a reserve and a commit of each; nothing remains of a flat price
	readyAgain(t, client, s.url)
	serves(t, client, s.url, heir)
	if again := recoverTail(t, past)[lost]; again.Appended != 0 || again.Epoch != 1 {
		t.Errorf("recovered again: %+v", again)
	}
	publishedAt(t, past).auditWithin(t, relayLimit)
	auditProjections(t, past)
	auditLedger(t, past).has(heir, "99.88") // twelve requests, none of them lost
	whole(t, past)
	s.stop()
}

// bringsBack recovers a shard that misses so many events: dry, which changes nothing, and then in earnest,
// after which every row is as it is in the database that has lost nothing.
func bringsBack(t *testing.T, live, past string, shard int32, missing int64) {
	t.Helper()
	here := fmt.Sprint("shard = ", shard)
	end := countRows(t, live, `SELECT last_seq FROM ledger_shards WHERE `+here)
	all := append([]string{"ledger_shards"}, ledgerRows...)
	before := digest(t, past, here, all...)
	dry := recoverTail(t, past, "--dry-run")[shard]
	if !dry.Dry || dry.Before != end-missing || dry.Appended != missing || dry.Topic != end || dry.Head != end || dry.Epoch != 1 {
		t.Errorf("%d events up to %d are missing; dry it says %+v", missing, end, dry)
	}
	text := succeeds(t, []string{"DATABASE_URL=" + past}, "ledger", "recover", "--from-topic", "--dry-run")
	if !strings.Contains(text, fmt.Sprint("would be ", missing)) {
		t.Errorf("a dry recovery tells:\n%s", text)
	}
	if after := digest(t, past, here, all...); after != before {
		t.Errorf("a dry recovery has changed %s to %s", before, after)
	}
	got := recoverTail(t, past)
	dry.Dry = false
	if fmt.Sprint(got[shard]) != fmt.Sprint(dry) {
		t.Errorf("recovered %+v; dry it was %+v", got[shard], dry)
	}
	if n := countRows(t, past, `SELECT sum(epoch) FROM ledger_shards`); n != 1 {
		t.Errorf("the epochs of all shards add up to %d", n)
	}
	if is, was := digest(t, past, here, ledgerRows...), digest(t, live, here, ledgerRows...); is != was {
		t.Errorf("recovered are %s, lost were %s", is, was)
	}
}

// testRestoredUnderLoad puts the past in place of a database that gateways work with, while requests are
// under way.
func testRestoredUnderLoad(t *testing.T) {
	live := ownDatabase(t)
	p, client := publishedAt(t, live), newClient(t)
	post, through := newGatePost(t, live)
	env := append(newWitness(t).settings(), "BILLING_DEFAULT_BALANCE="+loadBalance, "DATABASE_URL="+through)
	all := []*served{launch(t, env...).ready(), launch(t, env...).ready()}
	bases := []string{all[0].url, all[1].url}
	stop, sent := background(t, bases)
	goneOn(t, sent, 300)
	post.set(cut)
	past := copyDatabase(t, live)
	post.set(open)
	outgrown(t, live, past)
	holdAppends(t, live) // what is not published when it is lost, is lost
	p.audit(t)
	post.set(cut)
	inPlaceOf(t, live, past)
	post.set(open)
	for i, base := range bases {
		eventually(t, settleLimit, "it says what to do", func() bool {
			status, body := fetch(t, client, base+"/ready", "")
			return status == http.StatusServiceUnavailable && saysRecover(body)
		})
		for n := range loadAccounts {
			refuses(t, client, bases[(i+n)%2], loadAccount(n))
		}
	}
	wantEpochs(t, recoverTail(t, live))
	for _, base := range bases {
		readyAgain(t, client, base)
		for n := range loadAccounts {
			serves(t, client, base, loadAccount(n))
		}
	}
	goneOn(t, sent, 300)
	replies := stop()
	awaitCharged(t, live, replies)
	eventually(t, siegeLimit, "nothing is left open", func() bool {
		return countRows(t, live, `SELECT count(*) FROM ledger_reservations WHERE state = 'open'`) == 0
	})
	checkReplies(t, auditLedger(t, live), replies)
	p.auditWithin(t, relayLimit)
	auditProjections(t, live)
	whole(t, live)
	for _, s := range all {
		if text := s.stdout.String(); strings.Contains(text, "without events that it had acknowledged") {
			t.Errorf("something is lost for good:\n%s", tail(text))
		}
	}
}

// wantEpochs: each shard that got something back was recovered once, and no other.
func wantEpochs(t testing.TB, done []ledger.Recovered) {
	t.Helper()
	shards, events := 0, int64(0)
	for _, r := range done {
		if (r.Epoch == 1) != (r.Appended > 0) || r.Head != r.Topic {
			t.Errorf("recovered %+v", r)
		}
		if r.Appended > 0 {
			shards, events = shards+1, events+r.Appended
		}
	}
	t.Logf("%d events of %d shards came back", events, shards)
	if shards == 0 {
		t.Error("nothing was lost")
	}
}

func shardOf(account string) int32 { return domain.ShardOf(account, newLedgerShards) }

// serveOnce lets a gateway serve a request of each account, one after the other, and ends it.
func serveOnce(t testing.TB, databaseURL string, accounts ...string) {
	t.Helper()
	s, client := startServe(t, "DATABASE_URL="+databaseURL), newClient(t)
	for _, account := range accounts {
		serves(t, client, s.url, account)
	}
	s.stop()
}

func serves(t testing.TB, client *http.Client, base, account string) {
	t.Helper()
	r := chat(t.Context(), client, base, tokenFor(t, account), chatBody(flatModel, "are you there?", true, ""))
	if r.status != http.StatusOK || !r.complete {
		t.Errorf("%s is not served: %v", account, &r)
	}
}

// refuses sees that an account's requests are told to come back, at once.
func refuses(t testing.TB, client *http.Client, base, account string) {
	t.Helper()
	r := chat(t.Context(), client, base, tokenFor(t, account), chatBody(flatModel, "are you there?", true, ""))
	if r.status != http.StatusServiceUnavailable || r.code != "ledger_unavailable" || r.header.Get("Retry-After") == "" || r.took > denyLimit {
		t.Errorf("%s, after %s: %v", account, r.took, &r)
	}
}

func saysRecover(body string) bool {
	return containsAll(body, "lost its tail", "llm-gateway ledger recover --from-topic")
}

func readyAgain(t testing.TB, client *http.Client, base string) {
	t.Helper()
	begin := time.Now()
	eventually(t, settleLimit, "it is ready again", func() bool {
		status, _ := fetch(t, client, base+"/ready", "")
		return status == http.StatusOK
	})
	t.Logf("ready again %s after the recovery", time.Since(begin).Round(time.Millisecond))
}

// recoverTail runs `ledger recover --from-topic`, and returns what it did to each shard.
func recoverTail(t testing.TB, databaseURL string, more ...string) []ledger.Recovered {
	t.Helper()
	done := parsed[[]ledger.Recovered](t, []string{"DATABASE_URL=" + databaseURL}, append([]string{"ledger", "recover", "--from-topic"}, more...)...)
	if len(done) != newLedgerShards {
		t.Fatalf("recovered %+v", done)
	}
	return done
}

// whole wants the ledger to be clean by its own rows and by the topic.
func whole(t testing.TB, databaseURL string) {
	t.Helper()
	r := parsed[ledger.Report](t, []string{"DATABASE_URL=" + databaseURL}, "ledger", "verify")
	if !r.Clean || !slices.Contains(r.Witnesses, ledger.WitnessTopic) || r.TopicRecords != r.Events || r.Unpublished != 0 {
		t.Errorf("verify says %+v", r)
	}
}

// digest is what the rows of tables come to: those for which the condition holds.
func digest(t testing.TB, databaseURL, condition string, tables ...string) string {
	t.Helper()
	var all []string
	for _, table := range tables {
		var sum string
		ask(t, databaseURL, fmt.Sprintf(`SELECT COALESCE(md5(string_agg(r::text, ' ' ORDER BY r::text)), 'nothing')
			FROM %s r WHERE %s`, table, condition), &sum)
		all = append(all, table+" "+sum)
	}
	return strings.Join(all, ", ")
}

// outgrown waits until every shard that has anything has more than in the past.
func outgrown(t testing.TB, live, past string) {
	t.Helper()
	var then, now []int64
	const heads = `SELECT array_agg(last_seq ORDER BY shard) FROM ledger_shards`
	ask(t, past, heads, &then)
	eventually(t, settleLimit, "every shard goes on", func() bool {
		ask(t, live, heads, &now)
		for shard, seq := range then {
			if seq > 0 && now[shard] <= seq {
				return false
			}
		}
		return true
	})
}

// holdAppends lets no writer go on, until its session is ended: what is committed then can be published.
func holdAppends(t testing.TB, databaseURL string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) }) //nolint:errcheck // its session has been ended
	if _, err := conn.Exec(t.Context(), `BEGIN; LOCK TABLE ledger_shards IN EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
}

// ownDatabase makes a database, with an empty schema in it, that can be copied as a whole: no other test
// works in it. The schema's name names the topic, which a copy shares.
func ownDatabase(t testing.TB) string {
	t.Helper()
	server := os.Getenv("DATABASE_URL")
	if server == "" {
		t.Skip("DATABASE_URL is not set: run `make test`, which starts an embedded Postgres")
	}
	name := "t" + strings.ReplaceAll(uuid.NewString(), "-", "")
	t.Cleanup(func() {
		for _, suffix := range []string{"", pastSuffix, lostSuffix} {
			onServer(t, `DROP DATABASE IF EXISTS `+name+suffix+` WITH (FORCE)`)
		}
	})
	onServer(t, `CREATE DATABASE `+name)
	live := changed(t, server, func(u *url.URL) {
		q := u.Query()
		q.Set("search_path", name)
		u.Path, u.RawQuery = "/"+name, q.Encode()
	})
	execAsOwner(t, live, `CREATE SCHEMA `+name)
	return live
}

// What the databases beside one's own are called.
const (
	pastSuffix = "_past" // its copy
	lostSuffix = "_lost" // itself, when the copy is in its place
)

// copyDatabase keeps a copy of a database as it is now. Nobody can be connected meanwhile.
func copyDatabase(t testing.TB, live string) (past string) {
	t.Helper()
	name := databaseOf(t, live)
	endSessions(t, name)
	onServer(t, `CREATE DATABASE `+name+pastSuffix+` TEMPLATE `+name)
	return changed(t, live, func(u *url.URL) { u.Path += pastSuffix })
}

// inPlaceOf puts the past in the place of a database.
func inPlaceOf(t testing.TB, live, past string) {
	t.Helper()
	name, was := databaseOf(t, live), databaseOf(t, past)
	endSessions(t, name)
	onServer(t, `ALTER DATABASE `+name+` RENAME TO `+name+lostSuffix)
	onServer(t, `ALTER DATABASE `+was+` RENAME TO `+name)
}

func databaseOf(t testing.TB, databaseURL string) string {
	t.Helper()
	config, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	return config.Database
}

func endSessions(t testing.TB, database string) {
	t.Helper()
	onServer(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '`+database+`'`)
}

// onServer runs a statement that is about databases, and so cannot be run in the one that it is about.
func onServer(t testing.TB, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), runTime) // a test's own is over when it tidies up
	defer cancel()
	conn, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx) //nolint:errcheck // what it did is done
	if _, err := conn.Exec(ctx, sql); err != nil {
		t.Errorf("%s: %v", sql, err)
	}
}
