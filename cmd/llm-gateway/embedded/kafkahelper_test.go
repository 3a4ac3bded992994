package embedded

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	kafkaTopic   = "u"
	kafkaTimeout = 30 * time.Second // for one step against a broker in this process
)

// startBroker starts Kafka and stops it when the test ends.
func startBroker(t testing.TB, dataDir string) *Kafka {
	t.Helper()
	k, err := StartKafka(t.Context(), Options{DataDir: dataDir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopBroker(t, k) })
	return k
}

func stopBroker(t testing.TB, k *Kafka) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), kafkaTimeout)
	defer cancel()
	if err := k.Stop(ctx); err != nil {
		t.Error(err)
	}
	select {
	case <-k.Done():
	default:
		t.Error("stopped but not done")
	}
}

func client(brokers []string, more ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append(more, kgo.SeedBrokers(brokers...))...)
}

func newClient(t testing.TB, brokers []string, more ...kgo.Opt) *kgo.Client {
	t.Helper()
	c, err := client(brokers, more...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// makeTopic makes the topic as the gateway does, where it is not there.
func makeTopic(ctx context.Context, brokers []string, partitions int32) error {
	c, err := client(brokers)
	if err != nil {
		return err
	}
	defer c.Close()
	value := func(s string) *string { return &s }
	made, err := kadm.NewClient(c).CreateTopics(ctx, partitions, 1, map[string]*string{
		"cleanup.policy": value("delete"), "retention.ms": value("-1"), "retention.bytes": value("-1"),
		"message.timestamp.type": value("LogAppendTime")}, kafkaTopic)
	if err == nil && !strings.Contains(fmt.Sprint(made[kafkaTopic].Err), "TOPIC_ALREADY_EXISTS") {
		err = made[kafkaTopic].Err
	}
	return err
}

// producer is a transactional one of one partition.
type producer struct {
	client    *kgo.Client
	partition int32
}

func newProducer(brokers []string, partition int32) (*producer, error) {
	c, err := client(brokers, kgo.TransactionalID(fmt.Sprintf("%s-%d", kafkaTopic, partition)), kgo.DefaultProduceTopic(kafkaTopic),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
	return &producer{c, partition}, err
}

func (p *producer) produce(ctx context.Context, values ...string) error {
	var records []*kgo.Record
	for _, v := range values {
		records = append(records, &kgo.Record{Partition: p.partition, Value: []byte(v)})
	}
	return p.client.ProduceSync(ctx, records...).FirstErr()
}

// transaction produces values in one, which takes effect or not.
func (p *producer) transaction(ctx context.Context, end kgo.TransactionEndTry, values ...string) error {
	if err := p.client.BeginTransaction(); err != nil {
		return err
	}
	if err := p.produce(ctx, values...); err != nil {
		return err
	}
	return p.client.EndTransaction(ctx, end)
}

// openProducer is newProducer for a test. That its client takes a second to close when the broker is
// gone is nothing to wait for.
func openProducer(t testing.TB, k *Kafka, partition int32) *producer {
	t.Helper()
	p, err := newProducer(k.Brokers(), partition)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { go p.client.Close() })
	return p
}

func (p *producer) commit(t testing.TB, values ...string) {
	t.Helper()
	if err := p.transaction(t.Context(), kgo.TryCommit, values...); err != nil {
		t.Fatal(err)
	}
}

// begin leaves a transaction open.
func (p *producer) begin(t testing.TB, values ...string) {
	t.Helper()
	if err := p.client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := p.produce(t.Context(), values...); err != nil {
		t.Fatal(err)
	}
}

// committed reads what a partition holds, read committed, from its first record to its last.
func committed(ctx context.Context, brokers []string, partition int32) (values []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, kafkaTimeout)
	defer cancel()
	c, err := client(brokers, kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{kafkaTopic: {partition: kgo.NewOffset().AtStart()}}))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ends, err := kadm.NewClient(c).ListCommittedOffsets(ctx, kafkaTopic)
	if err != nil {
		return nil, err
	}
	end, _ := ends.Lookup(kafkaTopic, partition)
	for next := int64(0); next < end.Offset && end.Err == nil; {
		fetches := c.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, err
		}
		fetches.EachRecord(func(r *kgo.Record) {
			next = r.Offset + 1
			if !r.Attrs.IsControl() && next <= end.Offset {
				values = append(values, string(r.Value))
			}
		})
	}
	return values, end.Err
}

// expectRecords holds partition 0 against a list.
func expectRecords(t testing.TB, k *Kafka, when, want string) {
	t.Helper()
	got, err := committed(t.Context(), k.Brokers(), 0)
	if err != nil || strings.Join(got, " ") != want {
		t.Errorf("%s: %q, want %q (%v)", when, strings.Join(got, " "), want, err)
	}
}

// crashed is a copy of a DATA_DIR as a kill would leave it at this moment.
func crashed(t testing.TB, dataDir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "data")
	if err := os.CopyFS(to, os.DirFS(dataDir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// segmentFile is the path of partition 0's first segment.
func segmentFile(dataDir string) string {
	return filepath.Join(dataDir, kafkaDir, kafkaPartitions, kafkaTopic+"-0", "0"+segmentSuffix)
}

func indexFile(dataDir string) string {
	return strings.TrimSuffix(segmentFile(dataDir), segmentSuffix) + indexSuffix
}
