package anthropic

import (
	"errors"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider/chat"
)

func TestUsageOf(t *testing.T) {
	for raw, want := range map[string]*domain.Usage{
		`{"input_tokens":3,"output_tokens":4}`: {Input: 3, Output: 4},
		`{"input_tokens":0,"output_tokens":0}`: {},
		`{"input_tokens":1,"output_tokens":4,"cache_read_input_tokens":10,"cache_creation_input_tokens":100,"cache_creation":{"ephemeral_5m_input_tokens":60,"ephemeral_1h_input_tokens":40}}`: {Input: 111,
			Output: 4, CachedInput: 10, CacheWrite5m: 60, CacheWrite1h: 40},
		`{"input_tokens":1,"output_tokens":4,"cache_creation_input_tokens":100}`:                                                                                         {Input: 101, Output: 4, CacheWrite5m: 100},
		`{"input_tokens":1,"output_tokens":4,"cache_creation_input_tokens":100,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0}}`:          {Input: 101, Output: 4, CacheWrite5m: 100},
		`{"input_tokens":1,"output_tokens":4,"cache_creation_input_tokens":100,"cache_creation":{"ephemeral_1h_input_tokens":30}}`:                                       {Input: 101, Output: 4, CacheWrite5m: 70, CacheWrite1h: 30},
		`{"input_tokens":1,"output_tokens":4,"cache_creation":{"ephemeral_1h_input_tokens":30}}`:                                                                         {Input: 31, Output: 4, CacheWrite1h: 30},
		`{"input_tokens":1,"output_tokens":4,"cache_read_input_tokens":null,"cache_creation":null,"output_tokens_details":{"thinking_tokens":3},"server_tool_use":null}`: {Input: 1, Output: 4, Reasoning: 3},
		`{"input_tokens":1,"output_tokens":4,"server_tool_use":{"web_search_requests":2,"web_fetch_requests":1}}`:                                                        {Input: 1, Output: 4, WebSearch: 2},
		`{"input_tokens":1}`:                                                                nil,
		`{"output_tokens":1}`:                                                               nil,
		`{"input_tokens":null,"output_tokens":1}`:                                           nil,
		`{"input_tokens":"1","output_tokens":1}`:                                            nil,
		`{"input_tokens":-1,"output_tokens":1}`:                                             nil,
		`{"input_tokens":1.0,"output_tokens":1}`:                                            nil,
		`{"input_tokens":1e3,"output_tokens":1}`:                                            nil,
		`{"input_tokens":1,"output_tokens":99999999999999999999}`:                           nil,
		`{"input_tokens":1,"output_tokens":1,"cache_read_input_tokens":true}`:               nil,
		`{"input_tokens":1,"output_tokens":1,"cache_read_input_tokens":999999999999999999}`: nil,
		`[]`: nil, `null`: nil, ``: nil, `7`: nil,
	} {
		got := UsageOf(gjson.Parse(raw))
		if (got == nil) != (want == nil) || got != nil && *got != *want {
			t.Errorf("%s: %+v, want %+v", raw, got, want)
		}
	}
}

// TestTally holds how the usages of a stream come together: what is named is set, what is not stays.
func TestTally(t *testing.T) {
	var u tally
	u.set(gjson.Parse(`{"input_tokens":5,"output_tokens":1,"cache_read_input_tokens":7,"cache_creation_input_tokens":9,"cache_creation":{"ephemeral_1h_input_tokens":9}}`))
	u.set(gjson.Parse(`{"output_tokens":20,"cache_read_input_tokens":null}`))
	if got, want := *u.usage(), (domain.Usage{Input: 21, Output: 20, CachedInput: 7, CacheWrite1h: 9}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	u.set(gjson.Parse(`{"input_tokens":6,"cache_creation_input_tokens":9}`))
	u.set(gjson.Parse(`7`))
	if got, want := *u.usage(), (domain.Usage{Input: 22, Output: 20, CachedInput: 7, CacheWrite1h: 9}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	u.set(gjson.Parse(`{"cache_creation_input_tokens":4}`))
	if got, want := *u.usage(), (domain.Usage{Input: 17, Output: 20, CachedInput: 7, CacheWrite5m: 4}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if u.set(gjson.Parse(`{"output_tokens":"many"}`)); u.usage() != nil {
		t.Error("a count that is none is taken")
	}
}

func TestIterations(t *testing.T) {
	for _, c := range []struct {
		name, usage string
		want        domain.Usage
		models      []string
	}{
		{"one model, one round", `{"input_tokens":5,"output_tokens":6,"iterations":[{"type":"message","input_tokens":5,"output_tokens":6}]}`,
			domain.Usage{Input: 5, Output: 6}, nil},
		{"one model and what the headline leaves out", `{"input_tokens":5,"output_tokens":6,"iterations":[{"type":"compaction","input_tokens":100,"output_tokens":20},{"type":"message","input_tokens":5,"output_tokens":6}]}`,
			domain.Usage{Input: 105, Output: 26}, []string{"m", "m"}},
		{"two models that sum to the headline", `{"input_tokens":5,"output_tokens":6,"iterations":[{"model":"m","input_tokens":5,"output_tokens":0},{"model":"n","input_tokens":0,"output_tokens":6}]}`,
			domain.Usage{Input: 5, Output: 6}, []string{"m", "n"}},
		{"searches and thinking are in the headline only", `{"input_tokens":5,"output_tokens":6,"output_tokens_details":{"thinking_tokens":4},"server_tool_use":{"web_search_requests":2},"iterations":[{"input_tokens":1,"output_tokens":1},{"model":"n","input_tokens":5,"output_tokens":6}]}`,
			domain.Usage{Input: 6, Output: 7, Reasoning: 4, WebSearch: 2}, []string{"m", "n"}},
		{"an iteration that is none", `{"input_tokens":5,"output_tokens":6,"iterations":[{"input_tokens":-1},{"model":"n","input_tokens":5,"output_tokens":6}]}`,
			domain.Usage{Input: 5, Output: 6}, nil},
		{"no iterations", `{"input_tokens":5,"output_tokens":6,"iterations":[]}`, domain.Usage{Input: 5, Output: 6}, nil},
		{"iterations that are no list", `{"input_tokens":5,"output_tokens":6,"iterations":null}`, domain.Usage{Input: 5, Output: 6}, nil},
	} {
		u := gjson.Parse(c.usage)
		r := chat.Report{Model: "m"}
		bill(&r, UsageOf(u), u.Get("iterations"))
		if *r.Usage != c.want || len(r.Iterations) != len(c.models) {
			t.Errorf("%s: %+v of %+v", c.name, *r.Usage, r.Iterations)
			continue
		}
		sum := domain.Usage{}
		for i, iteration := range r.Iterations {
			if iteration.Model != c.models[i] {
				t.Errorf("%s: %s, want %s", c.name, iteration.Model, c.models[i])
			}
			sum.Input, sum.Output = sum.Input+iteration.Usage.Input, sum.Output+iteration.Usage.Output
			sum.Reasoning, sum.WebSearch = sum.Reasoning+iteration.Usage.Reasoning, sum.WebSearch+iteration.Usage.WebSearch
		}
		if len(c.models) > 0 && sum != c.want {
			t.Errorf("%s: the iterations sum to %+v", c.name, sum)
		}
	}
}

func TestErrorOf(t *testing.T) {
	for body, want := range map[string]*chat.Failed{
		`{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 5 > 4"}}`: {Message: "prompt is too long: 5 > 4", Type: "invalid_request_error", Code: "context_length_exceeded"},
		`{"type":"error","error":{"type":"invalid_request_error","message":"m"}}`:                         {Message: "m", Type: "invalid_request_error"},
		`{"error":{"message":"model: x","type":"not_found_error"},"type":"error"}`:                        {Message: "model: x", Type: "invalid_request_error", Code: "model_not_found", Param: "model"},
		`{"type":"error","error":{"type":"rate_limit_error","message":""}}`:                               {Type: "rate_limit_error", Code: "rate_limit_exceeded"},
		`{"type":"error","error":{"type":"authentication_error","message":"m"}}`:                          {Message: "m", Type: "authentication_error", Code: "invalid_api_key"},
		`{"type":"error","error":{"type":"new\u0000\n","message":"m"}}`:                                   {Message: "m", Type: "server_error", Code: "new"},
		`{"type":"error","error":{"type":"api_error"}}`:                                                   nil,
		`{"error":{"message":"m","type":"t"}}`:                                                            nil,
		`{"type":"message"}`:                                                                              nil, `<html>`: nil, `{"type":"error"`: nil, ``: nil,
	} {
		got := ErrorOf([]byte(body))
		if (got == nil) != (want == nil) || got != nil && *got != *want {
			t.Errorf("%s: %+v, want %+v", body, got, want)
		}
	}
}

func TestFinishOf(t *testing.T) {
	for reason, want := range map[string]string{
		"end_turn": "stop", "stop_sequence": "stop", "pause_turn": "stop", "max_tokens": "length", "model_context_window_exceeded": "length",
		"tool_use": "tool_calls", "refusal": "content_filter", "": "stop", "something_new": "stop",
	} {
		if got := finishOf(reason, true); got != want {
			t.Errorf("%s: %s, want %s", reason, got, want)
		}
	}
}

// TestAnswer holds what no recording has: tiers, and what stays null.
func TestAnswer(t *testing.T) {
	x := translated(t, anyRequest)
	whole, err := x.Answer([]byte(`{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"redacted_thinking","data":"ZA=="},{"type":"tool_use","id":"a","name":"f"},{"type":"hologram"}],
		"stop_reason":"tool_use","usage":{"input_tokens":1,"output_tokens":2,"service_tier":"priority"}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"id":"msg_1","object":"chat.completion","created":1700000000,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":null,"refusal":null,` +
		`"thinking_blocks":[{"type":"redacted_thinking","data":"ZA=="}],"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}]},"logprobs":null,"finish_reason":"tool_calls"}],` +
		`"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},` +
		`"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},"service_tier":"priority"}`
	if string(whole.Body) != want {
		t.Errorf("got %s\nwant %s", whole.Body, want)
	}
	if r := whole.Report; r.ServiceTier != "priority" || r.UpstreamID != "msg_1" || r.Model != "m" || r.Partial {
		t.Errorf("%+v", r)
	}
	var failed *chat.Failed
	if _, err := x.Answer([]byte(`{"type":"error","error":{"type":"api_error","message":"m"}}`)); !errors.As(err, &failed) {
		t.Errorf("an error under status 200: %v", err)
	}
	for _, body := range []string{``, `null`, `{}`, `[]`, `{"role":"assistant"}`, `{"role":"assistant","content":"a"}`, `{"role":"assistant","content":[]`} {
		if _, err := x.Answer([]byte(body)); !errors.Is(err, errNoAnswer) {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// TestCitations counts characters, not bytes.
func TestCitations(t *testing.T) {
	text := `"Ünïcödé 漢字 "`
	cited := `{"type":"web_search_result_location","url":"https://x.test","title":"X","encrypted_index":"e","cited_text":"c"}`
	want := `[{"type":"url_citation","url_citation":{"start_index":11,"end_index":13,"title":"X","url":"https://x.test"}}]`
	x := translated(t, anyRequest)
	whole, err := x.Answer([]byte(`{"role":"assistant","content":[{"type":"text","text":` + text + `},{"type":"text","text":"漢.","citations":[` + cited + `,{"type":"page_location"}]}]}`))
	if err != nil || gjson.GetBytes(whole.Body, "choices.0.message.annotations").Raw != want || whole.Report.Usage != nil {
		t.Errorf("%v %s", err, whole.Body)
	}
	r := x.Reader()
	got := ""
	for _, event := range []string{start, startText, delta(`{"type":"text_delta","text":` + text + `}`), stop,
		startAt + `{"type":"text","text":"","citations":[]}}`, delta(`{"type":"citations_delta","citation":` + cited + `}`), piece("漢."), stop, ended("end_turn"), end} {
		chunks, _, err := r.Event([]byte(event), nil)
		for _, chunk := range chunks {
			got += gjson.GetBytes(chunk.Data, "choices.0.delta.annotations").Raw
		}
		if err != nil {
			t.Error(err)
		}
	}
	if got != want {
		t.Errorf("streamed %s", got)
	}
}
