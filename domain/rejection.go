package domain

import (
	"fmt"

	"github.com/google/uuid"
)

// Reject is why a command was refused. A rejection writes nothing and costs no other command.
type Reject string

// The reasons. Their texts are stable: they go into logs, metrics and `--json` output.
const (
	RejectAccountUnknown     Reject = "account_unknown"
	RejectAccountFrozen      Reject = "account_frozen"
	RejectInsufficientFunds  Reject = "insufficient_funds"
	RejectReservationUnknown Reject = "reservation_unknown"
	RejectReservationExists  Reject = "reservation_exists"
	RejectAlreadySettled     Reject = "already_settled"
	RejectReferenceReused    Reject = "reference_reused"
	RejectKeyInProgress      Reject = "key_in_progress" // the request that has the idempotency key still runs
	RejectKeyReused          Reject = "key_reused"      // it asked for something else
	RejectKeyAnswered        Reject = "key_answered"    // it was settled: its answer is this one's
	RejectPricesMoved        Reject = "prices_moved"    // another change of prices was recorded meanwhile
	RejectInvalid            Reject = "invalid_command"
)

// Rejection is the typed answer of Decide to a command that may not happen.
type Rejection struct {
	Reason    Reject
	Account   string
	Needed    Amount    // insufficient_funds: what was asked for
	Available Amount    // insufficient_funds: what could have been had, credit limit included
	RequestID uuid.UUID // key_*: the request that has the key
	Detail    string
}

func (r *Rejection) Error() string {
	switch {
	case r.Reason == RejectInsufficientFunds:
		return fmt.Sprintf("%s: %s needs %s and has %s", r.Reason, r.Account, r.Needed, r.Available)
	case r.Detail != "":
		return fmt.Sprintf("%s: %s: %s", r.Reason, r.Account, r.Detail)
	}
	return fmt.Sprintf("%s: %s", r.Reason, r.Account)
}
