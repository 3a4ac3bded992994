package embeddings

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// MaxInputs is how many inputs one request may have: OpenAI's own limit.
const MaxInputs = 2048

const (
	maxDimensions  = 1 << 16 // above any model's
	maxTokenDigits = 9       // of a token id
)

// Facts reads what the meter needs to know of a request: one JSON object without duplicate keys. It fails
// with *chat.Unsupported on what has the wrong type, or is out of its range, where it costs something.
//
// InputBytes bounds inputs of token ids too: each id takes at least a digit and what parts it from the next.
func Facts(body []byte) (*chat.Facts, error) {
	r, err := read(body)
	if err != nil {
		return nil, err
	}
	return &r.f, nil
}

// Inputs are the texts of a request, in their order, for providers that take nothing else. Token ids and
// other inputs that are no text are refused by name: *chat.Unsupported.
func Inputs(body []byte) ([]string, error) {
	r, err := read(body)
	if err != nil {
		return nil, err
	}
	if r.foreign != "" {
		return nil, &chat.Unsupported{Param: r.foreign, Message: "This model takes texts only: `" + r.foreign + "` is none."}
	}
	return r.texts, nil
}

// request is what is read of one request; its first error stays.
type request struct {
	f       chat.Facts
	err     error
	texts   []string
	foreign string // the place of the first input that is no text
	inputs  int
}

func read(body []byte) (*request, error) {
	r := &request{f: chat.Facts{Choices: 1, Rounds: 1, NoOutput: true, InputBytes: int64(len(body))}}
	gjson.ParseBytes(body).ForEach(func(key, v gjson.Result) bool {
		if v.Type != gjson.Null {
			r.field(key.String(), v)
		}
		return r.err == nil
	})
	switch {
	case r.f.Model == "":
		r.failf("model", "You must name a model.")
	case r.inputs == 0:
		r.failf("input", "You must send an input.")
	}
	r.f.Inputs = int64(r.inputs)
	return r, r.err
}

// meteredFields must be spelt exactly: a provider that ignores case would obey what was not priced.
var meteredFields = []string{"model", "input", "stream", "service_tier"}

// field reads one parameter that is not null.
func (r *request) field(name string, v gjson.Result) {
	switch name {
	case "model":
		r.f.Model = r.text(name, v)
	case "input":
		r.input(name, v)
	case "encoding_format":
		if format := r.text(name, v); format != "float" && format != "base64" {
			r.failf(name, "`%s` must be float or base64.", name)
		}
	case "dimensions":
		n, err := strconv.ParseInt(v.Raw, 10, 64)
		if v.Type != gjson.Number || err != nil || n < 1 || n > maxDimensions {
			r.failf(name, "`%s` must be a whole number from 1 to %d.", name, maxDimensions)
		}
	case "stream":
		if v.Type != gjson.False {
			r.failf(name, "Embeddings cannot be streamed.")
		}
	case "service_tier":
		r.f.ServiceTier = r.text(name, v)
	case "user":
		r.f.EndUser = r.text(name, v)
	default:
		r.other(name)
	}
}

func (r *request) other(name string) {
	for _, metered := range meteredFields {
		if strings.EqualFold(metered, name) {
			r.failf(name, "Unknown field: did you mean `%s`?", metered)
			return
		}
	}
	r.f.Opaque = true
}

func (r *request) failf(param, format string, args ...any) {
	if r.err == nil {
		r.err = chat.Invalid(param, format, args...)
	}
}

func (r *request) text(param string, v gjson.Result) string {
	if v.Type != gjson.String {
		r.failf(param, "`%s` must be a string.", param)
	}
	return v.Str
}

// input reads all the forms of an input. A list of numbers is one.
func (r *request) input(param string, v gjson.Result) {
	if !v.IsArray() || v.Get("0").Type == gjson.Number {
		r.one(param, v)
		return
	}
	v.ForEach(func(_, input gjson.Result) bool {
		place := fmt.Sprintf("%s[%d]", param, r.inputs)
		switch {
		case r.inputs == MaxInputs:
			r.failf(param, "`%s` may have at most %d inputs.", param, MaxInputs)
		case input.Type == gjson.Number:
			r.failf(place, "`%s` must have token ids only, or none beside its other inputs.", param)
		default:
			r.one(place, input)
		}
		return r.err == nil
	})
	if r.inputs == 0 {
		r.failf(param, "`%s` must not be empty.", param)
	}
}

// one reads one input: a text, token ids, or an object, which is the provider's affair.
func (r *request) one(param string, v gjson.Result) {
	r.inputs++
	if v.Type != gjson.String && r.foreign == "" {
		r.foreign = param
	}
	switch {
	case v.Type == gjson.String:
		r.texts = append(r.texts, v.Str)
		if v.Str == "" {
			r.failf(param, "`%s` must not be empty.", param)
		}
	case v.IsArray():
		r.ids(param, v)
	case v.IsObject():
		r.f.Opaque = true
	default:
		r.failf(param, "`%s` must be a string or an array of token ids.", param)
	}
}

// ids checks an input of token ids.
func (r *request) ids(param string, v gjson.Result) {
	n := 0
	v.ForEach(func(_, id gjson.Result) bool {
		if id.Type != gjson.Number || len(id.Raw) > maxTokenDigits || strings.Trim(id.Raw, "0123456789") != "" {
			r.failf(fmt.Sprintf("%s[%d]", param, n), "A token id must be a whole number.")
		}
		n++
		return r.err == nil
	})
	if n == 0 {
		r.failf(param, "`%s` must not be empty.", param)
	}
}
