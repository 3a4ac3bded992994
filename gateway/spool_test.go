package gateway_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/gateway"
	"llm-gateway/gateway/provider"
)

// TestSpool: while the ledger is away a call goes on within what Redis knows, is one command in the
// journal before its last byte, and is booked as the request that it was.
func TestSpool(t *testing.T) {
	t.Parallel()
	long := strings.Repeat(" international", 2000) // 28,000 bytes, 2,000 tokens
	const settled = "reserve commit(provider)"
	for _, c := range []struct {
		name, spendable, path, body string
		policy                      gateway.ReservePolicy
		cost                        string // "" = whatever it is
		life                        string
		cap                         bool
	}{
		{"whole", "1", chatPath, chatBody("sim-flat", "x", ""), "", "0.01", settled, false},
		{"streamed", "1", streamPath, chatBody("sim-flat", "x", ""), "", "0.01", settled, false},
		{"just enough", "0.01", chatPath, chatBody("sim-flat", "x", ""), "", "0.01", settled, false},
		{"by tokens", "1", chatPath, chatBody("sim-small", "sim:tokens=5", ""), "", "", settled + " refund(remainder)", false},
		{"by tokens, streamed", "1", streamPath, chatBody("sim-small", "sim:tokens=5", ""), "", "", settled + " refund(remainder)", false},
		{"cut", "1", streamPath, chatBody("sim-small", "sim:tokens=9 sim:cut=4", ""), "", "", "reserve commit(counted) refund(remainder)", false},
		{"capped", "0.005", chatPath, chatBody("sim-small", "sim:tokens=5", ""), "", "", settled + " refund(remainder)", true},
		{"counted", "0.0005", chatPath, chatBody("sim-small", long, `,"max_tokens":10`), gateway.ReserveRefuse, "", settled + " refund(remainder)", false},
		{"counted and capped", "0.0005", streamPath, chatBody("sim-small", long, ""), "", "", settled + " refund(remainder)", true},
		{"free", "0", chatPath, chatBody("sim-free", "x", ""), "", "0", settled, false},
		{"free, with less than nothing", "-1", streamPath, chatBody("sim-free", "x", ""), "", "0", settled, false},
	} {
		s := startSpooling(t, options{policy: c.policy})
		s.holds.Know("spoon", c.spendable, false)
		s.ledger.set(refusing)
		a := s.post("spoon", c.path, c.body)
		if all := s.journal.spooled(); c.cost == "" && len(all) == 1 {
			c.cost = all[0].Charge.String()
		}
		id := s.wantSpooled(c.name, a, c.cost)
		if (a.header.Get("x-billing-output-cap") != "") != c.cap {
			t.Errorf("%s: capped at %q", c.name, a.header.Get("x-billing-output-cap"))
		}
		if c.path == chatPath && a.header.Get("x-billing-cost") != c.cost {
			t.Errorf("%s: told a cost of %q", c.name, a.header.Get("x-billing-cost"))
		}
		if c.path == streamPath && !strings.Contains(c.body, "sim:cut") {
			if bill := a.events(t).bill(t); bill.Get("cost").Str != c.cost || bill.Get("position").Raw != "null" || bill.Get("request_id").Str != id.String() {
				t.Errorf("%s: the bill is %s", c.name, bill.Raw)
			}
		}
		if refused := s.recovers(); len(refused) > 0 {
			t.Errorf("%s: refused: %v", c.name, refused)
		}
		s.wantBooked(c.name, id, c.life)
		if got := s.available("spoon"); got != sum("100", "-"+c.cost) {
			t.Errorf("%s: %s is left", c.name, got)
		}
		if got := s.spoolCounts(); got != "booked=1 charged=1 held=1" {
			t.Errorf("%s: counted %s", c.name, got)
		}
		s.wantLines(c.name, lineBegins, 1)
	}
}

// TestSpoolRefuses: what is not sure is not bought: nobody calls the provider, nothing stays held.
func TestSpoolRefuses(t *testing.T) {
	t.Parallel()
	flat, free := chatBody("sim-flat", "x", ""), chatBody("sim-free", "x", "")
	plenty := func(s *spooling) { s.holds.Know("spoon", "1", false) }
	for _, c := range []struct {
		name    string
		prepare func(*spooling)
		o       options
		body    string
		key     string
		status  int
		code    string
		counts  string
	}{
		{"too little", func(s *spooling) { s.holds.Know("spoon", "0.009", false) }, options{}, flat, "", 402, "insufficient_quota", "refused=1"},
		{"nothing", func(s *spooling) { s.holds.Know("spoon", "0", false) }, options{}, flat, "", 402, "insufficient_quota", "refused=1"},
		{"not capped by policy", func(s *spooling) { s.holds.Know("spoon", "0.005", false) }, options{policy: gateway.ReserveRefuse},
			chatBody("sim-small", "x", ""), "", 402, "insufficient_quota", "refused=1"},
		{"not capped by wish", func(s *spooling) { s.holds.Know("spoon", "0.005", false) }, options{},
			chatBody("sim-small", "x", `,"max_tokens":16000`), "", 402, "insufficient_quota", "refused=1"},
		{"frozen", func(s *spooling) { s.holds.Know("spoon", "1", true) }, options{}, flat, "", 403, "account_frozen", "refused=1"},
		{"frozen and free", func(s *spooling) { s.holds.Know("spoon", "1", true) }, options{}, free, "", 403, "account_frozen", "refused=1"},
		{"unknown", func(*spooling) {}, options{}, flat, "", 503, "ledger_unavailable", "unknown=1"},
		{"unknown and free", func(*spooling) {}, options{}, free, "", 503, "ledger_unavailable", "unknown=1"},
		{"Redis is away too", func(s *spooling) { s.holds.Fail(errAway, false) }, options{}, flat, "", 503, "ledger_unavailable", "failed=1"},
		{"too many holds", func(s *spooling) { s.holds.Fail(domain.ErrOverloaded, false) }, options{}, flat, "", 503, "overloaded", "failed=1"},
		{"a key", plenty, options{}, flat, "a-key", 503, "ledger_unavailable", ""},
		{"the ledger is busy", func(s *spooling) { plenty(s); s.ledger.fails(domain.ErrOverloaded) }, options{}, flat, "", 503, "overloaded", ""},
		{"the ledger failed", func(s *spooling) { plenty(s); s.ledger.fails(errors.New("connection reset")) }, options{}, flat, "", 503, "ledger_unavailable", ""},
		{"the ledger has decided", func(s *spooling) {
			plenty(s)
			s.ledger.fails(&domain.Rejection{Reason: domain.RejectInsufficientFunds, Account: "spoon"})
		}, options{}, flat, "", 402, "insufficient_quota", ""},
	} {
		watched := &spy{Provider: simulated()}
		c.o.providers = providersOf(watched)
		s := startSpooling(t, c.o)
		c.prepare(s)
		s.ledger.set(refusing)
		r := s.request("POST", "spoon", chatPath, c.body)
		if c.key != "" {
			r.Header.Set("Idempotency-Key", c.key)
		}
		a := s.do(r)
		if a.status != c.status || a.code() != c.code || (a.header.Get("Retry-After") != "") != (c.status == 503) {
			t.Errorf("%s: %d %s", c.name, a.status, a.body)
		}
		if got := s.spoolCounts(); got != c.counts || watched.count() != 0 {
			t.Errorf("%s: counted %q; %d calls", c.name, got, watched.count())
		}
		if held, spooled := s.holds.Held("spoon"), s.journal.spooled(); len(held)+len(spooled) > 0 {
			t.Errorf("%s: held %v, spooled %v", c.name, held, spooled)
		}
		s.ledger.fails(nil)
		s.holds.Fail(nil, false)
		if refused := s.recovers(); len(refused) > 0 {
			t.Errorf("%s: refused: %v", c.name, refused)
		}
		s.wantLines(c.name, lineBegins, 0)
	}
}

// TestSpoolIsChosen: without the choice, or a journal, the ledger's absence is a 503.
func TestSpoolIsChosen(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]options{"no spool": {journal: &spoolJournal{}}, "no journal": {spool: knows("1")}, "neither": {}} {
		a := &absent{}
		e := startAbsent(t, a, o)
		a.set(refusing)
		checkError(t, name, e.chat("spoon", chatBody("sim-flat", "x", "")), 503, "service_unavailable", "ledger_unavailable")
		a.set(there)
		e.gw.Close()
		if got := e.spoolCounts(); got != "" {
			t.Errorf("%s: counted %s", name, got)
		}
	}
}

// TestSpoolWithoutALease: a process that may not reserve in the ledger may still spool.
func TestSpoolWithoutALease(t *testing.T) {
	t.Parallel()
	s := startSpooling(t, options{owned: func() bool { return false }})
	s.holds.Know("spoon", "0.01", false)
	asked := s.ledger.count()
	s.wantSpooled("no lease", s.chat("spoon", chatBody("sim-flat", "x", "")), "0.01")
	if n := s.ledger.count(); n != asked {
		t.Errorf("the ledger was asked %d times", n-asked)
	}
	checkError(t, "a key", s.ask("spoon", "k", chatPath, chatBody("sim-flat", "x", "")), 503, "service_unavailable", "ledger_unavailable")
	s.recovers()
}

// TestSpoolOnCredit: what Redis knows includes the credit limit, and so does what the ledger covers.
func TestSpoolOnCredit(t *testing.T) {
	t.Parallel()
	s := startSpooling(t, options{overages: true}) // below zero by credit
	s.append("spoon", domain.Debit{Amount: domain.MustAmount("100"), Data: domain.MovementData{Reference: "r", Actor: "test"}})
	s.lend("spoon", "0.02")
	s.holds.Know("spoon", "0.02", false)
	s.ledger.set(refusing)
	for i, want := range []int{200, 200, 402} {
		if a := s.chat("spoon", chatBody("sim-flat", "x", "")); a.status != want {
			t.Errorf("%d: %d %s", i, a.status, a.body)
		}
	}
	if refused := s.recovers(); len(refused) > 0 || s.available("spoon") != "-0.02" {
		t.Errorf("%v, %s is left", refused, s.available("spoon"))
	}
	if got := s.spoolCounts(); got != "booked=2 charged=2 held=2 refused=1" {
		t.Errorf("counted %s", got)
	}
}

// TestSpoolNotCovered: what Redis knew is gone when the ledger is back: the charge stands, as an overage,
// and is alarmed.
func TestSpoolNotCovered(t *testing.T) {
	t.Parallel()
	for name, undo := range map[string]func(s *spooling){
		"debited": func(s *spooling) {
			s.append("spoon", domain.Debit{Amount: domain.MustAmount("99.995"), Data: domain.MovementData{Reference: "r", Actor: "test"}})
		},
		"frozen": func(s *spooling) { s.freeze("spoon", true) },
	} {
		s := startSpooling(t, options{overages: true})
		s.holds.Know("spoon", "100", false)
		s.ledger.set(refusing)
		id := s.wantSpooled(name, s.chat("spoon", chatBody("sim-flat", "x", "")), "0.01")
		s.gw.Close()
		undo(s)
		before := s.account("spoon").Available
		if refused := s.recovers(); len(refused) > 0 {
			t.Errorf("%s: refused: %v", name, refused)
		}
		s.wantBooked(name, id, "overage(spooled)")
		if got := s.account("spoon").Available; !got.Equal(before.Sub(domain.MustAmount("0.01"))) {
			t.Errorf("%s: %s became %s", name, before, got)
		}
		if got := s.spoolCounts(); got != "charged=1 held=1 overage=1" || !strings.Contains(s.get("", "/metrics").body, `ledger_overages_total{reason="spooled"} 1`+"\n") {
			t.Errorf("%s: counted %s", name, got)
		}
		s.wantLines(name, lineAlarm, 1)
		if v := s.get("spoon", "/billing/requests/"+id.String()); v.json("state").Str != "settled" || v.json("model").Str != "sim-flat" ||
			v.json("charged").Str != "0.01" || v.json("lines.2.amount").Raw != "0.01" || !v.json("bound.lines").IsArray() || v.json("reserved").Str != "0" {
			t.Errorf("%s: it is told as %s", name, v.body)
		}
	}
}

// TestSpoolHoldUnknown: a hold of which nobody knows whether it was taken is a 503, and is dropped.
func TestSpoolHoldUnknown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := startSpooling(t, options{}, newPipes())
		s.holds.Know("spoon", "0.01", false)
		s.ledger.set(refusing)
		s.holds.Interrupt(func(ctx context.Context) (bool, error) { <-ctx.Done(); return true, ctx.Err() })
		began := time.Now()
		a := s.chat("spoon", chatBody("sim-flat", "x", ""))
		checkError(t, "the answer was lost", a, 503, "service_unavailable", "ledger_unavailable")
		if took := time.Since(began); took != 500*time.Millisecond || len(s.holds.Held("spoon")) != 1 {
			t.Errorf("after %s, held %v", took, s.holds.Held("spoon"))
		}
		s.holds.Fail(errAway, false)
		time.AfterFunc(1500*time.Millisecond, func() { s.holds.Fail(nil, false) })
		s.gw.Close()
		if took := time.Since(began); len(s.holds.Held("spoon")) > 0 || took > 5*time.Second {
			t.Errorf("after %s, held %v", took, s.holds.Held("spoon"))
		}
		s.wantSpooled("again", s.chat("spoon", chatBody("sim-flat", "x", "")), "0.01")
		s.recovers()
	})
}

// TestBook: what the journal hands over is booked once, however often it comes, and what has nothing to
// undo is no error.
func TestBook(t *testing.T) {
	t.Parallel()
	s := startSpooling(t, options{overages: true})
	s.holds.Know("spoon", "1", false)
	s.ledger.set(refusing)
	id := s.wantSpooled("spooled", s.chat("spoon", chatBody("sim-flat", "x", "")), "0.01")
	s.gw.Close()
	kept := s.journal.commands
	if len(kept) != 2 {
		t.Fatalf("%d commands are kept; want the request, and the release of the reserve that failed", len(kept))
	}
	for _, c := range kept {
		if _, err := s.gw.Book(t.Context(), c); !errors.Is(err, domain.ErrUnavailable) {
			t.Errorf("without the ledger: %v", err)
		}
	}
	if held := s.holds.Held("spoon"); len(held) != 1 {
		t.Errorf("held %v, and nothing is booked", held)
	}
	s.ledger.set(there)
	for range 3 { // a process that dies before it has noted what is booked begins again
		for _, c := range kept {
			if _, err := s.gw.Book(t.Context(), c); err != nil {
				t.Errorf("%T: %v", c.Op, err)
			}
		}
	}
	s.wantBooked("booked", id, "reserve commit(provider)")
	if got := s.spoolCounts(); got != "booked=3 charged=1 held=1" || s.available("spoon") != "99.99" {
		t.Errorf("counted %s, %s is left", got, s.available("spoon"))
	}
	nobody := domain.Command{ID: domain.CommandID(uuid.Must(uuid.NewV7())), Account: "nobody", Op: s.asSpooled(kept)}
	if _, err := s.gw.Book(t.Context(), nobody); err == nil || s.spoolCounts() != "booked=3 charged=1 held=1 rejected=1" {
		t.Errorf("of an account that is not open: %v, counted %s", err, s.spoolCounts())
	}
}

// TestBookReleases: a release has its way where there is a reserve, and otherwise nothing to do.
func TestBookReleases(t *testing.T) {
	t.Parallel()
	s := startSpooling(t, options{})
	s.ledger.set(deaf) // the reserve happens, and nobody hears of it
	checkError(t, "the answer is lost", s.chat("spoon", chatBody("sim-flat", "x", "")), 503, "service_unavailable", "ledger_unavailable")
	s.gw.Close()
	kept := s.journal.commands
	if len(kept) != 1 || s.available("spoon") != "99.99" {
		t.Fatalf("%d commands are kept, %s is left", len(kept), s.available("spoon"))
	}
	s.ledger.set(there)
	release := kept[0]
	if _, err := s.gw.Book(t.Context(), release); err != nil || s.available("spoon") != "100" {
		t.Errorf("%v, %s is left", err, s.available("spoon"))
	}
	for name, id := range map[string]uuid.UUID{"released meanwhile": release.Op.Request(), "never reserved": uuid.New()} {
		c := domain.Command{ID: domain.CommandID(uuid.Must(uuid.NewV7())), Account: "spoon", Op: domain.Release{RequestID: id, Reason: domain.RefundInternalError}}
		if out, err := s.gw.Book(t.Context(), c); err != nil || len(out.Events) > 0 {
			t.Errorf("%s: %v, %v", name, out, err)
		}
	}
	c := release
	c.Account = "nobody"
	c.ID = domain.CommandID(uuid.Must(uuid.NewV7()))
	if _, err := s.gw.Book(t.Context(), c); err == nil {
		t.Error("of an account that is not open")
	}
	s.recovers()
}

// TestBookIsSeen: what comes back by a booking counts at once, although a no was confirmed a moment ago.
func TestBookIsSeen(t *testing.T) {
	t.Parallel()
	clock, known := &clock{at: time.Now()}, &cache{}
	s := startSpooling(t, options{now: clock.now, balances: known})
	known.says("0", false)
	id := uuid.New()
	s.append("spoon", domain.Reserve{RequestID: id, Amount: domain.MustAmount("100"), Data: domain.ReserveData{Surface: "x", Model: "x", PriceVersion: "x", BodyHash: "x", Owner: uuid.New()}})
	checkError(t, "all is reserved", s.chat("spoon", chatBody("sim-flat", "x", "")), 402, "insufficient_quota", "insufficient_quota")
	c := domain.Command{ID: domain.CommandID(uuid.Must(uuid.NewV7())), Account: "spoon", Op: domain.Release{RequestID: id, Reason: domain.RefundInternalError}}
	if _, err := s.gw.Book(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if a := s.chat("spoon", chatBody("sim-flat", "x", "")); a.status != 200 {
		t.Errorf("released: %d %s", a.status, a.body)
	}
}

// TestSpoolAfterAReserve: a reserve that happened unheard does not make an overage of what is spooled after
// it, though both are more than there is: its release is booked first.
func TestSpoolAfterAReserve(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := startSpooling(t, options{}, newPipes())
		s.append("spoon", domain.Debit{Amount: domain.MustAmount("99.985"), Data: domain.MovementData{Reference: "r", Actor: "test"}})
		s.holds.Know("spoon", "0.015", false)
		s.ledger.set(dying)
		id := s.wantSpooled("spooled", s.chat("spoon", chatBody("sim-flat", "x", "")), "0.01")
		if got := s.available("spoon"); got != "0.005" {
			t.Errorf("%s is left beside the reserve that nobody heard of", got)
		}
		s.recovers()
		s.wantBooked("booked", id, "reserve commit(provider)")
		if got := s.available("spoon"); got != "0.005" {
			t.Errorf("%s is left", got)
		}
	})
}

// TestBookAlarms: a charge that was not covered is reported although the answer to its first booking was
// lost, whichever way it was journaled.
func TestBookAlarms(t *testing.T) {
	t.Parallel()
	var s *spooling
	s = startSpooling(t, options{overages: true, providers: providersOf(&scripted{complete: func(ctx context.Context, r provider.Request) (*provider.Completion, error) {
		s.ledger.set(refusing)
		answer, err := simulated().Complete(ctx, r)
		answer.Report.Usage.Output = 50_000
		return answer, err
	}})})
	s.holds.Know("spoon", "100", false)
	for range 2 { // reserved in the ledger, then in Redis
		if a := s.chat("spoon", chatBody("sim-small", "x", "")); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	s.gw.Close()
	kept := s.journal.commands
	s.ledger.set(deaf)
	for _, c := range kept {
		if _, err := s.gw.Book(t.Context(), c); err == nil {
			t.Errorf("%T: no error", c.Op)
		}
	}
	s.wantLines("the answers are lost", lineAlarm, 0)
	s.recovers()
	s.wantLines("again", lineAlarm, 2)
	if got := s.counter("ledger_overages_total", "reason"); got != "beyond_bound=2 late=0 spooled=0" {
		t.Errorf("the overages are counted as %s", got)
	}
}

// asSpooled is the spooled request among commands, as another one.
func (s *spooling) asSpooled(commands []domain.Command) domain.Spooled {
	for _, c := range commands {
		if o, ok := c.Op.(domain.Spooled); ok {
			o.RequestID = uuid.New()
			return o
		}
	}
	s.t.Fatal("nothing is spooled")
	return domain.Spooled{}
}
