// Package spooltest has what every gateway.Spool must do (Conform), and one in memory that does it
// (Memory), for tests of gateways.
package spooltest

import (
	"context"
	"sync"

	"github.com/google/uuid"

	"llm-gateway/domain"
)

// Memory is a gateway.Spool in memory. It is safe for concurrent use.
type Memory struct {
	mu    sync.Mutex
	known map[string]domain.CachedBalance
	holds map[string]map[uuid.UUID]domain.Amount
	fault func(ctx context.Context) (happens bool, err error) // nil = none
}

// NewMemory is one that knows nobody.
func NewMemory() *Memory {
	return &Memory{known: map[string]domain.CachedBalance{}, holds: map[string]map[uuid.UUID]domain.Amount{}}
}

// Know sets what is known of an account.
func (m *Memory) Know(account, spendable string, frozen bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known[account] = domain.CachedBalance{Spendable: domain.MustAmount(spendable), Frozen: frozen}
}

// Forget forgets an account's balance, and leaves its holds.
func (m *Memory) Forget(account string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.known, account)
}

// Lapse ends all holds of an account, as time does.
func (m *Memory) Lapse(account string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.holds, account)
}

// Fail lets every call fail with an error, before it happens or after that; with nil none does any more.
func (m *Memory) Fail(err error, after bool) {
	m.Interrupt(func(context.Context) (bool, error) { return after, err })
}

// Interrupt lets a function say of every call whether it happens and what its caller is told.
func (m *Memory) Interrupt(fault func(ctx context.Context) (happens bool, err error)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = fault
}

// Held are an account's holds.
func (m *Memory) Held(account string) map[uuid.UUID]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[uuid.UUID]string{}
	for id, amount := range m.holds[account] {
		out[id] = amount.String()
	}
	return out
}

// do changes the holds, unless a fault says otherwise.
func (m *Memory) do(ctx context.Context, change func() error) error {
	m.mu.Lock()
	fault := m.fault
	m.mu.Unlock()
	var failed error
	if fault != nil {
		happens, err := fault(ctx)
		if failed = err; err != nil && !happens {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := change(); err != nil && failed == nil {
		return err
	}
	return failed
}

// Hold implements gateway.Spool.
func (m *Memory) Hold(ctx context.Context, account string, request uuid.UUID, amount domain.Amount) error {
	return m.do(ctx, func() error {
		own, held := m.holds[account][request]
		if held && own.Equal(amount) {
			return nil
		}
		known, ok := m.known[account]
		if !ok {
			return domain.ErrBalanceUnknown
		}
		if known.Frozen {
			return &domain.Rejection{Reason: domain.RejectAccountFrozen, Account: account}
		}
		available := known.Spendable
		for id, other := range m.holds[account] {
			if id != request {
				available = available.Sub(other)
			}
		}
		switch {
		case amount.IsZero():
			return nil
		case available.Less(amount):
			return &domain.Rejection{Reason: domain.RejectInsufficientFunds, Account: account, Needed: amount, Available: available}
		case m.holds[account] == nil:
			m.holds[account] = map[uuid.UUID]domain.Amount{}
		}
		m.holds[account][request] = amount
		return nil
	})
}

// Charge implements gateway.Spool.
func (m *Memory) Charge(ctx context.Context, account string, request uuid.UUID, amount domain.Amount) error {
	return m.do(ctx, func() error {
		if _, held := m.holds[account][request]; held {
			m.holds[account][request] = amount
		}
		if amount.IsZero() {
			delete(m.holds[account], request)
		}
		return nil
	})
}

// Drop implements gateway.Spool.
func (m *Memory) Drop(ctx context.Context, account string, request uuid.UUID) error {
	return m.Charge(ctx, account, request, domain.Zero)
}
