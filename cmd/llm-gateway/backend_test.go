package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"llm-gateway/cmd/llm-gateway/embedded"
	"llm-gateway/ledger"
	"llm-gateway/ledger/topic"
	"llm-gateway/projections"
)

// elsewhere names a Postgres that nobody asks for anything here.
const elsewhere = "DATABASE_URL=postgres://u:hunter2@127.0.0.1:1/d"

func appWith(t testing.TB, environ ...string) *app {
	t.Helper()
	return &app{environ: environ, dotenv: filepath.Join(t.TempDir(), dotenvFile), stderr: io.Discard, now: time.Now}
}

// stay holds a DATA_DIR as serve does.
func stay(t testing.TB, environ ...string) *holding {
	t.Helper()
	begin := time.Now()
	h, err := holdBackend(t.Context(), appWith(t, environ...))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("it stays after %s", time.Since(begin))
	return h
}

func leave(t testing.TB, h *holding) {
	t.Helper()
	if err := h.release(); err != nil {
		t.Error(err)
	}
}

// openFor finds a verb's servers, and what the error says where it cannot.
func openFor(t testing.TB, n needs, environ ...string) (backend, func(), string) {
	t.Helper()
	b, release, err := openBackend(t.Context(), appWith(t, environ...), n)
	if err != nil {
		return b, func() {}, err.Error()
	}
	return b, release, ""
}

func expectStreams(t testing.TB, what string, b backend, brokers []string, redis Secret) {
	t.Helper()
	if !reflect.DeepEqual(b.brokers, brokers) || b.redis != redis {
		t.Errorf("%s: Kafka at %v, Redis at %.20q; want %v, %.20q", what, b.brokers, string(b.redis), brokers, string(redis))
	}
}

// TestBackendAlone: what a verb is given where nobody runs.
func TestBackendAlone(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	data := "DATA_DIR=" + dir
	both := needs{kafka: true, redis: true}
	for _, c := range []struct {
		name    string
		n       needs
		environ []string
		brokers []string
		redis   Secret
	}{
		{"nothing needed", needs{}, nil, nil, ""},
		{"no Kafka that ever was", both, nil, nil, ""},
		{"all external", both, []string{"KAFKA_BROKERS=a:1,b:2", "REDIS_URL=redis://c"}, []string{"a:1", "b:2"}, "redis://c"},
		{"no Redis", both, []string{"KAFKA_BROKERS=a:1"}, []string{"a:1"}, ""},
	} {
		b, release, wrong := openFor(t, c.n, append(c.environ, elsewhere, data)...)
		if wrong != "" {
			t.Errorf("%s: %s", c.name, wrong)
		}
		release()
		expectStreams(t, c.name, b, c.brokers, c.redis)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("DATA_DIR was made for nothing")
	}
	h := stay(t, elsewhere, data)
	cluster := clusterOf(t, h.brokers)
	leave(t, h)
	// Now there is one in DATA_DIR: it runs for as long as it is needed.
	for range 2 {
		b, release, wrong := openFor(t, both, elsewhere, data)
		if wrong != "" {
			t.Fatal(wrong)
		}
		if b.redis != "" || clusterOf(t, b.brokers) != cluster {
			t.Errorf("another Kafka, or a Redis at %.20q", string(b.redis))
		}
		lock, err := embedded.Lock(dir)
		if err == nil {
			lock.Unlock() //nolint:errcheck // the test has failed
			t.Error("the DATA_DIR is not held")
		}
		release()
	}
}

// clusterOf is the id of the cluster at the brokers.
func clusterOf(t testing.TB, brokers []string) string {
	t.Helper()
	k, err := topic.Open(topic.Config{Brokers: brokers, Name: "x", Shards: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	id, err := k.Cluster(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestBackendBeside: a verb works with what the process on its DATA_DIR works with, or not at all.
func TestBackendBeside(t *testing.T) {
	t.Parallel()
	data, both := "DATA_DIR="+t.TempDir(), needs{kafka: true, redis: true}
	h := stay(t, elsewhere, data)
	b, release, wrong := openFor(t, both, elsewhere, data)
	release()
	expectStreams(t, wrong, b, h.brokers, h.redis)
	b, release, wrong = openFor(t, both, elsewhere, data, "KAFKA_BROKERS=a:1")
	release()
	expectStreams(t, wrong, b, []string{"a:1"}, h.redis)
	if _, _, wrong := openFor(t, needs{}, data); !strings.HasPrefix(wrong, "DATABASE_URL is not set, but process") {
		t.Errorf("without DATABASE_URL: %q", wrong)
	}
	if _, err := holdBackend(t.Context(), appWith(t, elsewhere, data)); err == nil || !strings.Contains(err.Error(), "is in use by process") {
		t.Errorf("a second process stays: %v", err)
	}
	other := stay(t, elsewhere, "DATA_DIR="+t.TempDir())
	if clusterOf(t, other.brokers) == clusterOf(t, h.brokers) || other.redis == h.redis {
		t.Error("two gateways have the same embedded parts")
	}
	leave(t, other)
	leave(t, h)
	h = stay(t, elsewhere, data, "KAFKA_BROKERS=a:1", "REDIS_URL=redis://c")
	expectStreams(t, "external", h.backend, []string{"a:1"}, "redis://c")
	if _, _, wrong := openFor(t, both, elsewhere, data); !strings.HasPrefix(wrong, "KAFKA_BROKERS is not set, but process") {
		t.Errorf("without KAFKA_BROKERS: %q", wrong)
	}
	if _, release, wrong := openFor(t, needs{redis: true}, elsewhere, data); wrong != "" {
		t.Error(wrong)
	} else {
		release()
	}
	leave(t, h)
}

// TestBackendEnds: an embedded Kafka that cannot write ends the process, and says so.
func TestBackendEnds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := stay(t, elsewhere, "DATA_DIR="+dir)
	select {
	case <-h.ended():
		t.Fatal("it has ended already")
	default:
	}
	writeFile(t, filepath.Join(dir, "kafka", "partitions"), "") // where a directory is needed
	c, err := kgo.NewClient(kgo.SeedBrokers(h.brokers...), kgo.RecordRetries(1))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := kadm.NewClient(c).CreateTopic(t.Context(), 1, 1, nil, "u"); err != nil {
		t.Fatal(err)
	}
	if err := c.ProduceSync(t.Context(), &kgo.Record{Topic: "u", Value: []byte("x")}).FirstErr(); err == nil {
		t.Error("it was acknowledged")
	}
	<-h.ended()
	if !strings.Contains(h.cause.Error(), "embedded Kafka cannot write") {
		t.Error(h.cause)
	}
	if err := h.release(); err == nil || !strings.Contains(err.Error(), "embedded kafka") {
		t.Errorf("released by %v", err)
	}
}

// TestEmbeddedEnvironment: a command that runs with the embedded parts reaches no others.
func TestEmbeddedEnvironment(t *testing.T) {
	t.Parallel()
	h := &holding{backend: backend{embeddedDatabase("postgres://here"), streams{[]string{"here:1", "here:2"}, "redis://here"}}}
	got := h.environment([]string{"PATH=/bin", "DATABASE_URL=real", "DATABASE_MIGRATE_URL=real", "KAFKA_PASSWORD_FILE=real", "KAFKA_SASL=plain", "KAFKA_TLS=true", "REDIS_URL_FILE=real", "PG_POOLER=transaction"})
	dotenv := "DATABASE_MIGRATE_URL=postgres://real\nKAFKA_TLS=true\nKAFKA_SASL=plain\nKAFKA_PASSWORD_FILE=/real\nKAFKA_USERNAME=real\nPG_POOLER=transaction\n"
	if strings.Contains(strings.Join(got, " "), "real") || got[0] != "PATH=/bin" {
		t.Errorf("the environment is %q", got)
	}
	got[1] = "DATABASE_URL=host=here"
	s, err := load(t, dotenv, replaced(got, "REDIS_URL=redis://here")...)
	if err != nil || s.KafkaTLS || s.KafkaSASL != saslNone || s.KafkaUsername != "" || s.DatabaseMigrateURL != "" || s.Pooled ||
		strings.Join(s.KafkaBrokers, ",") != "here:1,here:2" || s.RedisURL != "redis://here" {
		t.Errorf("read as %+v, %v", s, err)
	}
}

func replaced(environ []string, line string) []string {
	name, value, _ := strings.Cut(line, "=")
	return with(environ, name, value)
}

// brokerWith starts a Kafka in this process.
func brokerWith(t testing.TB, options ...kfake.Opt) []string {
	t.Helper()
	k, err := kfake.NewCluster(append(options, kfake.NumBrokers(1))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k.ListenAddrs()
}

func TestKafkaErrors(t *testing.T) {
	t.Parallel()
	refused := kafkaError(fmt.Errorf("asking: %w", kerr.SaslAuthenticationFailed), []string{"a:1", "b:2"})
	if want := "the Kafka at a:1,b:2 refuses: SASL Authentication failed. (SASL_AUTHENTICATION_FAILED)"; refused.Error() != want {
		t.Errorf("%v, want %s", refused, want)
	}
	if err := kafkaError(topic.ErrMismatch, nil); !errors.Is(err, topic.ErrMismatch) {
		t.Error(err)
	}
	guarded := brokerWith(t, kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "u", "right"))
	for _, c := range []struct{ name, want, brokers, more string }{
		{"nobody there", "no Kafka can be reached at 127.0.0.1:1: connect: connection refused", "127.0.0.1:1", ""},
		{"no such host", "the host name is unknown", "no-such-host.invalid:9092", ""},
		{"a wrong password", "closes the connection: are KAFKA_TLS and KAFKA_SASL as", guarded[0], "KAFKA_SASL=scram-sha-256 KAFKA_USERNAME=u KAFKA_PASSWORD=hunter2"},
		{"one that says nothing", "it does not answer", silence(t), ""},
		{"TLS where there is none", "no Kafka can be reached at", brokerWith(t)[0], "KAFKA_TLS=true"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, err := load(t, "", append(strings.Fields(c.more), "KAFKA_BROKERS="+c.brokers)...)
			if err != nil {
				t.Fatal(err)
			}
			b := backend{streams: externalStreams(s)}
			k, err := topic.Open(b.kafkaConfig(s, ledger.Meta{Shards: 1}, slog.New(slog.DiscardHandler)))
			if err != nil {
				t.Fatal(err)
			}
			defer k.Close()
			_, err = k.Cluster(t.Context())
			err = kafkaError(err, b.brokers)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
}

func TestRedisErrors(t *testing.T) {
	t.Parallel()
	r, err := embedded.StartRedis()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Stop)
	u, err := url.Parse(r.URL())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, want, at string }{
		{"nobody there", "no Redis can be reached at 127.0.0.1:1: connect: connection refused", "redis://:hunter2@127.0.0.1:1/0"},
		{"a wrong password", "no Redis can be used at " + u.Host + ": it is away, or refuses the login", "redis://:hunter2@" + u.Host},
		{"one that says nothing", "it does not answer", "redis://:hunter2@" + silence(t) + "/0"},
		{"several", "no Redis can be reached at 127.0.0.1:1,127.0.0.1:2: ", "redis://u:hunter2@127.0.0.1:1,127.0.0.1:2?master_name=m&sentinel_password=p@hunter2"},
	} {
		client, err := projections.OpenRedis(c.at, nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		err = redisError(client.Ping(ctx).Err(), Secret(c.at))
		cancel()
		client.Close() //nolint:errcheck // it was only tried
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
	plainly := redis.NewClient(&redis.Options{Addr: u.Host, Password: "hunter2"})
	defer plainly.Close() //nolint:errcheck // it was only tried
	err = redisError(plainly.Ping(t.Context()).Err(), Secret("redis://:hunter2@"+u.Host))
	if want := "the Redis at " + u.Host + " refuses: WRONGPASS"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}
