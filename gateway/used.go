package gateway

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider"
	"llm-gateway/gateway/provider/chat"
)

// used is what a call came to: what the provider reported, or else what was delivered.
type used struct {
	report provider.Report
	meters domain.Meters
	source domain.UsageSource
	region string // whose factor is charged
}

// reported takes the provider's own usage; an unusable one counts as none. Where the answer broke off
// before its output had been counted, that is what was delivered, if it is more than was reported.
func (k *call) reported(r provider.Report, delivered func() string) (used, bool) {
	if r.Usage == nil {
		return used{report: r}, false
	}
	usage, source := *r.Usage, domain.UsageProvider
	if r.Partial {
		source = domain.UsageCounted
		usage.Output = max(usage.Output, min(provider.CountText(k.model.UpstreamName(), delivered()), k.need.OutputTokens))
	}
	meters, err := usage.Meters()
	if err != nil {
		return used{report: r}, false
	}
	if k.searches(k.asked) == 0 { // it does not say how often it searched
		meters[domain.WebSearch] = max(meters[domain.WebSearch], k.need.WebSearches)
	}
	return used{report: r, meters: meters, source: source}, true
}

// measure is what a call came to: as reported, or counted from the input and the delivered text, by
// the tokenizer, never beyond the bound. delivered is asked for only where counting is needed.
func (k *call) measure(r provider.Report, delivered func() string) used {
	u, ok := k.reported(r, delivered)
	if ok {
		return u
	}
	name := k.model.UpstreamName()
	input := k.countPrompt(name)
	u.source = domain.UsageCounted
	u.meters[domain.Input] = min(input, k.need.InputTokens)
	u.meters[domain.Output] = min(provider.CountText(name, delivered()), k.need.OutputTokens)
	u.meters[domain.WebSearch] = k.need.WebSearches
	u.meters[domain.Requests] = 1
	return u
}

// countPrompt counts the input: as a chat completion, or where the request cannot be one, all of it as text.
func (k *call) countPrompt(model string) int64 {
	body := k.body
	if k.asked.NoOutput {
		return provider.CountInputs(model, body)
	}
	if k.foreign == nil && k.door.surface == chat.SurfaceCompletions { // it is no chat, and has no template
		return provider.CountCompletion(model, body, k.asked.Inputs)
	}
	if !k.door.isChat() {
		if _, err := k.byChat(); err != nil {
			return provider.CountText(model, string(body))
		}
		body = k.chat
	}
	tokens, _ := provider.CountPrompt(model, body)
	return tokens
}

// bill is what a request is paid with, and what it cost the operator. Without a sell book the two are one.
type bill struct{ charge, cost domain.Charge }

// charge prices what was used, by the versions in force when the reserve was made: where and how fast it was
// served, or as a part of that where it was answered from the cache, which cost nothing.
func (h *hold) charge(u *used) (b bill, err error) {
	version := h.call.version
	if h.hit {
		if version, err = version.Cached(h.g.responses.Percent); err != nil {
			return bill{}, err
		}
	}
	version = h.in(version, h.call.regionOf(&u.report))
	u.region = version.Region
	if len(u.report.Iterations) > 1 && u.source == domain.UsageProvider {
		b, err = h.chargeIterations(u)
	} else {
		b, err = h.chargeAt(version, &u.meters, u.report.ServiceTier)
	}
	if err != nil {
		return bill{}, fmt.Errorf("pricing %s: %w", h.id, err)
	}
	if h.hit {
		b.cost = domain.Charge{PriceVersion: b.charge.PriceVersion, Lines: []domain.Line{}}
	}
	return b, nil
}

// chargeAt prices meters by a version, after folding those that it has no price for.
func (h *hold) chargeAt(v *domain.PriceVersion, m *domain.Meters, tier string) (b bill, err error) {
	folded := false
	if *m, folded = v.Fold(*m); folded {
		h.g.log.Error("the provider reported a meter that the price book has no price for; it was charged as plain tokens",
			"model", v.Model, "price_version", v.ID, "billing_request_id", h.id)
	}
	if b.charge, err = v.Charge(*m, tier); err != nil || v.Cost() == v {
		return bill{b.charge, b.charge}, err
	}
	b.cost, err = v.Cost().Charge(*m, tier)
	return b, err
}

// add puts another version's part to a bill.
func (b *bill) add(other bill) error {
	return errors.Join(b.charge.Add(other.charge), b.cost.Add(other.cost))
}

// chargeIterations prices an answer that several models served, each part at the price of its own.
func (h *hold) chargeIterations(u *used) (bill, error) {
	k := h.call
	parts := map[*domain.PriceVersion]*domain.Meters{k.version: {domain.WebSearch: u.meters[domain.WebSearch], domain.Requests: 1}}
	versions := []*domain.PriceVersion{k.version}
	for _, i := range u.report.Iterations {
		meters, err := i.Usage.Meters()
		if err != nil {
			return bill{}, err
		}
		v := h.versionOf(i.Model)
		if parts[v] == nil {
			parts[v], versions = &domain.Meters{}, append(versions, v)
		}
		for m := range domain.WebSearch {
			parts[v][m] += meters[m]
		}
	}
	all, err := h.chargeAt(h.in(k.version, u.region), parts[k.version], u.report.ServiceTier)
	u.meters = *parts[k.version]
	for _, v := range versions[1:] {
		if err != nil {
			return bill{}, err
		}
		var other bill
		if other, err = h.chargeAt(h.in(v, u.region), parts[v], u.report.ServiceTier); err == nil {
			err = all.add(other)
		}
		for m, n := range parts[v] {
			u.meters[m] += n
		}
	}
	return all, err
}

// versionOf is the price of another model of the same provider; one without a price is charged as the one
// that was asked for.
func (h *hold) versionOf(model string) *domain.PriceVersion {
	k := h.call
	if model == "" || model == k.model.UpstreamName() {
		return k.version
	}
	_, v, err := k.catalog.Prices.Lookup(k.model.Provider+"/"+model, k.began)
	if err != nil {
		h.g.log.Error("a model without a price served part of a request; it was charged as the one that was asked for",
			"model", k.model.Name, "billing_request_id", h.id)
		return k.version
	}
	return k.catalog.Sell.Price(k.who.Account, v, k.began)
}

func (h *hold) commitData(u used, b bill) domain.CommitData {
	k := h.call
	served := u.report.Model
	if served == "" {
		served = k.model.UpstreamName()
	}
	countedBy := ""
	if u.source == domain.UsageCounted {
		countedBy = provider.CountedBy(k.model.UpstreamName())
	}
	latency := h.g.now().Sub(k.began)
	ttft := latency
	if !h.first.IsZero() {
		ttft = h.firstByte()
	}
	costVersion := b.cost.PriceVersion
	if costVersion == b.charge.PriceVersion {
		costVersion = "" // said once
	}
	cache := ""
	if h.hit {
		cache = domain.CacheHit
	}
	return domain.CommitData{
		Cache: cache, Surface: k.door.surface, ModelRequested: domain.CleanText(k.asked.Model, domain.MaxForeignText), ModelServed: served,
		Provider: k.model.Provider, Attempts: h.tried, Meters: u.meters, Lines: b.charge.Lines,
		PriceVersion: b.charge.PriceVersion, CostLines: b.cost.Lines, CostVersion: costVersion, UsageSource: u.source, CountedBy: countedBy, Usage: chat.CleanUsage(u.report.Raw),
		FinishReason: u.report.FinishReason, Stream: k.stream, ServiceTier: u.report.ServiceTier, Region: u.region,
		TTFTMillis: ttft.Milliseconds(), LatencyMillis: latency.Milliseconds(),
		KeyID: k.who.KeyID, EndUser: endUser(k.asked.EndUser),
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
