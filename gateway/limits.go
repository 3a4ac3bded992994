package gateway

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"llm-gateway/domain"
	"llm-gateway/gateway/limit"
)

// Rate limits are taken from once a call is known to be well formed, and before any money moves: a malformed
// one is free, and one that its account cannot pay for is a call all the same. A repeat of a call with an
// Idempotency-Key counts as a call, and uses no tokens.

const (
	// admitTime bounds the wait for limits that are shared, and the balance that comes with them. Beyond it this
	// process's memory decides. It is longer than gateTime: the ledger makes up for a balance that is missing, and
	// nothing does for a limit that each gateway counts for itself.
	admitTime = 250 * time.Millisecond
	// bytesPerToken is about how many bytes of text a token is.
	bytesPerToken = 4
	// guessedImage is what an image is taken for, in tokens, at a provider that tells no bound.
	guessedImage = 1000
	// guessedOutput is what a choice is taken for, in tokens, whose maximum the client left open.
	guessedOutput = 512
)

// RateLimits are the limits of model calls.
type RateLimits struct {
	Limiter   *limit.Limiter // nil = nothing is limited
	Account   domain.Quotas  // of each account for which nothing else is set
	All       domain.Quotas  // of everybody together
	Overrides Overrides      // nil = none
}

// admit takes a call from its limits, and says in the answer's header what is left of them. In the same round
// trip it learns the account's projected balance, where the gate will ask for that. It fails with 429.
func (g *Gateway) admit(c *gin.Context, k *call) (*limit.Grant, error) {
	if g.limits.Limiter == nil {
		return nil, nil
	}
	quotas := [domain.RateScopes]domain.Quotas{domain.RateAccount: g.quotasOf(c.Request.Context(), k.who.Account),
		domain.RateKey: k.who.Quotas, domain.RateAll: g.limits.All}
	ask := domain.RateAsk{Account: k.who.Account, Key: k.who.KeyID, Quotas: quotas, Want: domain.OneRequest(k.expects(quotas))}
	// What is taken is known to be taken, whether or not the client is still there.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Request.Context()), admitTime)
	defer cancel()
	grant := g.limits.Limiter.Admit(ctx, ask, g.gated(k))
	tellLimits(c.Writer.Header(), grant)
	if grant.Refused != nil {
		recordOf(c).limited = grant.Scope.String()
		return nil, rateLimited(c.Writer.Header(), grant)
	}
	return grant, nil
}

// quotasOf are the limits of an account.
func (g *Gateway) quotasOf(ctx context.Context, account string) domain.Quotas {
	if g.overrides == nil {
		return g.limits.Account
	}
	return g.overrides.find(ctx, account).Over(g.limits.Account)
}

// expects is about how many tokens a call will use: what it sends, and the output that it allows. Where the
// client left that open it is a guess, which alone makes no call too large for a limit. When the call has
// ended, what it used is what counts (settleLimits).
func (k *call) expects(quotas [domain.RateScopes]domain.Quotas) int64 {
	f := k.asked
	image := k.terms.ImageTokens
	if image == 0 {
		image = guessedImage
	}
	tokens := (max(f.InputBytes-f.ImageBytes, 0)+bytesPerToken-1)/bytesPerToken + f.Images*image
	if f.NoOutput {
		return tokens
	}
	if f.MaxOutput > 0 {
		return tokens + f.MaxOutput*max(f.Choices, 1)
	}
	guess := min(guessedOutput, k.model.OutputLimit()) * max(f.Choices, 1)
	for _, q := range quotas {
		if l, limited := q.Limit(domain.TokensMinute); limited {
			guess = min(guess, max(l.Most-tokens, 0))
		}
	}
	return tokens + guess
}

// settleLimits makes a call's tokens those that it used: none where it delivered nothing.
func (g *Gateway) settleLimits(grant *limit.Grant, k *call) {
	if g.limits.Limiter != nil {
		g.limits.Limiter.Settle(grant, k.spent)
	}
}

// The headers of limits, in OpenAI's form: numbers, and durations such as 6m0s.
const (
	headerLimit     = "x-ratelimit-limit-"
	headerRemaining = "x-ratelimit-remaining-"
	headerReset     = "x-ratelimit-reset-"
)

// tellLimits says what is left of the limits: of those on requests the tightest, and that on tokens. What
// everybody together has left is nobody's to know, unless it is nothing.
func tellLimits(h http.Header, grant *limit.Grant) {
	tell(h, "requests", tightest(grant, domain.RequestsMinute, domain.RequestsHour))
	tell(h, "tokens", tightest(grant, domain.TokensMinute))
	if r := grant.Refused; r != nil && grant.Scope == domain.RateAll {
		tell(h, unitOf(r.Window), &left{r.Limit.Most, 0, r.Wait})
	}
}

// left is what is left of one limit.
type left struct {
	limit, remaining int64
	reset            int64 // milliseconds until all of it is there
}

// tightest is the limit of which the least is left; of several the one that takes longest; nil where there is
// none.
func tightest(grant *limit.Grant, windows ...domain.Window) *left {
	var out *left
	for _, scope := range [...]domain.RateScope{domain.RateAccount, domain.RateKey} {
		for _, w := range windows {
			l, limited := grant.Ask.Quotas[scope].Limit(w)
			if !limited {
				continue
			}
			used := grant.Levels[scope][w].Used
			at := &left{l.Most, l.Remaining(used), l.Reset(used)}
			if out == nil || at.remaining < out.remaining || at.remaining == out.remaining && at.reset > out.reset {
				out = at
			}
		}
	}
	return out
}

func tell(h http.Header, unit string, l *left) {
	if l == nil {
		return
	}
	h.Set(headerLimit+unit, strconv.FormatInt(l.limit, 10))
	h.Set(headerRemaining+unit, strconv.FormatInt(l.remaining, 10))
	h.Set(headerReset+unit, (time.Duration(l.reset) * time.Millisecond).String())
}

func unitOf(w domain.Window) string {
	if w == domain.TokensMinute {
		return "tokens"
	}
	return "requests"
}

// rateLimited is what a client is told whose call was refused, and when to come back. One that never fits is
// told not to, in the header that OpenAI's clients obey.
func rateLimited(h http.Header, grant *limit.Grant) error {
	r := grant.Refused
	whose := [...]string{domain.RateAccount: "your account", domain.RateKey: "this API key", domain.RateAll: "everybody together"}[grant.Scope]
	wait := time.Duration(r.Wait) * time.Millisecond
	h.Set("retry-after-ms", strconv.FormatInt(r.Wait, 10))
	message := fmt.Sprintf("The limit of %d %s for %s is reached. Please retry in %s.", r.Limit.Most, r.Window, whose, wait)
	if r.Never {
		h.Set("x-should-retry", "false")
		message = fmt.Sprintf("This request is too large: it asks for about %d tokens, and the limit is %d %s for %s. "+
			"Send less, or lower the maximum of its output.", r.Quantity, r.Limit.Most, r.Window, whose)
	}
	return &Error{Status: http.StatusTooManyRequests, Type: "rate_limit_error", Code: "rate_limit_exceeded", Message: message,
		RetryAfter: int((wait + time.Second - 1) / time.Second)}
}
