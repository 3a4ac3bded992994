package responses

import (
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider/chat"
)

// reportOf reads a response object, and whether it has come to its end.
func reportOf(v gjson.Result) (r chat.Report, ended bool) {
	r = chat.Report{
		Model:       domain.CleanText(v.Get("model").Str, chat.MaxModelName),
		UpstreamID:  domain.CleanText(v.Get("id").Str, chat.MaxUpstreamID),
		ServiceTier: domain.CleanText(v.Get("service_tier").Str, chat.MaxServiceTier),
		Usage:       usageOf(v.Get("usage")),
		Raw:         chat.RawUsage(v.Get("usage")),
	}
	r.FinishReason, r.Kept = finishOf(v), keptOf(v)
	if r.Usage != nil {
		r.Usage.WebSearch = searchesOf(v)
	}
	return r, v.Get("output").IsArray() && r.FinishReason != ""
}

// keptOf are the ids of a response and of its items, which later requests can name: even those that are not
// stored, for clients send them back as they came.
func keptOf(v gjson.Result) (ids []string) {
	add := func(id gjson.Result) {
		if id.Type == gjson.String && id.Str != "" && len(ids) < chat.MaxReferences {
			ids = append(ids, strings.Clone(id.Str))
		}
	}
	add(v.Get("id"))
	v.Get("output").ForEach(func(_, item gjson.Result) bool {
		add(item.Get("id"))
		return true
	})
	return ids
}

// finishOf is why a response ended, in the words of chat completions where they have one; "" where it has not.
func finishOf(v gjson.Result) string {
	switch status := v.Get("status").Str; status {
	case "completed":
		for _, kind := range v.Get("output.#.type").Array() {
			if kind.Str == "function_call" || kind.Str == "custom_tool_call" {
				return chat.FinishToolCalls
			}
		}
		return chat.FinishStop
	case "incomplete":
		if v.Get("incomplete_details.reason").Str == chat.FinishContentFilter {
			return chat.FinishContentFilter
		}
		return chat.FinishLength
	case "failed", "cancelled":
		return status
	}
	return ""
}

// usageOf reads a usage object: input_tokens includes cached and written tokens, output_tokens includes
// reasoning. Details may be absent or null: then they are 0. The two totals may not: a usage without them, or
// with a count that is no JSON integer from 0 to domain.MaxTokens, is nil.
func usageOf(v gjson.Result) *domain.Usage {
	if !v.IsObject() {
		return nil
	}
	c := chat.Counts{Of: v}
	u := &domain.Usage{
		Input:        c.Total("input_tokens"),
		CachedInput:  c.Detail("input_tokens_details.cached_tokens"),
		CacheWrite5m: c.Detail("input_tokens_details.cache_write_tokens"),
		AudioIn:      c.Detail("input_tokens_details.audio_tokens"),
		ImageIn:      c.Detail("input_tokens_details.image_tokens"),
		Output:       c.Total("output_tokens"),
		Reasoning:    c.Detail("output_tokens_details.reasoning_tokens"),
		AudioOut:     c.Detail("output_tokens_details.audio_tokens"),
		ImageOut:     c.Detail("output_tokens_details.image_tokens"),
	}
	if c.Bad {
		return nil
	}
	return u
}

// searchesOf is how many web searches are billed: as OpenAI says, or else one for each call that searched and
// did not only open a page.
func searchesOf(v gjson.Result) (n int64) {
	c := chat.Counts{Of: v}
	if told := c.Detail("tool_usage.web_search.num_requests"); told > 0 && !c.Bad {
		return told
	}
	v.Get("output").ForEach(func(_, item gjson.Result) bool {
		if action := item.Get("action.type").Str; item.Get("type").Str == "web_search_call" && (action == "search" || action == "") {
			n++
		}
		return true
	})
	return n
}
