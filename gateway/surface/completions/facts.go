package completions

import (
	"fmt"

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
	chat.Strict
	f chat.Facts

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
		return r.Err == nil
	})
	if r.f.Model == "" {
		r.Failf("model", "You must name a model.")
	}
	r.f.Choices, r.f.Inputs = max(r.n, r.bestOf)*r.prompts, r.prompts
	// Every prompt is read together with the suffix, which the body has once.
	r.f.InputBytes = int64(len(body)) + int64(len(r.suffix))*(r.prompts-1)
	return r, r.Err
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
		r.f.Model = r.Text(name, v)
	case "prompt":
		r.prompt(name, v)
	case "suffix":
		r.suffix = r.Text(name, v)
	case "echo":
		r.echo = r.Bool(name, v)
	case "n":
		r.n = r.Count(name, v, 1, maxChoices)
	case "best_of":
		r.bestOf = r.Count(name, v, 0, maxChoices)
	case "max_tokens":
		asked := r.Count(name, v, 0, maxAskedTokens)
		r.limited, r.nothing = true, asked == 0
		r.f.MaxOutput = max(asked, 1) // no more than 1 can come of 0
	case "stream":
		r.f.Stream = r.Bool(name, v)
	case "stream_options":
		r.streamOptions(name, v)
	case "service_tier":
		r.f.ServiceTier = r.Text(name, v)
	case "user":
		r.f.EndUser = r.Text(name, v)
	default:
		r.other(name)
	}
}

// meteredFields must be spelt exactly: a provider that ignores case would obey what was not priced.
var meteredFields = []string{"model", "prompt", "suffix", "echo", "n", "best_of", "max_tokens", "stream", "stream_options", "service_tier"}

func (r *request) other(name string) {
	if right := chat.Misspelt(name, meteredFields); right != "" {
		r.Failf(name, "Unknown field: did you mean `%s`?", right)
		return
	}
	if chat.LimitsElsewhere(name) {
		r.Failf(name, "Completions are limited by `max_tokens`.")
		return
	}
	if why := chat.Steers(name); why != "" {
		r.Refusef(name, "%s", why)
	}
	if !plainFields[name] {
		r.f.Opaque = true
	}
}

func (r *request) streamOptions(param string, v gjson.Result) {
	if !v.IsObject() {
		r.Failf(param, "`%s` must be an object.", param)
		return
	}
	if usage := v.Get("include_usage"); usage.Type != gjson.Null {
		r.f.IncludeUsage = r.Bool(param+".include_usage", usage)
	}
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
		r.TokenIDs(param, v)
	case v.IsArray():
		r.list(param, v)
	default:
		r.Failf(param, "`%s` must be a string, an array of strings, or token ids.", param)
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
			r.Failf(place, "`%s` must have strings only, or arrays of token ids only.", param)
		case r.prompts > maxPrompts:
			r.Failf(param, "`%s` may have at most %d prompts.", param, maxPrompts)
		case kind == kindText:
			r.texts = append(r.texts, prompt.Str)
		default:
			r.TokenIDs(place, prompt)
		}
		return r.Err == nil
	})
	if r.prompts == 0 {
		r.Failf(param, "`%s` must not be empty.", param)
	}
}
