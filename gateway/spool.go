package gateway

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/gateway/observe"
)

// While the ledger is away, and the operator chose so (BILLING_DEGRADED=spool), model calls go on within
// the balances that Redis knew last. Their money is held there; what they come to is one command in the
// journal, durable before the last byte. When the ledger is back it books the command as the request that
// it was, or, if the money is no longer there, as an overage. Such a request has an id of its own: the
// reserve that failed before it may have happened, and is released.
//
// What only the ledger can decide is not guessed: a request with an idempotency key is not spooled, nor is
// one of an account that Redis does not know.

const (
	// spoolTime bounds the wait for a hold in Redis, and for what becomes of it.
	spoolTime = 500 * time.Millisecond
	// dropTries bounds how often a hold of which it is not known whether it was taken is dropped, with
	// dropPause before each try; after that it ends by itself.
	dropTries = 3
	dropPause = time.Second
	// spoolPause is how long nothing more is spooled after the journal took nothing: what cannot be
	// recorded must not be bought.
	spoolPause = 5 * time.Second
)

// Spool holds money of accounts in a place that outlives this process and that all gateways share, within
// the balances that are known there.
type Spool interface {
	// Hold takes a hold, once for each request, however often it is asked. It fails with
	// *domain.Rejection (insufficient_funds, account_frozen), domain.ErrBalanceUnknown or
	// domain.ErrOverloaded: nothing is held; or anything else: not known.
	Hold(ctx context.Context, account string, request uuid.UUID, amount domain.Amount) error
	// Charge turns a request's hold into what the request cost, if it is still there.
	Charge(ctx context.Context, account string, request uuid.UUID, amount domain.Amount) error
	// Drop lets a request's hold go.
	Drop(ctx context.Context, account string, request uuid.UUID) error
}

// spools says whether this gateway goes on without the ledger at all.
func (g *Gateway) spools() bool { return g.spool != nil && g.journal != nil }

// maySpool says whether a call may go on without the ledger, now.
func (g *Gateway) maySpool(k *call) bool {
	return g.spools() && k.key == "" && g.now().UnixNano() >= g.spoolAfter.Load()
}

// doNotSpool stops spooling for a while: the journal took nothing.
func (g *Gateway) doNotSpool() { g.spoolAfter.Store(g.now().Add(spoolPause).UnixNano()) }

// reserveWithSpool takes a hold in Redis, of a call whose reserve the ledger did not decide on.
func (g *Gateway) reserveWithSpool(ctx context.Context, k *call) (*hold, error) {
	h, err := g.secure(ctx, newHold(g, k, withSpool{}))
	rejection := new(domain.Rejection)
	switch {
	case err == nil:
		g.metrics.Spooled(observe.SpoolHeld)
		g.outage.without()
	case errors.As(err, &rejection):
		g.metrics.Spooled(observe.SpoolRefused)
	case errors.Is(err, domain.ErrBalanceUnknown):
		g.metrics.Spooled(observe.SpoolUnknown)
	default:
		g.metrics.Spooled(observe.SpoolFailed)
	}
	return h, err
}

// withSpool is the way of a hold that is in Redis, and of which the journal tells the ledger.
type withSpool struct{}

func (withSpool) reserve(ctx context.Context, h *hold) error {
	g, account, amount := h.g, h.call.who.Account, h.call.dearest().bound.Amount
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), spoolTime)
	defer cancel()
	err := g.spool.Hold(ctx, account, h.id, amount)
	if err != nil && !decided(err) && !errors.Is(err, domain.ErrBalanceUnknown) && !errors.Is(err, domain.ErrOverloaded) {
		g.background(func() { g.undoHold(account, h.id) })
	}
	return err
}

// undoHold drops a hold of which it is not known whether it was taken.
func (g *Gateway) undoHold(account string, id uuid.UUID) {
	for range dropTries {
		<-time.After(dropPause)
		if g.drop(account, id) {
			return
		}
	}
}

func (withSpool) settle(h *hold, o domain.Settle) (domain.Outcome, error) {
	account, reserve := h.call.who.Account, h.reserveOp()
	out, err := h.journal(newCommand(account, domain.Spooled{RequestID: h.id, Amount: reserve.Amount, Reserve: reserve.Data,
		Charge: o.Charge, Commit: o.Data}))
	switch {
	case decided(err): // nothing is booked: it is released
	case err != nil:
		h.g.metrics.Spooled(observe.SpoolWithheld)
	case len(out.Events) > 0: // the journal did not take it, and the ledger did after all
		h.g.drop(account, h.id)
		h.g.metrics.Spooled(observe.SpoolCharged)
	default:
		h.g.chargeHold(account, h.id, o.Charge)
		h.g.metrics.Spooled(observe.SpoolCharged)
	}
	return out, err
}

func (withSpool) release(h *hold, _ domain.RefundReason) error {
	h.g.metrics.Spooled(observe.SpoolDropped)
	h.g.drop(h.call.who.Account, h.id)
	return nil // there is nothing in the ledger to be given back
}

// chargeHold turns a hold into its charge. Where that fails the hold stays as it was, which is more.
func (g *Gateway) chargeHold(account string, id uuid.UUID, charge domain.Amount) {
	ctx, cancel := context.WithTimeout(context.Background(), spoolTime)
	defer cancel()
	if err := g.spool.Charge(ctx, account, id, charge); err != nil {
		g.log.Warn("a hold in Redis was not turned into its charge", "billing_request_id", id, "error", err)
	}
}

// drop lets a hold go, and says whether it is gone. Where it is not, it ends by itself.
func (g *Gateway) drop(account string, id uuid.UUID) bool {
	ctx, cancel := context.WithTimeout(context.Background(), spoolTime)
	defer cancel()
	err := g.spool.Drop(ctx, account, id)
	if err != nil {
		g.log.Warn("a hold in Redis was not dropped; it ends by itself", "billing_request_id", id, "error", err)
	}
	return err == nil
}

// Book is the ledger's Append for whoever drains the journal. What was spooled is no longer held in Redis
// once the ledger has decided on it. A charge that was not covered is reported however often it is handed
// over: the first time its answer may have been lost. A reserve that never happened, or that has been
// released meanwhile, has nothing to release: that is no error.
func (g *Gateway) Book(ctx context.Context, c domain.Command) (domain.Outcome, error) {
	out, err := g.ask(ctx, c)
	over := false
	if err == nil {
		g.wrote(c.Account, &out)
		over = g.overage(c.Op.Request(), &out)
	}
	switch c.Op.(type) {
	case domain.Release:
		if nothingToRelease(err) {
			return domain.Outcome{}, nil
		}
	case domain.Spooled:
		if err == nil || decided(err) {
			g.booked(c, over, err)
		}
	}
	return out, err
}

func nothingToRelease(err error) bool {
	rejection := new(domain.Rejection)
	return errors.As(err, &rejection) &&
		(rejection.Reason == domain.RejectReservationUnknown || rejection.Reason == domain.RejectAlreadySettled)
}

// booked ends what Redis knows of a spooled request.
func (g *Gateway) booked(c domain.Command, over bool, err error) {
	if g.spool != nil { // it is not, where the choice was another one before
		g.drop(c.Account, c.Op.Request())
	}
	switch {
	case err != nil:
		g.metrics.Spooled(observe.SpoolRejected)
	case over:
		g.metrics.Spooled(observe.SpoolOverage)
	default:
		g.metrics.Spooled(observe.SpoolBooked)
	}
}
