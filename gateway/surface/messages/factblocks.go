package messages

import (
	"slices"
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// blockFields are the blocks whose input is the text that the body shows, and the fields that they have
// beside type and cache_control. A block with others may be something else to its reader.
var blockFields = map[string][]string{
	"text":              {"text", "citations"},
	"thinking":          {"thinking", "signature"},
	"redacted_thinking": {"data"},
	"tool_use":          {"id", "name", "input", "caller", "toolset_name"},
	"tool_result":       {"tool_use_id", "content", "is_error", "toolset_name"},
	"tool_reference":    {"tool_name"},
	"search_result":     {"source", "title", "content", "citations"},
	"document":          {"source", "title", "context", "citations"},
	"image":             {"source"},
	"tool_addition":     {"tool"},
	"tool_removal":      {"tool"},
	"fallback":          {"from", "to", "trigger"},
}

func (r *factReader) system(v gjson.Result) {
	if v.Type == gjson.String {
		return
	}
	r.Objects("system", v, func(param string, b gjson.Result) {
		if b.Get("type").Str != "text" {
			r.f.Opaque = true
		}
		r.block(param, b)
	})
}

func (r *factReader) messages(v gjson.Result) {
	if v.IsArray() && !v.Get("0").Exists() {
		r.Failf("messages", "`messages` must have at least one message.")
	}
	r.Objects("messages", v, r.message)
}

func (r *factReader) message(param string, m gjson.Result) {
	role := m.Get("role").Str
	if role != roleUser && role != roleAssistant && role != roleSystem {
		r.Failf(param+".role", "`%s.role` must be user, assistant or system.", param)
	}
	r.known(m, "role", "content", "clear_at", "output_config")
	if content := m.Get("content"); content.Type != gjson.Null || role != roleSystem {
		r.content(param+".content", content)
	}
}

func (r *factReader) content(param string, v gjson.Result) {
	if v.Type != gjson.String {
		r.Objects(param, v, r.block)
	}
}

// block looks at one block for what its bytes do not bound.
func (r *factReader) block(param string, b gjson.Result) {
	kind := b.Get("type").Str
	r.f.ReferIf(param+".file_id", b.Get("file_id"))
	r.f.ReferIf(param+".source.file_id", b.Get("source.file_id"))
	fields, known := blockFields[kind]
	if !known {
		r.f.Opaque = true
		return
	}
	r.known(b, append([]string{"type", "cache_control"}, fields...)...)
	switch kind {
	case "image":
		r.image(b)
	case "document":
		r.document(param, b)
	case "tool_reference":
		r.references++
	case "tool_addition":
		r.addition(param+".tool", b.Get("tool"))
	case "tool_result", "search_result":
		if content := b.Get("content"); content.Type != gjson.Null {
			r.content(param+".content", content)
		}
		r.cited(b)
	}
}

// image is billed by its size in pixels, wherever it comes from.
func (r *factReader) image(b gjson.Result) {
	source := b.Get("source")
	r.known(source, "type", "media_type", "data", "url", "file_id")
	if !slices.Contains([]string{"base64", "url", "file"}, source.Get("type").Str) {
		r.f.Opaque = true
	}
	r.f.Images++
	r.f.ImageBytes += int64(len(b.Raw))
}

// document is bounded by its bytes only where it is text; pages are billed as images too.
func (r *factReader) document(param string, b gjson.Result) {
	source := b.Get("source")
	r.known(source, "type", "media_type", "data", "content")
	switch source.Get("type").Str {
	case "text":
	case "content":
		r.content(param+".source.content", source.Get("content"))
	default:
		r.f.Opaque = true
	}
	r.cited(b)
}

// cited: what may be cited is cut into pieces, and each is marked.
func (r *factReader) cited(b gjson.Result) {
	if b.Get("citations.enabled").Bool() {
		r.f.InputBytes += int64(len(b.Raw))
	}
}

// addition is a tool that comes in the middle of a conversation, by its name or with its definition.
func (r *factReader) addition(param string, v gjson.Result) {
	definition := v.Get("definition")
	if !definition.Exists() {
		r.references++
		return
	}
	if kind := definition.Get("type"); kind.Type != gjson.Null && kind.Str != "custom" {
		r.refuse(param+".definition", "tools that Anthropic defines must stand in `tools`.")
	}
	r.f.InputBytes += toolsTokens
	r.tool(param+".definition", definition)
}

// toolFields are those of a client's own tool.
var toolFields = []string{"type", "name", "description", "input_schema", "cache_control", "strict", "defer_loading",
	"eager_input_streaming", "input_examples", "allowed_callers"}

// tool bounds a tool by what its type tells. The date of a type is its version.
func (r *factReader) tool(param string, t gjson.Result) {
	r.f.InputBytes += toolTokens
	r.longestTool = max(r.longestTool, int64(len(t.Raw)))
	r.spelling(param, t)
	switch kind := t.Get("type"); {
	case kind.Type == gjson.Null || kind.Type == gjson.String && kind.Str == "custom":
		r.known(t, toolFields...)
	case hasPrefix(kind.Str, "web_search_"):
		r.webSearch(param, t)
	case hasPrefix(kind.Str, "web_fetch_"):
		r.f.Opaque = true
		r.f.Rounds += max(ServerRounds, r.uses(param, t, ServerRounds))
	case hasPrefix(kind.Str, "code_execution_", "tool_search_tool_"):
		r.f.Opaque = true
		r.f.Rounds += ServerRounds
	case hasPrefix(kind.Str, "computer_toolset_", "browser_toolset_", "mcp_toolset"):
		r.f.Opaque = true // how long their definitions are is not known; the rounds of MCP are those of mcp_servers
	case hasPrefix(kind.Str, "bash_", "text_editor_", "computer_", "memory_"):
		r.f.InputBytes += clientTokens
	case hasPrefix(kind.Str, "advisor_"):
		r.refuse(param, "the model that advises is not priced here.")
	default:
		r.refuse(param+".type", "what a tool of this type may cost is not known here.")
	}
}

func hasPrefix(s string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) })
}

// spelling refuses other spellings of what is counted.
func (r *factReader) spelling(param string, t gjson.Result) {
	t.ForEach(func(key, _ gjson.Result) bool {
		k := key.String()
		if right := chat.Misspelt(k, []string{"type", "max_uses"}); right != "" {
			r.Failf(param+"."+k, "Unknown field %q: did you mean %q?", k, right)
		}
		return true
	})
}

// FirstSearch is the one version of web searches that runs no code of the model's to sift what was found.
const FirstSearch = "web_search_20250305"

func (r *factReader) webSearch(param string, t gjson.Result) {
	uses := r.uses(param, t, DefaultMaxUses)
	r.f.WebSearch, r.f.Opaque = true, true
	r.f.Searches += uses
	r.f.Rounds += uses
	if t.Get("type").Str != FirstSearch {
		r.f.Rounds += ServerRounds
	}
}

// uses is how often a tool may be used.
func (r *factReader) uses(param string, t gjson.Result, otherwise int64) int64 {
	if v := t.Get("max_uses"); v.Type != gjson.Null {
		return r.Count(param+".max_uses", v, 1, maxUses)
	}
	return otherwise
}
