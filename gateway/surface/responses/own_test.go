package responses

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/provider/chat/chattest"
)

// ownOf is the exchange whose answers are read.
func ownOf(t *testing.T) chat.Exchange {
	t.Helper()
	x, err := Own([]byte(`{"model":"m","input":"q"}`), "m")
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestRecordedRequests(t *testing.T) {
	for _, s := range chattest.Recorded(t, "responses", 10) {
		request := s.Of.Get("request")
		if !request.IsObject() {
			continue
		}
		body := []byte(request.Raw)
		f, err := Facts(body)
		if err != nil || f.Model != request.Get("model").Str || f.Stream != s.Stream {
			t.Errorf("%s: %v %+v", s.Name, err, f)
			continue
		}
		if used := s.Of.Get("usage_raw.input_tokens").Int(); !f.Opaque && f.InputBytes+64 < used {
			t.Errorf("%s: bounded by %d, used %d", s.Name, f.InputBytes, used)
		}
		x, err := Own(body, "gpt")
		if want, _ := sjson.SetBytes(body, "model", "gpt"); err != nil || f.Rounds == 1 && string(x.Body()) != string(want) {
			t.Errorf("%s: %v %s", s.Name, err, x.Body())
		}
		checkCarried(t, s, body)
	}
}

// checkCarried takes a recorded request to another provider, if none of OpenAI's tools are in it.
func checkCarried(t *testing.T, s chattest.Step, body []byte) {
	t.Helper()
	f, err := Foreign(body, testID, created)
	if err != nil {
		refused(t, err)
		if !strings.Contains(string(body), "tool_search") && !strings.Contains(string(body), "file_url") {
			t.Errorf("%s: %v", s.Name, err)
		}
		return
	}
	r, err := chat.Parse(f.Chat())
	if err != nil || len(r.Unknown) > 0 || len(r.Messages) == 0 {
		t.Errorf("%s: %v %+v", s.Name, err, r)
	}
}

// wantedUsage is what a recording says, in the ledger's terms.
func wantedUsage(s chattest.Step) domain.Usage {
	u := s.Of.Get("usage_raw")
	return domain.Usage{Input: u.Get("input_tokens").Int(), CachedInput: u.Get("input_tokens_details.cached_tokens").Int(),
		CacheWrite5m: u.Get("input_tokens_details.cache_write_tokens").Int(), Output: u.Get("output_tokens").Int(),
		Reasoning: u.Get("output_tokens_details.reasoning_tokens").Int()}
}

func checkReport(t *testing.T, s chattest.Step, r chat.Report) {
	t.Helper()
	if r.Usage == nil || *r.Usage != wantedUsage(s) || r.Partial || r.Model != s.Expect.Get("model").Str ||
		r.FinishReason != s.Expect.Get("finish_reason").Str || !strings.HasPrefix(r.UpstreamID, "resp_") || r.ServiceTier != "default" {
		t.Errorf("%s: %+v of %+v", s.Name, r.Usage, r)
	}
}

// wantedText is all that a recorded answer says: its text, and its calls.
func wantedText(s chattest.Step) (texts []string) {
	texts = append(texts, s.Expect.Get("text").Str)
	for _, c := range s.Expect.Get("tool_calls").Array() {
		texts = append(texts, c.Get("name").Str)
		c.Get("arguments").ForEach(func(key, _ gjson.Result) bool { texts = append(texts, key.Str); return true })
	}
	return texts
}

func TestRecordedAnswers(t *testing.T) {
	for _, s := range chattest.Recorded(t, "responses", 10) {
		if s.Stream {
			continue
		}
		got, err := ownOf(t).Answer([]byte(s.Body))
		if !s.OK() {
			var failed *chat.Failed
			if !errors.As(err, &failed) || failed.Type != "invalid_request_error" || failed.Message == "" {
				t.Errorf("%s: %v", s.Name, err)
			}
			continue
		}
		if err != nil || string(got.Body) != s.Body {
			t.Errorf("%s: %v", s.Name, err)
			continue
		}
		checkReport(t, s, got.Report)
		for _, want := range wantedText(s) {
			if !strings.Contains(got.Text(), want) {
				t.Errorf("%s: %q lacks %q", s.Name, got.Text(), want)
			}
		}
	}
}

func TestRecordedStreams(t *testing.T) {
	for _, s := range chattest.Recorded(t, "responses", 10) {
		if !s.Stream || strings.HasPrefix(s.Name, "vx-") {
			continue
		}
		r, events, text := ownOf(t).Reader(), s.Events(), ""
		for i, data := range events {
			chunks, done, err := r.Event([]byte(data), nil)
			if err != nil || len(chunks) != 1 || string(chunks[0].Data) != data || chunks[0].Event != gjson.Get(data, "type").Str ||
				chunks[0].Last != done || done != (i == len(events)-1) {
				t.Fatalf("%s: %v, %v: %s", s.Name, err, done, data)
			}
			text += string(chunks[0].Text)
			if _, complete := r.End(nil); complete {
				t.Errorf("%s: complete after %d of %d events", s.Name, i, len(events))
			}
			if usage := r.Report().Usage; (usage != nil) != done {
				t.Errorf("%s: a usage after %s", s.Name, data)
			}
		}
		checkReport(t, s, r.Report())
		for _, want := range wantedText(s) {
			if !strings.Contains(text, want) {
				t.Errorf("%s: %q lacks %q", s.Name, text, want)
			}
		}
		checkPrefixes(t, s)
	}
}

// checkPrefixes cuts every event, long ones not everywhere: what is no JSON is an error, and reports nothing.
func checkPrefixes(t *testing.T, s chattest.Step) {
	t.Helper()
	for _, data := range s.Events() {
		for n := 0; n < len(data); n += 1 + len(data)/200 {
			r := ownOf(t).Reader()
			if chunks, done, err := r.Event([]byte(data[:n]), nil); err == nil || done || len(chunks) > 0 || r.Report().Usage != nil || r.Report().Model != "" {
				t.Fatalf("%s: %v: %s", s.Name, err, data[:n])
			}
		}
	}
}

func TestRecordedFailure(t *testing.T) {
	for _, s := range chattest.Recorded(t, "responses", 10) {
		if !strings.HasPrefix(s.Name, "vx-oa-resp-quota-err") {
			continue
		}
		// The error event comes first; without it the failed response says the same.
		for _, skipped := range []string{"", "error"} {
			r, failed := ownOf(t).Reader(), new(chat.Failed)
			for _, data := range s.Events() {
				if gjson.Get(data, "type").Str == skipped {
					continue
				}
				if _, done, err := r.Event([]byte(data), nil); done || err != nil {
					if !errors.As(err, &failed) {
						t.Fatalf("%v, %v: %s", done, err, data)
					}
					break
				}
			}
			if failed.Type != "insufficient_quota" || failed.Code != "insufficient_quota" || !strings.Contains(failed.Message, "quota") {
				t.Errorf("%+v", failed)
			}
			if r.Report().Usage != nil || r.Report().Model == "" {
				t.Errorf("%+v", r.Report())
			}
		}
	}
}

func TestAnswers(t *testing.T) {
	const usage = `"usage":{"input_tokens":5,"output_tokens":2}`
	const call = `{"type":"web_search_call","status":"completed","action":{"type":"search","query":"x"}}`
	for _, c := range []struct{ name, body, finish, text string }{
		{"stop", `{"id":"r","status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"a"},{"type":"refusal","refusal":"b"}]}],` + usage + `}`, "stop", "ab"},
		{"reasoning", `{"id":"r","status":"completed","output":[{"type":"reasoning","summary":[{"type":"summary_text","text":"s"}],"content":[{"type":"reasoning_text","text":"t"}]}],` + usage + `}`, "stop", "st"},
		{"calls", `{"id":"r","status":"completed","output":[{"type":"function_call","name":"f","arguments":"{}"},{"type":"custom_tool_call","name":"g","input":"x"}],` + usage + `}`, "tool_calls", "f{}gx"},
		{"calls of a shell", `{"id":"r","status":"completed","output":[{"type":"local_shell_call","action":{"command":["ls"]}}],` + usage + `}`, "stop", `{"command":["ls"]}`},
		{"length", `{"id":"r","status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"output":[],` + usage + `}`, "length", ""},
		{"filter", `{"id":"r","status":"incomplete","incomplete_details":{"reason":"content_filter"},"output":[],` + usage + `}`, "content_filter", ""},
		{"failed, and billed", `{"id":"r","status":"failed","error":{"code":"server_error","message":"m"},"output":[],` + usage + `}`, "failed", ""},
		{"failed after some output", `{"id":"r","status":"failed","error":{"code":"server_error","message":"m"},"output":[{"type":"message","content":[{"type":"output_text","text":"a"}]}]}`, "failed", "a"},
		{"searched", `{"id":"r","status":"completed","output":[` + call + `],` + usage + `}`, "stop", `{"type":"search","query":"x"}`},
	} {
		got, err := ownOf(t).Answer([]byte(c.body))
		if err != nil || string(got.Body) != c.body || got.Report.FinishReason != c.finish || got.Text() != c.text || (got.Report.Usage == nil) == strings.Contains(c.body, "usage") {
			t.Errorf("%s: %v %+v", c.name, err, got)
		}
	}
}

func TestNoAnswer(t *testing.T) {
	for body, kind := range map[string]string{
		``: "", `{`: "", `[]`: "", `{}`: "",
		`{"status":"completed"}`:                                                           "",
		`{"status":"in_progress","output":[]}`:                                             "",
		`{"status":"queued","output":[]}`:                                                  "",
		`{"error":{"type":"invalid_request_error","message":"m"}}`:                         "invalid_request_error",
		`{"status":"failed","error":{"code":"server_error","message":"m"},"output":[]}`:    "server_error",
		`{"status":"failed","error":{"code":"rate_limit_exceeded"},"output":[]}`:           "rate_limit_error",
		`{"status":"failed","error":{"code":"invalid_image","message":"m"},"output":[]}`:   "invalid_request_error",
		`{"status":"failed","output":[],"usage":{"input_tokens":0,"output_tokens":0}}`:     "server_error",
		`{"status":"failed","error":null,"output":[],"usage":{"input_tokens":"x"}}`:        "server_error",
		`{"status":"failed","error":{"type":"x","code":"y","message":"m"},"output":[]}`:    "x",
		`{"status":"failed","error":{"type":"error","code":"y","message":""},"output":[]}`: "server_error",
	} {
		got, err := ownOf(t).Answer([]byte(body))
		failed := new(chat.Failed)
		if errors.As(err, &failed); err == nil || failed.Type != kind || kind != "" && failed.Message == "" {
			t.Errorf("%s: %v %+v %+v", body, err, failed, got)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		response string
		want     *domain.Usage
	}{
		{`{"usage":{"input_tokens":10,"input_tokens_details":{"cached_tokens":4,"cache_write_tokens":3},"output_tokens":7,"output_tokens_details":{"reasoning_tokens":5},"total_tokens":17}}`,
			&domain.Usage{Input: 10, CachedInput: 4, CacheWrite5m: 3, Output: 7, Reasoning: 5}},
		{`{"usage":{"input_tokens":0,"output_tokens":0,"input_tokens_details":null}}`, &domain.Usage{}},
		{`{"usage":null}`, nil}, {`{}`, nil}, {`{"usage":{"input_tokens":1}}`, nil}, {`{"usage":{"output_tokens":1}}`, nil},
		{`{"usage":{"input_tokens":-1,"output_tokens":1}}`, nil}, {`{"usage":{"input_tokens":1.5,"output_tokens":1}}`, nil},
		{`{"usage":{"input_tokens":1,"output_tokens":"1"}}`, nil}, {`{"usage":{"input_tokens":99999999999999999999,"output_tokens":1}}`, nil},
		{`{"usage":{"input_tokens":1,"output_tokens":1,"output_tokens_details":{"reasoning_tokens":1e2}}}`, nil},
		{`{"usage":{"input_tokens":1,"output_tokens":1},"output":[{"type":"web_search_call","action":{"type":"search"}},{"type":"web_search_call","action":{"type":"open_page"}},{"type":"web_search_call"}]}`,
			&domain.Usage{Input: 1, Output: 1, WebSearch: 2}},
		{`{"usage":{"input_tokens":1,"output_tokens":1},"tool_usage":{"web_search":{"num_requests":3}},"output":[{"type":"web_search_call","action":{"type":"search"}}]}`,
			&domain.Usage{Input: 1, Output: 1, WebSearch: 3}},
	} {
		r, _ := reportOf(gjson.Parse(c.response))
		got, _ := json.Marshal(r.Usage)
		if want, _ := json.Marshal(c.want); string(got) != string(want) {
			t.Errorf("%s: %s, want %s", c.response, got, want)
		}
	}
}

func TestEvents(t *testing.T) {
	for _, c := range []struct{ name, data, text, failed string }{
		{"text", `{"type":"response.output_text.delta","delta":"a\nb"}`, "a\nb", ""},
		{"a refusal", `{"type":"response.refusal.delta","delta":"a"}`, "a", ""},
		{"a summary", `{"type":"response.reasoning_summary_text.delta","delta":"a"}`, "a", ""},
		{"reasoning", `{"type":"response.reasoning_text.delta","delta":"a"}`, "a", ""},
		{"arguments", `{"type":"response.function_call_arguments.delta","delta":"a"}`, "a", ""},
		{"input", `{"type":"response.custom_tool_call_input.delta","delta":"a"}`, "a", ""},
		{"a name", `{"type":"response.output_item.added","item":{"type":"function_call","name":"f","arguments":""}}`, "f", ""},
		{"audio is no text", `{"type":"response.audio.delta","delta":"AAAA"}`, "", ""},
		{"what is done was said", `{"type":"response.output_text.done","text":"a"}`, "", ""},
		{"what nobody knows", `{"type":"response.new.thing","delta":"a"}`, "", ""},
		{"an error", `{"type":"error","code":"rate_limit_exceeded","message":"m","param":null,"sequence_number":1}`, "", "rate_limit_error"},
		{"an error in an object", `{"type":"error","error":{"type":"server_error","message":"m"}}`, "", "server_error"},
		{"an error without a type", `{"error":{"type":"server_error","message":"m"}}`, "", "server_error"},
		{"failed", `{"type":"response.failed","response":{"status":"failed","error":{"code":"server_error","message":"m"},"usage":null}}`, "", "server_error"},
	} {
		chunks, done, err := ownOf(t).Reader().Event([]byte(c.data), nil)
		failed := new(chat.Failed)
		if errors.As(err, &failed); failed.Type != c.failed || done {
			t.Errorf("%s: %v %v", c.name, err, done)
		}
		if err == nil && (string(chunks[0].Text) != c.text || string(chunks[0].Data) != c.data || chunks[0].Last) {
			t.Errorf("%s: %+v", c.name, chunks)
		}
	}
}

// TestFailedAndBilled: a response that failed and has a usage ends the stream, and is charged.
func TestFailedAndBilled(t *testing.T) {
	r := ownOf(t).Reader()
	chunks, done, err := r.Event([]byte(`{"type":"response.failed","response":{"id":"r","status":"failed","error":{"code":"server_error","message":"m"},"output":[],"usage":{"input_tokens":5,"output_tokens":2}}}`), nil)
	if err != nil || !done || !chunks[0].Last || r.Report().Usage.Input != 5 || r.Report().FinishReason != "failed" {
		t.Errorf("%v %v %+v %+v", err, done, chunks, r.Report())
	}
}

// TestLineBreaks: JSON may have them between its tokens, a frame may not.
func TestLineBreaks(t *testing.T) {
	data := []byte("{\n\"type\":\r\n\"response.output_text.delta\",\"delta\":\"a\"}")
	chunks, _, err := ownOf(t).Reader().Event(data, nil)
	if err != nil || string(chunks[0].Data) != `{ "type":  "response.output_text.delta","delta":"a"}` || data[1] != '\n' {
		t.Errorf("%v %+v", err, chunks)
	}
}
