package responses

import (
	"encoding/json"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// The statuses of responses and of their items.
const (
	statusRunning    = "in_progress"
	statusCompleted  = "completed"
	statusIncomplete = "incomplete"
)

// response is the response object. Nothing is stored where it is made from a chat completion, and nothing is
// truncated, whatever was asked for. nil is null.
type response struct {
	ID                 string            `json:"id"`
	Object             string            `json:"object"`
	CreatedAt          int64             `json:"created_at"`
	Status             string            `json:"status"`
	Background         bool              `json:"background"`
	Error              *struct{}         `json:"error"`
	IncompleteDetails  *incompleteWhy    `json:"incomplete_details"`
	Instructions       json.RawMessage   `json:"instructions"`
	MaxOutputTokens    json.RawMessage   `json:"max_output_tokens"`
	MaxToolCalls       json.RawMessage   `json:"max_tool_calls"`
	Model              string            `json:"model"`
	Output             []any             `json:"output"`
	ParallelToolCalls  json.RawMessage   `json:"parallel_tool_calls"`
	PreviousResponseID *string           `json:"previous_response_id"`
	PromptCacheKey     json.RawMessage   `json:"prompt_cache_key"`
	Reasoning          reasoningConfig   `json:"reasoning"`
	SafetyIdentifier   json.RawMessage   `json:"safety_identifier"`
	ServiceTier        *string           `json:"service_tier"`
	Store              bool              `json:"store"`
	Temperature        json.RawMessage   `json:"temperature"`
	Text               textConfig        `json:"text"`
	ToolChoice         json.RawMessage   `json:"tool_choice"`
	Tools              []json.RawMessage `json:"tools"`
	TopLogprobs        json.RawMessage   `json:"top_logprobs"`
	TopP               json.RawMessage   `json:"top_p"`
	Truncation         string            `json:"truncation"`
	Usage              *usage            `json:"usage"`
	User               json.RawMessage   `json:"user"`
	Metadata           json.RawMessage   `json:"metadata"`
}

type incompleteWhy struct {
	Reason string `json:"reason"`
}

// usage is the API's: input_tokens includes cached tokens, output_tokens includes reasoning.
type usage struct {
	InputTokens  int64         `json:"input_tokens"`
	Input        inputDetails  `json:"input_tokens_details"`
	OutputTokens int64         `json:"output_tokens"`
	Output       outputDetails `json:"output_tokens_details"`
	TotalTokens  int64         `json:"total_tokens"`
}

type inputDetails struct {
	CachedTokens     int64 `json:"cached_tokens"`
	CacheWriteTokens int64 `json:"cache_write_tokens"`
}

type outputDetails struct {
	ReasoningTokens int64 `json:"reasoning_tokens"`
}

// usageFrom is a chat completion's usage as this API has it; nil where there is none.
func usageFrom(v gjson.Result) *usage {
	if !v.IsObject() {
		return nil
	}
	u := &usage{InputTokens: v.Get("prompt_tokens").Int(), OutputTokens: v.Get("completion_tokens").Int(), TotalTokens: v.Get("total_tokens").Int()}
	u.Input.CachedTokens = v.Get("prompt_tokens_details.cached_tokens").Int()
	u.Input.CacheWriteTokens = v.Get("prompt_tokens_details.cache_write_tokens").Int()
	u.Output.ReasoningTokens = v.Get("completion_tokens_details.reasoning_tokens").Int()
	if u.TotalTokens == 0 {
		u.TotalTokens = u.InputTokens + u.OutputTokens
	}
	return u
}

// response is the object with what the request said, and nothing of the answer yet.
func (s *sent) response() *response {
	r := &response{ID: "resp_" + s.id, Object: "response", CreatedAt: s.created, Status: statusRunning,
		Instructions: s.instructions, MaxOutputTokens: s.maxOutput, MaxToolCalls: s.maxToolCalls, Output: []any{},
		ParallelToolCalls: orElse(s.parallel, "true"), PromptCacheKey: s.cacheKey, Reasoning: s.reasoning,
		SafetyIdentifier: s.safetyIdentifier, Temperature: s.temperature, Text: s.text, ToolChoice: orElse(s.toolChoice, `"auto"`),
		Tools: s.tools, TopLogprobs: orElse(s.topLogprobs, "0"), TopP: s.topP, Truncation: "disabled", User: s.user,
		Metadata: orElse(s.metadata, "{}")}
	r.Text.Format, r.Text.Verbosity = orElse(r.Text.Format, `{"type":"text"}`), orElse(r.Text.Verbosity, `"medium"`)
	if r.Tools == nil {
		r.Tools = []json.RawMessage{}
	}
	return r
}

func orElse(v json.RawMessage, otherwise string) json.RawMessage {
	if v == nil {
		return json.RawMessage(otherwise)
	}
	return v
}

// end is the status with which an answer ends, by the finish reason of chat completions.
func end(finish string) (status string, why *incompleteWhy) {
	switch finish {
	case chat.FinishLength:
		return statusIncomplete, &incompleteWhy{"max_output_tokens"}
	case chat.FinishContentFilter:
		return statusIncomplete, &incompleteWhy{"content_filter"}
	}
	return statusCompleted, nil
}

// tierFrom is the tier that served, if the answer tells.
func tierFrom(v gjson.Result) *string {
	if v.Str == "" {
		return nil
	}
	return &v.Str
}
