package anthropic

import "encoding/json"

// request is the body of a call, in the order in which it is sent.
type request struct {
	Model             string          `json:"model"`
	MaxTokens         int64           `json:"max_tokens"`
	System            any             `json:"system,omitempty"` // string or []block
	Messages          []message       `json:"messages"`
	Tools             []any           `json:"tools,omitempty"` // tool or json.RawMessage
	ToolChoice        *toolChoice     `json:"tool_choice,omitempty"`
	Thinking          json.RawMessage `json:"thinking,omitempty"`
	OutputConfig      *outputConfig   `json:"output_config,omitempty"`
	StopSequences     []string        `json:"stop_sequences,omitempty"`
	Temperature       json.Number     `json:"temperature,omitempty"`
	TopP              json.Number     `json:"top_p,omitempty"`
	TopK              json.Number     `json:"top_k,omitempty"`
	Metadata          *metadata       `json:"metadata,omitempty"`
	ServiceTier       string          `json:"service_tier,omitempty"`
	ContextManagement json.RawMessage `json:"context_management,omitempty"`
	Stream            bool            `json:"stream,omitempty"`
}

// message is one turn.
type message struct {
	Role    string  `json:"role"`
	Content []block `json:"content"`

	results int // of Content: the tool_result blocks, which come first
}

// block is a block of content, of any type that is sent.
type block struct {
	Type         string          `json:"type"`
	Text         string          `json:"text,omitempty"`
	Thinking     *string         `json:"thinking,omitempty"` // "" is sent: the signature may stand for it all
	Signature    string          `json:"signature,omitempty"`
	Data         string          `json:"data,omitempty"`
	Source       *source         `json:"source,omitempty"`
	Title        string          `json:"title,omitempty"`
	ID           string          `json:"id,omitempty"`
	Name         string          `json:"name,omitempty"`
	Input        json.RawMessage `json:"input,omitempty"`
	ToolUseID    string          `json:"tool_use_id,omitempty"`
	Content      []block         `json:"content,omitempty"`
	CacheControl json.RawMessage `json:"cache_control,omitempty"`
}

// source is where an image or a document comes from.
type source struct {
	Type      string `json:"type"` // base64, url, text, file
	MediaType string `json:"media_type,omitempty"`
	Data      string `json:"data,omitempty"`
	URL       string `json:"url,omitempty"`
	FileID    string `json:"file_id,omitempty"`
}

type tool struct {
	Name         string          `json:"name"`
	Description  string          `json:"description,omitempty"`
	InputSchema  json.RawMessage `json:"input_schema"`
	Strict       bool            `json:"strict,omitempty"`
	CacheControl json.RawMessage `json:"cache_control,omitempty"`
}

type toolChoice struct {
	Type   string `json:"type"` // auto, any, tool, none
	Name   string `json:"name,omitempty"`
	Single bool   `json:"disable_parallel_tool_use,omitempty"`
}

type outputConfig struct {
	Effort string        `json:"effort,omitempty"`
	Format *outputFormat `json:"format,omitempty"`
}

type outputFormat struct {
	Type   string          `json:"type"` // json_schema
	Schema json.RawMessage `json:"schema"`
}

type metadata struct {
	UserID string `json:"user_id"`
}
