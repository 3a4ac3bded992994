package domain

import (
	"errors"
	"strconv"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

// requestNumber is one of a few requests, so that sequences meet again; 0 is the missing id.
func requestNumber(n int) uuid.UUID {
	if n == 0 {
		return uuid.Nil
	}
	return uuid.UUID{6: 0x70, 8: 0x80, 15: byte(n)}
}

// asked generates amounts that commands ask for: everyday ones, the edges, and impossible ones.
func asked() *rapid.Generator[Amount] {
	edges := []Amount{Zero, MustAmount("0.000000000001"), MustAmount("-0.000000000001"), MustAmount("-3"),
		MustAmount("99999999999999999999999999.999999999999"), MustAmount("60000000000000000000000000"),
		MustAmount("60000000000000000000000000").Times(2)}
	cents := rapid.Map(rapid.Int64Range(0, 2000), func(n int64) Amount { return MustAmount("0.01").Times(n) })
	return rapid.OneOf(cents, cents, cents, rapid.SampledFrom(edges), amounts())
}

// ops generates operations, most of them possible, some hostile.
func ops() *rapid.Generator[Op] {
	reference := rapid.OneOf(rapid.StringMatching(`ref[1-4]`), rapid.SampledFrom([]string{"", OpeningReference, "x\x00"}))
	actor := rapid.SampledFrom([]string{"system", "cli", "admin:bob", ""})
	request := rapid.Map(rapid.IntRange(0, 8), requestNumber)
	key := rapid.SampledFrom([]string{"", "", "k1", "k2", "k\x00"})
	reason := rapid.SampledFrom([]RefundReason{RefundExpired, RefundExpired, RefundProviderError, RefundClientAbort, RefundExpired, RefundShutdown,
		RefundInternalError, RefundRemainder, "", "whim"})
	return rapid.Custom(func(t *rapid.T) Op {
		amount := asked().Draw(t, "amount")
		movement := func() MovementData {
			return MovementData{Reference: reference.Draw(t, "reference"), Actor: actor.Draw(t, "actor"),
				Reason: rapid.SampledFrom(nasty).Draw(t, "reason"), Corrects: rapid.SampledFrom([]string{"", "", "3:1", "x"}).Draw(t, "corrects")}
		}
		switch rapid.SampledFrom([]string{"open", "credit", "debit", "limit", "freeze", "reserve", "reserve", "reserve", "settle",
			"settle", "release", "release", "spooled", "none"}).Draw(t, "op") {
		case "open":
			return Open{amount, actor.Draw(t, "actor")}
		case "credit":
			return Credit{amount, movement()}
		case "debit":
			return Debit{amount, movement(), rapid.Bool().Draw(t, "force")}
		case "limit":
			return Configure{AccountData{CreditLimit: &amount, Actor: actor.Draw(t, "actor")}}
		case "freeze":
			frozen := rapid.IntRange(0, 3).Draw(t, "frozen") == 0
			return Configure{AccountData{Frozen: &frozen, Actor: actor.Draw(t, "actor")}}
		case "reserve":
			return Reserve{request.Draw(t, "request"), amount, ReserveData{Model: rapid.SampledFrom(nasty).Draw(t, "model"),
				IdempotencyKey: key.Draw(t, "key"), BodyHash: rapid.SampledFrom([]string{"a", "a", "b"}).Draw(t, "body")}}
		case "settle":
			return Settle{RequestID: request.Draw(t, "request"), Charge: amount, Data: CommitData{UsageSource: UsageCounted,
				FinishReason: rapid.SampledFrom(nasty).Draw(t, "finish")}}
		case "spooled":
			return Spooled{RequestID: request.Draw(t, "request"), Amount: amount, Charge: asked().Draw(t, "charge")}
		case "release":
			return Release{request.Draw(t, "request"), reason.Draw(t, "reason")}
		}
		return nil
	})
}

// checkBooks: whatever is asked, in whatever order, the bookkeeper's invariants hold after every
// command, repeats change nothing, and the books can be had again from the payloads alone.
func checkBooks(t *rapid.T) {
	k := newBookkeeper(t)
	account := rapid.SampledFrom([]string{"alice", "alice", "bob", "carol|1", "", "al ice"})
	for _, name := range []string{"alice", "bob"} {
		k.do(name, Open{MustAmount("50"), "system"})
	}
	var before []Command
	for range rapid.IntRange(1, 60).Draw(t, "commands") {
		c := Command{ID: k.commandID(), Account: account.Draw(t, "account"), Op: ops().Draw(t, "op")}
		if rapid.IntRange(0, 9).Draw(t, "spooled") == 0 {
			c.SpooledAt = k.now()
		}
		if rapid.IntRange(0, 19).Draw(t, "a day later") == 0 {
			k.later += KeyTTL
		}
		if len(before) > 0 && rapid.IntRange(0, 9).Draw(t, "again") == 0 {
			c.Account, c.Op = rapid.SampledFrom(before).Draw(t, "before").Account, rapid.SampledFrom(before).Draw(t, "before").Op
		}
		before = append(before, c)
		books := k.books.text()
		if d := k.command(c); len(d.events) == 0 && k.books.text() != books {
			t.Fatalf("no event, and yet the books changed from\n%sto\n%s", books, k.books.text())
		}
	}
	if live, rebuilt := k.books.text(), k.rebuilt().text(); live != rebuilt {
		t.Fatalf("live:\n%srebuilt:\n%s", live, rebuilt)
	}
}

func TestBooksProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, checkBooks)
}

func FuzzBooks(f *testing.F) { f.Fuzz(rapid.MakeFuzz(checkBooks)) }

// TestApplyTwice: a history in which an event occurs again is impossible, and the attempt changes
// nothing.
func TestApplyTwice(t *testing.T) {
	t.Parallel()
	k := newBookkeeper(t)
	k.do("alice", Open{MustAmount("50"), "system"})
	k.do("alice", Credit{MustAmount("5"), MovementData{Reference: "topup", Actor: "cli"}})
	k.do("alice", Debit{MustAmount("1"), MovementData{Reference: "payout", Actor: "cli"}, false})
	for n, charge := range []string{"0", "3", "4", "9"} {
		k.do("alice", Reserve{requestNumber(n + 1), MustAmount("4"), ReserveData{}})
		k.do("alice", Settle{RequestID: requestNumber(n + 1), Charge: MustAmount(charge)})
	}
	k.do("alice", Reserve{requestNumber(9), MustAmount("4"), ReserveData{}})
	k.do("alice", Release{requestNumber(9), RefundExpired})
	if len(k.events) != 17 {
		t.Fatalf("%d events", len(k.events))
	}
	before := k.books.text()
	for _, e := range k.events {
		if e.Kind == KindOverage {
			continue // a request may have several by Apply's lights; seq and the chain rule out a repeat
		}
		if err := k.books.Apply(e); !errors.Is(err, ErrImpossible) {
			t.Errorf("%s %s applied twice: %v", e.Position(), e.Kind, err)
		}
		if k.books.text() != before {
			t.Fatalf("a refused %s changed the books to\n%s", e.Kind, k.books.text())
		}
	}
}

// TestApplyRefuses: events that no decision leads to.
func TestApplyRefuses(t *testing.T) {
	t.Parallel()
	k := newBookkeeper(t)
	for _, name := range []string{"alice", "bob"} {
		k.do(name, Open{MustAmount("50"), "system"})
	}
	k.do("alice", Reserve{requestNumber(1), MustAmount("4"), ReserveData{}})
	k.do("alice", Reserve{requestNumber(2), MustAmount("9"), ReserveData{}})
	k.do("alice", Reserve{requestNumber(3), MustAmount("4"), ReserveData{}})
	k.do("alice", Settle{RequestID: requestNumber(3), Charge: MustAmount("4")})
	before := k.books.text()
	refund := func(r RefundReason) Data { return &RefundData{Reason: r} }
	for name, c := range map[string]struct {
		kind    Kind
		account string
		request int
		amount  string
		data    Data
	}{
		"credit of a stranger":             {KindCredit, "carol", 0, "1", &MovementData{Reference: "x"}},
		"reserve of a stranger":            {KindReserve, "carol", 5, "1", &ReserveData{}},
		"freezing a stranger":              {KindAccount, "carol", 0, "0", &AccountData{Frozen: new(true)}},
		"opening twice":                    {KindAccount, "alice", 0, "0", &AccountData{Opened: true}},
		"a second opening credit":          {KindCredit, "alice", 0, "50", &MovementData{Reference: OpeningReference}},
		"reserve under another's request":  {KindReserve, "bob", 1, "4", &ReserveData{}},
		"commit of no reservation":         {KindCommit, "alice", 7, "1", &CommitData{}},
		"commit by another account":        {KindCommit, "bob", 1, "4", &CommitData{}},
		"commit beyond the reservation":    {KindCommit, "alice", 1, "4.000000000001", &CommitData{}},
		"commit of a settled one":          {KindCommit, "alice", 3, "0", &CommitData{}},
		"refund of a part":                 {KindRefund, "alice", 1, "3", refund(RefundExpired)},
		"refund beyond the reservation":    {KindRefund, "alice", 1, "5", refund(RefundExpired)},
		"remainder before the commit":      {KindRefund, "alice", 1, "4", refund(RefundRemainder)},
		"remainder where nothing remains":  {KindRefund, "alice", 3, "0", refund(RefundRemainder)},
		"remainder beyond what remains":    {KindRefund, "alice", 3, "1", refund(RefundRemainder)},
		"release of a settled one":         {KindRefund, "alice", 3, "0", refund(RefundExpired)},
		"refund by another account":        {KindRefund, "bob", 1, "4", refund(RefundExpired)},
		"overage of no request":            {KindOverage, "alice", 7, "1", &OverageData{}},
		"overage of another's reservation": {KindOverage, "bob", 1, "1", &OverageData{}},
	} {
		e := Draft{c.kind, requestNumber(c.request), MustAmount(c.amount), c.data}.Stamp(
			Command{ID: uuid.UUID{15: 4}, Account: c.account}, 0, Event{Shard: 3, Seq: 99, Currency: "USD"})
		if err := k.books.Apply(&e); !errors.Is(err, ErrImpossible) {
			t.Errorf("%s: %v", name, err)
		}
		if k.books.text() != before {
			t.Fatalf("%s: refused, and the books changed to\n%s", name, k.books.text())
		}
	}
}

// TestApplyToContradictingBooks: loaded books whose reserved is less than a reservation holds are
// not taken below zero.
func TestApplyToContradictingBooks(t *testing.T) {
	t.Parallel()
	k := newBookkeeper(t)
	k.do("alice", Open{MustAmount("50"), "system"})
	k.do("alice", Reserve{requestNumber(1), MustAmount("4"), ReserveData{}})
	k.books.Accounts["alice"].Reserved = MustAmount("3.999999999999")
	before := k.books.text()
	for _, d := range []Draft{{KindCommit, requestNumber(1), MustAmount("4"), &CommitData{}},
		{KindRefund, requestNumber(1), MustAmount("4"), &RefundData{Reason: RefundExpired}}} {
		e := d.Stamp(Command{ID: uuid.UUID{15: 4}, Account: "alice"}, 0, Event{Shard: 3, Seq: 99, Currency: "USD"})
		if err := k.books.Apply(&e); !errors.Is(err, ErrImpossible) || k.books.text() != before {
			t.Errorf("%s: %v\n%s", e.Kind, err, k.books.text())
		}
	}
}

// TestFirstUse: a repeat is the same reference, kind and amount. The opening credit is repeated by
// opening, and by nothing else.
func TestFirstUse(t *testing.T) {
	t.Parallel()
	k := newBookkeeper(t)
	k.do("alice", Open{MustAmount("50"), "system"})
	topup := k.do("alice", Credit{MustAmount("5"), MovementData{Reference: "topup", Actor: "cli"}}).events[0]
	for _, c := range []struct {
		op   Op
		want bool
	}{
		{Credit{MustAmount("5.0"), MovementData{Reference: "topup"}}, true},
		{Credit{MustAmount("6"), MovementData{Reference: "topup"}}, false},
		{Debit{MustAmount("5"), MovementData{Reference: "topup"}, true}, false},
		{Credit{MustAmount("5"), MovementData{Reference: "other"}}, false},
		{Credit{MustAmount("50"), MovementData{Reference: OpeningReference}}, false},
		{Open{MustAmount("50"), "system"}, false},
		{Release{requestNumber(1), RefundExpired}, false},
	} {
		use, ok := k.books.FirstUse(Command{Account: "alice", Op: c.op})
		if ok != c.want || ok && (use.ID != topup.ID || use.Seq != topup.Seq) {
			t.Errorf("%+v: %v, %+v", c.op, ok, use)
		}
	}
	if _, ok := k.books.FirstUse(Command{Account: "bob", Op: Credit{MustAmount("5"), MovementData{Reference: "topup"}}}); ok {
		t.Error("another account's reference is a repeat")
	}
}

// TestEventsOfOneCommand: every event of a settled request bears the request's id and ids that
// follow from the command's, in order.
func TestEventsOfOneCommand(t *testing.T) {
	t.Parallel()
	k := newBookkeeper(t)
	k.do("alice", Open{MustAmount("50"), "system"})
	k.do("alice", Reserve{requestNumber(1), MustAmount("4"), ReserveData{}})
	id := k.commandID()
	d := k.command(Command{ID: id, Account: "alice", Op: Settle{RequestID: requestNumber(1), Charge: MustAmount("1")}})
	if len(d.events) != 2 {
		t.Fatalf("%d events, %v", len(d.events), d.err)
	}
	for n, e := range d.events {
		if e.ID != EventID(id, n) || e.RequestID != requestNumber(1) || e.Seq != int64(4+n) || e.Account != "alice" {
			t.Errorf("event %d: %+v", n, e)
		}
	}
	r := k.books.Reservations[requestNumber(1)]
	if r.ReservedSeq != 3 || r.SettledSeq != 4 || k.books.Accounts["alice"].LastSeq != 5 {
		t.Errorf("%+v, last seq %d", r, k.books.Accounts["alice"].LastSeq)
	}
}

// BenchmarkSettledRequest is what the rules cost per request: three events decided, encoded,
// hashed and applied.
func BenchmarkSettledRequest(b *testing.B) {
	books, seq, at := NewBooks(), int64(0), golden()["credit"].OccurredAt
	h := GenesisHash(ledgerID, 0)
	id := func(n int64) uuid.UUID {
		return uuid.UUID{0: byte(n >> 24), 1: byte(n >> 16), 2: byte(n >> 8), 3: byte(n), 15: 4}
	}
	step := func(op Op) {
		c := Command{ID: id(seq + 1), Account: "alice", Op: op}
		drafts, err := books.Decide(c, at)
		if err != nil {
			b.Fatal(err)
		}
		for n, d := range drafts {
			seq++
			e := d.Stamp(c, n, Event{Seq: seq, Currency: "USD", OccurredAt: at})
			payload, err := Encode(&e)
			if err == nil {
				h = ChainHash(h, payload)
				err = books.Apply(&e)
			}
			if err != nil {
				b.Fatal(strconv.FormatInt(seq, 10), err)
			}
		}
	}
	step(Open{MustAmount("1000000000"), "system"})
	reserve, commit := *golden()["reserve"].Data.(*ReserveData), *golden()["commit"].Data.(*CommitData)
	b.ReportAllocs()
	for n := int64(1); b.Loop(); n++ {
		step(Reserve{id(n), MustAmount("0.04421"), reserve})
		step(Settle{RequestID: id(n), Charge: MustAmount("0.0065"), Data: commit})
	}
}
