package messages

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// Roles of Anthropic's messages.
const (
	roleSystem    = "system"
	roleUser      = "user"
	roleAssistant = "assistant"
)

// elsewhere is the name in refusals.
const elsewhere = "This model's provider"

// Foreign reads the request for providers that do not speak this API; it fails with *chat.Unsupported. id
// is what the answer's id is made of. max_tokens may be absent, as in requests that only count. created is not
// needed: this API's answers have no time.
func Foreign(body []byte, id string, _ int64) (chat.Foreign, error) {
	t := translator{in: map[string]gjson.Result{}}
	gjson.ParseBytes(body).ForEach(func(key, v gjson.Result) bool {
		if name := key.String(); v.Type != gjson.Null {
			t.in[name] = v
			t.known(name, v)
		}
		return true
	})
	for _, step := range []func(){t.limits, t.system, t.conversation, t.tools, t.choice, t.format, t.effort, t.rest} {
		step()
	}
	if t.Err != nil {
		return nil, t.Err
	}
	request, err := chat.Marshal(&t.out)
	if err != nil {
		return nil, chat.Invalid("messages", "The request holds what is not valid JSON.")
	}
	return &foreign{request: request, id: id}, nil
}

// foreign is a request that was read.
type foreign struct {
	request []byte
	id      string
}

func (f *foreign) Chat() []byte { return f.request }

// translator reads one request; its first error stays.
type translator struct {
	chat.Strict
	in  map[string]gjson.Result
	out request

	level string // how hard to think, as the last system message that says so wants it
}

func (t *translator) refuse(param string) { t.Fail(chat.Refuse(elsewhere, param)) }

// carried are the fields that are translated, ignored those that change no answer elsewhere.
var (
	carried = []string{"model", "messages", "system", "max_tokens", "stream", "tools", "tool_choice", "thinking", "output_config",
		"output_format", "stop_sequences", "temperature", "top_p", "top_k", "metadata", "service_tier"}
	ignored = []string{"cache_control", "diagnostics"}
)

// known refuses what cannot be carried.
func (t *translator) known(name string, v gjson.Result) {
	switch {
	case slices.Contains(carried, name), slices.Contains(ignored, name):
	case name == "speed" && v.Str == "standard", name == "inference_geo" && v.Str == "global":
	case (name == "mcp_servers" || name == "fallbacks") && v.IsArray() && !v.Get("0").Exists():
	case name == "context_management" && clearing(v):
	default:
		t.refuse(cmp.Or(name, `""`))
	}
}

// clearing says whether a context would only be cleared of what is old.
func clearing(management gjson.Result) bool {
	only := true
	management.Get("edits").ForEach(func(_, edit gjson.Result) bool {
		only = only && strings.HasPrefix(edit.Get("type").Str, "clear_")
		return true
	})
	return only
}

func (t *translator) limits() {
	t.out.Model = t.Text("model", t.in["model"])
	if v, ok := t.in["max_tokens"]; ok {
		if v.Type == gjson.Number && v.Raw == "0" {
			t.Refusef("max_tokens", "%s cannot be asked for no answer: `max_tokens` must be above 0.", elsewhere)
		}
		t.out.MaxTokens = t.Number("max_tokens", v)
	}
	if v, ok := t.in["stream"]; ok && v.Bool() {
		t.out.Stream, t.out.StreamOptions = true, &streamOptions{IncludeUsage: true}
	}
	if v, ok := t.in["stop_sequences"]; ok {
		t.Each("stop_sequences", v, func(param string, s gjson.Result) { t.out.Stop = append(t.out.Stop, t.Text(param, s)) })
	}
	for name, to := range map[string]*json.Number{"temperature": &t.out.Temperature, "top_p": &t.out.TopP, "top_k": &t.out.TopK} {
		if v, ok := t.in[name]; ok {
			*to = t.Number(name, v)
		}
	}
}

// format is the form of the answer. output_format is an older name of it.
func (t *translator) format() {
	param, f := "output_config.format", t.in["output_config"].Get("format")
	if f.Type == gjson.Null {
		param, f = "output_format", t.in["output_format"]
	}
	if f.Type == gjson.Null {
		return
	}
	if f.Get("type").Str != "json_schema" || !f.Get("schema").IsObject() {
		t.Failf(param, "`%s` must have the type json_schema and a schema.", param)
		return
	}
	t.out.ResponseFormat = &responseFormat{Type: "json_schema",
		JSONSchema: jsonSchema{Name: "answer", Strict: true, Schema: json.RawMessage(f.Get("schema").Raw)}}
}

// Budgets of thinking, in tokens, from which on they are called medium and high.
const (
	mediumBudget = 4096
	highBudget   = 16_384
)

// effort says how hard to think, in OpenAI's words. Adaptive thinking without an effort is the provider's to
// decide about, and so is thinking that is switched off: some models cannot do without, and others do not
// know the word.
func (t *translator) effort() {
	config, thinking := t.in["output_config"], t.in["thinking"]
	config.ForEach(func(key, v gjson.Result) bool {
		if name := key.String(); v.Type != gjson.Null && name != "effort" && name != "format" {
			t.refuse("output_config." + name)
		}
		return true
	})
	effort := config.Get("effort")
	if effort.Type != gjson.Null {
		t.level = cmp.Or(t.level, t.Text("output_config.effort", effort))
	}
	switch {
	case thinking.Get("type").Str == "disabled":
	case t.level == "max": // OpenAI has nothing above xhigh
		t.out.ReasoningEffort = "xhigh"
	case t.level != "":
		t.out.ReasoningEffort = t.level
	case thinking.Get("type").Str == "enabled":
		t.out.ReasoningEffort = levelOf(thinking.Get("budget_tokens").Int())
	}
}

func levelOf(budget int64) string {
	switch {
	case budget < mediumBudget:
		return "low"
	case budget < highBudget:
		return "medium"
	}
	return "high"
}

// maxUser bounds the name of a user; OpenAI takes no longer one.
const maxUser = 64

func (t *translator) rest() {
	if v := t.in["metadata"].Get("user_id"); v.Type != gjson.Null {
		t.out.User = t.Text("metadata.user_id", v)
		if len(t.out.User) > maxUser { // a digest still tells users apart
			sum := sha256.Sum256([]byte(t.out.User))
			t.out.User = hex.EncodeToString(sum[:])
		}
	}
	switch t.in["service_tier"].Str {
	case "auto":
		t.out.ServiceTier = "auto"
	case "standard_only":
		t.out.ServiceTier = "default"
	}
}

// name is a text that may not be empty.
func (t *translator) name(param string, v gjson.Result) string {
	if v.Type != gjson.String || v.Str == "" {
		t.Failf(param, "`%s` must be a string that is not empty.", param)
	}
	return v.Str
}
