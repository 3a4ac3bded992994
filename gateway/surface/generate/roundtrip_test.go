package generate

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/anthropic"
	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/provider/chat/chattest"
	"llm-gateway/gateway/provider/gemini"
)

func encode64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// translated is an exchange with Google whose answers become chat completions.
func translated(t *testing.T, model string) chat.Exchange {
	t.Helper()
	r, err := chat.Parse([]byte(`{"model":"m","messages":[{"role":"user","content":"hi"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	x, err := gemini.Translate(r, gemini.Target{Model: model, MaxOutput: 65536, Created: 1})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// reasons are Google's reasons as they come back by way of OpenAI's words.
var reasons = map[string]string{"UNEXPECTED_TOOL_CALL": "STOP", "": "SAFETY"}

// TestRecordedAnswers takes Google's recorded answers to chat completions and back.
func TestRecordedAnswers(t *testing.T) {
	n := 0
	for _, s := range chattest.Recorded(t, "generatecontent", 1) {
		if !s.OK() || s.Stream {
			continue
		}
		n++
		completion, err := translated(t, s.Model).Answer([]byte(s.Body))
		if err != nil {
			t.Errorf("%s: %v", s.Name, err)
			continue
		}
		back, err := foreignOf(t, simple).Answer(completion.Body)
		if err != nil {
			t.Errorf("%s: %v", s.Name, err)
			continue
		}
		var got, want gathered
		got.add(t, back)
		want.take(t, s.Body)
		compare(t, s, &got, &want)
	}
	if n < 10 {
		t.Errorf("only %d answers", n)
	}
}

// TestRecordedStreams does the same with streams.
func TestRecordedStreams(t *testing.T) {
	n := 0
	for _, s := range chattest.Recorded(t, "generatecontent", 1) {
		if !s.OK() || !s.Stream {
			continue
		}
		n++
		r := translated(t, s.Model).Reader()
		var chunks []chat.Chunk
		var err error
		for _, e := range s.Events() {
			if chunks, _, err = r.Event([]byte(e), chunks); err != nil {
				t.Fatalf("%s: %v", s.Name, err)
			}
		}
		chunks, _ = r.End(chunks)
		data := make([]string, len(chunks))
		for i := range chunks {
			data[i] = string(chunks[i].Data)
		}
		got, last := write(t, foreignOf(t, simple), data)
		if end := gjson.ParseBytes(last); !end.Get("usageMetadata").Exists() || !end.Get("candidates.0.finishReason").Exists() {
			t.Errorf("%s: the last event is %s", s.Name, last)
		}
		var want gathered
		for _, e := range s.Events() {
			want.take(t, e)
		}
		compare(t, s, &got, &want)
	}
	if n < 8 {
		t.Errorf("only %d streams", n)
	}
}

// take takes in what Google sent, where the recorded text is trusted.
func (g *gathered) take(t *testing.T, native string) {
	t.Helper()
	v := gjson.Parse(native)
	if g.finish == nil {
		g.finish = map[int64]string{}
	}
	if usage := v.Get("usageMetadata"); usage.Get("totalTokenCount").Exists() || g.usage == "" {
		g.usage = usage.Raw
	}
	c := v.Get("candidates.0")
	if reason := c.Get("finishReason").Str; reason != "" {
		g.finish[0] = reason
	}
	for _, p := range c.Get("content.parts").Array() {
		if call := p.Get("functionCall"); call.Exists() && (call.Get("partialArgs").Exists() || call.Get("willContinue").Exists() || call.Get("name").Str == "") {
			g.partial(p)
			continue
		}
		g.part(t, p)
	}
}

// partial adds a call that comes in pieces; what becomes of its arguments is the translator's affair.
func (g *gathered) partial(p gjson.Result) {
	if name := p.Get("functionCall.name").Str; name != "" {
		g.calls = append(g.calls, call{name: name, args: "partial"})
	}
	if s := p.Get("thoughtSignature").Str; s != "" {
		g.signatures = append(g.signatures, s)
	}
}

func compare(t *testing.T, s chattest.Step, got, want *gathered) {
	t.Helper()
	if got.text != want.text || got.thought != want.thought {
		t.Errorf("%s: %q and %q, want %q and %q", s.Name, got.text, got.thought, want.text, want.thought)
	}
	reason := want.finish[0]
	if other, ok := reasons[reason]; ok {
		reason = other
	}
	if len(got.finish) != 1 || got.finish[0] != reason {
		t.Errorf("%s: ends with %v, want %v", s.Name, got.finish, reason)
	}
	if len(got.calls) != len(want.calls) {
		t.Fatalf("%s: %v, want %v", s.Name, got.calls, want.calls)
	}
	for i, c := range got.calls {
		args := want.calls[i].args
		if args == "" {
			args = "{}"
		}
		if c.id == "" || c.name != want.calls[i].name || args != "partial" && !chattest.SameJSON(t, c.args, args) {
			t.Errorf("%s: %v, want %v", s.Name, c, want.calls[i])
		}
	}
	if len(got.signatures) != len(want.signatures) {
		t.Errorf("%s: %d signatures, want %d", s.Name, len(got.signatures), len(want.signatures))
	}
	g, w := gjson.Parse(got.usage), gjson.Parse(want.usage)
	if prompt := w.Get("promptTokenCount").Int() + w.Get("toolUsePromptTokenCount").Int(); g.Get("promptTokenCount").Int() != prompt {
		t.Errorf("%s: %s, want %s", s.Name, got.usage, want.usage)
	}
	for _, name := range []string{"candidatesTokenCount", "thoughtsTokenCount", "cachedContentTokenCount", "totalTokenCount"} {
		if g.Get(name).Int() != w.Get(name).Int() {
			t.Errorf("%s: %s is %s, want %s", s.Name, name, got.usage, want.usage)
		}
	}
}

// TestAnthropicsThinking sends recorded answers of Anthropic's through this API and back: what it signed, and
// the calls with their ids, return as they were.
func TestAnthropicsThinking(t *testing.T) {
	signed, called := 0, 0
	for _, s := range chattest.Recorded(t, "messages", 1) {
		if !s.OK() || gjson.Get(s.Of.Raw, "expect.error").Exists() {
			continue
		}
		message, contents := throughHere(t, s)
		if message == "" {
			continue
		}
		want := gjson.Parse(message)
		results := ""
		for _, c := range want.Get("tool_calls").Array() {
			results += `,{"functionResponse":{"id":"` + c.Get("id").Str + `","name":"` + c.Get("function.name").Str + `","response":{"output":"x"}}}`
		}
		got := gjson.GetBytes(foreignOf(t, `{"contents":[{"parts":[{"text":"hi"}]},`+contents+`,{"parts":[{"text":"on"}`+results+`]}]}`).Chat(), "messages.1")
		if want.Get("content").Str == "" && len(want.Get("tool_calls").Array()) == 0 {
			continue
		}
		if got.Get("content").Str != want.Get("content").Str || got.Get("tool_calls.#.id").Raw != want.Get("tool_calls.#.id").Raw {
			t.Errorf("%s: %s, want %s", s.Name, got, want)
		}
		if g, w := got.Get("thinking_blocks").Raw, want.Get("thinking_blocks").Raw; g != w {
			t.Errorf("%s: %s, want %s", s.Name, g, w)
		} else if w != "" {
			signed++
		}
		called += len(want.Get("tool_calls").Array())
	}
	if signed < 2 || called < 5 {
		t.Errorf("only %d signed answers, and %d calls", signed, called)
	}
}

// throughHere is a recorded answer of Anthropic's as a chat message, and as the contents that a client of this
// API has of it, as many as there were events; "" where the answer broke off.
func throughHere(t *testing.T, s chattest.Step) (message, contents string) {
	t.Helper()
	r, err := chat.Parse([]byte(`{"messages":[{"role":"user","content":"hi"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	x, err := anthropic.Translate(r, anthropic.Target{Model: s.Model, MaxOutput: 4096, Created: 1})
	if err != nil {
		t.Fatal(err)
	}
	if !s.Stream {
		completion, err := x.Answer([]byte(s.Body))
		if err != nil {
			t.Fatalf("%s: %v", s.Name, err)
		}
		answer, err := foreignOf(t, simple).Answer(completion.Body)
		if err != nil {
			t.Fatalf("%s: %v", s.Name, err)
		}
		return gjson.GetBytes(completion.Body, "choices.0.message").Raw, gjson.GetBytes(answer, "candidates.0.content").Raw
	}
	reader, w := x.Reader(), foreignOf(t, simple).Writer()
	m := chat.Reply{Role: chat.RoleAssistant, Content: new(string)}
	var out []chat.Chunk
	for _, e := range s.Events() {
		chunks, done, err := reader.Event([]byte(e), nil)
		if err != nil {
			return "", ""
		}
		for _, c := range chunks {
			join(&m, gjson.GetBytes(c.Data, "choices.0.delta"))
			out = w.Chunk(c.Data, out)
		}
		if done {
			break
		}
	}
	var list []string
	for _, e := range w.End(out) {
		list = append(list, gjson.GetBytes(e.Data, "candidates.0.content").Raw)
	}
	return string(chat.Encode(m)), strings.Join(list, ",")
}

// join adds a delta to the message that a client of chat completions makes of a stream.
func join(m *chat.Reply, d gjson.Result) {
	*m.Content += d.Get("content").Str
	for _, b := range d.Get("thinking_blocks").Array() {
		m.ThinkingBlocks = append(m.ThinkingBlocks, chat.ThinkingBlock{Type: b.Get("type").Str, Thinking: b.Get("thinking").Str, Signature: b.Get("signature").Str, Data: b.Get("data").Str})
	}
	for _, c := range d.Get("tool_calls").Array() {
		if id := c.Get("id").Str; id != "" {
			m.ToolCalls = append(m.ToolCalls, chat.ReplyCall{ID: id, Function: chat.ReplyFunction{Name: c.Get("function.name").Str}})
		}
	}
}
