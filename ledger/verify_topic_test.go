package ledger

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"llm-gateway/domain"
	"llm-gateway/ledger/topic"
)

// copied makes the topic that the relay would have made of a ledger.
func copied(t testing.TB, p *Postgres) *fakeTopic {
	t.Helper()
	f := newFakeTopic(p.Meta())
	f.fill(t, p.Reader)
	return f
}

// ofTopic are the findings about the topic, as "position: detail" each.
func ofTopic(r *Report) (out []string) {
	for _, f := range r.Findings {
		if f.Check == CheckTopic {
			out = append(out, strings.TrimPrefix(f.Position+": "+f.Detail, ": "))
		}
	}
	return out
}

// tampered are topics of commitCrime's shard 1, record n at offset n+9, and what must be found: each
// finding begins with one of these, in this order.
var tampered = []struct {
	name        string
	tamper      func(t *tape)
	unpublished int64
	want        []string
}{
	{"nothing", func(*tape) {}, 0, nil},
	{"not all published", func(t *tape) { t.records = t.records[:13] }, 3, nil},
	{"nothing published", func(t *tape) { t.records = nil }, 16, nil},
	{"one missing", func(t *tape) { t.records = slices.Delete(t.records, 6, 7) }, 0, []string{"1:7: it is missing"}},
	{"three missing", func(t *tape) { t.records = slices.Delete(t.records, 6, 9) }, 0, []string{"1:7: it and all up to 9 are missing"}},
	{"missing here and there", func(t *tape) {
		t.records = slices.Delete(slices.Delete(t.records, 13, 14), 2, 4)
	}, 0, []string{"1:3: it and all up to 4", "1:14: it is missing"}},
	{"the beginning missing", func(t *tape) { t.records = t.records[5:] }, 0, []string{"1:1: it and all up to 5 are missing"}},
	{"one twice", func(t *tape) { t.records = slices.Insert(t.records, 7, t.records[6]) }, 0, []string{"1:7: the record at offset 16 is repeated"}},
	{"one again at the end", func(t *tape) { t.records = append(t.records, t.records[0]) }, 0, []string{"1:1: the record at offset 10 is repeated"}},
	{"two the other way round", func(t *tape) { t.records[6], t.records[7] = t.records[7], t.records[6] }, 0,
		[]string{"1:7: the record at offset 16 is out of order: it comes after that of seq 8"}},
	{"one late", func(t *tape) { t.records = append(slices.Delete(slices.Clone(t.records), 6, 7), t.records[6]) }, 0, []string{"1:7: the record at offset 16 is out of order"}},
	{"one late and again", func(t *tape) {
		t.records = append(slices.Delete(slices.Clone(t.records), 6, 7), t.records[6], t.records[6])
	}, 0, []string{"1:7: the record at offset 16 is out of order", "1:7: the record at offset 16 is repeated"}},
	{"one more", func(t *tape) { t.more(17, "one more") }, 0, []string{"1:17: the record at offset 26 of partition 1 is extra"}},
	{"one more, far off", func(t *tape) { t.more(1<<40, "one more") }, 0, []string{"1:1099511627776: the record at offset 26 of partition 1 is extra"}},
	{"one that is no event", func(t *tape) {
		t.records = slices.Insert(t.records, 4, &topic.Record{Shard: 1, Offset: 99, Payload: []byte("hello")})
	}, 0, []string{"the record at offset 99 of partition 1 is extra"}},
	{"one of a place below", func(t *tape) {
		t.records = slices.Insert(t.records, 4, &topic.Record{Shard: 1, Offset: 99, Seq: -1, Payload: []byte(`{"seq":-1}`)})
	}, 0, []string{"the record at offset 99 of partition 1 is extra"}},
	{"a byte", func(t *tape) { t.edit(12, `"model":"m"`, `"model":"n"`) }, 0, []string{"1:12: the record at offset 21: its bytes are not the ledger's"}},
	{"a byte and the hash", func(t *tape) { t.edit(16, `"gift"`, `"gilt"`); t.rehash(16) }, 0,
		[]string{"1:16: the record at offset 25: its bytes are not the ledger's; the header ledger_hash is "}},
	{"its seq inside", func(t *tape) { t.edit(12, `"seq":12`, `"seq":13`) }, 0, []string{"1:12: the record at offset 21: its bytes are not the ledger's"}},
	{"no bytes", func(t *tape) { t.records[11].Payload = nil }, 0, []string{"1:12: the record at offset 21: its bytes are not the ledger's"}},
	{"the bytes of another", func(t *tape) { t.records[11].Payload = t.records[10].Payload }, 0,
		[]string{"1:11: the record at offset 21: the header ledger_seq says 12; the header ledger_hash is", "1:11: the record at offset 21 is repeated", "1:12: it is missing"}},
	{"the header ledger_seq", func(t *tape) { t.records[6].Seq = 9 }, 0, []string{"1:7: the record at offset 16: the header ledger_seq says 9"}},
	{"no header ledger_seq", func(t *tape) { t.records[6].Seq = 0 }, 0, []string{"1:7: the record at offset 16: the header ledger_seq says 0"}},
	{"a header ledger_seq far off", func(t *tape) { t.records[6].Seq = 1 << 40 }, 0, []string{"1:7: the record at offset 16: the header ledger_seq says 1099511627776"}},
	{"the header ledger_hash", func(t *tape) { t.records[6].Hash[0]++ }, 0, []string{"1:7: the record at offset 16: the header ledger_hash is "}},
	{"the key", func(t *tape) { t.records[6].Key = "mallory" }, 0, []string{`1:7: the record at offset 16: its key is "mallory"`}},
	{"the header ce_source", func(t *tape) { t.records[6].Source = "/llm-gateway/" + uuid.NewString() }, 0, []string{"1:7: the record at offset 16: the header ce_source is"}},
	{"the partition", func(t *tape) { t.records[6].Shard = 2 }, 0, []string{"1:7: the record at offset 16: it is in partition 2"}},
	{"all of it", func(t *tape) { r := t.records[6]; *r = topic.Record{Seq: 7, Offset: 16} }, 0,
		[]string{"1:7: the record at offset 16: its bytes are not the ledger's; the header ledger_hash is "}},
}

// more appends a record of an event that the ledger does not have.
func (t *tape) more(seq int64, text string) {
	last := t.records[len(t.records)-1]
	payload := []byte(`{"seq":` + fmt.Sprint(seq) + `,"text":"` + text + `"}`)
	t.records = append(t.records, &topic.Record{Shard: 1, Offset: last.Offset + 1, Key: "alice", Seq: seq, Source: last.Source,
		Hash: domain.ChainHash(last.Hash, payload), Payload: payload})
}

func TestVerifyTamperedTopic(t *testing.T) {
	t.Parallel()
	c := commitCrime(t)
	whole := copied(t, c.ledger)
	all := whole.records[1]
	for _, test := range tampered {
		hands := &tape{t, c.ledger.Meta(), nil}
		for _, r := range all {
			one := *r
			hands.records = append(hands.records, &one)
		}
		test.tamper(hands)
		whole.records[1] = hands.records
		report, err := c.ledger.Verify(t.Context(), VerifyOptions{Topic: whole})
		if err != nil {
			t.Fatal(err)
		}
		got := ofTopic(report)
		if !slices.EqualFunc(got, test.want, strings.HasPrefix) || len(got) != report.Counts[CheckTopic] || len(report.Findings) != len(got) ||
			report.Clean != (len(got) == 0) {
			t.Errorf("%s: found %v\nwant %s", test.name, report.Findings, strings.Join(test.want, "\n"))
		}
		if report.Unpublished != test.unpublished || report.TopicRecords != int64(8+len(hands.records)) {
			t.Errorf("%s: %d unpublished of %d records", test.name, report.Unpublished, report.TopicRecords)
		}
	}
}

// TestVerifyFindsByTopic commits crimes on the ledger: what the topic adds to the findings.
func TestVerifyFindsByTopic(t *testing.T) {
	t.Parallel()
	c := commitCrime(t)
	witness := copied(t, c.ledger)
	for _, test := range []struct {
		name   string
		commit func(c *crime)
		want   string
	}{
		{"nothing", func(*crime) {}, ""},
		{"a past rewritten as a whole", rewrite, "1:14 1:15 1:16"},
		{"a payload and its hash", func(c *crime) { c.edit(12, `"model":"m"`, `"model":"n"`); c.rehash(12, 12) }, "1:12"},
		{"the column account", func(c *crime) { c.do(`UPDATE ledger_events SET account = 'ivan' WHERE shard = 1 AND seq = 14`) }, "1:14"},
		{"an event deleted", func(c *crime) { c.do(`DELETE FROM ledger_events WHERE shard = 1 AND seq = 6`) }, "1:6"},
		{"the first event deleted", func(c *crime) { c.do(`DELETE FROM ledger_events WHERE shard = 1 AND seq = 1`) }, "1:1"},
		{"a tail cut off and the head set back", func(c *crime) { c.do(cutThree); c.moveHead() }, "1:14 1:15 1:16"},
		{"a forged event at the end", func(c *crime) { c.forge(17) }, ""}, // perhaps it has yet to be published
		{"two events change places", func(c *crime) { c.swap(14, 16) }, "1:14 1:16"},
		{"a shard's events gone", func(c *crime) { c.do(`DELETE FROM ledger_events WHERE shard = 3`) }, "3:1 3:2"},
		{"another ledger id", func(c *crime) { c.do(`UPDATE ledger_meta SET id = gen_random_uuid()`) }, "1:1 1:2 1:3 1:4 1:5 1:6 1:7 1:8 1:9 1:10 1:11 1:12 1:13 1:14 1:15 1:16 2:1 2:2 2:3 2:4"},
	} {
		t.Run(test.name, func(t *testing.T) {
			mustExec(t, c.conn, "BEGIN")
			defer mustExec(t, c.conn, "ROLLBACK")
			at := *c
			at.T = t
			test.commit(&at)
			report, err := verify(t.Context(), c.conn, c.conn, VerifyOptions{Topic: witness})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range report.Findings {
				if f.Check == CheckTopic {
					got = append(got, f.Position)
				}
			}
			if text := strings.Join(got, " "); text != test.want {
				t.Errorf("found %s, not %s: %v", text, test.want, report.Findings)
			}
		})
	}
}

// rewrite is the crime that leaves nothing behind in the database.
func rewrite(c *crime) {
	c.fit(14, `"amount":"20"`, `"amount":"2000"`)
	c.do(`UPDATE ledger_accounts SET available = available + 1980 WHERE account = 'alice'`)
}

// TestVerifySeesAConsistentForgery finds by the topic what heads and hashes cannot show.
func TestVerifySeesAConsistentForgery(t *testing.T) {
	t.Parallel()
	c := commitCrime(t)
	witness := copied(t, c.ledger)
	rewrite(c)
	wantClean(t, c.ledger.Reader)
	report, err := c.ledger.Verify(t.Context(), VerifyOptions{Topic: witness})
	if err != nil {
		t.Fatal(err)
	}
	if got := places(report.Findings); !slices.Equal(got, []string{"topic 1:14 alice", "topic 1:15 alice", "topic 1:16 ivan"}) {
		t.Errorf("found %v", got)
	}
	if !slices.Equal(report.Witnesses, []Witness{WitnessHeads, WitnessTopic}) || !slices.Equal(report.MissingWitnesses, []Witness{WitnessCheckpoints}) {
		t.Errorf("witnesses %v, missing %v", report.Witnesses, report.MissingWitnesses)
	}
	var text strings.Builder
	if err := report.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"NOT CLEAN: 3 findings", "topic: 24 records, 0 events not yet published", "witnesses: heads, topic; not asked: checkpoints"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, text.String())
		}
	}
}

// movingCopy is a topic that goes on while it is verified.
type movingCopy struct {
	*fakeTopic
	before func(shard int32) // runs before each Scan
}

func (m movingCopy) Scan(ctx context.Context, shard int32) iter.Seq2[*topic.Record, error] {
	m.before(shard)
	return m.fakeTopic.Scan(ctx, shard)
}

// TestVerifyBesideTheRelay appends and publishes after the verification has its one state of the ledger:
// that is no crime, and hides none.
func TestVerifyBesideTheRelay(t *testing.T) {
	t.Parallel()
	c := commitCrime(t)
	witness := copied(t, c.ledger)
	n := 0
	moving := movingCopy{witness, func(int32) {
		n++
		must(t, c.ledger, command("alice", credit("1", fmt.Sprint("meanwhile-", n))))
		must(t, c.ledger, command("trent", credit("1", fmt.Sprint("meanwhile-", n))))
		witness.fill(t, c.ledger.Reader)
	}}
	report, err := c.ledger.Verify(t.Context(), VerifyOptions{Topic: moving})
	if err != nil || !report.Clean || report.Events != 24 || report.TopicRecords != 24+2+4 || report.Unpublished != 0 {
		t.Fatalf("%v, %+v", err, report)
	}
	spoiled := movingCopy{witness, func(shard int32) {
		moving.before(shard)
		if shard == 1 {
			records := witness.records[1]
			records[len(records)-1].Key = "mallory"
			hands := &tape{t, c.ledger.Meta(), records}
			hands.more(1000, "extra")
			witness.records[1] = hands.records
		}
	}}
	report, err = c.ledger.Verify(t.Context(), VerifyOptions{Topic: spoiled})
	if err != nil || !slices.EqualFunc(ofTopic(report), []string{`1:22: the record at offset 31: its key is "mallory"`, "1:1000: the record at offset 32 of partition 1 is extra"}, strings.HasPrefix) {
		t.Fatalf("%v, %+v", err, report)
	}
}

// TestVerifyTopicAway wants an error where the topic was to be asked and does not answer: no finding.
func TestVerifyTopicAway(t *testing.T) {
	t.Parallel()
	c := commitCrime(t)
	witness := copied(t, c.ledger)
	witness.leave(errAway)
	if report, err := c.ledger.Verify(t.Context(), VerifyOptions{Topic: witness}); !errors.Is(err, errAway) {
		t.Errorf("%v, %v", report, err)
	}
}

// TestTopicOrder holds the order of a topic against a model that remembers every place.
func TestTopicOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seqs := rapid.SliceOf(rapid.Int64Range(1, 20)).Draw(t, "seqs")
		c := &copyCheck{shardCheck: &shardCheck{verifier: &verifier{report: newReport(Meta{}, true)}}}
		seen := map[int64]bool{}
		top, late, repeated := int64(0), 0, 0
		for _, seq := range seqs {
			switch {
			case seen[seq]:
				repeated++
			case seq < top:
				late++
			}
			seen[seq], top = true, max(top, seq)
			c.order(seq, &topic.Record{})
		}
		if got := c.report.Counts[CheckTopic]; got != late+repeated {
			t.Fatalf("%d findings for %d late and %d repeated", got, late, repeated)
		}
		missing := int64(0)
		for i, g := range c.gaps {
			missing += g.last - g.first + 1
			if g.first > g.last || i > 0 && c.gaps[i-1].last >= g.first {
				t.Fatalf("gaps %v", c.gaps)
			}
		}
		if missing != top-int64(len(seen)) {
			t.Fatalf("%d are missing in %v", missing, c.gaps)
		}
	})
}

// TestTopicFullOfGaps bounds what is remembered of a topic that is nothing but gaps.
func TestTopicFullOfGaps(t *testing.T) {
	c := &copyCheck{shardCheck: &shardCheck{verifier: &verifier{report: newReport(Meta{}, true)}}}
	for n := range int64(3 * maxGaps) {
		c.order(2*n+2, &topic.Record{})
	}
	c.order(4*maxGaps+1, &topic.Record{})
	if len(c.gaps) != maxGaps || c.report.Counts[CheckTopic] != 2*maxGaps+1 {
		t.Errorf("%d gaps are kept, %d were found", len(c.gaps), c.report.Counts[CheckTopic])
	}
}
