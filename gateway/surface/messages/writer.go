package messages

import (
	"cmp"
	"encoding/json"
	"slices"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// Writer translates a stream of chat chunks.
func (f *foreign) Writer() chat.Writer { return &writer{id: messageID(f.id)} }

// writer writes the events of one message. At most one block is open.
type writer struct {
	id    string
	begun bool
	index int    // of the block that is open, or of the next
	open  string // the type of the open block; "" = none

	reasoned  bool   // reasoning has come as text
	signature string // Google's, of the message: waits for the end of the text
	calls     []*call
	next      int      // of calls: the one that is being written, or the next to be
	held      []func() // what waits for a call to be complete
	refused   bool
	finish    string
	usage     gjson.Result
	tier      string

	events []chat.Chunk // the caller's
}

// call is a call of a tool as far as it came.
type call struct {
	index     int64 // the provider's
	id, name  string
	signature string
	arguments []byte
	sent      int // of arguments
	begun     bool
}

// Chunk implements chat.Writer.
func (w *writer) Chunk(data []byte, events []chat.Chunk) []chat.Chunk {
	if !json.Valid(data) {
		return events
	}
	w.events = events
	c := gjson.ParseBytes(data)
	w.begin(c.Get("model").Str)
	if u := c.Get("usage"); u.IsObject() {
		w.usage = u
	}
	w.tier = cmp.Or(c.Get("service_tier").Str, w.tier)
	c.Get("choices").ForEach(func(_, choice gjson.Result) bool {
		if choice.Get("index").Int() == 0 {
			w.delta(choice.Get("delta"))
			w.finished(choice.Get("finish_reason").Str)
		}
		return true
	})
	return w.events
}

// End implements chat.Writer.
func (w *writer) End(events []chat.Chunk) []chat.Chunk {
	w.events = events
	w.begin("")
	w.closeAll()
	reason := stopReason(w.finish, w.called(), w.refused)
	w.emit(messageDelta{Type: "message_delta", Delta: stopDelta{StopReason: reason}, Usage: usageOf(w.usage, w.tier)}.encode())
	w.events = append(w.events, chat.Chunk{Data: []byte(`{"type":"message_stop"}`), Event: "message_stop", Last: true})
	return w.events
}

// called says whether a call was written.
func (w *writer) called() bool {
	return slices.ContainsFunc(w.calls, func(c *call) bool { return c.begun })
}

// finished takes in why the model stopped: nothing comes after that but what is told of the whole.
func (w *writer) finished(reason string) {
	if reason != "" {
		w.finish = reason
		w.closeAll()
	}
}

// closeAll ends what is open or waits.
func (w *writer) closeAll() {
	w.advance(true)
	w.release(true)
	w.signText()
	w.stop()
}

type messageDelta struct {
	Type  string    `json:"type"`
	Delta stopDelta `json:"delta"`
	Usage usage     `json:"usage"`
}

type stopDelta struct {
	StopReason   string  `json:"stop_reason"`
	StopSequence *string `json:"stop_sequence"`
}

func (m messageDelta) encode() (string, []byte) { return m.Type, chat.Encode(m) }

func (w *writer) emit(name string, data []byte) {
	w.events = append(w.events, chat.Chunk{Data: data, Event: name})
}

// begin opens the message, once. Its usage is not known yet.
func (w *writer) begin(model string) {
	if w.begun {
		return
	}
	w.begun = true
	start := struct {
		Type    string `json:"type"`
		Message answer `json:"message"`
	}{"message_start", answer{ID: w.id, Type: "message", Role: roleAssistant, Model: model, Content: []block{}}}
	w.emit(start.Type, chat.Encode(start))
}

// delta takes in what a chunk adds.
func (w *writer) delta(d gjson.Result) {
	blocks := d.Get("thinking_blocks")
	if text := reasoningOf(d); text.Str != "" {
		w.reasoned = true
		w.piece("thinking", text.Raw)
	} else if !w.reasoned {
		blocks.ForEach(func(_, b gjson.Result) bool {
			w.piece("thinking", b.Get("thinking").Raw)
			w.signThought(b)
			return true
		})
		blocks = gjson.Result{}
	}
	blocks.ForEach(func(_, b gjson.Result) bool {
		w.signThought(b)
		return true
	})
	w.text(d.Get("content"))
	if refusal := d.Get("refusal"); refusal.Str != "" {
		w.refused = true
		w.text(refusal)
	}
	d.Get("annotations").ForEach(func(_, a gjson.Result) bool {
		w.cite(a)
		return true
	})
	w.signature = cmp.Or(googleSignature(d), w.signature)
	d.Get("tool_calls").ForEach(func(_, c gjson.Result) bool {
		w.call(c)
		return true
	})
	w.advance(false)
	w.release(false)
}

func (w *writer) text(v gjson.Result) {
	if v.IsArray() {
		v.ForEach(func(_, p gjson.Result) bool {
			w.piece("text", p.Get("text").Raw)
			return true
		})
		return
	}
	w.piece("text", v.Raw)
}

// What stands around a piece of a block, by the block's type.
var pieces = map[string]struct{ start, delta string }{
	"text":     {`{"type":"text","text":""}`, `{"type":"text_delta","text":`},
	"thinking": {`{"type":"thinking","thinking":"","signature":""}`, `{"type":"thinking_delta","thinking":`},
	"tool_use": {"", `{"type":"input_json_delta","partial_json":`},
}

// piece adds a piece, a JSON string as it stands, to a block of that kind, and opens one if need be.
func (w *writer) piece(kind, token string) {
	if len(token) <= len(`""`) || token[0] != '"' {
		return
	}
	w.after(func() {
		if w.open != kind {
			w.start(kind, pieces[kind].start)
		}
		w.add(pieces[kind].delta + token + "}")
	})
}

// after writes what belongs to no call: behind the calls, if one is open or waits. Where that is not complete
// yet, more of it may come, and it waits for that.
func (w *writer) after(do func()) {
	w.advance(false)
	if len(w.held) > 0 || w.open == "tool_use" && !json.Valid(w.calls[w.next].arguments) {
		w.held = append(w.held, do)
		return
	}
	if w.open == "tool_use" {
		w.advance(true)
	}
	do()
}

// release writes what was held, once the open call is complete, or, with force, ended.
func (w *writer) release(force bool) {
	if len(w.held) == 0 || !force && w.open == "tool_use" && !json.Valid(w.calls[w.next].arguments) {
		return
	}
	w.advance(true)
	for _, do := range w.held {
		do()
	}
	w.held = nil
}

// start opens a block and closes the one before.
func (w *writer) start(kind, block string) {
	w.stop()
	w.open = kind
	w.emit("content_block_start", []byte(`{"type":"content_block_start","index":`+itoa(w.index)+`,"content_block":`+block+"}"))
}

// add adds to the open block.
func (w *writer) add(delta string) {
	w.emit("content_block_delta", []byte(`{"type":"content_block_delta","index":`+itoa(w.index)+`,"delta":`+delta+"}"))
}

// stop closes the open block, if there is one.
func (w *writer) stop() {
	if w.open == "" {
		return
	}
	w.open = ""
	w.emit("content_block_stop", []byte(`{"type":"content_block_stop","index":`+itoa(w.index)+"}"))
	w.index++
}

// signThought writes what a block of thinking has beside its text.
func (w *writer) signThought(b gjson.Result) {
	signature := b.Get("signature")
	switch {
	case b.Get("type").Str == "redacted_thinking":
		w.after(func() {
			w.start("redacted_thinking", string(chat.Encode(block{Type: "redacted_thinking", Data: b.Get("data").Str})))
			w.stop()
		})
	case signature.Str == "":
	case w.open == "thinking":
		w.add(`{"type":"signature_delta","signature":` + signature.Raw + "}")
		w.stop()
	default:
		w.after(func() { w.mark(signature.Str) })
	}
}

// mark writes a block of thinking that has only a signature.
func (w *writer) mark(signature string) {
	w.start("thinking", pieces["thinking"].start)
	w.add(`{"type":"signature_delta","signature":` + string(chat.Encode(signature)) + "}")
	w.stop()
}

// signText writes Google's signature of the message, if there is one.
func (w *writer) signText() {
	if signature := w.signature; signature != "" {
		w.signature = ""
		w.mark(messageSignature + signature)
	}
}

// cite adds a page to the text, if that is still open.
func (w *writer) cite(annotation gjson.Result) {
	if c, ok := citationOf(annotation); ok && w.open == "text" {
		w.add(`{"type":"citations_delta","citation":` + string(chat.Encode(c)) + "}")
	}
}

// call takes in a piece of a call. Providers that give all calls one index give each its own id.
func (w *writer) call(c gjson.Result) {
	var known *call
	index, id := c.Get("index").Int(), c.Get("id").Str
	for _, each := range w.calls {
		if each.index == index && (id == "" || each.id == "" || each.id == id) {
			known = each
		}
	}
	if known == nil {
		known = &call{index: index}
		w.calls = append(w.calls, known)
	}
	known.id, known.name = cmp.Or(known.id, id), cmp.Or(known.name, c.Get("function.name").Str)
	known.signature = cmp.Or(known.signature, googleSignature(c))
	known.arguments = append(known.arguments, argumentsOf(c)...)
}

// advance writes what there is of the calls, one after the other: a call begins when the one before is
// complete, or, with force, ends. A call without a name is none.
func (w *writer) advance(force bool) {
	for ; w.next < len(w.calls); w.next++ {
		c := w.calls[w.next]
		if c.name == "" {
			if !force {
				return
			}
			continue
		}
		w.write(c)
		complete := w.next+1 < len(w.calls) && json.Valid(c.arguments)
		if !force && !complete {
			return
		}
		w.stop()
	}
}

// write writes what is new of a call.
func (w *writer) write(c *call) {
	if !c.begun {
		c.begun = true
		if c.id == "" {
			c.id = w.id + "_" + itoa(w.next)
		}
		w.signText()
		if c.signature != "" {
			w.mark(callSignature + c.signature)
		}
		w.start("tool_use", string(chat.Encode(block{Type: "tool_use", ID: c.id, Name: c.name, Input: json.RawMessage("{}")})))
	}
	if c.sent < len(c.arguments) {
		w.add(pieces["tool_use"].delta + string(chat.Encode(string(c.arguments[c.sent:]))) + "}")
		c.sent = len(c.arguments)
	}
}
