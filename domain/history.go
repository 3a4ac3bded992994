package domain

import (
	"fmt"
	"time"
)

// What an audit looks at: events with what stood before them, and balances at past moments.

// Balances are an account's two balances at one moment.
type Balances struct{ Available, Reserved Amount }

// After is what an event makes of the balances.
func (b Balances) After(e *Event) Balances {
	available, reserved := e.Change()
	return Balances{b.Available.Add(available), b.Reserved.Add(reserved)}
}

// Past is an account at a past moment: what all its events up to then add up to.
type Past struct {
	Balances
	Position   Position  // of the account's last event by then; Seq 0: it had none
	OccurredAt time.Time // when that was
}

// Witnessed is a stored event with what stood before it.
type Witnessed struct {
	Recorded
	Previous *Hash    // the stored hash of the shard's event before, or its genesis; nil: that event is missing
	Before   Balances // what the account's earlier events add up to
	Column   Amount   // the amount beside the stored bytes, which balances are added up from
}

// After is the account's balances behind the event.
func (w *Witnessed) After() Balances { return w.Before.After(&w.Event) }

// ChainFault says what is wrong with the event's link of the hash chain, computed from the stored bytes and
// the stored hash before, or with the amount beside them, which no hash covers; "" where it is valid.
func (w *Witnessed) ChainFault() string {
	switch {
	case w.Previous == nil:
		return "the event before it is missing, so that its hash cannot be computed"
	case ChainHash(*w.Previous, w.Payload) != w.Hash:
		return "the hash is not that of the stored bytes and the hash before"
	case !w.Column.Equal(w.Event.Amount):
		return fmt.Sprintf("the column amount is %s, the stored bytes say %s", w.Column, w.Event.Amount)
	}
	return ""
}
