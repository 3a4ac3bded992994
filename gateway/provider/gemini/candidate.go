package gemini

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// choice is one candidate as far as it has come. A whole answer is a stream of one event.
type choice struct {
	index     int
	content   strings.Builder // what was delivered: citations point into it
	starts    []int           // where each part begins in it, in bytes
	calls     int
	images    int
	pending   *pendingCall
	grounding gjson.Result
	queries   int64
	cited     bool
	begun     bool   // its first chunk has gone out
	finish    string // OpenAI's word; "" until it is known
}

// fold reads what a response adds to the candidate. Index is set in every list, as chunks need it.
func (c *choice) fold(h *head, candidate gjson.Result) chat.Delta {
	var d chat.Delta
	for _, p := range candidate.Get("content.parts").Array() {
		c.starts = append(c.starts, c.content.Len())
		c.part(h, &d, p)
	}
	if g := candidate.Get("groundingMetadata"); g.IsObject() {
		c.grounding, c.queries = g, 0
		for _, query := range g.Get("webSearchQueries").Array() {
			if strings.TrimSpace(query.Str) != "" {
				c.queries++
			}
		}
	}
	return d
}

// part adds one part. Pictures among the thoughts are drafts and are left there.
func (c *choice) part(h *head, d *chat.Delta, p gjson.Result) {
	thought, signature := p.Get("thought").Bool(), p.Get("thoughtSignature").Str
	call, data, code, result := p.Get("functionCall"), p.Get("inlineData"), p.Get("executableCode"), p.Get("codeExecutionResult")
	switch {
	case call.IsObject():
		c.call(h, d, call, signature)
		return
	case thought:
		d.ReasoningContent += p.Get("text").Str
		return
	case data.IsObject():
		c.image(d, data)
		return
	case code.IsObject():
		c.say(d, fenced(strings.ToLower(code.Get("language").Str), code.Get("code").Str))
	case result.IsObject():
		c.say(d, fenced("", result.Get("output").Str))
	default:
		c.say(d, p.Get("text").Str)
	}
	if signature != "" {
		d.ExtraContent = signed(signature)
	}
}

func (c *choice) say(d *chat.Delta, text string) {
	if text == "" {
		return
	}
	c.content.WriteString(text)
	if d.Content != nil {
		text = *d.Content + text
	}
	d.Content = &text
}

// fenced shows code that Google ran, or what it printed, in the text: OpenAI's answers have no place
// for either.
func fenced(language, code string) string {
	if code == "" {
		return ""
	}
	return "\n```" + language + "\n" + strings.TrimSuffix(code, "\n") + "\n```\n"
}

func signed(signature string) *chat.ExtraContent {
	if signature == "" {
		return nil
	}
	return &chat.ExtraContent{Google: &chat.GoogleContent{ThoughtSignature: signature}}
}

func (c *choice) image(d *chat.Delta, data gjson.Result) {
	mime := data.Get("mimeType").Str
	if !strings.HasPrefix(mime, "image/") {
		return
	}
	index := c.images
	c.images++
	d.Images = append(d.Images, chat.ReplyImage{Index: &index, Type: "image_url",
		ImageURL: chat.ImageURL{URL: "data:" + mime + ";base64," + data.Get("data").Str}})
}

// call takes in a function call, or a piece of one: the first piece has the name, the last one does
// not go on.
func (c *choice) call(h *head, d *chat.Delta, call gjson.Result, signature string) {
	if name := call.Get("name").Str; name != "" {
		c.flush(h, d)
		c.pending = &pendingCall{id: call.Get("id").Str, name: name}
	}
	if c.pending == nil {
		return
	}
	c.pending.take(call, signature)
	if !call.Get("willContinue").Bool() {
		c.flush(h, d)
	}
}

// flush ends the call under way.
func (c *choice) flush(h *head, d *chat.Delta) {
	if c.pending == nil {
		return
	}
	call, index := c.pending, c.calls
	c.pending = nil
	c.calls++
	d.ToolCalls = append(d.ToolCalls, chat.ReplyCall{
		Index: &index, ID: cmp.Or(call.id, mint(h, c.index, index)), Type: "function",
		Function:     chat.ReplyFunction{Name: call.name, Arguments: call.arguments()},
		ExtraContent: signed(call.signature),
	})
}

// idBytes is how much of a hash makes an id.
const idBytes = 12

// mint is an id for a call that Google gave none. It is the same each time the answer is read.
func mint(h *head, choice, call int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d %d", h.id, h.target.Created, choice, call))
	return "call_" + hex.EncodeToString(sum[:idBytes])
}

// end says how the candidate ended.
func (c *choice) end(h *head, d *chat.Delta, reason string) {
	c.flush(h, d)
	c.cite(d)
	if c.finish = finishOf(reason); h.blocked && reason == "" {
		c.finish = chat.FinishContentFilter
	}
	if c.finish == chat.FinishStop && c.calls > 0 {
		c.finish = chat.FinishToolCalls
	}
}

// finishOf is OpenAI's word for Google's. One that nobody knows is a stop: the tokens are bought.
func finishOf(reason string) string {
	switch reason {
	case "MAX_TOKENS":
		return chat.FinishLength
	case "SAFETY", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "RECITATION", "LANGUAGE", "MODEL_ARMOR",
		"IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION":
		return chat.FinishContentFilter
	}
	return chat.FinishStop
}

// whole is the choice of a whole answer. There content is null only beside tool calls, and lists have
// no index.
func (c *choice) whole(d *chat.Delta, logprobs json.RawMessage) chat.Choice {
	reply := chat.Reply{Role: chat.RoleAssistant, Content: d.Content, ReasoningContent: d.ReasoningContent,
		ToolCalls: d.ToolCalls, Annotations: d.Annotations, Images: d.Images, ExtraContent: d.ExtraContent}
	if reply.Content == nil && len(reply.ToolCalls) == 0 {
		reply.Content = new(string)
	}
	for i := range reply.ToolCalls {
		reply.ToolCalls[i].Index = nil
	}
	for i := range reply.Images {
		reply.Images[i].Index = nil
	}
	return chat.Choice{Index: c.index, Message: reply, Logprobs: logprobs, FinishReason: c.finish}
}

// compact is JSON without its white space; nothing, or no object, is "{}".
func compact(object gjson.Result) string {
	var b bytes.Buffer
	if !object.IsObject() || json.Compact(&b, []byte(object.Raw)) != nil {
		return "{}"
	}
	return b.String()
}
