package completions

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// DefaultMaxTokens is OpenAI's own maximum of a completion where the request names none.
const DefaultMaxTokens = 16

// Bounds of what a client may ask for.
const (
	maxChoices     = 128       // n and best_of
	maxPrompts     = 2048      // OpenAI's own limit
	maxAskedTokens = 1_000_000 // max_tokens: above any model's output
	maxTokenDigits = 9         // of a token id
)

// Facts reads what the meter needs to know of a request: one JSON object without duplicate keys. It fails
// with *chat.Unsupported on what has the wrong type, or is out of its range, where it costs something.
//
// InputBytes bounds prompts of token ids too: each id takes at least a digit and what parts it from the next.
func Facts(body []byte) (*chat.Facts, error) {
	r, err := read(body)
	if err != nil {
		return nil, err
	}
	return &r.f, nil
}

// request is what is read of one request; its first error stays.
type request struct {
	f   chat.Facts
	err error

	prompts   int64    // how many; 1 where there is none: the model then begins by itself
	texts     []string // of the prompts that are text
	tokens    bool     // the prompts are token ids
	n, bestOf int64
	limited   bool // the client named a maximum
	nothing   bool // of 0: only the prompt is to be looked at
	echo      bool
	suffix    string
}

func read(body []byte) (*request, error) {
	r := &request{f: chat.Facts{Rounds: 1, MaxOutput: DefaultMaxTokens}, prompts: 1, n: 1}
	gjson.ParseBytes(body).ForEach(func(key, v gjson.Result) bool {
		if v.Type != gjson.Null {
			r.field(key.String(), v)
		}
		return r.err == nil
	})
	if r.f.Model == "" {
		r.failf("model", "You must name a model.")
	}
	r.f.Choices, r.f.Inputs = max(r.n, r.bestOf)*r.prompts, r.prompts
	// Every prompt is read together with the suffix, which the body has once.
	r.f.InputBytes = int64(len(body)) + int64(len(r.suffix))*(r.prompts-1)
	return r, r.err
}

// plainFields can neither cost more than their bytes nor bring input that the body does not show. The last
// four are vLLM's.
var plainFields = map[string]bool{
	"temperature": true, "top_p": true, "stop": true, "presence_penalty": true, "frequency_penalty": true,
	"logit_bias": true, "logprobs": true, "seed": true, "top_k": true, "min_p": true, "repetition_penalty": true, "min_tokens": true,
}

// field reads one parameter that is not null.
func (r *request) field(name string, v gjson.Result) {
	switch name {
	case "model":
		r.f.Model = r.text(name, v)
	case "prompt":
		r.prompt(name, v)
	case "suffix":
		r.suffix = r.text(name, v)
	case "echo":
		r.echo = r.boolean(name, v)
	case "n":
		r.n = r.count(name, v, 1, maxChoices)
	case "best_of":
		r.bestOf = r.count(name, v, 0, maxChoices)
	case "max_tokens":
		asked := r.count(name, v, 0, maxAskedTokens)
		r.limited, r.nothing = true, asked == 0
		r.f.MaxOutput = max(asked, 1) // no more than 1 can come of 0
	case "stream":
		r.f.Stream = r.boolean(name, v)
	case "stream_options":
		r.streamOptions(name, v)
	case "service_tier":
		r.f.ServiceTier = r.text(name, v)
	case "user":
		r.f.EndUser = r.text(name, v)
	default:
		r.other(name)
	}
}

// meteredFields must be spelt exactly: a provider that ignores case would obey what was not priced.
var meteredFields = []string{"model", "prompt", "suffix", "echo", "n", "best_of", "max_tokens", "stream", "stream_options", "service_tier"}

// otherLimits are what limits the output elsewhere. Some server may believe them more than max_tokens.
var otherLimits = map[string]bool{"max_completion_tokens": true, "max_output_tokens": true, "max_new_tokens": true, "n_predict": true}

func (r *request) other(name string) {
	for _, metered := range meteredFields {
		if strings.EqualFold(metered, name) {
			r.failf(name, "Unknown field: did you mean `%s`?", metered)
			return
		}
	}
	if otherLimits[strings.ToLower(name)] {
		r.failf(name, "Completions are limited by `max_tokens`.")
		return
	}
	if !plainFields[name] {
		r.f.Opaque = true
	}
}

func (r *request) streamOptions(param string, v gjson.Result) {
	if !v.IsObject() {
		r.failf(param, "`%s` must be an object.", param)
		return
	}
	if usage := v.Get("include_usage"); usage.Type != gjson.Null {
		r.f.IncludeUsage = r.boolean(param+".include_usage", usage)
	}
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

func (r *request) boolean(param string, v gjson.Result) bool {
	if !v.IsBool() {
		r.failf(param, "`%s` must be true or false.", param)
	}
	return v.Bool()
}

// count takes whole numbers that are written as such: negative and huge ones turned other gateways' charges
// into credits.
func (r *request) count(param string, v gjson.Result, least, most int64) int64 {
	n, err := strconv.ParseInt(v.Raw, 10, 64)
	if v.Type != gjson.Number || err != nil || n < least || n > most {
		r.failf(param, "`%s` must be a whole number from %d to %d.", param, least, most)
		return least
	}
	return n
}

// kinds of elements that a list of prompts has.
const (
	kindText   = iota + 1
	kindToken  // the list is one prompt
	kindTokens // each element is one
)

func kindOf(v gjson.Result) int {
	switch {
	case v.Type == gjson.String:
		return kindText
	case v.Type == gjson.Number:
		return kindToken
	case v.IsArray():
		return kindTokens
	}
	return 0
}

// prompt reads the four forms of a prompt.
func (r *request) prompt(param string, v gjson.Result) {
	switch {
	case v.Type == gjson.String:
		r.texts = []string{v.Str}
	case v.IsArray() && kindOf(v.Get("0")) == kindToken:
		r.tokens = true
		r.ids(param, v)
	case v.IsArray():
		r.list(param, v)
	default:
		r.failf(param, "`%s` must be a string, an array of strings, or token ids.", param)
	}
}

// list reads an array of prompts, all of one kind.
func (r *request) list(param string, v gjson.Result) {
	kind := kindOf(v.Get("0"))
	r.tokens, r.prompts = kind == kindTokens, 0
	v.ForEach(func(_, prompt gjson.Result) bool {
		place := fmt.Sprintf("%s[%d]", param, r.prompts)
		switch r.prompts++; {
		case kind == 0 || kindOf(prompt) != kind:
			r.failf(place, "`%s` must have strings only, or arrays of token ids only.", param)
		case r.prompts > maxPrompts:
			r.failf(param, "`%s` may have at most %d prompts.", param, maxPrompts)
		case kind == kindText:
			r.texts = append(r.texts, prompt.Str)
		default:
			r.ids(place, prompt)
		}
		return r.err == nil
	})
	if r.prompts == 0 {
		r.failf(param, "`%s` must not be empty.", param)
	}
}

// ids checks a prompt of token ids.
func (r *request) ids(param string, v gjson.Result) {
	n := 0
	v.ForEach(func(_, id gjson.Result) bool {
		if !isToken(id) {
			r.failf(fmt.Sprintf("%s[%d]", param, n), "A token id must be a whole number.")
		}
		n++
		return r.err == nil
	})
	if n == 0 {
		r.failf(param, "`%s` must not be empty.", param)
	}
}

func isToken(v gjson.Result) bool {
	if v.Type != gjson.Number || len(v.Raw) > maxTokenDigits {
		return false
	}
	return strings.Trim(v.Raw, "0123456789") == ""
}
