package main

// The topic, read as any consumer would read it: with a client of its own, read committed, and none
// of the gateway's code. What is there must be what the ledger's rows are.

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	topicLimit   = 60 * time.Second // for the relay to have published everything, and for a topic to be read
	catchUpLimit = 2 * time.Minute  // for the projections to have come to the ledger's end, behind a Kafka that stood still for a while
)

// topicOf is the name of the topic that belongs to a test's schema; "" where the URL names none.
func topicOf(databaseURL string) string {
	u, err := url.Parse(databaseURL)
	if err != nil || u.Query().Get("search_path") == "" {
		return ""
	}
	schema, _, _ := strings.Cut(u.Query().Get("search_path"), ",")
	return "llm.usage." + schema
}

// onServers adds to a gateway's settings the Kafka and the Redis that the tests run on, if there are
// such, and a topic that belongs to the test's schema: gateways of one schema share it.
func onServers(t testing.TB, env []string) []string {
	t.Helper()
	brokers, redis := os.Getenv("KAFKA_BROKERS"), os.Getenv("REDIS_URL")
	topic := topicOf(valueOf(env, "DATABASE_URL"))
	if brokers == "" || topic == "" || valueOf(env, "KAFKA_USAGE_TOPIC") != "" {
		return env
	}
	t.Cleanup(func() { deleteTopic(t, brokers, topic) })
	env = append([]string{"KAFKA_BROKERS=" + brokers, "KAFKA_USAGE_TOPIC=" + topic}, env...)
	if redis != "" {
		env = append([]string{"REDIS_URL=" + redis}, env...)
	}
	return env
}

// valueOf is the last value that an environment has for a name.
func valueOf(env []string, name string) (value string) {
	for _, line := range env {
		if v, ok := strings.CutPrefix(line, name+"="); ok {
			value = v
		}
	}
	return value
}

// published is a ledger and the topic that must be like it.
type published struct{ databaseURL, brokers, topic string }

// publishedAt is the one on the servers that the tests run on; without a Kafka the test is skipped.
func publishedAt(t testing.TB, databaseURL string) published {
	t.Helper()
	p := published{databaseURL, os.Getenv("KAFKA_BROKERS"), topicOf(databaseURL)}
	if p.brokers == "" {
		t.Skip("KAFKA_BROKERS is not set: run `make test`, which starts an embedded Kafka")
	}
	return p
}

// client connects to the Kafka.
func (p published) client(t testing.TB, more ...kgo.Opt) (*kgo.Client, *kadm.Client) {
	t.Helper()
	client, err := kgo.NewClient(append(more, kgo.SeedBrokers(strings.Split(p.brokers, ",")...))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client, kadm.NewClient(client)
}

func deleteTopic(t testing.TB, brokers, topic string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(brokers, ",")...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), topicLimit)
	defer cancel()
	kadm.NewClient(client).DeleteTopics(ctx, topic) //nolint:errcheck // it may never have been made
}

// read reads all committed records of the topic, by partition.
func (p published) read(t testing.TB) map[int32][]*kgo.Record {
	t.Helper()
	client, admin := p.client(t, kgo.ConsumeTopics(p.topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), topicLimit)
	defer cancel()
	ends, err := admin.ListCommittedOffsets(ctx, p.topic)
	if err != nil {
		t.Fatal(err)
	}
	starts, err := admin.ListStartOffsets(ctx, p.topic)
	if err != nil {
		t.Fatal(err)
	}
	left, records := map[int32]int64{}, map[int32][]*kgo.Record{}
	ends.Each(func(o kadm.ListedOffset) {
		if from, ok := starts.Lookup(p.topic, o.Partition); ok && o.Offset > from.Offset {
			left[o.Partition] = o.Offset
		}
	})
	for len(left) > 0 {
		fetched := client.PollFetches(ctx)
		if err := fetched.Err(); err != nil {
			t.Fatalf("reading the topic: %v; left %v", err, left)
		}
		fetched.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				records[r.Partition] = append(records[r.Partition], r)
			}
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		})
	}
	return records
}

// audit waits until the topic has as many records as the ledger has events, and then holds each
// against its row: once, in order, the same bytes, and headers that say the same.
func (p published) audit(t testing.TB) {
	t.Helper()
	p.auditWithin(t, topicLimit)
}

// auditWithin is audit where the relay may take longer.
func (p published) auditWithin(t testing.TB, limit time.Duration) {
	t.Helper()
	_, admin := p.client(t)
	var records map[int32][]*kgo.Record
	var events, n int
	seen := ""
	eventually(t, limit, "every event is on the topic", func() bool {
		events = int(countRows(t, p.databaseURL, `SELECT count(*) FROM ledger_events`))
		if ends := p.ends(t, admin); ends != seen { // it is not read again for nothing
			seen, n, records = ends, 0, p.read(t)
			for _, partition := range records {
				n += len(partition)
			}
		}
		return n >= events
	})
	checkTopic(t, p.databaseURL, records)
	t.Logf("%d events are on the topic once, in the ledger's order, with the same bytes", events)
}

// ends is where the partitions end, to be compared.
func (p published) ends(t testing.TB, admin *kadm.Client) string {
	t.Helper()
	ends, err := admin.ListCommittedOffsets(t.Context(), p.topic)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	ends.Each(func(o kadm.ListedOffset) { all = append(all, fmt.Sprint(o.Partition, ":", o.Offset)) })
	slices.Sort(all)
	return strings.Join(all, " ")
}

func countRows(t testing.TB, databaseURL, sql string) (n int64) {
	t.Helper()
	ask(t, databaseURL, sql, &n)
	return n
}

// ask runs a query of one row.
func ask(t testing.TB, databaseURL, sql string, into ...any) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context())) //nolint:errcheck // nothing was written
	if err := conn.QueryRow(t.Context(), sql).Scan(into...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func checkTopic(t testing.TB, databaseURL string, records map[int32][]*kgo.Record) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context())) //nolint:errcheck // nothing was written
	rows, err := conn.Query(t.Context(), `SELECT m.id::text, e.shard, e.seq, e.id::text, e.kind, e.account, e.payload, e.hash
		FROM ledger_events e, ledger_meta m ORDER BY e.shard, e.seq`)
	if err != nil {
		t.Fatal(err)
	}
	var ledger, id, kind, account string
	var shard int32
	var seq int64
	var payload, hash []byte
	_, err = pgx.ForEachRow(rows, []any{&ledger, &shard, &seq, &id, &kind, &account, &payload, &hash}, func() error {
		if len(records[shard]) == 0 {
			return fmt.Errorf("%d:%d is not on the topic", shard, seq)
		}
		r := records[shard][0]
		records[shard] = records[shard][1:]
		want := map[string]string{"ce_specversion": "1.0", "ce_id": id, "ce_source": "/llm-gateway/" + ledger,
			"ce_type": "llm.usage." + kind + ".v1", "ce_subject": account, "content-type": "application/json",
			"ledger_seq": strconv.FormatInt(seq, 10), "ledger_hash": hex.EncodeToString(hash)}
		for _, h := range r.Headers {
			if value, ok := want[h.Key]; ok && value == string(h.Value) {
				delete(want, h.Key)
			}
		}
		if string(r.Key) != account || !bytes.Equal(r.Value, payload) || len(want) != 0 {
			return fmt.Errorf("%d:%d at offset %d: key %s, lacks %v, value %.200s, want %.200s", shard, seq, r.Offset, r.Key, want, r.Value, payload)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for shard, left := range records {
		if len(left) > 0 {
			t.Errorf("partition %d has %d records that the ledger has not, the first: %.200s", shard, len(left), left[0].Value)
		}
	}
}

// caughtUp waits until every projection is where the ledger ends.
func caughtUp(t testing.TB, databaseURL string) {
	t.Helper()
	eventually(t, catchUpLimit, "the projections are where the ledger ends", func() bool {
		return countRows(t, databaseURL, `SELECT count(*) FROM ledger_shards s CROSS JOIN unnest(ARRAY['balances', 'transactions', 'stats']) n(name)
			LEFT JOIN projection_positions p ON p.projection = n.name AND p.shard = s.shard
			WHERE p.seq IS DISTINCT FROM s.last_seq OR s.last_seq > 0 AND p.hash <> s.last_hash`) == 0
	})
}

// auditProjections holds the live tables, at the ledger's end, against the events themselves: by SQL
// over their payloads, without the gateway's code.
func auditProjections(t testing.TB, databaseURL string) {
	t.Helper()
	caughtUp(t, databaseURL)
	const wrongBalances = `SELECT count(*) FROM ledger_accounts a FULL JOIN balances b USING (shard, account)
		WHERE (a.available, a.reserved, a.credit_limit, a.frozen, a.last_seq) IS DISTINCT FROM
			(b.available, b.reserved, b.credit_limit, b.frozen, b.last_seq)`
	if n := countRows(t, databaseURL, wrongBalances); n != 0 {
		t.Errorf("%d balances are not what the ledger has", n)
	}
	const wrongSums = `SELECT count(*) FROM ledger_accounts a LEFT JOIN
		(SELECT shard, account, sum(amount) AS amount FROM transactions GROUP BY shard, account) t USING (shard, account)
		WHERE a.available + a.reserved <> COALESCE(t.amount, 0)`
	if n := countRows(t, databaseURL, wrongSums); n != 0 {
		t.Errorf("the transactions of %d accounts do not sum to their balances", n)
	}
	auditStats(t, databaseURL)
}

// auditStats: amounts sum to the revenue, requests and meters to those of the charges that stand alone.
func auditStats(t testing.TB, databaseURL string) {
	t.Helper()
	var requests, input, output, commits int64
	var amount, revenue, meters string
	ask(t, databaseURL, `SELECT COALESCE(sum(requests), 0), COALESCE(sum(meter_input), 0), COALESCE(sum(meter_output), 0),
		COALESCE(sum(amount), 0)::text FROM stats`, &requests, &input, &output, &amount)
	ask(t, databaseURL, `SELECT count(*) FILTER (WHERE alone), COALESCE(sum(amount), 0)::text,
		json_build_object('input', COALESCE(sum((p->'data'->'meters'->>'input')::bigint) FILTER (WHERE alone), 0),
			'output', COALESCE(sum((p->'data'->'meters'->>'output')::bigint) FILTER (WHERE alone), 0))::text
		FROM (SELECT amount, p, kind = 'commit' OR p->'data'->>'reason' <> 'beyond_bound' AS alone
			FROM (SELECT kind, amount, convert_from(payload, 'UTF8')::json AS p FROM ledger_events WHERE kind IN ('commit', 'overage')) e) e`,
		&commits, &revenue, &meters)
	var want struct{ Input, Output int64 }
	if err := json.Unmarshal([]byte(meters), &want); err != nil {
		t.Fatal(err)
	}
	a, okA := new(big.Rat).SetString(amount)
	r, okR := new(big.Rat).SetString(revenue)
	if !okA || !okR || a.Cmp(r) != 0 || requests != commits || input != want.Input || output != want.Output {
		t.Errorf("stats: %d requests, %d in, %d out, %s; the ledger: %d, %d, %d, %s", requests, input, output, amount,
			commits, want.Input, want.Output, revenue)
	}
	t.Logf("stats sum to the ledger: %d requests for %s", requests, r.FloatString(12))
}
