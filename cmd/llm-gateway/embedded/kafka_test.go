package embedded

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// withTopic starts a broker on a new DATA_DIR with a topic of one partition.
func withTopic(t testing.TB) (*Kafka, string) {
	t.Helper()
	dir := t.TempDir()
	k := startBroker(t, dir)
	if err := makeTopic(t.Context(), k.Brokers(), 1); err != nil {
		t.Fatal(err)
	}
	return k, dir
}

// identity is what must be the same after a restart.
func identity(t testing.TB, k *Kafka) string {
	t.Helper()
	admin := kadm.NewClient(newClient(t, k.Brokers()))
	meta, err := admin.Metadata(t.Context(), kafkaTopic)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := uuid.Parse(meta.Cluster); err != nil {
		t.Errorf("the cluster's id is %q", meta.Cluster)
	}
	configs, err := admin.DescribeTopicConfigs(t.Context(), kafkaTopic)
	if err != nil {
		t.Fatal(err)
	}
	said := fmt.Sprint(meta.Cluster, meta.Topics[kafkaTopic].ID, len(meta.Topics[kafkaTopic].Partitions))
	slices.SortFunc(configs[0].Configs, func(a, b kadm.Config) int { return strings.Compare(a.Key, b.Key) })
	for _, c := range configs[0].Configs {
		if strings.HasPrefix(c.Key, "retention") || strings.HasPrefix(c.Key, "message.timestamp") || c.Key == "cleanup.policy" {
			said += " " + c.Key + "=" + c.MaybeValue()
		}
	}
	return said
}

func TestKafkaKeepsRecords(t *testing.T) {
	t.Parallel()
	k, dir := withTopic(t)
	if len(k.Brokers()) != 1 || !strings.HasPrefix(k.Brokers()[0], loopback+":") {
		t.Errorf("brokers %v", k.Brokers())
	}
	openProducer(t, k, 0).commit(t, "a", "b")
	before := identity(t, k)
	if !strings.Contains(before, "message.timestamp.type=LogAppendTime") || !strings.Contains(before, "retention.ms=-1") {
		t.Errorf("the topic is %s", before)
	}
	stopBroker(t, k)
	stopBroker(t, k) // once more harms nobody
	begin := time.Now()
	k = startBroker(t, dir)
	t.Logf("started again in %s", time.Since(begin))
	if after := identity(t, k); after != before {
		t.Errorf("was %s, is %s", before, after)
	}
	expectRecords(t, k, "after a restart", "a b")
	other := startBroker(t, t.TempDir())
	if err := makeTopic(t.Context(), other.Brokers(), 1); err != nil {
		t.Fatal(err)
	}
	if identity(t, other)[:36] == before[:36] {
		t.Error("two clusters have one id")
	}
	if info, err := os.Stat(filepath.Join(dir, kafkaDir)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// TestKafkaMakesNoTopics: asking for a topic does not make it.
func TestKafkaMakesNoTopics(t *testing.T) {
	t.Parallel()
	k := startBroker(t, t.TempDir())
	c := newClient(t, k.Brokers(), kgo.AllowAutoTopicCreation(), kgo.UnknownTopicRetries(1))
	err := c.ProduceSync(t.Context(), &kgo.Record{Topic: "misspelt", Value: []byte("x")}).FirstErr()
	if !errors.Is(err, kerr.UnknownTopicOrPartition) {
		t.Errorf("produced to no topic: %v", err)
	}
}

// TestKafkaFences: a producer that was taken over publishes nothing any more, and what it left open
// is aborted.
func TestKafkaFences(t *testing.T) {
	t.Parallel()
	k, _ := withTopic(t)
	old := openProducer(t, k, 0)
	old.commit(t, "a")
	old.begin(t, "half")
	openProducer(t, k, 0).commit(t, "b")
	if err := old.client.EndTransaction(t.Context(), kgo.TryCommit); err == nil {
		t.Error("the old producer has committed")
	}
	if err := old.transaction(t.Context(), kgo.TryCommit, "late"); err == nil {
		t.Error("the old producer goes on")
	}
	expectRecords(t, k, "after the takeover", "a b")
}

// crash is a way in which a broker ends and another one begins, on the DATA_DIR that it returns.
type crash struct {
	name string
	end  func(t testing.TB, dataDir string, stop func()) string
}

var crashes = []crash{
	{"killed", func(t testing.TB, dataDir string, _ func()) string { return crashed(t, dataDir) }},
	{"stopped", func(_ testing.TB, dataDir string, stop func()) string { stop(); return dataDir }},
	{"killed before the index was written", func(t testing.TB, dataDir string, _ func()) string {
		dataDir = crashed(t, dataDir)
		info, err := os.Stat(indexFile(dataDir))
		if err == nil {
			err = os.Truncate(indexFile(dataDir), info.Size()-15)
		}
		if err != nil {
			t.Fatal(err)
		}
		return dataDir
	}},
	{"stopped, started and killed", func(t testing.TB, dataDir string, stop func()) string {
		stop()
		startBroker(t, dataDir)
		return crashed(t, dataDir)
	}},
}

// TestKafkaCrashes: however it ends, a transaction that was open takes no effect, then and later, and
// those that were committed keep theirs, those of the same producer afterwards among them.
func TestKafkaCrashes(t *testing.T) {
	t.Parallel()
	for _, first := range crashes {
		for _, second := range crashes {
			t.Run(first.name+", "+second.name, func(t *testing.T) {
				t.Parallel()
				k, dir := withTopic(t)
				p := openProducer(t, k, 0)
				p.commit(t, "a")
				p.begin(t, "half")
				dir = first.end(t, dir, func() { stopBroker(t, k) })
				k = startBroker(t, dir)
				expectRecords(t, k, "after the first end", "a")
				p = openProducer(t, k, 0)
				p.commit(t, "b")
				expectRecords(t, k, "after another commit", "a b")
				p.begin(t, "half again")
				dir = second.end(t, dir, func() { stopBroker(t, k) })
				k = startBroker(t, dir)
				openProducer(t, k, 0).commit(t, "c")
				expectRecords(t, k, "after the second end", "a b c")
				stopBroker(t, k)
				expectRecords(t, startBroker(t, dir), "after a stop", "a b c")
			})
		}
	}
}
