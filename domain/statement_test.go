package domain

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// statementOf makes a statement out of all events of an account, as a ledger does.
func statementOf(events []*Event, account string, m Month, opening StatementBalance) (*Statement, error) {
	s, end := NewStatement(account, "USD", m, opening), StatementEnd{Complete: true}
	available, reserved := opening.Available, opening.Reserved
	for _, e := range events {
		if e.Account != account || e.OccurredAt.Before(m.From) || !e.OccurredAt.Before(m.To) {
			continue
		}
		a, r := e.Change()
		available, reserved = available.Add(a), reserved.Add(r)
		if e.Kind == KindReserve {
			end.Reserved = end.Reserved.Add(e.Amount)
		}
		if err := s.Add(e); err != nil {
			return nil, err
		}
	}
	end.Closing = NewStatementBalance(available, reserved)
	return s, s.Finish(end)
}

// checkStatements: whatever happens, over months and in any zone, each statement adds up, begins where the
// one before ended, and together they have everything that happened.
func checkStatements(t *rapid.T) {
	k := newBookkeeper(t)
	for range rapid.IntRange(1, 60).Draw(t, "commands") {
		k.later += time.Duration(rapid.Int64Range(0, int64(20*24*time.Hour)).Draw(t, "later"))
		k.do(rapid.SampledFrom([]string{"alice", "bob"}).Draw(t, "account"), ops().Draw(t, "op"))
	}
	z := zone(t, rapid.SampledFrom([]string{"UTC", "Europe/Berlin", "America/Havana", "Pacific/Kiritimati", "America/St_Johns"}).Draw(t, "zone"))
	for name, account := range k.books.Accounts {
		var balance StatementBalance
		spent, moved := Zero, Zero
		first := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
		for month := first; !month.After(k.now().Add(31 * 24 * time.Hour)); month = month.AddDate(0, 1, 0) {
			m, err := ParseMonth(month.Format(monthForm), z)
			if err != nil {
				t.Fatalf("%v", err)
			}
			s, err := statementOf(k.events, name, m, balance)
			if err != nil {
				t.Fatalf("%v", err)
			}
			balance = s.Closing
			spent, moved = spent.Add(s.Sums.Charges), moved.Add(s.Sums.Credits).Add(s.Sums.Debits).Add(s.Sums.Corrections)
			checkListed(s, t)
		}
		tally := k.tallies[name]
		if !balance.Available.Equal(account.Available) || !balance.Reserved.Equal(account.Reserved) {
			t.Fatalf("the last statement of %s closes with %+v, it has %s and %s", name, balance, account.Available, account.Reserved)
		}
		if !spent.Neg().Equal(tally.commits.Add(tally.overages)) || !moved.Equal(tally.credits.Sub(tally.debits)) {
			t.Fatalf("the statements of %s have charges of %s and movements of %s; there were %+v", name, spent, moved, tally)
		}
	}
}

// linesSum is the test's own sum of what a statement lists.
func linesSum(s *Statement) (sum Amount) {
	for _, list := range [][]StatementLine{s.Credits, s.Debits, s.Corrections} {
		for _, l := range list {
			sum = sum.Add(l.Amount)
		}
	}
	for _, c := range s.Charges {
		sum = sum.Add(c.Amount)
	}
	return sum
}

func checkListed(s *Statement, t *rapid.T) {
	if !s.Opening.Balance.Add(linesSum(s)).Equal(s.Closing.Balance) {
		t.Fatalf("the lines do not lead from %s to %s", s.Opening.Balance, s.Closing.Balance)
	}
	byModel, refunds := Zero, Zero
	for _, c := range s.ByModel {
		byModel = byModel.Add(c.Amount)
	}
	for _, r := range s.Refunds {
		refunds = refunds.Add(r.Amount)
	}
	if !byModel.Equal(s.Sums.Charges) || !refunds.Equal(s.Holds.Refunded) {
		t.Fatalf("by model %s, all %s; refunds %s, all %s", byModel, s.Sums.Charges, refunds, s.Holds.Refunded)
	}
}

func TestStatements(t *testing.T) {
	t.Parallel()
	rapid.Check(t, checkStatements)
}

// january is a month with one of everything.
func january(t *testing.T) (*bookkeeper, Month) {
	k := newBookkeeper(t)
	m, err := ParseMonth("2027-01", zone(t, "Europe/Berlin"))
	if err != nil {
		t.Fatal(err)
	}
	meters := Meters{Input: 10, CachedInput: 5, Output: 3, Reasoning: 2, Requests: 1}
	charge := func(model, provider string) CommitData {
		return CommitData{ModelRequested: "alias", ModelServed: model, Provider: provider, Meters: meters, UsageSource: UsageProvider}
	}
	k.do("alice", Open{MustAmount("10"), "system"})
	k.do("alice", Credit{MustAmount("5.5"), MovementData{Reference: "inv-7", Reason: "top-up", Actor: "cli"}})
	k.do("alice", Debit{MustAmount("1"), MovementData{Reference: "fee", Actor: "cli"}, false})
	k.do("alice", Credit{MustAmount("0.25"), MovementData{Reference: "fix", Corrects: "3:1", Actor: "cli"}})
	k.do("alice", Reserve{requestNumber(1), MustAmount("2"), ReserveData{Model: "alias"}})
	k.do("alice", Settle{RequestID: requestNumber(1), Charge: MustAmount("0.5"), Data: charge("m-1", "p")})
	k.later = 24 * time.Hour
	k.do("alice", Reserve{requestNumber(2), MustAmount("1"), ReserveData{Model: "alias"}})
	k.do("alice", Settle{RequestID: requestNumber(2), Charge: MustAmount("1.5"), Data: charge("m-0", "p")}) // 0.5 beyond its bound
	k.do("alice", Reserve{requestNumber(3), MustAmount("3"), ReserveData{Model: "alias"}})
	k.do("alice", Release{requestNumber(3), RefundProviderError})
	k.do("alice", Reserve{requestNumber(4), MustAmount("0.125"), ReserveData{Model: "alias"}})
	return k, m
}

// TestStatementParts: what each event becomes.
func TestStatementParts(t *testing.T) {
	t.Parallel()
	k, m := january(t)
	s, err := statementOf(k.events, "alice", m, StatementBalance{})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		`"month":"2027-01","time_zone":"Europe/Berlin","from":"2026-12-31T23:00:00Z","to":"2027-01-31T23:00:00Z","complete":true`,
		`"opening":{"balance":"0","available":"0","reserved":"0"}`,
		`"reference":"inv-7","reason":"top-up","amount":"5.5"`,
		`"charges":[{"date":"2027-01-15","model":"m-1","requests":1,"input_tokens":15,"output_tokens":5,"amount":"-0.5"},` +
			`{"date":"2027-01-16","model":"m-0","requests":1,"input_tokens":15,"output_tokens":5,"amount":"-1.5"}]`,
		`"charges_by_model":[{"model":"m-0","requests":1,"input_tokens":15,"output_tokens":5,"amount":"-1.5"},{"model":"m-1",`,
		`"refunds":[{"reason":"provider_error","count":1,"amount":"3"},{"reason":"remainder","count":1,"amount":"1.5"}]`,
		`"debits":[{`, `"reference":"fee","amount":"-1"`,
		`"reference":"fix","corrects":"3:1","amount":"0.25"`,
		`"closing":{"balance":"12.75","available":"12.625","reserved":"0.125"}`,
		`"sums":{"credits":"15.5","debits":"-1","corrections":"0.25","charges":"-2"}`,
		`"reservations":{"reserved":"6.125","charged":"1.5","refunded":"4.5"}`,
	} {
		if !strings.Contains(string(text), part) {
			t.Errorf("%s is not in %s", part, text)
		}
	}
}

// TestStatementRefuses: events of another account or time, and a history with anything changed in it.
func TestStatementRefuses(t *testing.T) {
	t.Parallel()
	k, m := january(t)
	for i := range k.events {
		for name, change := range map[string]func(*Event){
			"a little more": func(e *Event) { e.Amount = e.Amount.Add(MustAmount("0.000000000001")) },
			"an account":    func(e *Event) { e.Account = "bob" },
			"earlier":       func(e *Event) { e.OccurredAt = m.From.Add(-time.Microsecond) },
			"later":         func(e *Event) { e.OccurredAt = m.To },
		} {
			e := *k.events[i]
			change(&e)
			s := NewStatement("alice", "USD", m, StatementBalance{})
			end, err := StatementEnd{}, error(nil)
			for j, other := range k.events {
				a, r := other.Change()
				end.Closing = NewStatementBalance(end.Closing.Available.Add(a), end.Closing.Reserved.Add(r))
				if j == i {
					other = &e
				}
				if other.Kind == KindReserve {
					end.Reserved = end.Reserved.Add(other.Amount)
				}
				err = errors.Join(err, s.Add(other))
			}
			if err = errors.Join(err, s.Finish(end)); !errors.Is(err, ErrStatement) && (e.Kind != KindAccount || name != "a little more") {
				t.Errorf("event %d (%s), %s: %v", i, e.Kind, name, err)
			}
		}
	}
}
