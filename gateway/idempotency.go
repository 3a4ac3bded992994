package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"llm-gateway/domain"
)

// A request with an Idempotency-Key happens once per account: the reserve takes the key, in the ledger,
// so on any number of gateways; the settlement keeps the answer. A repeat with the same body gets that
// answer and costs nothing. The rules are domain's (key.go); here is what the edge makes of them.

const (
	headerKey = "Idempotency-Key"
	// maxKept bounds an answer that is kept, in bytes. A longer one answers a repeat with 409.
	maxKept = 1 << 20
	// headerReplayed marks an answer that is the repeat of an earlier one.
	headerReplayed = "idempotent-replayed"
)

// readKey is the request's key, or "".
func readKey(c *gin.Context) (string, error) {
	keys := c.Request.Header.Values(headerKey)
	if len(keys) == 0 {
		return "", nil
	}
	key := keys[0]
	plain := len(keys) == 1 && key != "" && len(key) <= domain.MaxKey
	for i := 0; i < len(key) && plain; i++ {
		plain = key[i] >= ' ' && key[i] <= '~'
	}
	if !plain {
		return "", invalid("invalid_value", headerKey, fmt.Sprintf("`%s` must be one key of 1 to %d printable ASCII characters.", headerKey, domain.MaxKey))
	}
	return key, nil
}

// answeredBy finds the earlier request whose answer is this one's.
func answeredBy(err error) (uuid.UUID, bool) {
	rejection := new(domain.Rejection)
	if errors.As(err, &rejection) && rejection.Reason == domain.RejectKeyAnswered {
		return rejection.RequestID, true
	}
	return uuid.Nil, false
}

// keyRefusal says what a client is told whose key another request has; nil where that is not the matter.
func keyRefusal(r *domain.Rejection) *Error {
	switch r.Reason {
	case domain.RejectKeyInProgress:
		return &Error{Status: http.StatusConflict, Type: typeConflict, Code: "request_in_progress", Param: headerKey, RetryAfter: retryLater, cause: r,
			Message: "The request " + r.RequestID.String() + " with this idempotency key is still running. Please retry later."}
	case domain.RejectKeyReused:
		return &Error{Status: http.StatusUnprocessableEntity, Type: typeInvalid, Code: "idempotency_key_reused", Param: headerKey, cause: r,
			Message: "This idempotency key belongs to the request " + r.RequestID.String() + ", which asked for something else."}
	}
	return nil
}

// transcript is the answer of a request with a key, as far as it is kept.
type transcript struct {
	body []byte
	over bool // it is longer than is kept
}

// add keeps what is sent. A nil transcript keeps nothing.
func (t *transcript) add(parts ...[]byte) {
	if t == nil || t.over {
		return
	}
	for _, part := range parts {
		if len(t.body)+len(part) > maxKept {
			t.body, t.over = nil, true
			return
		}
		t.body = append(t.body, part...)
	}
}

// response is what the settlement keeps; nil where there is nothing to keep.
func (t *transcript) response(broken bool) *domain.Response {
	if t == nil || t.over {
		return nil
	}
	return &domain.Response{Body: t.body, Broken: broken}
}

// replay answers with what an earlier request was answered with, and charges nothing.
func (g *Gateway) replay(c *gin.Context, k *call, first uuid.UUID) error {
	ctx, account := c.Request.Context(), k.who.Account
	kept, err := g.facts.Response(ctx, account, first)
	if err != nil {
		return ledgerError(fmt.Errorf("reading a kept answer: %w", err))
	}
	if kept == nil {
		return &Error{Status: http.StatusConflict, Type: typeConflict, Code: "response_not_kept", Param: headerKey,
			Message: "The request " + first.String() + " with this idempotency key was answered and charged, and its answer was too long to be kept."}
	}
	events, err := g.facts.Request(ctx, account, first)
	if err != nil || len(events) == 0 {
		return ledgerError(fmt.Errorf("reading the events of %s: %w", first, err))
	}
	bill := receiptOf(events)
	recordOf(c).replayed = first
	header := c.Writer.Header()
	header.Set("x-billing-request-id", first.String())
	header.Set(headerReplayed, "true")
	if k.stream {
		replayStream(c, k, first, bill, kept)
		return nil
	}
	bill.announce(header)
	header.Set("Content-Type", "application/json")
	writeParts(c, kept.Body)
	return nil
}

// receiptOf is what a settled request came to.
func receiptOf(events []domain.Recorded) receipt {
	r := receipt{position: events[len(events)-1].Event.Position()}
	for i := range events {
		if e := &events[i].Event; e.Kind == domain.KindCommit || e.Kind == domain.KindOverage {
			r.cost = r.cost.Add(e.Amount)
		}
	}
	return r
}

// replayStream sends a stream again, at once. One that broke off breaks off again.
func replayStream(c *gin.Context, k *call, first uuid.UUID, bill receipt, kept *domain.Response) {
	events := framing{list: k.asking.list, begun: len(kept.Body) > 0}
	events.header(c)
	body := kept.Body
	if !kept.Broken {
		last := len(body)
		if !events.list && !k.door.marked && last > 0 {
			last = lastFrame(body)
		}
		body = slices.Concat(body[:last:last], slices.Concat(events.end(k.door, body[last:], bill.comment(first))...))
	}
	writeParts(c, body)
	c.Writer.Flush()
}
