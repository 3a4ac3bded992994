package gateway

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/gin-gonic/gin"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider"
	"llm-gateway/gateway/provider/chat"
)

// estimable are the doors whose requests can be estimated, by what ?surface= names them.
var estimable = []*door{chatDoor, completionsDoor, embeddingsDoor, responsesDoor, messagesDoor, generateDoor, embedDoor}

// costView is one end of what a request can cost.
type costView struct {
	Amount number     `json:"amount"`
	Output int64      `json:"output"` // tokens
	Lines  []lineView `json:"lines"`
}

// reserveView is what would be reserved.
type reserveView struct {
	Amount number     `json:"amount"`
	Input  int64      `json:"input"`  // tokens at most
	Output int64      `json:"output"` // tokens at most, all choices
	Lines  []lineView `json:"lines"`
}

// estimateAnswer is what a request would reserve, and about cost.
type estimateAnswer struct {
	Surface      string      `json:"surface"`
	Model        string      `json:"model"`
	Provider     string      `json:"provider"`
	PriceVersion string      `json:"price_version"`
	Currency     string      `json:"currency"`
	Reserve      reserveView `json:"reserve"`
	OutputCap    *int64      `json:"output_cap"` // tokens per choice that the balance would cut the output to; null: it would not
	Accepted     bool        `json:"accepted"`   // whether it would be reserved now
	Refusal      string      `json:"refusal,omitempty"`
	Available    number      `json:"available"`    // what may be reserved now, the credit limit included
	InputTokens  int64       `json:"input_tokens"` // as they were counted
	CountedBy    string      `json:"counted_by"`
	Least        costView    `json:"least"` // the input alone
	Most         costView    `json:"most"`  // with all the output that it may have
}

// estimate is POST /billing/estimate: the flow of a call (meter.go) up to where money would move. Nothing is
// sent and nothing is reserved. Its errors are those that the call would have, in OpenAI's shape.
func (g *Gateway) estimate(c *gin.Context) error {
	d, a, err := estimated(c)
	if err != nil {
		return err
	}
	c.Set(keyDoor, chatDoor) // whatever surface is asked about, the answer is this one's
	k, err := g.prepare(c, d, a)
	if err != nil {
		return err
	}
	if err := g.own(c.Request.Context(), k); err != nil {
		return err
	}
	answer := &estimateAnswer{Surface: d.surface, Currency: g.currency}
	if err := g.wouldReserve(c.Request.Context(), k, answer); err != nil {
		return err
	}
	if err := k.wouldCost(answer); err != nil {
		return err
	}
	c.JSON(http.StatusOK, answer)
	return nil
}

// estimated is the door that the request would come in by, and what its path would say. Google's surfaces
// have the model there.
func estimated(c *gin.Context) (*door, *asking, error) {
	name := c.DefaultQuery("surface", chat.SurfaceChat)
	i := slices.IndexFunc(estimable, func(d *door) bool { return d.surface == name })
	if i < 0 {
		return nil, nil, invalid("invalid_value", "surface", "There is no surface of this name that can be estimated.")
	}
	d, a := estimable[i], &asking{}
	if d == generateDoor || d == embedDoor {
		a.model, a.method = c.Query("model"), "generateContent"
		if d == embedDoor {
			a.method = "embedContent"
		}
		if a.model == "" {
			return nil, nil, invalid("invalid_value", "model", "`model` must name the model, as the path of this surface does.")
		}
	}
	return d, a, nil
}

// wouldReserve cuts the call down to what the balance affords, as secure does with the ledger's answers, and
// tells what would be reserved.
func (g *Gateway) wouldReserve(ctx context.Context, k *call, to *estimateAnswer) error {
	account, err := g.facts.Account(ctx, k.who.Account)
	if err != nil {
		return ledgerError(fmt.Errorf("reading the account: %w", err))
	}
	if account == nil { // it has just been opened, elsewhere
		return unavailable("ledger_unavailable", "Your account is not known here yet. Please retry.", nil)
	}
	spendable := account.Spendable()
	for range reserveTries - 1 {
		if affordable(k, spendable) {
			break
		}
		smaller, err := g.shrink(k, spendable)
		if err != nil {
			return err
		}
		if !smaller {
			break
		}
	}
	most := k.dearest()
	to.Model, to.Provider, to.PriceVersion, to.Available = most.model.Name, most.model.Provider, most.version.ID, number(spendable)
	to.Reserve = reserveView{number(most.bound.Amount), most.bound.Input, most.bound.Output, linesView(most.bound.Lines)}
	if k.cap > 0 {
		to.OutputCap = &k.cap
	}
	switch {
	case account.Frozen:
		to.Refusal = "account_frozen"
	case !affordable(k, spendable):
		to.Refusal = "insufficient_quota"
	default:
		to.Accepted = true
	}
	return nil
}

func affordable(k *call, spendable domain.Amount) bool {
	bound := k.dearest().bound.Amount
	return bound.IsZero() || !spendable.Less(bound)
}

// wouldCost prices the counted input without output, and with all of it, at the first target's base rates.
func (k *call) wouldCost(to *estimateAnswer) error {
	name := k.model.UpstreamName()
	to.InputTokens, to.CountedBy = min(k.countPrompt(name), k.need.InputTokens), provider.CountedBy(name)
	meters := domain.Meters{domain.Input: to.InputTokens, domain.Requests: 1}
	var err error
	if to.Least, err = k.costOf(meters); err != nil {
		return err
	}
	meters[domain.Output], meters[domain.WebSearch] = k.need.OutputTokens, k.need.WebSearches
	to.Most, err = k.costOf(meters)
	return err
}

func (k *call) costOf(m domain.Meters) (costView, error) {
	version, _ := k.version.In(k.regionOf(&provider.Report{}))
	charge, err := version.Charge(m, k.asked.ServiceTier)
	if err != nil {
		return costView{}, needError(err)
	}
	return costView{number(charge.Amount), m.OutputTokens(), linesView(charge.Lines)}, nil
}
