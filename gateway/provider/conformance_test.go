package provider

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// conformanceCases are requests (without "stream"), in the order of Simulated's doc comment.
var conformanceCases = []struct{ name, body string }{
	{"plain", `"messages":[{"role":"user","content":"hello"}]`},
	{"system and history", `"messages":[{"role":"system","content":"be brief"},{"role":"user","content":"sim:cut=1"},
		{"role":"assistant","content":"hi"},{"role":"user","content":"and now?"}]`},
	{"parts", `"messages":[{"role":"user","content":[{"type":"text","text":"look sim:tokens=3"},
		{"type":"image_url","image_url":{"url":"https://example.com/x.png"}}]}]`},
	{"max_completion_tokens", `"max_completion_tokens":3,"messages":[{"role":"user","content":"hello"}]`},
	{"max_tokens", `"max_tokens":1,"messages":[{"role":"user","content":"hello"}]`},
	{"n", `"n":3,"messages":[{"role":"user","content":"hello"}]`},
	{"tokens", `"messages":[{"role":"user","content":"sim:tokens=100"}]`},
	{"tokens over the maximum", `"max_tokens":5,"messages":[{"role":"user","content":"sim:tokens=100"}]`},
	{"a sentence", `"messages":[{"role":"user","content":"Please sim:tokens=2."}]`},
	{"no tokens", `"messages":[{"role":"user","content":"sim:tokens=0"}]`},
	{"cached", `"messages":[{"role":"user","content":"sim:cached=4 sim:tokens=2"}]`},
	{"cached more than there is", `"messages":[{"role":"user","content":"sim:cached=4000"}]`},
	{"reasoning", `"messages":[{"role":"user","content":"sim:reasoning=7 sim:tokens=2"}]`},
	{"reasoning eats the maximum", `"max_tokens":7,"messages":[{"role":"user","content":"sim:reasoning=70"}]`},
	{"delay and pace", `"messages":[{"role":"user","content":"sim:delay=1ms sim:pace=100us sim:tokens=3"}]`},
	{"no usage", `"messages":[{"role":"user","content":"sim:nousage"}]`},
	{"400", `"messages":[{"role":"user","content":"sim:status=400"}]`},
	{"401", `"messages":[{"role":"user","content":"sim:status=401"}]`},
	{"403", `"messages":[{"role":"user","content":"sim:status=403"}]`},
	{"429", `"messages":[{"role":"user","content":"sim:status=429"}]`},
	{"500", `"messages":[{"role":"user","content":"sim:status=500"}]`},
	{"503", `"messages":[{"role":"user","content":"sim:status=503"}]`},
	{"cut at once", `"messages":[{"role":"user","content":"sim:cut=0"}]`},
	{"cut", `"messages":[{"role":"user","content":"sim:cut=3"}]`},
	{"cut before [DONE]", `"messages":[{"role":"user","content":"sim:tokens=2 sim:cut=5"}]`},
	{"cut never", `"messages":[{"role":"user","content":"sim:tokens=2 sim:cut=50"}]`},
	{"error at once", `"messages":[{"role":"user","content":"sim:error=0"}]`},
	{"error", `"messages":[{"role":"user","content":"sim:error=3"}]`},
	{"wrong directive", `"messages":[{"role":"user","content":"sim:tokens=many"}]`},
	{"unknown directive", `"messages":[{"role":"user","content":"sim:salabim=1 and esim:status=500"}]`},
	{"negative maximum", `"max_tokens":-1,"messages":[{"role":"user","content":"x"}]`},
	{"no messages", `"n":1`},
	{"required tool", `"messages":[{"role":"user","content":"x"}],"tool_choice":"required",` + weatherTool},
	{"named tool", `"messages":[{"role":"user","content":"x"}],` +
		`"tool_choice":{"type":"function","function":{"name":"weather"}},` + weatherTool},
	{"tool within few tokens", `"max_tokens":4,"messages":[{"role":"user","content":"x"}],"tool_choice":"required",` + weatherTool},
	{"tool within one token", `"max_tokens":1,"messages":[{"role":"user","content":"x"}],"tool_choice":"required",` + weatherTool},
	{"tool nobody has", `"messages":[{"role":"user","content":"x"}],` +
		`"tool_choice":{"type":"function","function":{"name":"nothing"}},` + weatherTool},
	{"tool left to the model", `"messages":[{"role":"user","content":"x"}],` + weatherTool},
	{"json_object", `"messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_object"}`},
	{"json_schema", `"messages":[{"role":"user","content":"x"}],"response_format":` + bookSchema},
}

const weatherTool = `"tools":[{"type":"function","function":{"name":"weather","parameters":{"type":"object",` +
	`"properties":{"stadt":{"type":"string"},"größe":{"enum":["日本語 \"groß\""]},"day":{"type":"integer"}},"required":["stadt","größe"]}}}]`

const bookSchema = `{"type":"json_schema","json_schema":{"name":"book","strict":true,"schema":{"type":"object",
	"properties":{"title":{"type":"string"},"year":{"type":"integer","minimum":1900},"price":{"type":["number","null"]},
	"new":{"type":"boolean"},"tags":{"type":"array","minItems":2,"items":{"type":"string"}},"kind":{"const":"book"},
	"by":{"$ref":"#/$defs/person"},"or":{"anyOf":[{"type":"null"},{"type":"string"}]}},
	"required":["title","year","price","new","tags","kind","by","or"],
	"$defs":{"person":{"type":"object","properties":{"name":{"type":"string"},"boss":{"$ref":"#/$defs/person"}},
	"required":["name","boss"]}}}}}`

func conformanceBody(body string, stream, usage bool) string {
	head := `{"model":"sim-small",`
	if stream {
		head += `"stream":true,`
	}
	if usage {
		head += `"stream_options":{"include_usage":true},`
	}
	return head + body + "}"
}

// TestConformance holds the simulated provider and the OpenAI client against each other: the same
// chunks, texts, reports and errors, directly and over HTTP.
func TestConformance(t *testing.T) {
	direct, remote := NewSimulated(), simulatedUpstream(t, nil)
	for _, c := range conformanceCases {
		t.Run(c.name, func(t *testing.T) {
			body := conformanceBody(c.body, false, false)
			a, errA := direct.Complete(t.Context(), Request{Body: []byte(body)})
			b, errB := remote.Complete(t.Context(), Request{Body: []byte(body)})
			sameError(t, errA, errB)
			if errA == nil && errB == nil {
				sameReport(t, a.Report, b.Report)
				if !bytes.Equal(a.Body, b.Body) || a.Text() != b.Text() {
					t.Errorf("bodies differ:\n%s\n%s", a.Body, b.Body)
				}
			}
			for _, usage := range []bool{false, true} {
				body := conformanceBody(c.body, true, usage)
				x, y := readStream(t.Context(), direct, body), readStream(t.Context(), remote, body)
				sameError(t, x.err, y.err)
				sameReport(t, x.report, y.report)
				if !slices.Equal(x.data, y.data) || x.text != y.text || x.usages != y.usages {
					t.Errorf("streams differ:\n%s\n%s", strings.Join(x.data, "\n"), strings.Join(y.data, "\n"))
				}
				if x.err == nil && usage && errA == nil {
					sameAnswer(t, a, x)
				}
			}
		})
	}
}

func sameError(t *testing.T, a, b error) {
	t.Helper()
	var x, y *Error
	if !errors.As(a, &x) || !errors.As(b, &y) {
		if a != nil || b != nil {
			t.Errorf("errors differ: %v; %v", a, b)
		}
		return
	}
	if x.Kind != y.Kind || x.Status != y.Status || x.RetryAfter != y.RetryAfter || !bytes.Equal(x.Body, y.Body) {
		t.Errorf("errors differ:\n%v %s\n%v %s", x, x.Body, y, y.Body)
	}
}

func sameReport(t *testing.T, a, b Report) {
	t.Helper()
	if x, y := showReport(a), showReport(b); x != y {
		t.Errorf("reports differ:\n%s\n%s", x, y)
	}
}

func showReport(r Report) string {
	usage := "none"
	if r.Usage != nil {
		usage = fmt.Sprintf("%+v", *r.Usage)
	}
	r.Usage = nil
	return fmt.Sprintf("%+v %s", r, usage)
}

// sameAnswer holds a streamed answer against the whole one to a request that differs in "stream"
// only. Ids and words differ, because they come from the body's hash.
func sameAnswer(t *testing.T, whole *Completion, s streamed) {
	t.Helper()
	if whole.Report.Model != s.report.Model || (whole.Report.Usage == nil) != (s.report.Usage == nil) {
		t.Errorf("%+v; streamed %+v", whole.Report, s.report)
	}
}
