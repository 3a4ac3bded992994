package responses

import (
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// client puts a stream together as the official SDKs do, and complains wherever one of them would.
type client struct {
	t     *testing.T
	name  string
	count int
	items []*clientItem
	final gjson.Result // the response of the last event
	ended bool
	kinds []string // the types of the events, repeated ones once
}

type clientItem struct {
	kind, id string
	parts    []*clientPart
	written  string // arguments
	done     bool
	raw      gjson.Result // of output_item.done
}

type clientPart struct {
	text     string
	refusal  bool
	done     bool
	citation int
}

func (c *client) errorf(format string, args ...any) {
	c.t.Helper()
	c.t.Errorf(c.name+": "+format, args...)
}

func (c *client) take(chunks []chat.Chunk) {
	c.t.Helper()
	for _, chunk := range chunks {
		c.event(chunk)
	}
}

func (c *client) event(chunk chat.Chunk) {
	c.t.Helper()
	e := gjson.ParseBytes(chunk.Data)
	kind := e.Get("type").Str
	if !gjson.ValidBytes(chunk.Data) || strings.ContainsAny(string(chunk.Data), "\r\n") || kind == "" || kind != chunk.Event {
		c.errorf("no event: %q %s", chunk.Event, chunk.Data)
	}
	if c.ended || e.Get("sequence_number").Int() != int64(c.count) || !e.Get("sequence_number").Exists() {
		c.errorf("event %d out of order: %s", c.count, chunk.Data)
	}
	if opening := []string{"response.created", "response.in_progress"}; c.count < 2 && kind != opening[c.count] {
		c.errorf("it begins with %s", chunk.Data)
	}
	if len(c.kinds) == 0 || c.kinds[len(c.kinds)-1] != kind {
		c.kinds = append(c.kinds, kind)
	}
	c.count++
	switch kind {
	case "response.created", "response.in_progress":
		r := e.Get("response")
		if r.Get("status").Str != "in_progress" || r.Get("output").Raw != "[]" || r.Get("usage").Type != gjson.Null || c.count > 2 {
			c.errorf("%s", chunk.Data)
		}
	case "response.completed", "response.incomplete":
		c.last(e, chunk.Last)
		return
	case "response.output_item.added":
		c.added(e)
	default:
		c.ofItem(kind, e)
	}
	if chunk.Last {
		c.errorf("marked as the last: %s", chunk.Data)
	}
}

func (c *client) added(e gjson.Result) {
	c.t.Helper()
	v := e.Get("item")
	if e.Get("output_index").Int() != int64(len(c.items)) || v.Get("id").Str == "" {
		c.errorf("added out of order: %s", e)
	}
	for _, empty := range []string{"content.0", "summary.0"} {
		if v.Get(empty).Exists() || v.Get("arguments").Str != "" {
			c.errorf("begins full: %s", e)
		}
	}
	if kind := v.Get("type").Str; kind != "reasoning" && v.Get("status").Str != "in_progress" || kind == "function_call" && (v.Get("call_id").Str == "" || !v.Get("arguments").Exists()) {
		c.errorf("begins wrongly: %s", e)
	}
	c.items = append(c.items, &clientItem{kind: v.Get("type").Str, id: v.Get("id").Str})
}

// ofItem takes in an event that is about one item.
func (c *client) ofItem(kind string, e gjson.Result) {
	c.t.Helper()
	at := int(e.Get("output_index").Int())
	if !e.Get("output_index").Exists() || at < 0 || at >= len(c.items) {
		c.errorf("of no item: %s", e)
		return
	}
	own := c.items[at]
	late := kind == "response.output_text.annotation.added"
	if id := e.Get("item_id").Str; own.done && !late || kind != "response.output_item.done" && id != own.id {
		c.errorf("of another item, or of one that is done: %s", e)
	}
	switch kind {
	case "response.output_item.done":
		c.done(own, e.Get("item"))
	case "response.function_call_arguments.delta":
		own.written += e.Get("delta").Str
	case "response.function_call_arguments.done":
		if e.Get("arguments").Str != own.written || e.Get("name").Str == "" && own.written == "" {
			c.errorf("%q was written: %s", own.written, e)
		}
	case "response.image_generation_call.completed":
	default:
		c.ofPart(kind, own, e)
	}
}

// indexOf is the index of a part in its item, by either of its names.
func indexOf(e gjson.Result) int {
	for _, name := range []string{"content_index", "summary_index"} {
		if v := e.Get(name); v.Exists() {
			return int(v.Int())
		}
	}
	return -1
}

func (c *client) ofPart(kind string, own *clientItem, e gjson.Result) {
	c.t.Helper()
	at := indexOf(e)
	if strings.HasSuffix(kind, "part.added") {
		if at != len(own.parts) || at > 0 && !own.parts[at-1].done {
			c.errorf("a part out of order: %s", e)
		}
		own.parts = append(own.parts, &clientPart{refusal: e.Get("part.type").Str == "refusal"})
		return
	}
	if at < 0 || at >= len(own.parts) || own.parts[at].done && !strings.HasSuffix(kind, "annotation.added") {
		c.errorf("of no part, or of one that is done: %s", e)
		return
	}
	p := own.parts[at]
	switch kind {
	case "response.output_text.delta", "response.refusal.delta", "response.reasoning_summary_text.delta":
		p.text += e.Get("delta").Str
		if (kind == "response.refusal.delta") != p.refusal || kind == "response.output_text.delta" && !e.Get("logprobs").IsArray() {
			c.errorf("of the wrong kind: %s", e)
		}
	case "response.output_text.done", "response.refusal.done", "response.reasoning_summary_text.done":
		if e.Get("text").Str+e.Get("refusal").Str != p.text {
			c.errorf("%q was said: %s", p.text, e)
		}
	case "response.content_part.done", "response.reasoning_summary_part.done":
		if p.done = true; e.Get("part.text").Str+e.Get("part.refusal").Str != p.text {
			c.errorf("%q was said: %s", p.text, e)
		}
	case "response.output_text.annotation.added":
		if e.Get("annotation_index").Int() != int64(p.citation) || e.Get("annotation.type").Str != "url_citation" {
			c.errorf("cited out of order: %s", e)
		}
		p.citation++
	default:
		c.errorf("nobody knows %s", e)
	}
}

// done compares an item with what came of it.
func (c *client) done(own *clientItem, v gjson.Result) {
	c.t.Helper()
	own.done, own.raw = true, v
	parts := append(v.Get("content").Array(), v.Get("summary").Array()...)
	if v.Get("id").Str != own.id || v.Get("type").Str != own.kind || v.Get("arguments").Str != own.written || len(parts) != len(own.parts) {
		c.errorf("%+v became %s", own, v)
		return
	}
	for i, p := range parts {
		if p.Get("text").Str+p.Get("refusal").Str != own.parts[i].text || !own.parts[i].done {
			c.errorf("%q became %s", own.parts[i].text, p)
		}
	}
}

// last compares the whole response with what came before it.
func (c *client) last(e gjson.Result, marked bool) {
	c.t.Helper()
	c.ended, c.final = true, e.Get("response")
	if !marked || "response."+c.final.Get("status").Str != e.Get("type").Str {
		c.errorf("ends with %s", e)
	}
	output := c.final.Get("output").Array()
	if len(output) != len(c.items) {
		c.errorf("%d items became %s", len(c.items), e)
		return
	}
	for i, own := range c.items {
		cited := 0
		for _, p := range own.parts {
			cited += p.citation
		}
		if told := len(own.raw.Get("content.0.annotations").Array()); !own.done || told == cited && output[i].Raw != own.raw.Raw || len(output[i].Get("content.#.annotations|@flatten").Array()) != cited {
			c.errorf("item %d: %s became %s", i, own.raw, output[i])
		}
	}
}

// stream gives chunks to a writer and puts together what comes out.
func stream(t *testing.T, name string, f chat.Foreign, chunks []string) *client {
	t.Helper()
	c, w := &client{t: t, name: name}, f.Writer()
	for _, data := range chunks {
		c.take(w.Chunk([]byte(data), nil))
	}
	c.take(w.End(nil))
	if !c.ended {
		t.Errorf("%s: it does not end", name)
	}
	return c
}
