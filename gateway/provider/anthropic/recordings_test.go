package anthropic

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/provider/chat/chattest"
)

func translated(t *testing.T, request string) chat.Exchange {
	t.Helper()
	x, err := Translate(parse(t, request), target("claude-haiku-4-5"))
	if err != nil {
		t.Fatal(err)
	}
	return x
}

const anyRequest = `{"messages":[{"role":"user","content":"q"}],"stream":true}`

// client is what an official client of OpenAI's makes of a stream.
type client struct {
	message map[string]any
	finish  string
	usage   gjson.Result
	text    string // of all Chunk.Text
	id      string
	err     error
	done    bool
	report  chat.Report
}

// read gives the events to a reader and its chunks to a client.
func read(t *testing.T, x chat.Exchange, events []string) *client {
	t.Helper()
	c := &client{message: map[string]any{}}
	r := x.Reader()
	buffer := make([]byte, 0, 1<<16)
	for _, event := range events {
		// The reader may keep nothing of an event: the next one overwrites it.
		buffer = append(buffer[:0], event...)
		var chunks []chat.Chunk
		chunks, c.done, c.err = r.Event(buffer, nil)
		for _, chunk := range chunks {
			c.take(t, chunk)
		}
		c.report = r.Report()
		if c.done || c.err != nil {
			return c
		}
	}
	chunks, complete := r.End(nil)
	if complete || len(chunks) > 0 {
		t.Error("a stream without message_stop passes for complete")
	}
	return c
}

func (c *client) take(t *testing.T, chunk chat.Chunk) {
	t.Helper()
	if !json.Valid(chunk.Data) || strings.ContainsAny(string(chunk.Data), "\r\n") {
		t.Fatalf("not a JSON object on one line: %s", chunk.Data)
	}
	e := gjson.ParseBytes(chunk.Data)
	if c.id == "" {
		c.id = e.Get("id").Str
	}
	if e.Get("id").Str != c.id || e.Get("object").Str != chat.ObjectChunk || e.Get("created").Int() != 1700000000 {
		t.Fatalf("another head: %s", chunk.Data)
	}
	if u := e.Get("usage"); u.Exists() != chunk.UsageOnly || chunk.UsageOnly && e.Get("choices").Raw != "[]" {
		t.Fatalf("usage in a chunk with choices: %s", chunk.Data)
	} else if u.Exists() {
		c.usage = gjson.Parse(u.Raw)
		return
	}
	delta := e.Get("choices.0.delta")
	if c.message["role"] == nil && delta.Get("role").Str != "assistant" {
		t.Fatalf("the first chunk has no role: %s", chunk.Data)
	}
	if c.finish != "" {
		t.Fatalf("a chunk after the last: %s", chunk.Data)
	}
	c.finish = e.Get("choices.0.finish_reason").Str
	c.text += string(chunk.Text)
	accumulate(t, c.message, delta.Value().(map[string]any))
}

// accumulate adds a delta as the official clients do: strings are joined, and lists of objects are joined
// by index, without which they give up.
func accumulate(t *testing.T, to, delta map[string]any) {
	t.Helper()
	for key, value := range delta {
		old, there := to[key]
		switch value := value.(type) {
		case string:
			if there && key != "type" {
				to[key] = old.(string) + value
				continue
			}
		case map[string]any:
			if there {
				accumulate(t, old.(map[string]any), value)
				continue
			}
		case []any:
			if there {
				to[key] = accumulateList(t, old.([]any), value)
				continue
			}
		}
		to[key] = value
	}
}

func accumulateList(t *testing.T, to, delta []any) []any {
	t.Helper()
	for _, element := range delta {
		index, ok := element.(map[string]any)["index"].(float64)
		switch {
		case !ok || int(index) > len(to):
			t.Fatalf("an element without a fitting index: %v", element)
		case int(index) == len(to):
			to = append(to, element)
		default:
			accumulate(t, to[int(index)].(map[string]any), element.(map[string]any))
		}
	}
	return to
}

// result is the message in JSON.
func (c *client) result() gjson.Result {
	encoded, _ := json.Marshal(c.message)
	return gjson.ParseBytes(encoded)
}

// check compares a message and the usage beside it with what a recording is known to mean.
func check(t *testing.T, name string, message gjson.Result, finish string, usage, expect gjson.Result) {
	t.Helper()
	if got := message.Get("content").Str; got != expect.Get("text").Str {
		t.Errorf("%s: content %q, want %q", name, got, expect.Get("text").Str)
	}
	if finish != expect.Get("finish_reason").Str {
		t.Errorf("%s: finished by %s, want %s", name, finish, expect.Get("finish_reason").Str)
	}
	if got := int64(utf8.RuneCountInString(message.Get("reasoning_content").Str)); got != expect.Get("reasoning_chars").Int() {
		t.Errorf("%s: %d characters of reasoning, want %d", name, got, expect.Get("reasoning_chars").Int())
	}
	calls, want := message.Get("tool_calls").Array(), expect.Get("tool_calls").Array()
	if len(calls) != len(want) {
		t.Errorf("%s: %d calls, want %d: %s", name, len(calls), len(want), message.Get("tool_calls").Raw)
		return
	}
	for i, call := range calls {
		arguments := gjson.Parse(call.Get("function.arguments").Str)
		if call.Get("function.name").Str != want[i].Get("name").Str || call.Get("type").Str != "function" || call.Get("id").Str == "" ||
			!reflect.DeepEqual(arguments.Value(), want[i].Get("arguments").Value()) {
			t.Errorf("%s: call %s, want %s", name, call.Raw, want[i].Raw)
		}
	}
	for to, from := range map[string]string{
		"prompt_tokens": "prompt_tokens", "completion_tokens": "completion_tokens", "total_tokens": "total_tokens",
		"prompt_tokens_details.cached_tokens":      "cached_tokens",
		"prompt_tokens_details.cache_write_tokens": "cache_write_tokens",
	} {
		if got, want := usage.Get(to).Int(), expect.Get("usage."+from).Int(); got != want {
			t.Errorf("%s: %s is %d, want %d", name, to, got, want)
		}
	}
}

// TestRecordings reads every recorded answer, and holds it against what it is known to mean.
func TestRecordings(t *testing.T) {
	n := map[bool]int{}
	x := translated(t, anyRequest)
	for _, r := range chattest.Recorded(t, "messages", 35) {
		n[r.Stream]++
		switch {
		case !r.OK():
			var failed *chat.Failed
			if _, err := x.Answer([]byte(r.Body)); !errors.As(err, &failed) || failed.Message == "" || ErrorOf([]byte(r.Body)) == nil {
				t.Errorf("%s: %v, want an error of the provider's", r.Name, err)
			}
		case r.Stream:
			c := read(t, x, r.Events())
			if c.err != nil || !c.done {
				t.Errorf("%s: %v", r.Name, c.err)
			}
			check(t, r.Name, c.result(), c.finish, c.usage, r.Expect)
			checkReport(t, r, c.report)
			checkText(t, r.Name, c)
		default:
			whole, err := x.Answer([]byte(r.Body))
			if err != nil {
				t.Errorf("%s: %v", r.Name, err)
				continue
			}
			a := gjson.ParseBytes(whole.Body)
			check(t, r.Name, a.Get("choices.0.message"), a.Get("choices.0.finish_reason").Str, a.Get("usage"), r.Expect)
			checkReport(t, r, whole.Report)
			if a.Get("model").Str != r.Expect.Get("model").Str || a.Get("object").Str != chat.ObjectCompletion {
				t.Errorf("%s: %s", r.Name, whole.Body)
			}
		}
	}
	if n[true] < 15 || n[false] < 15 {
		t.Errorf("only %d streams and %d whole answers", n[true], n[false])
	}
}

// checkReport holds the report against the recording. One recording was served by two models.
func checkReport(t *testing.T, r chattest.Step, report chat.Report) {
	t.Helper()
	u := r.Expect.Get("usage")
	input, output := u.Get("prompt_tokens").Int(), u.Get("completion_tokens").Int()
	if strings.HasPrefix(r.Name, "vx-an-fallback-iter") {
		input += 408
		if len(report.Iterations) != 2 || report.Iterations[1].Model != "claude-opus-4-8" {
			t.Errorf("%s: iterations %+v", r.Name, report.Iterations)
		}
	} else if report.Iterations != nil {
		t.Errorf("%s: iterations %+v", r.Name, report.Iterations)
	}
	if report.Usage == nil || report.Partial {
		t.Fatalf("%s: report %+v", r.Name, report)
	}
	if report.Usage.Input != input || report.Usage.Output != output || report.Usage.CachedInput != u.Get("cached_tokens").Int() ||
		report.Usage.CacheWrite1h != u.Get("cache_write_1h_tokens").Int() || report.Usage.WebSearch != u.Get("web_search_requests").Int() {
		t.Errorf("%s: usage %+v, want %s", r.Name, *report.Usage, u.Raw)
	}
	if report.FinishReason != r.Expect.Get("finish_reason").Str || report.Model != r.Expect.Get("model").Str || report.ServiceTier != "" {
		t.Errorf("%s: report %+v", r.Name, report)
	}
}

// checkText holds what is counted against what was delivered.
func checkText(t *testing.T, name string, c *client) {
	t.Helper()
	m := c.result()
	want := len(m.Get("content").Str) + len(m.Get("reasoning_content").Str)
	m.Get("tool_calls").ForEach(func(_, call gjson.Result) bool {
		want += len(call.Get("function.name").Str) + len(call.Get("function.arguments").Str)
		return true
	})
	if len(c.text) != want {
		t.Errorf("%s: %d bytes of text counted, %d delivered", name, len(c.text), want)
	}
}

// TestCutAnywhere cuts every recorded stream after every event, and within every event.
func TestCutAnywhere(t *testing.T) {
	x := translated(t, anyRequest)
	for _, r := range chattest.Recorded(t, "messages", 35) {
		if !r.Stream || !r.OK() {
			continue
		}
		events := r.Events()
		for n := range events {
			c := read(t, x, events[:n])
			if c.err != nil || c.done || n > 0 && c.report.Usage == nil || n == 0 && c.report.Usage != nil {
				t.Fatalf("%s after %d events: %v %+v", r.Name, n, c.err, c.report)
			}
			if told := n > 1 && strings.Contains(events[n-1], `"message_delta"`); told == c.report.Partial && n > 0 {
				t.Errorf("%s after %d events: partial is %t", r.Name, n, c.report.Partial)
			}
			reader := x.Reader()
			for _, event := range events[:n] {
				reader.Event([]byte(event), nil)
			}
			if half := events[n][:len(events[n])/2]; half != "" {
				if chunks, done, err := reader.Event([]byte(half), nil); err == nil || done || len(chunks) > 0 {
					t.Errorf("%s: half an event is taken: %s", r.Name, half)
				}
			}
		}
	}
}

// TestRoundTrip sends recorded thinking with a call back: the blocks are those that came, signatures and all.
func TestRoundTrip(t *testing.T) {
	n := 0
	x := translated(t, anyRequest)
	for _, r := range chattest.Recorded(t, "messages", 35) {
		if !r.OK() {
			continue
		}
		var message string
		if r.Stream {
			message = read(t, x, r.Events()).result().Raw
		} else {
			whole, err := x.Answer([]byte(r.Body))
			if err != nil {
				t.Fatal(err)
			}
			message = gjson.GetBytes(whole.Body, "choices.0.message").Raw
		}
		if !gjson.Get(message, "thinking_blocks").Exists() || !gjson.Get(message, "tool_calls").Exists() {
			continue
		}
		n++
		id := gjson.Get(message, "tool_calls.0.id").Str
		back := translated(t, `{"messages":[{"role":"user","content":"q"},`+message+`,{"role":"tool","tool_call_id":"`+id+`","content":"1"}]}`)
		blocks := gjson.GetBytes(back.Body(), "messages.1.content")
		if !r.Stream {
			compareBlocks(t, r.Name, blocks, gjson.Get(r.Body, "content"))
		}
		if first := blocks.Get("0"); first.Get("signature").Str == "" && first.Get("data").Str == "" {
			t.Errorf("%s: no signature: %s", r.Name, first.Raw)
		}
	}
	if n < 4 {
		t.Errorf("only %d answers with thinking and a call", n)
	}
}

func compareBlocks(t *testing.T, name string, got, want gjson.Result) {
	t.Helper()
	for i, b := range want.Array() {
		sent := got.Array()[i]
		for _, field := range []string{"type", "thinking", "signature", "data", "text", "id", "name", "input"} {
			if !reflect.DeepEqual(sent.Get(field).Value(), b.Get(field).Value()) {
				t.Errorf("%s: block %d went back as %s, came as %s", name, i, sent.Raw, b.Raw)
			}
		}
	}
}
