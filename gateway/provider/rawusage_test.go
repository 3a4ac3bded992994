package provider

import (
	"testing"

	"llm-gateway/gateway/provider/anthropic"
	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/provider/gemini"
	"llm-gateway/gateway/surface/completions"
	"llm-gateway/gateway/surface/embeddings"
	"llm-gateway/gateway/surface/responses"
)

// TestReportedUsageIsKept: whatever API a provider answers by, whole or streamed, its own usage is in the
// report; also one that cannot be used.
func TestReportedUsageIsKept(t *testing.T) {
	t.Parallel()
	own := func(x chat.Exchange, err error) chat.Exchange {
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	message := own(anthropic.Own([]byte(`{"model":"c","max_tokens":5,"messages":[{"role":"user","content":"x"}]}`), "c"))
	content := own(gemini.Own([]byte(`{"contents":[{"role":"user","parts":[{"text":"x"}]}]}`), "g"))
	text := own(completions.Own([]byte(`{"model":"t","prompt":"x"}`), "t"))
	const strange = `{"prompt_tokens":"many"}`
	for name, c := range map[string]struct {
		exchange chat.Exchange
		answer   string   // whole, or
		events   []string // streamed
		want     string
	}{
		"anthropic": {message, `{"role":"assistant","content":[],"usage":{"input_tokens":3,"output_tokens":4}}`, nil, `{"input_tokens":3,"output_tokens":4}`},
		"anthropic, streamed": {message, "", []string{`{"type":"message_start","message":{"usage":{"input_tokens":3,"output_tokens":1}}}`,
			`{"type":"message_delta","delta":{},"usage":{"input_tokens":null,"output_tokens":9}}`}, `{"output_tokens":9,"input_tokens":3}`},
		"anthropic, begun again": {message, "", []string{`{"type":"message_start","message":{"usage":{"input_tokens":3,"output_tokens":1}}}`,
			`{"type":"message_start","message":{"usage":{"input_tokens":5,"output_tokens":2}}}`}, `{"input_tokens":5,"output_tokens":2}`},
		"gemini": {content, `{"candidates":[],"usageMetadata":{"promptTokenCount":3}}`, nil, `{"promptTokenCount":3}`},
		"gemini, streamed": {content, "", []string{`{"candidates":[],"usageMetadata":{"promptTokenCount":3}}`,
			`{"candidates":[],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":2}}`}, `{"promptTokenCount":3,"candidatesTokenCount":2}`},
		"completions":           {text, `{"choices":[],"usage":` + strange + `}`, nil, strange},
		"completions, streamed": {text, "", []string{`{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}`}, `{"prompt_tokens":1,"completion_tokens":2}`},
		"responses": {own(responses.Own([]byte(`{"model":"r","input":"x"}`), "r")), `{"status":"completed","output":[],"usage":{"input_tokens":1,"output_tokens":2}}`, nil,
			`{"input_tokens":1,"output_tokens":2}`},
		"embeddings": {own(embeddings.Own([]byte(`{"model":"e","input":"x"}`), "e")), `{"data":[],"usage":` + strange + `}`, nil, strange},
	} {
		var report chat.Report
		if c.answer != "" {
			answer, err := c.exchange.Answer([]byte(c.answer))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			report = answer.Report
		} else {
			r := c.exchange.Reader()
			for _, event := range c.events {
				if _, _, err := r.Event([]byte(event), nil); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			report = r.Report()
		}
		if string(report.Raw) != c.want {
			t.Errorf("%s: %s is kept, want %s", name, report.Raw, c.want)
		}
	}
	for usage, want := range map[string]string{strange: strange, `{"prompt_tokens":1,"completion_tokens":2}`: `{"prompt_tokens":1,"completion_tokens":2}`, `null`: ``} {
		var a answer
		if !a.whole([]byte(`{"choices":[],"usage":`+usage+`}`)) || string(a.Report().Raw) != want {
			t.Errorf("chat: %s is kept as %s", usage, a.Report().Raw)
		}
	}
	a := answer{}
	if _, err := a.chunk("p", []byte(`{"choices":[{"delta":{"content":"x"}}],"usage":{"prompt_tokens":1,"completion_tokens":0}}`), 1); err != nil || a.Report().Raw != nil {
		t.Errorf("a place keeper is taken for a report: %s, %v", a.Report().Raw, err)
	}
}
