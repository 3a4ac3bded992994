package chat

import (
	"encoding/json"

	"github.com/tidwall/gjson"
)

// Roles of messages.
const (
	RoleSystem    = "system"
	RoleDeveloper = "developer"
	RoleUser      = "user"
	RoleAssistant = "assistant"
	RoleTool      = "tool"
	RoleFunction  = "function" // of the older API
)

// Request is a chat-completions request. Numbers are kept as they were written.
type Request struct {
	Messages          []Message
	Stream            bool
	Tools             []Tool // functions of the older API too
	ToolChoice        ToolChoice
	ParallelToolCalls *bool
	Format            Format
	MaxOutput         int64 // max_completion_tokens or max_tokens, the greater; 0 = none named
	Choices           int64 // n; 1 where none was named
	Stop              []string
	Temperature       json.Number // "" = none named; the same for the others
	TopP              json.Number
	TopK              json.Number // no parameter of OpenAI's, but of the others
	FrequencyPenalty  json.Number
	PresencePenalty   json.Number
	Seed              json.Number
	Logprobs          bool
	TopLogprobs       json.Number
	ReasoningEffort   string // "" = none named
	ServiceTier       string
	User              string            // user, or safety_identifier
	WebSearch         gjson.Result      // web_search_options; Exists() tells whether it was asked for
	Modalities        []string          // nil = none named: text
	Thinking          gjson.Result      // `thinking` of Anthropic's own API, which many clients send here
	Extra             map[string]string // Google's own parameters: extra_body.google, as raw JSON by name
	// Unknown are the parameters that this package does not know, in the request's order; those whose
	// value is null are left out.
	Unknown []Field
}

// Field is a parameter with its raw JSON.
type Field struct{ Name, Raw string }

// Message is one message of a conversation.
type Message struct {
	Param      string // its place in the request: messages[3]
	Role       string
	Name       string
	Parts      []Part // a string is one text part; null and "" are none
	ToolCallID string // of a tool message
	ToolCalls  []ToolCall
	Refusal    string
	// ReasoningContent and Thinking are an assistant's own reasoning, sent back. Thinking has the
	// signatures; where there is any, ReasoningContent is the same text again.
	ReasoningContent string
	Thinking         []ThinkingBlock
	ThoughtSignature string       // extra_content.google.thought_signature
	CacheControl     gjson.Result // cache_control of the whole message
}

// Part is one part of a message's content.
type Part struct {
	Param        string       // its place: messages[3].content[0]
	Type         string       // text, refusal, image_url, input_audio, file, or one that nobody here knows
	Text         string       // of text and refusal
	URL          string       // of image_url: https: or data:
	Detail       string       // of image_url: auto, low, high
	Data         string       // base64, of input_audio and of file (without the data: prefix)
	MediaType    string       // of file, from its data: URL; of input_audio audio/<format>
	FileName     string       // of file
	FileID       string       // of file
	CacheControl gjson.Result // Anthropic's cache mark
	Raw          gjson.Result // the whole part
}

// ToolCall is a call that an assistant made. Arguments are JSON text, "{}" where there were none.
type ToolCall struct {
	Param            string
	ID               string // "" only for function_call of the older API
	Name             string
	Arguments        string
	Custom           bool   // a call of a custom tool: Arguments is plain text
	ThoughtSignature string // extra_content.google.thought_signature
}

// Tool is a tool that may be called, or one that the provider runs itself.
type Tool struct {
	Param        string
	Type         string // function, custom, or one of a provider's own
	Name         string
	Description  string
	Parameters   gjson.Result // a JSON Schema; Exists() is false where there was none
	Strict       bool
	CacheControl gjson.Result
	Raw          gjson.Result // the whole tool
}

// ToolChoice says which tools may, or must, be called.
type ToolChoice struct {
	Mode    string   // "" (none named), auto, none, required, function
	Name    string   // of function
	Allowed []string // of allowed_tools, with mode auto or required; nil = all
}

// Format is what form the answer must have.
type Format struct {
	Type   string       // "" or text, json_object, json_schema
	Name   string       // of json_schema
	Schema gjson.Result // of json_schema
	Strict bool
}

// System says whether the message is for the model, from whoever wrote the application.
func (m *Message) System() bool { return m.Role == RoleSystem || m.Role == RoleDeveloper }

// Text is the message's text, its parts joined; of other parts it has nothing.
func (m *Message) Text() string {
	if len(m.Parts) == 1 {
		return m.Parts[0].Text
	}
	var text []byte
	for i := range m.Parts {
		text = append(text, m.Parts[i].Text...)
	}
	return string(text)
}
