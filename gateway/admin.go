package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"github.com/tidwall/gjson"

	"llm-gateway/domain"
)

// What administrators do to accounts. All of it goes through the ledger, like everything that moves
// money, and names who did it. All of it may be asked again: a credit happens once by its reference, and
// what is set already is left alone.

// adminTime bounds the wait for the ledger. Beyond it the administrator is told to ask again.
const adminTime = 10 * time.Second

// accountAnswer is an account as the ledger has it. Money is strings here, as everywhere but in /billing.
type accountAnswer struct {
	Account     string        `json:"account"`
	Balance     domain.Amount `json:"balance"` // available
	Reserved    domain.Amount `json:"reserved"`
	CreditLimit domain.Amount `json:"credit_limit"`
	Frozen      bool          `json:"frozen"`
	Currency    string        `json:"currency"`
}

func (g *Gateway) accountAnswer(a *domain.Account) accountAnswer {
	return accountAnswer{Account: a.Name, Balance: a.Available, Reserved: a.Reserved, CreditLimit: a.CreditLimit, Frozen: a.Frozen, Currency: g.currency}
}

// creditAnswer is a credit, and the account after it.
type creditAnswer struct {
	accountAnswer
	Amount    domain.Amount `json:"amount"`
	Reference string        `json:"reference"`
	Position  string        `json:"position"`
	EventID   uuid.UUID     `json:"event_id"`
	Repeated  bool          `json:"repeated"` // it had happened before, and nothing happened now
}

// adminAccount is GET /admin/accounts/{id}.
func (g *Gateway) adminAccount(c *gin.Context) error {
	account, err := g.accountNamed(c)
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, g.accountAnswer(account))
	return nil
}

// adminCredit is POST /admin/accounts/{id}/credits.
func (g *Gateway) adminCredit(c *gin.Context) error {
	name, err := accountName(c)
	if err != nil {
		return err
	}
	o, open, err := readCredit(c)
	if err != nil {
		return err
	}
	o.Data.Actor = actorOf(identityOf(c))
	if err := newCommand(name, o).Validate(); err != nil { // before an account is opened for it
		return adminError(err, "amount")
	}
	if open {
		if _, err := g.administer(c, name, domain.Open{Grant: g.defaultBalance, Actor: o.Data.Actor}); err != nil {
			return adminError(err, "id")
		}
	}
	out, err := g.administer(c, name, o)
	if err != nil {
		return adminError(err, "amount")
	}
	status, event := http.StatusCreated, &out.Events[0].Event
	if out.Repeated {
		status = http.StatusOK
	}
	c.JSON(status, creditAnswer{accountAnswer: g.accountAnswer(&out.Account), Amount: event.Amount, Reference: o.Data.Reference,
		Position: event.Position().String(), EventID: event.ID, Repeated: out.Repeated})
	return nil
}

// readCredit reads the body of a credit, and whether the account is to be opened for it.
func readCredit(c *gin.Context) (o domain.Credit, open bool, err error) {
	fields, err := readFields(c, "amount", "reference", "reason", "corrects", "open")
	if err != nil {
		return o, false, err
	}
	if o.Amount, err = readMoney(fields, "amount"); err == nil && o.Amount.IsZero() {
		err = invalid("invalid_value", "amount", "`amount` must be more than 0.")
	}
	if err != nil {
		return o, false, err
	}
	for _, failed := range []*Error{readText(fields["reference"], "reference", &o.Data.Reference), readText(fields["reason"], "reason", &o.Data.Reason),
		readText(fields["corrects"], "corrects", &o.Data.Corrects), readBool(fields["open"], "open", &open)} {
		if failed != nil {
			return o, false, failed
		}
	}
	if d := &o.Data; d.Reference == "" || d.Reference != strings.TrimSpace(domain.CleanText(d.Reference, domain.MaxReference)) {
		return o, false, invalid("invalid_value", "reference", fmt.Sprintf("`reference` is mandatory: an invoice's number, a ticket, of at most %d printable bytes. "+
			"It makes the credit happen once.", domain.MaxReference))
	}
	if _, err := domain.ParsePosition(o.Data.Corrects); o.Data.Corrects != "" && err != nil {
		return o, false, invalid("invalid_value", "corrects", "`corrects` must be the position (shard:seq) of the event that is corrected.")
	}
	return o, open, nil
}

// adminCreditLimit is PUT /admin/accounts/{id}/credit-limit.
func (g *Gateway) adminCreditLimit(c *gin.Context) error {
	account, err := g.accountNamed(c)
	if err != nil {
		return err
	}
	fields, err := readFields(c, "credit_limit", "reason")
	if err != nil {
		return err
	}
	limit, err := readMoney(fields, "credit_limit")
	if err != nil {
		return err
	}
	return g.configure(c, account, fields, domain.AccountData{CreditLimit: &limit}, limit.Equal(account.CreditLimit))
}

// adminFrozen is PUT /admin/accounts/{id}/frozen.
func (g *Gateway) adminFrozen(c *gin.Context) error {
	account, err := g.accountNamed(c)
	if err != nil {
		return err
	}
	fields, err := readFields(c, "frozen", "reason")
	if err != nil {
		return err
	}
	var frozen bool
	if err := readBool(fields["frozen"], "frozen", &frozen); err != nil {
		return err
	}
	if !fields["frozen"].IsBool() {
		return invalid("invalid_value", "frozen", "`frozen` is mandatory: true or false.")
	}
	return g.configure(c, account, fields, domain.AccountData{Frozen: &frozen}, frozen == account.Frozen)
}

// configure sets something of an account, unless it is so already.
func (g *Gateway) configure(c *gin.Context, account *domain.Account, fields map[string]gjson.Result, d domain.AccountData, same bool) error {
	if err := readText(fields["reason"], "reason", &d.Reason); err != nil {
		return err
	}
	if !same {
		d.Actor = actorOf(identityOf(c))
		out, err := g.administer(c, account.Name, domain.Configure{Data: d})
		if err != nil {
			return adminError(err, "credit_limit")
		}
		account = &out.Account
	}
	c.JSON(http.StatusOK, g.accountAnswer(account))
	return nil
}

// administer does something to an account, whether or not the administrator is still there.
func (g *Gateway) administer(c *gin.Context, name string, op domain.Op) (domain.Outcome, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Request.Context()), adminTime)
	defer cancel()
	out, err := g.append(ctx, newCommand(name, op))
	if err == nil && !out.Repeated {
		who := identityOf(c)
		g.log.Info("an administrator changed an account", "account", name, "admin", who.Account, "key_id", who.KeyID,
			"operation", fmt.Sprintf("%T", op), "position", out.Position().String())
	}
	return out, err
}

// accountName is the account that a request is about.
func accountName(c *gin.Context) (string, error) {
	name := c.Param("id")
	if c.Request.URL.RawPath != "" { // otherwise it has been decoded
		if decoded, err := url.PathUnescape(name); err == nil {
			name = decoded
		}
	}
	if err := domain.CheckOwner(name); err != nil {
		return "", invalid("invalid_value", "id", "The address names no account: "+err.Error()+".")
	}
	return name, nil
}

// accountNamed is that account, as the ledger has it now.
func (g *Gateway) accountNamed(c *gin.Context) (*domain.Account, error) {
	name, err := accountName(c)
	if err != nil {
		return nil, err
	}
	return g.openAccount(c.Request.Context(), name)
}

// openAccount is an account as the ledger has it now; one that is not open is an error.
func (g *Gateway) openAccount(ctx context.Context, name string) (*domain.Account, error) {
	account, err := g.facts.Account(ctx, name)
	switch {
	case err != nil:
		return nil, ledgerError(err)
	case account == nil:
		return nil, accountNotFound(nil)
	}
	return account, nil
}

func accountNotFound(cause error) *Error {
	return &Error{Status: http.StatusNotFound, Type: typeInvalid, Code: "account_not_found", Param: "id", cause: cause,
		Message: "This account is not open: its first valid token or key opens it, or a credit with \"open\": true."}
}

// adminError says what an administrator is told about an error of the ledger. param is the field that what
// no ledger would take comes from.
func adminError(err error, param string) *Error {
	rejection := new(domain.Rejection)
	switch {
	case errors.Is(err, domain.ErrOverloaded), errors.Is(err, domain.ErrUnstorable):
		return ledgerError(err)
	case !errors.As(err, &rejection):
		return unavailable("ledger_unavailable", "The ledger did not answer, so it is not known whether this happened. "+
			"Please send the same request again: it happens once.", err)
	}
	switch rejection.Reason {
	case domain.RejectAccountUnknown:
		return accountNotFound(err)
	case domain.RejectReferenceReused:
		return &Error{Status: http.StatusConflict, Type: typeConflict, Code: "reference_reused", Param: "reference", cause: err,
			Message: "This reference was used on this account for another movement; nothing happened."}
	case domain.RejectInvalid:
		return invalid("invalid_value", param, "The ledger cannot take this: "+rejection.Detail+".")
	}
	return internal(err)
}

// actorOf names an administrator in events.
func actorOf(who *Identity) string {
	const prefix = "admin:"
	if len(prefix+who.Account) <= domain.MaxForeignText {
		return prefix + who.Account
	}
	sum := sha256.Sum256([]byte(who.Account)) // an account's name may be as long as an actor's
	return prefix + "sha256:" + hex.EncodeToString(sum[:16])
}

// readFields reads a body that is one JSON object of these fields and no other.
func readFields(c *gin.Context, names ...string) (map[string]gjson.Result, error) {
	body, err := readBody(c)
	if err != nil {
		return nil, err
	}
	if err := checkJSON(body); err != nil {
		return nil, err
	}
	fields := map[string]gjson.Result{}
	var unknown error
	gjson.ParseBytes(body).ForEach(func(key, value gjson.Result) bool {
		name := key.String()
		if !slices.Contains(names, name) {
			unknown = invalid("unsupported_parameter", cut(name), fmt.Sprintf("Unknown field %q. The fields are: %s.", cut(name), strings.Join(names, ", ")))
			return false
		}
		fields[name] = value
		return true
	})
	return fields, unknown
}

// readMoney reads an amount of 0 or more, which is mandatory. Only a string keeps its digits on every way.
func readMoney(fields map[string]gjson.Result, param string) (domain.Amount, error) {
	const form = "` must be a string of digits with at most 12 decimals, such as \"25.00\""
	v := fields[param]
	switch v.Type {
	case gjson.String:
	case gjson.Null:
		return domain.Zero, invalid("invalid_value", param, "`"+param+form+"; it is missing.")
	default:
		return domain.Zero, invalid("invalid_type", param, "`"+param+form+". A JSON number may lose digits on its way, so it is not taken.")
	}
	amount, err := domain.ParseAmount(v.String())
	if err != nil || amount.Sign() < 0 {
		return domain.Zero, invalid("invalid_value", param, "`"+param+form+", and not negative.")
	}
	return amount, nil
}
