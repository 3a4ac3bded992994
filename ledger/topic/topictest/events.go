package topictest

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
)

// Chain makes the events of one shard, one behind the other, as a ledger would have recorded them.
type Chain struct {
	Account string
	Shard   int32 // of the account
	Seq     int64 // of the last event made
	Hash    domain.Hash
	Time    time.Time // of the last event made
	Pad     string    // makes the next payloads longer
	grant   domain.Amount
}

// NewChain begins a shard's chain: that of an account.
func NewChain(t testing.TB, ledger uuid.UUID, account string, shards int) *Chain {
	t.Helper()
	shard := domain.ShardOf(account, shards)
	grant, err := domain.ParseAmount("0.000001")
	if err != nil {
		t.Fatal(err)
	}
	return &Chain{
		Account: account, Shard: shard, Hash: domain.GenesisHash(ledger, shard), grant: grant,
		Time: time.Date(2026, 8, 21, 12, 0, 0, 0, time.UTC),
	}
}

// ChainOf begins the chain of any account of a shard.
func ChainOf(t testing.TB, ledger uuid.UUID, shard int32, shards int) *Chain {
	t.Helper()
	for {
		account := "user-" + uuid.NewString()
		if domain.ShardOf(account, shards) == shard {
			return NewChain(t, ledger, account, shards)
		}
	}
}

// Next makes the next n events, a microsecond apart, each one of a command of its own: credits, small
// and valid.
func (c *Chain) Next(t testing.TB, n int) []domain.Recorded {
	t.Helper()
	events := make([]domain.Recorded, n)
	for i := range events {
		events[i] = c.event(t, newID(t))
	}
	return events
}

// Command makes the next n events, 4 at most, as those of one command.
func (c *Chain) Command(t testing.TB, n int) []domain.Recorded {
	t.Helper()
	id := domain.CommandID(newID(t))
	events := make([]domain.Recorded, n)
	for i := range events {
		events[i] = c.event(t, domain.EventID(id, i))
	}
	return events
}

func newID(t testing.TB) uuid.UUID {
	t.Helper()
	id, err := uuid.NewV7()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (c *Chain) event(t testing.TB, id uuid.UUID) domain.Recorded {
	t.Helper()
	c.Seq++
	c.Time = c.Time.Add(time.Microsecond)
	e := domain.Event{
		Schema: domain.EventSchema, Shard: c.Shard, Seq: c.Seq, ID: id, Kind: domain.KindCredit,
		Account: c.Account, Debit: domain.PlatformFunding, Credit: domain.AvailableOf(c.Account),
		Amount: c.grant, Currency: "USD", OccurredAt: c.Time,
		Data: &domain.MovementData{Reference: "test:" + id.String(), Reason: c.Pad, Actor: "test"},
	}
	payload, err := domain.Encode(&e)
	if err != nil {
		t.Fatal(err)
	}
	c.Hash = domain.ChainHash(c.Hash, payload)
	return domain.Recorded{Event: e, Payload: payload, Hash: c.Hash}
}
