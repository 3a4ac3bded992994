package gateway

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"llm-gateway/domain"
)

// Unbilled is what stands in the ledger's place where the operator wants a plain gateway
// (BILLING_ENABLED=false): it takes every command, and keeps nothing. So calls go through the same flow, and
// nothing in it knows of this. Every account is open, nobody has a balance, an Idempotency-Key holds
// nothing: a repeat is another call. It implements Ledger, Facts and Projections.
type Unbilled struct{}

// Append does nothing, and says that it was done.
func (Unbilled) Append(ctx context.Context, _ domain.Command) (domain.Outcome, error) {
	return domain.Outcome{}, ctx.Err()
}

// errUnbilled is the answer to every question about money.
var errUnbilled = errors.New("nothing is billed here (BILLING_ENABLED=false)")

// Account is open, whatever its name.
func (Unbilled) Account(context.Context, string) (*domain.Account, error) {
	return &domain.Account{}, nil
}

// Request is not known.
func (Unbilled) Request(context.Context, string, uuid.UUID) ([]domain.Recorded, error) {
	return nil, errUnbilled
}

// Witnessed is not known.
func (Unbilled) Witnessed(context.Context, string, uuid.UUID) ([]domain.Witnessed, error) {
	return nil, errUnbilled
}

// BalanceAt is not known.
func (Unbilled) BalanceAt(context.Context, string, time.Time) (domain.Past, error) {
	return domain.Past{}, errUnbilled
}

// Response was not kept.
func (Unbilled) Response(context.Context, string, uuid.UUID) (*domain.Response, error) {
	return nil, errUnbilled
}

// Statement is not known.
func (Unbilled) Statement(context.Context, string, domain.Month) (*domain.Statement, error) {
	return nil, errUnbilled
}

// headerUnbilled says in every answer that nothing is billed.
const headerUnbilled = "x-billing"

func sayUnbilled(c *gin.Context) { c.Header(headerUnbilled, "disabled") }

// ofMoney says whether a path is about money, which there is none of without a ledger.
func ofMoney(path string) bool {
	return strings.HasPrefix(path, "/billing/") || strings.HasPrefix(path, "/admin/")
}

// withoutBilling answers what is about money. 404: it does not exist here, and waiting does not help.
func withoutBilling(*gin.Context) error {
	return &Error{Status: http.StatusNotFound, Type: typeInvalid, Code: "billing_disabled",
		Message: "This gateway bills nothing (BILLING_ENABLED=false), so it has no accounts, balances or charges."}
}

// Balance is not known.
func (Unbilled) Balance(context.Context, string, domain.Position) (*domain.Account, domain.Reading, error) {
	return nil, domain.Reading{}, errUnbilled
}

// Transactions are not known.
func (Unbilled) Transactions(context.Context, string, int, int, domain.Position) ([]domain.Transaction, domain.Reading, error) {
	return nil, domain.Reading{}, errUnbilled
}

// Stats are not known.
func (Unbilled) Stats(context.Context, string, domain.StatsQuery, domain.Position) ([]domain.StatsRow, domain.Reading, error) {
	return nil, domain.Reading{}, errUnbilled
}

// Margins are not known.
func (Unbilled) Margins(context.Context, domain.MarginQuery) (domain.Margins, error) {
	return domain.Margins{}, errUnbilled
}
