package responses

import (
	"slices"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/anthropic"
	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/provider/chat/chattest"
	"llm-gateway/gateway/provider/gemini"
)

// asked is a request that any provider can be asked.
const asked = `{"model":"m","input":"q","stream":true,"tools":[{"type":"function","name":"f","parameters":{"type":"object"}}]}`

// translator makes the exchange with a provider of its own API.
type translator func(r *chat.Request, model string) (chat.Exchange, error)

func toAnthropic(r *chat.Request, model string) (chat.Exchange, error) {
	return anthropic.Translate(r, anthropic.Target{Model: model, MaxOutput: 64000, Created: created})
}

func toGemini(r *chat.Request, model string) (chat.Exchange, error) {
	return gemini.Translate(r, gemini.Target{Model: model, MaxOutput: 65536, Created: created})
}

func TestRoundTrips(t *testing.T) {
	for _, p := range []struct {
		endpoint, model string
		least           int
		to              translator
	}{
		{"messages", "claude-sonnet-4-5", 25, toAnthropic},
		{"generatecontent", "gemini-2.5-flash", 25, toGemini},
	} {
		for _, s := range chattest.Recorded(t, p.endpoint, p.least) {
			if !s.OK() {
				continue
			}
			f := foreignOf(t, asked)
			r, err := chat.Parse(f.Chat())
			if err != nil {
				t.Fatal(err)
			}
			x, err := p.to(r, p.model)
			if err != nil {
				t.Fatal(err)
			}
			if s.Stream {
				checkStream(t, s, f, x)
			} else {
				checkWhole(t, s, f, x)
			}
		}
	}
}

// checkWhole takes a recorded answer through chat completions into this API, and its chat completion beside it.
func checkWhole(t *testing.T, s chattest.Step, f chat.Foreign, x chat.Exchange) {
	t.Helper()
	completion, err := x.Answer([]byte(s.Body))
	if err != nil {
		return // an error of the provider's under status 200
	}
	got, err := f.Answer(completion.Body)
	if err != nil {
		t.Errorf("%s: %v", s.Name, err)
		return
	}
	m := gjson.GetBytes(completion.Body, "choices.0.message")
	want := said{text: m.Get("content").Str, reasoning: m.Get("reasoning_content").Str, finish: gjson.GetBytes(completion.Body, "choices.0.finish_reason").Str,
		thoughts: m.Get("thinking_blocks").Raw, signature: signatureOf(m), usage: usageLine(gjson.GetBytes(completion.Body, "usage"))}
	m.Get("tool_calls").ForEach(func(_, c gjson.Result) bool { want.call(c); return true })
	want.citations = len(m.Get("annotations").Array())
	compare(t, s, gjson.ParseBytes(got), want)
}

// checkStream does the same with a stream.
func checkStream(t *testing.T, s chattest.Step, f chat.Foreign, x chat.Exchange) {
	t.Helper()
	var chunks []chat.Chunk
	r, done := x.Reader(), false
	for _, data := range s.Events() {
		var err error
		if chunks, done, err = r.Event([]byte(data), chunks); err != nil {
			return
		}
		for i := range chunks { // what a reader gives is valid until the next event only
			chunks[i].Data = []byte(string(chunks[i].Data))
		}
	}
	if !done {
		if chunks, done = r.End(chunks); !done {
			return
		}
	}
	want, data := said{}, []string{}
	for _, c := range chunks {
		data = append(data, string(c.Data))
		want.chunk(gjson.ParseBytes(c.Data))
	}
	compare(t, s, stream(t, s.Name, f, data).final, want)
}

// said is what an answer says.
type said struct {
	text, reasoning, finish, thoughts, signature, usage string
	calls                                               []calling
	citations                                           int
}

// calling is one call.
type calling struct{ id, name, arguments, signature string }

// call keeps a call, or what a chunk adds to one.
func (a *said) call(c gjson.Result) {
	if index := c.Get("index"); index.Exists() && int(index.Int()) < len(a.calls) {
		a.calls[index.Int()].arguments += c.Get("function.arguments").Str
		return
	}
	a.calls = append(a.calls, calling{c.Get("id").Str, c.Get("function.name").Str, c.Get("function.arguments").Str, signatureOf(c)})
}

func (a *said) chunk(v gjson.Result) {
	if u := v.Get("usage"); u.IsObject() {
		a.usage = usageLine(u)
	}
	choice := v.Get("choices.0")
	d := choice.Get("delta")
	a.text += d.Get("content").Str
	a.reasoning += d.Get("reasoning_content").Str
	if b := d.Get("thinking_blocks"); b.Exists() {
		a.thoughts = b.Raw
	}
	if s := signatureOf(d); s != "" {
		a.signature = s
	}
	a.citations += len(d.Get("annotations").Array())
	if finish := choice.Get("finish_reason").Str; finish != "" {
		a.finish = finish
	}
	d.Get("tool_calls").ForEach(func(_, c gjson.Result) bool { a.call(c); return true })
}

func usageLine(u gjson.Result) string {
	if !u.IsObject() {
		return ""
	}
	return strings.Join([]string{u.Get("prompt_tokens").Raw, u.Get("completion_tokens").Raw, u.Get("total_tokens").Raw,
		u.Get("prompt_tokens_details.cached_tokens").Raw, u.Get("completion_tokens_details.reasoning_tokens").Raw}, " ")
}

// compare holds a response against what was said on the way.
func compare(t *testing.T, s chattest.Step, r gjson.Result, want said) {
	t.Helper()
	got, own := said{}, carried{}
	for _, v := range r.Get("output").Array() {
		if c, ours := carriedOf(v); ours && c.holds() {
			own = c
		}
		for _, p := range v.Get("content").Array() {
			got.text += p.Get("text").Str
			got.citations += len(p.Get("annotations").Array())
		}
		for _, p := range v.Get("summary").Array() {
			got.reasoning += p.Get("text").Str
		}
	}
	for _, v := range r.Get(`output.#(type=="function_call")#`).Array() {
		id := v.Get("call_id").Str
		got.calls = append(got.calls, calling{id, v.Get("name").Str, v.Get("arguments").Str, own.Calls[id]})
	}
	got.signature, got.finish = own.ThoughtSignature, finishOf(r)
	if u := r.Get("usage"); u.IsObject() {
		got.usage = strings.Join([]string{u.Get("input_tokens").Raw, u.Get("output_tokens").Raw, u.Get("total_tokens").Raw,
			u.Get("input_tokens_details.cached_tokens").Raw, u.Get("output_tokens_details.reasoning_tokens").Raw}, " ")
	}
	blocks := gjson.Parse(want.thoughts).Array()
	if len(blocks) != len(own.ThinkingBlocks) {
		t.Errorf("%s: %d blocks of thinking, want %d", s.Name, len(own.ThinkingBlocks), len(blocks))
	}
	for i, b := range own.ThinkingBlocks {
		if b.Thinking != blocks[i].Get("thinking").Str || b.Signature != blocks[i].Get("signature").Str || b.Data != blocks[i].Get("data").Str || b.Type != blocks[i].Get("type").Str {
			t.Errorf("%s: %+v, want %s", s.Name, b, blocks[i])
		}
	}
	if got.text != want.text || got.reasoning != want.reasoning || got.finish != want.finish || got.signature != want.signature ||
		got.usage != want.usage || got.citations != want.citations || !slices.Equal(got.calls, want.calls) {
		t.Errorf("%s:\n got %+v\nwant %+v", s.Name, got, want)
	}
	if r.Get("model").Str == "" {
		t.Errorf("%s: no model", s.Name)
	}
}
