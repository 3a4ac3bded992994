package domain

import (
	"cmp"
	"strings"

	"github.com/google/uuid"
)

// Validate refuses a command that no state of the books could accept: the writer asks before a
// command reaches a store, so that hostile text never does. The answer is nil or a *Rejection.
func (c Command) Validate() error {
	if detail := c.invalid(); detail != "" {
		return reject(c, RejectInvalid, detail)
	}
	if c.Op.Key() == OpeningReference {
		return reject(c, RejectReferenceReused, "the reference of the opening credit")
	}
	return nil
}

// invalid says what is wrong, or "".
func (c Command) invalid() string {
	if c.ID == uuid.Nil || c.ID != CommandID(c.ID) {
		return "the command's id was not minted by CommandID"
	}
	if err := CheckAccount(c.Account); err != nil {
		return err.Error()
	}
	if _, records := c.Op.(RecordPrices); records != (c.Account == PricesAccount) {
		return PricesAccount + " is where prices are recorded, and nothing else"
	}
	switch o := c.Op.(type) {
	case RecordPrices:
		return invalidRecord(&o.Data)
	case Open:
		if invalidActor(o.Actor) {
			return "who does it (actor) is mandatory"
		}
		return invalidAmount(o.Grant)
	case Credit:
		return invalidMovement(o.Amount, o.Data)
	case Debit:
		return invalidMovement(o.Amount, o.Data)
	case Configure:
		return invalidConfigure(o.Data)
	case Reserve:
		if invalidKey(o.Data.IdempotencyKey) {
			return "an idempotency key has at most 255 printable bytes"
		}
		return invalidRequest(o.RequestID, o.Amount)
	case Spooled:
		if o.Reserve.IdempotencyKey != "" {
			return "a request with an idempotency key cannot be spooled"
		}
		return cmp.Or(invalidRequest(o.RequestID, o.Amount), invalidAmount(o.Charge))
	case Settle:
		return invalidRequest(o.RequestID, o.Charge)
	case Release:
		if !o.Reason.valid() || o.Reason == RefundRemainder {
			return "not a reason to release a reservation"
		}
		return invalidRequest(o.RequestID, Zero)
	}
	return "no operation"
}

// invalidAmount refuses negative amounts, which would move money backwards, and what columns cannot
// hold.
func invalidAmount(a Amount) string {
	if a.Sign() < 0 || !a.InRange() {
		return "an amount is negative or out of range"
	}
	return ""
}

func invalidRequest(id uuid.UUID, amount Amount) string {
	if id == uuid.Nil {
		return "no request id"
	}
	return invalidAmount(amount)
}

func invalidMovement(amount Amount, d MovementData) string {
	switch {
	case amount.IsZero():
		return "an amount of 0 moves nothing"
	case d.Reference == "" || d.Reference != strings.TrimSpace(CleanText(d.Reference, MaxReference)):
		return "a reference of 1 to 200 printable bytes is mandatory"
	case invalidActor(d.Actor):
		return "who does it (actor) is mandatory"
	}
	if d.Corrects != "" {
		if _, err := ParsePosition(d.Corrects); err != nil {
			return err.Error()
		}
	}
	return invalidAmount(amount)
}

func invalidConfigure(d AccountData) string {
	switch {
	case d.Opened || d.Frozen == nil && d.CreditLimit == nil || d.Prices != nil:
		return "nothing is set"
	case invalidActor(d.Actor):
		return "who does it (actor) is mandatory"
	case d.CreditLimit != nil:
		return invalidAmount(*d.CreditLimit)
	}
	return ""
}

func invalidKey(key string) bool {
	return key != CleanText(key, MaxKey)
}

func invalidActor(actor string) bool {
	return actor == "" || actor != CleanText(actor, MaxForeignText)
}
