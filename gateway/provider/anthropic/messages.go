package anthropic

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// conversation gathers the turns. Messages of one role in a row become one: Anthropic's roles alternate.
type conversation struct {
	system []block
	turns  []message
	minted []mintedID // calls of the older API that wait for their result
	calls  int        // of the older API, so far
}

// mintedID is the id of a call of the older API, which has none.
type mintedID struct{ name, id string }

// messages translates the conversation.
func (x *translation) messages() error {
	c := conversation{}
	for i := range x.r.Messages {
		if err := c.add(&x.r.Messages[i]); err != nil {
			return err
		}
	}
	x.out.System = systemOf(c.system)
	x.out.Messages = c.turns
	if !c.asked() {
		return &chat.Unsupported{Param: "messages", Message: "Anthropic needs at least one user message that is not empty."}
	}
	x.trimPrefill()
	x.looping = unthought(x.out.Messages)
	return nil
}

func (c *conversation) add(m *chat.Message) error {
	switch {
	case m.System():
		return c.addSystem(m)
	case m.Role == chat.RoleUser:
		blocks, err := partsOf(m, "text", "image_url", "file")
		c.turn(chat.RoleUser, mark(blocks, m.CacheControl))
		return err
	case m.Role == chat.RoleAssistant:
		return c.addAssistant(m)
	case m.Role == chat.RoleTool && m.ToolCallID == "":
		return chat.Invalid(m.Param+".tool_call_id", "`%s.tool_call_id` is missing.", m.Param)
	case m.Role == chat.RoleTool:
		return c.addResult(m, toolID(m.ToolCallID))
	case m.Role == chat.RoleFunction:
		for i, minted := range c.minted {
			if minted.name == m.Name {
				c.minted = append(c.minted[:i:i], c.minted[i+1:]...)
				return c.addResult(m, minted.id)
			}
		}
		return chat.Invalid(m.Param+".name", "`%s` is the result of a function that was not called.", m.Param)
	}
	return chat.Invalid(m.Param+".role", "`%s.role` is none that is known.", m.Param)
}

// asked says whether there is something to answer.
func (c *conversation) asked() bool {
	for i := range c.turns {
		if c.turns[i].Role == chat.RoleUser {
			return true
		}
	}
	return false
}

// turn appends blocks to the last turn if it is of that role, or as a new one. A turn of nothing is none.
func (c *conversation) turn(role string, blocks []block) *message {
	if len(blocks) == 0 {
		return nil
	}
	if last := len(c.turns) - 1; last >= 0 && c.turns[last].Role == role {
		c.turns[last].Content = append(c.turns[last].Content, blocks...)
		return &c.turns[last]
	}
	c.turns = append(c.turns, message{Role: role, Content: blocks})
	return &c.turns[len(c.turns)-1]
}

// addResult adds the result of a tool. All results of a round stand in one message, before all else.
func (c *conversation) addResult(m *chat.Message, id string) error {
	parts, err := partsOf(m, "text", "image_url", "file")
	if err != nil {
		return err
	}
	result := block{Type: "tool_result", ToolUseID: id, CacheControl: chat.RawObject(m.CacheControl)}
	for i := range parts {
		// A mark on a part marks the result: what is inside of a result takes none.
		if parts[i].CacheControl != nil {
			result.CacheControl, parts[i].CacheControl = parts[i].CacheControl, nil
		}
	}
	result.Content = parts
	turn := c.turn(chat.RoleUser, []block{result})
	last := len(turn.Content) - 1
	copy(turn.Content[turn.results+1:], turn.Content[turn.results:last])
	turn.Content[turn.results] = result
	turn.results++
	return nil
}

func (c *conversation) addSystem(m *chat.Message) error {
	blocks, err := partsOf(m, "text")
	if err != nil {
		return err
	}
	c.system = append(c.system, mark(blocks, m.CacheControl)...)
	return nil
}

// systemOf is one text, or, where a part is marked for the cache, the parts.
func systemOf(blocks []block) any {
	if len(blocks) == 0 {
		return nil
	}
	texts := make([]string, len(blocks))
	for i := range blocks {
		if blocks[i].CacheControl != nil {
			return blocks
		}
		texts[i] = blocks[i].Text
	}
	return strings.Join(texts, "\n")
}

// addAssistant adds a turn of the model: its thinking as it was, its text, its calls.
func (c *conversation) addAssistant(m *chat.Message) error {
	parts, err := partsOf(m, "text", "refusal")
	if err != nil {
		return err
	}
	blocks := thoughts(m.Thinking)
	blocks = append(blocks, parts...)
	if strings.TrimSpace(m.Refusal) != "" {
		blocks = append(blocks, block{Type: "text", Text: m.Refusal})
	}
	for i := range m.ToolCalls {
		call, err := c.call(&m.ToolCalls[i])
		if err != nil {
			return err
		}
		blocks = append(blocks, call)
	}
	c.turn(chat.RoleAssistant, mark(blocks, m.CacheControl))
	return nil
}

// thoughts are the blocks of thinking that Anthropic takes back: the signed ones.
func thoughts(thinking []chat.ThinkingBlock) (blocks []block) {
	for _, t := range thinking {
		switch {
		case t.Type == "redacted_thinking" && t.Data != "":
			blocks = append(blocks, block{Type: t.Type, Data: t.Data})
		case t.Type == "thinking" && t.Signature != "":
			blocks = append(blocks, block{Type: t.Type, Thinking: &t.Thinking, Signature: t.Signature})
		}
	}
	return blocks
}

func (c *conversation) call(call *chat.ToolCall) (block, error) {
	if call.Custom {
		return block{}, &chat.Unsupported{Param: call.Param, Message: "Anthropic has no custom tools, and so no calls of them."}
	}
	if !isToolName(call.Name) {
		return block{}, badName(call.Param + ".function.name")
	}
	arguments := call.Arguments
	if strings.TrimSpace(arguments) == "" {
		arguments = "{}"
	}
	if !json.Valid([]byte(arguments)) || !gjson.Parse(arguments).IsObject() {
		return block{}, &chat.Unsupported{Param: call.Param + ".function.arguments", Message: "Anthropic takes no arguments that are not a JSON object."}
	}
	id := toolID(call.ID)
	if call.ID == "" {
		id = "call_" + strconv.Itoa(c.calls)
		c.calls++
		c.minted = append(c.minted, mintedID{name: call.Name, id: id})
	}
	return block{Type: "tool_use", ID: id, Name: call.Name, Input: json.RawMessage(arguments)}, nil
}

// toolID is a call's id as Anthropic takes it. Others are rewritten, each to the same wherever it stands,
// and never two to one.
func toolID(id string) string {
	if only(id, "-_") {
		return id
	}
	clean := strings.Map(func(r rune) rune {
		if r < 0x80 && only(string(r), "-_") {
			return r
		}
		return '_'
	}, id)
	sum := sha256.Sum256([]byte(id))
	return clean + "_" + hex.EncodeToString(sum[:8])
}

// mark puts a message's cache mark on its last block. Thinking takes none.
func mark(blocks []block, cache gjson.Result) []block {
	if last := len(blocks) - 1; last >= 0 && cache.IsObject() && !isThought(&blocks[last]) {
		blocks[last].CacheControl = chat.RawObject(cache)
	}
	return blocks
}

func isThought(b *block) bool { return b.Type == "thinking" || b.Type == "redacted_thinking" }

// trimPrefill cuts white space off the end of what the model is to go on with: Anthropic refuses it.
func (x *translation) trimPrefill() {
	turn := &x.out.Messages[len(x.out.Messages)-1]
	if turn.Role != chat.RoleAssistant {
		return
	}
	if last := &turn.Content[len(turn.Content)-1]; last.Type == "text" {
		last.Text = strings.TrimRight(last.Text, " \t\r\n\v\f")
	}
}

// unthought says whether the conversation ends with results of tools whose calls came back without the
// thinking before them: then Anthropic refuses to think on.
func unthought(turns []message) bool {
	last := len(turns) - 1
	return last > 0 && turns[last].results > 0 && !isThought(&turns[last-1].Content[0])
}
