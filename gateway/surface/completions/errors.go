package completions

import (
	"encoding/json"
	"errors"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
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

// maxErrorWord bounds an error's type, code and param, in bytes.
const maxErrorWord = 64

// failureOf is the error that an answer or an event tells of; nil if it tells of none. Some servers give a
// number as its code, or nothing but words.
func failureOf(v gjson.Result) *chat.Failed {
	e := v.Get("error")
	f := &chat.Failed{Message: e.Get("message").Str, Type: word(e.Get("type")), Code: word(e.Get("code")), Param: word(e.Get("param"))}
	switch {
	case e.Type == gjson.String && e.Str != "":
		f.Message = e.Str
	case !e.IsObject():
		return nil
	}
	if f.Type == "" {
		f.Type = "server_error"
	}
	if f.Message == "" {
		f.Message = "The provider reported an error."
	}
	return f
}

func word(v gjson.Result) string { return domain.CleanText(v.String(), maxErrorWord) }

// object parses a JSON object; false if data is none.
func object(data []byte) (gjson.Result, bool) {
	if !json.Valid(data) {
		return gjson.Result{}, false
	}
	v := gjson.ParseBytes(data)
	return v, v.IsObject()
}
