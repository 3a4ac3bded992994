package topic_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"llm-gateway/domain"
	"llm-gateway/ledger/topic"
	"llm-gateway/ledger/topic/topictest"
)

// right are the settings that a topic must have.
func right() map[string]string {
	return map[string]string{
		"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1", "message.timestamp.type": "LogAppendTime",
	}
}

// with is right with one setting changed.
func with(name, value string) map[string]string {
	settings := right()
	settings[name] = value
	return settings
}

// make makes the topic as an administrator would.
func (b *bench) make(t *testing.T, partitions int32, settings map[string]string) {
	t.Helper()
	configs := make(map[string]*string)
	for name, value := range settings {
		configs[name] = new(value)
	}
	if _, err := b.admin(t).CreateTopic(t.Context(), partitions, 1, configs, b.config.Name); err != nil {
		t.Fatal(err)
	}
}

// unmade is a bench whose topic is not there yet.
func unmade(t *testing.T) *bench {
	t.Helper()
	config := topictest.Config(t, shards, uuid.New())
	tp, err := topic.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tp.Close)
	return &bench{Topic: tp, config: config, shard: 2, chain: topictest.ChainOf(t, config.Ledger, 2, shards)}
}

// TestEnsureMakes: what is made is what must be, and is taken the next time.
func TestEnsureMakes(t *testing.T) {
	t.Parallel()
	b := unmade(t)
	for range 2 {
		if err := b.Ensure(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	configs, err := b.admin(t).DescribeTopicConfigs(t.Context(), b.config.Name)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, c := range configs[0].Configs {
		got[c.Key] = c.MaybeValue()
	}
	for name, value := range with("max.message.bytes", "1048588") {
		if got[name] != value {
			t.Errorf("%s is %q, want %q", name, got[name], value)
		}
	}
	if s, err := b.State(t.Context()); err != nil || len(s.Starts) != shards || len(s.Ends) != shards || s.ID == [16]byte{} {
		t.Errorf("state %+v, %v", s, err)
	}
	b.publish(t, b.producer(t), 1)
	if err := b.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestEnsureOthers: what an administrator made is taken or refused, and what is wrong with it is named.
func TestEnsureOthers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		partitions int32
		settings   map[string]string
		wrong      []string // in the refusal; none: it is taken
	}{
		{"as it must be", shards, right(), nil},
		{"greater batches", shards, with("max.message.bytes", "5000000"), nil},
		{"too few partitions", shards - 1, right(), []string{"has 3 partitions", "must have 4"}},
		{"too many partitions", shards + 1, right(), []string{"has 5 partitions", "must have 4"}},
		{"compacted", shards, with("cleanup.policy", "compact"), []string{"cleanup.policy", `"compact"`, `"delete"`}},
		{"compacted and deleted", shards, with("cleanup.policy", "compact,delete"), []string{"cleanup.policy"}},
		{"a week's retention", shards, with("retention.ms", "604800000"), []string{"retention.ms", `"604800000"`, `"-1"`}},
		{"bounded in bytes", shards, with("retention.bytes", "1000000000"), []string{"retention.bytes", `"-1"`}},
		{"producers' times", shards, with("message.timestamp.type", "CreateTime"), []string{"message.timestamp.type", `"LogAppendTime"`}},
		{"small batches", shards, with("max.message.bytes", "100000"), []string{"max.message.bytes", `"100000"`, "1000000"}},
		{"everything", shards, nil, []string{"retention.ms", "message.timestamp.type"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := unmade(t)
			b.make(t, c.partitions, c.settings)
			err := b.Ensure(t.Context())
			if len(c.wrong) == 0 && err != nil {
				t.Fatal(err)
			}
			if len(c.wrong) > 0 {
				wantError(t, err, topic.ErrMismatch)
			}
			for _, part := range append(c.wrong, b.config.Name) {
				if err != nil && !strings.Contains(err.Error(), part) {
					t.Errorf("the refusal does not say %s: %v", part, err)
				}
			}
		})
	}
}

// TestEnsureForeign: another ledger's topic is refused, whichever shard its records are in; an empty
// one belongs to whoever comes.
func TestEnsureForeign(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	other := b.config
	other.Ledger = uuid.New()
	foreign, err := topic.Open(other)
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	if err := foreign.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.publish(t, b.producer(t), 1)
	err = foreign.Ensure(t.Context())
	wantError(t, err, topic.ErrMismatch)
	for _, ledger := range []uuid.UUID{b.config.Ledger, other.Ledger} {
		if !strings.Contains(err.Error(), topic.Source(ledger)) {
			t.Errorf("the refusal does not name ledger %s: %v", ledger, err)
		}
	}
	if err := b.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	for r, err := range foreign.Scan(t.Context(), b.shard) {
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Event()
		wantError(t, err, topic.ErrMismatch)
	}
}

// TestEnsureAtOnce: many gateways that start in the same moment make one topic.
func TestEnsureAtOnce(t *testing.T) {
	t.Parallel()
	b := unmade(t)
	var group sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		one, err := topic.Open(b.config)
		if err != nil {
			t.Fatal(err)
		}
		defer one.Close()
		group.Go(func() { errs[i] = one.Ensure(t.Context()) })
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	b.publish(t, b.producer(t), 1)
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]topic.Config{
		"no brokers":              {Name: "t", Shards: 1},
		"no name":                 {Brokers: []string{"localhost:9092"}, Shards: 1},
		"no shards":               {Brokers: []string{"localhost:9092"}, Name: "t"},
		"an address that is none": {Brokers: []string{"localhost:port"}, Name: "t", Shards: 1},
	} {
		if tp, err := topic.Open(c); err == nil {
			tp.Close()
			t.Errorf("%s: it opens", name)
		}
	}
}

func TestCluster(t *testing.T) {
	t.Parallel()
	id, err := newBench(t).Cluster(t.Context())
	if err != nil || id == "" {
		t.Errorf("cluster %q, %v", id, err)
	}
}

// TestState: where reading begins and ends, and that another topic is another one.
func TestState(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	extent := func() (start, end int64, id [16]byte) {
		t.Helper()
		s, err := b.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for shard := range shards {
			if int32(shard) != b.shard && (s.Starts[shard] != 0 || s.Ends[shard] != 0) {
				t.Fatalf("nothing was written to shard %d: %+v", shard, s)
			}
		}
		return s.Starts[b.shard], s.Ends[b.shard], s.ID
	}
	if start, end, _ := extent(); start != 0 || end != 0 {
		t.Errorf("an empty shard is from %d to %d", start, end)
	}
	_, last := b.publish(t, b.producer(t), 3)
	if start, end, _ := extent(); start != 0 || end <= last {
		t.Errorf("a shard with a record at %d is from %d to %d", last, start, end)
	}
	_, before, _ := extent()
	b.predecessor(t, []domain.Recorded{b.chain.Next(t, 1)[0]}).Close()
	if _, end, _ := extent(); end != before {
		t.Errorf("an open transaction moves the end from %d to %d", before, end)
	}
	b.empty(t, 2)
	if start, _, _ := extent(); start != 2 {
		t.Errorf("emptied to 2, it begins at %d", start)
	}
	_, _, old := extent()
	b.recreate(t)
	if start, end, id := extent(); start != 0 || end != 0 || id == old {
		t.Errorf("a topic made again is from %d to %d, with id %x after %x", start, end, id, old)
	}
}

// TestForeignFirst: one record of somebody else's at the beginning is enough to refuse a topic.
func TestForeignFirst(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	record := &kgo.Record{Partition: 0, Value: []byte("hello")}
	if err := b.raw(t).ProduceSync(t.Context(), record).FirstErr(); err != nil {
		t.Fatal(err)
	}
	wantError(t, b.Ensure(t.Context()), topic.ErrMismatch)
}
