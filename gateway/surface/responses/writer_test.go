package responses

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
	"pgregory.net/rapid"
)

// delta is a chunk of a chat completion.
func delta(json string) string {
	return `{"id":"x","object":"chat.completion.chunk","created":1,"model":"served","choices":[{"index":0,"delta":` + json + `,"logprobs":null,"finish_reason":null}]}`
}

func finish(reason string) string {
	return `{"id":"x","object":"chat.completion.chunk","created":1,"model":"served","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"` + reason + `"}]}`
}

const (
	role      = `{"role":"assistant","content":""}`
	usageLast = `{"id":"x","object":"chat.completion.chunk","created":1,"model":"served","service_tier":"default","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":7,"total_tokens":17,"prompt_tokens_details":{"cached_tokens":4,"cache_write_tokens":1},"completion_tokens_details":{"reasoning_tokens":3}}}`
)

// streams are chat streams, and what output they must come to: "kind(text) ..." and the status.
var streams = []struct {
	name, want string
	chunks     []string
}{
	{"nothing", "message() completed", nil},
	{"a role and the end", "message() completed", []string{delta(role), finish("stop"), usageLast}},
	{"text", "message(Hello) completed", []string{delta(role), delta(`{"content":"Hel"}`), delta(`{"content":"lo"}`), finish("stop"), usageLast}},
	{"cut at the maximum", "message(Hel) incomplete max_output_tokens", []string{delta(role), delta(`{"content":"Hel"}`), finish("length"), usageLast}},
	{"filtered", "message() incomplete content_filter", []string{delta(role), finish("content_filter"), usageLast}},
	{"a refusal", "message(!no) completed", []string{delta(role), delta(`{"refusal":"n"}`), delta(`{"refusal":"o"}`), finish("stop")}},
	{"text, then a refusal", "message(a!no) completed", []string{delta(`{"content":"a"}`), delta(`{"refusal":"no"}`), finish("stop")}},
	{"reasoning", "reasoning(hm) message(a) completed", []string{delta(`{"role":"assistant","reasoning_content":"h"}`), delta(`{"reasoning_content":"m"}`), delta(`{"content":"a"}`), finish("stop")}},
	{"reasoning by its other name", "reasoning(hm) message(a) completed", []string{delta(`{"reasoning":"hm"}`), delta(`{"content":"a"}`), finish("stop")}},
	{"reasoning again", "reasoning(h) message(a) reasoning(m) message(b) completed", []string{delta(`{"reasoning_content":"h"}`), delta(`{"content":"a"}`), delta(`{"reasoning_content":"m"}`), delta(`{"content":"b"}`), finish("stop")}},
	{"signed reasoning", "reasoning(hm) message(a) reasoning() completed", []string{delta(role), delta(`{"reasoning_content":"hm"}`), delta(`{"content":"a"}`),
		delta(`{"thinking_blocks":[{"index":0,"type":"thinking","thinking":"hm","signature":"sig"}]}`), finish("stop"), usageLast}},
	{"a call", "function_call(c1 f {\"a\":1}) completed", []string{delta(role), delta(`{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":""}}]}`),
		delta(`{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\""}}]}`), delta(`{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]}`), finish("tool_calls"), usageLast}},
	{"text, then calls that take turns", "message(a) function_call(c1 f [1,2]) function_call(c2 g {}) completed", []string{delta(`{"content":"a"}`),
		delta(`{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":"[1"}}]}`), delta(`{"tool_calls":[{"index":1,"id":"c2","type":"function","function":{"name":"g","arguments":""}}]}`),
		delta(`{"tool_calls":[{"index":0,"function":{"arguments":",2]"}}]}`), finish("tool_calls")}},
	{"calls under one index", "function_call(c1 f {}) function_call(c2 f {}) completed", []string{
		delta(`{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]}`), delta(`{"tool_calls":[{"index":0,"id":"c2","type":"function","function":{"name":"f","arguments":"{}"}}]}`), finish("tool_calls")}},
	{"a call without an id", "function_call(call_fc_0a1b2c3d_0 f {}) completed", []string{delta(`{"tool_calls":[{"index":0,"type":"function","function":{"name":"f","arguments":"{}"}}]}`), finish("tool_calls")}},
	{"a call whose id comes again", "function_call(c1 f {}) completed", []string{delta(`{"tool_calls":[{"index":0,"id":"c1","function":{"name":"f","arguments":"{"}}]}`), delta(`{"tool_calls":[{"index":0,"id":"c1","function":{"name":"f","arguments":"}"}}]}`), finish("tool_calls")}},
	{"a signed call", "function_call(c1 f {}) reasoning() completed", []string{delta(`{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":"{}"},"extra_content":{"google":{"thought_signature":"s"}}}]}`), finish("tool_calls")}},
	{"text after a call", "message(a) function_call(c1 f {}) message(b) completed", []string{delta(`{"content":"a"}`), delta(`{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]}`), delta(`{"content":"b"}`), finish("tool_calls")}},
	{"an image", "message(a) image_generation_call(AA==) completed", []string{delta(`{"content":"a"}`), delta(`{"images":[{"index":0,"type":"image_url","image_url":{"url":"data:image/png;base64,AA=="}}]}`), finish("stop")}},
	{"citations", "message(a page[0:6]) completed", []string{delta(`{"content":"a page"}`), delta(`{"annotations":[{"type":"url_citation","url_citation":{"start_index":0,"end_index":6,"title":"t","url":"u"}}]}`), finish("stop")}},
	{"citations that come late", "message(ä[0:1]) function_call(c1 f {}) message(b[0:1]) completed", []string{delta(`{"content":"ä"}`), delta(`{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f"}}]}`), delta(`{"content":"b"}`),
		delta(`{"annotations":[{"type":"url_citation","url_citation":{"start_index":0,"end_index":1,"title":"t","url":"u"}},{"type":"url_citation","url_citation":{"start_index":1,"end_index":2,"title":"t","url":"u"}}]}`), finish("tool_calls")}},
	{"citations of nothing", "message() completed", []string{delta(`{"annotations":[{"type":"url_citation","url_citation":{"start_index":0,"end_index":1,"title":"t","url":"u"}}]}`), finish("stop")}},
	{"other choices, and what is no chunk", "message(a) completed", []string{`{"choices":[{"index":1,"delta":{"content":"x"}}]}`, `{`, `[]`, `{"choices":{}}`, delta(`{"content":"a"}`), finish("stop")}},
}

func TestStreams(t *testing.T) {
	f := foreignOf(t, `{"model":"m","input":"q","stream":true}`)
	for _, s := range streams {
		c := stream(t, s.name, f, s.chunks)
		if got := summary(c.final); got != s.want {
			t.Errorf("%s: %s, want %s", s.name, got, s.want)
		}
		if len(s.chunks) > 0 && s.chunks[len(s.chunks)-1] == usageLast && c.final.Get("usage").Raw != wantUsage {
			t.Errorf("%s: usage %s", s.name, c.final.Get("usage"))
		}
	}
}

const wantUsage = `{"input_tokens":10,"input_tokens_details":{"cached_tokens":4,"cache_write_tokens":1},"output_tokens":7,"output_tokens_details":{"reasoning_tokens":3},"total_tokens":17}`

// summary is a response's output on one line.
func summary(r gjson.Result) string {
	out := []string{}
	for _, v := range r.Get("output").Array() {
		text := ""
		for _, p := range append(v.Get("content").Array(), v.Get("summary").Array()...) {
			text += p.Get("text").Str
			if p.Get("type").Str == "refusal" {
				text += "!" + p.Get("refusal").Str
			}
			for _, a := range p.Get("annotations").Array() {
				text += fmt.Sprintf("[%d:%d]", a.Get("start_index").Int(), a.Get("end_index").Int())
			}
		}
		if v.Get("type").Str == "function_call" {
			text = v.Get("call_id").Str + " " + v.Get("name").Str + " " + v.Get("arguments").Str
		}
		out = append(out, v.Get("type").Str+"("+text+v.Get("result").Str+")")
	}
	return strings.TrimSpace(strings.Join(append(out, r.Get("status").Str, r.Get("incomplete_details.reason").Str), " "))
}

// TestEventSequence is the whole order of events where there is everything.
func TestEventSequence(t *testing.T) {
	c := stream(t, "all", foreignOf(t, `{"model":"m","input":"q","stream":true}`), []string{delta(role), delta(`{"reasoning_content":"hm"}`), delta(`{"content":"a"}`), delta(`{"content":"b"}`),
		delta(`{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]}`),
		delta(`{"thinking_blocks":[{"index":0,"type":"thinking","thinking":"hm","signature":"sig"}]}`), finish("tool_calls"), usageLast})
	want := "created in_progress " +
		"output_item.added reasoning_summary_part.added reasoning_summary_text.delta reasoning_summary_text.done reasoning_summary_part.done output_item.done " +
		"output_item.added content_part.added output_text.delta output_text.done content_part.done output_item.done " +
		"output_item.added function_call_arguments.delta function_call_arguments.done output_item.done " +
		"output_item.added output_item.done completed"
	if got := strings.ReplaceAll(strings.Join(c.kinds, " "), "response.", ""); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

// TestLogprobs: they go along with the text, token by token and all together.
func TestLogprobs(t *testing.T) {
	const odds = `{"token":"a","logprob":-0.1,"bytes":[97],"top_logprobs":[]}`
	chunk := strings.Replace(delta(`{"content":"a"}`), `"logprobs":null`, `"logprobs":{"content":[`+odds+`],"refusal":null}`, 1)
	f := foreignOf(t, `{"model":"m","input":"q","top_logprobs":1}`)
	c := stream(t, "logprobs", f, []string{chunk, chunk, finish("stop")})
	if got := c.final.Get("output.0.content.0.logprobs").Raw; got != "["+odds+","+odds+"]" {
		t.Errorf("%s", got)
	}
	whole, err := f.Answer([]byte(`{"choices":[{"message":{"content":"a"},"logprobs":{"content":[` + odds + `]},"finish_reason":"stop"}]}`))
	if got := gjson.GetBytes(whole, "output.0.content.0.logprobs").Raw; err != nil || got != "["+odds+"]" {
		t.Errorf("%v %s", err, got)
	}
}

// TestCarriedBack: what a provider wants back comes back through a client that sends its items back.
func TestCarriedBack(t *testing.T) {
	const call = `{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":"{}"},"extra_content":{"google":{"thought_signature":"s1"}}}]}`
	c := stream(t, "carried", foreignOf(t, `{"model":"m","input":"q"}`), []string{delta(`{"reasoning_content":"hm"}`), delta(call),
		delta(`{"thinking_blocks":[{"index":0,"type":"thinking","thinking":"h"}]}`), delta(`{"thinking_blocks":[{"index":0,"thinking":"m","signature":"sig"},{"index":1,"type":"redacted_thinking","data":"d"}]}`),
		delta(`{"extra_content":{"google":{"thought_signature":"s2"}}}`), finish("tool_calls")})
	items := strings.TrimSuffix(strings.TrimPrefix(c.final.Get("output").Raw, "["), "]")
	back := foreignOf(t, `{"model":"m","input":[{"role":"user","content":"q"},`+items+`,{"type":"function_call_output","call_id":"c1","output":"1"}]}`)
	want := `{"role":"assistant","content":null,"reasoning_content":"hm","thinking_blocks":[{"type":"thinking","thinking":"hm","signature":"sig"},{"type":"redacted_thinking","data":"d"}],` +
		`"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"},"extra_content":{"google":{"thought_signature":"s1"}}}],"extra_content":{"google":{"thought_signature":"s2"}}}`
	if got := gjson.GetBytes(back.Chat(), "messages.1").Raw; got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

// TestAnyStream: whatever chunks come, in whatever order, an SDK can put the stream together.
func TestAnyStream(t *testing.T) {
	f := foreignOf(t, `{"model":"m","input":"q"}`)
	pieces := []string{usageLast, delta(role)}
	for _, s := range streams {
		pieces = append(pieces, s.chunks...)
	}
	rapid.Check(t, func(r *rapid.T) {
		chunks := rapid.SliceOfN(rapid.SampledFrom(pieces), 0, 20).Draw(r, "chunks")
		c := stream(t, strings.Join(chunks, "\n"), f, chunks)
		if t.Failed() {
			r.Fatal(c.final.Raw)
		}
	})
}

// TestAfterTheEnd: a stream ends once.
func TestAfterTheEnd(t *testing.T) {
	w := foreignOf(t, `{"model":"m","input":"q"}`).Writer()
	first := w.End(nil)
	if more := append(w.End(nil), w.Chunk([]byte(delta(`{"content":"a"}`)), nil)...); len(more) != 0 || !first[len(first)-1].Last {
		t.Errorf("%s", more[0].Data)
	}
}
