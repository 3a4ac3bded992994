package gateway

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"llm-gateway/domain"
)

// Bounds of the groups of one answer of GET /admin/stats. Only accounts can be more than that.
const (
	defaultMarginRows = 1000
	maxMarginRows     = 10_000
)

// tokens are all of a direction's, whatever they cost.
type tokens struct {
	Input  int64 `json:"input"`
	Output int64 `json:"output"`
}

// margin is what one or many charged requests brought in and cost. Money is strings here, as everywhere but in
// /billing.
type margin struct {
	Requests      int64         `json:"requests"`
	Tokens        tokens        `json:"tokens"`
	Amount        domain.Amount `json:"amount"`
	Cost          domain.Amount `json:"cost"`
	Margin        domain.Amount `json:"margin"`
	MarginPercent *string       `json:"margin_percent"` // nil: nothing was paid
}

// marginRow is one group: one of the first four says which.
type marginRow struct {
	Start    *time.Time `json:"start,omitempty"`
	Model    *string    `json:"model,omitempty"`
	Provider *string    `json:"provider,omitempty"`
	Account  *string    `json:"account,omitempty"`
	margin
}

type marginsAnswer struct {
	Account  string            `json:"account,omitempty"` // that was asked for
	Currency string            `json:"currency"`
	From     time.Time         `json:"from"`
	To       time.Time         `json:"to"`
	GroupBy  domain.StatsGroup `json:"group_by"`
	Data     []marginRow       `json:"data"`
	More     bool              `json:"more"` // groups that are not in data; in total they are
	Total    margin            `json:"total"`
	AsOf     *time.Time        `json:"as_of"`  // nil: of before the first event
	Behind   int64             `json:"behind"` // events that are not included
}

// adminStats is GET /admin/stats?from&to&group_by&account&limit: what customers paid beside what it cost.
func (g *Gateway) adminStats(c *gin.Context) error {
	q, err := g.marginQuery(c)
	if err != nil {
		return err
	}
	if q.Account != "" {
		if _, err := g.openAccount(c.Request.Context(), q.Account); err != nil {
			return err
		}
	}
	m, err := g.projections.Margins(c.Request.Context(), q)
	if err != nil {
		return ledgerError(fmt.Errorf("reading the margins: %w", err))
	}
	a := marginsAnswer{Account: q.Account, Currency: g.currency, From: q.From, To: q.To, GroupBy: q.Group, Data: make([]marginRow, len(m.Rows)),
		More: m.More, Total: marginOf(m.Total), Behind: m.Behind}
	for i := range m.Rows {
		a.Data[i] = marginRowOf(q.Group, &m.Rows[i])
	}
	switch {
	case m.Behind == 0:
		a.AsOf = new(domain.EventTime(g.now()))
	case !m.AsOf.IsZero():
		a.AsOf = &m.AsOf
	}
	if m.Behind > 0 {
		c.Header("x-billing-behind", strconv.FormatInt(m.Behind, 10))
	}
	c.JSON(http.StatusOK, a)
	return nil
}

func (g *Gateway) marginQuery(c *gin.Context) (q domain.MarginQuery, err error) {
	if q.StatsQuery, err = g.statsQuery(c, "hour, day, model, provider or account"); err != nil {
		return q, err
	}
	if q.Account = c.Query("account"); q.Account != "" {
		if err := domain.CheckAccount(q.Account); err != nil {
			return q, invalid("invalid_value", "account", "`account` names no account: "+err.Error()+".")
		}
	}
	q.Limit, err = pageNumber(c, "limit", defaultMarginRows, 1, maxMarginRows)
	return q, err
}

func marginRowOf(group domain.StatsGroup, r *domain.StatsRow) marginRow {
	out := marginRow{margin: marginOf(r.Consumption)}
	if group == domain.StatsByAccount {
		out.Account = &r.Name
		return out
	}
	of := statsRowOf(group, r)
	out.Start, out.Model, out.Provider = of.Start, of.Model, of.Provider
	return out
}

func marginOf(c domain.Consumption) margin {
	out := margin{Requests: c.Requests, Tokens: tokens{c.Meters.InputTokens(), c.Meters.OutputTokens()}, Amount: c.Amount, Cost: c.Cost, Margin: c.Margin()}
	if percent, ok := c.MarginPercent(); ok {
		out.MarginPercent = &percent
	}
	return out
}
