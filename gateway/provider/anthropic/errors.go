package anthropic

import (
	"encoding/json"
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider/chat"
)

// errorTypes are OpenAI's words, type and code, for Anthropic's types of errors.
var errorTypes = map[string][2]string{
	"invalid_request_error": {"invalid_request_error", ""},
	"request_too_large":     {"invalid_request_error", "request_too_large"},
	"not_found_error":       {"invalid_request_error", "not_found"},
	"authentication_error":  {"authentication_error", "invalid_api_key"},
	"permission_error":      {"permission_error", "forbidden"},
	"billing_error":         {"insufficient_quota", "insufficient_quota"},
	"rate_limit_error":      {"rate_limit_error", "rate_limit_exceeded"},
	"overloaded_error":      {"server_error", "overloaded_error"},
	"timeout_error":         {"server_error", "timeout_error"},
	"api_error":             {"server_error", "api_error"},
}

// ErrorOf reads an Anthropic error body, {"type":"error","error":{"type","message"}}; nil if it is none.
// It serves for the errors of HTTP and for error events of streams.
func ErrorOf(body []byte) *chat.Failed {
	if !json.Valid(body) {
		return nil
	}
	e := gjson.ParseBytes(body)
	kind, message := e.Get("error.type").Str, e.Get("error.message")
	if e.Get("type").Str != "error" || kind == "" || message.Type != gjson.String {
		return nil
	}
	words, known := errorTypes[kind]
	if !known {
		words = [2]string{"server_error", domain.CleanText(kind, maxErrorCode)}
	}
	f := &chat.Failed{Message: message.Str, Type: words[0], Code: words[1]}
	switch {
	case kind == "invalid_request_error" && strings.HasPrefix(message.Str, "prompt is too long"):
		f.Code = "context_length_exceeded"
	case kind == "not_found_error" && strings.HasPrefix(message.Str, "model:"):
		f.Code, f.Param = "model_not_found", "model"
	}
	return f
}

// maxErrorCode bounds a word that nobody here knows, in bytes.
const maxErrorCode = 64
