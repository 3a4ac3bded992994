package gateway

import (
	"context"
	"sync"

	"llm-gateway/domain"
)

// accountsKept bounds how many open accounts are remembered; a full set starts anew.
const accountsKept = 100_000

// openAccounts remembers which accounts are open. Accounts are never closed, so it cannot be wrong.
type openAccounts struct {
	mu   sync.RWMutex
	open map[string]struct{}
}

func newOpenAccounts() *openAccounts { return &openAccounts{open: map[string]struct{}{}} }

func (o *openAccounts) has(name string) bool {
	o.mu.RLock()
	defer o.mu.RUnlock()
	_, ok := o.open[name]
	return ok
}

func (o *openAccounts) add(name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.open) >= accountsKept {
		clear(o.open)
	}
	o.open[name] = struct{}{}
}

// actorGateway is who opens accounts, in events.
const actorGateway = "gateway"

// ensureOpen opens an account that is not open yet, with one credit of the default balance. However
// many first requests race, here and on other gateways, the ledger makes one of them.
func (g *Gateway) ensureOpen(ctx context.Context, name string) error {
	if g.accounts.has(name) {
		return nil
	}
	account, err := g.facts.Account(ctx, name)
	if err != nil {
		return ledgerError(err)
	}
	if account == nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reserveTime)
		defer cancel()
		out, err := g.ledger.Append(ctx, newCommand(name, domain.Open{Grant: g.defaultBalance, Actor: actorGateway}))
		if err != nil {
			return ledgerError(err)
		}
		g.wrote(name, &out)
	}
	g.accounts.add(name)
	return nil
}
