package chat

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"
)

// Strict reads the values of a request: what has the wrong type or is out of its range is refused by its
// place, for it may cost money, and no two readers understand it alike. Whoever reads a request embeds it.
// The first error stays; what is read after it means nothing.
type Strict struct {
	Err error // *Unsupported
}

// Fail keeps the first error.
func (s *Strict) Fail(err error) {
	if s.Err == nil {
		s.Err = err
	}
}

// Failf is for what is wrong for every provider.
func (s *Strict) Failf(param, format string, args ...any) { s.Fail(Invalid(param, format, args...)) }

// Refusef is for what is well said and still cannot be had.
func (s *Strict) Refusef(param, format string, args ...any) {
	s.Fail(&Unsupported{Param: param, Message: fmt.Sprintf(format, args...)})
}

// Text is a string.
func (s *Strict) Text(param string, v gjson.Result) string {
	if v.Type != gjson.String {
		s.Failf(param, "`%s` must be a string.", param)
	}
	return v.Str
}

// TextOrNull is a string; "" where there is none, or null.
func (s *Strict) TextOrNull(param string, v gjson.Result) string {
	if v.Type == gjson.Null {
		return ""
	}
	return s.Text(param, v)
}

// Bool is true or false.
func (s *Strict) Bool(param string, v gjson.Result) bool {
	if !v.IsBool() {
		s.Failf(param, "`%s` must be true or false.", param)
	}
	return v.Bool()
}

// Number is any number, as it was written.
func (s *Strict) Number(param string, v gjson.Result) json.Number {
	if v.Type != gjson.Number {
		s.Failf(param, "`%s` must be a number.", param)
	}
	return json.Number(v.Raw)
}

// Count takes whole numbers of a range that are written as such: negative and huge ones turned other
// gateways' charges into credits.
func (s *Strict) Count(param string, v gjson.Result, least, most int64) int64 {
	n, err := strconv.ParseInt(v.Raw, 10, 64)
	if v.Type != gjson.Number || err != nil || n < least || n > most {
		s.Failf(param, "`%s` must be a whole number from %d to %d.", param, least, most)
		return least
	}
	return n
}

// Object fails on what is none.
func (s *Strict) Object(param string, v gjson.Result) {
	if !v.IsObject() {
		s.Failf(param, "`%s` must be an object.", param)
	}
}

// Each calls do for the elements of an array, with the place of each, until the first error.
func (s *Strict) Each(param string, v gjson.Result, do func(param string, v gjson.Result)) {
	if !v.IsArray() {
		s.Failf(param, "`%s` must be an array.", param)
		return
	}
	i := 0
	v.ForEach(func(_, element gjson.Result) bool {
		do(param+"["+strconv.Itoa(i)+"]", element)
		i++
		return s.Err == nil
	})
}

// Objects is Each of an array that has nothing but objects.
func (s *Strict) Objects(param string, v gjson.Result, do func(param string, v gjson.Result)) {
	s.Each(param, v, func(param string, v gjson.Result) {
		if !v.IsObject() {
			s.Object(param, v)
			return
		}
		do(param, v)
	})
}

// maxTokenDigits bounds the digits of a token's id.
const maxTokenDigits = 9

// TokenIDs checks an array of token ids, at least one.
func (s *Strict) TokenIDs(param string, v gjson.Result) {
	n := 0
	s.Each(param, v, func(param string, id gjson.Result) {
		if id.Type != gjson.Number || len(id.Raw) > maxTokenDigits || strings.Trim(id.Raw, "0123456789") != "" {
			s.Failf(param, "A token id must be a whole number.")
		}
		n++
	})
	if n == 0 {
		s.Failf(param, "`%s` must not be empty.", param)
	}
}

// steering are fields by which providers that speak another's API (OpenRouter, LiteLLM's proxy, xAI) are told what
// the prices here do not know of. Those whose API it is have no such fields, or refuse them.
var steering = map[string]string{
	"models": "could have another model answer", "fallbacks": "could have another model answer", "route": "could have another model answer",
	"preset": "could have another model answer", "provider": "chooses who serves the model, at a price of its own",
	"plugins": "is billed by what no usage tells", "search_parameters": "is billed by what no usage tells",
}

// Steers says why a field of a request, by whatever value, could cost what is not priced; "" where it could not.
func Steers(name string) string {
	if why := steering[strings.ToLower(name)]; why != "" {
		return fmt.Sprintf("`%s` cannot be metered: it %s.", name, why)
	}
	return ""
}

// otherLimits are what limits the output in one API or another. Some server, such as llama.cpp's, believes them more
// than the limit of the API that it is called by.
var otherLimits = map[string]bool{"max_completion_tokens": true, "max_output_tokens": true, "max_new_tokens": true, "n_predict": true}

// LimitsElsewhere says whether a field that a request's own API does not have is the limit of another one.
func LimitsElsewhere(name string) bool { return otherLimits[strings.ToLower(name)] }

// Misspelt is the name that differs from one in its case only: a reader that ignores case would obey what was
// not priced. "" if there is none.
func Misspelt(name string, known []string) (right string) {
	for _, right := range known {
		if name != right && strings.EqualFold(right, name) {
			return right
		}
	}
	return ""
}
