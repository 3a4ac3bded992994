package projections

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"llm-gateway/domain"
	"llm-gateway/ledger"
)

// history is what happened to a ledger: random, but of this package's own making event by event. It
// keeps what every command led to.
type history struct {
	append   func(context.Context, domain.Command) (domain.Outcome, error)
	draw     drawer
	accounts []string
	open     []opened
	n        int
	events   map[int32][]domain.Recorded // by shard
}

type opened struct {
	account string
	request uuid.UUID
}

// drawer chooses: rapid's, or a counter's where the choice does not matter.
type drawer interface {
	// below gives 0 to n-1.
	below(n int, what string) int
}

type rapidDrawer struct{ *rapid.T }

func (d rapidDrawer) below(n int, what string) int { return rapid.IntRange(0, n-1).Draw(d.T, what) }

// accountOf is the n-th account of the tests, in shard n modulo the number of shards.
func accountOf(n int) string {
	for i := n; ; i += worldShards {
		if name := fmt.Sprintf("user-%d-%d", n, i); int(domain.ShardOf(name, worldShards)) == n%worldShards {
			return name
		}
	}
}

// newHistory opens accounts.
func newHistory(t tester, draw drawer, accounts int, add func(context.Context, domain.Command) (domain.Outcome, error)) *history {
	h := &history{append: add, draw: draw, events: map[int32][]domain.Recorded{}}
	for i := range accounts {
		h.accounts = append(h.accounts, accountOf(i))
		h.do(t, h.accounts[i], domain.Open{Grant: domain.MustAmount("100"), Actor: "test"})
	}
	return h
}

// ofMemory is a history of a ledger in memory.
func ofMemory(t *rapid.T, id uuid.UUID, shards, accounts int) (*history, *ledger.Memory) {
	now := time.Date(2026, 3, 1, 22, 59, 0, 0, time.UTC)
	draw := rapidDrawer{t}
	m := ledger.NewMemory(id, shards, "USD", func() time.Time {
		now = now.Add(7 * time.Minute)
		return now
	})
	return newHistory(t, draw, accounts, m.Append), m
}

func (h *history) do(t tester, account string, op domain.Op) {
	t.Helper()
	id, err := uuid.NewV7()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), longWait)
	defer cancel()
	out, err := h.append(ctx, domain.Command{ID: domain.CommandID(id), Account: account, Op: op})
	if rejected := new(domain.Rejection); errors.As(err, &rejected) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if out.Repeated {
		return
	}
	for _, e := range out.Events {
		h.events[e.Event.Shard] = append(h.events[e.Event.Shard], e)
	}
	if r, ok := op.(domain.Reserve); ok {
		h.open = append(h.open, opened{account, r.RequestID})
	}
}

var (
	// limits and prices are such as make both ends meet and fail to.
	limits = []string{"0", "12.5", "0.000000000001", "10000"}
	prices = []string{"0", "0.000000000001", "0.25", "3.000000000007", "40"}
	models = []string{"gpt-4o", "claude", "", "nul\x00\u2028"}
)

// some makes n random things happen.
func (h *history) some(t tester, n int) {
	t.Helper()
	for range n {
		h.one(t)
	}
}

func (h *history) one(t tester) {
	t.Helper()
	h.n++
	account := h.accounts[h.draw.below(len(h.accounts), "account")]
	amount := domain.MustAmount(prices[h.draw.below(len(prices), "amount")])
	reference := domain.MovementData{Reference: fmt.Sprint("ref-", h.n), Reason: "why", Actor: "test"}
	switch h.draw.below(8, "what") {
	case 0:
		h.do(t, account, domain.Credit{Amount: amount, Data: reference})
	case 1:
		h.do(t, account, domain.Debit{Amount: amount, Data: reference, Force: h.draw.below(2, "force") == 1})
	case 2:
		data := domain.AccountData{Actor: "test"}
		if h.draw.below(2, "limit or frozen") == 0 {
			data.CreditLimit = new(domain.MustAmount(limits[h.draw.below(len(limits), "limit")]))
		} else {
			data.Frozen = new(h.draw.below(3, "frozen") == 0)
		}
		h.do(t, account, domain.Configure{Data: data})
	case 3, 4:
		h.do(t, account, domain.Reserve{RequestID: uuid.New(), Amount: amount, Data: domain.ReserveData{Model: "m", Owner: uuid.New()}})
	default:
		h.end(t, amount)
	}
}

// end settles or releases something that is open.
func (h *history) end(t tester, charge domain.Amount) {
	t.Helper()
	if len(h.open) == 0 {
		return
	}
	i := h.draw.below(len(h.open), "request")
	o := h.open[i]
	h.open = slices.Delete(h.open, i, i+1)
	if h.draw.below(4, "release") == 0 {
		h.do(t, o.account, domain.Release{RequestID: o.request, Reason: domain.RefundClientAbort})
		return
	}
	d := domain.CommitData{Surface: "chat", ModelRequested: "asked", Provider: "p", UsageSource: domain.UsageProvider}
	d.ModelServed = models[h.draw.below(len(models), "model")]
	for m := range d.Meters {
		d.Meters[m] = int64(h.draw.below(5, "meter"))
	}
	d.CostLines = []domain.Line{{Meter: domain.Input, Quantity: 1, UnitPrice: charge, Amount: charge},
		{Meter: domain.Output, Quantity: 3, UnitPrice: domain.MustAmount("0.000000000001"), Amount: domain.MustAmount("0.000000000003")}}
	h.do(t, o.account, domain.Settle{RequestID: o.request, Charge: charge, Data: d})
}

// all are the events of all shards, by shard and seq.
func (h *history) all() (out []domain.Recorded) {
	for _, events := range h.events {
		out = append(out, events...)
	}
	slices.SortFunc(out, func(a, b domain.Recorded) int {
		return cmp.Or(cmp.Compare(a.Event.Shard, b.Event.Shard), cmp.Compare(a.Event.Seq, b.Event.Seq))
	})
	return out
}

// counter draws without chance, so that a history is the same every time.
type counter struct{ n uint64 }

func (c *counter) below(n int, _ string) int {
	c.n = c.n*6364136223846793005 + 1442695040888963407
	return int((c.n >> 33) % uint64(n))
}

// longWait bounds every waiting in tests.
const longWait = 30 * time.Second

// tester is what a test and a property have in common.
type tester interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}
