package messages

import (
	"errors"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/anthropic"
	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/provider/chat/chattest"
	"llm-gateway/gateway/provider/gemini"
)

// TestRecordedRequests: what was billed is within what the facts bound, and what can be asked elsewhere is a chat
// completion.
func TestRecordedRequests(t *testing.T) {
	refusals := map[string]string{"an-cite/0": "messages[2].content[0].content[0].citations",
		"an-basic-2/0": "messages[0].content[1].source.type", "an-cread-1/0": "messages[1].content[0].type"}
	n := 0
	for _, r := range chattest.Recorded(t, "messages", 30) {
		if r.Request == "" {
			continue
		}
		n++
		request := []byte(compact(r.Request))
		f, err := Facts(request)
		if err != nil {
			t.Errorf("%s: %v", r.Name, err)
			continue
		}
		const imageTokens = 5000 // as the provider's terms have it
		bound := f.InputBytes + 64 + f.Images*imageTokens - f.ImageBytes
		u := r.Of.Get("usage_raw")
		billed := u.Get("input_tokens").Int() + u.Get("cache_creation_input_tokens").Int() + u.Get("cache_read_input_tokens").Int()
		if bound < billed && !f.Opaque {
			t.Errorf("%s: %d tokens, bound by %d", r.Name, billed, bound)
		}
		foreign, err := Foreign(request, "x", 0)
		if refused, ok := errors.AsType[*chat.Unsupported](err); ok {
			if refusals[r.Name] != refused.Param {
				t.Errorf("%s: %v", r.Name, err)
			}
			continue
		}
		if _, err := chat.Parse(foreign.Chat()); err != nil {
			t.Errorf("%s: %v", r.Name, err)
		}
	}
	if n < 25 {
		t.Errorf("only %d recorded requests", n)
	}
}

// exchangeOf translates a request's way to another provider, for its way back.
func exchangeOf(t *testing.T, translate func(*chat.Request) (chat.Exchange, error)) chat.Exchange {
	t.Helper()
	q, err := chat.Parse(foreignOf(t, asked).Chat())
	if err != nil {
		t.Fatal(err)
	}
	x, err := translate(q)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func toAnthropic(q *chat.Request) (chat.Exchange, error) {
	return anthropic.Translate(q, anthropic.Target{Model: "claude-sonnet-4-5", MaxOutput: 64000, Created: 1})
}

func toGemini(q *chat.Request) (chat.Exchange, error) {
	return gemini.Translate(q, gemini.Target{Model: "gemini-3-pro", MaxOutput: 64000, Created: 1})
}

// chunksOf reads a recorded stream as chat chunks; not ok where it tells of an error.
func chunksOf(t *testing.T, x chat.Exchange, body string) (chunks []string, ok bool) {
	t.Helper()
	r := x.Reader()
	for _, data := range chattest.Events(body) {
		some, done, err := r.Event([]byte(data), nil)
		if err != nil {
			return nil, false
		}
		for _, c := range some {
			chunks = append(chunks, string(c.Data))
		}
		if done {
			break
		}
	}
	some, _ := r.End(nil)
	for _, c := range some {
		chunks = append(chunks, string(c.Data))
	}
	return chunks, true
}

// TestThereAndBack: a recorded answer of Anthropic's, told as a chat completion and in its own form again, is what
// it was.
func TestThereAndBack(t *testing.T) {
	x, n := exchangeOf(t, toAnthropic), 0
	for _, r := range chattest.Recorded(t, "messages", 30) {
		if !r.OK() {
			continue
		}
		n++
		var got, want gjson.Result
		if r.Stream {
			chunks, ok := chunksOf(t, x, r.Body)
			if !ok {
				t.Errorf("%s: cannot be read", r.Name)
				continue
			}
			// A call that began again goes on under the id that the client has seen.
			got, want = stream(t, foreignOf(t, asked).Writer(), chunks), nativeOf(strings.ReplaceAll(r.Body, "toolu_second", "toolu_first"))
		} else {
			completion, err := x.Answer([]byte(r.Body))
			if err != nil {
				t.Errorf("%s: %v", r.Name, err)
				continue
			}
			answer, err := foreignOf(t, asked).Answer(completion.Body)
			if err != nil {
				t.Errorf("%s: %v", r.Name, err)
				continue
			}
			got, want = gjson.ParseBytes(answer), gjson.Parse(r.Body)
		}
		compare(t, r.Name, got, want)
	}
	if n < 30 {
		t.Errorf("only %d recorded answers", n)
	}
}

// nativeOf is the message of a recorded stream of Anthropic's. Of two starts the later counts.
func nativeOf(body string) gjson.Result {
	g := gathered{}
	var usage gjson.Result
	for _, data := range chattest.Events(body) {
		e := gjson.Parse(data)
		switch kind := e.Get("type").Str; kind {
		case "message_start":
			g, usage = gathered{message: map[string]any{"model": e.Get("message.model").Str}}, e.Get("message.usage")
		case "content_block_start":
			g.open = false
			_ = g.block(kind, e)
		case "content_block_delta":
			_ = g.block(kind, e)
		case "message_delta":
			g.message["stop_reason"] = e.Get("delta.stop_reason").Str
			merged := usage.Value().(map[string]any)
			e.Get("usage").ForEach(func(key, v gjson.Result) bool {
				if v.Type != gjson.Null {
					merged[key.Str] = v.Value()
				}
				return true
			})
			g.message["usage"] = merged
		}
	}
	return g.result()
}

// told is what must survive of an answer: text, calls, why it stopped, what it used.
func told(m gjson.Result) (text, calls, rest string) {
	m.Get("content").ForEach(func(_, b gjson.Result) bool {
		text += b.Get("text").Str
		if b.Get("type").Str == "tool_use" {
			calls += b.Get("id").Str + " " + b.Get("name").Str + " " + compact(b.Get("input").Raw) + "\n"
		}
		return true
	})
	rest = m.Get("stop_reason").Str + " " + m.Get("model").Str
	for _, count := range []string{"input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens", "output_tokens_details.thinking_tokens"} {
		rest += " " + itoa(int(m.Get("usage."+count).Int()))
	}
	return text, calls, rest
}

func compare(t *testing.T, name string, got, want gjson.Result) {
	t.Helper()
	text, calls, rest := told(got)
	wantText, wantCalls, wantRest := told(want)
	if text != wantText || calls != wantCalls || rest != wantRest {
		t.Errorf("%s:\n got %q %q %s\nwant %q %q %s", name, text, calls, rest, wantText, wantCalls, wantRest)
	}
	var signatures, wanted []string
	for _, s := range got.Get(`content.#(type=="thinking")#.signature`).Array() {
		signatures = append(signatures, s.Str)
	}
	for _, s := range want.Get(`content.#(type=="thinking")#.signature`).Array() {
		wanted = append(wanted, s.Str)
	}
	if strings.Join(signatures, "") != strings.Join(wanted, "") {
		t.Errorf("%s: signatures %q, want %q", name, signatures, wanted)
	}
}

// TestGoogleAndBack: the signatures of recorded answers of Google's come back where they were, when the client
// sends the answer back.
func TestGoogleAndBack(t *testing.T) {
	x, n := exchangeOf(t, toGemini), 0
	for _, r := range chattest.Recorded(t, "generatecontent", 25) {
		if !r.OK() {
			continue
		}
		var message gjson.Result
		if r.Stream {
			chunks, ok := chunksOf(t, x, r.Body)
			if !ok {
				continue
			}
			message = stream(t, foreignOf(t, asked).Writer(), chunks)
		} else {
			completion, err := x.Answer([]byte(r.Body))
			if err != nil {
				continue
			}
			answer, err := foreignOf(t, asked).Answer(completion.Body)
			if err != nil {
				t.Fatal(err)
			}
			message = gjson.ParseBytes(answer)
		}
		if message.Get("content.#").Int() == 0 {
			continue
		}
		again := `{"model":"gemini-3-pro","max_tokens":9,"messages":[{"role":"user","content":"q"},{"role":"assistant","content":` + message.Get("content").Raw + `},{"role":"user","content":"go on"}]}`
		var sent []string
		googleSignatures(gjson.GetBytes(foreignOf(t, again).Chat(), "messages"), "thought_signature", &sent)
		var signed []string
		googleSignatures(gjson.Parse("["+strings.Join(append(r.Events(), r.Body), ",")+"]"), "thoughtSignature", &signed)
		for _, s := range sent {
			n++
			if !strings.Contains(strings.Join(signed, "\n"), s) {
				t.Errorf("%s: %q is none of Google's signatures", r.Name, s)
			}
		}
		if len(signed) > 0 && len(sent) == 0 {
			t.Errorf("%s: %d signatures are lost", r.Name, len(signed))
		}
	}
	if n == 0 {
		t.Error("no recorded signatures")
	}
}

// googleSignatures are all strings of that name in a JSON.
func googleSignatures(v gjson.Result, name string, into *[]string) {
	if !v.IsObject() && !v.IsArray() {
		return
	}
	v.ForEach(func(key, value gjson.Result) bool {
		if key.Str == name && value.Type == gjson.String {
			*into = append(*into, value.Str)
		}
		googleSignatures(value, name, into)
		return true
	})
}

// TestOpenAIAndBack: every recorded stream and answer of OpenAI's and of those that speak its API becomes a whole
// message with the same text and calls.
func TestOpenAIAndBack(t *testing.T) {
	for _, r := range chattest.Recorded(t, "chat", 30) {
		if !r.OK() || strings.Contains(r.Body, `"error":{`) {
			continue
		}
		if !r.Stream {
			if _, err := foreignOf(t, asked).Answer([]byte(r.Body)); err != nil {
				t.Errorf("%s: %v", r.Name, err)
			}
			continue
		}
		var text strings.Builder
		for _, data := range r.Events() {
			text.WriteString(gjson.Get(data, "choices.0.delta.content").Str + gjson.Get(data, "choices.0.delta.refusal").Str)
		}
		got, calls, _ := told(stream(t, foreignOf(t, asked).Writer(), r.Events()))
		if got != text.String() || strings.Contains(r.Body, `"tool_calls":[`) != (calls != "") {
			t.Errorf("%s: %q %q, want %q", r.Name, got, calls, text.String())
		}
	}
}
