package chat

import (
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
)

func TestUsageFrom(t *testing.T) {
	cases := []struct {
		name, in string
		want     *domain.Usage
	}{
		{"totals only", `{"prompt_tokens":15,"completion_tokens":19,"total_tokens":34}`,
			&domain.Usage{Input: 15, Output: 19}},
		{"zero is zero", `{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}`,
			&domain.Usage{}},
		{"details", `{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150,
			"prompt_tokens_details":{"cached_tokens":40,"audio_tokens":30,"image_tokens":5},
			"completion_tokens_details":{"reasoning_tokens":20,"audio_tokens":10,
			"accepted_prediction_tokens":3,"rejected_prediction_tokens":4}}`,
			&domain.Usage{Input: 100, CachedInput: 40, AudioIn: 30, ImageIn: 5, Output: 50,
				Reasoning: 20, AudioOut: 10}},
		{"null details", `{"prompt_tokens":1,"completion_tokens":2,"prompt_tokens_details":null,
			"completion_tokens_details":{"reasoning_tokens":null}}`,
			&domain.Usage{Input: 1, Output: 2}},
		{"OpenRouter's cache writes", `{"prompt_tokens":10,"completion_tokens":2,
			"prompt_tokens_details":{"cache_write_tokens":7}}`,
			&domain.Usage{Input: 10, CacheWrite5m: 7, Output: 2}},
		{"DeepSeek's cache", `{"prompt_tokens":10,"completion_tokens":2,
			"prompt_cache_hit_tokens":8}`, &domain.Usage{Input: 10, CachedInput: 8, Output: 2}},
		{"xAI's reasoning is beside its output", `{"prompt_tokens":307,"completion_tokens":26,
			"total_tokens":588,"completion_tokens_details":{"reasoning_tokens":255}}`,
			&domain.Usage{Input: 307, Output: 281, Reasoning: 255}},
		{"OpenAI's is in it", `{"prompt_tokens":307,"completion_tokens":281,
			"total_tokens":588,"completion_tokens_details":{"reasoning_tokens":255}}`,
			&domain.Usage{Input: 307, Output: 281, Reasoning: 255}},
		{"largest", `{"prompt_tokens":2147483647,"completion_tokens":0}`,
			&domain.Usage{Input: domain.MaxTokens}},
		{"too large", `{"prompt_tokens":2147483648,"completion_tokens":0}`, nil},
		{"far too large", `{"prompt_tokens":99999999999999999999,"completion_tokens":0}`, nil},
		{"too large with its reasoning", `{"prompt_tokens":0,"completion_tokens":2147483647,
			"total_tokens":2147483657,"completion_tokens_details":{"reasoning_tokens":10}}`, nil},
		{"no totals", `{"total_tokens":34}`, nil},
		{"null total", `{"prompt_tokens":null,"completion_tokens":1}`, nil},
		{"empty", `{}`, nil},
		{"null", `null`, nil},
		{"a list", `[]`, nil},
		{"a number", `7`, nil},
		{"string", `{"prompt_tokens":"15","completion_tokens":19}`, nil},
		{"float", `{"prompt_tokens":15.0,"completion_tokens":19}`, nil},
		{"exponent", `{"prompt_tokens":1e1,"completion_tokens":19}`, nil},
		{"negative", `{"prompt_tokens":-1,"completion_tokens":19}`, nil},
		{"negative detail", `{"prompt_tokens":1,"completion_tokens":19,
			"prompt_tokens_details":{"cached_tokens":-5}}`, nil},
		{"string detail", `{"prompt_tokens":1,"completion_tokens":19,
			"completion_tokens_details":{"reasoning_tokens":"5"}}`, nil},
	}
	for _, c := range cases {
		got := UsageFrom(gjson.Parse(c.in))
		if (got == nil) != (c.want == nil) || (got != nil && *got != *c.want) {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}
