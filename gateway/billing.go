package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"llm-gateway/domain"
)

const (
	// lastKnownTime bounds the wait for the cache where nobody else can answer.
	lastKnownTime = 500 * time.Millisecond
	// freshTime bounds the wait for the projected balance where the cache may have one.
	freshTime = 3 * time.Second
)

// number writes an amount as a JSON number with its exact digits.
type number domain.Amount

// MarshalJSON implements json.Marshaler.
func (n number) MarshalJSON() ([]byte, error) { return []byte(domain.Amount(n).String()), nil }

type balanceAnswer struct {
	UserID   string `json:"user_id"`
	Balance  number `json:"balance"` // available
	Reserved number `json:"reserved"`
	Currency string `json:"currency"`
	Stale    bool   `json:"stale,omitempty"` // it is what the cache knew last
	reading
}

// balance is GET /billing/balance. Where the projections cannot be read, it is what the cache knew last.
func (g *Gateway) balance(c *gin.Context) error {
	if at, asked := c.GetQuery("at"); asked {
		return g.balanceAt(c, at)
	}
	atLeast, err := g.atLeast(c)
	if err != nil {
		return err
	}
	ctx, name := c.Request.Context(), identityOf(c).Account
	if g.outage.away() && g.staleBalance(c, name) {
		return nil
	}
	account, r, err := g.projectedBalance(ctx, name, atLeast)
	if err != nil {
		if g.staleBalance(c, name) {
			return nil
		}
		return ledgerError(fmt.Errorf("reading the balance: %w", err))
	}
	current := g.reading(c, r)
	if account == nil {
		return unavailable("projection_behind", "Your account is open, but its balance is not known here yet. Please retry.", nil)
	}
	c.JSON(http.StatusOK, balanceAnswer{UserID: name, Balance: number(account.Available),
		Reserved: number(account.Reserved), Currency: g.currency, reading: current})
	return nil
}

// projectedBalance is an account as the projection has it, nil where that is nothing.
func (g *Gateway) projectedBalance(ctx context.Context, name string, atLeast domain.Position) (*domain.Account, domain.Reading, error) {
	if g.gate != nil {
		bounded, cancel := context.WithTimeout(ctx, freshTime)
		defer cancel()
		ctx = bounded
	}
	account, r, err := g.projections.Balance(ctx, name, atLeast)
	if err == nil && account == nil && atLeast.Seq == 0 {
		return g.balanceOfNew(ctx, name, r)
	}
	return account, r, err
}

// staleBalance answers with the balance that the cache knew last; false where it knows none.
func (g *Gateway) staleBalance(c *gin.Context, name string) bool {
	known, ok := g.lastKnown(c.Request.Context(), name)
	if !ok {
		return false
	}
	c.JSON(http.StatusOK, balanceAnswer{UserID: name, Balance: number(known.Available), Reserved: number(known.Reserved),
		Currency: g.currency, Stale: true, reading: reading{Position: positionText(known.Position)}})
	return true
}

// lastKnown is what the cache knows of an account's balance; false where that is nothing, or there is no
// cache.
func (g *Gateway) lastKnown(ctx context.Context, name string) (domain.CachedBalance, bool) {
	if g.gate == nil {
		return domain.CachedBalance{}, false
	}
	ctx, cancel := context.WithTimeout(ctx, lastKnownTime)
	defer cancel()
	known, ok, err := g.gate.balances.Balance(ctx, name)
	return known, ok && err == nil
}

// balanceOfNew waits for an account that the projection has not seen: it is open, by another gateway
// or before this process began, so the ledger knows how far the projection has to come.
func (g *Gateway) balanceOfNew(ctx context.Context, name string, r domain.Reading) (*domain.Account, domain.Reading, error) {
	head, err := g.facts.Account(ctx, name)
	if err != nil || head == nil {
		return nil, r, err
	}
	return g.projections.Balance(ctx, name, domain.Position{Shard: r.Position.Shard, Seq: head.LastSeq})
}

// Bounds and default of a page of transactions.
const (
	defaultPage = 10
	maxPage     = 1000
	maxOffset   = 10_000_000
)

type transaction struct {
	ID          uuid.UUID  `json:"id"`
	Amount      number     `json:"amount"` // charges are negative
	Description string     `json:"description"`
	Timestamp   time.Time  `json:"timestamp"`
	Model       *string    `json:"model"`
	RequestID   *uuid.UUID `json:"request_id"`
}

type transactionsAnswer struct {
	UserID       string        `json:"user_id"`
	Transactions []transaction `json:"transactions"`
	Limit        int           `json:"limit"`
	Offset       int           `json:"offset"`
	reading
}

// transactions is GET /billing/transactions?limit&offset.
func (g *Gateway) transactions(c *gin.Context) error {
	limit, err := pageNumber(c, "limit", defaultPage, 1, maxPage)
	if err != nil {
		return err
	}
	offset, err := pageNumber(c, "offset", 0, 0, maxOffset)
	if err != nil {
		return err
	}
	atLeast, err := g.atLeast(c)
	if err != nil {
		return err
	}
	who := identityOf(c)
	lines, r, err := g.projections.Transactions(c.Request.Context(), who.Account, limit, offset, atLeast)
	if err != nil {
		return ledgerError(fmt.Errorf("reading the transactions: %w", err))
	}
	out := make([]transaction, len(lines))
	for i := range lines {
		out[i] = transactionOf(&lines[i])
	}
	c.JSON(http.StatusOK, transactionsAnswer{UserID: who.Account, Transactions: out, Limit: limit, Offset: offset,
		reading: g.reading(c, r)})
	return nil
}

func pageNumber(c *gin.Context, name string, otherwise, least, most int) (int, error) {
	text := c.Query(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, invalid("invalid_value", name, fmt.Sprintf("`%s` must be a whole number from %d to %d.", name, least, most))
	}
	return n, nil
}

// transactionOf shows a line of a statement.
func transactionOf(l *domain.Transaction) transaction {
	t := transaction{ID: l.ID, Amount: number(l.Amount), Timestamp: l.OccurredAt}
	switch l.Kind {
	case domain.KindCredit:
		t.Description = "Credit: " + movement(l)
	case domain.KindDebit:
		t.Description = "Debit: " + movement(l)
	default:
		t.Model, t.RequestID, t.Description = &l.Model, &l.RequestID, "Chat completion with "+l.Model
		if l.Reason != "" {
			t.Description += " (overage: " + l.Reason + ")"
		}
	}
	return t
}

func movement(l *domain.Transaction) string {
	if l.Reason == "" {
		return l.Reference
	}
	return l.Reason + " (" + l.Reference + ")"
}

// eventView is one event in the life of a request. Payload is the stored event, byte for byte: what
// the hash is over; but for what is Withheld.
type eventView struct {
	Position   string          `json:"position"`
	Kind       domain.Kind     `json:"kind"`
	Amount     number          `json:"amount"`
	OccurredAt time.Time       `json:"occurred_at"`
	Hash       string          `json:"hash"`
	Payload    json.RawMessage `json:"payload"`

	Withheld     []string     `json:"withheld,omitempty"` // fields of the payload's data that are left out here
	PreviousHash string       `json:"previous_hash,omitempty"`
	Chain        string       `json:"chain"` // chainValid, or what is wrong
	Before       balancesView `json:"before"`
	After        balancesView `json:"after"`
}

// lineView is a line of a charge; amount is a number here, as everywhere in /billing.
type lineView struct {
	Meter     domain.Meter  `json:"meter"`
	Quantity  int64         `json:"quantity"`
	UnitPrice domain.Amount `json:"unit_price"`
	Amount    number        `json:"amount"`

	PriceVersion string `json:"price_version,omitempty"` // where it is not the charge's own
}

// RequestView is the whole life of one request's money: what GET /billing/requests/{id} answers with.
type RequestView struct {
	RequestID    uuid.UUID               `json:"request_id"`
	UserID       string                  `json:"user_id"`
	State        domain.ReservationState `json:"state"`
	Model        string                  `json:"model"`
	ModelServed  string                  `json:"model_served,omitempty"`
	Provider     string                  `json:"provider,omitempty"`
	Currency     string                  `json:"currency"`
	Reserved     domain.Amount           `json:"reserved"`
	Charged      domain.Amount           `json:"charged"`
	Refunded     domain.Amount           `json:"refunded"`
	RefundReason domain.RefundReason     `json:"refund_reason,omitempty"`
	UsageSource  domain.UsageSource      `json:"usage_source,omitempty"`
	PriceVersion string                  `json:"price_version"`
	Bound        domain.Bound            `json:"bound"`
	Meters       map[domain.Meter]int64  `json:"meters"`
	Lines        []lineView              `json:"lines"`
	Events       []eventView             `json:"events"`

	Overage   domain.Amount    `json:"overage"`      // of Charged: what was taken beyond the reserve, or without one
	Attempts  []domain.Attempt `json:"attempts"`     // calls of providers, in order
	Reported  json.RawMessage  `json:"reported"`     // the provider's own usage, null where it gave none: what Meters were made of
	CountedBy string           `json:"counted_by"`   // where the gateway counted
	Tier      string           `json:"service_tier"` // that the provider says it served
	Region    string           `json:"region"`       // the place or speed whose factor was charged
	SpooledAt string           `json:"spooled_at,omitempty"`
	Withheld  []string         `json:"withheld,omitempty"` // what is left out of the events: only the role admin sees it
	Chain     string           `json:"chain"`              // chainValid, or the first event whose link is not
}

// request is GET /billing/requests/{id}.
func (g *Gateway) request(c *gin.Context) error {
	who := identityOf(c)
	unknown := &Error{Status: http.StatusNotFound, Type: typeInvalid, Code: "request_not_found", Param: "id",
		Message: "You have no request of this id. It is the x-billing-request-id of an answer."}
	id, err := uuid.Parse(c.Param("id"))
	if err != nil || id == uuid.Nil {
		return unknown
	}
	events, err := g.facts.Witnessed(c.Request.Context(), who.Account, id)
	switch {
	case err != nil:
		return ledgerError(err)
	case len(events) == 0:
		return unknown
	}
	view := NewRequestView(events, g.currency)
	if who.Role != RoleAdmin {
		if err := view.withholdCost(events); err != nil {
			return err
		}
	}
	c.JSON(http.StatusOK, view)
	return nil
}

// add tells one more event of the request.
func (v *RequestView) add(w *domain.Witnessed) {
	e := &w.Event
	v.witness(w)
	switch d := e.Data.(type) {
	case *domain.ReserveData:
		v.Model, v.Reserved, v.Bound, v.PriceVersion = d.Model, e.Amount, d.Bound, d.PriceVersion
	case *domain.CommitData:
		v.State, v.Charged = domain.ReservationSettled, v.Charged.Add(e.Amount)
		v.explain(d)
	case *domain.OverageData:
		v.State, v.Charged, v.Overage = domain.ReservationSettled, v.Charged.Add(e.Amount), v.Overage.Add(e.Amount)
		if d.Reason == domain.OverageLate {
			v.State = domain.ReservationLate
		}
		v.explain(&d.CommitData)
	case *domain.RefundData:
		v.Refunded, v.RefundReason = v.Refunded.Add(e.Amount), d.Reason
		switch d.Reason {
		case domain.RefundRemainder:
		case domain.RefundExpired:
			v.State = domain.ReservationExpired
		default:
			v.State = domain.ReservationReleased
		}
	}
}

// explain tells what a charge is made of. One that was never reserved for brings the model, too.
func (v *RequestView) explain(d *domain.CommitData) {
	if v.Model == "" {
		v.Model = d.ModelRequested
	}
	v.ModelServed, v.Provider, v.UsageSource, v.PriceVersion = d.ModelServed, d.Provider, d.UsageSource, d.PriceVersion
	v.Lines = linesView(d.Lines)
	for m, n := range d.Meters {
		if n > 0 {
			v.Meters[domain.Meter(m)] = n
		}
	}
	v.CountedBy, v.Tier, v.Region, v.SpooledAt = d.CountedBy, d.ServiceTier, d.Region, d.SpooledAt
	if len(d.Attempts) > 0 {
		v.Attempts = d.Attempts
	}
	if len(d.Usage) > 0 {
		v.Reported = d.Usage
	}
}
