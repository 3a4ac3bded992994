package messages

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// gathered is what an SDK makes of a stream: the events must come in an order, and with the fields, that all
// of them rely on.
type gathered struct {
	message map[string]any
	blocks  []map[string]any
	inputs  []string // of the blocks
	open    bool
	ended   bool
}

// take takes in one event; what is wrong with it is an error.
func (g *gathered) take(c chat.Chunk) error {
	if !json.Valid(c.Data) || strings.ContainsAny(string(c.Data), "\r\n") {
		return fmt.Errorf("not one line of JSON: %s", c.Data)
	}
	e := gjson.ParseBytes(c.Data)
	kind := e.Get("type").Str
	if c.Event != kind || c.Last != (kind == "message_stop") || g.ended || (g.message == nil) != (kind == "message_start") {
		return fmt.Errorf("an event out of its place: %s %v %s", c.Event, c.Last, c.Data)
	}
	switch kind {
	case "message_start":
		m := e.Get("message")
		if m.Get("content").Raw != "[]" || m.Get("stop_reason").Raw != "null" || !m.Get("usage.input_tokens").Exists() ||
			m.Get("role").Str != "assistant" || m.Get("type").Str != "message" || m.Get("id").Str == "" {
			return fmt.Errorf("not the start of a message: %s", c.Data)
		}
		g.message = m.Value().(map[string]any)
	case "content_block_start", "content_block_delta", "content_block_stop":
		return g.block(kind, e)
	case "message_delta":
		if g.open || g.message["stop_reason"] != nil || e.Get("delta.stop_reason").Str == "" || !e.Get("usage.output_tokens").Exists() {
			return fmt.Errorf("not the end of a message: %s", c.Data)
		}
		g.message["stop_reason"] = e.Get("delta.stop_reason").Str
		g.message["usage"] = e.Get("usage").Value()
	case "message_stop":
		if g.message["stop_reason"] == nil {
			return fmt.Errorf("a stop without a reason")
		}
		g.ended = true
	default:
		return fmt.Errorf("an unknown event: %s", c.Data)
	}
	return nil
}

func (g *gathered) block(kind string, e gjson.Result) error {
	last := len(g.blocks) - 1
	start := kind == "content_block_start"
	want := last
	if start {
		want = last + 1
	}
	if start == g.open || int(e.Get("index").Int()) != want || g.message["stop_reason"] != nil {
		return fmt.Errorf("a block out of its place: %s", e.Raw)
	}
	switch kind {
	case "content_block_start":
		b := e.Get("content_block")
		if b.Get("type").Str == "tool_use" && (b.Get("id").Str == "" || b.Get("name").Str == "" || b.Get("input").Raw != "{}") {
			return fmt.Errorf("not the start of a call: %s", e.Raw)
		}
		g.open, g.blocks, g.inputs = true, append(g.blocks, b.Value().(map[string]any)), append(g.inputs, "")
	case "content_block_stop":
		g.open = false
	default:
		return g.delta(g.blocks[last], last, e.Get("delta"))
	}
	return nil
}

// added is the type of a delta, the block that it belongs to, and the field that it adds to.
var added = map[string][2]string{
	"text_delta": {"text", "text"}, "thinking_delta": {"thinking", "thinking"}, "signature_delta": {"thinking", "signature"},
	"input_json_delta": {"tool_use", "partial_json"}, "citations_delta": {"text", "citation"},
}

func (g *gathered) delta(b map[string]any, i int, d gjson.Result) error {
	of, ok := added[d.Get("type").Str]
	if !ok || b["type"] != of[0] || !d.Get(of[1]).Exists() {
		return fmt.Errorf("a piece of another block: %s", d.Raw)
	}
	switch of[1] {
	case "partial_json":
		g.inputs[i] += d.Get("partial_json").Str
	case "citation":
		cited, _ := b["citations"].([]any)
		b["citations"] = append(cited, d.Get("citation").Value())
	default:
		before, _ := b[of[1]].(string)
		b[of[1]] = before + d.Get(of[1]).Str
	}
	return nil
}

// result is the message that the stream came to.
func (g *gathered) result() gjson.Result {
	content := []any{}
	for i, b := range g.blocks {
		if b["type"] == "tool_use" {
			b["input"] = inputOf(g.inputs[i])
		}
		content = append(content, b)
	}
	g.message["content"] = content
	text, _ := json.Marshal(g.message)
	return gjson.ParseBytes(text)
}

// stream writes chunks and gathers what is written.
func stream(t *testing.T, w chat.Writer, chunks []string) gjson.Result {
	t.Helper()
	g := gathered{}
	var events []chat.Chunk
	for _, c := range chunks {
		data := []byte(c)
		events = w.Chunk(data, events)
		for i := range data {
			data[i] = 'x' // it must not be kept
		}
	}
	for _, e := range w.End(events) {
		if err := g.take(e); err != nil {
			t.Fatalf("%v\nchunks %s", err, strings.Join(chunks, "\n"))
		}
	}
	if !g.ended {
		t.Fatalf("it has no end: %s", strings.Join(chunks, "\n"))
	}
	return g.result()
}

const asked = `{"model":"gpt","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}`

// chunk is a chat chunk with a delta.
func chunk(delta string) string {
	return `{"id":"c","object":"chat.completion.chunk","created":1,"model":"gpt","choices":[{"index":0,"delta":` + delta + `,"finish_reason":null}]}`
}

func finish(reason string) string {
	return `{"model":"gpt","choices":[{"index":0,"delta":{},"finish_reason":"` + reason + `"}]}`
}

const used = `{"model":"gpt","service_tier":"default","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,"prompt_tokens_details":{"cached_tokens":3,"cache_write_tokens":2},"completion_tokens_details":{"reasoning_tokens":4}}}`

func TestStreams(t *testing.T) {
	for _, c := range []struct {
		name    string
		chunks  []string
		content string
		reason  string
	}{
		{"nothing", nil, `[]`, "end_turn"},
		{"not JSON", []string{"{", "7", `""`, "[]"}, `[]`, "end_turn"},
		{"text", []string{chunk(`{"role":"assistant","content":""}`), chunk(`{"content":"Hel\n"}`), chunk(`{"content":"lo\u00e9"}`), finish("stop"), used},
			`[{"type":"text","text":"Hel\nloé"}]`, "end_turn"},
		{"reasoning, by either name", []string{chunk(`{"reasoning_content":"a"}`), chunk(`{"reasoning":"b"}`), chunk(`{"content":"c"}`), finish("length")},
			`[{"type":"thinking","thinking":"ab","signature":""},{"type":"text","text":"c"}]`, "max_tokens"},
		{"reasoning that is signed at once", []string{chunk(`{"reasoning_content":"a","thinking_blocks":[{"type":"thinking","thinking":"a"}]}`), chunk(`{"thinking_blocks":[{"type":"thinking","thinking":"","signature":"s"}]}`), chunk(`{"content":"c"}`)},
			`[{"type":"thinking","thinking":"a","signature":"s"},{"type":"text","text":"c"}]`, "end_turn"},
		{"reasoning that is signed at the end", []string{chunk(`{"reasoning_content":"a"}`), chunk(`{"content":"c"}`), chunk(`{"thinking_blocks":[{"type":"thinking","thinking":"a","signature":"s"},{"type":"redacted_thinking","data":"d"}]}`)},
			`[{"type":"thinking","thinking":"a","signature":""},{"type":"text","text":"c"},{"type":"thinking","thinking":"","signature":"s"},{"type":"redacted_thinking","data":"d"}]`, "end_turn"},
		{"blocks alone", []string{chunk(`{"thinking_blocks":[{"type":"thinking","thinking":"a","signature":"s"}]}`), chunk(`{"content":"c"}`)},
			`[{"type":"thinking","thinking":"a","signature":"s"},{"type":"text","text":"c"}]`, "end_turn"},
		{"calls one after the other", []string{chunk(`{"content":"c"}`), chunk(`{"tool_calls":[{"index":0,"id":"i1","function":{"name":"n","arguments":""}}]}`), chunk(`{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\":"}}]}`),
			chunk(`{"tool_calls":[{"index":0,"function":{"arguments":"\"é\"}"}}]}`), chunk(`{"tool_calls":[{"index":1,"id":"i2","function":{"name":"m","arguments":"{}"}}]}`), finish("tool_calls"), used},
			`[{"type":"text","text":"c"},{"type":"tool_use","id":"i1","name":"n","input":{"a":"é"}},{"type":"tool_use","id":"i2","name":"m","input":{}}]`, "tool_use"},
		{"calls interleaved", []string{chunk(`{"tool_calls":[{"index":0,"id":"i1","function":{"name":"n","arguments":"{\"a\""}},{"index":1,"id":"i2","function":{"name":"m","arguments":"{\"b\":"}}]}`),
			chunk(`{"tool_calls":[{"index":1,"function":{"arguments":"2}"}},{"index":0,"function":{"arguments":":1}"}}]}`), finish("tool_calls")},
			`[{"type":"tool_use","id":"i1","name":"n","input":{"a":1}},{"type":"tool_use","id":"i2","name":"m","input":{"b":2}}]`, "tool_use"},
		{"calls of one index, which stop", []string{chunk(`{"tool_calls":[{"index":0,"id":"i1","function":{"name":"n","arguments":"{}"}}]}`), chunk(`{"tool_calls":[{"index":0,"id":"i2","function":{"name":"n","arguments":"{\"a\":1}"}}]}`), finish("stop")},
			`[{"type":"tool_use","id":"i1","name":"n","input":{}},{"type":"tool_use","id":"i2","name":"n","input":{"a":1}}]`, "tool_use"},
		{"a call without an id, or arguments", []string{chunk(`{"tool_calls":[{"function":{"name":"n"}}]}`), finish("tool_calls")},
			`[{"type":"tool_use","id":"msg_x_0","name":"n","input":{}}]`, "tool_use"},
		{"a call without a name", []string{chunk(`{"tool_calls":[{"index":0,"id":"i"}]}`), finish("stop")}, `[]`, "end_turn"},
		{"arguments that are an object", []string{chunk(`{"tool_calls":[{"index":0,"id":"i","function":{"name":"n","arguments":{"a":1}}}]}`)},
			`[{"type":"tool_use","id":"i","name":"n","input":{"a":1}}]`, "tool_use"},
		{"arguments that broke off", []string{chunk(`{"tool_calls":[{"index":0,"id":"i","function":{"name":"n","arguments":"{\"a\":"}}]}`), finish("length")},
			`[{"type":"tool_use","id":"i","name":"n","input":{"arguments":"{\"a\":"}}]`, "max_tokens"},
		{"Google's signatures", []string{chunk(`{"content":"c","extra_content":{"google":{"thought_signature":"M"}}}`), chunk(`{"tool_calls":[{"index":0,"id":"i","function":{"name":"n","arguments":"{}"},"extra_content":{"google":{"thought_signature":"C"}}}]}`), finish("tool_calls")},
			`[{"type":"text","text":"c"},{"type":"thinking","thinking":"","signature":"llm-gateway:google-thought-signature:message:M"},{"type":"thinking","thinking":"","signature":"llm-gateway:google-thought-signature:call:C"},{"type":"tool_use","id":"i","name":"n","input":{}}]`, "tool_use"},
		{"a refusal", []string{chunk(`{"refusal":"no"}`), finish("stop")}, `[{"type":"text","text":"no"}]`, "refusal"},
		{"a filter", []string{chunk(`{"content":"c"}`), finish("content_filter")}, `[{"type":"text","text":"c"}]`, "refusal"},
		{"parts, and citations", []string{chunk(`{"content":[{"type":"text","text":"c"}]}`), chunk(`{"annotations":[{"type":"url_citation","url_citation":{"url":"u","title":"t","start_index":0,"end_index":1}},{"type":"file_citation"}]}`)},
			`[{"type":"text","text":"c","citations":[{"type":"web_search_result_location","cited_text":"","url":"u","title":"t","encrypted_index":""}]}]`, "end_turn"},
		{"text after a call", []string{chunk(`{"tool_calls":[{"index":0,"id":"i","function":{"name":"n","arguments":"{}"}}]}`), chunk(`{"content":"c"}`), finish("stop")},
			`[{"type":"tool_use","id":"i","name":"n","input":{}},{"type":"text","text":"c"}]`, "tool_use"},
		{"text in the middle of a call", []string{chunk(`{"tool_calls":[{"index":0,"id":"i","function":{"name":"n","arguments":"{"}}]}`), chunk(`{"content":"c"}`), chunk(`{"tool_calls":[{"index":0,"function":{"arguments":"}"}}],"content":"d"}`), chunk(`{"content":"e"}`), finish("stop")},
			`[{"type":"tool_use","id":"i","name":"n","input":{}},{"type":"text","text":"cde"}]`, "tool_use"},
		{"text after a call that broke off", []string{chunk(`{"tool_calls":[{"index":0,"id":"i","function":{"name":"n","arguments":"{"}}]}`), chunk(`{"content":"c"}`), finish("length")},
			`[{"type":"tool_use","id":"i","name":"n","input":{"arguments":"{"}},{"type":"text","text":"c"}]`, "max_tokens"},
		{"another choice", []string{`{"model":"gpt","choices":[{"index":1,"delta":{"content":"no"}},{"index":0,"delta":{"content":"c"}}]}`}, `[{"type":"text","text":"c"}]`, "end_turn"},
	} {
		got := stream(t, foreignOf(t, asked).Writer(), c.chunks)
		if !same(got.Get("content").Raw, c.content) || got.Get("stop_reason").Str != c.reason {
			t.Errorf("%s:\n got %s, %s\nwant %s, %s", c.name, got.Get("content").Raw, got.Get("stop_reason").Str, c.content, c.reason)
		}
	}
}

// same compares JSON, whatever the order of fields.
func same(a, b string) bool {
	var x, y any
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil {
		return false
	}
	one, _ := json.Marshal(x)
	other, _ := json.Marshal(y)
	return string(one) == string(other)
}

// TestStreamAtOnce: what has come is passed on before more comes.
func TestStreamAtOnce(t *testing.T) {
	w := foreignOf(t, asked).Writer()
	for i, c := range []struct {
		chunk string
		names string
	}{
		{chunk(`{"role":"assistant","content":""}`), "message_start"},
		{chunk(`{"content":"a"}`), "content_block_start content_block_delta"},
		{chunk(`{"content":"b"}`), "content_block_delta"},
		{chunk(`{"tool_calls":[{"index":0,"id":"i","function":{"name":"n","arguments":""}}]}`), "content_block_stop content_block_start"},
		{chunk(`{"tool_calls":[{"index":0,"function":{"arguments":"{"}}]}`), "content_block_delta"},
		{finish("tool_calls"), "content_block_stop"},
		{used, ""},
	} {
		var names []string
		for _, e := range w.Chunk([]byte(c.chunk), nil) {
			names = append(names, e.Event)
		}
		if got := strings.Join(names, " "); got != c.names {
			t.Errorf("chunk %d: %q, want %q", i, got, c.names)
		}
	}
	var got string
	for _, e := range w.End(nil) {
		got += string(e.Data) + "\n"
	}
	const want = `{"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"input_tokens":5,"cache_creation_input_tokens":2,"cache_read_input_tokens":3,"output_tokens":5,"output_tokens_details":{"thinking_tokens":4},"service_tier":"standard"}}
{"type":"message_stop"}
`
	if got != want {
		t.Errorf("%s", got)
	}
}

func TestAnswer(t *testing.T) {
	const usage = `"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}`
	for _, c := range []struct{ name, message, finish, content, reason string }{
		{"text", `{"role":"assistant","content":"<c>"}`, "stop", `[{"type":"text","text":"<c>"}]`, "end_turn"},
		{"nothing", `{"role":"assistant","content":null}`, "stop", `[]`, "end_turn"},
		{"reasoning", `{"content":"c","reasoning_content":"r"}`, "length", `[{"type":"thinking","thinking":"r","signature":""},{"type":"text","text":"c"}]`, "max_tokens"},
		{"signed reasoning", `{"content":"c","reasoning_content":"r","thinking_blocks":[{"type":"thinking","thinking":"r","signature":"s"},{"type":"redacted_thinking","data":"d"}]}`, "stop",
			`[{"type":"thinking","thinking":"r","signature":"s"},{"type":"redacted_thinking","data":"d"},{"type":"text","text":"c"}]`, "end_turn"},
		{"calls", `{"content":null,"tool_calls":[{"id":"i","type":"function","function":{"name":"n","arguments":"{\"a\": 1}"},"extra_content":{"google":{"thought_signature":"C"}}},{"id":"j","function":{"name":"m","arguments":""}},{"id":"k","function":{"name":"m","arguments":"[1]"}}]}`, "stop",
			`[{"type":"thinking","thinking":"","signature":"llm-gateway:google-thought-signature:call:C"},{"type":"tool_use","id":"i","name":"n","input":{"a":1}},{"type":"tool_use","id":"j","name":"m","input":{}},{"type":"tool_use","id":"k","name":"m","input":{"arguments":"[1]"}}]`, "tool_use"},
		{"a refusal", `{"content":null,"refusal":"no"}`, "stop", `[{"type":"text","text":"no"}]`, "refusal"},
		{"a filter", `{"content":""}`, "content_filter", `[]`, "refusal"},
		{"citations", `{"content":"äbc","annotations":[{"type":"url_citation","url_citation":{"url":"u","title":"t","start_index":1,"end_index":3}},{"type":"url_citation","url_citation":{"url":"v","start_index":2,"end_index":9}}]}`, "stop",
			`[{"type":"text","text":"äbc","citations":[{"type":"web_search_result_location","cited_text":"bc","url":"u","title":"t","encrypted_index":""},{"type":"web_search_result_location","cited_text":"","url":"v","title":"","encrypted_index":""}]}]`, "end_turn"},
	} {
		completion := `{"id":"c","model":"gpt","choices":[{"index":0,"message":` + c.message + `,"finish_reason":"` + c.finish + `"}],` + usage + "}"
		got, err := foreignOf(t, asked).Answer([]byte(completion))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		m := gjson.ParseBytes(got)
		if !same(m.Get("content").Raw, c.content) || m.Get("stop_reason").Str != c.reason || m.Get("id").Str != "msg_x" || m.Get("model").Str != "gpt" ||
			m.Get("type").Str != "message" || m.Get("role").Str != "assistant" || m.Get("stop_sequence").Raw != "null" || m.Get("usage.input_tokens").Int() != 10 {
			t.Errorf("%s: %s", c.name, got)
		}
	}
	for _, wrong := range []string{"", "{", "7", `{"choices":[]}`, `{"error":{}}`} {
		if _, err := foreignOf(t, asked).Answer([]byte(wrong)); err == nil {
			t.Errorf("%q is an answer", wrong)
		}
	}
}

// TestUsage: xAI leaves reasoning out of what it counts as output.
func TestUsage(t *testing.T) {
	u := usageOf(gjson.Parse(`{"prompt_tokens":10,"completion_tokens":5,"total_tokens":19,"completion_tokens_details":{"reasoning_tokens":4}}`), "priority")
	if u.Output != 9 || u.Details.Thinking != 4 || u.ServiceTier != "priority" {
		t.Errorf("%+v", u)
	}
}

// FuzzWriter takes any chunks, and cuts them anywhere: what is written is always a whole message.
func FuzzWriter(f *testing.F) {
	f.Add(chunk(`{"content":"a"}`), chunk(`{"tool_calls":[{"index":0,"id":"i","function":{"name":"n","arguments":"{"}}]}`), finish("stop"))
	f.Add(chunk(`{"thinking_blocks":[{"signature":"s"}]}`), chunk(`{"extra_content":{"google":{"thought_signature":"M"}}}`), used)
	f.Add(`{"choices":{"index":0,"delta":[]}}`, `{"choices":[[]]}`, `{"usage":{"prompt_tokens":-1}}`)
	f.Add(chunk(`{"content":"a","annotations":[{"url_citation":{}}]}`), chunk(`{"tool_calls":[{},{"index":1},{"id":"a"},{"id":"b","function":{"name":"x"}}]}`), chunk(`{"refusal":"r"}`))
	f.Fuzz(func(t *testing.T, one, two, three string) {
		stream(t, foreignOf(t, asked).Writer(), []string{one, two, three, two, one})
	})
}
