package gateway_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/gateway"
	"llm-gateway/gateway/provider"
)

// expiring is the simulated provider; while it is called, or after so many chunks, the account's one open
// reservation is taken for a dead process's.
func expiring(e **env, account string, after int) *scripted {
	expire := func() {
		for _, id := range (*e).asked.reserved(account) {
			if l := (*e).life(account, id); l.commit == nil && l.refund == nil {
				(*e).append(account, domain.Release{RequestID: id, Reason: domain.RefundExpired})
			}
		}
	}
	return &scripted{complete: func(ctx context.Context, r provider.Request) (*provider.Completion, error) {
		expire()
		return provider.NewSimulated().Complete(ctx, r)
	}, stream: func(ctx context.Context, r provider.Request) (provider.Stream, error) {
		s, err := provider.NewSimulated().Stream(ctx, r)
		if err != nil {
			expire()
		}
		return &interrupted{Stream: s, left: after, then: expire}, err
	}}
}

// interrupted is a stream in which something happens after so many chunks.
type interrupted struct {
	provider.Stream
	left int
	then func()
}

// Next implements provider.Stream.
func (s *interrupted) Next() (provider.Chunk, error) {
	if s.left--; s.left == -1 {
		s.then()
	}
	return s.Stream.Next()
}

// TestLate: a request whose reservation has expired behind its back is charged all the same, once, as an
// overage; its client has its answer, and everything that is shown says what happened.
func TestLate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, path, prompt string
		journal            bool // the ledger is away when it settles
		done               bool
	}{
		{"whole", chatPath, "hello", false, true}, {"streamed", streamPath, "sim:tokens=9", false, true},
		{"cut", streamPath, "sim:tokens=9 sim:cut=6", false, false},
		{"whole, by the journal", chatPath, "hello", true, true}, {"streamed, by the journal", streamPath, "sim:tokens=9", true, true},
	} {
		var e *env
		d, n := &ending{end: answers(domain.ErrUnavailable)}, &notebook{}
		o := options{overages: true, providers: map[string]provider.Provider{"simulated": expiring(&e, "xaver", 3)}}
		if c.journal {
			o.wrap, o.journal = d.wrap, n
		}
		e = start(t, o)
		a := e.post("xaver", c.path, chatBody("sim-small", c.prompt, ""))
		e.drain()
		l := e.life("xaver", a.id())
		if a.status != 200 || l.String() != "reserve refund(expired) overage(late)" {
			t.Fatalf("%s: %d %q: %s", c.name, a.status, l, a.body)
		}
		if left := domain.MustAmount("100").Sub(l.overage.Amount); e.available("xaver") != left.String() {
			t.Errorf("%s: %s is left, want %s", c.name, e.available("xaver"), left)
		}
		e.checkLateBill(c.name, c.path, c.done, c.journal, a, l)
		e.checkLateView(c.name, a, l)
	}
}

// checkLateBill: the client is told its cost as ever, and the operator that something is wrong.
func (e *env) checkLateBill(name, path string, done, journaled bool, a answer, l life) {
	e.t.Helper()
	cost, position := a.header.Get("x-billing-cost"), a.header.Get("x-billing-position")
	if path == streamPath {
		s := a.events(e.t)
		if s.done != done {
			e.t.Errorf("%s: done: %t", name, s.done)
		}
		if !done {
			return
		}
		cost, position = s.bill(e.t).Get("cost").Str, s.bill(e.t).Get("position").Str
	}
	want := l.overage.Position().String()
	if journaled {
		want = ""
	}
	if cost != l.overage.Amount.String() || position != want || l.overage.Amount.IsZero() {
		e.t.Errorf("%s: cost %q, position %q; late is %s at %s", name, cost, position, l.overage.Amount, l.overage.Position())
	}
	if metrics := e.get("", "/metrics").body; !journaled && !strings.Contains(metrics, `ledger_overages_total{reason="late"} 1`+"\n") {
		e.t.Errorf("%s: no overage in the metrics", name)
	}
	if logs := e.logs.String(); !journaled && !strings.Contains(logs, `"reason":"late"`) {
		e.t.Errorf("%s: no overage in the log: %s", name, logs)
	}
}

// checkLateView: /billing shows that the reserve went back, and that the charge came after it.
func (e *env) checkLateView(name string, a answer, l life) {
	e.t.Helper()
	v := e.get("xaver", "/billing/requests/"+a.id().String())
	if v.status != 200 || v.json("state").Str != "late" || v.json("charged").Str != l.overage.Amount.String() ||
		v.json("refunded").Str != l.reserve.Amount.String() || v.json("reserved").Str != l.reserve.Amount.String() ||
		v.json("refund_reason").Str != "expired" || v.json("model").Str != "sim-small" || v.json("provider").Str != "simulated" ||
		v.json("events.#.kind").Raw != `["reserve","refund","overage"]` || v.json("lines.#").Int() != int64(len(l.commitData().Lines)) {
		e.t.Errorf("%s: %s", name, v.body)
	}
	line := e.get("xaver", "/billing/transactions?limit=1").json("transactions.0")
	if line.Get("amount").Raw != l.overage.Amount.Neg().String() || line.Get("description").Str != "Chat completion with sim-small (overage: late)" ||
		line.Get("request_id").Str != a.id().String() {
		e.t.Errorf("%s: %s", name, line.Raw)
	}
	if b := e.get("xaver", "/billing/balance"); b.json("balance").Raw != e.available("xaver") || b.json("reserved").Raw != "0" {
		e.t.Errorf("%s: %s", name, b.body)
	}
	if s := e.get("xaver", "/billing/stats"); s.json("total.amount").Raw != l.overage.Amount.String() || s.json("total.requests").Raw != "1" {
		e.t.Errorf("%s: %s", name, s.body)
	}
}

// TestExpiredAndFailed: a request that delivered nothing owes nothing, also where its reservation has gone
// back already; nobody is alarmed.
func TestExpiredAndFailed(t *testing.T) {
	t.Parallel()
	var e *env
	e = start(t, options{providers: map[string]provider.Provider{"simulated": expiring(&e, "yvonne", 0)}})
	for path, prompt := range map[string]string{chatPath: "sim:status=500", streamPath: "sim:status=500"} {
		a := e.post("yvonne", path, chatBody("sim-small", prompt, ""))
		checkError(t, path, a, http.StatusBadGateway, "upstream_error", "upstream_error")
		if l := e.life("yvonne", a.id()); l.String() != "reserve refund(expired)" {
			t.Errorf("%s: %q", path, l)
		}
		v := e.get("yvonne", "/billing/requests/"+a.id().String())
		if v.json("state").Str != "expired" || v.json("charged").Raw != `"0"` || v.json("refund_reason").Str != "expired" {
			t.Errorf("%s: %s", path, v.body)
		}
	}
	if logs := e.logs.String(); strings.Contains(logs, "could not be released") {
		t.Errorf("the log says that something is still reserved: %s", logs)
	}
}

// TestLateAndKeys: what has expired has given its key back, so that whoever repeats it is served, and pays.
// What the first one delivered is charged as well: it was delivered.
func TestLateAndKeys(t *testing.T) {
	t.Parallel()
	var e *env
	e = start(t, options{overages: true, providers: map[string]provider.Provider{"simulated": expiring(&e, "zita", 0)}})
	body := chatBody("sim-small", "hello", "")
	first := e.ask("zita", "k", chatPath, body)
	second := e.ask("zita", "k", chatPath, body)
	if first.status != 200 || second.status != 200 || second.id() == first.id() || second.header.Get("idempotent-replayed") != "" || e.charges("zita") != 2 {
		t.Errorf("%d, then %d of %s after %s; %d charges", first.status, second.status, second.id(), first.id(), e.charges("zita"))
	}
}

// TestLateBelowZero: a late charge is a fact; it is taken where nothing is left.
func TestLateBelowZero(t *testing.T) {
	t.Parallel()
	var e *env
	spend := &ending{end: func(ctx context.Context, c domain.Command, l gateway.Ledger) (domain.Outcome, error) {
		if a := e.account("abel").Available; !a.IsZero() {
			e.append("abel", domain.Debit{Amount: a, Data: domain.MovementData{Reference: uuid.NewString(), Actor: "test"}})
		}
		return l.Append(ctx, c)
	}}
	e = start(t, options{overages: true, wrap: spend.wrap, providers: map[string]provider.Provider{"simulated": expiring(&e, "abel", 0)}})
	a := e.chat("abel", chatBody("sim-flat", "hello", ""))
	if a.status != 200 || a.header.Get("x-billing-cost") != "0.01" || e.available("abel") != "-0.01" {
		t.Errorf("%d %s, %s left", a.status, a.body, e.available("abel"))
	}
	if b := e.get("abel", "/billing/balance"); b.json("balance").Raw != "-0.01" {
		t.Error(b.body)
	}
	checkError(t, "below zero", e.chat("abel", chatBody("sim-flat", "hello", "")), http.StatusPaymentRequired, "insufficient_quota", "insufficient_quota")
}

// TestSpooledView: a request that was booked afterwards, and could not be reserved for, is shown as what it
// is: settled.
func TestSpooledView(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	a := e.chat("bodo", chatBody("sim-flat", "hello", ""))
	l, id := e.life("bodo", a.id()), uuid.New()
	e.freeze("bodo", true)
	e.append("bodo", domain.Spooled{RequestID: id, Amount: l.reserve.Amount, Reserve: *l.reserve.Data.(*domain.ReserveData),
		Charge: l.commit.Amount, Commit: *l.commitData()})
	v := e.get("bodo", "/billing/requests/"+id.String())
	if v.json("state").Str != "settled" || v.json("charged").Raw != `"0.01"` || v.json("reserved").Raw != `"0"` || v.json("model").Str != "sim-flat" ||
		!v.json("bound.lines").IsArray() || v.json("price_version").Str == "" {
		t.Error(v.body)
	}
}
