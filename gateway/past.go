package gateway

import (
	"fmt"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
)

// pastAnswer is a balance at a past moment.
type pastAnswer struct {
	UserID     string     `json:"user_id"`
	At         time.Time  `json:"at"` // the moment that was asked for
	Balance    number     `json:"balance"`
	Reserved   number     `json:"reserved"`
	Currency   string     `json:"currency"`
	Position   *string    `json:"position"`    // of the account's last event by then; null: it had none
	OccurredAt *time.Time `json:"occurred_at"` // when that was
}

// balanceAt is GET /billing/balance?at=: from the events themselves, not from a projection.
func (g *Gateway) balanceAt(c *gin.Context, text string) error {
	at, err := time.Parse(time.RFC3339Nano, text)
	switch {
	case err != nil:
		return invalid("invalid_value", "at", "`at` must be a time such as 2026-07-31T23:59:59Z or 2026-08-01T00:00:00%2B02:00.")
	case at.After(g.now()):
		return invalid("invalid_value", "at", "`at` is in the future: what the balance will be then is not known.")
	}
	who := identityOf(c).Account
	past, err := g.facts.BalanceAt(c.Request.Context(), who, at)
	if err != nil {
		return ledgerError(fmt.Errorf("reading the balance of the past: %w", err))
	}
	answer := pastAnswer{UserID: who, At: at.UTC(), Balance: number(past.Available), Reserved: number(past.Reserved), Currency: g.currency}
	if past.Position.Seq > 0 {
		position := past.Position.String()
		answer.Position, answer.OccurredAt = &position, &past.OccurredAt
	}
	c.JSON(http.StatusOK, answer)
	return nil
}
