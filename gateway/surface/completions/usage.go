package completions

import (
	"github.com/tidwall/gjson"

	"llm-gateway/domain"
)

// usageOf reads a usage, as that of a chat completion: prompt_tokens includes what came from a cache,
// completion_tokens includes reasoning. One without these two, or with a count that is no JSON integer from
// 0 to domain.MaxTokens, is nil.
func usageOf(u gjson.Result) *domain.Usage {
	c := counts{of: u, ok: u.Get("prompt_tokens").Type == gjson.Number && u.Get("completion_tokens").Type == gjson.Number}
	use := &domain.Usage{
		Input:        c.count("prompt_tokens"),
		Output:       c.count("completion_tokens"),
		CachedInput:  c.count("prompt_tokens_details.cached_tokens"),
		CacheWrite5m: c.count("prompt_tokens_details.cache_write_tokens"),
		Reasoning:    c.count("completion_tokens_details.reasoning_tokens"),
	}
	if use.CachedInput == 0 {
		use.CachedInput = c.count("prompt_cache_hit_tokens") // DeepSeek's own name
	}
	// xAI leaves reasoning out of completion_tokens; its total gives that away.
	if sum := use.Input + use.Output; use.Reasoning > 0 && c.count("total_tokens") == sum+use.Reasoning {
		use.Output += use.Reasoning
	}
	if !c.ok || use.Output > domain.MaxTokens {
		return nil
	}
	return use
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
