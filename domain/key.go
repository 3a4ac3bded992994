package domain

import (
	"time"

	"github.com/google/uuid"
)

// KeyTTL is how long an idempotency key is kept after the request that took it was settled.
const KeyTTL = 24 * time.Hour

// MaxKey bounds an idempotency key, in bytes.
const MaxKey = 255

// Key is a client's Idempotency-Key: it makes a request happen once per account.
type Key struct{ Account, Key string }

// KeyUse is the request that took a key last, and what that asked for.
type KeyUse struct {
	RequestID uuid.UUID
	Seq       int64 // of its reserve
	BodyHash  string
	Surface   string
	Stream    bool
}

// KeyOf tells the key that an event takes; false where it takes none.
func KeyOf(e *Event) (Key, KeyUse, bool) {
	d, ok := e.Data.(*ReserveData)
	if !ok || d.IdempotencyKey == "" {
		return Key{}, KeyUse{}, false
	}
	use := KeyUse{RequestID: e.RequestID, Seq: e.Seq, BodyHash: d.BodyHash, Surface: d.Surface, Stream: d.Stream}
	return Key{e.Account, d.IdempotencyKey}, use, true
}

// same says whether a request with the same key asks for the same.
func (u KeyUse) same(d *ReserveData) bool {
	return u.BodyHash == d.BodyHash && u.Surface == d.Surface && u.Stream == d.Stream
}

// holder finds the request that has a key at a time; free says that nobody has: it was never taken, its
// request gave everything back, or was settled longer ago than keys are kept.
func (b *Books) holder(k Key, at time.Time) (first KeyUse, free bool) {
	first, taken := b.Keys[k]
	if !taken {
		return first, true
	}
	r := b.Reservations[first.RequestID]
	switch {
	case r == nil: // books that were loaded in part have it; others are broken, and say so
		return first, false
	case r.State == ReservationOpen:
		return first, false
	case r.State == ReservationSettled:
		return first, !at.Before(r.SettledAt.Add(KeyTTL))
	}
	return first, true
}

// decideKey refuses a reserve whose key another request has.
func (b *Books) decideKey(c Command, d *ReserveData, at time.Time) error {
	if d.IdempotencyKey == "" {
		return nil
	}
	first, free := b.holder(Key{c.Account, d.IdempotencyKey}, at)
	if free {
		return nil
	}
	reason := RejectKeyAnswered
	switch r := b.Reservations[first.RequestID]; {
	case !first.same(d):
		reason = RejectKeyReused
	case r == nil || r.State == ReservationOpen:
		reason = RejectKeyInProgress
	}
	rejection := reject(c, reason, "")
	rejection.RequestID = first.RequestID
	return rejection
}
