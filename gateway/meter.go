package gateway

import (
	"context"
	"errors"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/gateway/limit"
	"llm-gateway/gateway/observe/trace"
)

// This is the flow of every model call, the page to read first:
//
//	prepare   read, check, price, bound             no money yet: errors are free; slow senders hold no slot (bodies.go)
//	enter     a slot in this process                too many at once are told to come back (inflight.go)
//	own       what a call names is its account's    else it does not exist (belongings.go)
//	admit     rate limits                           of well-formed calls only (limits.go)
//	find      an answer that is kept (off mostly)   else the circuits: is anybody there? (responsecache.go, circuit.go)
//	gate      a projected balance says no early     never yes, and its no is confirmed (gate.go)
//	reserve   the most it can cost, durably         Postgres says yes or no (while it is away: spool.go)
//	provider  called only after that
//	settle    commit what it cost, refund the rest  durably, before the last byte goes out
//
// Between reserve and settle the money is a hold (hold.go). However the request ends (an answer, an
// error, a panic, a client that went away, a ledger that went away) the hold is settled or released
// exactly once. A request with an Idempotency-Key happens once: a repeat gets its answer
// (idempotency.go).

const (
	// reserveTime bounds the wait for a reserve. Beyond it the client is told 503.
	reserveTime = 3 * time.Second
	// reserveTries bounds how often a reserve is cut down to what the balance affords.
	reserveTries = 5
)

// Ledger is where money moves. Append returns once the command's events are durable; a repeated
// command id is answered with its first outcome. It fails with *domain.Rejection (decided, nothing
// written), domain.ErrOverloaded (nothing happened), or anything else: not known.
type Ledger interface {
	Append(ctx context.Context, c domain.Command) (domain.Outcome, error)
}

// meter takes one model call through the flow, whatever door it came in by.
func (g *Gateway) meter(c *gin.Context) error { return g.serve(c, &asking{}) }

// serve is meter for what the path has said already.
func (g *Gateway) serve(c *gin.Context, a *asking) error {
	k, err := g.prepare(c, doorOf(c), a)
	if err != nil {
		return err
	}
	leave, err := g.slots.enter(c.Request.Context(), k.who.Account)
	if err != nil {
		return err
	}
	defer leave()
	recordOf(c).room.leave() // from here on the bound of slots is that of bodies
	if err := g.own(c.Request.Context(), k); err != nil {
		return err
	}
	admitted, err := g.admit(c, k)
	if err != nil {
		return err
	}
	defer g.settleLimits(admitted, k)
	if k.door.counted != nil && k.foreign != nil {
		return g.count(c, k)
	}
	return g.paid(c, k, admitted)
}

// paid is the part of the flow in which money moves.
func (g *Gateway) paid(c *gin.Context, k *call, admitted *limit.Grant) error {
	record := recordOf(c)
	record.model, k.trace = k.model.Name, record.trace
	kept := g.responses.find(c, k)
	if kept == nil {
		if err := g.refuseUncallable(k); err != nil {
			return err
		}
	}
	if err := g.refuseEarly(c.Request.Context(), k, admitted); err != nil {
		return err
	}
	h, err := g.reserve(c.Request.Context(), k)
	if first, answered := answeredBy(err); answered {
		return g.replay(c, k, first)
	}
	if err != nil {
		return err
	}
	defer h.end()
	h.bind(c.Request.Context())
	record.hold = h
	h.announce(c.Writer.Header())
	switch {
	case kept != nil && k.cap == 0:
		return h.answerKept(c, kept)
	case kept != nil: // the answer to a call without that cap, which may be longer
		g.responses.tell(c, "miss")
	}
	if k.stream {
		return h.stream(c)
	}
	return h.complete(c)
}

// refuseUncallable refuses a call that nobody can be sent now, before any money moves. A request with an
// Idempotency-Key may be a repeat, which is answered from what is kept: the ledger is to say.
func (g *Gateway) refuseUncallable(k *call) error {
	g.circuits.keep(g.catalog())
	if k.key != "" {
		return nil
	}
	if err := g.circuits.shut(k.targets); err != nil {
		return providerError(k.upstream.Name(), err)
	}
	return nil
}

// reserve sets aside the most that the call can cost: in the ledger, or where that is away and the
// operator chose so, in Redis.
func (g *Gateway) reserve(ctx context.Context, k *call) (*hold, error) {
	defer g.stepped(g.step(k.trace, trace.Reserve))
	var h *hold
	err := errLeftAlone
	if !g.spools() || g.owned() && g.outage.try() {
		h, err = g.secure(ctx, newHold(g, k, inLedger{}))
	}
	if unreachable(err) && g.maySpool(k) {
		h, err = g.reserveWithSpool(ctx, k)
	}
	if err != nil {
		return nil, ledgerError(err)
	}
	return h, nil
}

// secure takes a hold. Where the balance does not afford it, the bound is made exact, and the output cut
// down to what is affordable if the client left that open.
func (g *Gateway) secure(ctx context.Context, h *hold) (*hold, error) {
	var err error
	for range reserveTries {
		if err = h.way.reserve(ctx, h); err == nil {
			return h, nil
		}
		rejection := new(domain.Rejection)
		if !errors.As(err, &rejection) || rejection.Reason != domain.RejectInsufficientFunds {
			break
		}
		if smaller, failed := g.shrink(h.call, rejection.Available); failed != nil {
			return nil, failed
		} else if !smaller {
			break
		}
	}
	return nil, err
}

// shrink makes the call's need smaller where that may help, and says whether it did: by an exact count of
// the input, by giving up fallbacks that are dearer, by a limit of the output. The input is counted at most
// once, and not at all for who has nothing: counting costs time.
func (g *Gateway) shrink(k *call, spendable domain.Amount) (bool, error) {
	if spendable.Sign() <= 0 {
		return false, nil
	}
	if smaller, err := k.countInput(); smaller {
		return true, err
	}
	if k.dropDearer() {
		return true, nil
	}
	if !g.mayCap(k) {
		return false, nil
	}
	affords, err := k.version.AffordableOutput(spendable, k.need, k.asked.Choices)
	if err != nil {
		return false, needError(err)
	}
	affords -= outputOverhead(k.asked)
	if affords < 1 || k.cap != 0 && affords >= k.cap || affords >= k.model.OutputLimit() {
		return false, nil
	}
	return true, k.capOutput(affords)
}

// mayCap says whether the call's output may be cut down to what the balance affords.
func (g *Gateway) mayCap(k *call) bool {
	return g.reservePolicy == ReserveCap && k.asked.MaxOutput == 0 && k.door.limit != nil
}

// reserveOp is what reserves the call's bound.
func (h *hold) reserveOp() domain.Reserve {
	k, most := h.call, h.call.dearest()
	return domain.Reserve{
		RequestID: h.id, Amount: most.bound.Amount,
		Data: domain.ReserveData{
			Surface: k.door.surface, Model: domain.CleanText(k.asked.Model, domain.MaxForeignText), Stream: k.stream,
			Bound: most.bound, PriceVersion: most.version.ID, BodyHash: k.bodyHash, MaxOutput: most.need.OutputTokens,
			IdempotencyKey: k.key, KeyID: k.who.KeyID, EndUser: endUser(k.asked.EndUser), Owner: h.g.owner,
		},
	}
}

// reserve appends the reserve. Where it is not known whether that happened, it is undone: the ledger
// handles an account's commands in order.
func (inLedger) reserve(ctx context.Context, h *hold) error {
	if !h.g.owned() { // others would take its reservations for a dead process's
		return errNotOwned
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reserveTime)
	defer cancel()
	_, err := h.g.ask(ctx, newCommand(h.call.who.Account, h.reserveOp()))
	if err == nil || decided(err) || errors.Is(err, domain.ErrOverloaded) {
		return err
	}
	h.undo(err)
	return err
}

// undo releases a reserve of which it is not known whether it happened. What is spooled of the account may
// need that money, so then the journal has the release first; otherwise it is done behind the client's back.
func (h *hold) undo(why error) {
	release := domain.Release{RequestID: h.id, Reason: domain.RefundInternalError}
	if unreachable(why) && h.g.maySpool(h.call) && h.put(newCommand(h.call.who.Account, release)) == nil {
		return
	}
	h.g.background(func() { h.append(release) }) //nolint:errcheck // a reserve that did not happen has nothing to release
}

// ask asks the ledger, and remembers whether it was there.
func (g *Gateway) ask(ctx context.Context, c domain.Command) (domain.Outcome, error) {
	began := time.Now()
	out, err := g.ledger.Append(ctx, c)
	g.outage.report(began, err)
	return out, err
}

func newCommand(account string, op domain.Op) domain.Command {
	return domain.Command{ID: domain.CommandID(uuid.Must(uuid.NewV7())), Account: account, Op: op}
}
