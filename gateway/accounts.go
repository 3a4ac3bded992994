package gateway

import (
	"context"
	"fmt"
	"sync"
	"time"

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

// openTime bounds the wait for the ledger to say whether an account is open.
const openTime = 3 * time.Second

// ensureOpen opens an account that is not open yet, with one credit of the default balance. However
// many first requests race, here and on other gateways, the ledger makes one of them. While the ledger is
// away, an account is open that the cache knows; that is not remembered.
func (g *Gateway) ensureOpen(ctx context.Context, name string) error {
	if g.accounts.has(name) || g.outage.away() && g.isCached(ctx, name) {
		return nil
	}
	account, err := g.head(ctx, name)
	if err != nil {
		if g.isCached(ctx, name) {
			return nil
		}
		return ledgerError(err)
	}
	if account == nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reserveTime)
		defer cancel()
		out, err := g.ask(ctx, newCommand(name, domain.Open{Grant: g.defaultBalance, Actor: actorGateway}))
		if err != nil {
			return ledgerError(err)
		}
		g.wrote(name, &out)
	}
	g.accounts.add(name)
	return nil
}

// head asks the ledger for an account as it is now, and remembers if it was not there. A ledger that can
// be read is not one that takes appends: that it was there is not remembered.
func (g *Gateway) head(ctx context.Context, name string) (*domain.Account, error) {
	bounded, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	began := time.Now()
	account, err := g.facts.Account(bounded, name)
	if err != nil && ctx.Err() == nil { // a client that went away says nothing of the ledger
		err = fmt.Errorf("%w: %w", domain.ErrUnavailable, err)
		g.outage.report(began, err)
	}
	return account, err
}

// isCached says whether the cache knows an account.
func (g *Gateway) isCached(ctx context.Context, name string) bool {
	_, known := g.lastKnown(ctx, name)
	return known
}
