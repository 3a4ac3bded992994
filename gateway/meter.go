package gateway

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider"
)

// This is the flow of every model call, the page to read first:
//
//	prepare   read, check, price, bound             no money yet: errors are free
//	gate      a projected balance says no early     never yes, and its no is confirmed (gate.go)
//	reserve   the most it can cost, durably         Postgres says yes or no
//	provider  called only after that
//	settle    commit what it cost, refund the rest  durably, before the last byte goes out
//
// Between reserve and settle the money is a hold. However the request ends (an answer, an error, a
// panic, a client that went away) the hold is settled or released exactly once; end, deferred,
// catches what forgot to.

const (
	// reserveTime bounds the wait for a reserve. Beyond it the client is told 503.
	reserveTime = 3 * time.Second
	// settleTime bounds the wait for a settlement; the ledger tries that long to make it durable.
	settleTime = 60 * time.Second
	// reserveTries bounds how often a reserve is cut down to what the balance affords.
	reserveTries = 4
)

// Ledger is where money moves. Append returns once the command's events are durable; a repeated
// command id is answered with its first outcome. It fails with *domain.Rejection (decided, nothing
// written), domain.ErrOverloaded (nothing happened), or anything else: not known.
type Ledger interface {
	Append(ctx context.Context, c domain.Command) (domain.Outcome, error)
}

// hold is the money of one request between its reserve and its settlement. It belongs to the
// request's goroutine.
type hold struct {
	g        *Gateway
	call     *call
	id       uuid.UUID // the billing request id
	attempts []domain.Attempt
	first    time.Time // when the provider's first byte came
	ended    bool      // settled, released, or given up on
}

// receipt is what a client is told about its charge.
type receipt struct {
	cost     domain.Amount
	position domain.Position
}

// meter takes one model call through the flow.
func (g *Gateway) meter(c *gin.Context, surface string, alwaysStream bool) error {
	k, err := g.prepare(c, surface, alwaysStream)
	if err != nil {
		return err
	}
	record := recordOf(c)
	record.model = k.model.Name
	if err := g.refuseEarly(c.Request.Context(), k); err != nil {
		return err
	}
	h, err := g.reserve(c.Request.Context(), k)
	if err != nil {
		return err
	}
	defer h.end()
	record.hold = h
	h.announce(c.Writer.Header())
	if k.stream {
		return h.stream(c)
	}
	return h.complete(c)
}

// reserve sets aside the most that the call can cost. Where the balance does not afford it, the
// bound is made exact, and the output cut down to what is affordable if the client left that open.
func (g *Gateway) reserve(ctx context.Context, k *call) (*hold, error) {
	h := &hold{g: g, call: k, id: uuid.Must(uuid.NewV7())}
	var err error
	for range reserveTries {
		if err = h.reserve(ctx); err == nil {
			return h, nil
		}
		rejection := new(domain.Rejection)
		if !errors.As(err, &rejection) || rejection.Reason != domain.RejectInsufficientFunds {
			break
		}
		if smaller, failed := g.shrink(k, rejection.Available); failed != nil {
			return nil, failed
		} else if !smaller {
			break
		}
	}
	return nil, ledgerError(err)
}

// shrink makes the call's need smaller where that may help, and says whether it did. The input is
// counted at most once, and not at all for who has nothing: counting costs time.
func (g *Gateway) shrink(k *call, spendable domain.Amount) (bool, error) {
	if spendable.Sign() <= 0 {
		return false, nil
	}
	if k.countInput() {
		return true, k.rebound()
	}
	if !g.mayCap(k) {
		return false, nil
	}
	affords, err := k.version.AffordableOutput(spendable, k.need, k.asked.choices)
	if err != nil {
		return false, needError(err)
	}
	affords -= k.asked.outputOverhead()
	if affords < 1 || k.cap != 0 && affords >= k.cap || affords >= k.model.OutputLimit() {
		return false, nil
	}
	if err := k.capOutput(affords); err != nil {
		return false, err
	}
	return true, k.rebound()
}

// mayCap says whether the call's output may be cut down to what the balance affords.
func (g *Gateway) mayCap(k *call) bool {
	return g.reservePolicy == ReserveCap && k.asked.maxOutput == 0
}

// reserve appends the reserve. Where it is not known whether that happened, it is undone behind the
// client's back: the ledger handles an account's commands in order.
func (h *hold) reserve(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reserveTime)
	defer cancel()
	k := h.call
	_, err := h.g.ledger.Append(ctx, newCommand(k.who.Account, domain.Reserve{
		RequestID: h.id, Amount: k.bound.Amount,
		Data: domain.ReserveData{
			Surface: k.surface, Model: domain.CleanText(k.asked.model, domain.MaxForeignText), Stream: k.stream,
			Bound: k.bound, PriceVersion: k.version.ID, BodyHash: k.bodyHash, MaxOutput: k.need.OutputTokens,
			KeyID: k.who.KeyID, EndUser: endUser(k.asked.endUser), Owner: h.g.owner,
		},
	}))
	if rejection := new(domain.Rejection); err == nil || errors.As(err, &rejection) || errors.Is(err, domain.ErrOverloaded) {
		return err
	}
	h.g.background(func() { h.append(domain.Release{RequestID: h.id, Reason: domain.RefundInternalError}) }) //nolint:errcheck // a reserve that did not happen has nothing to release
	return err
}

// append settles or releases: never on the request's context, which ends with the client.
func (h *hold) append(op domain.Op) (domain.Outcome, error) {
	ctx, cancel := context.WithTimeout(context.Background(), settleTime)
	defer cancel()
	out, err := h.g.ledger.Append(ctx, newCommand(h.call.who.Account, op))
	if err == nil {
		h.g.wrote(h.call.who.Account, &out)
	}
	return out, err
}

func newCommand(account string, op domain.Op) domain.Command {
	return domain.Command{ID: domain.CommandID(uuid.Must(uuid.NewV7())), Account: account, Op: op}
}

// settle commits what was used and refunds the rest. When it returns without an error, that is
// durable.
func (h *hold) settle(u used) (receipt, error) {
	h.ended = true
	charge, err := h.charge(&u)
	if err != nil {
		h.release(domain.RefundInternalError)
		return receipt{}, internal(err)
	}
	out, err := h.append(domain.Settle{RequestID: h.id, Charge: charge.Amount, Data: h.commitData(u, charge)})
	if err != nil {
		return receipt{}, h.unsettled(err)
	}
	last := out.Events[len(out.Events)-1].Event.Kind
	h.g.metrics.Settled(h.call.model.Name, u.meters.InputTokens(), u.meters.OutputTokens(), last == domain.KindOverage)
	return receipt{cost: charge.Amount, position: out.Position()}, nil
}

// unsettled deals with a settlement that failed. One that no event can hold gives everything back; of
// any other it is not known whether it happened, and it must not be undone.
func (h *hold) unsettled(err error) error {
	if rejection := new(domain.Rejection); errors.As(err, &rejection) {
		if rejection.Reason == domain.RejectInvalid {
			h.release(domain.RefundInternalError)
		}
		return internal(err)
	}
	h.g.log.Error("a request could not be settled; what it reserved may stay so", "billing_request_id", h.id, "error", err)
	return unavailable("ledger_unavailable", "The charge could not be recorded, so the answer is withheld. Please retry later.", err)
}

// release gives everything back.
func (h *hold) release(reason domain.RefundReason) {
	h.ended = true
	if _, err := h.append(domain.Release{RequestID: h.id, Reason: reason}); err != nil {
		h.g.log.Error("a reservation could not be released; it stays reserved", "billing_request_id", h.id, "error", err)
	}
}

// end makes sure that no way out of a request leaves money reserved, a panic included.
func (h *hold) end() {
	if !h.ended {
		h.release(domain.RefundInternalError)
	}
}

// fail releases the hold of a call that delivered nothing, and says what the client is told.
func (h *hold) fail(err error) error {
	h.attempted(err)
	reason := domain.RefundInternalError
	if failed := new(provider.Error); errors.As(err, &failed) {
		reason = domain.RefundProviderError
		if failed.Kind == provider.KindCanceled {
			reason = domain.RefundClientAbort
		}
	}
	h.release(reason)
	return providerError(h.call.upstream.Name(), err)
}

// attempted records how the call of the provider ended.
func (h *hold) attempted(err error) {
	a := domain.Attempt{Provider: h.call.upstream.Name(), Model: h.call.model.Name, Status: http.StatusOK,
		Millis: h.g.now().Sub(h.call.began).Milliseconds()}
	if failed := new(provider.Error); errors.As(err, &failed) {
		a.Status, a.Error = failed.Status, string(failed.Kind)
	}
	h.attempts = append(h.attempts, a)
}
