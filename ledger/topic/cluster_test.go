package topic_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/rand/v2"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"llm-gateway/ledger/topic"
	"llm-gateway/ledger/topic/topictest"
)

// ownBench is a bench on a kfake of the test's own.
func ownBench(t *testing.T, set func(*topic.Config), opts ...kfake.Opt) (*bench, *kfake.Cluster) {
	t.Helper()
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	config := topic.Config{Brokers: cluster.ListenAddrs(), Name: "test", Ledger: uuid.New(), Shards: shards}
	set(&config)
	return &bench{
		Topic: topictest.Open(t, config), config: config, shard: 2,
		chain: topictest.ChainOf(t, config.Ledger, 2, shards),
	}, cluster
}

// TestLeadersMove: a partition's leader moves from broker to broker, and nothing is lost or refused. A
// consumer may have to begin again: kfake, asked about an epoch behind which nothing was written yet,
// says that it does not know it, which looks like a loss of data.
func TestLeadersMove(t *testing.T) {
	t.Parallel()
	const brokers, moves = 3, 6
	b, cluster := ownBench(t, func(*topic.Config) {}, kfake.NumBrokers(brokers))
	p := b.producer(t)
	c := b.consume(t)
	offsets := make([]int64, shards)
	for read := int64(0); read < 2*moves; {
		if read == b.chain.Seq {
			for shard := range int32(shards) {
				if err := cluster.MoveTopicPartition(b.config.Name, shard, rand.Int32N(brokers)); err != nil {
					t.Fatal(err)
				}
			}
			b.publish(t, p, 2)
			b.want(t, 1, b.chain.Seq)
		}
		records, err := c.Poll(t.Context(), 10)
		if lost := new(kgo.ErrDataLoss); errors.As(err, &lost) {
			c = b.consume(t, offsets...)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			if read++; r.Seq != read {
				t.Fatalf("seq %d came, want %d", r.Seq, read)
			}
			offsets[r.Shard] = r.Offset + 1
		}
	}
}

// TestOlderKafka: with brokers that know topics by name when it comes to producing, and transactions
// of the older kind, the same holds.
func TestOlderKafka(t *testing.T) {
	t.Parallel()
	b, _ := ownBench(t, func(*topic.Config) {}, kfake.NumBrokers(1), kfake.MaxVersions(kversion.V3_6_0()))
	old := b.producer(t)
	b.publish(t, old, 2)
	b.abandon(t, 3)
	events := b.chain.Next(t, 3)
	dead := b.predecessor(t, events[:1])
	_, err := old.Publish(t.Context(), events)
	wantError(t, err, topic.ErrFenced)
	p := b.producer(t)
	if err := dead.EndTransaction(t.Context(), kgo.TryCommit); err == nil {
		t.Error("the dead one's commit was taken")
	}
	if _, err := p.Publish(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	b.publish(t, p, 1)
	b.want(t, 1, 6)
	c := b.consume(t)
	b.poll(t, c, 1, 6)
	b.recreate(t)
	if _, err := p.Publish(t.Context(), b.chain.Next(t, 1)); err == nil {
		t.Error("it published to another topic")
	}
}

// TestLeadersMoveWhileScanning: a scan follows them.
func TestLeadersMoveWhileScanning(t *testing.T) {
	t.Parallel()
	b, cluster := ownBench(t, func(*topic.Config) {}, kfake.NumBrokers(2))
	p := b.producer(t)
	for range 4 {
		if _, err := p.Publish(t.Context(), b.noisy(t, 15, 50_000)); err != nil { // a fetch for each
			t.Fatal(err)
		}
	}
	var read int64
	for r, err := range b.Scan(t.Context(), b.shard) {
		if read++; err != nil || r.Seq != read {
			t.Fatalf("seq %d was to come: %+v, %v", read, r, err)
		}
		if err := cluster.MoveTopicPartition(b.config.Name, b.shard, int32(read%2)); err != nil {
			t.Fatal(err)
		}
	}
	if read != 60 {
		t.Errorf("%d of 60 records were read", read)
	}
}

// TestEmptyAnswers: a broker that says that there are records and never brings any is not asked for ever.
func TestEmptyAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := bubbleBench(t, func(c topic.Config) topic.Config { return c })
		b.publish(t, b.producer(t), 3)
		b.cluster.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
			b.cluster.KeepControl()
			resp := req.ResponseKind().(*kmsg.FetchResponse)
			topic := kmsg.NewFetchResponseTopic()
			partition := kmsg.NewFetchResponseTopicPartition()
			partition.Partition, partition.LastStableOffset, partition.HighWatermark = b.shard, 4, 4
			topic.TopicID, topic.Partitions = req.(*kmsg.FetchRequest).Topics[0].TopicID, append(topic.Partitions, partition)
			resp.Topics = append(resp.Topics, topic)
			return resp, nil, true
		})
		began := time.Now()
		if r, err := b.Tail(t.Context(), b.shard); err == nil {
			t.Errorf("the tail is %+v", r)
		}
		if took := time.Since(began); took > 2*topic.CallTime {
			t.Errorf("it took %s", took)
		}
	})
}

// TestSecured: over TLS and with a name and a password; and not without either.
func TestSecured(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(nil) // for its certificate
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	client := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots}
	user := scram.Auth{User: "gateway", Pass: "secret"}.AsSha256Mechanism()
	b, _ := ownBench(t, func(c *topic.Config) { c.TLS, c.SASL = client, user },
		kfake.NumBrokers(1), kfake.TLS(&tls.Config{MinVersion: tls.VersionTLS13, Certificates: server.TLS.Certificates}),
		kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "gateway", "secret"))
	b.publish(t, b.producer(t), 3)
	b.want(t, 1, 3)
	for name, change := range map[string]func(*topic.Config){
		"no TLS":            func(c *topic.Config) { c.TLS = nil },
		"an unknown issuer": func(c *topic.Config) { c.TLS = &tls.Config{MinVersion: tls.VersionTLS13} },
		"no password":       func(c *topic.Config) { c.SASL = nil },
		"a wrong password": func(c *topic.Config) {
			c.SASL = scram.Auth{User: "gateway", Pass: "guess"}.AsSha256Mechanism()
		},
	} {
		config := b.config
		change(&config)
		tp, err := topic.Open(config)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second) // some of it may pass, and is tried again
		if _, err := tp.State(ctx); err == nil {
			t.Errorf("%s: it works", name)
		}
		cancel()
		tp.Close()
	}
}

// TestIdle: after a pause of any length a producer publishes, or says that it cannot and the next one
// does; a consumer goes on where it was.
func TestIdle(t *testing.T) {
	t.Parallel()
	for _, pause := range []time.Duration{time.Minute, 10 * time.Minute, 8 * 24 * time.Hour} { // Kafka forgets producers after 7 days
		synctest.Test(t, func(t *testing.T) {
			b := bubbleBench(t, func(c topic.Config) topic.Config { return c })
			p := b.producer(t)
			b.publish(t, p, 1)
			if pause < time.Hour { // asking once a second for days takes some time even here
				c := b.consume(t)
				b.poll(t, c, 1, 1)
				defer b.poll(t, c, 2, 2)
			}
			<-time.After(pause)
			events := b.chain.Next(t, 1)
			_, err := p.Publish(t.Context(), events)
			if err != nil {
				wantError(t, err, topic.ErrFenced)
				p = b.producer(t)
				_, err = p.Publish(t.Context(), events)
			}
			if err != nil {
				t.Fatal(err)
			}
			b.publish(t, p, 1)
			b.want(t, 1, 3)
		})
	}
}

// TestAbandoned: what a dead producer left open, and nobody takes over, hides what else there is for
// transactionTime and not longer.
func TestAbandoned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := bubbleBench(t, func(c topic.Config) topic.Config { return c })
		p := b.producer(t)
		b.publish(t, p, 2)
		if err := topic.Leave(t.Context(), p, b.chain.Next(t, 3)); err != nil {
			t.Fatal(err)
		}
		p.Close()
		open, err := b.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(topic.TransactionTime + time.Second)
		ended, err := b.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if want := open.Ends[b.shard] + 4; ended.Ends[b.shard] != want { // three records and a mark
			t.Errorf("reading ends at %d, want %d", ended.Ends[b.shard], want)
		}
		b.want(t, 1, 2)
	})
}
