package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"llm-gateway/domain"
	"llm-gateway/gateway/statement"
)

const (
	// statementTime bounds the making of one statement. A month of a million requests takes about a minute.
	statementTime = 2 * time.Minute
	// statementsAtOnce bounds how many are made at once: each takes one of the few connections that read.
	statementsAtOnce = 2
)

// Statements makes statements from the ledger's events.
type Statements interface {
	// Statement is of an account's month; nil where the account is not open. It is domain.ErrStatementLong
	// where the month has too many lines.
	Statement(ctx context.Context, account string, m domain.Month) (*domain.Statement, error)
}

// statement is GET /billing/statements/{month}?tz&format.
func (g *Gateway) statement(c *gin.Context) error { return g.stated(c, identityOf(c).Account) }

// adminStatement is GET /admin/accounts/{id}/statements/{month}?tz&format.
func (g *Gateway) adminStatement(c *gin.Context) error {
	name, err := accountName(c)
	if err != nil {
		return err
	}
	return g.stated(c, name)
}

// stated answers with an account's statement.
func (g *Gateway) stated(c *gin.Context, account string) error {
	month, format, err := g.statementAsked(c)
	if err != nil {
		return err
	}
	s, err := g.makeStatement(c.Request.Context(), account, month)
	switch {
	case errors.Is(err, domain.ErrStatementLong):
		return &Error{Status: http.StatusUnprocessableEntity, Type: typeInvalid, Code: "statement_too_long", Param: "month", cause: err,
			Message: fmt.Sprintf("This month has more than %d lines, too many for one statement.", domain.MaxStatementLines)}
	case errors.Is(err, domain.ErrStatement):
		return internal(err)
	case err != nil:
		return ledgerError(fmt.Errorf("making a statement: %w", err))
	case s == nil:
		return accountNotFound(nil)
	}
	var out bytes.Buffer
	if err := statement.Write(&out, s, format); err != nil {
		return internal(err)
	}
	h := c.Writer.Header()
	h.Set("Cache-Control", "private, no-store")
	switch format {
	case statement.HTML:
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	case statement.CSV:
		h.Set("Content-Disposition", `attachment; filename="statement-`+s.Month+`.csv"`)
	}
	c.Data(http.StatusOK, format.ContentType(), out.Bytes())
	return nil
}

// statementAsked reads which month is asked for, and in which form. A month that has not begun has no
// statement.
func (g *Gateway) statementAsked(c *gin.Context) (domain.Month, statement.Format, error) {
	zone, err := statement.Zone(c.Query("tz"))
	if err != nil {
		return domain.Month{}, "", invalid("invalid_value", "tz", "`tz` must be a time zone's name, such as Europe/Berlin or UTC.")
	}
	format, err := statement.ParseFormat(c.Query("format"))
	if err != nil {
		return domain.Month{}, "", invalid("invalid_value", "format", "`format` must be json, csv or html.")
	}
	month, err := domain.ParseMonth(c.Param("month"), zone)
	if err != nil {
		return month, "", invalid("invalid_value", "month", "The month must be written like 2026-11.")
	}
	if month.From.After(g.now()) {
		return month, "", invalid("invalid_value", "month", "This month has not begun yet.")
	}
	return month, format, nil
}

// makeStatement waits for its turn.
func (g *Gateway) makeStatement(ctx context.Context, account string, m domain.Month) (*domain.Statement, error) {
	ctx, cancel := context.WithTimeout(ctx, statementTime)
	defer cancel()
	select {
	case g.statements <- struct{}{}:
		defer func() { <-g.statements }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return g.facts.Statement(ctx, account, m)
}
