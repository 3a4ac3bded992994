package chat

import (
	"cmp"
	"fmt"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
)

// Unsupported refuses a request that a provider cannot be asked: a parameter that it has no equal of, or
// a value that it does not take. Param is the place in OpenAI's request ("logit_bias",
// "messages[2].content[0]"), Message is for the client and holds nothing of the prompt.
type Unsupported struct {
	Param   string
	Message string
	Invalid bool // the value is wrong for every provider, not only for this one
}

func (e *Unsupported) Error() string { return e.Param + ": " + e.Message }

// Refuse is an Unsupported of a parameter that a provider does not have.
func Refuse(provider, param string) error {
	return &Unsupported{Param: param, Message: fmt.Sprintf("%s does not support `%s`.", provider, param)}
}

// Invalid is an Unsupported of a value that is wrong in itself.
func Invalid(param, format string, args ...any) error {
	return &Unsupported{Param: param, Message: fmt.Sprintf(format, args...), Invalid: true}
}

// Failed is an error that a provider reported in its own form, in the terms of OpenAI's.
type Failed struct {
	Message string // the provider's own words, for the client that sent the prompt; never for logs
	Type    string // OpenAI's type: invalid_request_error, rate_limit_error, server_error, ...
	Code    string // OpenAI's code, or the provider's own word
	Param   string // or ""
}

func (e *Failed) Error() string { return "the provider reported " + e.Type }

// Body is the error in OpenAI's shape.
func (e *Failed) Body() []byte {
	return Encode(struct {
		Error any `json:"error"`
	}{struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    *string `json:"code"`
	}{e.Message, e.Type, orNull(e.Param), orNull(e.Code)}})
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// maxErrorWord bounds an error's type, code and param, in bytes.
const maxErrorWord = 64

// FailureIn reads the value of `error` that an answer of OpenAI's shape, or an event, has; nil if it tells of
// none. Some servers give a number as its code, or nothing but words.
func FailureIn(e gjson.Result) *Failed {
	word := func(of string) string { return domain.CleanText(e.Get(of).String(), maxErrorWord) }
	f := &Failed{Message: e.Get("message").Str, Type: word("type"), Code: word("code"), Param: word("param")}
	switch {
	case e.Type == gjson.String && e.Str != "":
		f.Message = e.Str
	case !e.IsObject():
		return nil
	}
	f.Type = cmp.Or(f.Type, "server_error")
	f.Message = cmp.Or(f.Message, "The provider reported an error.")
	return f
}
