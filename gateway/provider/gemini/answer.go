package gemini

import (
	"cmp"
	"errors"
	"slices"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider/chat"
)

// head is what is known of an answer, whole or streamed.
type head struct {
	target   Target
	id       string // the answer's; the first that came
	model    string // the model that served; the first that came
	fixed    bool   // a chunk has gone out: id and model stay as they are
	tier     string // the service tier; "" = the standard one
	usage    *domain.Usage
	raw      []byte    // of usage, as it came
	metered  bool      // there was a usageMetadata
	counted  bool      // and one of them had counts
	blocked  bool      // Google did not let the prompt through
	choices  []*choice // in the order of their indices
	complete bool      // all of the answer is here
}

// take reads what a response says of itself. Of several usages the last one counts; those without
// counts say nothing.
func (h *head) take(response gjson.Result) {
	if !h.fixed {
		h.id = cmp.Or(h.id, chat.Clean(response.Get("responseId").Str, chat.MaxUpstreamID))
		h.model = cmp.Or(h.model, chat.Clean(response.Get("modelVersion").Str, chat.MaxModelName))
	}
	usage := response.Get("usageMetadata")
	if usage.IsObject() {
		h.metered = true
	}
	if usage.Get("serviceTier").Exists() {
		h.tier = chat.Clean(tierOf(usage), chat.MaxServiceTier)
	}
	if hasCounts(usage) {
		h.counted, h.usage, h.raw = true, UsageOf(usage), chat.RawUsage(usage)
	}
	h.blocked = h.blocked || response.Get("promptFeedback.blockReason").Str != ""
}

func (h *head) servedBy() string { return cmp.Or(h.model, h.target.Model) }

// choice finds the choice of a candidate. Zeros are left out of Google's JSON, so that one without an
// index has it from its position.
func (h *head) choice(candidate gjson.Result, position int) *choice {
	index := position
	if v := candidate.Get("index"); v.Type == gjson.Number && v.Int() >= 0 && v.Int() < maxCandidates {
		index = int(v.Int())
	}
	return h.choiceAt(index)
}

func (h *head) choiceAt(index int) *choice {
	i, found := slices.BinarySearchFunc(h.choices, index, func(c *choice, index int) int { return c.index - index })
	if !found {
		h.choices = slices.Insert(h.choices, i, &choice{index: index})
	}
	return h.choices[i]
}

// report is what is known so far.
func (h *head) report() chat.Report {
	r := chat.Report{Model: chat.Clean(h.servedBy(), chat.MaxModelName), Usage: h.used(), Partial: !h.complete, ServiceTier: h.tier, UpstreamID: h.id, Raw: h.raw}
	if len(h.choices) > 0 {
		r.FinishReason = h.choices[0].finish
	}
	return r
}

// used is the usage with its searches. A prompt that was blocked and metered without counts has cost
// nothing; that too is what Google says.
func (h *head) used() *domain.Usage {
	if h.usage == nil && h.blocked && h.metered && !h.counted {
		return &domain.Usage{}
	}
	if h.usage == nil {
		return nil
	}
	u, queries := *h.usage, int64(0)
	for _, c := range h.choices {
		queries += c.queries
	}
	u.WebSearch = searches(parseModel(h.servedBy()), queries)
	return &u
}

// Answer translates a whole answer.
func (x *exchange) Answer(native []byte) (*chat.Completion, error) {
	response := parse(native)
	if failed := failure(response); failed != nil {
		return nil, failed
	}
	candidates := response.Get("candidates").Array()
	known := len(candidates) > 0 || response.Get("usageMetadata").IsObject() || response.Get("promptFeedback").IsObject()
	if !response.IsObject() || !known {
		return nil, errors.New("the answer is no generateContent response")
	}
	h := head{target: x.target, complete: true}
	h.take(response)
	answer := chat.Answer{ID: h.id, Object: chat.ObjectCompletion, Created: x.target.Created, Model: h.servedBy()}
	for i, candidate := range candidates {
		c := h.choice(candidate, i)
		d := c.fold(&h, candidate)
		c.end(&h, &d, candidate.Get("finishReason").Str)
		answer.Choices = append(answer.Choices, c.whole(&d, logprobsOf(candidate)))
	}
	if len(candidates) == 0 {
		c, d := h.choiceAt(0), chat.Delta{}
		c.end(&h, &d, "")
		answer.Choices = append(answer.Choices, c.whole(&d, nil))
	}
	slices.SortStableFunc(answer.Choices, func(a, b chat.Choice) int { return a.Index - b.Index })
	report := h.report()
	answer.Usage, answer.ServiceTier = chat.UsageOf(report.Usage), named(h.tier)
	return &chat.Completion{Body: answer.Encode(), Report: report}, nil
}

func named(tier string) *string {
	if tier == "" {
		return nil
	}
	return &tier
}
