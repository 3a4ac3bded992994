package completions

import (
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/provider/chat/chattest"
)

// steps are the recorded calls of an endpoint that were answered well.
func steps(t *testing.T, endpoint string) map[string]gjson.Result {
	t.Helper()
	out := map[string]gjson.Result{}
	for _, s := range chattest.Recorded(t, endpoint, 2) {
		if s.OK() {
			out[s.Name] = s.Of
		}
	}
	return out
}

func TestRecordings(t *testing.T) {
	t.Parallel()
	calls := steps(t, "completions")
	if len(calls) < 2 {
		t.Errorf("only %d recorded completions", len(calls))
	}
	for name, step := range calls {
		request := step.Get("request").Raw
		f, err := Facts([]byte(request))
		if err != nil || f.Opaque || f.InputBytes+64 < step.Get("expect.usage.prompt_tokens").Int() {
			t.Errorf("%s: %+v, %v", name, f, err)
			continue
		}
		x, err := Own([]byte(request), f.Model)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		body := step.Get("response.body").Str
		if f.Stream {
			checkStream(t, name, x, chattest.Events(body), step)
			continue
		}
		answer, err := x.Answer([]byte(body))
		if err != nil || string(answer.Body) != body || !strings.HasPrefix(answer.Text(), step.Get("expect.text").Str) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		checkReport(t, name, answer.Report, step)
		if choices := int64(len(gjson.Get(body, "choices").Array())); choices != f.Choices {
			t.Errorf("%s: %d choices; %d were reserved for", name, choices, f.Choices)
		}
	}
}

func checkReport(t *testing.T, name string, got chat.Report, step gjson.Result) {
	t.Helper()
	want := step.Get("expect")
	if got.Model != want.Get("model").Str || got.UpstreamID == "" || got.FinishReason == "" || got.Partial {
		t.Errorf("%s: %+v", name, got)
	}
	use := want.Get("usage")
	if (got.Usage != nil) != use.IsObject() {
		t.Errorf("%s: a usage of %+v; want %s", name, got.Usage, use.Raw)
	} else if u := got.Usage; u != nil && (u.Input != use.Get("prompt_tokens").Int() || u.Output != use.Get("completion_tokens").Int()) {
		t.Errorf("%s: %+v; want %s", name, u, use.Raw)
	}
}

// checkStream reads a recorded stream whole, and all that may be left of it when it is cut.
func checkStream(t *testing.T, name string, x chat.Exchange, data []string, step gjson.Result) {
	t.Helper()
	for n := range data {
		got := readAll(t, x, data[:n]...)
		if got.ended || !strings.HasPrefix(step.Get("expect.text").Str, got.text) || got.report.Usage != nil {
			t.Errorf("%s: %d events: %+v", name, n, got)
		}
	}
	got := readAll(t, x, data...)
	if want := strings.Join(data[:len(data)-1], "\n") + "\n"; !got.ended || got.data != want || got.text != step.Get("expect.text").Str {
		t.Errorf("%s: %+v", name, got)
	}
	checkReport(t, name, got.report, step)
}

// TestChatRecordings: what chat completions say, completions say too.
func TestChatRecordings(t *testing.T) {
	t.Parallel()
	n := 0
	for name, step := range steps(t, "chat") {
		if strings.Contains(step.Get("features").Raw, `"midstream_error"`) || step.Get("expect.tool_calls.0").Exists() {
			continue
		}
		n++
		body, f := step.Get("response.body").Str, foreignOf(t)
		want := step.Get("expect.text").Str
		if !step.Get("stream").Bool() {
			out, err := f.Answer([]byte(body))
			v, of := gjson.ParseBytes(out), gjson.Parse(body)
			if err != nil || v.Get("choices.0.finish_reason").Str != of.Get("choices.0.finish_reason").Str || !strings.HasPrefix(v.Get("choices.0.text").Str, want) ||
				v.Get("usage.total_tokens").Raw != of.Get("usage.total_tokens").Raw {
				t.Errorf("%s: %v, %s\nfor %s", name, err, out, body)
			}
			continue
		}
		w := f.Writer()
		var chunks []chat.Chunk
		for _, event := range chattest.Events(body) {
			chunks = w.Chunk([]byte(event), chunks)
		}
		g := gather(t, w.End(chunks))
		refused := strings.Contains(body, `"refusal":"`) // that is the text then
		if g.text != want && !refused || g.text == "" && refused || g.finish == "" || step.Get("expect.usage").IsObject() != (g.usage != "") {
			t.Errorf("%s: %+v; want %q", name, g, want)
		}
	}
	if n < 15 {
		t.Errorf("only %d recorded chat completions", n)
	}
}
