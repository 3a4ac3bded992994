package gateway

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// Bounds of what a client may ask for.
const (
	maxChoices    = 128       // n: OpenAI's own limit
	maxAskedToken = 1_000_000 // max_tokens: above any model's output
)

// Upper bounds of the tokens that a provider's template adds to the text of a body. OpenAI's is 3 a
// message and 3 in all, and every message's own JSON (`{"role":"user","content":""}`) is longer in
// bytes than that in tokens; a tool's JSON likewise covers its rendering. These are on top.
const (
	templateTokens = 64
	toolTokens     = 32 // per tool or response schema
	outputSlack    = 16 // per choice: some models bill a few closing tokens beyond the maximum
)

// chatRequest reads a chat-completions body into the facts that the meter needs.
type chatRequest struct {
	chat.Facts
	hasMessages bool
}

// parseChat reads a checked body. Whatever could cost money is read strictly; whatever nobody here
// knows is left to the provider, and the input is then bounded by the model's context window.
func parseChat(body []byte) (*chat.Facts, *Error) {
	r := &chatRequest{Facts: chat.Facts{Choices: 1, Rounds: 1, InputBytes: int64(len(body))}}
	var failed *Error
	gjson.ParseBytes(body).ForEach(func(key, value gjson.Result) bool {
		failed = r.field(key.String(), value)
		return failed == nil
	})
	if failed == nil && r.Model == "" {
		failed = invalid("missing_model", "model", "You must name a model.")
	}
	if failed == nil && !r.hasMessages {
		failed = invalid("missing_messages", "messages", "You must send messages: an array of at least one.")
	}
	return &r.Facts, failed
}

// plainFields can neither cost more than their bytes nor bring input that the body does not show.
var plainFields = map[string]bool{
	"temperature": true, "top_p": true, "stop": true, "presence_penalty": true, "frequency_penalty": true,
	"logit_bias": true, "logprobs": true, "top_logprobs": true, "seed": true, "tool_choice": true,
	"parallel_tool_calls": true, "function_call": true, "metadata": true, "store": true,
	"reasoning_effort": true, "verbosity": true, "prompt_cache_key": true, "safety_identifier": true,
	"prompt_cache_retention": true, "thinking": true, "top_k": true,
}

// field reads one field of the body.
func (r *chatRequest) field(key string, v gjson.Result) *Error {
	switch key {
	case "model":
		return readText(v, key, &r.Model)
	case "messages":
		return r.messages(v)
	case "stream":
		return readBool(v, key, &r.Stream)
	case "stream_options":
		return r.streamOptions(v)
	case "n":
		return readCount(v, key, maxChoices, &r.Choices)
	case "max_tokens", "max_completion_tokens":
		var asked int64
		err := readCount(v, key, maxAskedToken, &asked)
		r.MaxOutput = max(r.MaxOutput, asked)
		return err
	case "tools", "functions":
		return r.tools(v, key)
	case "response_format":
		r.InputBytes += toolTokens
	case "modalities":
		return r.modalities(v)
	case "audio":
		r.AudioOut = r.AudioOut || v.Type != gjson.Null
	case "prediction":
		r.PredictionLen = int64(len(v.Raw))
	case "web_search_options":
		searches := v.Type != gjson.Null
		r.WebSearch, r.Opaque = searches, r.Opaque || searches
	case "service_tier":
		return readText(v, key, &r.ServiceTier)
	case "user":
		return readText(v, key, &r.EndUser)
	default:
		return r.other(key, v)
	}
	return nil
}

// meteredFields must be spelt exactly: a provider that ignores case would obey what was not priced.
var meteredFields = []string{"model", "messages", "stream", "n", "max_tokens", "max_completion_tokens",
	"modalities", "audio", "prediction", "service_tier", "tools", "functions", "stream_options", "web_search_options"}

func (r *chatRequest) other(key string, v gjson.Result) *Error {
	for _, name := range meteredFields {
		if strings.EqualFold(name, key) {
			return invalid("unsupported_parameter", key, fmt.Sprintf("Unknown field %q: did you mean %q?", cut(key), name))
		}
	}
	if v.Type == gjson.Null {
		return nil
	}
	if why := chat.Steers(key); why != "" {
		return invalid("unsupported_parameter", key, why)
	}
	if chat.LimitsElsewhere(key) {
		return invalid("unsupported_parameter", key, "Chat completions are limited by `max_tokens` or `max_completion_tokens`.")
	}
	r.Opaque = r.Opaque || !plainFields[key]
	return nil
}

func readText(v gjson.Result, param string, into *string) *Error {
	switch v.Type {
	case gjson.Null:
	case gjson.String:
		*into = v.String()
	default:
		return invalid("invalid_type", param, "`"+param+"` must be a string.")
	}
	return nil
}

func readBool(v gjson.Result, param string, into *bool) *Error {
	if !v.IsBool() && v.Type != gjson.Null {
		return invalid("invalid_type", param, "`"+param+"` must be true or false.")
	}
	*into = v.Bool()
	return nil
}

// readCount takes whole numbers from 1 to most, written as such: negative and huge ones turned other
// gateways' charges into credits.
func readCount(v gjson.Result, param string, most int64, into *int64) *Error {
	if v.Type == gjson.Null {
		return nil
	}
	if v.Type != gjson.Number {
		return invalid("invalid_type", param, "`"+param+"` must be a whole number.")
	}
	n, err := strconv.ParseInt(v.Raw, 10, 64)
	if err != nil || n < 1 || n > most {
		return invalid("invalid_value", param, fmt.Sprintf("`%s` must be a whole number from 1 to %d.", param, most))
	}
	*into = n
	return nil
}

func (r *chatRequest) streamOptions(v gjson.Result) *Error {
	if v.Type == gjson.Null {
		return nil
	}
	if !v.IsObject() {
		return invalid("invalid_type", "stream_options", "`stream_options` must be an object.")
	}
	return readBool(v.Get("include_usage"), "stream_options.include_usage", &r.IncludeUsage)
}

func (r *chatRequest) tools(v gjson.Result, param string) *Error {
	if v.Type == gjson.Null {
		return nil
	}
	if !v.IsArray() {
		return invalid("invalid_type", param, "`"+param+"` must be an array.")
	}
	i := 0
	v.ForEach(func(_, tool gjson.Result) bool {
		r.InputBytes += toolTokens
		i++
		if kind := tool.Get("type").String(); param == "tools" && kind != "function" && kind != "custom" {
			r.Opaque = true // a tool that the provider runs reads what we do not see
			for _, of := range storesOfTools {
				r.ReferIf(fmt.Sprintf("%s[%d].%s", param, i-1, of), tool.Get(of))
			}
		}
		return true
	})
	return nil
}

// storesOfTools are where tools that a provider runs name what it keeps.
var storesOfTools = []string{"vector_store_ids", "collection_ids", "file_ids", "container"}

// modalities reads what kinds of output are asked for: each has a price of its own, so one that
// nobody here knows is refused.
func (r *chatRequest) modalities(v gjson.Result) *Error {
	if v.Type == gjson.Null {
		return nil
	}
	wrong := invalid("invalid_type", "modalities", "`modalities` must be an array of strings.")
	if !v.IsArray() {
		return wrong
	}
	var failed *Error
	v.ForEach(func(_, kind gjson.Result) bool {
		switch {
		case kind.Type != gjson.String:
			failed = wrong
		case kind.Str == "text":
		case kind.Str == "audio":
			r.AudioOut = true
		case kind.Str == "image":
			r.ImageOut = true
		default:
			failed = invalid("invalid_value", "modalities", fmt.Sprintf("Unknown modality %q.", cut(kind.Str)))
		}
		return failed == nil
	})
	return failed
}

// messages checks the conversation and looks for what its bytes do not bound.
func (r *chatRequest) messages(v gjson.Result) *Error {
	if !v.IsArray() || !v.Get("0").Exists() {
		return invalid("invalid_value", "messages", "`messages` must be an array of at least one message.")
	}
	r.hasMessages = true
	var failed *Error
	i := 0
	v.ForEach(func(_, message gjson.Result) bool {
		failed = r.message(i, message)
		i++
		return failed == nil
	})
	return failed
}

func (r *chatRequest) message(i int, m gjson.Result) *Error {
	param := fmt.Sprintf("messages[%d]", i)
	if !m.IsObject() {
		return invalid("invalid_type", param, "`"+param+"` must be an object.")
	}
	var role string
	var failed *Error
	m.ForEach(func(key, v gjson.Result) bool {
		switch key.String() {
		case "role":
			failed = readText(v, param+".role", &role)
		case "content":
			failed = r.content(param+".content", v)
		case "audio":
			if v.Type != gjson.Null {
				r.Opaque = true
				r.Refer(param+".audio", "")
			}
		case "name", "tool_calls", "tool_call_id", "function_call", "refusal", "reasoning", "reasoning_content", "annotations",
			"thinking_blocks", "extra_content", "cache_control":
		default: // whatever else we cannot see
			r.Opaque = r.Opaque || v.Type != gjson.Null
		}
		return failed == nil
	})
	if failed == nil && role == "" {
		failed = invalid("invalid_value", param+".role", "Every message needs a role.")
	}
	return failed
}

func (r *chatRequest) content(param string, v gjson.Result) *Error {
	switch {
	case v.Type == gjson.String || v.Type == gjson.Null:
		return nil
	case !v.IsArray():
		return invalid("invalid_type", param, "`"+param+"` must be a string or an array of parts.")
	}
	i := 0
	v.ForEach(func(_, part gjson.Result) bool {
		r.part(part)
		if file := part.Get("file.file_id"); file.Type != gjson.Null {
			r.Refer(fmt.Sprintf("%s[%d].file.file_id", param, i), "")
		}
		i++
		return true
	})
	return nil
}

// part looks at one part of a message. One that says it is text and has more than text may be
// something else to its reader; so may an image.
func (r *chatRequest) part(part gjson.Result) {
	kind, others := "", map[string]bool{}
	part.ForEach(func(key, v gjson.Result) bool {
		switch name := key.String(); name {
		case "type":
			kind = v.String()
			r.AudioIn = r.AudioIn || kind == "input_audio"
		case "cache_control":
		default:
			if v.Type != gjson.Null {
				others[name] = true
			}
		}
		return true
	})
	switch {
	case (kind == "text" || kind == "refusal") && len(others) == 1 && others[kind]:
	case kind == "image_url" && len(others) == 1 && others[kind]:
		r.Images++
		r.ImageBytes += int64(len(part.Raw))
	default:
		r.Opaque = true
	}
}
