package messages

import (
	"slices"
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// Bounds of what a client may ask for.
const (
	// DefaultMaxUses is how often a web search may be used whose max_uses is not given. Anthropic would
	// set no limit: package anthropic puts this one into the request.
	DefaultMaxUses = 10

	maxAskedTokens = 1_000_000 // max_tokens: above any model's output
	maxUses        = 100       // of one web search
)

// Upper bounds of what Anthropic's own prompts add, in tokens.
const (
	toolTokens   = 32   // per tool or schema, beyond its bytes
	toolsTokens  = 640  // once, where there are tools: its documentation has up to 530
	clientTokens = 1024 // per tool that Anthropic defines and the client runs: bash, text editor, computer, memory
	// ServerRounds is how often Anthropic asks its model again in one request whose tools it runs itself.
	ServerRounds = 10
)

// Facts reads what the meter needs to know of a request. It fails with *chat.Unsupported.
func Facts(body []byte) (*chat.Facts, error) { return facts(body, true) }

// CountFacts is Facts of a body whose tokens are only to be counted: max_tokens is not demanded.
func CountFacts(body []byte) (*chat.Facts, error) { return facts(body, false) }

func facts(body []byte, limited bool) (*chat.Facts, error) {
	r := factReader{f: chat.Facts{Choices: 1, Rounds: 1, InputBytes: int64(len(body))}}
	seen := map[string]bool{}
	gjson.ParseBytes(body).ForEach(func(key, v gjson.Result) bool {
		if v.Type != gjson.Null {
			seen[key.String()] = true
			r.field(key.String(), v)
		}
		return r.Err == nil
	})
	switch {
	case r.f.Model == "":
		r.Failf("model", "`model` is missing.")
	case !seen["messages"]:
		r.Failf("messages", "`messages` is missing.")
	case limited && !seen["max_tokens"]:
		r.Failf("max_tokens", "`max_tokens` is missing.")
	}
	if r.Err != nil {
		return nil, r.Err
	}
	r.f.InputBytes += r.references * r.longestTool
	if r.compacts {
		r.f.MaxOutput *= 2 // the summary is written beside the answer
	}
	return &r.f, nil
}

// factReader reads one request; its first error stays.
type factReader struct {
	chat.Strict
	f           chat.Facts
	longestTool int64 // in bytes
	references  int64 // to tools: each shows the model a tool's definition once more
	compacts    bool
}

// refuse names what is right in itself, but has no price here.
func (r *factReader) refuse(param, why string) {
	r.Refusef(param, "`%s` is not supported: %s", param, why)
}

// plainFields can neither cost more than their bytes nor bring input that the body does not show.
var plainFields = []string{"temperature", "top_p", "top_k", "stop_sequences", "tool_choice", "thinking", "cache_control"}

// readFields are read below, and must be spelt exactly: a reader that ignores case would obey what was
// not priced.
var readFields = []string{"model", "messages", "max_tokens", "stream", "system", "tools", "service_tier", "metadata",
	"output_config", "output_format", "context_management", "compaction", "mcp_servers", "fallbacks", "speed", "inference_geo", "container", "thread", "diagnostics"}

// field reads one field that is not null.
func (r *factReader) field(name string, v gjson.Result) {
	switch name {
	case "model":
		r.f.Model = r.Text(name, v)
	case "messages":
		r.messages(v)
	case "max_tokens":
		// 0 asks for no answer, only for the input to be cached: no more than 1 can come of it.
		r.f.MaxOutput = max(r.Count(name, v, 0, maxAskedTokens), 1)
	case "stream":
		r.f.Stream = r.Bool(name, v)
	case "system":
		r.system(v)
	case "tools":
		r.f.InputBytes += toolsTokens
		r.Objects(name, v, r.tool)
	case "metadata":
		if user := v.Get("user_id"); user.Type != gjson.Null {
			r.f.EndUser = r.Text("metadata.user_id", user)
		}
	default:
		r.option(name, v)
	}
}

// option reads what else changes the price or the input.
func (r *factReader) option(name string, v gjson.Result) {
	switch name {
	case "service_tier":
		r.tier(r.Text(name, v))
	case "output_config":
		r.known(v, "effort", "format", "task_budget")
		r.f.InputBytes += toolTokens
	case "output_format":
		r.f.InputBytes += toolTokens
	case "context_management":
		r.contextManagement(v)
	case "compaction":
		r.compact()
	case "mcp_servers":
		if v.Get("0").Exists() || !v.IsArray() {
			r.f.Opaque = true
			r.f.Rounds += ServerRounds
		}
	case "fallbacks":
		if !v.IsArray() || v.Get("0").Exists() {
			r.refuse(name, "the models that Anthropic may fall back to are not priced here. The gateway has fallbacks of its own.")
		}
	case "speed":
		if r.f.Speed = r.Text(name, v); r.f.Speed == "standard" {
			r.f.Speed = ""
		}
	case "inference_geo":
		r.f.Geo = r.Text(name, v)
	case "diagnostics":
		r.f.ReferIf("diagnostics.previous_message_id", v.Get("previous_message_id"))
	case "container":
		r.f.Opaque = true
		r.container(v)
	case "thread":
		r.f.Opaque = true
		r.f.Refer(name, "")
	default:
		r.other(name)
	}
}

// container is where Anthropic runs code: an earlier answer's by its id, or with skills, which the operator's
// organisation may have of its own.
func (r *factReader) container(v gjson.Result) {
	if v.Type == gjson.String {
		r.f.Refer("container", v.Str)
		return
	}
	if id := v.Get("id"); id.Type != gjson.Null {
		r.f.Refer("container.id", r.Text("container.id", id))
	}
	v.Get("skills").ForEach(func(_, skill gjson.Result) bool {
		if skill.Get("type").Str != "anthropic" {
			r.f.Refer("container.skills", "")
		}
		return true
	})
}

func (r *factReader) other(name string) {
	if right := chat.Misspelt(name, readFields); right != "" {
		r.Failf(name, "Unknown field %q: did you mean %q?", name, right)
	}
	if why := chat.Steers(name); why != "" {
		r.Refusef(name, "%s", why)
	}
	if !slices.Contains(plainFields, name) {
		r.f.Opaque = true
	}
}

func (r *factReader) tier(name string) {
	switch name {
	case "auto":
		r.f.ServiceTier = name
	case "standard_only":
		r.f.ServiceTier = "default"
	default:
		r.Failf("service_tier", "`service_tier` must be auto or standard_only.")
	}
}

// contextManagement: clearing old results and thinking only takes from the input; a summary is written by
// the model, beside its answer, and what else there may be is not known.
func (r *factReader) contextManagement(v gjson.Result) {
	r.known(v, "edits")
	v.Get("edits").ForEach(func(_, edit gjson.Result) bool {
		switch kind := edit.Get("type").Str; {
		case strings.HasPrefix(kind, "clear_"):
		case strings.HasPrefix(kind, "compact_"):
			r.compact()
		default:
			r.f.Opaque = true
		}
		return true
	})
}

func (r *factReader) compact() {
	r.compacts, r.f.Opaque = true, true
	r.f.Rounds++
}

// known makes the input opaque if an object has fields beside those, or is none.
func (r *factReader) known(v gjson.Result, fields ...string) {
	if !v.IsObject() {
		r.f.Opaque = true
	}
	v.ForEach(func(key, value gjson.Result) bool {
		if value.Type != gjson.Null && !slices.Contains(fields, key.String()) {
			r.f.Opaque = true
		}
		return true
	})
}
