package spooltest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/gateway"
)

// Subject is a Spool under test, and what its test may do to it.
type Subject struct {
	gateway.Spool
	Know   func(account, spendable string, frozen bool)
	Forget func(account string) // its balance, not its holds
}

// Conform tests a Spool. It uses accounts of which nobody else knows.
func Conform(t *testing.T, s Subject) {
	for name, test := range map[string]func(*testing.T, Subject){
		"within the balance": testWithin, "taken once": testOnce, "nothing is held for nothing": testZero,
		"frozen": testFrozen, "unknown": testUnknown, "charged": testCharged, "dropped": testDropped,
		"each account has its own": testApart, "large and small": testSizes, "together": testTogether,
		"whatever happens": testRandom,
	} {
		t.Run(name, func(t *testing.T) { test(t, s) })
	}
}

func account() string { return "spool-" + uuid.NewString() }

// hold asks for a hold and tells what came of it: "held", "unknown", "account_frozen", "busy", or what
// there was.
func hold(t *testing.T, s gateway.Spool, account string, id uuid.UUID, amount string) string {
	t.Helper()
	err := s.Hold(context.Background(), account, id, domain.MustAmount(amount))
	rejection := new(domain.Rejection)
	switch {
	case err == nil:
		return "held"
	case errors.Is(err, domain.ErrBalanceUnknown):
		return "unknown"
	case errors.Is(err, domain.ErrOverloaded):
		return "busy"
	case !errors.As(err, &rejection) || rejection.Account != account:
		t.Fatalf("a hold of %s: %v", amount, err)
	case rejection.Reason != domain.RejectInsufficientFunds:
		return string(rejection.Reason)
	case rejection.Needed.String() != domain.MustAmount(amount).String():
		t.Fatalf("a hold of %s: %v", amount, err)
	}
	return rejection.Available.String()
}

func want(t *testing.T, s Subject, account string, id uuid.UUID, amount, want string) {
	t.Helper()
	if got := hold(t, s, account, id, amount); got != want {
		t.Fatalf("a hold of %s: %s, want %s", amount, got, want)
	}
}

func charge(t *testing.T, s gateway.Spool, account string, id uuid.UUID, amount string) {
	t.Helper()
	if err := s.Charge(context.Background(), account, id, domain.MustAmount(amount)); err != nil {
		t.Fatalf("a charge of %s: %v", amount, err)
	}
}

func drop(t *testing.T, s gateway.Spool, account string, id uuid.UUID) {
	t.Helper()
	if err := s.Drop(context.Background(), account, id); err != nil {
		t.Fatalf("a hold is dropped: %v", err)
	}
}

func testWithin(t *testing.T, s Subject) {
	for _, c := range []struct {
		spendable string
		holds     []string
		want      []string
	}{
		{"1", []string{"0.4", "0.6", "0.000000001"}, []string{"held", "held", "0"}},
		{"1", []string{"1.000000001", "1", "1"}, []string{"1", "held", "0"}},
		{"0", []string{"0.01"}, []string{"0"}},
		{"-3", []string{"0.01"}, []string{"-3"}},
		{"0.05", []string{"0.03", "0.03", "0.02", "0.01"}, []string{"held", "0.02", "held", "0"}},
	} {
		a := account()
		s.Know(a, c.spendable, false)
		for i, amount := range c.holds {
			want(t, s, a, uuid.New(), amount, c.want[i])
		}
	}
	// What Redis knows may change while there are holds, in either direction.
	a := account()
	s.Know(a, "1", false)
	want(t, s, a, uuid.New(), "0.7", "held")
	s.Know(a, "0.5", false)
	want(t, s, a, uuid.New(), "0.1", "-0.2")
	s.Know(a, "0.9", false)
	want(t, s, a, uuid.New(), "0.2", "held")
}

func testOnce(t *testing.T, s Subject) {
	a, id := account(), uuid.New()
	s.Know(a, "1", false)
	for range 3 {
		want(t, s, a, id, "0.6", "held")
	}
	want(t, s, a, uuid.New(), "0.5", "0.4")
	// It was held: that it would not be now is no matter.
	s.Know(a, "0", false)
	want(t, s, a, id, "0.6", "held")
	s.Know(a, "0", true)
	want(t, s, a, id, "0.6", "held")
	s.Forget(a)
	want(t, s, a, id, "0.6", "held")
	// Another amount of the same request takes its place, where it is afforded.
	s.Know(a, "1", false)
	want(t, s, a, id, "1.1", "1")
	want(t, s, a, id, "0.9", "held")
	want(t, s, a, uuid.New(), "0.2", "0.1")
	want(t, s, a, uuid.New(), "0.1", "held")
}

func testZero(t *testing.T, s Subject) {
	a, id := account(), uuid.New()
	for _, spendable := range []string{"1", "0", "-5"} {
		s.Know(a, spendable, false)
		want(t, s, a, id, "0", "held")
		charge(t, s, a, id, "0")
		want(t, s, a, uuid.New(), "0", "held")
	}
	s.Know(a, "1", false)
	charge(t, s, a, id, "0.5") // there is no hold that it could become of
	want(t, s, a, uuid.New(), "1", "held")
}

func testFrozen(t *testing.T, s Subject) {
	a, id := account(), uuid.New()
	s.Know(a, "1", false)
	want(t, s, a, id, "0.3", "held")
	s.Know(a, "1", true)
	for _, amount := range []string{"0", "0.1", "2"} {
		want(t, s, a, uuid.New(), amount, "account_frozen")
	}
	charge(t, s, a, id, "0.2")
	s.Know(a, "1", false)
	want(t, s, a, uuid.New(), "0.9", "0.8")
}

func testUnknown(t *testing.T, s Subject) {
	a, id := account(), uuid.New()
	for _, amount := range []string{"0", "0.1"} {
		want(t, s, a, id, amount, "unknown")
		want(t, s, "no account}", id, amount, "unknown")
	}
	charge(t, s, a, id, "1")
	drop(t, s, a, id)
	s.Know(a, "1", false)
	want(t, s, a, id, "0.6", "held")
	s.Forget(a)
	want(t, s, a, uuid.New(), "0.1", "unknown")
	s.Know(a, "1", false)
	want(t, s, a, uuid.New(), "0.5", "0.4") // the hold was not forgotten
}

func testCharged(t *testing.T, s Subject) {
	for _, c := range []struct{ hold, charge, left string }{
		{"0.6", "0.25", "0.75"}, {"0.6", "0.6", "0.4"}, {"0.6", "0", "1"}, {"0.6", "0.9", "0.1"}, {"0.6", "1.5", "-0.5"},
	} {
		a, id := account(), uuid.New()
		s.Know(a, "1", false)
		want(t, s, a, id, c.hold, "held")
		for range 2 {
			charge(t, s, a, id, c.charge)
		}
		want(t, s, a, uuid.New(), "99", c.left)
		drop(t, s, a, id)
		charge(t, s, a, id, c.charge) // booked and dropped meanwhile: it does not come back
		want(t, s, a, uuid.New(), "99", "1")
	}
}

func testDropped(t *testing.T, s Subject) {
	a, first, second := account(), uuid.New(), uuid.New()
	s.Know(a, "1", false)
	want(t, s, a, first, "0.6", "held")
	want(t, s, a, second, "0.3", "held")
	for range 2 {
		drop(t, s, a, first)
		want(t, s, a, uuid.New(), "99", "0.7")
	}
	drop(t, s, a, uuid.New())
	drop(t, s, a, second)
	want(t, s, a, first, "1", "held") // a new one of the same id
}

func testApart(t *testing.T, s Subject) {
	a, b, id := account(), account(), uuid.New()
	s.Know(a, "1", false)
	s.Know(b, "2", false)
	want(t, s, a, id, "1", "held")
	want(t, s, b, id, "2", "held")
	drop(t, s, a, id)
	want(t, s, b, uuid.New(), "1", "0")
	want(t, s, a, uuid.New(), "1", "held")
}

func testSizes(t *testing.T, s Subject) {
	const most = "99999999999999999999999999" // 26 digits
	a := account()
	s.Know(a, most, false)
	want(t, s, a, uuid.New(), "9007199254740993", "held") // 2^53 + 1
	want(t, s, a, uuid.New(), most, "99999999990992800745259006")
	want(t, s, a, uuid.New(), "99999999990992800745259005.999999999", "held")
	want(t, s, a, uuid.New(), "0.000000002", "0.000000001")
	want(t, s, a, uuid.New(), "0.000000001", "held")
	want(t, s, a, uuid.New(), "0.000000001", "0")
	s.Know(a, "-"+most, false)
	want(t, s, a, uuid.New(), "0.000000001", "-199999999999999999999999998")
}

func testTogether(t *testing.T, s Subject) {
	a := account()
	s.Know(a, "0.25", false)
	var mu sync.Mutex
	var wait sync.WaitGroup
	got := map[string]int{}
	for range 64 {
		id := uuid.New()
		for range 2 { // each asks twice, at the same time
			wait.Go(func() {
				err := s.Hold(context.Background(), a, id, domain.MustAmount("0.01"))
				mu.Lock()
				defer mu.Unlock()
				got[fmt.Sprintf("%T", err)]++
			})
		}
	}
	if wait.Wait(); got["<nil>"] != 2*25 || got["*domain.Rejection"] != 2*39 {
		t.Fatalf("%v", got)
	}
	want(t, s, a, uuid.New(), "0.01", "0")
}

// The bounds of testRandom.
const (
	histories = 200
	mostSteps = 40
)

// testRandom holds the subject against Memory, step by step, in histories that are drawn by chance; a
// failure names the seed.
func testRandom(t *testing.T, s Subject) {
	for range histories {
		seed := rand.Uint64()               //nolint:gosec // histories are no secret
		r := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // the same
		h := &history{t: t, r: r, s: s, model: NewMemory(), account: account(), seed: seed}
		h.ids = []uuid.UUID{uuid.New(), uuid.New(), uuid.New(), uuid.New()}
		for range 1 + h.r.IntN(mostSteps) {
			h.step()
		}
	}
}

// history is one of testRandom's.
type history struct {
	t       *testing.T
	r       *rand.Rand
	s       Subject
	model   *Memory
	account string
	ids     []uuid.UUID
	seed    uint64
}

func (h *history) pick(of ...string) string { return of[h.r.IntN(len(of))] }

// step does the same to the subject and to the model.
func (h *history) step() {
	id := h.ids[h.r.IntN(len(h.ids))]
	amount := h.pick("0", "0.000000001", "0.1", "0.25", "1", "7", "9999999.999999999", "12345678901234567890.123456789")
	switch h.pick("hold", "hold", "hold", "charge", "drop", "know", "forget") {
	case "hold":
		if got, right := hold(h.t, h.s, h.account, id, amount), hold(h.t, h.model, h.account, id, amount); got != right {
			h.t.Fatalf("seed %d: a hold of %s: %s, want %s", h.seed, amount, got, right)
		}
	case "charge":
		charge(h.t, h.s, h.account, id, amount)
		charge(h.t, h.model, h.account, id, amount)
	case "drop":
		drop(h.t, h.s, h.account, id)
		drop(h.t, h.model, h.account, id)
	case "know":
		spendable := h.pick("-1", "0", "0.1", "1", "2.000000001", "10000000", "99999999999999999999.999999999")
		frozen := h.r.IntN(5) == 0
		h.s.Know(h.account, spendable, frozen)
		h.model.Know(h.account, spendable, frozen)
	case "forget":
		h.s.Forget(h.account)
		h.model.Forget(h.account)
	}
}
