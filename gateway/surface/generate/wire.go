package generate

import (
	"encoding/json"

	"llm-gateway/gateway/provider/chat"
)

// chatBody is the chat-completions request that is made here. Numbers are written as the client wrote them.
type chatBody struct {
	Model           string          `json:"model"`
	Messages        []message       `json:"messages"`
	Stream          bool            `json:"stream,omitempty"`
	StreamOptions   *streamOptions  `json:"stream_options,omitempty"`
	Tools           []tool          `json:"tools,omitempty"`
	ToolChoice      any             `json:"tool_choice,omitempty"`
	WebSearch       *struct{}       `json:"web_search_options,omitempty"`
	ResponseFormat  *responseFormat `json:"response_format,omitempty"`
	MaxTokens       int64           `json:"max_completion_tokens,omitempty"`
	N               int64           `json:"n,omitempty"`
	Stop            []string        `json:"stop,omitempty"`
	Temperature     json.RawMessage `json:"temperature,omitempty"`
	TopP            json.RawMessage `json:"top_p,omitempty"`
	TopK            json.RawMessage `json:"top_k,omitempty"`
	Seed            json.RawMessage `json:"seed,omitempty"`
	Presence        json.RawMessage `json:"presence_penalty,omitempty"`
	Frequency       json.RawMessage `json:"frequency_penalty,omitempty"`
	Logprobs        bool            `json:"logprobs,omitempty"`
	TopLogprobs     json.RawMessage `json:"top_logprobs,omitempty"`
	ReasoningEffort string          `json:"reasoning_effort,omitempty"`
	Modalities      []string        `json:"modalities,omitempty"`
	ServiceTier     string          `json:"service_tier,omitempty"`
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

// message is one message. Content is a string, a []part, or nil beside tool calls.
type message struct {
	Role             string               `json:"role"`
	Content          any                  `json:"content"`
	ReasoningContent string               `json:"reasoning_content,omitempty"`
	ThinkingBlocks   []chat.ThinkingBlock `json:"thinking_blocks,omitempty"`
	ToolCalls        []chat.ReplyCall     `json:"tool_calls,omitempty"`
	ToolCallID       string               `json:"tool_call_id,omitempty"`
	ExtraContent     *chat.ExtraContent   `json:"extra_content,omitempty"`
}

// part is one part of a message's content.
type part struct {
	Type       string      `json:"type"` // text, image_url, input_audio, file
	Text       *string     `json:"text,omitempty"`
	ImageURL   *imageURL   `json:"image_url,omitempty"`
	InputAudio *inputAudio `json:"input_audio,omitempty"`
	File       *file       `json:"file,omitempty"`
}

type imageURL struct {
	URL    string `json:"url"`
	Detail string `json:"detail,omitempty"`
}

type inputAudio struct {
	Data   string `json:"data"` // base64
	Format string `json:"format"`
}

type file struct {
	Name string `json:"filename"`
	Data string `json:"file_data"` // a data: URL
}

type tool struct {
	Type     string   `json:"type"` // function
	Function function `json:"function"`
}

type function struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Parameters  json.RawMessage `json:"parameters,omitempty"`
}

// named is a function that tool_choice names.
type named struct {
	Type     string    `json:"type"` // function
	Function *function `json:"function"`
}

// allowed is a tool_choice of some functions only.
type allowed struct {
	Type  string `json:"type"` // allowed_tools
	Tools struct {
		Mode  string  `json:"mode"` // auto or required
		Tools []named `json:"tools"`
	} `json:"allowed_tools"`
}

type responseFormat struct {
	Type       string      `json:"type"` // json_object or json_schema
	JSONSchema *jsonSchema `json:"json_schema,omitempty"`
}

type jsonSchema struct {
	Name   string          `json:"name"`
	Schema json.RawMessage `json:"schema"`
}

// response is Google's answer, or an event of a stream of it.
type response struct {
	Candidates    []candidate    `json:"candidates"`
	UsageMetadata *usageMetadata `json:"usageMetadata,omitempty"`
	ModelVersion  string         `json:"modelVersion,omitempty"`
	ResponseID    string         `json:"responseId,omitempty"`
}

type candidate struct {
	Content       content         `json:"content"`
	FinishReason  string          `json:"finishReason,omitempty"`
	FinishMessage string          `json:"finishMessage,omitempty"`
	Index         int64           `json:"index"`
	Grounding     *grounding      `json:"groundingMetadata,omitempty"`
	Logprobs      *logprobsResult `json:"logprobsResult,omitempty"`
}

// content never has no parts: the official clients take a turn without any for a failed one.
type content struct {
	Parts []outPart `json:"parts"`
	Role  string    `json:"role"` // model
}

// outPart is one part of an answer.
type outPart struct {
	Text         *string       `json:"text,omitempty"`
	Thought      bool          `json:"thought,omitempty"`
	InlineData   *inlineData   `json:"inlineData,omitempty"`
	FileData     *fileData     `json:"fileData,omitempty"`
	FunctionCall *functionCall `json:"functionCall,omitempty"`
	Signature    string        `json:"thoughtSignature,omitempty"`
}

type inlineData struct {
	MimeType string `json:"mimeType"`
	Data     string `json:"data"`
}

type fileData struct {
	FileURI string `json:"fileUri"`
}

type functionCall struct {
	ID   string          `json:"id,omitempty"`
	Name string          `json:"name"`
	Args json.RawMessage `json:"args"`
}

type usageMetadata struct {
	Prompt     int64 `json:"promptTokenCount"`
	Cached     int64 `json:"cachedContentTokenCount,omitempty"`
	Candidates int64 `json:"candidatesTokenCount"`
	Thoughts   int64 `json:"thoughtsTokenCount,omitempty"`
	Total      int64 `json:"totalTokenCount"`
}
