package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
)

// codecVersion is the form of a command that this release writes, and the newest it reads.
const codecVersion = 1

var (
	// ErrUnfit says that a command cannot wait in a journal: its operation does not wait, it is too
	// long, or it could not be read back.
	ErrUnfit = errors.New("not for a journal")
	// ErrTooNew says that a newer release wrote what is there; an older one stops rather than misreads.
	ErrTooNew = errors.New("written by a newer release")
)

// The operations that may wait: what ends a request that has run, or tells all of one. Whatever asks
// for an answer before something happens cannot.
const (
	opSettle  = "settle"
	opRelease = "release"
	opSpooled = "spooled"
)

// wireHead is what the JSON form of a command begins with; `data` follows.
type wireHead struct {
	Version   int       `json:"v"`
	ID        uuid.UUID `json:"id"`
	Account   string    `json:"account"`
	SpooledAt time.Time `json:"spooled_at"`
	Op        string    `json:"op"`
}

// The data of the operations. Amounts are pointers because one that is missing is not 0.
type (
	wireSettle struct {
		RequestID uuid.UUID         `json:"request_id"`
		Charge    *domain.Amount    `json:"charge"`
		Commit    domain.CommitData `json:"commit"`
		Response  *wireResponse     `json:"response,omitempty"`
	}
	wireResponse struct {
		Body   []byte `json:"body"`
		Broken bool   `json:"broken"`
	}
	wireRelease struct {
		RequestID uuid.UUID           `json:"request_id"`
		Reason    domain.RefundReason `json:"reason"`
	}
	wireSpooled struct {
		RequestID uuid.UUID          `json:"request_id"`
		Amount    *domain.Amount     `json:"amount"`
		Reserve   domain.ReserveData `json:"reserve"`
		Charge    *domain.Amount     `json:"charge"`
		Commit    domain.CommitData  `json:"commit"`
	}
)

// encode writes a command so that decode gives one that leads to the same events, byte for byte. Text
// that is not UTF-8 comes back with U+FFFD, which is also what events would say. What decode would not
// read is refused here: a record that nobody can read would keep the journal from being opened.
func encode(c domain.Command) ([]byte, error) {
	op, data, err := wireOp(c.Op)
	if err != nil {
		return nil, err
	}
	b, err := marshal(struct {
		wireHead

		Data any `json:"data"`
	}{wireHead{codecVersion, c.ID, c.Account, c.SpooledAt, op}, data})
	if err == nil && len(b) > maxRecord {
		err = fmt.Errorf("%d bytes, more than %d", len(b), maxRecord)
	}
	if err == nil {
		_, err = decode(b)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnfit, err)
	}
	return b, nil
}

// marshal is json.Marshal without the escapes for HTML, which cost room.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func wireOp(op domain.Op) (name string, data any, err error) {
	switch o := op.(type) {
	case domain.Settle:
		w := wireSettle{RequestID: o.RequestID, Charge: &o.Charge, Commit: o.Data}
		if o.Response != nil {
			w.Response = &wireResponse{o.Response.Body, o.Response.Broken}
		}
		return opSettle, w, checkLines(o.Data.Lines, o.Data.CostLines)
	case domain.Release:
		return opRelease, wireRelease(o), nil
	case domain.Spooled:
		w := wireSpooled{o.RequestID, &o.Amount, o.Reserve, &o.Charge, o.Commit}
		return opSpooled, w, checkLines(o.Reserve.Bound.Lines, o.Commit.Lines, o.Commit.CostLines)
	}
	return "", nil, fmt.Errorf("%w: a %T", ErrUnfit, op)
}

// checkLines refuses meters that have no name: encoding one would panic.
func checkLines(all ...[]domain.Line) error {
	for _, lines := range all {
		for _, l := range lines {
			if int(l.Meter) >= domain.MeterCount {
				return fmt.Errorf("%w: meter %d", ErrUnfit, uint8(l.Meter))
			}
		}
	}
	return nil
}

// decode reads a command. Unlike an event's, its unknown fields are an error: what this release would
// drop would be missing in the ledger for ever.
func decode(b []byte) (domain.Command, error) {
	var w struct {
		wireHead

		Data json.RawMessage `json:"data"`
	}
	if err := strictly(b, &w); err != nil || w.Version != codecVersion {
		return domain.Command{}, unreadable(b, err)
	}
	op, err := readOp(w.Op, w.Data)
	if err != nil {
		return domain.Command{}, err
	}
	c := domain.Command{ID: w.ID, Account: w.Account, Op: op, SpooledAt: domain.EventTime(w.SpooledAt)}
	if c.SpooledAt.IsZero() {
		return domain.Command{}, errors.New("a command that was never spooled")
	}
	return c, c.Validate()
}

// unreadable tells a form that a newer release has changed from one that is broken.
func unreadable(b []byte, err error) error {
	var head struct {
		Version int `json:"v"`
	}
	switch {
	case json.Unmarshal(b, &head) == nil && head.Version > codecVersion:
		return fmt.Errorf("%w: version %d of a command", ErrTooNew, head.Version)
	case err == nil:
		return fmt.Errorf("version %d of a command", head.Version)
	}
	return err
}

// strictly reads one JSON value and nothing else.
func strictly(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more behind the end")
	}
	return nil
}

var errNoAmount = errors.New("an amount is missing")

func readOp(name string, data []byte) (domain.Op, error) {
	switch name {
	case opSettle:
		var w wireSettle
		if err := strictly(data, &w); err != nil {
			return nil, err
		}
		if w.Charge == nil {
			return nil, errNoAmount
		}
		o := domain.Settle{RequestID: w.RequestID, Charge: *w.Charge, Data: w.Commit}
		if w.Response != nil {
			o.Response = &domain.Response{Body: w.Response.Body, Broken: w.Response.Broken}
		}
		return o, nil
	case opRelease:
		var w wireRelease
		err := strictly(data, &w)
		return domain.Release(w), err
	case opSpooled:
		var w wireSpooled
		if err := strictly(data, &w); err != nil {
			return nil, err
		}
		if w.Amount == nil || w.Charge == nil {
			return nil, errNoAmount
		}
		return domain.Spooled{RequestID: w.RequestID, Amount: *w.Amount, Reserve: w.Reserve, Charge: *w.Charge, Commit: w.Commit}, nil
	}
	return nil, fmt.Errorf("operation %.40q", name)
}
