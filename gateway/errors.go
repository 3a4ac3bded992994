package gateway

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider"
)

// Error is the one typed error of the HTTP edge. Handlers return it; it is rendered once, by
// render, in OpenAI's shape. Message goes to the client: it never holds credentials or prompts.
type Error struct {
	Status     int
	Type       string
	Code       string
	Param      string // the request's field that is wrong, or ""
	Message    string
	RetryAfter int    // seconds; 0 = no header
	retryAfter string // a provider's own Retry-After, as it said it
	Body       []byte // a provider's own error object, passed on instead of ours
	native     []byte // the same in the form of the surface that the client speaks
	cause      error  // for the log only
}

func (e *Error) Error() string {
	if e.cause != nil {
		return e.Code + ": " + e.Message + ": " + e.cause.Error()
	}
	return e.Code + ": " + e.Message
}

func (e *Error) Unwrap() error { return e.cause }

// The types of OpenAI's error objects that are in use here.
const (
	typeInvalid     = "invalid_request_error"
	typeQuota       = "insufficient_quota"
	typePermission  = "permission_error"
	typeConflict    = "conflict_error"
	typeUpstream    = "upstream_error"
	typeUnavailable = "service_unavailable"
	typeServer      = "server_error"
)

func invalid(code, param, message string) *Error {
	return &Error{Status: http.StatusBadRequest, Type: typeInvalid, Code: code, Param: param, Message: message}
}

func unauthorized(code, message string) *Error {
	return &Error{Status: http.StatusUnauthorized, Type: typeInvalid, Code: code, Message: message}
}

// retryLater is what a client is told to wait while the ledger or a provider is away, in seconds.
const retryLater = 2

func unavailable(code, message string, cause error) *Error {
	return &Error{Status: http.StatusServiceUnavailable, Type: typeUnavailable, Code: code, Message: message,
		RetryAfter: retryLater, cause: cause}
}

// ledgerError says what a client is told about an error of the ledger.
func ledgerError(err error) *Error {
	rejection := new(domain.Rejection)
	if e := new(Error); errors.As(err, &e) {
		return e
	}
	switch {
	case errors.Is(err, domain.ErrOverloaded):
		return unavailable("overloaded", "Too many requests are waiting. Please retry.", err)
	case !errors.As(err, &rejection):
		return unavailable("ledger_unavailable", "The ledger cannot be reached at the moment, and nothing was charged. Please retry.", err)
	}
	if e := keyRefusal(rejection); e != nil {
		return e
	}
	switch rejection.Reason {
	case domain.RejectInsufficientFunds:
		return &Error{Status: http.StatusPaymentRequired, Type: typeQuota, Code: "insufficient_quota", cause: err,
			Message: "This request can cost up to " + rejection.Needed.String() + " and your balance affords " +
				rejection.Available.String() + ". Top up, or lower max_completion_tokens."}
	case domain.RejectAccountFrozen:
		return &Error{Status: http.StatusForbidden, Type: typePermission, Code: "account_frozen", cause: err,
			Message: "This account is frozen. Please contact whoever runs this gateway."}
	}
	return internal(err)
}

func internal(err error) *Error {
	return &Error{Status: http.StatusInternalServerError, Type: typeServer, Code: "internal_error",
		Message: "The gateway failed to serve this request. You were not charged for what was not delivered.", cause: err}
}

// providerError says what a client is told about a failed call. A provider's refusal of the
// request is passed on; its refusal of our credentials is our fault and never looks like the
// client's.
func providerError(name string, err error) *Error {
	failed := new(provider.Error)
	if !errors.As(err, &failed) {
		return internal(err)
	}
	out := &Error{Status: http.StatusBadGateway, Type: typeUpstream, Code: "upstream_error", cause: err,
		Message: "The provider " + name + " failed to answer."}
	switch failed.Kind {
	case provider.KindRejected:
		if failed.Status == http.StatusPaymentRequired { // our account there, not the client's here
			out.Message = "The provider " + name + " refused for want of credit. This is for the gateway's operator to mend."
			return out
		}
		out.Status, out.Body, out.native, out.retryAfter = failed.Status, failed.Body, failed.Native, failed.RetryAfter
		out.Type, out.Message = typeInvalid, "The provider "+name+" refused the request with status "+strconv.Itoa(failed.Status)+"."
		if failed.Status == http.StatusTooManyRequests {
			out.Type, out.Code = "rate_limit_error", "rate_limit_exceeded"
		}
	case provider.KindAuth:
		out.Code, out.Message = "upstream_auth", "The provider "+name+" refused this gateway's credentials. This is for the gateway's operator to mend."
	case provider.KindOpen:
		who := "The provider " + failed.Provider
		if failed.Model != "" {
			who = "The model " + failed.Model + " of the provider " + failed.Provider
		}
		out = unavailable("circuit_open", who+" has failed too often and is left alone for now. Please retry later.", err)
		out.retryAfter = failed.RetryAfter
	case provider.KindTimeout:
		out.Status, out.Code = http.StatusGatewayTimeout, "upstream_timeout"
		out.Message = "The provider " + name + " did not answer in time."
	case provider.KindCanceled:
		out.Status, out.Code, out.Message = statusClientClosed, "client_closed_request", "The client closed the request."
	}
	return out
}

// statusClientClosed is nginx's status for a client that went away: nobody reads it but the log.
const statusClientClosed = 499

// handler is an endpoint: it answers, or returns the error to answer with.
type handler func(c *gin.Context) error

// render turns a handler into gin's, and is the one place where errors become answers.
func (g *Gateway) render(h handler) gin.HandlerFunc {
	return func(c *gin.Context) {
		if err := h(c); err != nil {
			g.fail(c, err)
		}
	}
}

// fail answers with an error, unless the answer has begun: then it can only be logged.
func (g *Gateway) fail(c *gin.Context, err error) {
	e := new(Error)
	if !errors.As(err, &e) {
		e = internal(err)
	}
	c.Set(keyError, e)
	c.Abort()
	if c.Writer.Written() {
		return
	}
	switch {
	case e.retryAfter != "":
		c.Header("Retry-After", e.retryAfter)
	case e.RetryAfter > 0:
		c.Header("Retry-After", strconv.Itoa(e.RetryAfter))
	}
	if r, known := c.Get(keyRecord); known && !r.(*record).bodyRead {
		http.NewResponseController(c.Writer).SetReadDeadline(time.Now().Add(refusedTime)) //nolint:errcheck // a reader without deadlines has none to set
	}
	writeSoon(c)
	c.Data(e.Status, "application/json; charset=utf-8", doorOf(c).failure(e))
}
