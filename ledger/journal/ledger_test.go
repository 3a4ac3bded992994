package journal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/ledger"
)

const grant = "10"

// bank is a ledger in memory, with what was done to it from outside of the journal.
type bank struct {
	*ledger.Memory

	accounts []string
	mu       sync.Mutex
	payloads []string // of all events
}

func openBank(t *testing.T, accounts int) *bank {
	t.Helper()
	b := &bank{}
	b.Memory = ledger.NewMemory(uuid.New(), 8, "USD", time.Now, ledger.Hooks{Appended: func(events []domain.Recorded) {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, e := range events {
			b.payloads = append(b.payloads, string(e.Payload))
		}
	}})
	t.Cleanup(b.Close)
	for i := range accounts {
		name := fmt.Sprint("user-", i)
		b.accounts = append(b.accounts, name)
		b.must(t, name, domain.Open{Grant: domain.MustAmount(grant), Actor: "test"})
	}
	return b
}

func (b *bank) must(t *testing.T, account string, op domain.Op) {
	t.Helper()
	if _, err := b.Append(t.Context(), domain.Command{ID: newID(), Account: account, Op: op}); err != nil {
		t.Fatal(err)
	}
}

// reserved is a request with so much set aside.
func (b *bank) reserved(t *testing.T, account, amount string) uuid.UUID {
	t.Helper()
	id := uuid.New()
	b.must(t, account, domain.Reserve{RequestID: id, Amount: domain.MustAmount(amount)})
	return id
}

func (b *bank) events() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.payloads)
}

// wantMoney wants an account to have so much available, and nothing reserved.
func (b *bank) wantMoney(t *testing.T, account, available string) {
	t.Helper()
	a, err := b.Account(t.Context(), account)
	if err != nil {
		t.Fatal(err)
	}
	if !a.Available.Equal(domain.MustAmount(available)) || !a.Reserved.IsZero() {
		t.Errorf("%s has %s available, %s reserved; it should be %s", account, a.Available, a.Reserved, available)
	}
}

// TestMoney puts what an outage leaves into the journal: settlements, some of which the ledger has without
// anybody knowing, releases, spooled requests, and what cannot be booked. All is drained, by a ledger that
// often fails and often says so wrongly; then a journal from the past drains it all again, twice.
func TestMoney(t *testing.T) {
	t.Parallel()
	const users = 20
	b := openBank(t, users)
	d := newDisk(1)
	var mu sync.Mutex
	refused := map[domain.Reject]int{}
	o := smallSegments()
	o.Hooks.Refused = func(_ domain.Command, err error) {
		mu.Lock()
		defer mu.Unlock()
		var r *domain.Rejection
		errors.As(err, &r)
		refused[r.Reason]++
	}
	g := watch(&o)
	j := mustOpen(t, d, o)
	for _, a := range b.accounts {
		settled := settle(a, b.reserved(t, a, "2"), "0.000000000001")
		mustPut(t, j, settled)

		known := settle(a, b.reserved(t, a, "1"), "0.5")
		if _, err := b.Append(t.Context(), known); err != nil {
			t.Fatal(err)
		}
		mustPut(t, j, known) // its answer was lost

		twice := settle(a, known.Op.Request(), "0.5")
		mustPut(t, j, twice) // somebody else's try to charge the same request

		mustPut(t, j, domain.Command{ID: newID(), Account: a, Op: domain.Release{RequestID: b.reserved(t, a, "3"), Reason: domain.RefundShutdown}})
		mustPut(t, j, spooled(a, "4", "2.25"))
		mustPut(t, j, spooled(a, "1000", "1.25")) // it cannot be reserved: an overage
		mustPut(t, j, settle(a, uuid.New(), "7")) // of a request that nobody knows
	}
	past := maps.Clone(d.names)
	mustClose(t, j)
	j = mustOpen(t, d, o)
	drainAll(t, j, g, b.moody())
	mustClose(t, j)
	for _, a := range b.accounts {
		b.wantMoney(t, a, "5.999999999999")
	}
	events := b.events()
	for range 2 {
		d := d.crash()
		maps.Copy(d.names, past)
		j := mustOpen(t, d, o)
		if n, _, _ := j.Waiting(); n != 7*users {
			t.Fatalf("%d came back", n)
		}
		drainAll(t, j, g, b.moody())
		mustClose(t, j)
		if !slices.Equal(b.events(), events) {
			t.Fatal("a repeat changed the ledger")
		}
	}
	if refused[domain.RejectAlreadySettled] != users || refused[domain.RejectReservationUnknown] != users || len(refused) != 2 {
		t.Errorf("refused: %v", refused)
	}
	marked := slices.DeleteFunc(events, func(e string) bool { return !strings.Contains(e, `"spooled_at":"2`) })
	if len(marked) != 7*users { // 2 of the first settlement, 1 of the release, 3 and 1 of the spooled
		t.Errorf("%d events say that they waited", len(marked))
	}
}

// spooled is a request that ran while the ledger was away.
func spooled(account, bound, charge string) domain.Command {
	return domain.Command{ID: newID(), Account: account, Op: domain.Spooled{RequestID: uuid.New(), Amount: domain.MustAmount(bound),
		Charge: domain.MustAmount(charge), Commit: explained(charge)}}
}

// moody is the ledger behind a bad connection: it fails before, or after, or takes the answer away.
func (b *bank) moody() Append {
	return func(ctx context.Context, c domain.Command) (domain.Outcome, error) {
		if rand.IntN(4) == 0 {
			return domain.Outcome{}, domain.ErrUnavailable
		}
		o, err := b.Append(ctx, c)
		if rand.IntN(4) == 0 {
			return domain.Outcome{}, fmt.Errorf("%w: the answer is lost", domain.ErrUnavailable)
		}
		return o, err
	}
}
