package messages

import (
	"encoding/json"
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// billingLine is how the block of a system prompt begins with which Claude Code accounts to Anthropic for
// itself. No model reads it.
const billingLine = "x-anthropic-billing-header:"

// system translates the system prompt: one message.
func (t *translator) system() {
	v, ok := t.in["system"]
	if !ok {
		return
	}
	var parts []part
	if v.Type == gjson.String {
		parts = []part{textPart(v.Str)}
	} else {
		t.Each("system", v, func(param string, b gjson.Result) {
			if !strings.HasPrefix(b.Get("text").Str, billingLine) {
				parts = append(parts, t.parts(param, b)...)
			}
		})
	}
	t.say(roleSystem, parts)
}

// say adds a message of parts; one of nothing is none.
func (t *translator) say(role string, parts []part) {
	if len(parts) > 0 {
		t.out.Messages = append(t.out.Messages, message{Role: role, Content: contentOf(parts)})
	}
}

// contentOf is the text alone where one text is all there is: every provider takes a string.
func contentOf(parts []part) any {
	if len(parts) == 1 && parts[0].Type == "text" && parts[0].CacheControl == nil {
		return *parts[0].Text
	}
	return parts
}

// conversation translates the turns.
func (t *translator) conversation() {
	v := t.in["messages"]
	lastUser := lastOf(v, roleUser)
	i := 0
	t.Each("messages", v, func(param string, m gjson.Result) {
		switch role := m.Get("role").Str; role {
		case roleUser:
			t.user(t.blocks(param, m))
		case roleAssistant:
			t.assistant(t.blocks(param, m))
		case roleSystem:
			t.instruction(param, m, i < lastUser)
		default:
			t.Failf(param+".role", "`%s.role` must be user, assistant or system.", param)
		}
		i++
	})
}

// lastOf is the index of the last message of a role; -1 if there is none.
func lastOf(messages gjson.Result, role string) int {
	last, i := -1, 0
	messages.ForEach(func(_, m gjson.Result) bool {
		if m.Get("role").Str == role {
			last = i
		}
		i++
		return true
	})
	return last
}

// placed is a block with its place in the request.
type placed struct {
	gjson.Result
	param string
}

// blocks are the blocks of a message; a string is one of text.
func (t *translator) blocks(param string, m gjson.Result) (blocks []placed) {
	content := m.Get("content")
	param += ".content"
	if content.Type == gjson.String {
		text := gjson.ParseBytes(chat.Encode(map[string]string{"type": "text", "text": content.Str}))
		return []placed{{text, param}}
	}
	t.Each(param, content, func(param string, b gjson.Result) { blocks = append(blocks, placed{b, param}) })
	return blocks
}

// instruction is a system message in the middle of the conversation. One that was for a single turn is
// no longer shown when that is over.
func (t *translator) instruction(param string, m gjson.Result, over bool) {
	if effort := m.Get("output_config.effort"); effort.Type != gjson.Null {
		t.level = t.Text(param+".output_config.effort", effort)
	}
	if m.Get("content").Type == gjson.Null || over && m.Get("clear_at").Str == "next_user_message" {
		return
	}
	var parts []part
	for _, b := range t.blocks(param, m) {
		parts = append(parts, t.parts(b.param, b.Result)...)
	}
	t.say(roleSystem, parts)
}

// user translates a turn of the user: the results of tools, each a message of its own, then the rest. A
// tool message has only text, so the images of results stand at the head of the rest.
func (t *translator) user(blocks []placed) {
	var shown, said []part
	for _, b := range blocks {
		if b.Get("type").Str == "tool_result" {
			shown = append(shown, t.result(b)...)
			continue
		}
		said = append(said, t.parts(b.param, b.Result)...)
	}
	t.say(roleUser, append(shown, said...))
}

// imageFollows stands for the content of a result that is nothing but images.
const imageFollows = "The result is the image that follows."

// result adds the result of a tool and returns the parts that it cannot have.
func (t *translator) result(b placed) (shown []part) {
	m := message{Role: chat.RoleTool, ToolCallID: t.name(b.param+".tool_use_id", b.Get("tool_use_id")), CacheControl: chat.RawObject(b.Get("cache_control"))}
	var texts []string
	content := b.Get("content")
	switch content.Type {
	case gjson.Null:
	case gjson.String:
		texts = []string{content.Str}
	default:
		t.Each(b.param+".content", content, func(param string, inner gjson.Result) {
			for _, p := range t.parts(param, inner) {
				if p.Type == "text" {
					texts = append(texts, *p.Text)
				} else {
					shown = append(shown, p)
				}
			}
		})
	}
	if len(texts) == 0 && len(shown) > 0 {
		texts = []string{imageFollows}
	}
	m.Content = strings.Join(texts, "\n")
	t.out.Messages = append(t.out.Messages, m)
	return shown
}

// assistant translates a turn of the model: its thinking, its text, its calls.
func (t *translator) assistant(blocks []placed) {
	m := message{Role: roleAssistant}
	var parts []part
	var thoughts thoughts
	for i, b := range blocks {
		switch b.Get("type").Str {
		case "thinking", "redacted_thinking":
			thoughts.add(b.Result)
		case "tool_use":
			m.ToolCalls = append(m.ToolCalls, t.call(b, thoughts.forCall()))
			if i == len(blocks)-1 {
				m.CacheControl = chat.RawObject(b.Get("cache_control"))
			}
		case "fallback": // marks where another model went on; no model reads it
		case "text":
			parts = append(parts, t.parts(b.param, b.Result)...)
		default:
			t.refuse(b.param + ".type")
		}
	}
	if len(parts) > 0 {
		m.Content = spoken(parts)
	}
	m.ThinkingBlocks, m.ReasoningContent = thoughts.blocks, thoughts.text()
	m.ExtraContent = signed(thoughts.ofMessage)
	if m.Content == nil && m.ToolCalls == nil {
		if m.ThinkingBlocks == nil && m.ExtraContent == nil {
			return
		}
		m.Content = ""
	}
	t.out.Messages = append(t.out.Messages, m)
}

// spoken is what the model said: one text, cut into blocks only where something is cited, or marked.
func spoken(parts []part) any {
	var text strings.Builder
	for i := range parts {
		if parts[i].CacheControl != nil {
			return contentOf(parts)
		}
		text.WriteString(*parts[i].Text)
	}
	return text.String()
}

func (t *translator) call(b placed, signature string) chat.ReplyCall {
	input := "{}"
	if v := b.Get("input"); v.IsObject() {
		input = compact(v.Raw)
	}
	return chat.ReplyCall{ID: t.name(b.param+".id", b.Get("id")), Type: "function", ExtraContent: signed(signature),
		Function: chat.ReplyFunction{Name: t.name(b.param+".name", b.Get("name")), Arguments: input}}
}

// compact takes the space out of JSON that was parsed.
func compact(raw string) string {
	b, err := chat.Marshal(json.RawMessage(raw))
	if err != nil {
		return raw
	}
	return string(b)
}
