package projections

import (
	"context"
	"encoding/hex"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"llm-gateway/domain"
	"llm-gateway/ledger/topic"
	"llm-gateway/ledger/topic/topictest"
)

// write produces records as anybody could, who knows how.
func (s *told) write(t *testing.T, config topic.Config, events []domain.Recorded, change func(*kgo.Record)) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(config.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for _, e := range events {
		r := &kgo.Record{Topic: config.Name, Partition: e.Event.Shard, Key: []byte(e.Event.Account), Value: e.Payload}
		for _, h := range [][2]string{{"ce_specversion", "1.0"}, {"ce_id", e.Event.ID.String()}, {"ce_source", topic.Source(s.meta.ID)},
			{"ce_type", "llm.usage." + string(e.Event.Kind) + ".v1"}, {"ce_time", e.Event.OccurredAt.Format("2006-01-02T15:04:05.000000Z")},
			{"ce_subject", e.Event.Account}, {"content-type", "application/json"},
			{"ledger_seq", strconv.FormatInt(e.Event.Seq, 10)}, {"ledger_hash", hex.EncodeToString(e.Hash[:])}} {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: h[0], Value: []byte(h[1])})
		}
		change(r)
		if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

func asItIs(*kgo.Record) {}

// TestRebuildFromABadTopic: repeats are passed over; a gap, a changed record, a foreign one stop the
// rebuild, by name, and leave all as it was.
func TestRebuildFromABadTopic(t *testing.T) {
	t.Parallel()
	header := func(name, value string) func(*kgo.Record) {
		return func(r *kgo.Record) {
			for i := range r.Headers {
				if r.Headers[i].Key == name {
					r.Headers[i].Value = []byte(value)
				}
			}
		}
	}
	s := tell(t, false, 60)
	s.project(t, 1, 1)
	before := s.everything(t)
	events := s.events[1]
	third := events[2:3]
	for name, test := range map[string]struct {
		write func(topic.Config)
		want  string // "": it goes well
	}{
		"repeats": {func(c topic.Config) {
			s.write(t, c, events[:4], asItIs)
			s.write(t, c, events[1:3], asItIs)
			s.write(t, c, events[2:], asItIs)
			s.write(t, c, events[:1], asItIs)
		}, ""},
		"a gap":        {func(c topic.Config) { s.write(t, c, events[:2], asItIs); s.write(t, c, events[3:], asItIs) }, "gap: record 2 of partition 1 is seq 4, and seq 3"},
		"no beginning": {func(c topic.Config) { s.write(t, c, events[2:], asItIs) }, "gap: record 0 of partition 1 is seq 3, and seq 1"},
		"a changed event": {func(c topic.Config) {
			s.write(t, c, events[:2], asItIs)
			s.write(t, c, third, func(r *kgo.Record) {
				r.Value = []byte(strings.Replace(string(r.Value), `"USD"`, `"EUR"`, 1))
			})
		}, "1:3"},
		"another hash": {func(c topic.Config) {
			s.write(t, c, events[:2], asItIs)
			s.write(t, c, third, header("ledger_hash", strings.Repeat("ab", 32)))
		}, "hash of 1:3"},
		"another ledger": {func(c topic.Config) { s.write(t, c, events[:1], header("ce_source", "/llm-gateway/other")) }, "not of this ledger"},
		"no seq": {func(c topic.Config) {
			s.write(t, c, events[:2], asItIs)
			s.write(t, c, third, header("ledger_seq", "many"))
		}, "header says 0"},
		"no event": {func(c topic.Config) { s.write(t, c, events[:1], func(r *kgo.Record) { r.Value = nil }) }, "bad event"},
	} {
		t.Run(name, func(t *testing.T) {
			config := topictest.Config(t, s.meta.Shards, s.meta.ID)
			to := topictest.Open(t, config)
			s.send(t, to, 0, s.events[0])
			s.send(t, to, 2, s.events[2])
			test.write(config)
			c := s.rebuilds(t)
			c.Topic = to
			r, err := Rebuild(t.Context(), c, "balances")
			if test.want == "" && (err != nil || r.FilledFromLedger != 0 || r.Differences.Count() != 0) {
				t.Errorf("%+v, %v", r, err)
			}
			if test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("%v does not say %q", err, test.want)
			}
			s.exec(t, `UPDATE projection_positions SET next_offset = 0`)
			wantLinesEqual(t, s.everything(t), before)
			s.wantTidy(t)
		})
	}
}

// TestRebuildFromALaggingTopic: what the topic does not have after a while comes from the ledger, and
// is counted.
func TestRebuildFromALaggingTopic(t *testing.T) {
	t.Parallel()
	for name, gone := range map[string]bool{"live": false, "dropped": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := tell(t, false, 120)
			s.project(t, 1, 1)
			before := s.everything(t)
			c := s.rebuilds(t)
			c.Topic, c.patience = s.publish(t, 2, 3), 200*time.Millisecond
			if gone {
				s.exec(t, `DROP TABLE stats`)
			}
			want := int64(0)
			for _, events := range s.events {
				want += int64(len(events) - len(events)*2/3)
			}
			if r := mustRebuild(t, c, "stats"); r.FilledFromLedger != want || r.Compared == gone || r.Differences.Count() != 0 {
				t.Errorf("%+v, %d events from the ledger wanted", r, want)
			}
			s.exec(t, `UPDATE projection_positions SET next_offset = 0`)
			wantLinesEqual(t, s.everything(t), before)
		})
	}
}

// laterTopic goes on getting records while it is scanned.
type laterTopic struct {
	*topic.Topic
	more func(shard int32)
}

// Scan implements History.
func (l laterTopic) Scan(ctx context.Context, shard int32) iter.Seq2[*topic.Record, error] {
	return func(yield func(*topic.Record, error) bool) {
		for r, err := range l.Topic.Scan(ctx, shard) {
			if !yield(r, err) {
				return
			}
		}
		l.more(shard)
	}
}

// TestRebuildFromAMovingTopic: what comes after the scan is read from the topic too.
func TestRebuildFromAMovingTopic(t *testing.T) {
	t.Parallel()
	s := tell(t, false, 300)
	s.project(t, 1, 1)
	before := s.everything(t)
	c := s.rebuilds(t)
	to := s.publish(t, 1, 3)
	c.Topic = laterTopic{to, func(shard int32) { s.send(t, to, shard, s.events[shard][len(s.events[shard])/3:]) }}
	if r := mustRebuild(t, c, "transactions"); r.FilledFromLedger != 0 || r.Differences.Count() != 0 || r.Events != int64(len(s.all())) {
		t.Errorf("%+v", r)
	}
	s.exec(t, `UPDATE projection_positions SET next_offset = 0`)
	wantLinesEqual(t, s.everything(t), before)
}

// TestSides: the three are the same, whatever the projection; and not when one row is another.
func TestSides(t *testing.T) {
	t.Parallel()
	s := tell(t, false, 300)
	s.project(t, 1, 2)
	c := s.rebuilds(t)
	c.Topic = s.publish(t, 1, 1)
	before := s.everything(t)
	for _, p := range all {
		sides, err := SideBySide(t.Context(), c, p.name())
		if err != nil {
			t.Fatal(err)
		}
		rows := s.count(t, "SELECT count(*) FROM "+p.name())
		if !sides.Equal() || sides.Digests[2].Rows != rows || int64(len(sides.Sample)) != min(rows, maxSample) ||
			fmt.Sprint(sides.Positions) != fmt.Sprint(places(s.positions(t, p.name()))) || sides.FilledFromLedger != 0 {
			t.Errorf("%+v", sides)
		}
		for _, row := range sides.Sample {
			if row.Live != row.Topic || row.Live != row.Ledger || !strings.HasPrefix(row.Key, "shard=") || row.Live == "" {
				t.Errorf("%+v", row)
			}
		}
	}
	wantLinesEqual(t, s.everything(t), before)
	s.wantTidy(t)
	s.exec(t, `UPDATE balances SET reserved = reserved + 0.000000000001 WHERE account = $1`, s.accounts[8])
	sides, err := SideBySide(t.Context(), c, "balances")
	if err != nil || sides.Equal() || sides.Digests[1].SHA256 != sides.Digests[2].SHA256 || sides.Digests[0].SHA256 == sides.Digests[1].SHA256 ||
		!slices.ContainsFunc(sides.Sample, func(row SampleRow) bool { return row.Live != row.Topic && row.Topic == row.Ledger }) {
		t.Errorf("%+v, %v", sides, err)
	}
	s.exec(t, `DROP TABLE balances`)
	sides, err = SideBySide(t.Context(), c, "balances")
	if err != nil || sides.Equal() || sides.Digests[0].Exists || sides.Digests[1].SHA256 != sides.Digests[2].SHA256 ||
		sides.Sample[0].Live != "" || fmt.Sprint(seqsOf(sides.Positions)) != fmt.Sprint(s.heads()) {
		t.Errorf("%+v, %v", sides, err)
	}
	c.Topic = nil
	if sides, err := SideBySide(t.Context(), c, "balances"); err == nil {
		t.Errorf("%+v without a topic", sides)
	}
}

func seqsOf(positions []domain.Position) (out []int64) {
	for _, p := range positions {
		out = append(out, p.Seq)
	}
	return out
}

// heads is where the history ends in each shard.
func (s *told) heads() (out []int64) {
	for shard := range int32(s.meta.Shards) {
		out = append(out, int64(len(s.events[shard])))
	}
	return out
}
