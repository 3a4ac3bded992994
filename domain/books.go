package domain

import (
	"errors"
	"fmt"
	"time"

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

// A reservation is open, and then either settled (commit and perhaps refund) or released (refund). One
// that was released because its owner had gone (expired) may still be charged, once, by an owner that
// comes back: then it is late.
const (
	ReservationOpen     ReservationState = "open"
	ReservationSettled  ReservationState = "settled"
	ReservationReleased ReservationState = "released"
	ReservationExpired  ReservationState = "expired"
	ReservationLate     ReservationState = "late"
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
	LateSeq     int64 // of the overage that charged it after it had expired; else 0
	Owner       uuid.UUID
	// SettledAt is when the event of SettledSeq occurred. It is loaded only where a Key is asked for.
	SettledAt time.Time
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
	Keys         map[Key]KeyUse
}

// NewBooks returns empty books.
func NewBooks() *Books {
	return &Books{
		Accounts:     map[string]*Account{},
		Reservations: map[uuid.UUID]*Reservation{},
		References:   map[Reference]Use{},
		Keys:         map[Key]KeyUse{},
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
	switch d := e.Data.(type) {
	case *ReserveData:
		return b.applyReserve(e, d, r)
	case *OverageData:
		if d.Reason == OverageSpooled {
			return b.applySpooled(e, r)
		}
	}
	if r == nil || r.Account != e.Account {
		return impossible(e, "request %s has no reservation", e.RequestID)
	}
	if d, ok := e.Data.(*OverageData); ok {
		return r.exceed(e, d)
	}
	if e.Amount.Cmp(r.Held) > 0 || e.Amount.Cmp(a.Reserved) > 0 {
		return impossible(e, "%s is more than the %s held", e.Amount, r.Held)
	}
	return r.settle(e)
}

func (b *Books) applyReserve(e *Event, d *ReserveData, r *Reservation) error {
	if r != nil {
		return impossible(e, "request %s is reserved already", e.RequestID)
	}
	if key, use, ok := KeyOf(e); ok {
		if first, free := b.holder(key, e.OccurredAt); !free {
			return impossible(e, "the idempotency key is that of request %s", first.RequestID)
		}
		b.Keys[key] = use
	}
	b.Reservations[e.RequestID] = &Reservation{
		RequestID: e.RequestID, Account: e.Account, Amount: e.Amount, Held: e.Amount,
		State: ReservationOpen, ReservedSeq: e.Seq, Owner: d.Owner,
	}
	return nil
}

// applySpooled books a charge that never had a reservation: one of nothing stands for it, so that it
// happens once and is found again.
func (b *Books) applySpooled(e *Event, r *Reservation) error {
	if r != nil {
		return impossible(e, "request %s is reserved already", e.RequestID)
	}
	b.Reservations[e.RequestID] = &Reservation{RequestID: e.RequestID, Account: e.Account, State: ReservationSettled,
		ReservedSeq: e.Seq, SettledSeq: e.Seq, SettledAt: e.OccurredAt}
	return nil
}

// exceed moves a reservation on by an overage: what a commit before it could not cover, or what is
// charged late.
func (r *Reservation) exceed(e *Event, d *OverageData) error {
	switch {
	case d.Reason == OverageLate && r.State != ReservationExpired:
		return impossible(e, "a late charge of a reservation that is %s", r.State)
	case d.Reason != OverageLate && r.State != ReservationSettled:
		return impossible(e, "an overage of a reservation that is %s", r.State)
	case d.Reason == OverageLate:
		r.State, r.LateSeq = ReservationLate, e.Seq
	}
	return nil
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
	if remainder {
		return nil
	}
	r.State, r.SettledSeq, r.SettledAt = ReservationReleased, e.Seq, e.OccurredAt
	switch d := e.Data.(type) {
	case *CommitData:
		r.State = ReservationSettled
	case *RefundData:
		if d.Reason == RefundExpired {
			r.State = ReservationExpired
		}
	}
	return nil
}
