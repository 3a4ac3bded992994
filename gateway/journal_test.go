package gateway_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"llm-gateway/domain"
	"llm-gateway/gateway"
)

var errFull = errors.New("no space left on device")

// notebook is a Journal in memory. A nil one is none.
type notebook struct {
	mu    sync.Mutex
	kept  []domain.Command
	err   error                 // what every Put answers
	torn  bool                  // it keeps what it refuses: a write whose outcome is not known
	wait  func(context.Context) // before every Put, if any
	fails func() bool           // whether this Put fails, if any
	asked []domain.Command      // whatever became of it
}

// Put implements gateway.Journal.
func (n *notebook) Put(ctx context.Context, c domain.Command) error {
	if n.wait != nil {
		n.wait(ctx)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = append(n.asked, c)
	err := n.err
	if n.fails != nil && n.fails() {
		err = errFull
	}
	if err == nil || n.torn {
		n.kept = append(n.kept, c)
	}
	return err
}

// take empties it.
func (n *notebook) take() []domain.Command {
	if n == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	out := n.kept
	n.kept = nil
	return out
}

// again is another one that fails in the same way.
func (n *notebook) again() *notebook {
	if n == nil {
		return nil
	}
	return &notebook{err: n.err, torn: n.torn, wait: n.wait}
}

// tried lists what it was asked to keep.
func (n *notebook) tried() []domain.Command {
	if n == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.asked)
}

// count is how many commands it keeps.
func (n *notebook) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.kept)
}

// drain hands what the journal keeps to the ledger, each command twice, as a drain that is killed in
// between would. Only what undoes a reserve that never happened may be refused.
func (e *env) drain() {
	e.t.Helper()
	n, ok := e.o.journal.(*notebook)
	if !ok || n == nil {
		return // none, or one that its test drains
	}
	for _, c := range n.take() {
		c.SpooledAt = time.Now()
		_, err := e.asked.Append(context.Background(), c)
		rejection := new(domain.Rejection)
		if _, undoes := c.Op.(domain.Release); undoes && errors.As(err, &rejection) && rejection.Reason == domain.RejectReservationUnknown {
			continue
		}
		again, err2 := e.asked.Append(context.Background(), c)
		if err != nil || err2 != nil || !again.Repeated {
			e.t.Errorf("%T from the journal: %v; again: %v, repeated: %t", c.Op, err, err2, again.Repeated)
		}
	}
}

// bubble runs a test of a gateway on a fake clock, over pipes.
func bubble(t *testing.T, o options, test func(t *testing.T, e *env)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		o.listen = p.listen
		e := start(t, o)
		e.client = p.client()
		test(t, e)
	})
}

// ending is a ledger whose settlements and releases go through end; what it reserves goes through
// begin, if there is one.
type ending struct {
	gateway.Ledger
	begin, end doing

	mu    sync.Mutex
	asked []domain.Command // settlements and releases
}

// doing does with a command what its test wants.
type doing func(ctx context.Context, c domain.Command, l gateway.Ledger) (domain.Outcome, error)

// Append implements gateway.Ledger.
func (d *ending) Append(ctx context.Context, c domain.Command) (domain.Outcome, error) {
	switch c.Op.(type) {
	case domain.Settle, domain.Release:
		d.mu.Lock()
		d.asked = append(d.asked, c)
		d.mu.Unlock()
		return d.end(ctx, c, d.Ledger)
	case domain.Reserve:
		if d.begin != nil {
			return d.begin(ctx, c, d.Ledger)
		}
	}
	return d.Ledger.Append(ctx, c)
}

func (d *ending) wrap(l gateway.Ledger) gateway.Ledger { d.Ledger = l; return d }

func answers(err error) doing {
	return func(context.Context, domain.Command, gateway.Ledger) (domain.Outcome, error) {
		return domain.Outcome{}, err
	}
}

func neverAnswers(ctx context.Context, _ domain.Command, _ gateway.Ledger) (domain.Outcome, error) {
	<-ctx.Done()
	return domain.Outcome{}, ctx.Err()
}

// happens is an append whose answer is lost.
func happens(_ context.Context, c domain.Command, l gateway.Ledger) (domain.Outcome, error) {
	if _, err := l.Append(context.Background(), c); err != nil {
		return domain.Outcome{}, err
	}
	return domain.Outcome{}, domain.ErrUnavailable
}

// happensLate is an append that happens when nobody waits for it any more.
func happensLate(ctx context.Context, c domain.Command, l gateway.Ledger) (domain.Outcome, error) {
	<-ctx.Done()
	return happens(ctx, c, l)
}

// absences are the ways in which a ledger does not say that something has happened.
var absences = map[string]doing{
	"unavailable": answers(domain.ErrUnavailable), "overloaded": answers(domain.ErrOverloaded),
	"a deadline": answers(context.DeadlineExceeded), "an unknown error": answers(errAway), "closed": answers(errors.New("ledger closed")),
	"no answer": neverAnswers, "the answer is lost": happens, "it happens too late": happensLate,
}

// TestSettlementsInTheJournal: while the ledger is away, whatever ends a request is in the journal, under
// the id that the ledger was asked with, before the client has the end of its answer; it has that whole
// within seconds, with its cost and without a position. Handed to the ledger, it happens once.
func TestSettlementsInTheJournal(t *testing.T) {
	t.Parallel()
	for away, end := range absences {
		for _, c := range []struct{ name, path, prompt, life string }{
			{"whole", chatPath, "x", "reserve commit(provider) refund(remainder)"},
			{"streamed", streamPath, "x", "reserve commit(provider) refund(remainder)"},
			{"cut", streamPath, "sim:tokens=9 sim:cut=4", "reserve commit(counted) refund(remainder)"},
			{"refused", chatPath, "sim:status=500", "reserve refund(provider_error)"},
			{"refused stream", streamPath, "sim:status=500", "reserve refund(provider_error)"},
		} {
			d, n := &ending{end: end}, &notebook{}
			bubble(t, options{wrap: d.wrap, journal: n}, func(t *testing.T, e *env) {
				name, began := c.name+", "+away, time.Now()
				a := e.post("ada", c.path, chatBody("sim-small", c.prompt, ""))
				if took := time.Since(began); took > 3*time.Second {
					t.Errorf("%s: it took %s", name, took)
				}
				if n.count() != 1 || len(d.asked) != 1 || n.kept[0].ID != d.asked[0].ID {
					t.Fatalf("%s: %d in the journal, %d asked of the ledger", name, n.count(), len(d.asked))
				}
				e.drain()
				l := e.life("ada", a.id())
				if l.String() != c.life {
					t.Errorf("%s: %q, want %q", name, l, c.life)
				}
				checkBilledWithoutPlace(t, name, c.name, a, l)
			})
		}
	}
}

// checkBilledWithoutPlace: the client has the answer and its cost; only where the charge stands is not
// known yet.
func checkBilledWithoutPlace(t *testing.T, name, kind string, a answer, l life) {
	t.Helper()
	if position, told := a.header["X-Billing-Position"]; told {
		t.Errorf("%s: position %q", name, position)
	}
	switch kind {
	case "whole":
		if a.status != 200 || a.header.Get("x-billing-cost") != l.commit.Amount.String() || a.json("choices.#").Int() != 1 {
			t.Errorf("%s: %d, cost %q of %s: %s", name, a.status, a.header.Get("x-billing-cost"), l.commit.Amount, a.body)
		}
	case "streamed":
		s := a.events(t)
		if bill := s.bill(t); !s.done || bill.Get("cost").Str != l.commit.Amount.String() || bill.Get("position").Raw != "null" {
			t.Errorf("%s: done: %t, %s", name, s.done, bill.Raw)
		}
	case "cut":
		if s := a.events(t); a.status != 200 || s.done || s.failure == "" || len(s.comments) > 0 {
			t.Errorf("%s: %d %+v", name, a.status, s)
		}
	default:
		checkError(t, name, a, 502, "upstream_error", "upstream_error")
	}
}

// TestJournalComesBeforeTheLastByte: while the journal has not said that a settlement is durable, the
// client does not have the end of its answer.
func TestJournalComesBeforeTheLastByte(t *testing.T) {
	t.Parallel()
	for path, already := range map[string]string{chatPath: "", streamPath: "data: "} {
		synctest.Test(t, func(t *testing.T) {
			d, release := &ending{end: answers(domain.ErrUnavailable)}, make(chan struct{})
			n := &notebook{wait: func(context.Context) { <-release }}
			p := newPipes()
			e := start(t, options{listen: p.listen, wrap: d.wrap, journal: n})
			conn := p.dial()
			e.dial(conn, "bea", path, chatBody("sim-small", "sim:tokens=3", ""))
			var mu sync.Mutex
			var got strings.Builder
			go func() {
				for part := make([]byte, 4096); ; {
					n, err := conn.Read(part)
					mu.Lock()
					got.Write(part[:n])
					mu.Unlock()
					if err != nil {
						return
					}
				}
			}()
			synctest.Wait()
			mu.Lock()
			if before := got.String(); (already == "") != (before == "") || !strings.Contains(before, already) || strings.Contains(before, "[DONE]") || strings.Contains(before, "billing {") {
				t.Errorf("%s: before the journal has it, the client has %q", path, before)
			}
			mu.Unlock()
			close(release)
			e.await(1)
			synctest.Wait()
			mu.Lock()
			if after := got.String(); n.count() != 1 || strings.Contains(after, "[DONE]") != (path == streamPath) || !strings.Contains(after, "choices") {
				t.Errorf("%s: %d in the journal, the client has %q", path, n.count(), after)
			}
			mu.Unlock()
			conn.Close() //nolint:errcheck // done
		})
	}
}

// TestReservesOfUnknownOutcome: one that happened although nobody heard of it is undone by way of the
// journal, and one that did not leaves nothing.
func TestReservesOfUnknownOutcome(t *testing.T) {
	t.Parallel()
	for begun, begin := range absences {
		for ended, end := range absences {
			d, n := &ending{begin: begin, end: end}, &notebook{}
			bubble(t, options{wrap: d.wrap, journal: n}, func(t *testing.T, e *env) {
				name := begun + ", then " + ended
				began := time.Now()
				a := e.post("cleo", streamPath, chatBody("sim-small", "x", ""))
				code := "ledger_unavailable"
				if begun == "overloaded" {
					code = "overloaded"
				}
				checkError(t, name, a, 503, "service_unavailable", code)
				if took := time.Since(began); took > 3*time.Second || a.header.Get("Retry-After") == "" {
					t.Errorf("%s: it took %s, Retry-After %q", name, took, a.header.Get("Retry-After"))
				}
				e.gw.Close()
				// A ledger that handles the release knows, and says, that there is nothing to release.
				happened, handled := strings.Contains(begun, "late") || strings.Contains(begun, "lost"), strings.Contains(ended, "late") || strings.Contains(ended, "lost")
				if journaled := n.count() == 1; journaled != (begun != "overloaded" && (happened || !handled)) {
					t.Errorf("%s: %d in the journal", name, n.count())
				}
				e.drain()
				for _, id := range e.asked.reserved("cleo") {
					if l := e.life("cleo", id).String(); l != "" && l != "reserve refund(internal_error)" {
						t.Errorf("%s: %q", name, l)
					}
				}
			})
		}
	}
}

// TestJournalRefuses: where the journal does not take a settlement, or there is none, the ledger is asked
// again, for a minute. The answer goes out once either has it, and not before.
func TestJournalRefuses(t *testing.T) {
	t.Parallel()
	hangs := func(ctx context.Context) { <-ctx.Done() }
	for name, n := range map[string]*notebook{"none": nil, "full": {err: errFull}, "torn": {err: errFull, torn: true}, "it hangs": {err: context.DeadlineExceeded, wait: hangs}} {
		for away, end := range absences {
			for _, back := range []time.Duration{0, 20 * time.Second, time.Hour} {
				for _, path := range []string{chatPath, streamPath} {
					checkJournalRefuses(t, name+", "+away, n.again(), end, back, path)
				}
			}
		}
	}
}

func checkJournalRefuses(t *testing.T, name string, n *notebook, end doing, back time.Duration, path string) {
	t.Helper()
	var until time.Time
	d := &ending{end: func(ctx context.Context, c domain.Command, l gateway.Ledger) (domain.Outcome, error) {
		if time.Now().Before(until) { // what waits for it has its answer when it is back
			away, cancel := context.WithDeadline(ctx, until)
			defer cancel()
			if out, err := end(away, c, l); away.Err() == nil || ctx.Err() != nil {
				return out, err
			}
		}
		return l.Append(ctx, c)
	}}
	kept := n != nil && n.torn
	bubble(t, options{wrap: d.wrap, journal: n, open: func(domain.Command) bool { return back == time.Hour && !kept }}, func(t *testing.T, e *env) {
		until = time.Now().Add(back)
		if back == 0 { // it is back when it is asked again
			until, d.end = time.Time{}, once(d.end, brief(end))
		}
		name, began := name+", back after "+back.String()+", "+path, time.Now()
		a := e.post("dora", path, chatBody("sim-small", "x", ""))
		if took := time.Since(began); took > 69*time.Second {
			t.Errorf("%s: it took %s", name, took)
		}
		for _, c := range append(slices.Clone(d.asked), n.tried()...) {
			if c.ID != d.asked[0].ID {
				t.Errorf("%s: asked under two ids", name)
			}
		}
		l := e.life("dora", a.id())
		if back < time.Hour {
			checkServed(t, name, path, a, l)
			return
		}
		checkWithheld(t, name, path, a)
		e.drain()
		l = e.life("dora", a.id())
		if l.String() != "reserve" && l.String() != "reserve commit(provider) refund(remainder)" || kept && l.commit == nil {
			t.Errorf("%s: %q", name, l)
		}
	})
}

// once does first with the first command, and then what then does.
func once(then, first doing) doing {
	done := false
	return func(ctx context.Context, c domain.Command, l gateway.Ledger) (domain.Outcome, error) {
		if !done {
			done = true
			return first(ctx, c, l)
		}
		return then(ctx, c, l)
	}
}

// brief is end, for a few seconds.
func brief(end doing) doing {
	return func(ctx context.Context, c domain.Command, l gateway.Ledger) (domain.Outcome, error) {
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		return end(ctx, c, l)
	}
}

func checkServed(t *testing.T, name, path string, a answer, l life) {
	t.Helper()
	if a.status != 200 || l.String() != "reserve commit(provider) refund(remainder)" {
		t.Errorf("%s: %d %q: %s", name, a.status, l, a.body)
		return
	}
	if path == chatPath {
		checkPosition(t, l, a.header.Get("x-billing-position"))
	} else {
		checkPosition(t, l, a.events(t).bill(t).Get("position").Str)
	}
}

// checkWithheld: the answer does not end as one does that was paid for.
func checkWithheld(t *testing.T, name, path string, a answer) {
	t.Helper()
	if path == chatPath {
		checkError(t, name, a, 503, "service_unavailable", "ledger_unavailable")
	} else if s := a.events(t); s.done || len(s.comments) > 0 || s.failure != "ledger_unavailableservice_unavailable" {
		t.Errorf("%s: done: %t, %q, failure %q", name, s.done, s.comments, s.failure)
	}
}

// TestDecidedIsNotJournaled: what the ledger has refused for good, or can never hold, is no matter for
// the journal: it would be refused again.
func TestDecidedIsNotJournaled(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err  error
		life string
	}{
		"not storable":           {domain.ErrUnstorable, "reserve refund(internal_error)"},
		"invalid":                {&domain.Rejection{Reason: domain.RejectInvalid}, "reserve refund(internal_error)"},
		"settled by someone":     {&domain.Rejection{Reason: domain.RejectAlreadySettled}, "reserve"},
		"unknown to the ledger":  {&domain.Rejection{Reason: domain.RejectReservationUnknown}, "reserve"},
		"not storable, enclosed": {errors.Join(errAway, domain.ErrUnstorable), "reserve refund(internal_error)"},
	} {
		for _, path := range []string{chatPath, streamPath} {
			d, n := &ending{}, &notebook{}
			d.end = once(func(ctx context.Context, c domain.Command, l gateway.Ledger) (domain.Outcome, error) {
				return l.Append(ctx, c)
			}, answers(c.err))
			e := start(t, options{wrap: d.wrap, journal: n, open: func(domain.Command) bool { return c.life == "reserve" }})
			a := e.post("emma", path, chatBody("sim-small", "x", ""))
			if l := e.life("emma", a.id()); l.String() != c.life || len(n.asked) > 0 {
				t.Errorf("%s: %q, want %q; %d went to the journal", name, l, c.life, len(n.asked))
			}
			if path == chatPath {
				checkError(t, name, a, 500, "server_error", "internal_error")
			} else if s := a.events(t); s.done || s.failure != "internal_errorserver_error" {
				t.Errorf("%s: %+v", name, s)
			}
		}
	}
}

// TestJournaledInMetricsAndLog: an operator sees what went to the journal, and no position that is none.
func TestJournaledInMetricsAndLog(t *testing.T) {
	t.Parallel()
	d, n := &ending{end: answers(domain.ErrUnavailable)}, &notebook{}
	e := start(t, options{wrap: d.wrap, journal: n})
	e.chat("finn", chatBody("sim-small", "x sim:tokens=9", ""))
	metrics := e.get("", "/metrics").body
	for _, want := range []string{`ledger_journaled_total{result="written"} 1`, `llm_tokens_total{direction="output",model="sim-small"} 9`} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("no %s in the metrics", want)
		}
	}
	if logs := e.logs.String(); strings.Contains(logs, `"position"`) || !strings.Contains(logs, `"cost"`) {
		t.Errorf("the log says %s", logs)
	}
}
