package messages

import (
	"encoding/json"
	"strconv"

	"llm-gateway/gateway/provider/chat"
)

// request is the chat completion, in the order in which it is sent.
type request struct {
	Model             string            `json:"model"`
	Messages          []message         `json:"messages"`
	MaxTokens         json.Number       `json:"max_completion_tokens,omitempty"`
	Tools             []tool            `json:"tools,omitempty"`
	ToolChoice        any               `json:"tool_choice,omitempty"` // a word or a toolChoice
	ParallelToolCalls *bool             `json:"parallel_tool_calls,omitempty"`
	WebSearch         *webSearchOptions `json:"web_search_options,omitempty"`
	ResponseFormat    *responseFormat   `json:"response_format,omitempty"`
	ReasoningEffort   string            `json:"reasoning_effort,omitempty"`
	Stop              []string          `json:"stop,omitempty"`
	Temperature       json.Number       `json:"temperature,omitempty"`
	TopP              json.Number       `json:"top_p,omitempty"`
	TopK              json.Number       `json:"top_k,omitempty"`
	ServiceTier       string            `json:"service_tier,omitempty"`
	User              string            `json:"user,omitempty"`
	Stream            bool              `json:"stream,omitempty"`
	StreamOptions     *streamOptions    `json:"stream_options,omitempty"`
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

// message is one message. Content is a string, []part, or nil where there is none but calls.
type message struct {
	Role             string               `json:"role"`
	Content          any                  `json:"content"`
	ToolCallID       string               `json:"tool_call_id,omitempty"`
	ReasoningContent string               `json:"reasoning_content,omitempty"`
	ThinkingBlocks   []chat.ThinkingBlock `json:"thinking_blocks,omitempty"`
	ToolCalls        []chat.ReplyCall     `json:"tool_calls,omitempty"`
	ExtraContent     *chat.ExtraContent   `json:"extra_content,omitempty"`
	CacheControl     json.RawMessage      `json:"cache_control,omitempty"`
}

type part struct {
	Type         string          `json:"type"`
	Text         *string         `json:"text,omitempty"`
	ImageURL     *chat.ImageURL  `json:"image_url,omitempty"`
	File         *file           `json:"file,omitempty"`
	CacheControl json.RawMessage `json:"cache_control,omitempty"`
}

type file struct {
	Name string `json:"filename"`
	Data string `json:"file_data"` // a data: URL
}

type tool struct {
	Type         string          `json:"type"` // function
	Function     function        `json:"function"`
	CacheControl json.RawMessage `json:"cache_control,omitempty"`
}

type function struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Parameters  json.RawMessage `json:"parameters,omitempty"`
	Strict      bool            `json:"strict,omitempty"`
}

type toolChoice struct {
	Type     string     `json:"type"` // function
	Function namedThing `json:"function"`
}

type namedThing struct {
	Name string `json:"name"`
}

type webSearchOptions struct {
	Location *userLocation `json:"user_location,omitempty"`
}

type userLocation struct {
	Type        string      `json:"type"` // approximate
	Approximate approximate `json:"approximate"`
}

type approximate struct {
	City     string `json:"city,omitempty"`
	Region   string `json:"region,omitempty"`
	Country  string `json:"country,omitempty"`
	Timezone string `json:"timezone,omitempty"`
}

type responseFormat struct {
	Type       string     `json:"type"`
	JSONSchema jsonSchema `json:"json_schema"`
}

type jsonSchema struct {
	Name   string          `json:"name"`
	Strict bool            `json:"strict"`
	Schema json.RawMessage `json:"schema"`
}

func itoa(n int) string { return strconv.Itoa(n) }
