package responses

import (
	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// DefaultMaxToolCalls is how many calls of tools that OpenAI runs itself a request may lead to where it names
// no max_tool_calls: the same number is reserved for and sent.
const DefaultMaxToolCalls = 10

// Bounds of what a client may ask for.
const (
	maxAskedTokens = 1_000_000 // max_output_tokens: above any model's output
	maxToolCalls   = 1_000     // max_tool_calls
)

// toolTokens is what the template adds at most to a tool or a schema beyond the bytes of its JSON, in tokens.
const toolTokens = 32

// Facts reads what the meter needs to know of a request: one JSON object without duplicate keys. It fails
// with *chat.Unsupported on values of the wrong type where they cost something, and on what cannot be
// metered. InputBytes takes it that a reasoning item's encrypted_content stands for no more tokens than it
// has bytes.
func Facts(body []byte) (*chat.Facts, error) {
	m, err := measure(body)
	if err != nil {
		return nil, err
	}
	if m.f.Model == "" {
		return nil, chat.Invalid("model", "You must name a model.")
	}
	return &m.f, nil
}

// meter gathers the facts of one request; its first error stays.
type meter struct {
	chat.Strict
	f         chat.Facts
	toolCalls int64 // max_tool_calls; 0 = none named
	runs      bool  // OpenAI may run tools, and ask the model again after each
	compacts  bool  // OpenAI may shorten the conversation, by another call of the model
	template  bool  // a stored prompt
	tools     bool  // the request names its tools, if only none
}

func measure(body []byte) (*meter, error) {
	m := &meter{f: chat.Facts{Choices: 1, Rounds: 1, InputBytes: int64(len(body))}}
	gjson.ParseBytes(body).ForEach(func(key, v gjson.Result) bool {
		if v.Type != gjson.Null {
			m.field(key.String(), v)
		}
		return m.Err == nil
	})
	m.settle()
	return m, m.Err
}

// settle bounds what the provider may do by itself. A stored prompt may have tools of its own, which the
// request's replace.
func (m *meter) settle() {
	if m.template && !m.tools {
		m.runs, m.f.WebSearch = true, true
	}
	if m.runs {
		m.f.Rounds += m.limit()
		m.f.Opaque = true
	}
	if m.f.WebSearch {
		m.f.Searches = m.limit()
	}
	if m.compacts {
		m.f.Rounds *= 2
		m.f.Opaque = true
	}
}

// limit is the most calls of tools that the provider runs.
func (m *meter) limit() int64 {
	if m.toolCalls == 0 {
		return DefaultMaxToolCalls
	}
	return m.toolCalls
}

// plainFields can neither cost more than their bytes nor bring input that the body does not show.
var plainFields = map[string]bool{
	"temperature": true, "top_p": true, "top_logprobs": true, "metadata": true, "store": true, "include": true,
	"parallel_tool_calls": true, "tool_choice": true, "prompt_cache_key": true, "prompt_cache_retention": true,
	"truncation": true, "stream_options": true,
}

// field reads one parameter that is not null.
func (m *meter) field(name string, v gjson.Result) {
	f := &m.f
	switch name {
	case "model":
		f.Model = m.TextOrNull(name, v)
	case "stream":
		f.Stream = m.Bool(name, v)
	case "max_output_tokens":
		f.MaxOutput = m.Count(name, v, 1, maxAskedTokens)
	case "max_tool_calls":
		m.toolCalls = m.Count(name, v, 1, maxToolCalls)
	case "input":
		m.input(name, v)
	case "tools":
		m.tools = true
		m.toolList(name, v)
	case "text":
		m.schema(v)
	case "service_tier":
		f.ServiceTier = tierOf(m.TextOrNull(name, v))
	case "user":
		f.EndUser = m.TextOrNull(name, v)
	case "safety_identifier":
		if id := m.TextOrNull(name, v); f.EndUser == "" {
			f.EndUser = id
		}
	default:
		m.special(name, v)
	}
}

// tierOf is the tier by the name that the response will have: fast is served as priority.
func tierOf(asked string) string {
	if asked == "fast" {
		return "priority"
	}
	return asked
}

// special reads what leads beyond this request or cannot be metered, and whatever nobody here knows.
func (m *meter) special(name string, v gjson.Result) {
	switch name {
	case "previous_response_id":
		m.f.Opaque = true
		m.f.Refer(name, m.TextOrNull(name, v))
	case "conversation":
		m.f.Opaque = true
		m.f.Refer(name, "")
	case "instructions":
		m.f.Opaque = m.f.Opaque || v.Type != gjson.String
	case "prompt":
		m.f.Opaque, m.template = true, true
		m.f.Refer(name, "")
	case "context_management":
		m.compacts = m.compacts || v.Raw != "[]"
	case "background":
		if m.Bool(name, v) {
			m.Refusef(name, "`background` cannot be metered: the answer is fetched later, past this gateway.")
		}
	case "reasoning":
		if mode := m.TextOrNull("reasoning.mode", v.Get("mode")); mode != "" && mode != "standard" {
			m.Refusef("reasoning.mode", "`reasoning.mode` other than standard cannot be metered.")
		}
	case "prompt_cache_options":
		m.retention(name, v)
	case "modalities", "audio", "prediction", "n":
		m.Refusef(name, "`%s` cannot be metered here: it is no parameter of the Responses API.", name)
	default:
		m.other(name)
	}
}

// meteredFields must be spelt exactly: a provider that ignores case would obey what was not priced.
var meteredFields = []string{"model", "stream", "max_output_tokens", "max_tool_calls", "input", "tools", "text", "service_tier",
	"background", "context_management", "reasoning", "prompt", "previous_response_id", "conversation", "prompt_cache_options",
	"modalities", "audio", "prediction", "n"}

func (m *meter) other(name string) {
	if right := chat.Misspelt(name, meteredFields); right != "" {
		m.Failf(short(name), "Unknown field: did you mean `%s`?", right)
		return
	}
	if why := chat.Steers(name); why != "" {
		m.Refusef(name, "%s", why)
	}
	if !plainFields[name] {
		m.f.Opaque = true
	}
}

// schema reads the form that the answer is to have.
func (m *meter) schema(v gjson.Result) {
	if v.Get("format").Exists() {
		m.f.InputBytes += toolTokens
	}
}

// retention refuses the caches that are kept longer than the price book knows of.
func (m *meter) retention(param string, v gjson.Result) {
	if ttl := m.TextOrNull(param+".ttl", v.Get("ttl")); ttl != "" && ttl != "30m" {
		m.Refusef(param+".ttl", "`%s.ttl` other than 30m cannot be metered.", param)
	}
}
