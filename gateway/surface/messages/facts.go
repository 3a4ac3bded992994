package messages

import (
	"slices"
	"strconv"
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
		return r.err == nil
	})
	switch {
	case r.f.Model == "":
		r.failf("model", "`model` is missing.")
	case !seen["messages"]:
		r.failf("messages", "`messages` is missing.")
	case limited && !seen["max_tokens"]:
		r.failf("max_tokens", "`max_tokens` is missing.")
	}
	if r.err != nil {
		return nil, r.err
	}
	r.f.InputBytes += r.references * r.longestTool
	if r.compacts {
		r.f.MaxOutput *= 2 // the summary is written beside the answer
	}
	return &r.f, nil
}

// factReader reads one request; its first error stays.
type factReader struct {
	f           chat.Facts
	longestTool int64 // in bytes
	references  int64 // to tools: each shows the model a tool's definition once more
	compacts    bool
	err         error
}

func (r *factReader) failf(param, format string, args ...any) {
	if r.err == nil {
		r.err = chat.Invalid(param, format, args...)
	}
}

// refuse names what is right in itself, but has no price here.
func (r *factReader) refuse(param, why string) {
	if r.err == nil {
		r.err = &chat.Unsupported{Param: param, Message: "`" + param + "` is not supported: " + why}
	}
}

// plainFields can neither cost more than their bytes nor bring input that the body does not show.
var plainFields = []string{"temperature", "top_p", "top_k", "stop_sequences", "tool_choice", "thinking", "cache_control", "diagnostics"}

// readFields are read below, and must be spelt exactly: a reader that ignores case would obey what was
// not priced.
var readFields = []string{"model", "messages", "max_tokens", "stream", "system", "tools", "service_tier", "metadata",
	"output_config", "output_format", "context_management", "compaction", "mcp_servers", "fallbacks", "speed", "inference_geo"}

// field reads one field that is not null.
func (r *factReader) field(name string, v gjson.Result) {
	switch name {
	case "model":
		r.f.Model = r.text(name, v)
	case "messages":
		r.messages(v)
	case "max_tokens":
		// 0 asks for no answer, only for the input to be cached: no more than 1 can come of it.
		r.f.MaxOutput = max(r.count(name, v, 0, maxAskedTokens), 1)
	case "stream":
		r.f.Stream = r.boolean(name, v)
	case "system":
		r.system(v)
	case "tools":
		r.f.InputBytes += toolsTokens
		r.each(name, v, r.tool)
	case "metadata":
		if user := v.Get("user_id"); user.Type != gjson.Null {
			r.f.EndUser = r.text("metadata.user_id", user)
		}
	default:
		r.option(name, v)
	}
}

// option reads what else changes the price or the input.
func (r *factReader) option(name string, v gjson.Result) {
	switch name {
	case "service_tier":
		r.tier(r.text(name, v))
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
		if r.text(name, v) != "standard" {
			r.refuse(name, "only `standard` has a price here.")
		}
	case "inference_geo":
		if r.text(name, v) != "global" {
			r.refuse(name, "only `global` has a price here.")
		}
	default:
		r.other(name)
	}
}

func (r *factReader) other(name string) {
	for _, known := range readFields {
		if strings.EqualFold(known, name) {
			r.failf(name, "Unknown field %q: did you mean %q?", name, known)
		}
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
		r.failf("service_tier", "`service_tier` must be auto or standard_only.")
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

func (r *factReader) each(param string, v gjson.Result, do func(param string, v gjson.Result)) {
	if !v.IsArray() {
		r.failf(param, "`%s` must be an array.", param)
		return
	}
	i := 0
	v.ForEach(func(_, element gjson.Result) bool {
		at := param + "[" + strconv.Itoa(i) + "]"
		if !element.IsObject() {
			r.failf(at, "`%s` must be an object.", at)
		} else {
			do(at, element)
		}
		i++
		return r.err == nil
	})
}

func (r *factReader) text(param string, v gjson.Result) string {
	if v.Type != gjson.String {
		r.failf(param, "`%s` must be a string.", param)
	}
	return v.Str
}

func (r *factReader) boolean(param string, v gjson.Result) bool {
	if !v.IsBool() {
		r.failf(param, "`%s` must be true or false.", param)
	}
	return v.Bool()
}

// count takes whole numbers of a range, written as such.
func (r *factReader) count(param string, v gjson.Result, least, most int64) int64 {
	n, err := strconv.ParseInt(v.Raw, 10, 64)
	if v.Type != gjson.Number || err != nil || n < least || n > most {
		r.failf(param, "`%s` must be a whole number from %d to %d.", param, least, most)
		return least
	}
	return n
}
