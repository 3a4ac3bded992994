package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/gateway/observe"
	"llm-gateway/gateway/observe/trace"
	"llm-gateway/gateway/provider"
)

const (
	// settleTime bounds the wait for a settlement that only the ledger can make durable. Within it the
	// ledger is asked again after these pauses: what it says at once may pass, as that it is overloaded.
	settleTime          = 60 * time.Second
	shortPause, longest = 50 * time.Millisecond, time.Second
	// journalAfter is how long the ledger has for a settlement before the journal takes it.
	journalAfter = 3 * time.Second
	// journalTime bounds the wait for the journal.
	journalTime = 5 * time.Second
	// keyedTime bounds a request with an idempotency key, whose client's going does not end it.
	keyedTime = 30 * time.Minute
)

// Journal keeps commands that the ledger does not take, because it is away. Put returns nil once the
// command is durable; it is then handed to the ledger, under its own id, when that is back.
type Journal interface {
	Put(ctx context.Context, c domain.Command) error
}

var (
	// errNotOwned: this process's own lease has run out, so its reservations would pass for orphans.
	errNotOwned = errors.New("the gateway's own lease is not held")
	// errLeftAlone: the ledger was away a moment ago, or this process may not reserve in it now.
	errLeftAlone = fmt.Errorf("%w: it is left alone for now", domain.ErrUnavailable)
	// errStopping is why a call is cancelled when the gateway cannot wait for it any longer.
	errStopping = errors.New("the gateway is shutting down")
	// errOverdue is why a call is cancelled that no client's going ends.
	errOverdue = errors.New("the call has lasted for too long")
)

// way is where a hold's money is kept, and how what becomes of it is made durable: in the ledger
// (inLedger), or while that is away in Redis and the journal (withSpool).
type way interface {
	// reserve sets the call's bound aside.
	reserve(ctx context.Context, h *hold) error
	// settle charges, and gives the rest back. When it returns without an error, that is durable.
	settle(h *hold, o domain.Settle) (domain.Outcome, error)
	// release gives everything back.
	release(h *hold, reason domain.RefundReason) error
}

// inLedger is the way of every hold while the ledger is there.
type inLedger struct{}

func (inLedger) settle(h *hold, o domain.Settle) (domain.Outcome, error) { return h.append(o) }

func (inLedger) release(h *hold, reason domain.RefundReason) error {
	_, err := h.append(domain.Release{RequestID: h.id, Reason: reason})
	return err
}

// hold is the money of one request between its reserve and its settlement. It belongs to the
// request's goroutine.
type hold struct {
	g      *Gateway
	call   *call
	way    way
	id     uuid.UUID       // the billing request id
	ctx    context.Context // of the provider's call
	unbind func()          // ends ctx and what it hangs on
	tried  []domain.Attempt
	began  time.Time   // when the present attempt did
	first  time.Time   // when the provider's first byte came
	leave  *passage    // of the present attempt; nil = nothing was called
	kept   *transcript // nil: the answer is not kept
	fresh  *transcript // the answer for the response cache; nil: it is not kept there
	hit    bool        // answered by the response cache
	ended  bool        // settled, released, or given up on

	charged  domain.Charge // what was committed, once that is durable
	released bool          // everything was given back
	step     *trace.Step   // the present attempt; nil: nobody follows it
}

func newHold(g *Gateway, k *call, w way) *hold {
	h := &hold{g: g, call: k, way: w, id: uuid.Must(uuid.NewV7())}
	if k.key != "" {
		h.kept = &transcript{}
	}
	if k.canonical != nil && k.stream {
		h.fresh = &transcript{}
	}
	return h
}

// receipt is what a client is told about its charge. The position is the zero one where the ledger has
// not given it yet.
type receipt struct {
	cost     domain.Amount
	position domain.Position
}

// bind makes the context of the provider's call. It ends with the client, unless whoever repeats the
// request is to find it whole, and when the gateway cannot wait any longer.
func (h *hold) bind(client context.Context) {
	ctx, cancelTime := client, func() {}
	if h.kept != nil {
		ctx, cancelTime = context.WithTimeoutCause(context.WithoutCancel(client), keyedTime, errOverdue)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	left := context.AfterFunc(h.g.stopping, func() { cancel(errStopping) })
	h.ctx = ctx
	h.unbind = func() {
		left()
		cancel(nil)
		cancelTime()
	}
}

// end makes sure that no way out of a request leaves money reserved, a panic included.
func (h *hold) end() {
	if h.unbind != nil {
		h.unbind()
	}
	if !h.ended {
		h.release(domain.RefundInternalError)
	}
	h.g.circuits.ended(h.leave, errNoEnd)
}

// errNoEnd is what a circuit is told of a call whose end it was not told: nothing.
var errNoEnd = errors.New("the call did not come to its end")

// decided says that the ledger has answered for good: asking again would get the same.
func decided(err error) bool {
	rejection := new(domain.Rejection)
	return errors.As(err, &rejection) || errors.Is(err, domain.ErrUnstorable)
}

// append settles or releases: never on the request's context, which ends with the client. What the
// ledger does not take in time is made durable in the journal: then there are no events yet.
func (h *hold) append(op domain.Op) (domain.Outcome, error) {
	c := newCommand(h.call.who.Account, op)
	if h.g.journal == nil {
		return h.g.insist(c)
	}
	ctx, cancel := context.WithTimeout(context.Background(), journalAfter)
	defer cancel()
	out, err := h.g.append(ctx, c)
	if err == nil || decided(err) {
		return out, err
	}
	return h.journal(c)
}

// journal makes a command durable in the journal; where that does not take it, in the ledger after all.
func (h *hold) journal(c domain.Command) (domain.Outcome, error) {
	if h.put(c) == nil {
		return domain.Outcome{}, nil
	}
	out, err := h.g.insist(c)
	if err != nil && !decided(err) {
		h.g.doNotSpool() // that took its time
	}
	return out, err
}

// put makes a command durable in the journal. Where that takes nothing, nothing is spooled for a while.
func (h *hold) put(c domain.Command) error {
	ctx, cancel := context.WithTimeout(context.Background(), journalTime)
	defer cancel()
	full := h.g.journal.Put(ctx, c)
	h.g.metrics.Journaled(full)
	if full != nil {
		h.g.log.Error("the journal does not take a settlement", "billing_request_id", h.id, "error", full)
	}
	if full != nil && !decided(full) {
		h.g.doNotSpool()
	}
	return full
}

// insist asks the ledger until it answers for good, within settleTime. The command keeps its id, so
// that it happens once, however often it is asked.
func (g *Gateway) insist(c domain.Command) (domain.Outcome, error) {
	ctx, cancel := context.WithTimeout(context.Background(), settleTime)
	defer cancel()
	for pause := shortPause; ; pause = min(2*pause, longest) {
		out, err := g.append(ctx, c)
		if err == nil || decided(err) || !waits(ctx, pause) {
			return out, err
		}
	}
}

// waits passes so much time; false where ctx ends before.
func waits(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// append asks the ledger once.
func (g *Gateway) append(ctx context.Context, c domain.Command) (domain.Outcome, error) {
	out, err := g.ask(ctx, c)
	if err == nil {
		g.wrote(c.Account, &out)
	}
	return out, err
}

// settle commits what was used and refunds the rest. When it returns without an error, that is
// durable. broken says that the answer ended with an error.
func (h *hold) settle(u used, broken bool) (receipt, error) {
	h.call.spent = u.meters.InputTokens() + u.meters.OutputTokens()
	bill, err := h.charge(&u)
	if err != nil {
		h.release(domain.RefundInternalError)
		return receipt{}, internal(err)
	}
	op := domain.Settle{RequestID: h.id, Charge: bill.charge.Amount, Data: h.commitData(u, bill), Response: h.kept.response(broken)}
	defer h.g.stepped(h.g.step(h.call.trace, trace.Settle))
	h.ended = true // not before: a panic on the way here gives everything back
	claimed := h.claim(u.report.Kept)
	out, err := h.way.settle(h, op)
	claimed()
	if err != nil {
		return receipt{}, h.unsettled(err)
	}
	h.charged = bill.charge
	h.g.overage(h.id, &out)
	h.g.metrics.Settled(observe.Settlement{Model: h.call.model.Name, Provider: h.call.model.Provider, Input: u.meters.InputTokens(),
		Output: u.meters.OutputTokens(), Charge: bill.charge.Amount, Cost: bill.cost.Amount, FirstByte: h.firstByte()})
	return receipt{cost: bill.charge.Amount, position: out.Position()}, nil
}

// firstByte is how long the provider's first byte took; 0 where none is known.
func (h *hold) firstByte() time.Duration {
	if h.first.IsZero() {
		return 0
	}
	return h.first.Sub(h.call.began)
}

// overage says whether a settlement took more than was reserved, and reports it: each one is a bug, a
// wrong price, a process that was taken for dead, or a balance that Redis knew and that was gone.
func (g *Gateway) overage(id uuid.UUID, out *domain.Outcome) bool {
	if len(out.Events) == 0 {
		return false
	}
	last := &out.Events[len(out.Events)-1].Event
	d, over := last.Data.(*domain.OverageData)
	if over {
		g.metrics.Overage(string(d.Reason), last.Amount)
		g.log.Error("a charge exceeded what was reserved for it", "billing_request_id", id, "reason", d.Reason, "position", out.Position().String())
	}
	return over
}

// unsettled deals with a settlement that failed. One that no event can hold gives everything back; of
// any other it is not known whether it happened, and it must not be undone.
func (h *hold) unsettled(err error) error {
	if decided(err) {
		rejection := new(domain.Rejection)
		if !errors.As(err, &rejection) || rejection.Reason == domain.RejectInvalid || h.way == way(withSpool{}) {
			h.release(domain.RefundInternalError)
		}
		return internal(err)
	}
	h.g.log.Error("a request could not be settled; what it reserved stays so until this process ends", "billing_request_id", h.id, "error", err)
	return unavailable("ledger_unavailable", "The charge could not be recorded, so the answer is withheld. Please retry later.", err)
}

// release gives everything back. What has expired has gone back already.
func (h *hold) release(reason domain.RefundReason) {
	defer h.g.stepped(h.g.step(h.call.trace, trace.Settle))
	h.ended, h.released = true, true
	err := h.way.release(h, reason)
	if gone := new(domain.Rejection); errors.As(err, &gone) && gone.Reason == domain.RejectAlreadySettled {
		h.g.log.Warn("a reservation had been released before its request ended", "billing_request_id", h.id, "error", err)
		return
	}
	if err != nil {
		h.g.log.Error("a reservation could not be released; it stays reserved until this process ends", "billing_request_id", h.id, "error", err)
	}
}

// fail releases the hold of a call that delivered nothing, and says what the client is told.
func (h *hold) fail(err error) error {
	h.release(h.reason(err))
	return h.failure(err)
}

// reason is why the money of a call that delivered nothing goes back.
func (h *hold) reason(err error) domain.RefundReason {
	failed := new(provider.Error)
	switch {
	case !errors.As(err, &failed):
		return domain.RefundInternalError
	case failed.Kind != provider.KindCanceled, errors.Is(context.Cause(h.ctx), errOverdue):
		return domain.RefundProviderError
	case errors.Is(context.Cause(h.ctx), errStopping):
		return domain.RefundShutdown
	}
	return domain.RefundClientAbort
}

// failure is what the client is told about a call that failed.
func (h *hold) failure(err error) error {
	if e := new(Error); errors.As(err, &e) {
		return e
	}
	name := h.call.upstream.Name()
	if failed := new(provider.Error); errors.As(err, &failed) && failed.Kind == provider.KindCanceled {
		switch cause := context.Cause(h.ctx); {
		case errors.Is(cause, errStopping):
			return unavailable("shutting_down", "This gateway is shutting down. Please retry: another one answers.", err)
		case errors.Is(cause, errOverdue):
			err = &provider.Error{Kind: provider.KindTimeout, Provider: name, Reason: cause.Error()}
		}
	}
	e := providerError(name, err)
	if h.call.foreign != nil { // it was asked in another form than the client's
		e.native = nil
	}
	return e
}
