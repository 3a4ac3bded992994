package topic

import (
	"bytes"
	"encoding/hex"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"llm-gateway/domain"
)

var ledgerID = uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8057")

// golden are the events that the domain keeps as examples, one of every kind and more.
func golden(t testing.TB) []domain.Recorded {
	t.Helper()
	paths, err := filepath.Glob("../../domain/testdata/golden/*.json")
	if err != nil || len(paths) < 7 {
		t.Fatalf("golden events: %v, %v", paths, err)
	}
	events := make([]domain.Recorded, len(paths))
	hash := domain.GenesisHash(ledgerID, 3)
	for i, path := range paths {
		payload, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		e, err := domain.Decode(payload)
		if err != nil {
			t.Fatal(err)
		}
		hash = domain.ChainHash(hash, payload)
		events[i] = domain.Recorded{Event: *e, Payload: payload, Hash: hash}
	}
	return events
}

// TestRecordForm is the contract with whoever consumes the topic.
func TestRecordForm(t *testing.T) {
	t.Parallel()
	for _, e := range golden(t) {
		if e.Event.Kind != domain.KindReserve {
			continue
		}
		r := encode(ledgerID, &e)
		if r.Partition != e.Event.Shard || string(r.Key) != e.Event.Account || !bytes.Equal(r.Value, e.Payload) {
			t.Errorf("a record of partition %d, key %s, %d bytes", r.Partition, r.Key, len(r.Value))
		}
		var got []string
		for _, h := range r.Headers {
			got = append(got, h.Key+": "+string(h.Value))
		}
		at := bytes.Index(e.Payload, []byte(`"occurred_at":"`)) + len(`"occurred_at":"`)
		want := []string{
			"ce_specversion: 1.0",
			"ce_id: " + e.Event.ID.String(),
			"ce_source: /llm-gateway/01890a5d-ac96-774b-bcce-b302099a8057",
			"ce_type: llm.usage.reserve.v1",
			"ce_time: " + string(e.Payload[at:at+len("2026-08-21T12:00:00.000000Z")]),
			"ce_subject: " + e.Event.Account,
			"content-type: application/json",
			"ledger_seq: " + e.Event.Position().String()[2:],
			"ledger_hash: " + hex.EncodeToString(e.Hash[:]),
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("headers are\n%s\nand must be\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// TestRecordRound: what is written is what is read.
func TestRecordRound(t *testing.T) {
	t.Parallel()
	for _, e := range golden(t) {
		got, err := decode(ledgerID, encode(ledgerID, &e)).Event()
		if err != nil {
			t.Fatal(err)
		}
		if got.Hash != e.Hash || !bytes.Equal(got.Payload, e.Payload) || got.Event.Position() != e.Event.Position() || got.Event.ID != e.Event.ID {
			t.Errorf("%s came back as %s", e.Event.Position(), got.Event.Position())
		}
	}
}

// set changes a header.
func set(name, value string) func(*kgo.Record) {
	return func(r *kgo.Record) {
		for i, h := range r.Headers {
			if h.Key == name {
				r.Headers[i].Value = []byte(value)
			}
		}
	}
}

// drop takes a header away.
func drop(name string) func(*kgo.Record) {
	return func(r *kgo.Record) {
		for i, h := range r.Headers {
			if h.Key == name {
				r.Headers = append(r.Headers[:i:i], r.Headers[i+1:]...)
				return
			}
		}
	}
}

// twice says a header once more.
func twice(name string) func(*kgo.Record) {
	return func(r *kgo.Record) {
		for _, h := range r.Headers {
			if h.Key == name {
				r.Headers = append(r.Headers, h)
				return
			}
		}
	}
}

// hostile are records that contradict themselves, each in one way.
var hostile = map[string]func(*kgo.Record){
	"no value":       func(r *kgo.Record) { r.Value = nil },
	"no JSON":        func(r *kgo.Record) { r.Value = []byte("{") },
	"another JSON":   func(r *kgo.Record) { r.Value = []byte("[]") },
	"a longer value": func(r *kgo.Record) { r.Value = append(bytes.Clone(r.Value), " x"...) },
	"too long a value": func(r *kgo.Record) {
		r.Value = append(bytes.Clone(r.Value), bytes.Repeat([]byte(" "), domain.MaxPayload)...)
	},
	"another partition":    func(r *kgo.Record) { r.Partition++ },
	"a negative partition": func(r *kgo.Record) { r.Partition = -1 },
	"another key":          func(r *kgo.Record) { r.Key = append(r.Key, 'x') },
	"no key":               func(r *kgo.Record) { r.Key = nil },
	"no headers":           func(r *kgo.Record) { r.Headers = nil },
	"another seq":          set(headerSeq, "1000000"),
	"seq 0":                set(headerSeq, "0"),
	"a negative seq":       set(headerSeq, "-1"),
	"a blank seq":          set(headerSeq, ""),
	"a great seq":          set(headerSeq, "9223372036854775808"),
	"no hash":              set(headerHash, ""),
	"a short hash":         set(headerHash, strings.Repeat("ab", 31)),
	"a long hash":          set(headerHash, strings.Repeat("ab", 33)),
	"a hash that is none":  set(headerHash, strings.Repeat("xy", 32)),
	"a hash in capitals":   set(headerHash, strings.Repeat("AB", 32)),
	"a hash of zeros":      set(headerHash, strings.Repeat("00", 32)),
	"another ledger":       set(headerSource, Source(uuid.Nil)),
	"another version":      set(headerVersion, "0.3"),
	"another id":           set(headerID, uuid.Nil.String()),
	"another type":         set(headerType, "llm.usage.debit.v2"),
	"another time":         set(headerTime, "2026-08-21T12:00:00Z"),
	"another subject":      set(headerSubject, "somebody"),
	"another content":      set(headerContent, "text/plain"),
}

func TestHostileRecords(t *testing.T) {
	t.Parallel()
	cases := maps.Clone(hostile)
	event := golden(t)[0]
	for _, a := range attributes(ledgerID, &event.Event, event.Hash) {
		cases["without "+a.name] = drop(a.name)
		cases["twice "+a.name] = twice(a.name)
		cases["upper "+a.name] = func(r *kgo.Record) {
			drop(a.name)(r)
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: strings.ToUpper(a.name), Value: []byte(a.value)})
		}
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, e := range golden(t) {
				r := encode(ledgerID, &e)
				change(r)
				if _, err := decode(ledgerID, r).Event(); err == nil {
					t.Errorf("the record of %s is taken", e.Event.Kind)
				}
			}
		})
	}
}

// TestOtherHeaders: what stands between may add headers; they mean nothing.
func TestOtherHeaders(t *testing.T) {
	t.Parallel()
	e := golden(t)[0]
	r := encode(ledgerID, &e)
	r.Headers = append(r.Headers, kgo.RecordHeader{Key: "traceparent", Value: []byte("00-1")}, kgo.RecordHeader{})
	if _, err := decode(ledgerID, r).Event(); err != nil {
		t.Error(err)
	}
}

func TestForeignLedger(t *testing.T) {
	t.Parallel()
	e := golden(t)[0]
	if _, err := decode(uuid.New(), encode(ledgerID, &e)).Event(); !errors.Is(err, ErrMismatch) {
		t.Errorf("another ledger's record: %v", err)
	}
}

// TestRecordByHand: a record that was not read has only its fields to be held against.
func TestRecordByHand(t *testing.T) {
	t.Parallel()
	e := golden(t)[0]
	r := &Record{Shard: e.Event.Shard, Key: e.Event.Account, Seq: e.Event.Seq, Hash: e.Hash, Payload: e.Payload}
	if got, err := r.Event(); err != nil || got.Hash != e.Hash {
		t.Errorf("%v, %v", got.Event.Position(), err)
	}
	r.Seq++
	if _, err := r.Event(); err == nil {
		t.Error("another seq is taken")
	}
}

// TestAnyRecord: whatever a record holds, it is an error or the event that it came from, and no panic.
func TestAnyRecord(t *testing.T) {
	t.Parallel()
	events := golden(t)
	rapid.Check(t, func(t *rapid.T) {
		e := rapid.SampledFrom(events).Draw(t, "event")
		r := encode(ledgerID, &e)
		if rapid.Bool().Draw(t, "value") {
			r.Value = mangle(t, r.Value)
		}
		if rapid.Bool().Draw(t, "key") {
			r.Key = mangle(t, r.Key)
		}
		h := &r.Headers[rapid.IntRange(0, len(r.Headers)-1).Draw(t, "header")]
		h.Value = mangle(t, h.Value)
		got, err := decode(ledgerID, r).Event()
		if err == nil && (got.Event.Position() != e.Event.Position() || got.Event.ID != e.Event.ID || string(r.Key) != got.Event.Account) {
			t.Fatalf("the record of %s was taken for %s", e.Event.Position(), got.Event.Position())
		}
	})
}

// mangle replaces a part of some bytes by others.
func mangle(t *rapid.T, b []byte) []byte {
	from := rapid.IntRange(0, len(b)).Draw(t, "from")
	to := rapid.IntRange(from, len(b)).Draw(t, "to")
	return bytes.Join([][]byte{b[:from], rapid.SliceOfN(rapid.Byte(), 0, 8).Draw(t, "bytes"), b[to:]}, nil)
}

// TestParseSeq: a seq is written in one way only.
func TestParseSeq(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"1": 1, "9223372036854775807": 1<<63 - 1,
		"": 0, "0": 0, "-1": 0, "+1": 0, "01": 0, " 1": 0, "1 ": 0, "1e3": 0, "0x1": 0, "1_0": 0, "9223372036854775808": 0,
	} {
		if got := parseSeq(text); got != want {
			t.Errorf("%q is seq %d, want %d", text, got, want)
		}
	}
}
