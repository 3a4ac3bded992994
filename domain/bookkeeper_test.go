package domain

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"
)

// fataler is what *testing.T and *rapid.T have in common.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// tally is what one account's events add up to, kept without the books: the second opinion.
type tally struct {
	credits, debits, commits, overages Amount
	held                               map[uuid.UUID]Amount
}

// bookkeeper is a writer in miniature: it asks, stamps, encodes, decodes and applies as package
// ledger does, and after every command holds the books against its own sums. It fails the test at
// the first difference, so whoever drives it need not look.
type bookkeeper struct {
	t        fataler
	books    *Books
	events   []*Event // as decoded from payloads
	payloads [][]byte
	tallies  map[string]*tally
	settled  map[uuid.UUID]int // how often a request was committed, released, or charged without a reserve
	late     map[uuid.UUID]int // how often it was charged after that
	commands uint64
	later    time.Duration // what the clock has been moved on by
	spooled  time.Time     // when the commands of do were written to a journal; zero: they were not
}

// now is when the next event occurs: a microsecond after the one before.
func (k *bookkeeper) now() time.Time {
	return time.UnixMicro(1_800_000_000_000_000 + int64(len(k.events)+1)).UTC().Add(k.later)
}

func newBookkeeper(t fataler) *bookkeeper {
	return &bookkeeper{t: t, books: NewBooks(), tallies: map[string]*tally{}, settled: map[uuid.UUID]int{}, late: map[uuid.UUID]int{}}
}

// commandID mints ids that are UUIDv7 in form and the same in every run.
func (k *bookkeeper) commandID() uuid.UUID {
	k.commands++
	id := uuid.UUID{6: 0x70, 8: 0x80}
	binary.BigEndian.PutUint32(id[12:], uint32(k.commands*commandIDs))
	return CommandID(id)
}

// did is the answer to a command: events, or the first use it repeats, or an error.
type did struct {
	events []*Event
	repeat *Use
	err    error
}

func (k *bookkeeper) do(account string, op Op) did {
	return k.command(Command{ID: k.commandID(), Account: account, Op: op, SpooledAt: k.spooled})
}

// command decides in the order in which package ledger does: validate, look for a first use, decide.
func (k *bookkeeper) command(c Command) did {
	k.t.Helper()
	if err := c.Validate(); err != nil {
		k.checkRejection(err)
		if _, decided := k.books.Decide(c, k.now()); fmt.Sprint(decided) != err.Error() {
			k.t.Fatalf("Validate says %v, Decide %v", err, decided)
		}
		return did{err: err}
	}
	if use, repeats := k.books.FirstUse(c); repeats {
		return did{repeat: &use}
	}
	drafts, err := k.decide(c)
	if err != nil {
		return did{err: err}
	}
	return k.append(c, drafts)
}

// decide checks that Decide is pure: neither the books nor the command change, and asking twice
// gives the same answer.
func (k *bookkeeper) decide(c Command) ([]Draft, error) {
	k.t.Helper()
	books, command := k.books.text(), jsonText(c)
	drafts, err := k.books.Decide(c, k.now())
	again, errAgain := k.books.Decide(c, k.now())
	switch {
	case k.books.text() != books:
		k.t.Fatalf("Decide changed the books from\n%sto\n%s", books, k.books.text())
	case jsonText(c) != command:
		k.t.Fatalf("Decide changed the command from %s to %s", command, jsonText(c))
	case jsonText(drafts) != jsonText(again) || fmt.Sprint(err) != fmt.Sprint(errAgain):
		k.t.Fatalf("Decide answers %s %v, then %s %v", jsonText(drafts), err, jsonText(again), errAgain)
	case err != nil && drafts != nil:
		k.t.Fatalf("drafts beside %v", err)
	case err != nil:
		k.checkRejection(err)
	}
	return drafts, err
}

// checkRejection: a refusal is typed, and fit for a log line whatever the command held.
func (k *bookkeeper) checkRejection(err error) {
	k.t.Helper()
	if _, ok := errors.AsType[*Rejection](err); !ok {
		k.t.Fatalf("not a Rejection: %v", err)
	}
	if text := err.Error(); len(text) > 1024 || strings.ContainsFunc(text, unicode.IsControl) {
		k.t.Fatalf("a rejection's text of %d bytes: %.2000q", len(text), text)
	}
}

// append writes a command's drafts, all or none.
func (k *bookkeeper) append(c Command, drafts []Draft) did {
	k.t.Helper()
	var payloads [][]byte
	at := k.now()
	for n, d := range drafts {
		seq := int64(len(k.events) + n + 1)
		e := d.Stamp(c, n, Event{Shard: 3, Seq: seq, Currency: "USD", OccurredAt: at})
		payload, err := Encode(&e)
		if err != nil {
			return did{err: reject(c, RejectInvalid, err.Error())}
		}
		payloads = append(payloads, payload)
	}
	done := did{}
	for _, payload := range payloads {
		e, err := Decode(payload)
		if err != nil {
			k.t.Fatalf("%s was encoded and cannot be decoded: %v", payload, err)
		}
		if again, err := Encode(e); err != nil || !bytes.Equal(again, payload) {
			k.t.Fatalf("%s\nwas encoded again as\n%s %v", payload, again, err)
		}
		if err := k.books.Apply(e); err != nil {
			k.t.Fatalf("decided and impossible: %v", err)
		}
		k.count(e)
		done.events = append(done.events, e)
	}
	k.events = append(k.events, done.events...)
	k.payloads = append(k.payloads, payloads...)
	k.check(done.events)
	return done
}

// count keeps the second opinion, from what events are defined to mean.
func (k *bookkeeper) count(e *Event) {
	t := k.tallies[e.Account]
	if t == nil {
		t = &tally{held: map[uuid.UUID]Amount{}}
		k.tallies[e.Account] = t
	}
	held := t.held[e.RequestID]
	switch d := e.Data.(type) {
	case *MovementData:
		if e.Kind == KindCredit {
			t.credits = t.credits.Add(e.Amount)
		} else {
			t.debits = t.debits.Add(e.Amount)
		}
	case *ReserveData:
		t.held[e.RequestID] = held.Add(e.Amount)
	case *CommitData:
		t.commits = t.commits.Add(e.Amount)
		t.held[e.RequestID] = held.Sub(e.Amount)
		k.settled[e.RequestID]++
	case *RefundData:
		t.held[e.RequestID] = held.Sub(e.Amount)
		if d.Reason != RefundRemainder {
			k.settled[e.RequestID]++
		}
	case *OverageData:
		t.overages = t.overages.Add(e.Amount)
		switch d.Reason {
		case OverageSpooled:
			k.settled[e.RequestID]++
		case OverageLate:
			if k.late[e.RequestID]++; k.late[e.RequestID] > 1 {
				k.t.Fatalf("request %s is charged late %d times", e.RequestID, k.late[e.RequestID])
			}
		}
	}
}

// check holds the invariants of package domain after a command that led to events.
func (k *bookkeeper) check(events []*Event) {
	k.t.Helper()
	held := k.checkReservations()
	for name, a := range k.books.Accounts {
		t := k.tallies[name]
		sum := t.credits.Sub(t.debits).Sub(t.commits).Sub(t.overages)
		counted := Zero
		for _, h := range t.held {
			counted = counted.Add(h)
		}
		switch {
		case a.Reserved.Sign() < 0:
			k.t.Fatalf("%s: reserved is %s", name, a.Reserved)
		case !a.Reserved.Equal(held[name]) || !a.Reserved.Equal(counted):
			k.t.Fatalf("%s: reserved %s, open reservations %s, by events %s", name, a.Reserved, held[name], counted)
		case !a.Available.Add(a.Reserved).Equal(sum):
			k.t.Fatalf("%s: available %s + reserved %s, but its events sum to %s", name, a.Available, a.Reserved, sum)
		case !a.Available.InRange() || !a.Reserved.InRange():
			k.t.Fatalf("%s: available %s, reserved %s: out of range", name, a.Available, a.Reserved)
		case a.CreditLimit.Sign() < 0:
			k.t.Fatalf("%s: a credit limit of %s", name, a.CreditLimit)
		}
	}
	spooled := len(events) > 1 && events[0].Kind == KindReserve // and settled, perhaps beyond its bound
	for _, e := range events {
		a := k.books.Accounts[e.Account]
		if e.Kind == KindReserve && !spooled && e.Amount.Sign() > 0 && a.Spendable().Sign() < 0 {
			k.t.Fatalf("a reserve took %s to %s with a credit limit of %s", a.Name, a.Available, a.CreditLimit)
		}
		if k.settled[e.RequestID] > 1 {
			k.t.Fatalf("request %s is settled %d times", e.RequestID, k.settled[e.RequestID])
		}
	}
}

// checkReservations sums what open reservations hold, by account.
func (k *bookkeeper) checkReservations() map[string]Amount {
	k.t.Helper()
	held := map[string]Amount{}
	for id, r := range k.books.Reservations {
		open := r.State == ReservationOpen
		switch {
		case open != (k.settled[id] == 0) || open != (r.SettledSeq == 0):
			k.t.Fatalf("request %s is %s at %d after %d settlements", id, r.State, r.SettledSeq, k.settled[id])
		case (r.State == ReservationLate) != (k.late[id] == 1) || (r.LateSeq != 0) != (k.late[id] == 1):
			k.t.Fatalf("request %s is %s at %d after %d late charges", id, r.State, r.LateSeq, k.late[id])
		case open && !r.Held.Equal(r.Amount), !open && !r.Held.IsZero():
			k.t.Fatalf("request %s of %s is %s and holds %s", id, r.Amount, r.State, r.Held)
		}
		held[r.Account] = held[r.Account].Add(r.Held)
	}
	return held
}

// rebuilt replays the payloads into empty books.
func (k *bookkeeper) rebuilt() *Books {
	k.t.Helper()
	b := NewBooks()
	for _, p := range k.payloads {
		e, err := Decode(p)
		if err == nil {
			err = b.Apply(e)
		}
		if err != nil {
			k.t.Fatalf("replay: %v", err)
		}
	}
	return b
}

// text is the books as text, equal exactly where the books are: amounts in canonical form.
func (b *Books) text() string {
	var s strings.Builder
	for _, name := range slices.Sorted(maps.Keys(b.Accounts)) {
		fmt.Fprintln(&s, "account", name, jsonText(b.Accounts[name]))
	}
	for _, id := range slices.SortedFunc(maps.Keys(b.Reservations), func(x, y uuid.UUID) int {
		return bytes.Compare(x[:], y[:])
	}) {
		fmt.Fprintln(&s, "reservation", id, jsonText(b.Reservations[id]))
	}
	for _, ref := range slices.SortedFunc(maps.Keys(b.References), func(x, y Reference) int {
		return strings.Compare(x.Account+"\n"+x.Key, y.Account+"\n"+y.Key)
	}) {
		fmt.Fprintln(&s, "reference", ref.Account, ref.Key, jsonText(b.References[ref]))
	}
	for _, key := range slices.SortedFunc(maps.Keys(b.Keys), func(x, y Key) int {
		return strings.Compare(x.Account+"\n"+x.Key, y.Account+"\n"+y.Key)
	}) {
		fmt.Fprintln(&s, "key", key.Account, key.Key, jsonText(b.Keys[key]))
	}
	return s.String()
}

func jsonText(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
