package generate

import (
	"net/http"

	"llm-gateway/gateway/provider/chat"
)

// statuses are Google's words for HTTP's codes. It has none for money that is used up: like a quota.
var statuses = map[int]string{
	http.StatusBadRequest: "INVALID_ARGUMENT", http.StatusRequestEntityTooLarge: "INVALID_ARGUMENT",
	http.StatusUnprocessableEntity: "INVALID_ARGUMENT", http.StatusUnauthorized: "UNAUTHENTICATED",
	http.StatusPaymentRequired: "RESOURCE_EXHAUSTED", http.StatusTooManyRequests: "RESOURCE_EXHAUSTED",
	http.StatusForbidden: "PERMISSION_DENIED", http.StatusNotFound: "NOT_FOUND", http.StatusConflict: "ABORTED",
	http.StatusInternalServerError: "INTERNAL", http.StatusBadGateway: "UNAVAILABLE", http.StatusServiceUnavailable: "UNAVAILABLE",
	http.StatusGatewayTimeout: "DEADLINE_EXCEEDED",
}

// statusOf is Google's word for a status.
func statusOf(status int) string {
	if word, ok := statuses[status]; ok {
		return word
	}
	if status >= http.StatusBadRequest && status < http.StatusInternalServerError {
		return "INVALID_ARGUMENT"
	}
	return "INTERNAL"
}

// errorInfo is google.rpc.ErrorInfo: where programs look for the reason.
type errorInfo struct {
	Type     string            `json:"@type"`
	Reason   string            `json:"reason"`
	Domain   string            `json:"domain"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

// Error renders an error in Google's shape. kind, code and param are OpenAI's: they stand in its details.
func Error(status int, kind, code, message, param string) []byte {
	if status < http.StatusBadRequest {
		status = http.StatusInternalServerError // an error inside of an answer that had begun well
	}
	info := errorInfo{Type: "type.googleapis.com/google.rpc.ErrorInfo", Reason: code, Domain: "llm-gateway", Metadata: map[string]string{}}
	for name, value := range map[string]string{"type": kind, "param": param} {
		if value != "" {
			info.Metadata[name] = value
		}
	}
	var body struct {
		Error struct {
			Code    int         `json:"code"`
			Message string      `json:"message"`
			Status  string      `json:"status"`
			Details []errorInfo `json:"details,omitempty"`
		} `json:"error"`
	}
	body.Error.Code, body.Error.Message, body.Error.Status = status, message, statusOf(status)
	if code != "" {
		body.Error.Details = []errorInfo{info}
	}
	return chat.Encode(body)
}
