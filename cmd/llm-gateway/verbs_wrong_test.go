package main

// Calls of the verbs about the topic and the projections that cannot work: each says why in one line, and
// changes nothing.

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"llm-gateway/migrations/pgtest"
)

// fromTopic are the verbs that read the topic and cannot do without it.
var fromTopic = []string{
	"ledger recover --from-topic", "ledger recover --from-topic --dry-run", "ledger recover --from-topic --give-up --json",
	"projections rebuild balances --from topic", "projections verify --from topic",
}

func TestStreamUsage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, want string }{
		{"ledger", "after ledger comes one of: verify, recover"},
		{"ledger repair", "after ledger comes one of"},
		{"ledger recover", "--from-topic is mandatory: there is no other place"},
		{"ledger recover --dry-run", "--from-topic is mandatory"},
		{"ledger recover --from-topic=false", "--from-topic is mandatory"},
		{"ledger recover --from-topic 3", `too many arguments: "3"`},
		{"ledger recover --from-topic=maybe", `invalid boolean value "maybe"`},
		{"ledger recover --from-ledger", "flag provided but not defined: -from-ledger"},
		{"projections", "after projections comes one of: rebuild, verify, status"},
		{"projections drop balances", "after projections comes one of"},
		{"projections rebuild", "NAME is missing"},
		{"projections rebuild balances stats", `too many arguments: "stats"`},
		{"projections rebuild ledger", `there is no projection "ledger": there are balances, transactions, stats`},
		{"projections rebuild Balances --from x", "balances, transactions, stats; --from must be topic or ledger"},
		{"projections rebuild balances --from kafka", "--from must be topic or ledger"},
		{"projections rebuild balances --from", "flag needs an argument: -from"},
		{"projections rebuild balances --all", "flag provided but not defined: -all"},
		{"projections verify balances nonsense", `there is no projection "nonsense"`},
		{"projections verify --from kafka", "--from must be topic or ledger"},
		{"projections status balances", `too many arguments: "balances"`},
		{"projections status --from topic", "flag provided but not defined: -from"},
	} {
		fails(t, 2, c.want, []string{"DATABASE_URL=postgres://u:hunter2@127.0.0.1:1/d"}, strings.Fields(c.args)...)
	}
}

// tables are all that a schema has.
func tables(t testing.TB, databaseURL string) (names []string) {
	t.Helper()
	ask(t, databaseURL, `SELECT COALESCE(array_agg(table_name::text ORDER BY table_name), '{}')
		FROM information_schema.tables WHERE table_schema = current_schema()`, &names)
	return names
}

// unchanged runs what must leave a schema as it is.
func unchanged(t testing.TB, databaseURL string, do func()) {
	t.Helper()
	before := tables(t, databaseURL)
	rows := digest(t, databaseURL, "true", before...)
	do()
	if after := tables(t, databaseURL); !slices.Equal(after, before) {
		t.Errorf("it has made tables: before %v, after %v", before, after)
	} else if now := digest(t, databaseURL, "true", after...); now != rows {
		t.Errorf("it has changed rows: before %s, after %s", rows, now)
	}
}

// TestWrongTopic: there is no topic to read, or not this ledger's.
func TestWrongTopic(t *testing.T) {
	t.Parallel()
	own, none := pgtest.URL(t), pgtest.Empty(t)
	p := publishedAt(t, own)
	foreign := publishedAt(t, pgtest.URL(t))
	serveOnce(t, foreign.databaseURL, "alice", "bob", "carol")
	foreign.audit(t)
	succeeds(t, []string{"DATABASE_URL=" + own}, "account", "credit", "alice", "5", "--reference", "r", "--open")
	three := pgtest.Empty(t)
	succeeds(t, []string{"DATABASE_URL=" + three, "LEDGER_SHARDS=3"}, "migrate")
	const missing = "llm.usage.no-such-topic"
	for _, c := range []struct{ name, url, brokers, topic, want string }{
		{"no Kafka", own, "", p.topic, "set KAFKA_BROKERS"},
		{"a Kafka that is away", own, "127.0.0.1:1", p.topic, "no Kafka can be reached at 127.0.0.1:1: connect: connection refused"},
		{"no such topic", own, p.brokers, missing, "the Kafka at " + p.brokers + " has no topic " + missing + ": is KAFKA_USAGE_TOPIC as"},
		{"a topic of another ledger", own, p.brokers, foreign.topic, "not of this ledger, /llm-gateway/"},
		{"a topic of another number of shards", three, p.brokers, foreign.topic, "has 8 partitions, and must have 3 (LEDGER_SHARDS)"},
		{"no ledger", none, p.brokers, foreign.topic, "the ledger is not initialised: run `llm-gateway migrate`"},
	} {
		t.Run(c.name, func(t *testing.T) {
			env := []string{"DATABASE_URL=" + c.url, "KAFKA_BROKERS=" + c.brokers, "KAFKA_USAGE_TOPIC=" + c.topic}
			unchanged(t, c.url, func() {
				for _, args := range fromTopic {
					fails(t, 1, c.want, env, strings.Fields(args)...)
				}
			})
		})
	}
	foreign.audit(t)
	_, admin := p.client(t)
	if all, err := admin.ListTopics(t.Context()); err != nil || all.Has(missing) {
		t.Errorf("a topic was made: %v, %v", all.Names(), err)
	}
}

// TestSilentKafka: a Kafka that takes connections and says nothing holds nobody up for long.
func TestSilentKafka(t *testing.T) {
	t.Parallel()
	env := onPostgres(t, "KAFKA_BROKERS="+silence(t), "KAFKA_USAGE_TOPIC=t")
	succeeds(t, env, "migrate")
	ctx, cancel := context.WithTimeout(t.Context(), badStartLimit)
	defer cancel()
	r := finish(t, command(ctx, t, env, "ledger", "recover", "--from-topic"))
	if r.status != 1 || !strings.Contains(r.stderr, "no Kafka can be reached at") || !strings.Contains(r.stderr, ": it does not answer\n") {
		t.Errorf("it ended with %d:\n%s%s", r.status, r.stdout, r.stderr)
	}
}

// TestWrongPostgres: there is no database to work on.
func TestWrongPostgres(t *testing.T) {
	t.Parallel()
	lost := changed(t, pgtest.Empty(t), func(u *url.URL) { u.Path = "/no_such_database" })
	for _, args := range append([]string{"projections status", "projections verify", "projections rebuild stats"}, fromTopic...) {
		for at, want := range map[string]string{
			"postgres://u:hunter2@127.0.0.1:1/d": "no Postgres can be reached at 127.0.0.1:1: connect: connection refused",
			lost:                                 `database "no_such_database" does not exist`,
		} {
			fails(t, 1, want, []string{"DATABASE_URL=" + at}, strings.Fields(args)...)
		}
	}
}

// TestRecoverForked: where the ledger and the topic differ, nothing is mended, and all is told: the first
// place in the error, every shard's in the output.
func TestRecoverForked(t *testing.T) {
	t.Parallel()
	p := publishedAt(t, pgtest.URL(t))
	env := []string{"DATABASE_URL=" + p.databaseURL}
	names := []string{"alice", "bob", "carol"}
	shards := map[int32]bool{}
	for _, name := range names {
		shards[shardOf(name)] = true
	}
	if len(shards) != len(names) {
		t.Fatalf("the accounts are of the shards %v", shards)
	}
	serveOnce(t, p.databaseURL, names...)
	p.audit(t)
	forge(t, p.databaseURL)
	want := fmt.Sprintf("%d of %d shards cannot be recovered: ", len(shards), newLedgerShards)
	unchanged(t, p.databaseURL, func() {
		fails(t, 1, want, env, "ledger", "recover", "--from-topic", "--dry-run")
		r := run(t, env, "ledger", "recover", "--from-topic")
		for shard := range shards {
			if line := fmt.Sprintf("\nshard %d: recovering shard %[1]d: the ledger and the topic have forked at %[1]d:1: ", shard); !strings.Contains(r.stdout, line) {
				t.Errorf("the output lacks %q:\n%s", line, r.stdout)
			}
		}
		told := 0
		r = run(t, env, "ledger", "recover", "--from-topic", "--json")
		for _, shard := range decoded[[]recoveredOut](t, r.stdout) {
			if strings.Contains(shard.Error, "have forked at") {
				told++
			}
		}
		if r.status != 1 || told != len(shards) || !strings.Contains(r.stderr, want) {
			t.Errorf("it ended with %d, and told of %d shards:\n%s%s", r.status, told, r.stdout, r.stderr)
		}
	})
}

// forge changes the first event of every shard, as only the owner can.
func forge(t testing.TB, databaseURL string) {
	t.Helper()
	execAsOwner(t, databaseURL, `BEGIN; ALTER TABLE ledger_events DISABLE TRIGGER USER;
		UPDATE ledger_events SET hash = sha256(hash) WHERE seq = 1; ALTER TABLE ledger_events ENABLE TRIGGER USER; COMMIT`)
}
