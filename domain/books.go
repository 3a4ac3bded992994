package domain

import (
	"errors"
	"fmt"

	"github.com/google/uuid"
)

// Account is what the events say of one account.
type Account struct {
	Name        string
	Available   Amount // what may still be reserved, before the credit limit
	Reserved    Amount // the sum of the open reservations
	CreditLimit Amount // how far below zero a reserve may take Available
	Frozen      bool   // refuses reserves, nothing else
	LastSeq     int64  // of the account's last event
}

// Spendable is what a reserve may take at most.
func (a *Account) Spendable() Amount { return a.Available.Add(a.CreditLimit) }

// ReservationState is where a reservation's life stands.
type ReservationState string

// A reservation is open, and then either settled (commit and perhaps refund) or released (refund).
const (
	ReservationOpen     ReservationState = "open"
	ReservationSettled  ReservationState = "settled"
	ReservationReleased ReservationState = "released"
)

// Reservation is the life of one request's money.
type Reservation struct {
	RequestID   uuid.UUID
	Account     string
	Amount      Amount // as reserved
	Held        Amount // what of it is still in reserved: Amount while open, 0 in the end
	State       ReservationState
	ReservedSeq int64
	SettledSeq  int64 // of the commit, or of the releasing refund; 0 while open
	Owner       uuid.UUID
}

// Reference is a credit's or debit's name: it makes it happen once per account.
type Reference struct{ Account, Key string }

// Use is what a reference was first used for.
type Use struct {
	ID     uuid.UUID
	Seq    int64
	Kind   Kind
	Amount Amount
}

// Books is the state that events of one shard add up to, or the part of it that was loaded. Decide
// reads it, Apply moves it on. It is not safe for concurrent use.
type Books struct {
	Accounts     map[string]*Account
	Reservations map[uuid.UUID]*Reservation
	References   map[Reference]Use
}

// NewBooks returns empty books.
func NewBooks() *Books {
	return &Books{
		Accounts:     map[string]*Account{},
		Reservations: map[uuid.UUID]*Reservation{},
		References:   map[Reference]Use{},
	}
}

// ErrImpossible is wrapped by Apply where an event cannot follow from the books: the history, or
// the books, are not what they should be.
var ErrImpossible = errors.New("impossible event")

func impossible(e *Event, format string, args ...any) error {
	return fmt.Errorf("%w at %s: %s of %s: %s", ErrImpossible, e.Position(), e.Kind, e.Account,
		fmt.Sprintf(format, args...))
}

// Apply adds one event to the books. The same function serves the writer, every replay and every
// check. It does not judge whether the event was wise (Decide did), only whether it is possible.
// On an error the books are as before.
func (b *Books) Apply(e *Event) error {
	if d, ok := e.Data.(*AccountData); ok {
		return b.applyAccount(e, d)
	}
	a := b.Accounts[e.Account]
	if a == nil {
		return impossible(e, "the account is not open")
	}
	if err := b.applyRequest(e, a); err != nil {
		return err
	}
	if d, ok := e.Data.(*MovementData); ok {
		ref := Reference{e.Account, d.Reference}
		if _, used := b.References[ref]; used {
			return impossible(e, "reference %q is used twice", d.Reference)
		}
		b.References[ref] = Use{ID: e.ID, Seq: e.Seq, Kind: e.Kind, Amount: e.Amount}
	}
	available, reserved := e.Change()
	a.Available, a.Reserved = a.Available.Add(available), a.Reserved.Add(reserved)
	a.LastSeq = e.Seq
	return nil
}

func (b *Books) applyAccount(e *Event, d *AccountData) error {
	a := b.Accounts[e.Account]
	switch {
	case d.Opened && a != nil:
		return impossible(e, "the account is open already")
	case !d.Opened && a == nil:
		return impossible(e, "the account is not open")
	case d.Opened:
		a = &Account{Name: e.Account}
		b.Accounts[e.Account] = a
	}
	if d.CreditLimit != nil {
		a.CreditLimit = *d.CreditLimit
	}
	if d.Frozen != nil {
		a.Frozen = *d.Frozen
	}
	a.LastSeq = e.Seq
	return nil
}

// applyRequest moves the event's reservation on, where the event belongs to a request.
func (b *Books) applyRequest(e *Event, a *Account) error {
	if !ofRequest(e.Kind) {
		return nil
	}
	r := b.Reservations[e.RequestID]
	if e.Kind == KindReserve {
		if r != nil {
			return impossible(e, "request %s is reserved already", e.RequestID)
		}
		b.Reservations[e.RequestID] = &Reservation{
			RequestID: e.RequestID, Account: e.Account, Amount: e.Amount, Held: e.Amount,
			State: ReservationOpen, ReservedSeq: e.Seq, Owner: e.Data.(*ReserveData).Owner,
		}
		return nil
	}
	if r == nil || r.Account != e.Account {
		return impossible(e, "request %s has no reservation", e.RequestID)
	}
	if e.Kind == KindOverage {
		return nil
	}
	if e.Amount.Cmp(r.Held) > 0 || e.Amount.Cmp(a.Reserved) > 0 {
		return impossible(e, "%s is more than the %s held", e.Amount, r.Held)
	}
	return r.settle(e)
}

// settle moves a reservation on by a commit or a refund.
func (r *Reservation) settle(e *Event) error {
	remainder := e.Kind == KindRefund && e.Data.(*RefundData).Reason == RefundRemainder
	switch {
	case remainder && (r.State != ReservationSettled || !e.Amount.Equal(r.Held) || e.Amount.IsZero()):
		return impossible(e, "a remainder of %s of a %s reservation that holds %s", e.Amount, r.State, r.Held)
	case !remainder && r.State != ReservationOpen:
		return impossible(e, "the reservation is %s already", r.State)
	case e.Kind == KindRefund && !e.Amount.Equal(r.Held):
		return impossible(e, "a refund of %s of a reservation that holds %s", e.Amount, r.Held)
	}
	r.Held = r.Held.Sub(e.Amount)
	switch {
	case e.Kind == KindCommit:
		r.State, r.SettledSeq = ReservationSettled, e.Seq
	case !remainder:
		r.State, r.SettledSeq = ReservationReleased, e.Seq
	}
	return nil
}
