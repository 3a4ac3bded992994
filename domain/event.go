package domain

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// EventSchema is the version of the event form that this release writes, and the newest it reads.
const EventSchema = 1

// MaxPayload bounds an encoded event, in bytes.
const MaxPayload = 64 << 10

// Kind says which movement an event is.
type Kind string

// The kinds of schema 1.
const (
	KindCredit  Kind = "credit"
	KindDebit   Kind = "debit"
	KindReserve Kind = "reserve"
	KindCommit  Kind = "commit"
	KindRefund  Kind = "refund"
	KindOverage Kind = "overage"
	KindAccount Kind = "account"
)

// The two platform accounts. They have no balance row: theirs is the sum over events.
const (
	PlatformFunding = "platform:funding"
	PlatformRevenue = "platform:revenue"
)

// AvailableOf and ReservedOf name the two balances of an account in postings.
func AvailableOf(account string) string { return "user:" + account + ":available" }

// ReservedOf is the balance that open reservations sit in.
func ReservedOf(account string) string { return "user:" + account + ":reserved" }

// Event is one immutable fact: exactly one movement of Amount from Debit to Credit.
type Event struct {
	Schema     int
	Shard      int32
	Seq        int64
	ID         uuid.UUID
	Kind       Kind
	Account    string
	RequestID  uuid.UUID // uuid.Nil: the event belongs to no request
	Debit      string
	Credit     string
	Amount     Amount
	Currency   string
	OccurredAt time.Time // UTC, whole microseconds
	Data       Data
}

// Position is where the event stands.
func (e *Event) Position() Position { return Position{e.Shard, e.Seq} }

// postings gives the two ends of a kind's movement.
func postings(k Kind, account string) (debit, credit string, err error) {
	switch k {
	case KindCredit:
		return PlatformFunding, AvailableOf(account), nil
	case KindDebit:
		return AvailableOf(account), PlatformFunding, nil
	case KindReserve:
		return AvailableOf(account), ReservedOf(account), nil
	case KindCommit:
		return ReservedOf(account), PlatformRevenue, nil
	case KindRefund:
		return ReservedOf(account), AvailableOf(account), nil
	case KindOverage:
		return AvailableOf(account), PlatformRevenue, nil
	case KindAccount:
		return AvailableOf(account), AvailableOf(account), nil
	}
	return "", "", fmt.Errorf("%w: kind %.40q", ErrEvent, string(k))
}

// ErrEvent is wrapped by everything that is wrong with an event itself.
var ErrEvent = errors.New("bad event")

// maxAccountName bounds an account's name, in bytes.
const maxAccountName = 128

// CheckAccount says whether a name may be an account: 1 to 128 of the characters that token
// subjects are made of. Control characters, blanks, quotes and non-ASCII are refused: the name goes
// into columns, keys, topics and logs.
func CheckAccount(name string) error {
	if name == "" || len(name) > maxAccountName {
		return fmt.Errorf("an account's name has 1 to %d characters, not %d", maxAccountName, len(name))
	}
	for i := range len(name) {
		if !isNameByte(name[i]) {
			return fmt.Errorf("an account's name is made of letters, digits and ._:|@/+=~-, not %.40q", name)
		}
	}
	return nil
}

// CheckOwner says whether a name may be the account of a person or a program: CheckAccount, and not reserved.
func CheckOwner(name string) error {
	if name == PricesAccount {
		return errors.New(PricesAccount + " is where prices are recorded: it is nobody's account")
	}
	return CheckAccount(name)
}

func isNameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		strings.IndexByte("._:|@/+=~-", c) >= 0
}

// CheckCurrency accepts an ISO 4217 style code: three capital letters.
func CheckCurrency(code string) error {
	if len(code) != 3 || strings.Trim(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		return fmt.Errorf("a currency is three capital letters, not %.40q", code)
	}
	return nil
}

// commandIDs is how many events one command can lead to; the low two bits of its id number them.
const commandIDs = 4

// CommandID turns a fresh UUIDv7 into a command's id by clearing its low two bits. The command's
// events have the ids EventID(id, 0), (id, 1), ...: minted before the first try, so that a repeat
// finds them.
func CommandID(v7 uuid.UUID) uuid.UUID {
	v7[15] &^= commandIDs - 1
	return v7
}

// EventID is the id of a command's n-th event.
func EventID(command uuid.UUID, n int) uuid.UUID {
	command[15] |= byte(n)
	return command
}
