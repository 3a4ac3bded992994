package anthropic

import (
	"encoding/json"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// blockStart opens a block.
func (r *reader) blockStart(b gjson.Result, chunks []chat.Chunk) ([]chat.Chunk, error) {
	chunks = r.begin(chunks)
	r.open = openBlock{kind: b.Get("type").Str, start: r.characters}
	switch r.open.kind {
	case "text":
		r.cite(b.Get("citations"))
		return r.content(b.Get("text").Str, chunks), nil
	case "thinking":
		r.open.thought = chat.ThinkingBlock{Type: "thinking", Signature: b.Get("signature").Str}
		return r.reasoning(b.Get("thinking").Str, chunks), nil
	case "redacted_thinking":
		r.open.thought = thoughtOf(b)
		return chunks, nil
	case "tool_use":
		return r.callStart(b, chunks)
	}
	return chunks, nil
}

// delta takes in what is added to the open block.
func (r *reader) delta(d gjson.Result, chunks []chat.Chunk) ([]chat.Chunk, error) {
	switch kind := d.Get("type").Str; {
	case kind == "text_delta" && (r.open.kind == "text" || r.open.kind == ""):
		return r.content(d.Get("text").Str, r.begin(chunks)), nil
	case kind == "thinking_delta" && r.open.kind == "thinking":
		return r.reasoning(d.Get("thinking").Str, chunks), nil
	case kind == "signature_delta" && r.open.kind == "thinking":
		r.open.thought.Signature += d.Get("signature").Str
	case kind == "citations_delta" && r.open.kind == "text":
		r.cite(d.Get("citation"))
	case kind == "input_json_delta" && r.open.kind == "tool_use":
		return r.arguments(d.Get("partial_json").Str, chunks)
	}
	return chunks, nil
}

// cite keeps a citation, or a list of them, until its text has come.
func (r *reader) cite(c gjson.Result) {
	if c.IsArray() {
		c.ForEach(func(_, each gjson.Result) bool { r.cite(each); return true })
		return
	}
	if c.IsObject() {
		r.open.cited = appendCitation(r.open.cited, c, 0, 0)
	}
}

// blockStop closes the open block, if there is one.
func (r *reader) blockStop(chunks []chat.Chunk) ([]chat.Chunk, error) {
	open := r.open
	r.open = openBlock{}
	switch open.kind {
	case "text":
		for _, c := range open.cited {
			c.URLCitation.StartIndex, c.URLCitation.EndIndex = open.start, r.characters
			r.annotations = append(r.annotations, c)
		}
	case "thinking", "redacted_thinking":
		open.thought.Thinking = string(open.thinking)
		r.thoughts = append(r.thoughts, open.thought)
	case "tool_use":
		return r.callStop(open, chunks)
	}
	return chunks, nil
}

// call is a call of a tool as far as the client has seen it.
type call struct {
	name      string
	arguments []byte
	content   bool // it is the call that gives the content its form
}

// callStart begins a call. After a stream that began again it must be the one that was seen: that goes
// on, under the id that it had.
func (r *reader) callStart(b gjson.Result, chunks []chat.Chunk) ([]chat.Chunk, error) {
	c := call{name: b.Get("name").Str}
	c.content = r.jsonTool != "" && c.name == r.jsonTool
	r.open.call, r.open.given = r.called, argumentsOf(b.Get("input"))
	r.called++
	if r.open.call < len(r.calls) {
		if r.calls[r.open.call].name != c.name {
			return chunks, errBegunAgain
		}
		return chunks, nil
	}
	r.calls = append(r.calls, c)
	if c.content {
		return chunks, nil
	}
	index := r.shown(r.open.call)
	delta := chat.ReplyCall{Index: &index, ID: b.Get("id").Str, Type: "function", Function: chat.ReplyFunction{Name: c.name}}
	return append(chunks, r.chunk(chat.Delta{ToolCalls: []chat.ReplyCall{delta}}, c.name)), nil
}

// arguments takes in a piece of a call's arguments and gives on what the client has not seen.
func (r *reader) arguments(piece string, chunks []chat.Chunk) ([]chat.Chunk, error) {
	c := &r.calls[r.open.call]
	seen := c.arguments[r.open.received:]
	r.open.received += len(piece)
	if n := min(len(seen), len(piece)); n > 0 {
		if string(seen[:n]) != piece[:n] {
			return chunks, errBegunAgain
		}
		piece = piece[n:]
	}
	if piece == "" {
		return chunks, nil
	}
	c.arguments = append(c.arguments, piece...)
	if c.content {
		return r.content(piece, chunks), nil
	}
	index := r.shown(r.open.call)
	delta := chat.ReplyCall{Index: &index, Function: chat.ReplyFunction{Arguments: piece}}
	return append(chunks, r.chunk(chat.Delta{ToolCalls: []chat.ReplyCall{delta}}, piece)), nil
}

// callStop ends a call. One whose arguments came in no piece has those that it began with.
func (r *reader) callStop(open openBlock, chunks []chat.Chunk) (_ []chat.Chunk, err error) {
	if open.received == 0 {
		r.open = open
		chunks, err = r.arguments(open.given, chunks)
		open, r.open = r.open, openBlock{}
	}
	if err == nil && open.received < len(r.calls[open.call].arguments) {
		err = errBegunAgain
	}
	return chunks, err
}

// shown is how many of the first n calls the client sees as calls: that which is the content it does not.
func (r *reader) shown(n int) (shown int) {
	for i := range r.calls[:n] {
		if !r.calls[i].content {
			shown++
		}
	}
	return shown
}

// textStart is how an event with a piece of text begins, up to the number of its block, and textMiddle
// what stands between that and the text.
const (
	textStart  = `{"type":"content_block_delta","index":`
	textMiddle = `,"delta":{"type":"text_delta","text":`
)

// textDelta is the JSON string of an event with a piece of text, in the form in which Anthropic writes
// it; not ok for every other, and for what is not surely valid.
func textDelta(data []byte) (token []byte, ok bool) {
	if len(data) < len(textStart) || string(data[:len(textStart)]) != textStart {
		return nil, false
	}
	i := len(textStart)
	first := i
	for i < len(data) && data[i]-'0' < 10 {
		i++
	}
	rest := data[i:]
	if i == first || i > first+1 && data[first] == '0' || len(rest) < len(textMiddle) || string(rest[:len(textMiddle)]) != textMiddle {
		return nil, false
	}
	rest = rest[len(textMiddle):]
	n, plain := stringLength(rest)
	if n == 0 || !plain && !json.Valid(rest[:n]) || !closes(rest[n:]) {
		return nil, false
	}
	return rest[:n], n > len(`""`) && utf8.Valid(rest[:n])
}

// stringLength is the length of the JSON string that b begins with, with its quotes; 0 if there is none.
// plain says that it has no escapes.
func stringLength(b []byte) (n int, plain bool) {
	if len(b) == 0 || b[0] != '"' {
		return 0, false
	}
	plain = true
	for i := 1; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return i + 1, plain
		case c < ' ':
			return 0, false
		case c == '\\':
			plain = false
			i++
		}
	}
	return 0, false
}

// closes says whether b is the end of two objects, with any space that pads them.
func closes(b []byte) bool {
	braces := 0
	for _, c := range b {
		switch c {
		case '}':
			braces++
		case ' ', '\t', '\r', '\n':
		default:
			return false
		}
	}
	return braces == 2
}
