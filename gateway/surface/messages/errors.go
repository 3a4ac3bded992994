package messages

import (
	"net/http"
	"strings"

	"llm-gateway/gateway/provider/chat"
)

// errorTypes are Anthropic's types by status; for others see typeOf.
var errorTypes = map[int]string{
	http.StatusUnauthorized:          "authentication_error",
	http.StatusPaymentRequired:       "billing_error",
	http.StatusForbidden:             "permission_error",
	http.StatusNotFound:              "not_found_error",
	http.StatusRequestEntityTooLarge: "request_too_large",
	http.StatusTooManyRequests:       "rate_limit_error",
	http.StatusServiceUnavailable:    "overloaded_error",
	http.StatusGatewayTimeout:        "timeout_error",
	statusOverloaded:                 "overloaded_error",
}

// statusOverloaded is Anthropic's own.
const statusOverloaded = 529

// tooLong is how Anthropic begins to say that an input does not fit. Clients look for these words: Claude
// Code then shortens the conversation and goes on.
const tooLong = "prompt is too long"

// threadUnsupported is Anthropic's word for a conversation that its server shall hold, and cannot. Its SDKs'
// tool runners ask for one by themselves; at this word they go on without, and send the whole conversation.
const threadUnsupported = "thread_unsupported_request"

// Error renders an error in Anthropic's shape. kind and code are OpenAI's type and code. A status below 400
// stands for an error in the middle of a stream: then they tell the type.
func Error(status int, kind, code, message, param string) []byte {
	if param != "" && !strings.Contains(message, param) {
		message = param + ": " + message
	}
	if code == "context_length_exceeded" && !strings.HasPrefix(message, tooLong) {
		message = tooLong + ": " + message
	}
	if code == "unsupported_parameter" && param == "thread" {
		code = threadUnsupported
	}
	out := errorBody{Type: "error", Error: errorObject{Type: typeOf(status, kind, code), Message: message}}
	if code != "" {
		out.Error.Details = &errorDetails{Code: code}
	}
	return chat.Encode(out)
}

type errorBody struct {
	Type      string      `json:"type"`
	Error     errorObject `json:"error"`
	RequestID *string     `json:"request_id"` // the header request-id has it
}

type errorObject struct {
	Type    string        `json:"type"`
	Message string        `json:"message"`
	Details *errorDetails `json:"details,omitempty"`
}

// errorDetails is where Anthropic's SDKs look for a code that names the cause.
type errorDetails struct {
	Code string `json:"error_code"`
}

func typeOf(status int, kind, code string) string {
	known, ok := errorTypes[status]
	switch {
	case ok:
		return known
	case status >= http.StatusInternalServerError:
		return "api_error"
	case status >= http.StatusBadRequest:
		return "invalid_request_error"
	case code == "overloaded_error" || kind == "service_unavailable":
		return "overloaded_error"
	case code == "timeout_error" || code == "upstream_timeout":
		return "timeout_error"
	case kind == "insufficient_quota":
		return "billing_error"
	case kind == "invalid_request_error" || kind == "authentication_error" || kind == "permission_error" || kind == "rate_limit_error":
		return kind
	}
	return "api_error"
}
