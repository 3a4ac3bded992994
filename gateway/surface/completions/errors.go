package completions

import (
	"encoding/json"
	"errors"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

var (
	errNoAnswer     = errors.New("the body is not a completion")
	errNoEvent      = errors.New("an event that is not a JSON object")
	errNoCompletion = errors.New("the body is not a chat completion")
)

// Error is an error in the API's shape, which is that of chat completions: kind is OpenAI's type of it, code
// and param may be "".
func Error(_ int, kind, code, message, param string) []byte {
	return (&chat.Failed{Message: message, Type: kind, Code: code, Param: param}).Body()
}

// object parses a JSON object; false if data is none.
func object(data []byte) (gjson.Result, bool) {
	if !json.Valid(data) {
		return gjson.Result{}, false
	}
	v := gjson.ParseBytes(data)
	return v, v.IsObject()
}
