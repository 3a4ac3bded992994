package completions

import (
	"encoding/json"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// objectCompletion is the object of answers and of their chunks alike.
const objectCompletion = "text_completion"

// head is what answers and chunks say of themselves.
type head struct {
	ID                string `json:"id"`
	Object            string `json:"object"`
	Created           int64  `json:"created"` // Unix seconds
	Model             string `json:"model"`
	SystemFingerprint string `json:"system_fingerprint,omitempty"`
	ServiceTier       string `json:"service_tier,omitempty"`
}

// serve takes over who served, from a chat completion or a chunk of one.
func (h *head) serve(v gjson.Result) {
	for to, from := range map[*string]string{&h.Model: "model", &h.SystemFingerprint: "system_fingerprint", &h.ServiceTier: "service_tier"} {
		if told := v.Get(from).Str; told != "" {
			*to = told
		}
	}
}

// answer is a completion, or a chunk of one.
type answer struct {
	head

	Choices []choice        `json:"choices"` // never nil: clients look at its length
	Usage   json.RawMessage `json:"usage,omitempty"`
}

type choice struct {
	Text         string          `json:"text"`
	Index        int64           `json:"index"`
	Logprobs     json.RawMessage `json:"logprobs"` // always null: they are refused
	FinishReason *string         `json:"finish_reason"`
}

// choiceOf makes a completion's choice of a chat completion's; of is where the latter has its text. A refusal
// is what the model said, and there is no other place for it. Thoughts have none.
func choiceOf(c gjson.Result, of string) choice {
	said := c.Get(of)
	out := choice{Index: max(0, c.Get("index").Int()), Text: contentOf(said.Get("content")) + said.Get("refusal").Str}
	if reason := c.Get("finish_reason"); reason.Type == gjson.String {
		out.FinishReason = &reason.Str
		if reason.Str == chat.FinishToolCalls { // a word that this API does not have
			out.FinishReason = new(chat.FinishStop)
		}
	}
	return out
}

// contentOf is a content's text: some servers give it in parts.
func contentOf(v gjson.Result) string {
	text := []byte(v.Str)
	v.ForEach(func(_, part gjson.Result) bool {
		text = append(text, part.Get("text").Str...)
		return v.IsArray()
	})
	return string(text)
}

// chatRequest is how a chat completion begins.
type chatRequest struct {
	Model               string        `json:"model"`
	Messages            []chatMessage `json:"messages"`
	MaxCompletionTokens int64         `json:"max_completion_tokens"`
}

type chatMessage struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}
