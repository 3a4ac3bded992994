package chat

import (
	"encoding/json"

	"llm-gateway/domain"
)

// The objects of OpenAI's answers.
const (
	ObjectCompletion = "chat.completion"
	ObjectChunk      = "chat.completion.chunk"
)

// Finish reasons of OpenAI.
const (
	FinishStop          = "stop"
	FinishLength        = "length"
	FinishToolCalls     = "tool_calls"
	FinishContentFilter = "content_filter"
)

// Answer is a chat.completion.
type Answer struct {
	ID                string   `json:"id"`
	Object            string   `json:"object"`
	Created           int64    `json:"created"` // Unix seconds
	Model             string   `json:"model"`
	Choices           []Choice `json:"choices"`
	Usage             *Usage   `json:"usage,omitempty"`
	ServiceTier       *string  `json:"service_tier,omitempty"`
	SystemFingerprint *string  `json:"system_fingerprint,omitempty"`
}

// Choice is one of an answer's choices.
type Choice struct {
	Index        int             `json:"index"`
	Message      Reply           `json:"message"`
	Logprobs     json.RawMessage `json:"logprobs"` // nil encodes as null
	FinishReason string          `json:"finish_reason"`
}

// Reply is an assistant's message. Content is null where there is none but tool calls.
type Reply struct {
	Role             string          `json:"role"` // assistant
	Content          *string         `json:"content"`
	Refusal          *string         `json:"refusal"`
	ReasoningContent string          `json:"reasoning_content,omitempty"`
	ThinkingBlocks   []ThinkingBlock `json:"thinking_blocks,omitempty"`
	ToolCalls        []ReplyCall     `json:"tool_calls,omitempty"`
	Annotations      []Annotation    `json:"annotations,omitempty"`
	Images           []ReplyImage    `json:"images,omitempty"`
	Audio            json.RawMessage `json:"audio,omitempty"`
	ExtraContent     *ExtraContent   `json:"extra_content,omitempty"`
}

// ReplyCall is a call of a tool in an answer. In a chunk Index is set, and whatever did not come with
// this chunk is left out; in a whole answer Index is nil.
type ReplyCall struct {
	Index        *int          `json:"index,omitempty"`
	ID           string        `json:"id,omitempty"`
	Type         string        `json:"type,omitempty"` // function
	Function     ReplyFunction `json:"function"`
	ExtraContent *ExtraContent `json:"extra_content,omitempty"`
}

// ReplyFunction is what a call calls. Arguments are JSON text: "{}" where there are none.
type ReplyFunction struct {
	Name      string `json:"name,omitempty"`
	Arguments string `json:"arguments"`
}

// ThinkingBlock carries a provider's reasoning through the turns, with the signature without which it
// does not take it back. In a chunk Index is set.
type ThinkingBlock struct {
	Index     *int   `json:"index,omitempty"`
	Type      string `json:"type"` // thinking or redacted_thinking
	Thinking  string `json:"thinking,omitempty"`
	Signature string `json:"signature,omitempty"`
	Data      string `json:"data,omitempty"` // of redacted_thinking
}

// ExtraContent is where Google's own OpenAI-compatible API carries its signatures.
type ExtraContent struct {
	Google *GoogleContent `json:"google,omitempty"`
}

// GoogleContent is Google's part of ExtraContent.
type GoogleContent struct {
	ThoughtSignature string `json:"thought_signature,omitempty"`
}

// Annotation is a citation of a web page.
type Annotation struct {
	Type        string      `json:"type"` // url_citation
	URLCitation URLCitation `json:"url_citation"`
}

// URLCitation says which page is cited, and by which characters of the content.
type URLCitation struct {
	StartIndex int    `json:"start_index"`
	EndIndex   int    `json:"end_index"`
	Title      string `json:"title"`
	URL        string `json:"url"`
}

// ReplyImage is a generated image, in the form that clients of other gateways know.
type ReplyImage struct {
	Index    *int     `json:"index,omitempty"`
	Type     string   `json:"type"` // image_url
	ImageURL ImageURL `json:"image_url"`
}

// ImageURL is a link or a data: URL.
type ImageURL struct {
	URL string `json:"url"`
}

// Event is a chat.completion.chunk.
type Event struct {
	ID                string        `json:"id"`
	Object            string        `json:"object"`
	Created           int64         `json:"created"`
	Model             string        `json:"model"`
	ServiceTier       *string       `json:"service_tier,omitempty"`
	SystemFingerprint *string       `json:"system_fingerprint,omitempty"`
	Choices           []EventChoice `json:"choices"` // never nil: clients look at its length
	Usage             *Usage        `json:"usage,omitempty"`
}

// EventChoice is what a chunk says of one choice. FinishReason is null until the last.
type EventChoice struct {
	Index        int             `json:"index"`
	Delta        Delta           `json:"delta"`
	Logprobs     json.RawMessage `json:"logprobs"`
	FinishReason *string         `json:"finish_reason"`
}

// Delta is what a chunk adds.
type Delta struct {
	Role             string          `json:"role,omitempty"`
	Content          *string         `json:"content,omitempty"`
	Refusal          *string         `json:"refusal,omitempty"`
	ReasoningContent string          `json:"reasoning_content,omitempty"`
	ThinkingBlocks   []ThinkingBlock `json:"thinking_blocks,omitempty"`
	ToolCalls        []ReplyCall     `json:"tool_calls,omitempty"`
	Annotations      []Annotation    `json:"annotations,omitempty"`
	Images           []ReplyImage    `json:"images,omitempty"`
	ExtraContent     *ExtraContent   `json:"extra_content,omitempty"`
}

// Usage is OpenAI's usage: prompt_tokens includes cached and written tokens, completion_tokens
// includes reasoning.
type Usage struct {
	PromptTokens     int64            `json:"prompt_tokens"`
	CompletionTokens int64            `json:"completion_tokens"`
	TotalTokens      int64            `json:"total_tokens"`
	Prompt           PromptDetails    `json:"prompt_tokens_details"`
	Completion       CompletionDetail `json:"completion_tokens_details"`
}

// PromptDetails are parts of the prompt's tokens.
type PromptDetails struct {
	CachedTokens     int64 `json:"cached_tokens"`
	AudioTokens      int64 `json:"audio_tokens"`
	CacheWriteTokens int64 `json:"cache_write_tokens,omitempty"`
}

// CompletionDetail are parts of the completion's tokens.
type CompletionDetail struct {
	ReasoningTokens          int64 `json:"reasoning_tokens"`
	AudioTokens              int64 `json:"audio_tokens"`
	AcceptedPredictionTokens int64 `json:"accepted_prediction_tokens"`
	RejectedPredictionTokens int64 `json:"rejected_prediction_tokens"`
}

// UsageOf renders a usage as OpenAI does; nil stays nil.
func UsageOf(u *domain.Usage) *Usage {
	if u == nil {
		return nil
	}
	return &Usage{PromptTokens: u.Input, CompletionTokens: u.Output, TotalTokens: u.Input + u.Output,
		Prompt:     PromptDetails{CachedTokens: u.CachedInput, AudioTokens: u.AudioIn, CacheWriteTokens: u.CacheWrite5m + u.CacheWrite1h},
		Completion: CompletionDetail{ReasoningTokens: u.Reasoning, AudioTokens: u.AudioOut}}
}

// Encode renders the whole answer.
func (a *Answer) Encode() []byte { return Encode(a) }

// Encode renders the chunk, on one line.
func (e *Event) Encode() []byte { return Encode(e) }
