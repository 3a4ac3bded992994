// Package topictest gives tests a Kafka: the one that KAFKA_BROKERS names, or else a kfake cluster in
// the test's own process, which all its tests share.
package topictest

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"llm-gateway/ledger/topic"
)

// setUp bounds the making and the deleting of a topic.
const setUp = 20 * time.Second

// shared is the cluster of all tests of a process. It ends with the process.
var shared = sync.OnceValues(func() ([]string, error) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		return nil, err
	}
	return cluster.ListenAddrs(), nil
})

// Brokers are the addresses of a Kafka.
func Brokers(t testing.TB) []string {
	t.Helper()
	if named := os.Getenv("KAFKA_BROKERS"); named != "" {
		return strings.Split(named, ",")
	}
	brokers, err := shared()
	if err != nil {
		t.Fatalf("starting kfake: %v", err)
	}
	return brokers
}

// Name is a name for a topic of the test's own. The topic, if there is one, is deleted when the test ends.
func Name(t testing.TB) string {
	t.Helper()
	name := "test." + uuid.NewString()
	brokers := Brokers(t)
	t.Cleanup(func() { remove(t, brokers, name) })
	return name
}

// Config is the configuration of a topic that is not made yet, under a name of the test's own.
func Config(t testing.TB, shards int, ledger uuid.UUID) topic.Config {
	t.Helper()
	return topic.Config{Brokers: Brokers(t), Name: Name(t), Ledger: ledger, Shards: shards}
}

// New is a topic of the test's own, made and open.
func New(t testing.TB, shards int, ledger uuid.UUID) *topic.Topic {
	t.Helper()
	return Open(t, Config(t, shards, ledger))
}

// Open makes sure of a topic, and closes it when the test ends.
func Open(t testing.TB, config topic.Config) *topic.Topic {
	t.Helper()
	opened, err := topic.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(opened.Close)
	ctx, cancel := context.WithTimeout(context.Background(), setUp)
	defer cancel()
	if err := opened.Ensure(ctx); err != nil {
		t.Fatal(err)
	}
	return opened
}

// remove deletes a topic where it is. A cluster that the test took away has lost it already.
func remove(t testing.TB, brokers []string, name string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), setUp)
	defer cancel()
	if _, err := kadm.NewClient(client).DeleteTopics(ctx, name); err != nil {
		t.Logf("deleting topic %s: %v", name, err)
	}
}
