package provider

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"llm-gateway/domain"
)

func TestChunkTextAndReport(t *testing.T) {
	cases := []struct{ name, in, text string }{
		{"content", `{"choices":[{"index":0,"delta":{"content":"a\nb\u00e9"}}]}`, "a\nbé"},
		{"refusal", `{"choices":[{"index":0,"delta":{"refusal":"no"}}]}`, "no"},
		{"reasoning", `{"choices":[{"delta":{"reasoning_content":"hm","content":null}}]}`, "hm"},
		{"reasoning by two names", `{"choices":[{"delta":{"reasoning":"hm","reasoning_content":"hm"}}]}`, "hm"},
		{"tool call", `{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{\"a\":"}},` +
			`{"index":1,"function":{"arguments":"1}"}}]}}]}`, `f{"a":1}`},
		{"old function call", `{"choices":[{"delta":{"function_call":{"name":"f","arguments":"{}"}}}]}`, "f{}"},
		{"all choices", `{"choices":[{"index":0,"delta":{"content":"a"}},{"index":1,"delta":{"content":"b"}}]}`, "ab"},
		{"parts", `{"choices":[{"delta":{"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}}]}`, "ab"},
		{"transcript", `{"choices":[{"delta":{"audio":{"id":"x","data":"AAAA","transcript":"hi"}}}]}`, "hi"},
		{"nulls", `{"choices":[{"delta":{"content":null,"refusal":null,"tool_calls":null,"audio":null,"function_call":null}}]}`, ""},
		{"no delta", `{"choices":[{"index":0,"finish_reason":"stop"}]}`, ""},
		{"wrong types", `{"choices":[7,null,{"delta":[]},{"delta":"x"}]}`, ""},
		{"no choices", `{"type":"ping"}`, ""},
	}
	for _, c := range cases {
		var a answer
		chunk, err := a.chunk("p", []byte(c.in), 1)
		if err != nil || string(chunk.Text) != c.text || string(chunk.Data) != c.in || chunk.UsageOnly {
			t.Errorf("%s: %q, %v; want %q", c.name, chunk.Text, err, c.text)
		}
	}
}

func TestChunkErrors(t *testing.T) {
	cases := []struct {
		name, in string
		kind     Kind
		body     bool
	}{
		{"not JSON", `<html>`, KindUpstream, false},
		{"half", `{"choices":[{"delta":{"con`, KindUpstream, false},
		{"two", `{}{}`, KindUpstream, false},
		{"a list", `[]`, KindUpstream, false},
		{"error event", `{"error":{"message":"m","type":"server_error"}}`, KindCut, true},
		{"error text", `{"error":"m"}`, KindCut, false},
		{"a long error", `{"error":{"message":"` + strings.Repeat("x", maxErrorBody) + `"}}`, KindCut, false},
	}
	for _, c := range cases {
		var a answer
		_, err := a.chunk("p", []byte(c.in), 1)
		if err == nil || err.Kind != c.kind || (err.Body != nil) != c.body {
			t.Errorf("%s: %+v", c.name, err)
		}
	}
	var a answer
	if _, err := a.chunk("p", []byte(`{"choices":[],"error":null}`), 1); err != nil {
		t.Errorf("error: null is no error: %v", err)
	}
	if _, err := a.chunk("p", []byte(`{"choices`), 1); err == nil || err.Kind != KindCut {
		t.Errorf("after a chunk a broken one is a cut: %v", err)
	}
}

func TestChunkOfSeveralLinesHasNoLineBreak(t *testing.T) {
	var a answer
	in := "{\"choices\":[{\"delta\":\n{\"content\":\"a\\nb\"}}\n]}"
	chunk, err := a.chunk("p", []byte(in), 3)
	if err != nil || string(chunk.Text) != "a\nb" || strings.ContainsRune(string(chunk.Data), '\n') {
		t.Errorf("%q, %v", chunk.Data, err)
	}
}

// TestStreamedReport drives whole streams through the answer: where the usage stands, and when it
// may be believed.
func TestStreamedReport(t *testing.T) {
	const (
		said = `{"id":"i","model":"m-1","choices":[{"index":0,"delta":{"content":"x"}}],"usage":null}`
		stop = `{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`
		last = `{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":6}}`
		zero = `{"choices":[{"index":0,"delta":{"content":"x"}}],"usage":{"prompt_tokens":0,"completion_tokens":0}}`
		grow = `{"choices":[{"index":0,"delta":{"content":"x"}}],"usage":{"prompt_tokens":5,"completion_tokens":2}}`
		both = `{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":6}}`
		bad  = `{"choices":[],"usage":{"prompt_tokens":"5","completion_tokens":6}}`
	)
	five := &domain.Usage{Input: 5, Output: 6}
	cases := []struct {
		name   string
		chunks []string
		want   *domain.Usage
		only   bool
		finish string
	}{
		{"usual", []string{said, stop, last}, five, true, "stop"},
		{"cut", []string{said, said}, nil, false, ""},
		{"no usage", []string{said, stop}, nil, false, "stop"},
		{"with the last choice", []string{said, both}, five, false, "stop"},
		{"null after it", []string{last, said}, five, false, ""},
		{"growing, then cut", []string{said, grow}, &domain.Usage{Input: 5, Output: 2}, false, ""},
		{"place keepers, then cut", []string{zero, zero}, nil, false, ""},
		{"place keepers, then zero", []string{zero, stop}, &domain.Usage{}, false, "stop"},
		{"place keepers, then usage", []string{zero, stop, last}, five, true, "stop"},
		{"an unusable one", []string{said, stop, bad}, nil, true, "stop"},
	}
	for _, c := range cases {
		var a answer
		only := false
		for _, data := range c.chunks {
			chunk, err := a.chunk("p", []byte(data), 1)
			if err != nil {
				t.Fatal(err)
			}
			only = chunk.UsageOnly
		}
		got := a.Report()
		if (got.Usage == nil) != (c.want == nil) || (c.want != nil && *got.Usage != *c.want) ||
			only != c.only || got.FinishReason != c.finish {
			t.Errorf("%s: %+v, usage only %v; want %+v", c.name, got, only, c.want)
		}
	}
}

func TestReportStringsAreCleaned(t *testing.T) {
	hostile := "a\x00b\u202ec\r\nd" + strings.Repeat("é", 100)
	in, _ := json.Marshal(map[string]any{"id": hostile, "model": hostile, "service_tier": hostile,
		"choices": []any{map[string]any{"index": 0, "finish_reason": hostile}}})
	var a answer
	if !a.whole(in) {
		t.Fatal("refused")
	}
	r := a.Report()
	for _, s := range []struct {
		got   string
		limit int
	}{{r.UpstreamID, 128}, {r.Model, 128}, {r.ServiceTier, 64}, {r.FinishReason, 64}} {
		if len(s.got) > s.limit || len(s.got) < s.limit-2 || !utf8.ValidString(s.got) ||
			!strings.HasPrefix(s.got, "abcdé") {
			t.Errorf("%q (%d bytes)", s.got, len(s.got))
		}
	}
}

func TestWhole(t *testing.T) {
	cases := []struct {
		name, in string
		want     bool
	}{
		{"a completion", `{"choices":[{"index":0,"message":{"content":"x"},"finish_reason":"stop"}]}`, true},
		{"no choices", `{"id":"x"}`, false},
		{"choices null", `{"choices":null}`, false},
		{"an error", `{"error":{"message":"m"}}`, false},
		{"error null", `{"error":null,"choices":[]}`, true},
		{"truncated", `{"choices":[{"index":0,"message"`, false},
		{"empty", ``, false},
		{"html", `<html></html>`, false},
		{"a list", `[{"choices":[]}]`, false},
		{"a text", `"choices"`, false},
	}
	for _, c := range cases {
		var a answer
		if got := a.whole([]byte(c.in)); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestFinishReasonIsTheFirstChoices(t *testing.T) {
	var a answer
	a.whole([]byte(`{"choices":[{"finish_reason":"length","index":1},{"finish_reason":"stop","index":0},
		{"index":2,"finish_reason":"tool_calls"}]}`))
	if got := a.Report().FinishReason; got != "stop" {
		t.Error(got)
	}
}

func TestCompletionText(t *testing.T) {
	c := Completion{Body: []byte(`{"choices":[{"message":{"role":"assistant","content":"a","refusal":null}},
		{"message":{"content":null,"tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}}]}`)}
	if got := c.Text(); got != "af{}" {
		t.Error(got)
	}
}

func TestBadChunkReportsNothing(t *testing.T) {
	for _, in := range []string{
		`{"id":"x","model":"m","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":6}`,
		`{"usage":{"prompt_tokens":5,"completion_tokens":6},"choices":[{"finish_reason":"stop"`,
		`{"usage":{"prompt_tokens":5,"completion_tokens":6`,
		`{"service_tier":"x`,
	} {
		var a answer
		if _, err := a.chunk("p", []byte(in), 1); err == nil {
			t.Errorf("%s: accepted", in)
		}
		if r := a.Report(); !reflect.DeepEqual(r, Report{}) {
			t.Errorf("%s: %+v", in, r)
		}
	}
}

// TestChunkTextIsTheDecodersText compares the text with what encoding/json decodes.
func TestChunkTextIsTheDecodersText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		content, refusal, name, arguments := rapid.String().Draw(t, "content"), rapid.String().Draw(t, "refusal"),
			rapid.String().Draw(t, "name"), rapid.String().Draw(t, "arguments")
		object := map[string]any{"id": rapid.String().Draw(t, "id"), "choices": []any{map[string]any{"index": 0,
			"delta": map[string]any{"content": content, "refusal": refusal, "tool_calls": []any{
				map[string]any{"function": map[string]any{"name": name, "arguments": arguments}}}}}}}
		in, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		if rapid.Bool().Draw(t, "indented") {
			var out bytes.Buffer
			_ = json.Indent(&out, in, " ", "\t")
			in = out.Bytes()
		}
		var a answer
		chunk, failed := a.chunk("p", in, strings.Count(string(in), "\n")+1)
		if want := content + refusal + name + arguments; failed != nil || string(chunk.Text) != want {
			t.Fatalf("%s: %q, %v; want %q", in, chunk.Text, failed, want)
		}
	})
}

// FuzzChunk: a chunk is accepted if and only if it is a JSON object to encoding/json.
func FuzzChunk(f *testing.F) {
	f.Add([]byte(benchChunk))
	f.Add([]byte(`{"choices":[{"index":1,"delta":{"tool_calls":[{}],"content":"\ud83d\ude00"},"finish_reason":"a\u0000"}],"usage":{"prompt_tokens":1e3}}`))
	f.Add([]byte(` {"a":[-0.5e+3,0,true,false,null,[],{}], "error" : "" } `))
	f.Fuzz(func(t *testing.T, in []byte) {
		var a answer
		_, err := a.chunk("p", bytes.Clone(in), 1)
		if deep := bytes.Count(in, []byte("["))+bytes.Count(in, []byte("{")) > maxJSONDepth; deep {
			return
		}
		object := json.Valid(in) && bytes.TrimLeft(in, " \t\r\n")[0] == '{'
		if accepted := err == nil || err.Reason == "an error event"; accepted != object {
			t.Fatalf("%q: accepted %v, an object %v", in, accepted, object)
		}
		for _, s := range []string{a.report.FinishReason, a.report.Model, a.report.UpstreamID, a.report.ServiceTier} {
			if len(s) > maxModelName || strings.ContainsRune(s, 0) || !utf8.ValidString(s) {
				t.Fatalf("%q", s)
			}
		}
	})
}

func TestDeepChunkIsRefused(t *testing.T) {
	var a answer
	in := `{"x":` + strings.Repeat("[", 2<<20)
	if _, err := a.chunk("p", []byte(in), 1); err == nil {
		t.Error("accepted")
	}
	deep := maxJSONDepth - 1
	in = `{"x":` + strings.Repeat("[", deep) + strings.Repeat("]", deep) + `}`
	if _, err := a.chunk("p", []byte(in), 1); err != nil {
		t.Error(err)
	}
}
