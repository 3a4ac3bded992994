package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/gateway"
	"llm-gateway/gateway/provider"
)

// heads are Facts that remember when each account's head was read, and that can be away or slow.
type heads struct {
	gateway.Facts
	now func() time.Time

	mu    sync.Mutex
	reads map[string][]time.Time
	away  bool
	until chan struct{} // nil = at once
}

// Account implements gateway.Facts.
func (h *heads) Account(ctx context.Context, name string) (*domain.Account, error) {
	h.mu.Lock()
	h.reads[name] = append(h.reads[name], h.now())
	away, until := h.away, h.until
	h.mu.Unlock()
	if until != nil {
		select {
		case <-until:
		case <-ctx.Done():
		}
	}
	if err := ctx.Err(); away || err != nil {
		return nil, errors.Join(errAway, err)
	}
	return h.Facts.Account(ctx, name)
}

func (h *heads) set(away bool, until chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.away, h.until = away, until
}

// confirmed is when an account's head was read to confirm a no: every reading but the one that found
// the account not open.
func (h *heads) confirmed(account string) []time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reads[account][min(1, len(h.reads[account])):]
}

// gated is a gateway with a cache, a clock, and an account "gate" that is open.
type gated struct {
	*env
	cache *cache
	clock *clock
	heads *heads
}

func startGated(t *testing.T, o options) *gated {
	g := &gated{cache: &cache{}, clock: &clock{at: time.Now()}}
	g.heads = &heads{now: g.clock.now, reads: map[string][]time.Time{}}
	o.balances, o.now = g.cache, g.clock.now
	o.facts = func(f gateway.Facts) gateway.Facts { g.heads.Facts = f; return g.heads }
	g.env = start(t, o)
	if a := g.get("gate", "/v1/models"); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	return g
}

func (e *env) credit(account, amount string) {
	e.t.Helper()
	e.append(account, domain.Credit{Amount: domain.MustAmount(amount), Data: domain.MovementData{Reference: uuid.NewString(), Actor: "test"}})
}

func (e *env) freeze(account string, frozen bool) {
	e.t.Helper()
	e.append(account, domain.Configure{Data: domain.AccountData{Frozen: &frozen, Actor: "test"}})
}

func (e *env) lend(account, limit string) {
	e.t.Helper()
	most := domain.MustAmount(limit)
	e.append(account, domain.Configure{Data: domain.AccountData{CreditLimit: &most, Actor: "test"}})
}

// verdicts reads the gate's counter: "no=1 yes=2".
func (e *env) verdicts() string {
	var out []string
	for line := range strings.Lines(e.get("", "/metrics").body) {
		if rest, ok := strings.CutPrefix(line, `gate_verdicts_total{verdict="`); ok {
			out = append(out, strings.TrimSpace(strings.Replace(rest, `"} `, "=", 1)))
		}
	}
	return strings.Join(out, " ")
}

// TestGate: what the cache says, what the ledger has, and what comes of it.
func TestGate(t *testing.T) {
	t.Parallel()
	flat, free := chatBody("sim-flat", "x", ""), chatBody("sim-free", "x", "")
	for _, c := range []struct {
		name, balance, limit string
		frozen               bool
		cached               string // "" = not there, "-" = an error
		says                 bool   // frozen, in the cache
		body                 string
		status               int
		verdict              string
		reads, reserves      int
	}{
		{"enough", "1", "", false, "1", false, flat, 200, "yes=1", 0, 1},
		{"just enough", "0.01", "", false, "0.01", false, flat, 200, "yes=1", 0, 1},
		{"not enough", "0.009999999999", "", false, "0.009999999999", false, flat, 402, "no=1", 1, 0},
		{"nothing", "0", "", false, "0", false, flat, 402, "no=1", 1, 0},
		{"too high in the cache", "0", "", false, "5", false, flat, 402, "yes=1", 0, 1},
		{"too low in the cache", "0.01", "", false, "0", false, flat, 200, "overruled=1", 1, 1},
		{"below nothing in the cache", "0.01", "", false, "-99999999999999999999999999", false, flat, 200, "overruled=1", 1, 1},
		{"free with nothing", "0", "", false, "0", false, free, 200, "yes=1", 0, 1},
		{"free with less than nothing", "0", "", false, "-1", false, free, 200, "yes=1", 0, 1},
		{"credit", "0", "0.01", false, "0.01", false, flat, 200, "yes=1", 0, 1},
		{"credit that the cache does not know of", "0", "0.01", false, "0", false, flat, 200, "overruled=1", 1, 1},
		{"too little credit", "0", "0.009", false, "0.009", false, flat, 402, "no=1", 1, 0},
		{"frozen", "1", "", true, "1", true, flat, 403, "no=1", 1, 0},
		{"frozen and free", "0", "", true, "0", true, free, 403, "no=1", 1, 0},
		{"frozen in the cache only", "1", "", false, "1", true, flat, 200, "overruled=1", 1, 1},
		{"frozen in the ledger only", "1", "", true, "1", false, flat, 403, "yes=1", 0, 1},
		{"frozen, and poor in the cache", "1", "", true, "0", false, flat, 403, "no=1", 1, 0},
		{"poor, and frozen in the cache", "0", "", false, "1", true, flat, 402, "no=1", 1, 0},
		{"not there", "1", "", false, "", false, flat, 200, "unknown=1", 0, 1},
		{"not there, and poor", "0", "", false, "", false, flat, 402, "unknown=1", 0, 1},
		{"an error", "1", "", false, "-", false, flat, 200, "error=1", 0, 1},
		{"an error, and poor", "0", "", false, "-", false, flat, 402, "error=1", 0, 1},
	} {
		plain, g := start(t, options{balance: c.balance}), startGated(t, options{balance: c.balance})
		for _, e := range []*env{plain, g.env} {
			e.o.overages = true // below zero by credit
			e.get("gate", "/v1/models")
			if c.limit != "" {
				e.lend("gate", c.limit)
			}
			if c.frozen {
				e.freeze("gate", true)
			}
		}
		switch c.cached {
		case "":
		case "-":
			g.cache.fails()
		default:
			g.cache.says(c.cached, c.says)
		}
		want, a := plain.chat("gate", c.body), g.chat("gate", c.body)
		if a.status != c.status || a.body != want.body || a.status != want.status {
			t.Errorf("%s: %d %s\nwithout a cache %d %s", c.name, a.status, a.body, want.status, want.body)
		}
		reserves, reads := len(g.asked.reserved("gate")), len(g.heads.confirmed("gate"))
		if got := g.verdicts(); got != c.verdict || reserves != c.reserves || reads != c.reads {
			t.Errorf("%s: %s, %d reserves, %d reads", c.name, got, reserves, reads)
		}
		if _, refills := g.cache.count(); (len(refills) == 1 && refills[0] == "gate") != (c.cached == "") {
			t.Errorf("%s: to be filled: %v", c.name, refills)
		}
	}
}

// TestGateShrinks: the gate refuses only what no smaller form of the call would save, and says what
// the ledger would.
func TestGateShrinks(t *testing.T) {
	t.Parallel()
	long := strings.Repeat(" international", 2000) // 28,000 bytes, 2,000 tokens
	for _, c := range []struct {
		name, balance, body string
		policy              gateway.ReservePolicy
		status              int
		verdict             string
	}{
		{"capped", "0.005", chatBody("sim-small", "x", ""), gateway.ReserveCap, 200, "yes=1"},
		{"not capped by policy", "0.005", chatBody("sim-small", "x", ""), gateway.ReserveRefuse, 402, "no=1"},
		{"not capped by wish", "0.005", chatBody("sim-small", "x", `,"max_tokens":16000`), gateway.ReserveCap, 402, "no=1"},
		{"not one token", "0.00001", chatBody("sim-small", "x", ""), gateway.ReserveCap, 402, "no=1"},
		{"counted", "0.0005", chatBody("sim-small", long, `,"max_tokens":10`), gateway.ReserveRefuse, 200, "yes=1"},
		{"counted, and too long", "0.0003", chatBody("sim-small", long, `,"max_tokens":10`), gateway.ReserveRefuse, 402, "no=1"},
		{"counted and capped", "0.0005", chatBody("sim-small", long, ``), gateway.ReserveCap, 200, "yes=1"},
		{"counted, capped, and too long", "0.0003", chatBody("sim-small", long, ``), gateway.ReserveCap, 402, "no=1"},
		{"a picture", "0.005", `{"model":"sim-small","max_tokens":10,"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/y"}}]}]}`,
			gateway.ReserveCap, 402, "no=1"},
	} {
		plain := start(t, options{balance: c.balance, policy: c.policy})
		g := startGated(t, options{balance: c.balance, policy: c.policy})
		g.cache.follows(g.views)
		want, a := plain.chat("gate", c.body), g.chat("gate", c.body)
		if a.status != c.status || a.body != want.body || g.verdicts() != c.verdict {
			t.Errorf("%s: %d %s, %s\nwithout a cache %d %s", c.name, a.status, a.body, g.verdicts(), want.status, want.body)
		}
		if a.status != 200 {
			continue
		}
		got, without := g.life("gate", a.id()).reserve, plain.life("gate", want.id()).reserve
		if !got.Amount.Equal(without.Amount) || a.header.Get("x-billing-output-cap") != want.header.Get("x-billing-output-cap") {
			t.Errorf("%s: reserved %s, without a cache %s", c.name, got.Amount, without.Amount)
		}
	}
}

// TestGateConfirmsOnce: however many noes there are, an account's head is read once in a second.
func TestGateConfirmsOnce(t *testing.T) {
	t.Parallel()
	g := startGated(t, options{balance: "0"})
	g.cache.says("0", false)
	read := make(chan struct{})
	g.heads.set(false, read)
	go func() { // when the first has asked, others come while it waits, for less than a read may take
		for tick := time.NewTicker(time.Millisecond); ; <-tick.C {
			if asked, _ := g.cache.count(); asked >= 20 {
				close(read)
				return
			}
		}
	}()
	together(256, func(int) {
		if a := g.chat("gate", chatBody("sim-flat", "x", "")); a.status != 402 {
			t.Errorf("%d %s", a.status, a.body)
		}
	})
	g.heads.set(false, nil)
	for i, c := range []struct {
		after time.Duration
		reads int
	}{{999 * time.Millisecond, 1}, {time.Millisecond, 2}, {time.Millisecond, 2}, {999 * time.Millisecond, 3}, {time.Hour, 4}} {
		g.clock.pass(c.after)
		if a := g.chat("gate", chatBody("sim-flat", "x", "")); a.status != 402 || len(g.heads.confirmed("gate")) != c.reads {
			t.Errorf("%d: %d, %d reads; want %d", i, a.status, len(g.heads.confirmed("gate")), c.reads)
		}
	}
	if n := len(g.asked.reserved("gate")); n != 0 {
		t.Errorf("%d calls came as far as a reserve", n)
	}
}

// TestGateTopUp: a top-up that the projection never reaches counts after a second at the latest, and
// a no is final until then.
func TestGateTopUp(t *testing.T) {
	t.Parallel()
	g := startGated(t, options{balance: "0"})
	g.views.setStopped(true)
	g.cache.follows(g.views)
	flat := func() int { return g.chat("gate", chatBody("sim-flat", "x", "")).status }
	if got := flat(); got != 402 {
		t.Fatal(got)
	}
	g.credit("gate", "0.02")
	if got := flat(); got != 402 || len(g.heads.confirmed("gate")) != 1 {
		t.Errorf("within the second: %d after %d reads", got, len(g.heads.confirmed("gate")))
	}
	g.clock.pass(time.Second)
	if got := [3]int{flat(), flat(), flat()}; got != [3]int{200, 200, 402} || len(g.heads.confirmed("gate")) != 2 {
		t.Errorf("topped up for two: %v after %d reads", got, len(g.heads.confirmed("gate")))
	}
	g.credit("gate", "0.01")
	g.freeze("gate", true)
	g.clock.pass(time.Second)
	if got := flat(); got != 403 {
		t.Errorf("frozen: %d", got)
	}
	g.freeze("gate", false)
	g.views.setStopped(false) // the projection has it at once: no second to wait
	if got := flat(); got != 200 {
		t.Errorf("thawed: %d", got)
	}
}

// TestGateOwnRefund: what comes back by this gateway's own settlement counts at once, although a no
// was confirmed while it was held, and the projection stands still.
func TestGateOwnRefund(t *testing.T) {
	t.Parallel()
	var once sync.Once // the first call takes its time
	called, goOn, first := make(chan struct{}), make(chan struct{}), make(chan answer)
	g := startGated(t, options{balance: "0.003", providers: map[string]provider.Provider{"simulated": &scripted{
		complete: func(ctx context.Context, r provider.Request) (*provider.Completion, error) {
			once.Do(func() {
				close(called)
				<-goOn
			})
			return provider.NewSimulated().Complete(ctx, r)
		}}}})
	g.cache.says("0.000000000001", false)
	const most = `,"max_tokens":4000` // two of these are more than there is
	go func() { first <- g.chat("gate", chatBody("sim-small", "x", most)) }()
	<-called
	g.clock.pass(time.Second) // the first call's own confirmation is over
	if a := g.chat("gate", chatBody("sim-small", "x", most)); a.status != 402 {
		t.Errorf("while it is held: %d %s", a.status, a.body)
	}
	close(goOn)
	if a := <-first; a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := g.chat("gate", chatBody("sim-small", "x", most)); a.status != 200 || len(g.heads.confirmed("gate")) != 2 {
		t.Errorf("when it has come back: %d %s, %d reads", a.status, a.body, len(g.heads.confirmed("gate")))
	}
}

// TestGateWithoutPostgres: a no that cannot be confirmed is none: the reserve answers.
func TestGateWithoutPostgres(t *testing.T) {
	t.Parallel()
	g := startGated(t, options{balance: "0.02"})
	g.cache.says("0", false)
	g.heads.set(true, nil)
	for i, want := range []int{200, 200, 402} {
		if a := g.chat("gate", chatBody("sim-flat", "x", "")); a.status != want {
			t.Errorf("%d: %d %s", i, a.status, a.body)
		}
	}
	if n := len(g.heads.confirmed("gate")); n != 1 || g.verdicts() != "error=1 no=1 overruled=1" {
		t.Errorf("%d reads in one second; %s", n, g.verdicts())
	}
}

// TestGateFlushed: a cache that has lost everything is asked to be filled, and changes nothing.
func TestGateFlushed(t *testing.T) {
	t.Parallel()
	g := startGated(t, options{balance: "0.03"})
	g.cache.follows(g.views)
	for i, want := range []int{200, 200, 200, 402} {
		if i%2 == 1 {
			g.cache.set(nil)
		}
		if a := g.chat("gate", chatBody("sim-flat", "x", "")); a.status != want {
			t.Errorf("%d: %d %s", i, a.status, a.body)
		}
		g.cache.follows(g.views)
	}
	if _, refills := g.cache.count(); fmt.Sprint(refills) != "[gate gate]" {
		t.Errorf("to be filled: %v", refills)
	}
}

// TestGateSlow: a cache that hangs costs a request its bound and no more, and so does a head that
// hangs, once in a second.
func TestGateSlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, c := newPipes(), &cache{}
		h := &heads{now: time.Now, reads: map[string][]time.Time{}}
		e := start(t, options{listen: p.listen, balances: c, facts: func(f gateway.Facts) gateway.Facts { h.Facts = f; return h }})
		e.client = p.client()
		e.get("gate", "/v1/models")
		took := func() time.Duration {
			began := time.Now()
			if a := e.chat("gate", chatBody("sim-flat", "x", "")); a.status != 200 {
				t.Errorf("%d %s", a.status, a.body)
			}
			return time.Since(began)
		}
		const bound, confirm = 50 * time.Millisecond, 500 * time.Millisecond
		c.set(func(ctx context.Context, _ string) (domain.CachedBalance, bool, error) {
			<-ctx.Done()
			return domain.CachedBalance{}, false, ctx.Err()
		})
		if got := [2]time.Duration{took(), took()}; got != [2]time.Duration{bound, bound} {
			t.Errorf("a cache that hangs costs %v", got)
		}
		c.says("0", false)
		h.set(false, make(chan struct{}))
		if got := [3]time.Duration{took(), took(), took()}; got != [3]time.Duration{confirm, 0, 0} {
			t.Errorf("a head that hangs costs %v", got)
		}
	})
}

// TestOverspendBehind is TestOverspend with a cache that is behind, in either direction, and a projector
// that stands still: exactly as many as the balance affords succeed.
func TestOverspendBehind(t *testing.T) {
	t.Parallel()
	for name, says := range map[string]string{"stopped": "", "nothing": "0", "plenty": "1000000"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const affords = 100
			e := startGated(t, options{balance: "1.009"})
			other := startGated(t, options{balance: "1.009", share: e.env})
			e.chat("quinn", chatBody("sim-flat", "x", ""))
			other.get("quinn", "/v1/models") // or all that come at once ask whether the account is open
			e.views.setStopped(true)
			for _, g := range []*gated{e, other} {
				if g.cache.follows(e.views); says != "" {
					g.cache.says(says, false)
				}
			}
			var mu sync.Mutex
			got := map[string]int{}
			together(256, func(i int) {
				a := []*gated{e, other}[i%2].post("quinn", []string{chatPath, streamPath}[i/2%2], chatBody("sim-flat", fmt.Sprintf("sim:tokens=3 sim:pace=%dms", i%4), ""))
				mu.Lock()
				defer mu.Unlock()
				got[fmt.Sprint(a.status, a.code())]++
			})
			if got["200"] != affords-1 || got["402insufficient_quota"] != 256-affords+1 || len(got) > 2 {
				t.Errorf("%v; want %d of 256", got, affords-1)
			}
			if n := len(e.heads.confirmed("quinn")) + len(other.heads.confirmed("quinn")); n > 2 {
				t.Errorf("%d heads were read", n)
			}
			if e.available("quinn") != "0.009" {
				t.Errorf("%s is left", e.available("quinn"))
			}
		})
	}
}
