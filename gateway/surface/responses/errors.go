package responses

import (
	"github.com/tidwall/gjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider/chat"
)

// maxErrorWord bounds an error's type and code, and names that a client made up, in bytes.
const maxErrorWord = 64

// Error is an error in the API's shape, which is that of chat completions: kind is OpenAI's type of it, code
// and param may be "".
func Error(_ int, kind, code, message, param string) []byte {
	return (&chat.Failed{Message: message, Type: kind, Code: code, Param: param}).Body()
}

// short is a foreign name as an error may show it.
func short(name string) string { return domain.CleanText(name, maxErrorWord) }

// errorTypes are OpenAI's types of errors by the codes that responses have; what is not here is the server's.
var errorTypes = map[string]string{
	"rate_limit_exceeded": "rate_limit_error", "insufficient_quota": "insufficient_quota",
	"invalid_prompt": "invalid_request_error", "context_length_exceeded": "invalid_request_error",
	"invalid_image": "invalid_request_error", "invalid_image_format": "invalid_request_error",
	"invalid_base64_image": "invalid_request_error", "invalid_image_url": "invalid_request_error",
	"image_too_large": "invalid_request_error", "image_too_small": "invalid_request_error",
	"image_parse_error": "invalid_request_error", "image_content_policy_violation": "invalid_request_error",
	"invalid_image_mode": "invalid_request_error", "image_file_too_large": "invalid_request_error",
	"unsupported_image_media_type": "invalid_request_error", "empty_image_file": "invalid_request_error",
	"failed_to_download_image": "invalid_request_error", "image_file_not_found": "invalid_request_error",
}

// failedOf reads an error object: of a response that failed, of an error event, or of a body of HTTP.
func failedOf(e gjson.Result) *chat.Failed {
	f := &chat.Failed{Message: e.Get("message").Str, Code: domain.CleanText(e.Get("code").Str, maxErrorWord),
		Type: domain.CleanText(e.Get("type").Str, maxErrorWord), Param: domain.CleanText(e.Get("param").Str, chat.MaxUpstreamID)}
	if f.Type == "" || f.Type == "error" {
		f.Type = errorTypes[f.Code]
	}
	if f.Type == "" {
		f.Type = "server_error"
	}
	if f.Message == "" {
		f.Message = "The provider reported an error."
	}
	return f
}
