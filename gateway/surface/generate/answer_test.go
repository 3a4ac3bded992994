package generate

import (
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/provider/chat/chattest"
)

func TestAnswers(t *testing.T) {
	for _, c := range chattest.Table(t, "testdata/answers.json") {
		got, err := foreignOf(t, simple).Answer([]byte(c.Get("answer").Raw))
		if err != nil || !chattest.SameJSON(t, string(got), c.Get("want").Raw) {
			t.Errorf("%s: %v\n%s, want\n%s", c.Get("name"), err, got, c.Get("want"))
		}
	}
	for _, bad := range []string{"", "[]", "{", `{"error":{}}`, `{"choices":3}`} {
		if _, err := foreignOf(t, simple).Answer([]byte(bad)); err == nil {
			t.Errorf("%q is an answer", bad)
		}
	}
}

// chunk is a chat chunk of one choice.
func chunk(delta, finish string) string {
	if finish != "null" {
		finish = `"` + finish + `"`
	}
	return `{"id":"x","object":"chat.completion.chunk","created":1,"model":"gpt","choices":[{"index":0,"delta":` + delta + `,"logprobs":null,"finish_reason":` + finish + `}]}`
}

const usageChunk = `{"id":"x","model":"gpt","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12,"completion_tokens_details":{"reasoning_tokens":3}}}`

// lines are the events of a stream, one to a line; the last is marked.
func lines(f chat.Foreign, chunks ...string) string {
	var out []chat.Chunk
	w := f.Writer()
	for _, c := range chunks {
		out = w.Chunk([]byte(c), out)
	}
	var b strings.Builder
	for _, e := range w.End(out) {
		if e.Last {
			b.WriteString("last ")
		}
		b.Write(e.Data)
		b.WriteByte('\n')
	}
	return b.String()
}

func TestStream(t *testing.T) {
	got := lines(foreignOf(t, simple),
		chunk(`{"role":"assistant","content":""}`, "null"),
		chunk(`{"reasoning_content":"hmm"}`, "null"),
		chunk(`{"content":"Hel"}`, "null"),
		chunk(`{"content":"lo"}`, "null"),
		chunk(`{"tool_calls":[{"index":0,"id":"call_a","type":"function","function":{"name":"f","arguments":""}}]}`, "null"),
		chunk(`{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\""}}]}`, "null"),
		chunk(`{"tool_calls":[{"index":1,"id":"call_b","type":"function","function":{"name":"g","arguments":"{}"}},{"index":0,"function":{"arguments":":1}"}}]}`, "null"),
		chunk(`{}`, "tool_calls"), usageChunk)
	want := `{"candidates":[{"content":{"parts":[{"text":"hmm","thought":true}],"role":"model"},"index":0}],"modelVersion":"gpt","responseId":"resp-1"}
{"candidates":[{"content":{"parts":[{"text":"Hel"}],"role":"model"},"index":0}],"modelVersion":"gpt","responseId":"resp-1"}
{"candidates":[{"content":{"parts":[{"text":"lo"}],"role":"model"},"index":0}],"modelVersion":"gpt","responseId":"resp-1"}
last {"candidates":[{"content":{"parts":[{"functionCall":{"id":"call_a","name":"f","args":{"a":1}}},{"functionCall":{"id":"call_b","name":"g","args":{}}}],"role":"model"},"finishReason":"STOP","index":0}],` +
		`"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":4,"thoughtsTokenCount":3,"totalTokenCount":12},"modelVersion":"gpt","responseId":"resp-1"}
`
	if got != want {
		t.Errorf("%s, want\n%s", got, want)
	}
}

// TestStreamEnds: the end comes in the last event alone, wherever the chunks have it.
func TestStreamEnds(t *testing.T) {
	first := `{"candidates":[{"content":{"parts":[{"text":"a"}],"role":"model"},"index":0}],"modelVersion":"gpt","responseId":"resp-1"}` + "\n"
	last := func(finish, usage string) string {
		return `last {"candidates":[{"content":{"parts":[{"text":""}],"role":"model"},"finishReason":"` + finish + `","index":0}],` + usage + `"modelVersion":"gpt","responseId":"resp-1"}` + "\n"
	}
	usage := `"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":4,"thoughtsTokenCount":3,"totalTokenCount":12},`
	withUsage := strings.TrimSuffix(chunk(`{"content":"a"}`, "length"), "}") + `,"usage":{"prompt_tokens":5,"completion_tokens":7,"completion_tokens_details":{"reasoning_tokens":3}}}`
	for name, c := range map[string]struct {
		chunks []string
		want   string
	}{
		"with the text":       {[]string{chunk(`{"content":"a"}`, "stop"), usageChunk}, first + last("STOP", usage)},
		"without usage":       {[]string{chunk(`{"content":"a"}`, "stop")}, first + last("STOP", "")},
		"usage with the end":  {[]string{withUsage}, first + last("MAX_TOKENS", usage)},
		"usage before it":     {[]string{chunk(`{"content":"a"}`, "null"), usageChunk, chunk(`{}`, "content_filter")}, first + last("SAFETY", usage)},
		"no end":              {[]string{chunk(`{"content":"a"}`, "null"), usageChunk}, first + last("STOP", usage)},
		"nothing but usage":   {[]string{usageChunk}, last("STOP", usage)},
		"what is no chunk":    {[]string{"{", "[]", `"x"`, `{"choices":[3]}`, chunk(`{"content":"a"}`, "stop"), usageChunk}, first + last("STOP", usage)},
		"an empty piece":      {[]string{chunk(`{"content":""}`, "null"), chunk(`{"content":"a"}`, "stop"), usageChunk}, first + last("STOP", usage)},
		"usage that is null":  {[]string{chunk(`{"content":"a"}`, "stop"), `{"choices":[],"usage":null}`}, first + last("STOP", "")},
		"usage of the last":   {[]string{`{"model":"gpt","choices":[],"usage":{"prompt_tokens":1}}`, chunk(`{"content":"a"}`, "stop"), usageChunk}, first + last("STOP", usage)},
		"negative usage is 0": {[]string{chunk(`{"content":"a"}`, "stop"), `{"choices":[],"usage":{"prompt_tokens":-1,"completion_tokens":-5}}`}, first + last("STOP", `"usageMetadata":{"promptTokenCount":0,"candidatesTokenCount":0,"totalTokenCount":0},`)},
	} {
		if got := lines(foreignOf(t, simple), c.chunks...); got != c.want {
			t.Errorf("%s:\n%s, want\n%s", name, got, c.want)
		}
	}
}

func TestStreamOfTwo(t *testing.T) {
	got := lines(foreignOf(t, simple), `{"model":"gpt","choices":[{"index":1,"delta":{"content":"b"},"finish_reason":"stop"}]}`,
		`{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"length"}]}`)
	want := `{"candidates":[{"content":{"parts":[{"text":"b"}],"role":"model"},"index":1}],"modelVersion":"gpt","responseId":"resp-1"}
{"candidates":[{"content":{"parts":[{"text":"a"}],"role":"model"},"index":0}],"modelVersion":"gpt","responseId":"resp-1"}
last {"candidates":[{"content":{"parts":[{"text":""}],"role":"model"},"finishReason":"MAX_TOKENS","index":0},{"content":{"parts":[{"text":""}],"role":"model"},"finishReason":"STOP","index":1}],"modelVersion":"gpt","responseId":"resp-1"}
`
	if got != want {
		t.Errorf("%s, want\n%s", got, want)
	}
}

// blocks are thoughts that only their provider takes back.
const blocks = `[{"type":"thinking","thinking":"first","signature":"c2ln+/=="},{"type":"redacted_thinking","data":"hidden"},{"type":"thinking","thinking":"second ü","signature":"other"}]`

// TestSignatures sends signed thinking there and back: through a whole answer, and through a stream, which
// tells the text before the signatures. Clients send a signature back in the other alphabet of base64.
func TestSignatures(t *testing.T) {
	whole, err := foreignOf(t, simple).Answer([]byte(`{"choices":[{"message":{"content":"a","reasoning_content":"firstsecond ü","thinking_blocks":` + blocks + `},"finish_reason":"stop"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	indexed := strings.ReplaceAll(blocks, `{"type"`, `{"index":0,"type"`)
	streamed := lines(foreignOf(t, simple), chunk(`{"reasoning_content":"fir"}`, "null"), chunk(`{"reasoning_content":"st"}`, "null"), chunk(`{"reasoning_content":"second ü"}`, "null"),
		chunk(`{"content":"a"}`, "null"), chunk(`{"thinking_blocks":`+indexed+`}`, "null"), chunk(`{}`, "stop"))
	unseen := lines(foreignOf(t, simple), chunk(`{"content":"a"}`, "null"), chunk(`{"thinking_blocks":`+indexed+`}`, "null"), chunk(`{}`, "stop"))
	for name, answer := range map[string]string{"whole": string(whole), "streamed": streamed, "not told before": unseen} {
		var contents []string
		text := ""
		for line := range strings.Lines(answer) {
			c := gjson.Get(strings.TrimPrefix(line, "last "), "candidates.0.content")
			contents = append(contents, c.Raw)
			for _, p := range c.Get("parts").Array() {
				if p.Get("thought").Bool() {
					text += p.Get("text").Str
				}
			}
		}
		if text != "firstsecond ü" {
			t.Errorf("%s: told %q: %s", name, text, answer)
		}
		turn := strings.Join(contents, ",")
		for _, back := range []string{turn, otherAlphabet(turn)} {
			f := foreignOf(t, `{"contents":[{"parts":[{"text":"hi"}]},`+back+`,{"parts":[{"text":"on"}]}]}`)
			got := gjson.GetBytes(f.Chat(), "messages.1")
			if got.Get("thinking_blocks").Raw != blocks || got.Get("reasoning_content").Str != "firstsecond ü" || got.Get("content").Str != "a" || got.Get("extra_content").Exists() {
				t.Errorf("%s: sent back %s", name, got)
			}
		}
		// Where the text does not come back as it was, neither does its signature.
		lost := foreignOf(t, `{"contents":[{"parts":[{"text":"hi"}]},`+strings.ReplaceAll(turn, "second", "secund")+`]}`)
		for _, b := range gjson.GetBytes(lost.Chat(), "messages.1.thinking_blocks").Array() {
			if b.Get("signature").Str == "other" {
				t.Errorf("%s: signed another text: %s", name, lost.Chat())
			}
		}
	}
}

// otherAlphabet writes the signatures of a text as some clients do.
func otherAlphabet(text string) string {
	for _, s := range strings.Split(text, `"thoughtSignature":"`)[1:] {
		signature, _, _ := strings.Cut(s, `"`)
		text = strings.ReplaceAll(text, signature, strings.NewReplacer("+", "-", "/", "_", "=", "").Replace(signature))
	}
	return text
}

func TestUnseal(t *testing.T) {
	b := chat.ThinkingBlock{Type: "thinking", Thinking: "abc", Signature: "sig"}
	s := seal(&b, 2)
	if !strings.HasPrefix(s, "bGxtLWdhdGV3YXkv") || !isSealed(s) {
		t.Errorf("%s does not begin as package gemini knows it", s)
	}
	if got, end := unseal(s, "xxabc", 2); got == nil || *got != b || end != 5 {
		t.Errorf("%v, %d", got, end)
	}
	if got, end := unseal(s, "xxabc", 3); got != nil || end != 3 {
		t.Errorf("%v, %d: it signs what another has signed", got, end)
	}
	for _, thought := range []string{"", "xx", "xxab", "xxabd", "abcxx"} {
		if got, _ := unseal(s, thought, 0); got != nil {
			t.Errorf("%q is signed: %v", thought, got)
		}
	}
	raw, _ := decode64(s)
	for n := range raw {
		unseal(encode64(string(raw[:n])), "xxabc", 0) // cut anywhere, it does not panic
	}
	for _, foreign := range []string{"", "QUJD", "skip_thought_signature_validator", "no base64!"} {
		if got, end := unseal(foreign, "", 7); isSealed(foreign) || got != nil || end != 7 {
			t.Errorf("%q is ours", foreign)
		}
	}
}

// TestManyCalls: a body of many calls and results is read in a time that grows as it does.
func TestManyCalls(t *testing.T) {
	const n = 50_000
	call, result := `,{"functionCall":{"name":"f"}}`, `,{"functionResponse":{"name":"f","response":{}}}`
	f := foreignOf(t, `{"contents":[{"parts":[{"text":"hi"}]},{"role":"model","parts":[{"text":"a"}`+strings.Repeat(call, n)+`]},{"parts":[{"text":"b"}`+strings.Repeat(result, n)+`]}]}`)
	ids := gjson.GetBytes(f.Chat(), "messages.1.tool_calls.#.id").Array()
	results := gjson.GetBytes(f.Chat(), "messages.#.tool_call_id").Array()
	if len(ids) != n || len(results) != n || ids[n-1].Str != results[n-1].Str {
		t.Errorf("%d calls, %d results", len(ids), len(results))
	}
}
