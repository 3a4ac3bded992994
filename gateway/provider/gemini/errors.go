package gemini

import (
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// ErrorOf reads Google's error body, {"error": {"code", "message", "status", "details"}}, also as the
// only element of an array, as it comes where events were not asked for; nil if it is none.
func ErrorOf(body []byte) *chat.Failed { return failure(parse(body)) }

func failure(v gjson.Result) *chat.Failed {
	e := errorIn(v)
	message, status := e.Get("message").Str, e.Get("status").Str
	if !e.IsObject() || message == "" && status == "" && !e.Get("code").Exists() {
		return nil
	}
	f := &chat.Failed{Message: message, Type: typeOf(status, e.Get("code").Int()), Code: chat.Clean(status, chat.MaxFinishReason)}
	if f.Message == "" {
		f.Message = "The provider gave no reason."
	}
	switch {
	case e.Get(`details.#(reason=="API_KEY_INVALID")`).Exists():
		// Google says INVALID_ARGUMENT to a key that it does not know. It is not the client's key.
		f.Type, f.Code = "authentication_error", "API_KEY_INVALID"
	case f.Type == "rate_limit_error":
		f.Code = "rate_limit_exceeded"
	case status == "INVALID_ARGUMENT" && strings.Contains(message, "token count") && strings.Contains(message, "exceeds"):
		f.Code = "context_length_exceeded" // what clients look for to shorten their prompt
	}
	return f
}

// parse is the JSON value of a body; one that does not exist if it is no JSON.
func parse(body []byte) gjson.Result {
	if !gjson.ValidBytes(body) {
		return gjson.Result{}
	}
	return gjson.ParseBytes(body)
}

// errorIn finds the error's object.
func errorIn(v gjson.Result) gjson.Result {
	if v.IsArray() {
		if list := v.Array(); len(list) == 1 {
			v = list[0]
		}
	}
	return v.Get("error")
}

// typeOf is OpenAI's type of an error, by Google's status or, where there is none, by the HTTP code.
func typeOf(status string, code int64) string {
	switch status {
	case "INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE", "NOT_FOUND":
		return "invalid_request_error"
	case "UNAUTHENTICATED":
		return "authentication_error"
	case "PERMISSION_DENIED":
		return "permission_error"
	case "RESOURCE_EXHAUSTED":
		return "rate_limit_error"
	case "":
		switch {
		case code == 401:
			return "authentication_error"
		case code == 403:
			return "permission_error"
		case code == 429:
			return "rate_limit_error"
		case code >= 400 && code < 500:
			return "invalid_request_error"
		}
	}
	return "server_error"
}

// RetryDelay reads google.rpc.RetryInfo's retryDelay ("34.07s") of an error body, in whole seconds,
// rounded up; 0 if there is none.
func RetryDelay(body []byte) int64 {
	for _, detail := range errorIn(parse(body)).Get("details").Array() {
		if !strings.HasSuffix(detail.Get("@type").Str, "google.rpc.RetryInfo") {
			continue
		}
		delay, err := time.ParseDuration(detail.Get("retryDelay").Str)
		if err == nil && delay > 0 {
			return int64((delay-1)/time.Second) + 1
		}
	}
	return 0
}
