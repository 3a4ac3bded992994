package domain

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// timeForm is RFC 3339 in UTC with six fractional digits, always.
const timeForm = "2006-01-02T15:04:05.000000Z"

// Encode writes an event, once, to the bytes that are stored, published and hashed: one JSON object
// with the fields in the order of schema 1 and no blanks; request_id is null where there is none.
// It refuses what could not be read back the same: an invalid field, a payload above MaxPayload.
func Encode(e *Event) ([]byte, error) {
	if err := checkEvent(e); err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	buf.Grow(1024)
	b := append(buf.AvailableBuffer(), `{"schema":`...)
	b = strconv.AppendInt(b, int64(e.Schema), 10)
	b = append(b, `,"shard":`...)
	b = strconv.AppendInt(b, int64(e.Shard), 10)
	b = append(b, `,"seq":`...)
	b = strconv.AppendInt(b, e.Seq, 10)
	b = appendText(b, "id", e.ID.String())
	b = appendText(b, "kind", string(e.Kind))
	b = appendText(b, "account", e.Account)
	if e.RequestID == uuid.Nil {
		b = append(b, `,"request_id":null`...)
	} else {
		b = appendText(b, "request_id", e.RequestID.String())
	}
	b = appendText(b, "debit", e.Debit)
	b = appendText(b, "credit", e.Credit)
	b = append(e.Amount.appendTo(append(b, `,"amount":"`...)), '"')
	b = appendText(b, "currency", e.Currency)
	b = append(b, `,"occurred_at":"`...)
	b = e.OccurredAt.AppendFormat(b, timeForm)
	b = append(b, `","data":`...)
	buf.Write(b)
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e.Data); err != nil {
		return nil, fmt.Errorf("%w: data: %w", ErrEvent, err)
	}
	out := append(bytes.TrimSuffix(buf.Bytes(), []byte("\n")), '}')
	if len(out) > MaxPayload {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrEvent, len(out), MaxPayload)
	}
	return out, nil
}

// appendText adds a field whose value needs no escaping: ids, kinds, checked names, amounts, codes.
func appendText(b []byte, name, value string) []byte {
	b = append(b, ',', '"')
	b = append(b, name...)
	b = append(b, '"', ':', '"')
	b = append(b, value...)
	return append(b, '"')
}

// checkEvent holds an event against the contract of its kind.
func checkEvent(e *Event) error {
	debit, credit, err := postings(e.Kind, e.Account)
	if err != nil {
		return err
	}
	if err := CheckAccount(e.Account); err != nil {
		return fmt.Errorf("%w: %w", ErrEvent, err)
	}
	switch {
	case e.Schema != EventSchema:
		return fmt.Errorf("%w: schema %d", ErrEvent, e.Schema)
	case e.Shard < 0 || e.Seq < 1:
		return fmt.Errorf("%w: position %s", ErrEvent, e.Position())
	case e.ID == uuid.Nil:
		return fmt.Errorf("%w: no id", ErrEvent)
	case e.Debit != debit || e.Credit != credit:
		return fmt.Errorf("%w: a %s moves %s to %s, not %.60q to %.60q", ErrEvent, e.Kind, debit, credit, e.Debit, e.Credit)
	case e.Amount.Sign() < 0 || !e.Amount.InRange():
		return fmt.Errorf("%w: amount %s", ErrEvent, e.Amount)
	case e.Kind == KindAccount && !e.Amount.IsZero():
		return fmt.Errorf("%w: an account event moves nothing, not %s", ErrEvent, e.Amount)
	case (e.RequestID == uuid.Nil) == ofRequest(e.Kind):
		return fmt.Errorf("%w: request id of a %s", ErrEvent, e.Kind)
	case CheckCurrency(e.Currency) != nil:
		return fmt.Errorf("%w: currency %.20q", ErrEvent, e.Currency)
	case e.Data == nil || e.Data.kind() != e.Kind:
		return fmt.Errorf("%w: data of another kind than %s", ErrEvent, e.Kind)
	case !e.OccurredAt.Equal(EventTime(e.OccurredAt)) || e.OccurredAt.Location() != time.UTC:
		return fmt.Errorf("%w: time %s is not UTC in microseconds", ErrEvent, e.OccurredAt)
	case e.OccurredAt.Year() < 0 || e.OccurredAt.Year() > 9999: // RFC 3339 has four digits
		return fmt.Errorf("%w: year %d", ErrEvent, e.OccurredAt.Year())
	}
	return checkData(e.Data)
}

// checkData refuses what could be written and then not be read back: an event like that, once in
// the ledger, would stop its shard for good.
func checkData(d Data) error {
	switch d := d.(type) {
	case *ReserveData:
		return checkLines(d.Bound.Lines)
	case *CommitData:
		return checkCommit(d)
	case *OverageData:
		return checkCommit(&d.CommitData)
	case *AccountData:
		if d.CreditLimit != nil && invalidAmount(*d.CreditLimit) != "" {
			return fmt.Errorf("%w: credit limit %s", ErrEvent, d.CreditLimit)
		}
	}
	return nil
}

func checkCommit(d *CommitData) error {
	if len(d.Usage) > 0 && (d.Usage[0] != '{' || !json.Valid(d.Usage)) {
		return fmt.Errorf("%w: the usage is no JSON object", ErrEvent)
	}
	for i, n := range d.Meters {
		if n < 0 {
			return fmt.Errorf("%w: %d of %s", ErrEvent, n, Meter(i))
		}
	}
	if err := checkLines(d.Lines); err != nil {
		return err
	}
	return checkLines(d.CostLines)
}

func checkLines(lines []Line) error {
	for i, l := range lines {
		if int(l.Meter) >= MeterCount || !l.UnitPrice.InRange() || !l.Amount.InRange() {
			return fmt.Errorf("%w: line %d: meter %d, %s at %s", ErrEvent, i, uint8(l.Meter), l.Amount, l.UnitPrice)
		}
	}
	return nil
}

// ofRequest says whether events of a kind belong to a request.
func ofRequest(k Kind) bool {
	switch k {
	case KindReserve, KindCommit, KindRefund, KindOverage:
		return true
	}
	return false
}

// wireEvent is the JSON form of an event, for reading.
type wireEvent struct {
	Schema     int             `json:"schema"`
	Shard      int32           `json:"shard"`
	Seq        int64           `json:"seq"`
	ID         uuid.UUID       `json:"id"`
	Kind       Kind            `json:"kind"`
	Account    string          `json:"account"`
	RequestID  *uuid.UUID      `json:"request_id"`
	Debit      string          `json:"debit"`
	Credit     string          `json:"credit"`
	Amount     *Amount         `json:"amount"` // a missing amount is not 0
	Currency   string          `json:"currency"`
	OccurredAt time.Time       `json:"occurred_at"`
	Data       json.RawMessage `json:"data"`
}

// Decode reads an encoded event. Fields it does not know are passed over (schema 1 may grow);
// a newer schema is ErrSchemaTooNew, so that an old release stops rather than misreads.
func Decode(payload []byte) (*Event, error) {
	e := decodeOwn(payload)
	if e == nil {
		var err error
		if e, err = decodeAny(payload); err != nil {
			return nil, err
		}
	}
	if err := checkEvent(e); err != nil {
		return nil, err
	}
	return e, nil
}

// decodeAny reads an event in any form of JSON.
func decodeAny(payload []byte) (*Event, error) {
	var w wireEvent
	if err := json.Unmarshal(payload, &w); err != nil {
		return nil, unreadable(payload, err)
	}
	switch {
	case w.Schema > EventSchema:
		return nil, fmt.Errorf("%w: schema %d", ErrSchemaTooNew, w.Schema)
	case w.Amount == nil:
		return nil, fmt.Errorf("%w: no amount", ErrEvent)
	case len(w.Data) == 0 || w.Data[0] != '{':
		return nil, fmt.Errorf("%w: no data", ErrEvent)
	}
	e := &Event{
		Schema: w.Schema, Shard: w.Shard, Seq: w.Seq, ID: w.ID, Kind: w.Kind, Account: w.Account,
		Debit: w.Debit, Credit: w.Credit, Amount: *w.Amount, Currency: w.Currency,
		OccurredAt: w.OccurredAt.UTC(), Data: emptyData(w.Kind),
	}
	if w.RequestID != nil {
		e.RequestID = *w.RequestID
	}
	if e.Data == nil {
		return nil, fmt.Errorf("%w: kind %.40q", ErrEvent, string(w.Kind))
	}
	if err := json.Unmarshal(w.Data, e.Data); err != nil {
		return nil, fmt.Errorf("%w: data: %w", ErrEvent, err)
	}
	return e, nil
}

// unreadable tells a form that a newer release has changed from one that is broken.
func unreadable(payload []byte, err error) error {
	var head struct {
		Schema int `json:"schema"`
	}
	if json.Unmarshal(payload, &head) == nil && head.Schema > EventSchema {
		return fmt.Errorf("%w: schema %d", ErrSchemaTooNew, head.Schema)
	}
	return fmt.Errorf("%w: %w", ErrEvent, err)
}

// ErrSchemaTooNew marks an event that a newer release wrote.
var ErrSchemaTooNew = fmt.Errorf("%w: written by a newer release", ErrEvent)

func emptyData(k Kind) Data {
	switch k {
	case KindCredit:
		return &MovementData{}
	case KindDebit:
		return &MovementData{debit: true}
	case KindReserve:
		return &ReserveData{}
	case KindCommit:
		return &CommitData{}
	case KindRefund:
		return &RefundData{}
	case KindOverage:
		return &OverageData{}
	case KindAccount:
		return &AccountData{}
	}
	return nil
}
