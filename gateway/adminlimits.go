package gateway

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"github.com/gin-gonic/gin"
	"github.com/tidwall/gjson"

	"llm-gateway/domain"
)

// QuotaView is what limits are set for an account, as JSON: null is what everybody has, 0 no limit.
type QuotaView struct {
	RequestsPerMinute *int64 `json:"requests_per_minute"`
	RequestsPerHour   *int64 `json:"requests_per_hour"`
	TokensPerMinute   *int64 `json:"tokens_per_minute"`
}

// ViewQuotas shows what is set.
func ViewQuotas(c domain.QuotaChange) QuotaView {
	return QuotaView{c[domain.RequestsMinute], c[domain.RequestsHour], c[domain.TokensMinute]}
}

// quotaFields are the fields of a QuotaView, by window.
var quotaFields = [domain.Windows]string{domain.RequestsMinute: "requests_per_minute", domain.RequestsHour: "requests_per_hour", domain.TokensMinute: "tokens_per_minute"}

// limitsAnswer is what is set for an account, and what applies.
type limitsAnswer struct {
	Account string `json:"account"`
	QuotaView
	Effective QuotaView `json:"effective"` // 0 = no limit
}

// adminLimits is GET /admin/accounts/{id}/limits.
func (g *Gateway) adminLimits(c *gin.Context) error {
	name, err := g.limitable(c)
	if err != nil {
		return err
	}
	change, err := g.limits.Overrides.Quotas(c.Request.Context(), name)
	if err != nil {
		return limitsAway(err)
	}
	g.showLimits(c, name, change)
	return nil
}

// adminSetLimits is PUT /admin/accounts/{id}/limits. It sets all of them: what the body does not name is what
// everybody has.
func (g *Gateway) adminSetLimits(c *gin.Context) error {
	name, err := g.limitable(c)
	if err != nil {
		return err
	}
	fields, err := readFields(c, quotaFields[:]...)
	if err != nil {
		return err
	}
	var change domain.QuotaChange
	for w, field := range quotaFields {
		if change[w], err = readQuota(fields[field], field); err != nil {
			return err
		}
	}
	who := identityOf(c)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Request.Context()), adminTime)
	defer cancel()
	if err := g.overrides.set(ctx, name, actorOf(who), change); err != nil {
		return limitsAway(err)
	}
	g.log.Info("an administrator changed an account's limits", "account", name, "admin", who.Account, "key_id", who.KeyID)
	g.showLimits(c, name, change)
	return nil
}

func (g *Gateway) showLimits(c *gin.Context, name string, change domain.QuotaChange) {
	applies := change.Over(g.limits.Account)
	c.JSON(http.StatusOK, limitsAnswer{Account: name, QuotaView: ViewQuotas(change),
		Effective: QuotaView{&applies[domain.RequestsMinute], &applies[domain.RequestsHour], &applies[domain.TokensMinute]}})
}

// limitable is the account that a request is about, which must be open, where limits can be set.
func (g *Gateway) limitable(c *gin.Context) (string, error) {
	account, err := g.accountNamed(c)
	if err != nil {
		return "", err
	}
	if g.overrides == nil {
		return "", unavailable("limits_unavailable", "This gateway keeps no limits of single accounts.", nil)
	}
	return account.Name, nil
}

func limitsAway(err error) *Error {
	return unavailable("ledger_unavailable", "The limits of accounts cannot be reached at the moment. Please send the same request again.", err)
}

// readQuota reads one limit: nil where it is null or not there.
func readQuota(v gjson.Result, param string) (*int64, error) {
	if v.Type == gjson.Null {
		return nil, nil
	}
	n := v.Int()
	if v.Type != gjson.Number || strconv.FormatInt(n, 10) != v.Raw || n < 0 || n > domain.MaxQuota {
		return nil, invalid("invalid_value", param, fmt.Sprintf("`%s` must be a whole number from 0 (no limit) to %d, or null for what everybody has.", param, domain.MaxQuota))
	}
	return &n, nil
}
