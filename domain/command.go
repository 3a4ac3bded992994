package domain

import (
	"errors"
	"time"

	"github.com/google/uuid"
)

// The answers of a ledger that decided nothing; all are part of the contract of appending.
var (
	// ErrUnavailable says that the ledger could not be reached. What was asked may or may not have
	// happened: the same command, asked again, is answered with its first outcome.
	ErrUnavailable = errors.New("ledger unavailable")
	// ErrOverloaded says that too many commands wait already; nothing happened.
	ErrOverloaded = errors.New("ledger overloaded")
	// ErrUnstorable says that no ledger can hold what was asked: nothing happened, nor ever will.
	ErrUnstorable = errors.New("the ledger cannot store this")
)

// Command asks the ledger for something to happen to one account. ID is minted by CommandID before
// the first try and kept over all tries: a command whose id is already in the ledger is not decided
// again but answered with its first outcome.
type Command struct {
	ID      uuid.UUID
	Account string
	Op      Op
	// SpooledAt is when the command was written to a journal, because the ledger was away; its events
	// say so. Zero: it was not.
	SpooledAt time.Time
}

// Op is what a command does; one type per operation.
type Op interface {
	// Request is the request the operation belongs to, or uuid.Nil.
	Request() uuid.UUID
	// Key is the reference that makes the operation happen once per account, or "".
	Key() string
}

// Open opens the account with one credit of Grant. On an open account it does nothing, successfully,
// so that however many first requests race, one grant is made.
type Open struct {
	Grant Amount
	Actor string
}

// Credit adds money; Reference makes it happen once.
type Credit struct {
	Amount Amount
	Data   MovementData
}

// Debit takes money out; beyond available only with Force.
type Debit struct {
	Amount Amount
	Data   MovementData
	Force  bool
}

// Configure freezes or unfreezes an account, or sets its credit limit.
type Configure struct{ Data AccountData }

// Reserve sets aside the most that a request can cost.
type Reserve struct {
	RequestID uuid.UUID
	Amount    Amount
	Data      ReserveData
}

// Settle charges a request and gives the rest of its reservation back. A Charge above the
// reservation is committed up to it, and the excess becomes a flagged overage. A reservation that has
// expired is charged by an overage, once. Response is kept beside the events, for whoever repeats the
// request with its idempotency key, and only where the reservation was settled; nil: nothing is kept.
type Settle struct {
	RequestID uuid.UUID
	Charge    Amount
	Data      CommitData
	Response  *Response
}

// Response is an answer as its client got it.
type Response struct {
	Body   []byte // of a stream: all events but the bill and [DONE]
	Broken bool   // a stream that ended with an error
}

// Spooled is a whole request that ran while the ledger was away: what it would have reserved, and what
// it cost.
type Spooled struct {
	RequestID uuid.UUID
	Amount    Amount // of the reserve
	Reserve   ReserveData
	Charge    Amount
	Commit    CommitData
}

// Release gives the whole reservation back.
type Release struct {
	RequestID uuid.UUID
	Reason    RefundReason
}

// Request implements Op.
func (Open) Request() uuid.UUID         { return uuid.Nil }
func (Credit) Request() uuid.UUID       { return uuid.Nil }    // Request implements Op.
func (Debit) Request() uuid.UUID        { return uuid.Nil }    // Request implements Op.
func (Configure) Request() uuid.UUID    { return uuid.Nil }    // Request implements Op.
func (RecordPrices) Request() uuid.UUID { return uuid.Nil }    // Request implements Op.
func (o Reserve) Request() uuid.UUID    { return o.RequestID } // Request implements Op.
func (o Settle) Request() uuid.UUID     { return o.RequestID } // Request implements Op.
func (o Release) Request() uuid.UUID    { return o.RequestID } // Request implements Op.
func (o Spooled) Request() uuid.UUID    { return o.RequestID } // Request implements Op.

// Key implements Op.
func (Open) Key() string         { return "" }
func (o Credit) Key() string     { return o.Data.Reference } // Key implements Op.
func (o Debit) Key() string      { return o.Data.Reference } // Key implements Op.
func (Configure) Key() string    { return "" }               // Key implements Op.
func (RecordPrices) Key() string { return "" }               // Key implements Op.
func (Reserve) Key() string      { return "" }               // Key implements Op.
func (Settle) Key() string       { return "" }               // Key implements Op.
func (Release) Key() string      { return "" }               // Key implements Op.
func (Spooled) Key() string      { return "" }               // Key implements Op.

// Recorded is an event in the ledger, with the hash that chains it.
type Recorded struct {
	Event   Event
	Payload []byte // the stored bytes; not to be changed
	Hash    Hash
}

// Outcome is the answer to a command that happened.
type Outcome struct {
	Events   []Recorded // in order; none where there was nothing to do
	Repeated bool       // it had happened before, and this is what happened then
	Account  Account    // the account after it; for a repeat, as it is now
}

// Position is that of the outcome's last event, or the zero Position.
func (o *Outcome) Position() Position {
	if len(o.Events) == 0 {
		return Position{}
	}
	return o.Events[len(o.Events)-1].Event.Position()
}

// Draft is an event before it has a place: what Decide answers.
type Draft struct {
	Kind      Kind
	RequestID uuid.UUID
	Amount    Amount
	Data      Data
}

// Stamp is what the writer knows and the rules do not: place, time, currency.
func (d Draft) Stamp(c Command, n int, at Event) Event {
	e := at
	e.Schema, e.ID, e.Kind, e.Account = EventSchema, EventID(c.ID, n), d.Kind, c.Account
	e.RequestID, e.Amount, e.Data = d.RequestID, d.Amount, spooled(d.Data, c.SpooledAt)
	e.Debit, e.Credit, _ = postings(d.Kind, c.Account) // Encode refuses a kind that has none
	return e
}
