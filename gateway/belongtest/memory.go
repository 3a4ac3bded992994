// Package belongtest has gateway.Belongings for tests.
//
// Problem: what the gateway's tests take for Postgres must do what Postgres does. So one suite (Conform) runs
// over both: this package's own test has it run over Memory, and cmd's over Postgres.
package belongtest

import (
	"context"
	"sync"
)

// Memory is a gateway.Belongings in memory, safe for concurrent use. Make it with NewMemory.
type Memory struct {
	mu     sync.Mutex
	owners map[[2]string]string // by provider and id
	broken error
}

// NewMemory is a Memory in which nothing is anybody's.
func NewMemory() *Memory { return &Memory{owners: map[[2]string]string{}} }

// Break makes all calls fail; nil mends that.
func (m *Memory) Break(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broken = err
}

// Claim implements gateway.Belongings.
func (m *Memory) Claim(_ context.Context, account, provider string, ids []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		if _, taken := m.owners[[2]string{provider, id}]; !taken && m.broken == nil {
			m.owners[[2]string{provider, id}] = account
		}
	}
	return m.broken
}

// Own implements gateway.Belongings.
func (m *Memory) Own(_ context.Context, account, provider string, ids []string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		if owner, known := m.owners[[2]string{provider, id}]; !known || owner != account {
			return false, m.broken
		}
	}
	return m.broken == nil, m.broken
}
