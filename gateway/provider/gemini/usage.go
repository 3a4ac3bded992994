package gemini

import (
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
)

// UsageOf reads usageMetadata. Google counts the prompt with what was read from a cache, the results of
// its own tools beside it, and thoughts beside the candidates: here they are all in Input and Output.
// Counts that are absent are 0, as protocol buffers leave zeros out; but a usage without the prompt's
// count, or with one that is no JSON integer from 0 to domain.MaxTokens, is nil. totalTokenCount is
// not believed against the parts: they are what is billed.
func UsageOf(usage gjson.Result) *domain.Usage {
	if !usage.IsObject() {
		return nil
	}
	c := counts{of: usage}
	if !usage.Get("promptTokenCount").Exists() {
		return nil
	}
	thoughts := c.count("thoughtsTokenCount")
	u := &domain.Usage{
		Input:         c.count("promptTokenCount") + c.count("toolUsePromptTokenCount"),
		CachedInput:   c.count("cachedContentTokenCount"),
		AudioIn:       c.modality("promptTokensDetails", "AUDIO") + c.modality("toolUsePromptTokensDetails", "AUDIO"),
		CachedAudioIn: c.modality("cacheTokensDetails", "AUDIO"),
		ImageIn:       c.modality("promptTokensDetails", "IMAGE") + c.modality("toolUsePromptTokensDetails", "IMAGE"),
		Output:        c.count("candidatesTokenCount") + thoughts,
		Reasoning:     thoughts,
		AudioOut:      c.modality("candidatesTokensDetails", "AUDIO"),
		ImageOut:      c.modality("candidatesTokensDetails", "IMAGE"),
	}
	for _, sum := range []int64{u.Input, u.Output, u.AudioIn, u.CachedAudioIn, u.ImageIn, u.AudioOut, u.ImageOut} {
		c.bad = c.bad || sum > domain.MaxTokens
	}
	if c.bad {
		return nil
	}
	return u
}

// hasCounts tells a usage from the empty ones that early events of a stream carry.
func hasCounts(usage gjson.Result) bool {
	for _, name := range []string{"promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "totalTokenCount"} {
		if usage.Get(name).Exists() {
			return true
		}
	}
	return false
}

// counts reads the numbers of a usage and remembers whether one of them was unusable.
type counts struct {
	of  gjson.Result
	bad bool
}

func (c *counts) count(name string) int64 { return c.number(c.of.Get(name)) }

// modality sums what the list says of one modality.
func (c *counts) modality(list, name string) int64 {
	sum := int64(0)
	for _, entry := range c.of.Get(list).Array() {
		if entry.Get("modality").Str == name {
			sum = min(sum+c.number(entry.Get("tokenCount")), domain.MaxTokens+1)
		}
	}
	return sum
}

// maxDigits bounds the digits of a count, so that it fits an int64.
const maxDigits = 18

func (c *counts) number(v gjson.Result) int64 {
	if v.Type == gjson.Null {
		return 0
	}
	digits := strings.Trim(v.Raw, "0123456789") == ""
	if v.Type != gjson.Number || !digits || len(v.Raw) > maxDigits || v.Int() > domain.MaxTokens {
		c.bad = true
		return 0
	}
	return v.Int()
}

// tierOf is the service tier by the price book's names; "" is the standard one.
func tierOf(usage gjson.Result) string {
	tier := strings.TrimPrefix(strings.ToLower(usage.Get("serviceTier").Str), "service_tier_")
	if tier == "standard" || tier == "unspecified" {
		return ""
	}
	return tier
}

// searches are the searches that Google bills: since Gemini 3 every query, before that one for every
// request that searched at all.
func searches(m model, queries int64) int64 {
	if m.major > 0 && !m.atLeast(3, 0) {
		return min(queries, 1)
	}
	return queries
}
