package gemini

import (
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider/chat"
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
	c := countsOf(usage)
	if !usage.Get("promptTokenCount").Exists() {
		return nil
	}
	thoughts := c.Detail("thoughtsTokenCount")
	u := &domain.Usage{
		Input:         c.Detail("promptTokenCount") + c.Detail("toolUsePromptTokenCount"),
		CachedInput:   c.Detail("cachedContentTokenCount"),
		AudioIn:       c.modality("promptTokensDetails", "AUDIO") + c.modality("toolUsePromptTokensDetails", "AUDIO"),
		CachedAudioIn: c.modality("cacheTokensDetails", "AUDIO"),
		ImageIn:       c.modality("promptTokensDetails", "IMAGE") + c.modality("toolUsePromptTokensDetails", "IMAGE"),
		Output:        c.Detail("candidatesTokenCount") + thoughts,
		Reasoning:     thoughts,
		AudioOut:      c.modality("candidatesTokensDetails", "AUDIO"),
		ImageOut:      c.modality("candidatesTokensDetails", "IMAGE"),
	}
	for _, sum := range []int64{u.Input, u.Output, u.AudioIn, u.CachedAudioIn, u.ImageIn, u.AudioOut, u.ImageOut} {
		c.Bad = c.Bad || sum > domain.MaxTokens
	}
	if c.Bad {
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

// counts reads the numbers of a usage.
type counts struct{ chat.Counts }

func countsOf(usage gjson.Result) counts { return counts{chat.Counts{Of: usage}} }

// modality sums what the list says of one modality.
func (c *counts) modality(list, name string) int64 {
	sum := int64(0)
	for _, entry := range c.Of.Get(list).Array() {
		if entry.Get("modality").Str == name {
			sum = min(sum+c.Number(entry.Get("tokenCount")), domain.MaxTokens+1)
		}
	}
	return sum
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
