package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kfake"
)

const (
	kafkaDir = "kafka" // in the DATA_DIR

	// segmentBytes is small because kfake reads one whole segment of every partition at the same time
	// when it starts; it holds a file open for each segment that was ever read.
	segmentBytes = 8 << 20
)

// Kafka is a Kafka broker in this process.
type Kafka struct {
	cluster *kfake.Cluster
	brokers []string
	done    chan struct{}

	mu      sync.Mutex
	ended   bool
	problem error
}

// StartKafka mends the broker's directory, makes it if there is none, and starts a broker on a free
// port of the loopback address. The cluster's id is random, made with the directory and kept in it.
// Topics are not made by being asked for. ctx bounds the start only. The caller should hold
// Lock(o.DataDir). The error is ErrDamaged, with the directory's name, when the directory holds what
// cannot be read without losing some of it; it is left as it is then.
//
// What a producer was told is written is on disk: every batch is synced. Records are not kept in
// memory, but some 70 bytes per batch are, and a commit is a batch.
func StartKafka(ctx context.Context, o Options) (*Kafka, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	root, err := absolute(o.DataDir)
	if err != nil {
		return nil, fmt.Errorf("embedded kafka: %w", err)
	}
	dir := filepath.Join(root, kafkaDir)
	k, err := startKafka(ctx, dir, o.Log)
	if errors.Is(err, ErrDamaged) {
		err = fmt.Errorf("%w. Restore it, or move it away: a new topic is filled from the ledger", err)
	}
	if err != nil {
		return nil, fmt.Errorf("embedded kafka: %s: %w", dir, err)
	}
	return k, nil
}

func startKafka(ctx context.Context, dir string, log *slog.Logger) (*Kafka, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := mendKafka(ctx, dir, log); err != nil {
		return nil, err
	}
	return launchKafka(dir, log)
}

// launchKafka starts the broker on a directory that kfake reads rightly.
func launchKafka(dir string, log *slog.Logger) (*Kafka, error) {
	id, err := uuid.NewRandom()
	if err != nil {
		return nil, err
	}
	k := &Kafka{done: make(chan struct{})}
	k.cluster, err = kfake.NewCluster(
		kfake.NumBrokers(1), kfake.DataDir(dir), kfake.SyncWrites(),
		kfake.ClusterID(id.String()), // of a new directory; an old one has its own
		kfake.BrokerConfigs(map[string]string{
			"log.segment.bytes": strconv.Itoa(segmentBytes),
			"log.retention.ms":  "-1", // of topics that do not say it themselves
		}),
		kfake.WithLogger(&brokerLog{log, k.end}),
	)
	if err != nil {
		return nil, err
	}
	k.brokers = k.cluster.ListenAddrs()
	return k, nil
}

// HasKafka says whether a DATA_DIR ever had an embedded Kafka.
func HasKafka(dataDir string) bool {
	_, err := os.Stat(filepath.Join(dataDir, kafkaDir))
	return err == nil
}

// Brokers is where clients connect: one host:port.
func (k *Kafka) Brokers() []string { return k.brokers }

// Done is closed when the broker has ended, or can no longer write to its directory: what it
// acknowledges from then on is not kept, so its users must stop. Stop says which.
func (k *Kafka) Done() <-chan struct{} { return k.done }

// Stop ends the broker and all connections to it, or returns an error when ctx ends first. An error
// of another kind says that something could not be written; the next start mends what it can.
func (k *Kafka) Stop(ctx context.Context) error {
	closed := make(chan struct{})
	go func() { // ends when kfake has answered what it is at; or with the process
		k.cluster.Close()
		close(closed)
	}()
	select {
	case <-closed:
		k.end(nil)
	case <-ctx.Done():
		k.end(fmt.Errorf("it does not stop: %w", ctx.Err()))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.problem != nil {
		return fmt.Errorf("embedded kafka: %w", k.problem)
	}
	return nil
}

// end records the first problem, nil being none, and that it is over.
func (k *Kafka) end(problem error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.problem == nil {
		k.problem = problem
	}
	if !k.ended {
		k.ended = true
		close(k.done)
	}
}

// brokerLog hears what kfake has to say. It says only here that it could not write: for some of what
// it writes, commits among it, the client hears of success all the same.
type brokerLog struct {
	log    *slog.Logger
	failed func(error)
}

// Logf takes a message of kfake's.
func (l *brokerLog) Logf(level kfake.LogLevel, format string, args ...any) {
	if level > kfake.LogLevelWarn {
		return
	}
	if strings.HasPrefix(format, "persist") || strings.HasPrefix(format, "endTx: failed to persist") {
		err := fmt.Errorf(format, args...)
		l.log.Error("embedded kafka cannot write", "error", err)
		l.failed(err)
		return
	}
	l.log.Debug("embedded kafka: " + fmt.Sprintf(format, args...))
}
