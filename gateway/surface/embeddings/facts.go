package embeddings

import (
	"fmt"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// MaxInputs is how many inputs one request may have: OpenAI's own limit.
const MaxInputs = 2048

// maxDimensions is above any model's.
const maxDimensions = 1 << 16

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
	chat.Strict
	f       chat.Facts
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
		return r.Err == nil
	})
	switch {
	case r.f.Model == "":
		r.Failf("model", "You must name a model.")
	case r.inputs == 0:
		r.Failf("input", "You must send an input.")
	}
	r.f.Inputs = int64(r.inputs)
	return r, r.Err
}

// meteredFields must be spelt exactly: a provider that ignores case would obey what was not priced.
var meteredFields = []string{"model", "input", "stream", "service_tier"}

// field reads one parameter that is not null.
func (r *request) field(name string, v gjson.Result) {
	switch name {
	case "model":
		r.f.Model = r.Text(name, v)
	case "input":
		r.input(name, v)
	case "encoding_format":
		if format := r.Text(name, v); format != "float" && format != "base64" {
			r.Failf(name, "`%s` must be float or base64.", name)
		}
	case "dimensions":
		r.Count(name, v, 1, maxDimensions)
	case "stream":
		if v.Type != gjson.False {
			r.Failf(name, "Embeddings cannot be streamed.")
		}
	case "service_tier":
		r.f.ServiceTier = r.Text(name, v)
	case "user":
		r.f.EndUser = r.Text(name, v)
	default:
		r.other(name)
	}
}

func (r *request) other(name string) {
	if right := chat.Misspelt(name, meteredFields); right != "" {
		r.Failf(name, "Unknown field: did you mean `%s`?", right)
		return
	}
	r.f.Opaque = true
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
			r.Failf(param, "`%s` may have at most %d inputs.", param, MaxInputs)
		case input.Type == gjson.Number:
			r.Failf(place, "`%s` must have token ids only, or none beside its other inputs.", param)
		default:
			r.one(place, input)
		}
		return r.Err == nil
	})
	if r.inputs == 0 {
		r.Failf(param, "`%s` must not be empty.", param)
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
			r.Failf(param, "`%s` must not be empty.", param)
		}
	case v.IsArray():
		r.TokenIDs(param, v)
	case v.IsObject():
		r.f.Opaque = true
	default:
		r.Failf(param, "`%s` must be a string or an array of token ids.", param)
	}
}
