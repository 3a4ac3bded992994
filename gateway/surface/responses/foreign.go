package responses

import (
	"encoding/json"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// Foreign reads a request for the providers that do not speak this API: one JSON object without duplicate
// keys. id is a random id, of letters and digits, to make the ids of the answer and of its items from;
// created is in Unix seconds. It fails with *chat.Unsupported on what cannot be carried.
func Foreign(body []byte, id string, created int64) (chat.Foreign, error) {
	t := &translation{out: chatBody{Messages: []message{}}, sent: sent{id: id, created: created}}
	gjson.ParseBytes(body).ForEach(func(key, v gjson.Result) bool {
		if v.Type != gjson.Null {
			t.field(key.String(), v)
		}
		return t.Err == nil
	})
	t.finish()
	if t.Err != nil {
		return nil, t.Err
	}
	return &foreign{chat: chat.Encode(&t.out), sent: t.sent}, nil
}

// foreign is one request, translated.
type foreign struct {
	chat []byte
	sent sent
}

func (f *foreign) Chat() []byte { return f.chat }

func (f *foreign) Writer() chat.Writer { return newWriter(&f.sent) }

// chatBody is the chat completion that is asked for.
type chatBody struct {
	Model               string          `json:"model"`
	Messages            []message       `json:"messages"`
	Stream              bool            `json:"stream,omitempty"`
	StreamOptions       *streamOptions  `json:"stream_options,omitempty"`
	MaxCompletionTokens json.RawMessage `json:"max_completion_tokens,omitempty"`
	Temperature         json.RawMessage `json:"temperature,omitempty"`
	TopP                json.RawMessage `json:"top_p,omitempty"`
	Logprobs            bool            `json:"logprobs,omitempty"`
	TopLogprobs         json.RawMessage `json:"top_logprobs,omitempty"`
	Tools               []chatTool      `json:"tools,omitempty"`
	ToolChoice          any             `json:"tool_choice,omitempty"`
	ParallelToolCalls   json.RawMessage `json:"parallel_tool_calls,omitempty"`
	ResponseFormat      any             `json:"response_format,omitempty"`
	ReasoningEffort     string          `json:"reasoning_effort,omitempty"`
	Verbosity           string          `json:"verbosity,omitempty"`
	WebSearchOptions    *searchOptions  `json:"web_search_options,omitempty"`
	User                string          `json:"user,omitempty"`
	ServiceTier         string          `json:"service_tier,omitempty"`
	Metadata            json.RawMessage `json:"metadata,omitempty"`
	PromptCacheKey      string          `json:"prompt_cache_key,omitempty"`
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

// sent is what of the request the answer repeats. Raw values that were not sent are nil, which is null.
type sent struct {
	id      string
	created int64

	instructions, maxOutput, maxToolCalls, metadata, parallel json.RawMessage
	temperature, topP, topLogprobs, toolChoice                json.RawMessage
	cacheKey, safetyIdentifier, serviceTier, user             json.RawMessage
	reasoning                                                 reasoningConfig
	text                                                      textConfig
	tools                                                     []json.RawMessage
}

// reasoningConfig and textConfig are as the response repeats them.
type reasoningConfig struct {
	Effort  json.RawMessage `json:"effort"`
	Summary json.RawMessage `json:"summary"`
}

type textConfig struct {
	Format    json.RawMessage `json:"format"`
	Verbosity json.RawMessage `json:"verbosity"`
}

// translation is one request on its way; its first error stays.
type translation struct {
	chat.Strict
	out   chatBody
	sent  sent
	turns conversation
	user  string // `user`; where there is none, safety_identifier
}

// field reads one parameter that is not null.
func (t *translation) field(name string, v gjson.Result) {
	out, sent, raw := &t.out, &t.sent, json.RawMessage(v.Raw)
	switch name {
	case "model":
		out.Model = t.TextOrNull(name, v)
	case "stream":
		out.Stream = t.Bool(name, v)
	case "max_output_tokens":
		out.MaxCompletionTokens, sent.maxOutput = t.number(name, v), raw
	case "temperature":
		out.Temperature, sent.temperature = t.number(name, v), raw
	case "top_p":
		out.TopP, sent.topP = t.number(name, v), raw
	case "top_logprobs":
		t.topLogprobs(v)
	case "instructions":
		sent.instructions = raw
		t.turns.instruct(t.TextOrNull(name, v))
	case "input":
		t.turns.input = v
	case "tools":
		t.tools(name, v)
	case "tool_choice":
		sent.toolChoice = raw
		t.toolChoice(v)
	case "parallel_tool_calls":
		t.Bool(name, v)
		out.ParallelToolCalls, sent.parallel = raw, raw
	case "text":
		t.format(v)
	case "reasoning":
		t.reasoning(v)
	default:
		t.rest(name, v)
	}
}

// rest reads what is about the caller, and what changes no answer.
func (t *translation) rest(name string, v gjson.Result) {
	raw := json.RawMessage(v.Raw)
	switch name {
	case "user":
		t.user, t.sent.user = t.TextOrNull(name, v), raw
	case "safety_identifier":
		t.out.User, t.sent.safetyIdentifier = t.TextOrNull(name, v), raw
	case "service_tier":
		t.out.ServiceTier, t.sent.serviceTier = t.TextOrNull(name, v), raw
	case "metadata":
		t.Object(name, v)
		t.out.Metadata, t.sent.metadata = raw, raw
	case "prompt_cache_key":
		t.out.PromptCacheKey, t.sent.cacheKey = t.TextOrNull(name, v), raw
	case "max_tool_calls":
		t.sent.maxToolCalls = t.number(name, v)
	case "include":
		t.include(name, v)
	case "store", "prompt_cache_retention", "prompt_cache_options", "stream_options", "truncation":
	case "background":
		if t.Bool(name, v) {
			t.Refusef(name, "`background` cannot be had: nothing is stored for this model's provider.")
		}
	case "previous_response_id", "conversation", "prompt":
		t.Refusef(name, "`%s` is known to OpenAI alone, and this model is another provider's: send all of the conversation in `input`.", name)
	case "context_management":
		if v.Raw != "[]" {
			t.Refusef(name, "`%s` is OpenAI's alone, and this model is another provider's.", name)
		}
	default:
		t.Refusef(short(name), "`%s` is not carried to this model's provider.", short(name))
	}
}

// finish is what can be said when all parameters are known.
func (t *translation) finish() {
	if t.user != "" {
		t.out.User = t.user
	}
	if t.out.Stream {
		t.out.StreamOptions = &streamOptions{IncludeUsage: true}
	}
	if t.out.WebSearchOptions != nil && t.sent.maxToolCalls != nil {
		t.Refusef("max_tool_calls", "`max_tool_calls` cannot be carried beside a web search: this model's provider has a bound of its own.")
	}
	if len(t.sent.tools) == 0 { // some providers refuse even what is neutral then
		t.out.ParallelToolCalls = nil
		if t.out.ToolChoice == "auto" || t.out.ToolChoice == "none" {
			t.out.ToolChoice = nil
		}
	}
	if t.Err == nil {
		t.out.Messages, t.Err = t.turns.messages()
	}
}

// topLogprobs asks for the odds of tokens; 0 is the neutral value.
func (t *translation) topLogprobs(v gjson.Result) {
	t.sent.topLogprobs = t.number("top_logprobs", v)
	if v.Num != 0 {
		t.out.Logprobs, t.out.TopLogprobs = true, t.sent.topLogprobs
	}
}

// include reads what the answer should have more of. Reasoning comes with what it needs to be sent back
// anyway; what is about tools that other providers do not have is nothing to include.
func (t *translation) include(param string, v gjson.Result) {
	t.Each(param, v, func(param string, what gjson.Result) {
		switch what.Str {
		case "message.output_text.logprobs":
			t.out.Logprobs = true
		case "reasoning.encrypted_content", "web_search_call.action.sources", "web_search_call.results", "file_search_call.results",
			"message.input_image.image_url", "computer_call_output.output.image_url", "code_interpreter_call.outputs":
		default:
			t.Refusef(param, "`%s` is not known here.", param)
		}
	})
}

// reasoning reads how hard to think. Summaries come wherever the provider shows its reasoning.
func (t *translation) reasoning(v gjson.Result) {
	t.Object("reasoning", v)
	v.ForEach(func(key, of gjson.Result) bool {
		name := "reasoning." + short(key.Str)
		switch {
		case of.Type == gjson.Null:
		case key.Str == "effort":
			t.out.ReasoningEffort, t.sent.reasoning.Effort = t.TextOrNull(name, of), json.RawMessage(of.Raw)
		case key.Str == "summary":
			t.sent.reasoning.Summary = json.RawMessage(of.Raw)
		case key.Str == "generate_summary", key.Str == "mode" && of.Str == "standard",
			key.Str == "context" && (of.Str == "auto" || of.Str == "current_turn"):
		default:
			t.Refusef(name, "`%s` is not carried to this model's provider.", name)
		}
		return t.Err == nil
	})
}

// number is a number as it was written.
func (t *translation) number(param string, v gjson.Result) json.RawMessage {
	return json.RawMessage(t.Number(param, v))
}
