package topic

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"llm-gateway/domain"
)

// The headers of a record: CloudEvents 1.0, binary mode, and where the event stands in its chain.
const (
	headerVersion = "ce_specversion"
	headerID      = "ce_id"
	headerSource  = "ce_source"
	headerType    = "ce_type"
	headerTime    = "ce_time"
	headerSubject = "ce_subject"
	headerContent = "content-type"
	headerSeq     = "ledger_seq"
	headerHash    = "ledger_hash"

	cloudEvents = "1.0"
	contentType = "application/json"

	// timeForm is how payloads write times.
	timeForm = "2006-01-02T15:04:05.000000Z"
)

// Source is the ce_source of a ledger's records.
func Source(ledger uuid.UUID) string { return "/llm-gateway/" + ledger.String() }

// eventType is the ce_type of a kind.
func eventType(k domain.Kind) string {
	return "llm.usage." + string(k) + ".v" + strconv.Itoa(domain.EventSchema)
}

// Record is one committed record of the topic, as it is there.
type Record struct {
	Shard   int32 // the partition
	Offset  int64
	Key     string
	Seq     int64       // header ledger_seq; 0 where it is not a position
	Hash    domain.Hash // header ledger_hash; zero where it is not a hash
	Source  string      // header ce_source
	Payload []byte

	read    bool // it was read from a topic, of this ledger, with these headers
	ledger  uuid.UUID
	headers []kgo.RecordHeader
}

// attribute is a header and what it must say.
type attribute struct{ name, value string }

// attributes are the headers of an event.
func attributes(ledger uuid.UUID, e *domain.Event, hash domain.Hash) [9]attribute {
	return [...]attribute{
		{headerVersion, cloudEvents},
		{headerID, e.ID.String()},
		{headerSource, Source(ledger)},
		{headerType, eventType(e.Kind)},
		{headerTime, e.OccurredAt.Format(timeForm)},
		{headerSubject, e.Account},
		{headerContent, contentType},
		{headerSeq, strconv.FormatInt(e.Seq, 10)},
		{headerHash, hex.EncodeToString(hash[:])},
	}
}

// encode makes the record of an event.
func encode(ledger uuid.UUID, r *domain.Recorded) *kgo.Record {
	out := &kgo.Record{Partition: r.Event.Shard, Key: []byte(r.Event.Account), Value: r.Payload}
	out.Headers = make([]kgo.RecordHeader, 0, 9)
	for _, a := range attributes(ledger, &r.Event, r.Hash) {
		out.Headers = append(out.Headers, kgo.RecordHeader{Key: a.name, Value: []byte(a.value)})
	}
	return out
}

// decode takes a record as it came. It may be anything: Event says what is wrong with it.
func decode(ledger uuid.UUID, r *kgo.Record) *Record {
	out := &Record{
		Shard: r.Partition, Offset: r.Offset, Key: string(r.Key), Payload: r.Value,
		read: true, ledger: ledger, headers: r.Headers,
	}
	for _, h := range r.Headers {
		switch h.Key {
		case headerSource:
			out.Source = string(h.Value)
		case headerSeq:
			out.Seq = parseSeq(string(h.Value))
		case headerHash:
			out.Hash = parseHash(h.Value)
		}
	}
	return out
}

// parseSeq reads a position's seq, as it is written and in no other way; 0 where it is none.
func parseSeq(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 1 || strconv.FormatInt(n, 10) != s {
		return 0
	}
	return n
}

// parseHash reads a hash in hex; zero where it is none.
func parseHash(b []byte) (h domain.Hash) {
	if len(b) != hex.EncodedLen(len(h)) {
		return domain.Hash{}
	}
	if _, err := hex.Decode(h[:], b); err != nil {
		return domain.Hash{}
	}
	return h
}

// Event decodes the payload and holds it against the record's key, partition and headers; another
// ledger's record is ErrMismatch. The hash is the header's: only who knows the hash before it can tell
// whether it is right. A record that was not read from a topic has no headers to hold against.
func (r *Record) Event() (domain.Recorded, error) {
	e, err := r.event()
	if err != nil {
		return domain.Recorded{}, fmt.Errorf("record %d of partition %d: %w", r.Offset, r.Shard, err)
	}
	return domain.Recorded{Event: *e, Payload: r.Payload, Hash: r.Hash}, nil
}

func (r *Record) event() (*domain.Event, error) {
	if r.read && r.Source != Source(r.ledger) {
		return nil, fmt.Errorf("%w: it is of %.80q, not of this ledger, %s", ErrMismatch, r.Source, Source(r.ledger))
	}
	if len(r.Payload) > domain.MaxPayload {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", domain.ErrEvent, len(r.Payload), domain.MaxPayload)
	}
	e, err := domain.Decode(r.Payload)
	switch {
	case err != nil:
		return nil, err
	case e.Shard != r.Shard:
		return nil, fmt.Errorf("its event is of shard %d", e.Shard)
	case e.Seq != r.Seq:
		return nil, fmt.Errorf("its event has seq %d, and the header says %d", e.Seq, r.Seq)
	case e.Account != r.Key:
		return nil, fmt.Errorf("its event is of account %s, and the key is %.80q", e.Account, r.Key)
	case !r.read:
		return e, nil
	case r.Hash == domain.Hash{}:
		return nil, errors.New("its ledger_hash is not a hash")
	}
	for _, a := range attributes(r.ledger, e, r.Hash) {
		if err := r.hold(a); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// hold checks that a header is there once and says what it must. Headers with other names are passed
// over: what stands between may add its own.
func (r *Record) hold(a attribute) error {
	found := 0
	for _, h := range r.headers {
		if h.Key != a.name {
			continue
		}
		if string(h.Value) != a.value {
			return fmt.Errorf("its header %s is %.80q, and must be %q", a.name, h.Value, a.value)
		}
		found++
	}
	if found != 1 {
		return fmt.Errorf("it has %d headers %s", found, a.name)
	}
	return nil
}
