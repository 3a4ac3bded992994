package domain

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// recordAll records a book's versions as a gateway does, and returns how many events that took.
func recordAll(k *bookkeeper, r *PriceRecord, book string, versions Versions) (events int) {
	k.t.Helper()
	for d := r.Next(book, versions); d != nil; d = r.Next(book, versions) {
		done := k.do(PricesAccount, RecordPrices{After: r.Last, Data: AccountData{Prices: d, Actor: "test"}})
		if done.err != nil || len(done.events) != 1 {
			k.t.Fatalf("%d events, %v", len(done.events), done.err)
		}
		if err := r.Add(done.events[0]); err != nil {
			k.t.Fatalf("%v", err)
		}
		events++
	}
	return events
}

// TestPriceRecord: whatever the books become, the events add up to them, at any size, and both books apart;
// what is there already is not recorded again.
func TestPriceRecord(t *testing.T) {
	t.Parallel()
	dates := []time.Time{{}, day("2026-01-01"), day("2026-01-01").Add(time.Hour)}
	rapid.Check(t, func(t *rapid.T) {
		k, r := newBookkeeper(t), &PriceRecord{}
		for range rapid.IntRange(1, 6).Draw(t, "changes") {
			book := rapid.SampledFrom([]string{BookCost, BookSell}).Draw(t, "book")
			versions := Versions{}
			for range rapid.IntRange(0, 12).Draw(t, "versions") {
				at := Dated{rapid.SampledFrom([]string{"a/m", "a/n", "b/" + strings.Repeat("n", 100)}).Draw(t, "model"), rapid.SampledFrom(dates).Draw(t, "from"), rapid.SampledFrom([]string{"", "us"}).Draw(t, "region")}
				id := fmt.Sprintf("%s@%s#%d", at.Model, startName(at.From), rapid.IntRange(0, 3).Draw(t, "hash"))
				if at.Region != "" {
					id += fmt.Sprintf("*%s#%d", at.Region, rapid.IntRange(0, 3).Draw(t, "hash of the region"))
				}
				versions[id] = at
			}
			recordAll(k, r, book, versions)
			if again := recordAll(k, r, book, versions); again != 0 {
				t.Fatalf("recorded %d times more", again)
			}
			again := &PriceRecord{}
			for _, e := range k.events {
				if err := again.Add(e); err != nil {
					t.Fatal(err)
				}
			}
			if fmt.Sprint(*again) != fmt.Sprint(*r) || again.book(book).digest() != versions.digest() {
				t.Fatalf("the events add up to\n%v, and not to\n%v", again, versions)
			}
		}
	})
}

// TestPriceRecordIsSplit: a whole book of the largest names goes into as many events as it needs, each far
// below the bound; whoever dies in between goes on where it was.
func TestPriceRecordIsSplit(t *testing.T) {
	t.Parallel()
	versions := Versions{}
	for i := range 500 {
		at := Dated{strings.Repeat("p", maxBookName) + "/" + strings.Repeat("m", maxBookName-3) + fmt.Sprintf("%03d", i), day("2026-01-01"), ""}
		versions[at.Model+"@2026-01-01#01234567+10%+fixed#01234567"] = at
	}
	k, dead := newBookkeeper(t), &PriceRecord{}
	for range 3 {
		done := k.do(PricesAccount, RecordPrices{After: dead.Last, Data: AccountData{Prices: dead.Next(BookCost, versions), Actor: "test"}})
		if done.err != nil || dead.Add(done.events[0]) != nil {
			t.Fatal(done.err)
		}
	}
	r := &PriceRecord{}
	for _, e := range k.events {
		if err := r.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	if n := recordAll(k, r, BookCost, versions); n < 4 || n > 10 || r.cost.digest() != versions.digest() {
		t.Errorf("%d events more", n)
	}
	for i, e := range k.events {
		d, last := e.Data.(*AccountData), i == len(k.events)-1
		if len(k.payloads[i]) > MaxPayload*4/5 || d.Prices.More == last || d.Opened != (i == 0) {
			t.Errorf("event %d of %d bytes: more is %v, opened %v", i, len(k.payloads[i]), d.Prices.More, d.Opened)
		}
	}
}

// TestPricesMoved: of many that found the same change one records it; who knew less is told.
func TestPricesMoved(t *testing.T) {
	t.Parallel()
	k, r := newBookkeeper(t), &PriceRecord{}
	a := Versions{"a/m@launch#1": {Model: "a/m"}}
	first := r.Next(BookCost, a)
	recordAll(k, r, BookCost, a)
	for _, after := range []int64{0, 2, -1} {
		done := k.do(PricesAccount, RecordPrices{After: after, Data: AccountData{Prices: first, Actor: "test"}})
		if rejected := new(Rejection); !errors.As(done.err, &rejected) || rejected.Reason != RejectPricesMoved {
			t.Errorf("behind %d: %+v", after, done)
		}
	}
	if len(k.events) != 1 {
		t.Errorf("%d events", len(k.events))
	}
}

// TestPricesAccountIsNobodys: no other command touches it, and the record is nobody else's.
func TestPricesAccountIsNobodys(t *testing.T) {
	t.Parallel()
	k, r := newBookkeeper(t), &PriceRecord{}
	recordAll(k, r, BookCost, Versions{"a/m@launch#1": {Model: "a/m"}})
	change := r.Next(BookCost, Versions{})
	record := RecordPrices{After: 1, Data: AccountData{Prices: change, Actor: "test"}}
	with := func(edit func(*RecordPrices)) RecordPrices {
		out, prices := record, *change
		prices.Changes = []VersionChange{change.Changes[0]}
		out.Data.Prices = &prices
		edit(&out)
		return out
	}
	for name, op := range map[string]Op{
		"opening": Open{MustAmount("1"), "system"}, "credit": Credit{MustAmount("1"), MovementData{Reference: "r", Actor: "cli"}},
		"freezing":          Configure{AccountData{Frozen: new(true), Actor: "cli"}},
		"reserving":         Reserve{requestNumber(1), MustAmount("1"), *golden()["reserve"].Data.(*ReserveData)},
		"nobody":            with(func(o *RecordPrices) { o.Data.Actor = "" }),
		"a limit":           with(func(o *RecordPrices) { o.Data.CreditLimit = new(Zero) }),
		"freezing with it":  with(func(o *RecordPrices) { o.Data.Frozen = new(true) }),
		"opening with it":   with(func(o *RecordPrices) { o.Data.Opened = true }),
		"no prices":         with(func(o *RecordPrices) { o.Data.Prices = nil }),
		"no changes":        with(func(o *RecordPrices) { o.Data.Prices.Changes = nil }),
		"another book":      with(func(o *RecordPrices) { o.Data.Prices.Book = "list" }),
		"no difference":     with(func(o *RecordPrices) { o.Data.Prices.To = o.Data.Prices.From }),
		"an ID of controls": with(func(o *RecordPrices) { o.Data.Prices.Changes[0].To = "a\x00b" }),
		"an endless ID":     with(func(o *RecordPrices) { o.Data.Prices.Changes[0].To = strings.Repeat("x", 1000) }),
		"a change of none":  with(func(o *RecordPrices) { o.Data.Prices.Changes[0].To = o.Data.Prices.Changes[0].From }),
	} {
		if err := (Command{ID: k.commandID(), Account: PricesAccount, Op: op}).Validate(); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if (Command{ID: k.commandID(), Account: "alice", Op: record}).Validate() == nil || CheckOwner(PricesAccount) == nil || CheckOwner("alice") != nil || CheckAccount(PricesAccount) != nil {
		t.Error("prices are recorded anywhere, or their account can be owned")
	}
	if (Command{ID: k.commandID(), Account: "alice", Op: Configure{AccountData{Frozen: new(true), Actor: "cli", Prices: change}}}).Validate() == nil {
		t.Error("prices hide in a freeze")
	}
}

// TestPriceRecordRefuses: events that do not follow from each other are told, and leave the record alone.
func TestPriceRecordRefuses(t *testing.T) {
	t.Parallel()
	k, r := newBookkeeper(t), &PriceRecord{}
	recordAll(k, r, BookCost, Versions{"a/m@launch#1": {Model: "a/m"}})
	before := fmt.Sprint(*r)
	for name, edit := range map[string]func(*PricesData){
		"from elsewhere": func(d *PricesData) { d.From = "" },
		"to elsewhere":   func(d *PricesData) { d.To = "00" },
		"what never was": func(d *PricesData) { d.Changes[0].From = "a/m@launch#2" },
		"what is there":  func(d *PricesData) { d.Changes[0].From, d.Changes[0].To = "", "a/m@launch#1" },
		"an odd date":    func(d *PricesData) { d.Changes[0].EffectiveFrom = "soon" },
		"another book's": func(d *PricesData) { d.Book = BookSell },
	} {
		d := *r.Next(BookCost, Versions{"a/m@launch#3": {Model: "a/m"}})
		edit(&d)
		e := *k.events[0]
		e.Seq, e.Data = 2, &AccountData{Prices: &d, Actor: "test"}
		if err := r.Add(&e); !errors.Is(err, ErrRecord) || fmt.Sprint(*r) != before {
			t.Errorf("%s: %v, %v", name, err, r)
		}
	}
}

// TestRepriced: which times a book prices otherwise than was recorded, and whether a charge contradicts that:
// one by `old` at noon of the day.
func TestRepriced(t *testing.T) {
	t.Parallel()
	one, two := rates("input=1 output=2"), rates("input=3 output=4")
	launch, may := PriceVersion{Rates: one}, PriceVersion{From: day("2026-05-01"), Rates: two}
	recorded := book(t, chat("m", launch, may), chat("n", launch))
	noon := PriceVersion{From: day("2026-05-03").Add(12 * time.Hour), Rates: one}
	for _, c := range []struct {
		name    string
		next    []Model
		want    string // the first one's: from, until
		charged string // days on which a charge by the version that was recorded for then contradicts it
		not     string
	}{
		{"the same", []Model{chat("m", launch, may), chat("n", launch)}, "", "", ""},
		{"another model", []Model{chat("m", launch, may), chat("n", launch), chat("o", may)}, "", "", ""},
		{"a model less", []Model{chat("m", launch, may)}, "", "", ""},
		{"a version more", []Model{chat("m", launch, may, noon)}, "2026-05-03T12:00:00Z..9999-12-31", "2026-05-04", "2026-05-03"},
		{"one in between", []Model{chat("m", launch, PriceVersion{From: day("2026-03-01"), Rates: two}, may)}, "2026-03-01..2026-05-01", "2026-03-01 2026-04-30", "2026-02-28 2026-05-01"},
		{"another from launch", []Model{chat("m", PriceVersion{Rates: two}, may)}, "..2026-05-01", "2020-01-01", "2026-05-01"},
		{"one less", []Model{chat("m", launch)}, "2026-05-01..9999-12-31", "2026-05-01", "2026-04-30"},
		{"no launch any more", []Model{chat("m", may)}, "", "", ""},
	} {
		prices := RecordOf(recorded).Repriced(book(t, c.next...))
		if len(prices) == 0 || c.want == "" {
			if len(prices) != 0 || c.want != "" {
				t.Errorf("%s: %v", c.name, prices)
			}
			continue
		}
		p := prices[0]
		if got := StartText(p.From) + ".." + StartText(p.Until); got != c.want || len(prices) != 1 || p.Model != "acme/m" {
			t.Errorf("%s: %s, of %v", c.name, got, prices)
		}
		for _, list := range []string{c.charged, c.not} {
			for at := range strings.FieldsSeq(list) {
				_, v, err := recorded.Lookup("m", day(at))
				if err != nil {
					t.Fatal(err)
				}
				e := &Event{Kind: KindCommit, OccurredAt: day(at).Add(6 * time.Hour), Data: &CommitData{PriceVersion: v.ID + "+10%#01234567", CostVersion: v.ID}}
				if by, charged := p.Charged(e); charged != (list == c.charged) || charged && !strings.HasPrefix(by, v.ID) {
					t.Errorf("%s: a charge of %s by %s: %v, by %q", c.name, at, v.ID, charged, by)
				}
			}
		}
	}
}

// TestFactorsAreRecordedApart: where only the factor of a region changes, the base keeps its version, and only what
// was charged in the region by the old factor contradicts the book.
func TestFactorsAreRecordedApart(t *testing.T) {
	t.Parallel()
	with := func(input string, factors ...string) *PriceBook {
		v := PriceVersion{Rates: rates("output=2 input=" + input), Regions: map[string]Amount{}}
		for i, f := range factors {
			v.Regions[[]string{"us", "eu"}[i]] = MustAmount(f)
		}
		return book(t, chat("m", v))
	}
	recorded := with("1", "1.1")
	base := &recorded.Named("m")[0].Versions[0]
	us, _ := base.In("us")
	for _, c := range []struct {
		next            *PriceBook
		changes         string
		prices          int
		base, us, usNow bool // whether a charge at the base price, in the region as it was, and as it is, contradicts it
	}{
		{with("1", "1.1"), "", 0, false, false, false},
		{with("1", "1.1", "1.2"), ">eu", 0, false, false, false},
		{with("1"), "us>", 0, false, false, false},
		{with("1", "1.2"), "us>us", 1, false, true, false},
		{with("3", "1.1"), "> us>us", 1, true, true, false},
	} {
		next := &c.next.Named("m")[0].Versions[0]
		var changes []string
		for _, change := range RecordOf(recorded).cost.changes(CostVersions(c.next)) {
			_, from := cutRegion(change.From)
			_, to := cutRegion(change.To)
			changes = append(changes, from+">"+to)
		}
		prices := RecordOf(recorded).Repriced(c.next)
		if got := strings.Join(changes, " "); got != c.changes || len(prices) != c.prices || (next.ID == base.ID) == c.base {
			t.Errorf("%s: %q, %v; want %+v", next.ID, got, prices, c)
		}
		usNow, _ := next.In("us")
		for _, charge := range []struct {
			v    *PriceVersion
			want bool
		}{{base, c.base}, {us, c.us}, {usNow, c.usNow}} {
			for _, data := range []*CommitData{{PriceVersion: charge.v.ID}, {PriceVersion: base.ID + "+10%#01234567*us#01234567", CostVersion: charge.v.ID}} {
				charged := slices.ContainsFunc(prices, func(r Repricing) bool {
					_, charged := r.Charged(&Event{OccurredAt: day("2026-06-01"), Data: data})
					return charged
				})
				if sold := data.CostVersion != ""; charged != charge.want && (!sold || !c.base) {
					t.Errorf("%s by %s: %t", charge.v.ID, next.ID, charged)
				}
			}
		}
	}
}

// TestChargedBy: what names a version of the model, and what only looks like it.
func TestChargedBy(t *testing.T) {
	t.Parallel()
	r := &Repricing{Model: "acme/m", Version: "acme/m@2026-05-01#0000aaaa", From: day("2026-05-01"), Until: day("2026-06-01")}
	for _, c := range []struct {
		data    Data
		charged bool
	}{
		{&CommitData{PriceVersion: "acme/m@launch#01234567"}, true},
		{&CommitData{PriceVersion: "acme/m@2026-05-01#0000aaaa"}, false},
		{&CommitData{PriceVersion: "acme/m@2026-05-01#0000aaaa-10%#99999999", CostVersion: "acme/m@2026-05-01#0000aaaa"}, false},
		{&CommitData{PriceVersion: "acme/m@b@launch#01234567"}, false},
		{&CommitData{PriceVersion: "acme/mm@launch#01234567", Tags: map[string]string{"price_version": "acme/m@launch#01234567"}}, false},
		{&CommitData{PriceVersion: "acme/o@launch#01234567", Lines: []Line{{PriceVersion: "acme/m@2026-01-01T10:00:00Z#01234567"}}}, true},
		{&CommitData{PriceVersion: "acme/o@launch#01234567", CostLines: []Line{{PriceVersion: "acme/m@2026-01-01#01234567"}}}, true},
		{&OverageData{OverageLate, CommitData{PriceVersion: "acme/m@launch#01234567"}}, true},
		{&ReserveData{PriceVersion: "acme/m@launch#01234567"}, false},
	} {
		if _, charged := r.Charged(&Event{OccurredAt: r.From, Data: c.data}); charged != c.charged {
			t.Errorf("%+v: %v", c.data, charged)
		}
		if by, charged := r.Charged(&Event{OccurredAt: r.Until, Data: c.data}); charged {
			t.Errorf("after its end: %s", by)
		}
	}
}

// TestStarts: what a book may write for the beginning of a price, and how that is written.
func TestStarts(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"": "", "2026-05-01": "2026-05-01", "2026-05-01T00:00:00Z": "2026-05-01",
		"2026-05-01T12:30:00+02:00": "2026-05-01T10:30:00Z", "2026-05-01T01:00:00.000Z": "2026-05-01T01:00:00Z"} {
		if at, err := ParseStart(text); err != nil || StartText(at) != want {
			t.Errorf("%q is %q, %v", text, StartText(at), err)
		}
	}
	for _, text := range []string{"soon", "2026-13-01", "0001-01-01", "0001-01-01T00:00:00Z", "2026-05-01T12:00:00.5Z", "2026-05-01T12:00:00", "1e400", "2026-05-01 12:00:00Z"} {
		if at, err := ParseStart(text); err == nil {
			t.Errorf("%q is %s", text, at)
		}
	}
	b := book(t, chat("m", PriceVersion{Rates: rates("input=1 output=2")}, PriceVersion{From: day("2026-05-01").Add(time.Hour), Rates: rates("input=1 output=3")}))
	if _, v, err := b.Lookup("m", day("2026-05-01").Add(time.Hour-1)); err != nil || !v.From.IsZero() {
		t.Errorf("%v, %v", v, err)
	}
	if _, v, err := b.Lookup("m", day("2026-05-01").Add(time.Hour)); err != nil || !strings.HasPrefix(v.ID, "acme/m@2026-05-01T01:00:00Z#") {
		t.Errorf("%v, %v", v, err)
	}
}
