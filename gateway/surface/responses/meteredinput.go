package responses

import "github.com/tidwall/gjson"

// input reads the conversation and looks for what its bytes do not bound.
func (m *meter) input(param string, v gjson.Result) {
	if v.Type == gjson.String {
		return
	}
	if !v.IsArray() {
		m.Failf(param, "`%s` must be a string or an array of items.", param)
		return
	}
	m.Objects(param, v, m.item)
}

// plainItems are items that stand in the body with all that the model sees of them.
var plainItems = map[string]bool{
	"function_call": true, "custom_tool_call": true, "local_shell_call": true, "local_shell_call_output": true,
	"shell_call": true, "shell_call_output": true, "apply_patch_call": true, "apply_patch_call_output": true,
	"computer_call": true,
}

func (m *meter) item(param string, v gjson.Result) {
	switch kind := kindOf(v); {
	case plainItems[kind]:
	case kind == "message":
		m.message(param, v)
	case kind == "function_call_output" || kind == "custom_tool_call_output":
		m.content(param+".output", v.Get("output"))
	case kind == "computer_call_output":
		m.part(param+".output", v.Get("output"))
	case kind == "reasoning":
		m.sealed(param, v)
	case kind == "additional_tools" || kind == "tool_search_output":
		m.f.Opaque = true
		if tools := v.Get("tools"); tools.Type != gjson.Null {
			m.toolList(param+".tools", tools)
		}
	case kind == "configuration_update":
		m.f.InputBytes += toolTokens
	case kind == "compaction_trigger":
		m.compacts = true
	default: // references, compacted conversations, what tools of OpenAI's found, and what nobody here knows
		m.f.Opaque = true
		m.sealed(param, v)
	}
}

// sealed is an item whose content only OpenAI can read. Where it is not in the body either, OpenAI looks it up
// by its id.
func (m *meter) sealed(param string, v gjson.Result) {
	if v.Get("encrypted_content").Str != "" {
		return
	}
	m.f.Opaque = true
	if id := v.Get("id"); id.Type != gjson.Null {
		m.f.Refer(param+".id", m.TextOrNull(param+".id", id))
	}
	for _, of := range [...]string{"container_id", "file_id", "vector_store_id"} {
		m.f.ReferIf(param+"."+of, v.Get(of))
	}
}

// kindOf is an item's type. Messages may leave theirs out, and so may references.
func kindOf(item gjson.Result) string {
	kind := item.Get("type")
	if kind.Type == gjson.Null && item.Get("role").Exists() {
		return "message"
	}
	return kind.Str
}

func (m *meter) message(param string, v gjson.Result) {
	v.ForEach(func(key, of gjson.Result) bool {
		switch key.String() {
		case "content":
			m.content(param+".content", of)
		case "type", "role", "id", "status", "phase":
		default:
			m.f.Opaque = m.f.Opaque || of.Type != gjson.Null
		}
		return m.Err == nil
	})
}

func (m *meter) content(param string, v gjson.Result) {
	switch {
	case v.Type == gjson.String || v.Type == gjson.Null:
	case v.IsArray():
		m.Objects(param, v, m.part)
	default:
		m.Failf(param, "`%s` must be a string or an array of parts.", param)
	}
}

// part looks at one part of a content. One that says it is text and has more than text may be something
// else to its reader; so may an image.
func (m *meter) part(param string, v gjson.Result) {
	kind, text, image, more := "", false, false, false
	v.ForEach(func(key, of gjson.Result) bool {
		switch name := key.String(); name {
		case "type":
			kind = of.Str
		case "text", "refusal":
			text = true
		case "image_url", "file_id":
			image = image || of.Type != gjson.Null
			if name == "file_id" {
				m.f.ReferIf(param+"."+name, of)
			}
		case "prompt_cache_breakpoint":
			m.retention(param+"."+name, of)
		case "annotations", "logprobs", "detail":
		default:
			more = more || of.Type != gjson.Null
		}
		return true
	})
	switch kind {
	case "input_text", "output_text", "refusal":
		m.f.Opaque = m.f.Opaque || !text || image || more
	case "input_image", "computer_screenshot":
		m.f.Images++
		m.f.ImageBytes += int64(len(v.Raw))
		m.f.Opaque = m.f.Opaque || text || !image || more
	case "input_audio":
		m.f.AudioIn, m.f.Opaque = true, true
	default:
		m.f.Opaque = true
	}
}
