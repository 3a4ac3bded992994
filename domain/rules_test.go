package domain

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

// The form of testdata/{accounts,reserve,settlement,movements,keys,spooled,hostile}.txt:
//
//	COMMAND ARGUMENT... -> ANSWER | ACCOUNT AVAILABLE / RESERVED [limit L] [frozen], ...
//
// The answer is the events that follow (KIND:AMOUNT, with :REASON where it is not the remainder),
// `nothing`, `as before KIND:AMOUNT` for a movement that is repeated, or the reason of the refusal.
// `-` after the bar stands for no account at all. `books NAME` begins with empty books; `later DURATION`
// moves the clock on; # comments.
// "quoted" words are Go strings, "x"*9 is nine of them, and 1+2 is an amount that is added up, so
// that a table can hold what no parser would let in.

// commands are the words that a line can begin with.
var commands = map[string]func(w words) (Op, error){
	"open":     func(w words) (Op, error) { return Open{Grant: w.amount(2), Actor: w.tag("actor", "clerk")}, w.err() },
	"credit":   func(w words) (Op, error) { return Credit{Amount: w.amount(3), Data: w.movement()}, w.err() },
	"debit":    func(w words) (Op, error) { return Debit{w.amount(3), w.movement(), w.has("force")}, w.err() },
	"limit":    func(w words) (Op, error) { return w.configure(w.limit(), nil), w.err() },
	"freeze":   func(w words) (Op, error) { return w.configure(nil, new(true)), nil },
	"unfreeze": func(w words) (Op, error) { return w.configure(nil, new(false)), nil },
	"nothing":  func(w words) (Op, error) { return w.configure(nil, nil), nil },
	"noop":     func(words) (Op, error) { return nil, nil },
	"reserve": func(w words) (Op, error) {
		return Reserve{w.request(), w.amount(3), w.reserve()}, w.err()
	},
	"settle": func(w words) (Op, error) {
		data := CommitData{ModelServed: "m", FinishReason: w.tag("finish", "stop"), UsageSource: UsageProvider}
		if n := w.tag("input", ""); n != "" {
			data.Meters[Input], _ = strconv.ParseInt(n, 10, 64)
		}
		return Settle{RequestID: w.request(), Charge: w.amount(3), Data: data}, w.err()
	},
	"spooled": func(w words) (Op, error) {
		return Spooled{RequestID: w.request(), Amount: w.amount(3), Reserve: w.reserve(), Charge: w.amount(4)}, w.err()
	},
	"release": func(w words) (Op, error) { return Release{w.request(), RefundReason(w.at(3))}, nil },
}

// words are a line's command: the word itself, the account, and what belongs to the command.
type words struct {
	list []string
	bad  *error
}

func (w words) at(i int) string {
	if i >= len(w.list) {
		*w.bad = fmt.Errorf("the line is too short: %q", w.list)
		return ""
	}
	return w.list[i]
}

func (w words) err() error { return *w.bad }

// amount adds up a+b+c; a part that is not an amount makes the line's answer not_an_amount.
func (w words) amount(i int) Amount {
	sum := Zero
	for part := range strings.SplitSeq(w.at(i), "+") {
		a, err := ParseAmount(part)
		if err != nil {
			*w.bad = err
		}
		sum = sum.Add(a)
	}
	return sum
}

func (w words) limit() *Amount { a := w.amount(2); return &a }

func (w words) has(word string) bool {
	return slices.Contains(w.list, word)
}

// tag finds NAME=VALUE among the words.
func (w words) tag(name, otherwise string) string {
	for _, x := range w.list {
		if v, ok := strings.CutPrefix(x, name+"="); ok {
			return v
		}
	}
	return otherwise
}

func (w words) movement() MovementData {
	return MovementData{Reference: w.at(2), Actor: w.tag("actor", "clerk"), Corrects: w.tag("corrects", ""),
		Reason: w.tag("reason", "")}
}

func (w words) reserve() ReserveData {
	return ReserveData{Surface: w.tag("surface", "chat_completions"), Model: w.tag("model", "m"), Stream: w.has("stream"),
		IdempotencyKey: w.tag("key", ""), BodyHash: w.tag("body", "b1")}
}

func (w words) configure(limit *Amount, frozen *bool) Op {
	return Configure{AccountData{CreditLimit: limit, Frozen: frozen, Actor: w.tag("actor", "clerk"),
		Reason: w.tag("reason", ""), Opened: w.has("opened")}}
}

// request names requests r1, r2, ...; `none` is the missing id.
func (w words) request() uuid.UUID {
	if w.at(2) == "none" {
		return uuid.Nil
	}
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte(w.at(2)))
}

// requestName is the word of a request's id, of r1 to r9.
func requestName(id uuid.UUID) string {
	for n := range 9 {
		if word := fmt.Sprintf("r%d", n+1); id == uuid.NewSHA1(uuid.NameSpaceURL, []byte(word)) {
			return word
		}
	}
	return id.String()
}

// split cuts a command into words. A quoted string may follow NAME= and may be multiplied.
func split(line string) ([]string, error) {
	var list []string
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimLeft(line, " ") {
		end := strings.IndexAny(line+" ", ` "`)
		word := line[:end]
		line = line[end:]
		if strings.HasPrefix(line, `"`) {
			quoted, err := strconv.QuotedPrefix(line)
			if err != nil {
				return nil, fmt.Errorf("%w: %s", err, line)
			}
			text, _ := strconv.Unquote(quoted)
			line = line[len(quoted):]
			times := 1
			if n, ok := strings.CutPrefix(line, "*"); ok {
				n, line, _ = strings.Cut(n, " ")
				if times, err = strconv.Atoi(n); err != nil {
					return nil, err
				}
			}
			word += strings.Repeat(text, times)
		}
		list = append(list, word)
	}
	return list, nil
}

// answer is what the table's middle says.
func (d did) answer() string {
	var r *Rejection
	switch {
	case errors.As(d.err, &r) && r.Reason == RejectInsufficientFunds:
		return fmt.Sprintf("%s needs %s has %s", r.Reason, r.Needed, r.Available)
	case errors.As(d.err, &r) && r.RequestID != uuid.Nil:
		return fmt.Sprintf("%s of %s", r.Reason, requestName(r.RequestID))
	case errors.As(d.err, &r):
		return string(r.Reason)
	case d.repeat != nil:
		return fmt.Sprintf("as before %s:%s", d.repeat.Kind, d.repeat.Amount)
	case len(d.events) == 0:
		return "nothing"
	}
	parts := make([]string, len(d.events))
	for i, e := range d.events {
		parts[i] = eventWord(e)
	}
	return strings.Join(parts, " ")
}

func eventWord(e *Event) string {
	text := fmt.Sprintf("%s:%s", e.Kind, e.Amount)
	switch data := e.Data.(type) {
	case *AccountData:
		switch {
		case data.Opened:
			return "account"
		case data.CreditLimit != nil:
			return "account:limit"
		case *data.Frozen:
			return "account:frozen"
		}
		return "account:unfrozen"
	case *RefundData:
		if data.Reason != RefundRemainder {
			text += ":" + string(data.Reason)
		}
	case *OverageData:
		if data.Reason != OverageBeyondBound {
			text += ":" + string(data.Reason)
		}
	case *MovementData:
		if data.Corrects != "" {
			text += ":corrects=" + data.Corrects
		}
	}
	return text
}

// balances writes the accounts that the table's right side names.
func (b *Books) balances(wanted string) string {
	if wanted == "-" {
		if len(b.Accounts) == 0 {
			return "-"
		}
		return fmt.Sprintf("%d accounts", len(b.Accounts))
	}
	var list []string
	for want := range strings.SplitSeq(wanted, ", ") {
		name, _, _ := strings.Cut(want, " ")
		a := b.Accounts[name]
		if a == nil {
			list = append(list, name+" unknown")
			continue
		}
		text := fmt.Sprintf("%s %s / %s", name, a.Available, a.Reserved)
		if !a.CreditLimit.IsZero() {
			text += " limit " + a.CreditLimit.String()
		}
		if a.Frozen {
			text += " frozen"
		}
		list = append(list, text)
	}
	return strings.Join(list, ", ")
}

// run carries out one command of a table.
func run(k *bookkeeper, command string) (string, error) {
	list, err := split(command)
	if err != nil || len(list) == 0 {
		return "", fmt.Errorf("cannot read %q: %w", command, err)
	}
	read, known := commands[list[0]]
	if !known || len(list) < 2 {
		return "", fmt.Errorf("what is %q?", command)
	}
	var bad error
	op, err := read(words{list, &bad})
	switch {
	case errors.Is(err, ErrAmount):
		return "not_an_amount", nil
	case err != nil:
		return "", err
	}
	return k.do(list[1], op).answer(), nil
}

// runTable runs a file and marks which words its answers used.
func runTable(t *testing.T, file string, used map[string]bool) {
	text, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	k, cases := newBookkeeper(t), 0
	for n, line := range strings.Split(string(text), "\n") {
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
			continue
		case strings.HasPrefix(line, "books "):
			k = newBookkeeper(t)
			continue
		case strings.HasPrefix(line, "later "):
			pause, err := time.ParseDuration(line[len("later "):])
			if err != nil {
				t.Fatalf("%s:%d: %v", file, n+1, err)
			}
			k.later += pause
			continue
		}
		// Commands may hold arrows and bars within quotes, the right side does not.
		arrow, bar := strings.LastIndex(line, "-> "), strings.LastIndex(line, "| ")
		if arrow < 0 || bar < arrow {
			t.Fatalf("%s:%d: no answer or no balances: %s", file, n+1, line)
		}
		cases++
		want, balances := strings.TrimSpace(line[arrow+3:bar]), strings.TrimSpace(line[bar+2:])
		got, err := run(k, line[:arrow])
		if err != nil {
			t.Fatalf("%s:%d: %v", file, n+1, err)
		}
		if after := k.books.balances(balances); got != want || after != balances {
			t.Errorf("%s:%d: %s\n got %s | %s\nwant %s | %s", file, n+1, line[:arrow], got, after, want, balances)
		}
		for word := range strings.FieldsFuncSeq(got, func(r rune) bool { return r == ' ' || r == ':' }) {
			used[word] = true
		}
	}
	if cases < 15 {
		t.Errorf("only %d cases in %s", cases, file)
	}
}

// TestRules runs the tables, and sees to it that they leave out no answer that Decide can give.
func TestRules(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	for _, file := range []string{"accounts.txt", "reserve.txt", "settlement.txt", "movements.txt", "keys.txt", "spooled.txt",
		"hostile.txt"} {
		t.Run(file, func(t *testing.T) { runTable(t, file, used) })
	}
	for _, r := range []Reject{RejectAccountUnknown, RejectAccountFrozen, RejectInsufficientFunds,
		RejectReservationUnknown, RejectReservationExists, RejectAlreadySettled, RejectReferenceReused,
		RejectKeyInProgress, RejectKeyReused, RejectKeyAnswered, RejectInvalid} {
		if !used[string(r)] {
			t.Errorf("no table has the refusal %s", r)
		}
	}
	for _, r := range []RefundReason{RefundProviderError, RefundClientAbort, RefundExpired, RefundShutdown,
		RefundInternalError} {
		if !used[string(r)] {
			t.Errorf("no table releases for %s", r)
		}
	}
	for _, r := range []OverageReason{OverageLate, OverageSpooled} {
		if !used[string(r)] {
			t.Errorf("no table has an overage for %s", r)
		}
	}
	for _, k := range kinds {
		if !used[string(k)] {
			t.Errorf("no table has the event %s", k)
		}
	}
}

// TestRejectionSays: the parts of a refusal that callers show to people.
func TestRejectionSays(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		r    Rejection
		want string
	}{
		{Rejection{Reason: RejectInsufficientFunds, Account: "alice", Needed: MustAmount("2.50"), Available: MustAmount("-1")},
			"insufficient_funds: alice needs 2.5 and has -1"},
		{Rejection{Reason: RejectAlreadySettled, Account: "alice", Detail: "released"}, "already_settled: alice: released"},
		{Rejection{Reason: RejectAccountFrozen, Account: "alice"}, "account_frozen: alice"},
	} {
		if got := c.r.Error(); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}
