package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"llm-gateway/domain"
)

// number writes an amount as a JSON number with its exact digits.
type number domain.Amount

// MarshalJSON implements json.Marshaler.
func (n number) MarshalJSON() ([]byte, error) { return []byte(domain.Amount(n).String()), nil }

type balanceAnswer struct {
	UserID   string    `json:"user_id"`
	Balance  number    `json:"balance"` // available
	Reserved number    `json:"reserved"`
	Currency string    `json:"currency"`
	AsOf     time.Time `json:"as_of"`
}

// balance is GET /billing/balance.
func (g *Gateway) balance(c *gin.Context) error {
	who := identityOf(c)
	account, err := g.reader.Account(c.Request.Context(), who.Account)
	if err != nil || account == nil {
		return ledgerError(fmt.Errorf("reading the account: %w", err))
	}
	c.JSON(http.StatusOK, balanceAnswer{UserID: who.Account, Balance: number(account.Available),
		Reserved: number(account.Reserved), Currency: g.currency, AsOf: domain.EventTime(g.now())})
	return nil
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
	who := identityOf(c)
	events, err := g.reader.Transactions(c.Request.Context(), who.Account, limit, offset)
	if err != nil {
		return ledgerError(err)
	}
	out := make([]transaction, len(events))
	for i := range events {
		out[i] = transactionOf(&events[i].Event)
	}
	c.JSON(http.StatusOK, gin.H{"user_id": who.Account, "transactions": out, "limit": limit, "offset": offset})
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

// transactionOf tells an event as a line of a statement.
func transactionOf(e *domain.Event) transaction {
	t := transaction{ID: e.ID, Amount: number(e.Amount), Timestamp: e.OccurredAt}
	switch d := e.Data.(type) {
	case *domain.MovementData:
		what := "Credit"
		if e.Kind == domain.KindDebit {
			what, t.Amount = "Debit", number(e.Amount.Neg())
		}
		t.Description = what + ": " + d.Reference
		if d.Reason != "" {
			t.Description = what + ": " + d.Reason + " (" + d.Reference + ")"
		}
	case *domain.CommitData:
		t.charge(e, d.ModelRequested, "")
	case *domain.OverageData:
		t.charge(e, d.ModelRequested, " (overage: "+string(d.Reason)+")")
	}
	return t
}

func (t *transaction) charge(e *domain.Event, model, note string) {
	t.Amount, t.Model, t.RequestID = number(e.Amount.Neg()), &model, &e.RequestID
	t.Description = "Chat completion with " + model + note
}

// eventView is one event in the life of a request. Payload is the stored event, byte for byte: what
// the hash is over.
type eventView struct {
	Position   string          `json:"position"`
	Kind       domain.Kind     `json:"kind"`
	Amount     number          `json:"amount"`
	OccurredAt time.Time       `json:"occurred_at"`
	Hash       string          `json:"hash"`
	Payload    json.RawMessage `json:"payload"`
}

// lineView is a line of a charge; amount is a number here, as everywhere in /billing.
type lineView struct {
	Meter     domain.Meter  `json:"meter"`
	Quantity  int64         `json:"quantity"`
	UnitPrice domain.Amount `json:"unit_price"`
	Amount    number        `json:"amount"`
}

// requestView is the whole life of one request's money.
type requestView struct {
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
	events, err := g.reader.Request(c.Request.Context(), who.Account, id)
	switch {
	case err != nil:
		return ledgerError(err)
	case len(events) == 0:
		return unknown
	}
	view := &requestView{RequestID: id, UserID: who.Account, State: domain.ReservationOpen, Currency: g.currency,
		Meters: map[domain.Meter]int64{}, Lines: []lineView{}}
	for i := range events {
		view.add(&events[i])
	}
	c.JSON(http.StatusOK, view)
	return nil
}

// add tells one more event of the request.
func (v *requestView) add(r *domain.Recorded) {
	e := &r.Event
	v.Events = append(v.Events, eventView{Position: e.Position().String(), Kind: e.Kind, Amount: number(e.Amount),
		OccurredAt: e.OccurredAt, Hash: fmt.Sprintf("%x", r.Hash), Payload: r.Payload})
	switch d := e.Data.(type) {
	case *domain.ReserveData:
		v.Model, v.Reserved, v.Bound, v.PriceVersion = d.Model, e.Amount, d.Bound, d.PriceVersion
	case *domain.CommitData:
		v.State, v.Charged = domain.ReservationSettled, v.Charged.Add(e.Amount)
		v.explain(d)
	case *domain.OverageData:
		v.Charged = v.Charged.Add(e.Amount)
		v.explain(&d.CommitData)
	case *domain.RefundData:
		v.Refunded, v.RefundReason = v.Refunded.Add(e.Amount), d.Reason
		if d.Reason != domain.RefundRemainder {
			v.State = domain.ReservationReleased
		}
	}
}

func (v *requestView) explain(d *domain.CommitData) {
	v.ModelServed, v.Provider, v.UsageSource, v.PriceVersion = d.ModelServed, d.Provider, d.UsageSource, d.PriceVersion
	v.Lines = v.Lines[:0]
	for _, l := range d.Lines {
		v.Lines = append(v.Lines, lineView{l.Meter, l.Quantity, l.UnitPrice, number(l.Amount)})
	}
	for m, n := range d.Meters {
		if n > 0 {
			v.Meters[domain.Meter(m)] = n
		}
	}
}
