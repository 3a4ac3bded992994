package chat

import (
	"github.com/tidwall/gjson"

	"llm-gateway/domain"
)

// UsageFrom reads a usage object of OpenAI's shape: prompt_tokens includes cached, written and audio
// tokens; completion_tokens includes reasoning, audio and the tokens of accepted and rejected
// predictions. Details may be absent or null: then they are 0. The two totals may not: a usage
// without them, or with a count that is no JSON integer from 0 to domain.MaxTokens, is nil, and
// whoever charges counts by himself. Zero means zero.
func UsageFrom(u gjson.Result) *domain.Usage {
	if !u.IsObject() {
		return nil
	}
	c := Counts{Of: u}
	use := &domain.Usage{
		Input:        c.Total("prompt_tokens"),
		Output:       c.Total("completion_tokens"),
		CachedInput:  c.Detail("prompt_tokens_details.cached_tokens"),
		CacheWrite5m: c.Detail("prompt_tokens_details.cache_write_tokens"),
		AudioIn:      c.Detail("prompt_tokens_details.audio_tokens"),
		ImageIn:      c.Detail("prompt_tokens_details.image_tokens"),
		Reasoning:    c.Detail("completion_tokens_details.reasoning_tokens"),
		AudioOut:     c.Detail("completion_tokens_details.audio_tokens"),
		ImageOut:     c.Detail("completion_tokens_details.image_tokens"),
	}
	if use.CachedInput == 0 {
		// DeepSeek's own name, beside or instead of OpenAI's.
		use.CachedInput = c.Detail("prompt_cache_hit_tokens")
	}
	// xAI leaves reasoning out of completion_tokens; its total gives that away.
	sum := use.Input + use.Output
	if use.Reasoning > 0 && c.Detail("total_tokens") == sum+use.Reasoning {
		use.Output += use.Reasoning
	}
	if c.Bad || use.Output > domain.MaxTokens {
		return nil
	}
	return use
}

// Counts reads the numbers of a usage, and remembers in Bad whether one of them was unusable: a usage that
// is wrong in one place is not believed in another.
type Counts struct {
	Of  gjson.Result
	Bad bool
}

// Total is a count that must be there.
func (c *Counts) Total(path string) int64 {
	v := c.Of.Get(path)
	if v.Type == gjson.Null {
		c.Bad = true
	}
	return c.Number(v)
}

// Detail is a count that may be absent or null: then it is 0.
func (c *Counts) Detail(path string) int64 { return c.Number(c.Of.Get(path)) }

// Number is the count that v is; 0 where that is absent, null or unusable.
func (c *Counts) Number(v gjson.Result) int64 {
	if v.Type == gjson.Null {
		return 0
	}
	n, ok := Tokens(v)
	if !ok {
		c.Bad = true
		return 0
	}
	return n
}

// Tokens is an Integer up to domain.MaxTokens.
func Tokens(v gjson.Result) (int64, bool) {
	n, ok := Integer(v)
	return n, ok && n <= domain.MaxTokens
}

// maxDigits bounds the digits of an integer, so that it fits an int64.
const maxDigits = 18

// Integer is the value of a JSON number written as digits only: no sign, point or exponent.
func Integer(v gjson.Result) (int64, bool) {
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
