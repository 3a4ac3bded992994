package gateway

import (
	"errors"
	"strings"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider"
	"llm-gateway/gateway/provider/chat"
)

// target is one model at one provider that a call may be sent to, with what it can cost there.
type target struct {
	model    *domain.Model
	version  *domain.PriceVersion // what the account pays, in force when the call began
	upstream provider.Provider
	request  provider.Request
	terms    provider.Terms
	need     domain.Need
	bound    domain.Bound // the price of need
	foreign  chat.Foreign // by way of which it is asked; nil = in the request's own form
	exact    int64        // what exactInput found; 0 = not asked yet
}

// aim makes the targets of a call ready, and bounds what each can cost. What the first cannot be asked is
// the client's to know; another that cannot be asked it is no target.
func (k *call) aim(targets []*target) error {
	for i, t := range targets {
		err := k.ready(t)
		if err == nil && t.terms.Kept != "" && !k.sharedIDs {
			err = notOwned(t.terms.Kept)
		}
		if err == nil {
			if err = t.checkRegion(k.asked); err == nil {
				t.need = needOf(k.asked, t)
				err = t.rebound()
			}
		}
		if err == nil {
			k.targets = append(k.targets, t)
		} else if i == 0 {
			return err
		}
	}
	k.target = k.targets[0]
	return nil
}

// ready makes what is sent to a target, after every change of the body: the request in its own form, or
// where the provider does not speak that, by way of a chat completion.
func (k *call) ready(t *target) error {
	t.request.Model, t.request.MaxOutput, t.request.Order = t.model.UpstreamName(), t.model.OutputLimit(), k.order
	t.request.Surface, t.request.Method, t.request.Body, t.request.Header = k.door.surface, k.asking.method, k.body, k.header
	err := provider.ErrForeign
	if k.door.surface != chat.SurfaceCompletions || t.model.Mode == domain.ModeCompletion { // chat models speak no completions
		t.terms, err = t.upstream.Prepare(&t.request)
	}
	if errors.Is(err, provider.ErrForeign) {
		if t.foreign, err = k.byChat(); err != nil {
			return err
		}
		t.request.Surface, t.request.Method, t.request.Body, t.request.Made = k.door.hub(), "", k.chat, true
		t.terms, err = t.upstream.Prepare(&t.request)
	}
	return unsupported(err)
}

// byChat reads the request as a chat completion, once.
func (k *call) byChat() (chat.Foreign, error) {
	if k.foreignRequest == nil {
		if k.door.foreign == nil {
			return nil, internal(errors.New("a provider takes no chat completions"))
		}
		foreign, err := k.door.foreign(k.asking, uuid.New(), k.began)
		if err != nil {
			return nil, unsupported(err)
		}
		k.foreignRequest, k.chat = foreign, foreign.Chat()
	}
	return k.foreignRequest, nil
}

// rebound prices the need, after every change of it.
func (t *target) rebound() error {
	var err error
	if t.bound, err = t.version.Bound(t.need); err != nil {
		return needError(err)
	}
	return nil
}

// needError says why a need cannot be bounded.
func needError(err error) error {
	if errors.Is(err, domain.ErrPriceMissing) {
		return invalid("price_unknown", "", "Part of this request has no price, so it is not called: "+err.Error()+".")
	}
	return invalid("invalid_value", "", "This request asks for more than can be priced: "+err.Error()+".")
}

// dearest is the target whose bound is reserved: all the others cost no more.
func (k *call) dearest() *target {
	most := k.targets[0]
	for _, t := range k.targets[1:] {
		if most.bound.Amount.Less(t.bound.Amount) {
			most = t
		}
	}
	return most
}

// dropDearer gives up the targets that can cost more than the first, and says whether there were any.
func (k *call) dropDearer() bool {
	kept := k.targets[:1:1]
	for _, t := range k.targets[1:] {
		if !k.targets[0].bound.Amount.Less(t.bound.Amount) {
			kept = append(kept, t)
		}
	}
	dropped := len(kept) < len(k.targets)
	k.targets = kept
	return dropped
}

// exactInput is the input's exact number of tokens where that can be known and is smaller than the
// cheap bound, else that bound. It counts once: counting costs time.
func (k *call) exactInput(t *target) int64 {
	if t.exact != 0 {
		return t.exact
	}
	t.exact = t.need.InputTokens
	if k.asked.Opaque || k.asked.Images > 0 {
		return t.exact
	}
	if t.foreign == nil && !k.door.isChat() { // whether the formula is this surface's, too, is not known
		return t.exact
	}
	if tokens, exact := provider.CountPrompt(t.model.UpstreamName(), t.request.Body); exact {
		t.exact = min(t.exact, tokens+templateTokens+t.terms.Overhead)
	}
	return t.exact
}

// countInput replaces the cheap bounds of the input by its exact number of tokens, where that can be
// known, and says whether a need became smaller.
func (k *call) countInput() (smaller bool, err error) {
	for _, t := range k.targets {
		before := t.need.InputTokens
		if t.need.InputTokens = k.exactInput(t); t.need.InputTokens < before {
			smaller, err = true, errors.Join(err, t.rebound())
		}
	}
	return smaller, err
}

// capOutput limits the output to what the balance affords, in what is sent and in the needs.
func (k *call) capOutput(perChoice int64) error {
	if err := set(&k.body, k.door.limit(k.body), perChoice); err != nil {
		return err
	}
	if k.chat != nil {
		if err := set(&k.chat, "max_completion_tokens", perChoice); err != nil {
			return err
		}
	}
	k.cap = perChoice
	for _, t := range k.targets {
		if err := k.ready(t); err != nil {
			return err
		}
		t.need.OutputTokens = outputBound(k.asked, perChoice, t.model)
		if err := t.rebound(); err != nil {
			return err
		}
	}
	k.dropDearer()
	return nil
}

// needOf is the most that a request can use of a target.
func needOf(f *chat.Facts, t *target) domain.Need {
	m, window := t.model, max(t.model.Context, t.terms.Window)*max(1, f.Inputs)
	n := domain.Need{
		InputTokens: f.InputBytes + templateTokens + t.terms.Overhead, AudioOut: f.AudioOut,
		AudioIn:     f.AudioIn || t.terms.AudioIn && t.prices(domain.AudioIn),
		ImageOut:    f.ImageOut || t.draws(),
		ServiceTier: f.ServiceTier, WebSearches: t.searches(f),
	}
	if t.terms.Regional {
		n.Geo, n.Speed = t.geo(f), f.Speed
	}
	if f.NoOutput && f.InputBytes == 0 { // it is only counted
		n.InputTokens = 0
	}
	unseen := f.Opaque
	if f.Images > 0 {
		unseen = unseen || t.terms.ImageTokens == 0
		n.InputTokens += f.Images*t.terms.ImageTokens - f.ImageBytes
	}
	if unseen || n.InputTokens > window {
		n.InputTokens = window
	}
	n.InputTokens = min(n.InputTokens*max(1, t.terms.Rounds, f.Rounds), domain.MaxTokens)
	if n.WebSearches == 0 && (m.AlwaysSearches || f.WebSearch) {
		n.WebSearches = 1
	}
	n.OutputTokens = outputBound(f, f.MaxOutput, m)
	return n
}

// prices says whether a meter has a price of its own. What has none is charged as plain tokens.
func (t *target) prices(m domain.Meter) bool {
	if t.version == nil {
		return false
	}
	_, priced := t.version.Rates.Get(m)
	return priced
}

// draws says whether the model is one that draws without being asked to, as Google's do.
func (t *target) draws() bool {
	return strings.Contains(t.model.UpstreamName(), "image") && t.prices(domain.ImageOut)
}

// searches is how many web searches a target can be caused to make, as far as it limits and reports them; 0
// where it does not.
func (t *target) searches(f *chat.Facts) int64 {
	if t.foreign == nil {
		return max(f.Searches, t.terms.Searches)
	}
	return t.terms.Searches
}

// outputBound is the output of all choices where each may have most tokens; 0 = the model's maximum.
func outputBound(f *chat.Facts, most int64, m *domain.Model) int64 {
	if f.NoOutput {
		return 0
	}
	if most == 0 {
		most = m.OutputLimit()
	}
	return (most + outputOverhead(f)) * f.Choices
}

// outputOverhead is what a choice can be billed beyond its maximum.
func outputOverhead(f *chat.Facts) int64 { return outputSlack + f.PredictionLen }
