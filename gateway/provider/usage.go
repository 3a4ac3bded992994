package provider

import (
	"github.com/tidwall/gjson"

	"llm-gateway/domain"
)

// usageOf reads a usage object of OpenAI's shape: prompt_tokens includes cached, written and audio
// tokens; completion_tokens includes reasoning, audio and the tokens of accepted and rejected
// predictions. Details may be absent or null: then they are 0. The two totals may not: a usage
// without them, or with a count that is no JSON integer from 0 to domain.MaxTokens, is nil, and
// whoever charges counts by himself. Zero means zero.
func usageOf(u gjson.Result) *domain.Usage {
	if !u.IsObject() {
		return nil
	}
	c := counts{of: u}
	use := &domain.Usage{
		Input:        c.total("prompt_tokens"),
		Output:       c.total("completion_tokens"),
		CachedInput:  c.detail("prompt_tokens_details.cached_tokens"),
		CacheWrite5m: c.detail("prompt_tokens_details.cache_write_tokens"),
		AudioIn:      c.detail("prompt_tokens_details.audio_tokens"),
		ImageIn:      c.detail("prompt_tokens_details.image_tokens"),
		Reasoning:    c.detail("completion_tokens_details.reasoning_tokens"),
		AudioOut:     c.detail("completion_tokens_details.audio_tokens"),
		ImageOut:     c.detail("completion_tokens_details.image_tokens"),
	}
	if use.CachedInput == 0 {
		// DeepSeek's own name, beside or instead of OpenAI's.
		use.CachedInput = c.detail("prompt_cache_hit_tokens")
	}
	// xAI leaves reasoning out of completion_tokens; its total gives that away.
	sum := use.Input + use.Output
	if use.Reasoning > 0 && c.detail("total_tokens") == sum+use.Reasoning {
		use.Output += use.Reasoning
	}
	if c.bad || use.Output > domain.MaxTokens {
		return nil
	}
	return use
}

// counts reads the numbers of a usage and remembers whether one of them was unusable.
type counts struct {
	of  gjson.Result
	bad bool
}

// total is a count that must be there.
func (c *counts) total(path string) int64 {
	v := c.of.Get(path)
	if v.Type == gjson.Null {
		c.bad = true
	}
	return c.number(v)
}

// detail is a count that may be absent or null.
func (c *counts) detail(path string) int64 { return c.number(c.of.Get(path)) }

func (c *counts) number(v gjson.Result) int64 {
	if v.Type == gjson.Null {
		return 0
	}
	n, ok := integer(v)
	if !ok || n > domain.MaxTokens {
		c.bad = true
		return 0
	}
	return n
}

// maxDigits bounds the digits of an integer, so that it fits an int64.
const maxDigits = 18

// integer is the value of a JSON number written as digits only: no sign, point or exponent.
func integer(v gjson.Result) (int64, bool) {
	if v.Type != gjson.Number || len(v.Raw) > maxDigits {
		return 0, false
	}
	n := int64(0)
	for i := range len(v.Raw) {
		if v.Raw[i] < '0' || v.Raw[i] > '9' {
			return 0, false
		}
		n = n*10 + int64(v.Raw[i]-'0')
	}
	return n, true
}
