package generate

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// turn is one candidate as far as it has come. A whole answer is a stream of one piece.
type turn struct {
	index       int64
	thought     strings.Builder // what was given of thinking
	signed      int             // bytes of thought whose signature has come
	text        strings.Builder
	calls       []*pendingCall
	annotations []gjson.Result
	finish      string // OpenAI's word; "" until it is known
}

// pendingCall is a call of a function whose arguments are still coming.
type pendingCall struct {
	index     int64
	id, name  string
	arguments strings.Builder
	signature string
}

// take reads a delta, or a whole message, and returns what can be given at once. Calls wait: Google gives
// them whole.
func (t *turn) take(d gjson.Result) (parts []outPart) {
	blocks, reasoning := d.Get("thinking_blocks").Array(), d.Get("reasoning_content").Str
	if reasoning == "" {
		reasoning = d.Get("reasoning").Str
	}
	if reasoning != "" && len(blocks) == 0 { // beside blocks it is their text again
		parts = append(parts, t.think(reasoning))
	}
	for _, b := range blocks {
		parts = append(parts, t.block(b)...)
	}
	text := d.Get("content").Str + d.Get("refusal").Str
	signature := d.Get("extra_content.google.thought_signature").Str
	if !googles(signature) {
		signature = ""
	}
	if text != "" || signature != "" {
		t.text.WriteString(text)
		parts = append(parts, outPart{Text: &text, Signature: signature})
	}
	for _, image := range d.Get("images").Array() {
		parts = append(parts, pictureOf(image.Get("image_url.url").Str)...)
	}
	for i, c := range d.Get("tool_calls").Array() {
		t.call(c, i)
	}
	t.annotations = append(t.annotations, d.Get("annotations").Array()...)
	return parts
}

func (t *turn) think(text string) outPart {
	t.thought.WriteString(text)
	return outPart{Text: &text, Thought: true}
}

// block gives a block of signed thinking: its signature alone where a stream has told its text before.
func (t *turn) block(v gjson.Result) (parts []outPart) {
	b := chat.ThinkingBlock{Type: v.Get("type").Str, Thinking: v.Get("thinking").Str, Signature: v.Get("signature").Str, Data: v.Get("data").Str}
	part, start := outPart{Thought: true}, t.signed
	if b.Thinking != "" {
		if i := strings.Index(t.thought.String()[start:], b.Thinking); i >= 0 {
			start += i
		} else {
			start = t.thought.Len()
			part = t.think(b.Thinking)
		}
		t.signed = start + len(b.Thinking)
	}
	if b.Signature != "" || b.Data != "" {
		part.Signature = seal(&b, start)
	}
	if part.Text == nil && part.Signature == "" {
		return nil
	}
	return []outPart{part}
}

// pictureOf is a generated image: data in place, or a link.
func pictureOf(url string) []outPart {
	if mime, data := chat.SplitDataURL(url); mime != "" {
		return []outPart{{InlineData: &inlineData{MimeType: mime, Data: data}}}
	}
	if url == "" {
		return nil
	}
	return []outPart{{FileData: &fileData{FileURI: url}}}
}

// call takes in a call, or a piece of one. A whole answer's calls have no index: they come each at once.
func (t *turn) call(v gjson.Result, position int) {
	index := int64(position)
	if i := v.Get("index"); i.Type == gjson.Number {
		index = i.Int()
	}
	i := slices.IndexFunc(t.calls, func(c *pendingCall) bool { return c.index == index })
	if i < 0 {
		i = len(t.calls)
		t.calls = append(t.calls, &pendingCall{index: index})
	}
	c := t.calls[i]
	if id := v.Get("id").Str; id != "" {
		c.id = id
	}
	if name := v.Get("function.name").Str; name != "" {
		c.name = name
	}
	if signature := v.Get("extra_content.google.thought_signature").Str; googles(signature) {
		c.signature = signature
	}
	c.arguments.WriteString(v.Get("function.arguments").Str)
}

// malformed is Google's word for a call that is none.
const malformed = "MALFORMED_FUNCTION_CALL"

// end is the candidate with what has waited for its end. A call whose arguments are no object is told of as
// Google does it: in words.
func (t *turn) end(parts []outPart) candidate {
	c := candidate{Index: t.index, FinishReason: finishOf(t.finish), Grounding: groundingOf(t.annotations, t.text.String())}
	for _, call := range t.calls {
		args := strings.TrimSpace(call.arguments.String())
		if args == "" {
			args = "{}"
		}
		if call.name == "" || args[0] != '{' || !json.Valid([]byte(args)) {
			c.FinishMessage = "Malformed function call: " + call.name
			if c.FinishReason == "STOP" {
				c.FinishReason = malformed
			}
			continue
		}
		parts = append(parts, outPart{FunctionCall: &functionCall{ID: call.id, Name: call.name, Args: json.RawMessage(args)}, Signature: call.signature})
	}
	c.Content = contentFrom(parts)
	return c
}

// contentFrom is a content of the model's.
func contentFrom(parts []outPart) content {
	if len(parts) == 0 {
		parts = []outPart{{Text: new(string)}}
	}
	return content{Parts: parts, Role: "model"}
}

// finishOf is Google's word for OpenAI's. A stream that came to its end and did not say why has stopped.
func finishOf(reason string) string {
	switch reason {
	case "", chat.FinishStop, chat.FinishToolCalls, "function_call":
		return "STOP"
	case chat.FinishLength:
		return "MAX_TOKENS"
	case chat.FinishContentFilter:
		return "SAFETY"
	}
	return "OTHER"
}

// usageOf is Google's way to count OpenAI's usage: thinking beside the candidates. nil if there is none.
func usageOf(u gjson.Result) *usageMetadata {
	if !u.IsObject() {
		return nil
	}
	output := max(u.Get("completion_tokens").Int(), 0)
	m := &usageMetadata{
		Prompt:   max(u.Get("prompt_tokens").Int(), 0),
		Cached:   max(u.Get("prompt_tokens_details.cached_tokens").Int(), 0),
		Thoughts: min(max(u.Get("completion_tokens_details.reasoning_tokens").Int(), 0), output),
	}
	m.Candidates = output - m.Thoughts
	m.Total = m.Prompt + output
	return m
}
