package responses

import (
	"encoding/json"
	"maps"
	"strconv"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// message is one message of a chat completion.
type message struct {
	Role             string               `json:"role"`
	Content          any                  `json:"content"` // a string, []part, or nil
	ReasoningContent string               `json:"reasoning_content,omitempty"`
	ThinkingBlocks   []chat.ThinkingBlock `json:"thinking_blocks,omitempty"`
	ToolCalls        []chat.ReplyCall     `json:"tool_calls,omitempty"`
	ToolCallID       string               `json:"tool_call_id,omitempty"`
	ExtraContent     *chat.ExtraContent   `json:"extra_content,omitempty"`
	CacheControl     json.RawMessage      `json:"cache_control,omitempty"`
}

// conversation makes messages of items. What the model said, thought and called between two turns of the
// others is one message: its items come apart, and reasoning may come after what it led to.
type conversation struct {
	chat.Strict
	input gjson.Result
	done  []message
	open  *assistant
	calls map[string]string // Google's signatures, by the ids of the calls
}

// assistant is the model's turn under way.
type assistant struct {
	message

	parts []part
}

// instruct puts the instructions first, before whatever `input` says.
func (c *conversation) instruct(text string) {
	if text != "" {
		c.done = append(c.done, message{Role: chat.RoleSystem, Content: text})
	}
}

// messages translates the input.
func (c *conversation) messages() ([]message, error) {
	switch {
	case c.input.Type == gjson.String:
		return append(c.done, message{Role: chat.RoleUser, Content: c.input.Str}), nil
	case !c.input.IsArray():
		return nil, chat.Invalid("input", "`input` must be a string or an array of items.")
	}
	items := c.input.Array()
	c.signatures(items)
	for i, item := range items {
		c.item("input["+strconv.Itoa(i)+"]", item)
	}
	c.close()
	if len(c.done) == 0 {
		c.Failf("input", "`input` must hold at least one message.")
	}
	return c.done, c.Err
}

// signatures gathers the signatures of all calls: in a stream they come after the calls.
func (c *conversation) signatures(items []gjson.Result) {
	c.calls = map[string]string{}
	for _, item := range items {
		if own, ours := carriedOf(item); ours {
			maps.Copy(c.calls, own.Calls)
		}
	}
}

func (c *conversation) item(param string, v gjson.Result) {
	if c.Err != nil {
		return
	}
	if !v.IsObject() {
		c.Failf(param, "`%s` must be an object.", param)
		return
	}
	switch kind := kindOf(v); kind {
	case "message":
		c.message(param, v)
	case "function_call":
		c.call(param, v)
	case "function_call_output":
		c.result(param, v)
	case "reasoning":
		c.reasoning(v)
	case "web_search_call": // what was found is in what the model said of it
	case "":
		c.Failf(param+".type", "`%s.type` is missing.", param)
	default:
		c.Refusef(param, "Items of type `%.64s` are OpenAI's alone, and this model is another provider's.", kind)
	}
}

func (c *conversation) message(param string, v gjson.Result) {
	role, parts := v.Get("role").Str, c.parts(param+".content", v.Get("content"))
	switch role {
	case chat.RoleAssistant:
		turn := c.turn()
		turn.parts = append(turn.parts, parts...)
		turn.CacheControl = rawOf(v.Get("cache_control"))
	case chat.RoleUser, chat.RoleSystem, chat.RoleDeveloper:
		c.close()
		c.done = append(c.done, message{Role: role, Content: contentOf(parts), CacheControl: rawOf(v.Get("cache_control"))})
	default:
		c.Failf(param+".role", "`%s.role` must be user, assistant, system or developer.", param)
	}
}

// turn is the model's turn under way, or a new one.
func (c *conversation) turn() *assistant {
	if c.open == nil {
		c.open = &assistant{message: message{Role: chat.RoleAssistant}}
	}
	return c.open
}

// close ends the model's turn. One of reasoning alone is none.
func (c *conversation) close() {
	if turn := c.open; turn != nil && (len(turn.parts) > 0 || len(turn.ToolCalls) > 0) {
		if len(turn.parts) > 0 {
			turn.Content = contentOf(turn.parts)
		}
		c.done = append(c.done, turn.message)
	}
	c.open = nil
}

func (c *conversation) call(param string, v gjson.Result) {
	id, name, arguments := v.Get("call_id").Str, v.Get("name").Str, v.Get("arguments")
	if id == "" || name == "" || arguments.Type != gjson.String {
		c.Failf(param, "`%s` needs call_id, name, and arguments as a string.", param)
		return
	}
	call := chat.ReplyCall{ID: id, Type: "function", Function: chat.ReplyFunction{Name: name, Arguments: arguments.Str},
		ExtraContent: signed(c.calls[id])}
	turn := c.turn()
	turn.ToolCalls = append(turn.ToolCalls, call)
}

// signed is Google's signature where OpenAI-compatible clients have it; nil for none.
func signed(signature string) *chat.ExtraContent {
	if signature == "" {
		return nil
	}
	return &chat.ExtraContent{Google: &chat.GoogleContent{ThoughtSignature: signature}}
}

func (c *conversation) result(param string, v gjson.Result) {
	id := v.Get("call_id").Str
	if id == "" {
		c.Failf(param+".call_id", "`%s.call_id` is missing.", param)
	}
	parts := c.parts(param+".output", v.Get("output"))
	c.close()
	c.done = append(c.done, message{Role: chat.RoleTool, ToolCallID: id, Content: contentOf(parts), CacheControl: rawOf(v.Get("cache_control"))})
}

// reasoning takes back the reasoning that went out from here; OpenAI's own is for OpenAI alone to read.
func (c *conversation) reasoning(v gjson.Result) {
	own, ours := carriedOf(v)
	if !ours {
		return
	}
	turn := c.turn()
	turn.ThinkingBlocks = append(turn.ThinkingBlocks, own.ThinkingBlocks...)
	if own.ThoughtSignature != "" {
		turn.ExtraContent = signed(own.ThoughtSignature)
	}
	v.Get("summary").ForEach(func(_, part gjson.Result) bool {
		turn.ReasoningContent += part.Get("text").Str
		return true
	})
}
