package domain

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/google/uuid"
)

// ownForm reads JSON that is in exactly the form in which it is written here, and gives up on any other: that
// is for package encoding/json to read, or to refuse. Nearly all events are in it, and everybody who follows
// the ledger reads each of them.
type ownForm struct {
	rest   []byte
	failed bool
}

// literal passes over a text that must be next.
func (f *ownForm) literal(text string) {
	rest, found := bytes.CutPrefix(f.rest, []byte(text))
	f.rest, f.failed = rest, f.failed || !found
}

// number reads a whole number that is not negative.
func (f *ownForm) number(bits int) int64 {
	digits := 0
	for digits < len(f.rest) && f.rest[digits] >= '0' && f.rest[digits] <= '9' {
		digits++
	}
	n, err := strconv.ParseInt(string(f.rest[:digits]), 10, bits)
	f.failed = f.failed || err != nil || digits > 1 && f.rest[0] == '0'
	f.rest = f.rest[digits:]
	return n
}

// text reads a string of printable ASCII without escapes, up to and with its closing quote.
func (f *ownForm) text() string {
	for i, c := range f.rest {
		switch {
		case c == '"':
			text := string(f.rest[:i])
			f.rest = f.rest[i+1:]
			return text
		case c < ' ' || c > '~' || c == '\\':
			f.failed = true
			return ""
		}
	}
	f.failed = true
	return ""
}

// id reads a UUID.
func (f *ownForm) id() uuid.UUID {
	id, err := uuid.Parse(f.text())
	f.failed = f.failed || err != nil
	return id
}

// decodeOwn reads an event in exactly the form of Encode; nil for any other. The data is the rest of the
// payload: were it followed by anything, it would not be one JSON object.
func decodeOwn(payload []byte) *Event {
	f, e := ownForm{rest: payload}, &Event{Schema: EventSchema}
	f.literal(`{"schema":1,"shard":`)
	e.Shard = int32(f.number(32))
	f.literal(`,"seq":`)
	e.Seq = f.number(64)
	f.literal(`,"id":"`)
	e.ID = f.id()
	f.literal(`,"kind":"`)
	e.Kind = Kind(f.text())
	f.literal(`,"account":"`)
	e.Account = f.text()
	f.literal(`,"request_id":`)
	if ofRequest(e.Kind) {
		f.literal(`"`)
		e.RequestID = f.id()
	} else {
		f.literal(`null`)
	}
	f.literal(`,"debit":"`)
	e.Debit = f.text()
	f.literal(`,"credit":"`)
	e.Credit = f.text()
	f.literal(`,"amount":"`)
	amount, failed := ParseAmount(f.text())
	f.literal(`,"currency":"`)
	e.Currency = f.text()
	f.literal(`,"occurred_at":"`)
	failedTime := e.OccurredAt.UnmarshalText([]byte(f.text()))
	f.literal(`,"data":{`)
	e.Amount, e.OccurredAt, e.Data = amount, e.OccurredAt.UTC(), emptyData(e.Kind)
	if f.failed || failed != nil || failedTime != nil || e.Data == nil {
		return nil
	}
	data := payload[len(payload)-len(f.rest)-1:]
	if json.Unmarshal(data[:len(data)-1], e.Data) != nil || data[len(data)-1] != '}' {
		return nil
	}
	return e
}

// ownMeters reads meters in exactly the form in which they are written; false for any other.
func ownMeters(b []byte) (m Meters, ok bool) {
	f := ownForm{rest: b}
	separator := `{"`
	for i := range m {
		f.literal(separator)
		f.literal(meterNames[i])
		f.literal(`":`)
		m[i] = f.number(64)
		separator = `,"`
	}
	f.literal("}")
	return m, !f.failed && len(f.rest) == 0
}
