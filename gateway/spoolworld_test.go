package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/gateway"
	"llm-gateway/gateway/provider"
	"llm-gateway/gateway/spooltest"
)

// presence is how a ledger fares.
type presence int

const (
	there    presence = iota
	refusing          // it fails at once
	silent            // it does not answer
	deaf              // what is asked happens, and the answer is lost
	dying             // it is deaf to reserves, then silent
)

// absent is a ledger, with all that is read from it, that can be away.
type absent struct {
	gateway.Ledger
	gateway.Facts
	gateway.Projections

	mu    sync.Mutex
	how   presence
	err   error                       // what it fails with; nil = domain.ErrUnavailable
	only  func(c domain.Command) bool // whom it fails; nil = everybody
	asked int                         // how often it was asked to reserve
}

func (a *absent) set(how presence) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.how = how
}

// fails changes what it fails with.
func (a *absent) fails(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = err
}

func (a *absent) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked
}

// wait is how a question fares that is put now.
func (a *absent) wait(ctx context.Context) (presence, error) {
	a.mu.Lock()
	how, err := a.how, a.err
	a.mu.Unlock()
	if err == nil {
		err = domain.ErrUnavailable
	}
	switch how {
	case there:
		return how, nil
	case silent:
		<-ctx.Done()
		return how, ctx.Err()
	}
	return how, err
}

// Append implements gateway.Ledger.
func (a *absent) Append(ctx context.Context, c domain.Command) (domain.Outcome, error) {
	a.mu.Lock()
	_, reserve := c.Op.(domain.Reserve)
	if reserve {
		a.asked++
	}
	if a.how == dying && !reserve {
		a.how = silent
	}
	spared := a.only != nil && !a.only(c)
	a.mu.Unlock()
	if spared {
		return a.Ledger.Append(ctx, c)
	}
	how, failed := a.wait(ctx)
	if how == there {
		return a.Ledger.Append(ctx, c)
	}
	if how == deaf || how == dying {
		a.Ledger.Append(ctx, c) //nolint:errcheck // nobody hears of it
	}
	return domain.Outcome{}, failed
}

// Account implements gateway.Facts.
func (a *absent) Account(ctx context.Context, name string) (*domain.Account, error) {
	if _, err := a.wait(ctx); err != nil {
		return nil, err
	}
	return a.Facts.Account(ctx, name)
}

// Balance implements gateway.Projections.
func (a *absent) Balance(ctx context.Context, account string, at domain.Position) (*domain.Account, domain.Reading, error) {
	if _, err := a.wait(ctx); err != nil {
		return nil, domain.Reading{}, err
	}
	return a.Projections.Balance(ctx, account, at)
}

// Transactions implements gateway.Projections.
func (a *absent) Transactions(ctx context.Context, account string, limit, offset int, at domain.Position) ([]domain.Transaction, domain.Reading, error) {
	if _, err := a.wait(ctx); err != nil {
		return nil, domain.Reading{}, err
	}
	return a.Projections.Transactions(ctx, account, limit, offset, at)
}

// Stats implements gateway.Projections.
func (a *absent) Stats(ctx context.Context, account string, q domain.StatsQuery, at domain.Position) ([]domain.StatsRow, domain.Reading, error) {
	if _, err := a.wait(ctx); err != nil {
		return nil, domain.Reading{}, err
	}
	return a.Projections.Stats(ctx, account, q, at)
}

// spoolJournal is a Journal in memory.
type spoolJournal struct {
	mu       sync.Mutex
	commands []domain.Command
	fault    error // nil = none
	after    bool  // the fault comes when it is kept already
}

// Put implements gateway.Journal.
func (j *spoolJournal) Put(_ context.Context, c domain.Command) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := c.Validate(); err != nil {
		return err
	}
	c.SpooledAt = time.Now()
	if j.fault == nil || j.after {
		j.commands = append(j.commands, c)
	}
	return j.fault
}

func (j *spoolJournal) fail(err error, after bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.fault, j.after = err, after
}

// spooled are the requests that are kept, as they were spooled.
func (j *spoolJournal) spooled() (out []domain.Spooled) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, c := range j.commands {
		if o, ok := c.Op.(domain.Spooled); ok {
			out = append(out, o)
		}
	}
	return out
}

// drain books what is kept, in its order; what was refused is told.
func (j *spoolJournal) drain(t *testing.T, g *gateway.Gateway) (refused []error) {
	t.Helper()
	j.mu.Lock()
	commands := j.commands
	j.commands = nil
	j.mu.Unlock()
	for _, c := range commands {
		_, err := g.Book(context.Background(), c)
		if rejection := new(domain.Rejection); errors.As(err, &rejection) {
			refused = append(refused, err)
		} else if err != nil {
			t.Fatalf("booking %T: %v", c.Op, err)
		}
	}
	return refused
}

// spooling is a gateway that goes on without its ledger, with an account "spoon" that is open.
type spooling struct {
	*env
	ledger  *absent
	journal *spoolJournal
	holds   *spooltest.Memory
}

// startSpooling starts one whose holds are in memory, unless the options say otherwise.
func startSpooling(t *testing.T, o options, in ...*pipes) *spooling {
	s := &spooling{ledger: &absent{}, journal: &spoolJournal{}, holds: spooltest.NewMemory()}
	if o.spool == nil {
		o.spool = s.holds
	}
	o.journal = s.journal
	s.env = startAbsent(t, s.ledger, o, in...)
	return s
}

// startAbsent starts a gateway over a ledger that can be away. in is what its clients come by; none is the
// loopback.
func startAbsent(t *testing.T, a *absent, o options, in ...*pipes) *env {
	o.wrap = func(l gateway.Ledger) gateway.Ledger { a.Ledger = l; return a }
	o.facts = func(f gateway.Facts) gateway.Facts { a.Facts = f; return a }
	o.views = func(p gateway.Projections) gateway.Projections { a.Projections = p; return a }
	if len(in) > 0 {
		o.listen = in[0].listen
	}
	e := start(t, o)
	if len(in) > 0 {
		e.client = in[0].client()
	}
	e.append("spoon", domain.Open{Grant: domain.MustAmount("100"), Actor: "test"})
	if a := e.get("spoon", "/v1/models"); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	return e
}

// counter reads a counter with one label: "a=1 b=2".
func (e *env) counter(name, label string) string {
	var out []string
	for line := range strings.Lines(e.get("", "/metrics").body) {
		if rest, ok := strings.CutPrefix(line, name+"{"+label+`="`); ok {
			out = append(out, strings.TrimSpace(strings.Replace(rest, `"} `, "=", 1)))
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// spoolCounts is what became of spooled requests. What did not happen is left out: some of it is told of as 0.
func (e *env) spoolCounts() string {
	all := strings.Fields(e.counter("ledger_spooled_total", "result"))
	return strings.Join(slices.DeleteFunc(all, func(one string) bool { return strings.HasSuffix(one, "=0") }), " ")
}

// recovers brings the ledger back, and books what is kept.
func (s *spooling) recovers() (refused []error) {
	s.t.Helper()
	s.ledger.set(there)
	s.journal.fail(nil, false)
	s.gw.Close() // what goes on behind clients' backs
	return s.journal.drain(s.t, s.gw)
}

// wantSpooled: the request is one command, whose charge is what Redis holds for it, and what the client
// was told.
func (s *spooling) wantSpooled(name string, a answer, cost string) uuid.UUID {
	s.t.Helper()
	all := s.journal.spooled()
	if a.status != 200 || len(all) != 1 {
		s.t.Errorf("%s: %d %s; %d spooled", name, a.status, a.body, len(all))
		return uuid.Nil
	}
	id, held := all[0].RequestID, s.holds.Held("spoon")
	want := map[uuid.UUID]string{id: cost}
	if cost == "0" {
		clear(want)
	}
	if a.id() != id || all[0].Charge.String() != cost || !maps.Equal(held, want) || a.header.Get("x-billing-position") != "" {
		s.t.Errorf("%s: request %s costs %s, told %s %v, held %v", name, id, all[0].Charge, a.id(), a.header, held)
	}
	if events, _ := s.memory.Request(context.Background(), "spoon", id); len(events) > 0 {
		s.t.Errorf("%s: it is in the ledger already", name)
	}
	return id
}

// wantBooked: the ledger has the request, once, marked; and Redis has let its hold go.
func (s *spooling) wantBooked(name string, id uuid.UUID, life string) {
	s.t.Helper()
	l := s.life("spoon", id)
	if held := s.holds.Held("spoon"); l.String() != life || len(held) > 0 {
		s.t.Errorf("%s: booked as %q, want %q; held %v", name, l, life, held)
	}
	events, err := s.memory.Request(context.Background(), "spoon", id)
	for i := range events {
		if err != nil || !strings.Contains(string(events[i].Payload), `"spooled_at":"`) {
			s.t.Errorf("%s: not marked: %s, %v", name, events[i].Payload, err)
		}
	}
}

// wantLines: the log has so many lines with these words.
func (e *env) wantLines(name, words string, want int) {
	e.t.Helper()
	if n := strings.Count(e.logs.String(), words); n != want {
		e.t.Errorf("%s: %q is %d times in the log, want %d: %s", name, words, n, want, e.logs)
	}
}

const (
	lineBegins = "the ledger cannot be asked: requests go on"
	lineEnds   = "requests are reserved in the ledger again"
	lineAlarm  = "a charge exceeded what was reserved for it"
)

func sum(amounts ...string) string {
	total := domain.Zero
	for _, a := range amounts {
		total = total.Add(domain.MustAmount(a))
	}
	return fmt.Sprint(total)
}

func simulated() provider.Provider { return provider.NewSimulated() }

// providersOf are a gateway's, of one that stands for the simulated one.
func providersOf(p provider.Provider) map[string]provider.Provider {
	return map[string]provider.Provider{provider.SimulatedName: p}
}

// knows are holds within so much of the account "spoon".
func knows(spendable string) *spooltest.Memory {
	m := spooltest.NewMemory()
	m.Know("spoon", spendable, false)
	return m
}
