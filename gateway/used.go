package gateway

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider"
)

// used is what a call came to: what the provider reported, or else what was delivered.
type used struct {
	report provider.Report
	meters domain.Meters
	source domain.UsageSource
}

// reported takes the provider's own usage; an unusable one counts as none.
func (k *call) reported(r provider.Report) (used, bool) {
	if r.Usage == nil {
		return used{report: r}, false
	}
	meters, err := r.Usage.Meters()
	if err != nil {
		return used{report: r}, false
	}
	meters[domain.WebSearch] = max(meters[domain.WebSearch], k.need.WebSearches)
	return used{report: r, meters: meters, source: domain.UsageProvider}, true
}

// measure is what a call came to: as reported, or counted from the input and the delivered text, by
// the tokenizer, never beyond the bound. delivered is asked for only where counting is needed.
func (k *call) measure(r provider.Report, delivered func() string) used {
	u, ok := k.reported(r)
	if ok {
		return u
	}
	input, _ := provider.CountPrompt(k.model.Name, k.body)
	u.source = domain.UsageCounted
	u.meters[domain.Input] = min(input, k.need.InputTokens)
	u.meters[domain.Output] = min(provider.CountText(k.model.Name, delivered()), k.need.OutputTokens)
	u.meters[domain.WebSearch] = k.need.WebSearches
	u.meters[domain.Requests] = 1
	return u
}

// charge prices what was used, by the version that the reserve was made with.
func (h *hold) charge(u *used) (domain.Charge, error) {
	folded := false
	if u.meters, folded = h.call.version.Fold(u.meters); folded {
		h.g.log.Error("the provider reported a meter that the price book has no price for; it was charged as plain tokens",
			"model", h.call.model.Name, "price_version", h.call.version.ID, "billing_request_id", h.id)
	}
	charge, err := h.call.version.Charge(u.meters, u.report.ServiceTier)
	if err != nil {
		return domain.Charge{}, fmt.Errorf("pricing %s: %w", h.id, err)
	}
	return charge, nil
}

func (h *hold) commitData(u used, charge domain.Charge) domain.CommitData {
	k := h.call
	served := u.report.Model
	if served == "" {
		served = k.model.Name
	}
	latency := h.g.now().Sub(k.began)
	ttft := latency
	if !h.first.IsZero() {
		ttft = h.first.Sub(k.began)
	}
	return domain.CommitData{
		Surface: k.surface, ModelRequested: domain.CleanText(k.asked.model, domain.MaxForeignText), ModelServed: served,
		Provider: k.model.Provider, Attempts: h.attempts, Meters: u.meters, Lines: charge.Lines,
		PriceVersion: charge.PriceVersion, CostLines: charge.Lines, UsageSource: u.source,
		FinishReason: u.report.FinishReason, Stream: k.stream, ServiceTier: u.report.ServiceTier,
		TTFTMillis: ttft.Milliseconds(), LatencyMillis: latency.Milliseconds(),
		KeyID: k.who.KeyID, EndUser: endUser(k.asked.endUser),
	}
}

// endUser keeps an application's own user name out of the ledger where it could be a name or an
// e-mail address: anything but a short identifier is kept as a digest, which still tells users
// apart.
func endUser(name string) string {
	if name == "" {
		return ""
	}
	plain := len(name) <= 64
	for i := 0; i < len(name) && plain; i++ {
		c := name[i]
		plain = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.'
	}
	if plain {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return "sha256:" + hex.EncodeToString(sum[:16])
}
