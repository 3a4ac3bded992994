package responses

import (
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
	}
	r.FinishReason = finishOf(v)
	if r.Usage != nil {
		r.Usage.WebSearch = searchesOf(v)
	}
	return r, v.Get("output").IsArray() && r.FinishReason != ""
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
	c := counts{of: v, ok: v.IsObject() && v.Get("input_tokens").Type != gjson.Null && v.Get("output_tokens").Type != gjson.Null}
	u := &domain.Usage{
		Input:        c.count("input_tokens"),
		CachedInput:  c.count("input_tokens_details.cached_tokens"),
		CacheWrite5m: c.count("input_tokens_details.cache_write_tokens"),
		AudioIn:      c.count("input_tokens_details.audio_tokens"),
		ImageIn:      c.count("input_tokens_details.image_tokens"),
		Output:       c.count("output_tokens"),
		Reasoning:    c.count("output_tokens_details.reasoning_tokens"),
		AudioOut:     c.count("output_tokens_details.audio_tokens"),
		ImageOut:     c.count("output_tokens_details.image_tokens"),
	}
	if !c.ok {
		return nil
	}
	return u
}

// searchesOf is how many web searches are billed: as OpenAI says, or else one for each call that searched and
// did not only open a page.
func searchesOf(v gjson.Result) (n int64) {
	c := counts{of: v, ok: true}
	if told := c.count("tool_usage.web_search.num_requests"); told > 0 && c.ok {
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

// counts reads numbers and remembers whether one of them was unusable.
type counts struct {
	of gjson.Result
	ok bool
}

// maxDigits bounds the digits of a count, so that it fits an int64.
const maxDigits = 18

// count is a JSON number of digits only, up to domain.MaxTokens; 0 where there is none.
func (c *counts) count(path string) (n int64) {
	v := c.of.Get(path)
	if v.Type == gjson.Null {
		return 0
	}
	if v.Type != gjson.Number || len(v.Raw) > maxDigits {
		c.ok = false
		return 0
	}
	for i := range len(v.Raw) {
		if v.Raw[i] < '0' || v.Raw[i] > '9' {
			c.ok = false
			return 0
		}
		n = n*10 + int64(v.Raw[i]-'0')
	}
	c.ok = c.ok && n <= domain.MaxTokens
	return n
}
