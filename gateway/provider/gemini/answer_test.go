package gemini

import (
	"cmp"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/provider/chat/chattest"
)

func TestUsage(t *testing.T) {
	for _, row := range chattest.Table(t, "testdata/usage.json") {
		got := UsageOf(row.Get("usage"))
		if row.Get("want").Type == gjson.Null {
			if got != nil {
				t.Errorf("%s: %+v, want none", row.Get("name"), *got)
			}
			continue
		}
		var want domain.Usage
		if err := json.Unmarshal([]byte(row.Get("want").Raw), &want); err != nil {
			t.Fatal(err)
		}
		if got == nil || *got != want {
			t.Errorf("%s: %+v, want %+v", row.Get("name"), got, want)
		}
	}
}

// answerOf translates a whole answer with these fields and a usage.
func answerOf(t *testing.T, model, fields string) (*chat.Completion, gjson.Result) {
	t.Helper()
	got, err := exchangeFor(t, model).Answer([]byte(`{` + fields + `,"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":4},"responseId":"r1","modelVersion":"` + model + `"}`))
	if err != nil {
		t.Fatal(err)
	}
	return got, gjson.ParseBytes(got.Body)
}

func candidate(parts, more string) string {
	return `"candidates":[{"content":{"parts":[` + parts + `],"role":"model"}` + more + `}]`
}

func TestFinishReasons(t *testing.T) {
	for google, want := range map[string]string{
		"STOP": "stop", "MAX_TOKENS": "length", "SAFETY": "content_filter", "BLOCKLIST": "content_filter", "PROHIBITED_CONTENT": "content_filter",
		"SPII": "content_filter", "RECITATION": "content_filter", "IMAGE_SAFETY": "content_filter", "LANGUAGE": "content_filter",
		"MALFORMED_FUNCTION_CALL": "stop", "UNEXPECTED_TOOL_CALL": "stop", "TOO_MANY_TOOL_CALLS": "stop", "OTHER": "stop", "SOMETHING_NEW": "stop",
	} {
		got, v := answerOf(t, "gemini-2.5-flash", candidate(`{"text":"a"}`, `,"finishReason":"`+google+`"`))
		if v.Get("choices.0.finish_reason").Str != want || got.Report.FinishReason != want {
			t.Errorf("%s: %s, want %s", google, got.Body, want)
		}
		called := want
		if want == "stop" {
			called = "tool_calls"
		}
		_, v = answerOf(t, "gemini-2.5-flash", candidate(`{"functionCall":{"name":"f"}}`, `,"finishReason":"`+google+`"`))
		if v.Get("choices.0.finish_reason").Str != called || v.Get("choices.0.message.tool_calls.0.function.arguments").Str != "{}" {
			t.Errorf("%s with a call: %s, want %s", google, v, called)
		}
	}
}

func TestAnswerForms(t *testing.T) {
	for _, row := range []struct{ name, fields, path, want string }{
		{"thoughts apart", candidate(`{"text":"hm","thought":true},{"text":"a"},{"text":"b","thoughtSignature":"c2ln"}`, `,"finishReason":"STOP"`),
			"choices.0.message", `{"role":"assistant","content":"ab","refusal":null,"reasoning_content":"hm","extra_content":{"google":{"thought_signature":"c2ln"}}}`},
		{"no content beside calls", candidate(`{"functionCall":{"id":"q1","name":"f","args":{ "a" : [1, 2] }},"thoughtSignature":"c2ln"}`, `,"finishReason":"STOP"`),
			"choices.0.message", `{"role":"assistant","content":null,"refusal":null,"tool_calls":[{"id":"q1","type":"function","function":{"name":"f","arguments":"{\"a\":[1,2]}"},"extra_content":{"google":{"thought_signature":"c2ln"}}}]}`},
		{"pictures, and none of the drafts", candidate(`{"inlineData":{"mimeType":"image/png","data":"QQ=="},"thought":true},{"inlineData":{"mimeType":"image/png","data":"Qg=="},"thoughtSignature":"x"},{"inlineData":{"mimeType":"audio/wav","data":"Qw=="}}`, ``),
			"choices.0.message", `{"role":"assistant","content":"","refusal":null,"images":[{"type":"image_url","image_url":{"url":"data:image/png;base64,Qg=="}}]}`},
		{"code that ran", candidate(`{"executableCode":{"language":"PYTHON","code":"print(1)\n"}},{"codeExecutionResult":{"outcome":"OUTCOME_OK","output":"1\n"}},{"text":"one"}`, ``),
			"choices.0.message.content", "\"\\n```python\\nprint(1)\\n```\\n\\n```\\n1\\n```\\none\""},
		{"parts that nobody knows", candidate(`{"toolCall":{"id":"x"}},{"text":"a"},5,{"functionCall":{}}`, ``), "choices.0.message.content", `"a"`},
		{"candidates by index", `"candidates":[{"index":1,"content":{"parts":[{"text":"b"}]},"finishReason":"MAX_TOKENS"},{"content":{"parts":[{"text":"a"}]},"finishReason":"STOP","index":0}]`,
			"choices.#.message.content", `["a","b"]`},
		{"candidates by position", `"candidates":[{"content":{"parts":[{"text":"a"}]}},{"content":{"parts":[{"text":"b"}]},"index":99}]`, "choices.#.index", `[0,1]`},
		{"a candidate without content", `"candidates":[{"finishReason":"SAFETY"}]`, "choices.0.message", `{"role":"assistant","content":"","refusal":null}`},
		{"no candidates, but a bill", `"x":1`, "choices.#.finish_reason", `["stop"]`},
		{"a blocked prompt that is billed", `"promptFeedback":{"blockReason":"SAFETY"}`, "choices.#.finish_reason", `["content_filter"]`},
		{"its usage", `"promptFeedback":{"blockReason":"SAFETY"}`, "usage.prompt_tokens", `3`},
	} {
		if _, v := answerOf(t, "gemini-2.5-flash", row.fields); !chattest.SameJSON(t, v.Get(row.path).Raw, row.want) {
			t.Errorf("%s: %s\nwant %s", row.name, v.Get(row.path).Raw, row.want)
		}
	}
}

func TestMintedIDs(t *testing.T) {
	fields := candidate(`{"functionCall":{"name":"f"}},{"functionCall":{"name":"f"}}`, ``)
	_, a := answerOf(t, "gemini-2.5-flash", fields)
	_, b := answerOf(t, "gemini-2.5-flash", fields)
	ids := a.Get("choices.0.message.tool_calls.#.id").Array()
	if len(ids) != 2 || ids[0].Str == ids[1].Str || !strings.HasPrefix(ids[0].Str, "call_") || a.Raw != b.Raw {
		t.Errorf("%s\n%s", a, b)
	}
	for id, want := range map[string]bool{ids[0].Str: false, "": false, "toolu_1": false, "a b": false, strings.Repeat("a", 65): false, "gz3k9x": true, "function-call-123": true} {
		if isGoogles(id) != want {
			t.Errorf("isGoogles(%q) is %v", id, !want)
		}
	}
}

func TestCitations(t *testing.T) {
	pages := `"groundingChunks":[{"web":{"uri":"https://a","title":"A"}},{"maps":{"uri":"https://b","title":"B"}},{"web":{}}]`
	place := func(start, end int, page string) string {
		return string(chat.Encode(map[string]any{"type": "url_citation", "url_citation": map[string]any{"start_index": start, "end_index": end, "title": strings.ToUpper(page), "url": "https://" + page}}))
	}
	for _, row := range []struct{ name, parts, supports, want string }{
		{"bytes become characters", `{"text":"Žluťoučký kůň pěl."}`, `{"segment":{"startIndex":14,"endIndex":19,"text":"kůň"},"groundingChunkIndices":[0,1,2,9,-1]}`, place(10, 13, "a") + "," + place(10, 13, "b")},
		{"of a part", `{"text":"ěě "},{"text":"two"}`, `{"segment":{"partIndex":1,"startIndex":0,"endIndex":3,"text":"two"},"groundingChunkIndices":[0]}`, place(3, 6, "a")},
		{"of a part that is not told", `{"text":"long thoughts","thought":true},{"text":"é one"}`, `{"segment":{"startIndex":30,"endIndex":33,"text":"one"},"groundingChunkIndices":[0]}`, place(2, 5, "a")},
		{"without its text", `{"text":"éa"}`, `{"segment":{"endIndex":2},"groundingChunkIndices":[1]}`, place(0, 1, "b")},
		{"beyond the end, nowhere or empty", `{"text":"a"}`, `{"segment":{"endIndex":9},"groundingChunkIndices":[0]},{"segment":{"text":"zzz"},"groundingChunkIndices":[0]},{"groundingChunkIndices":[0]},{"segment":{"startIndex":-3,"endIndex":-1},"groundingChunkIndices":[0]}`, place(0, 0, "a") + "," + place(0, 0, "b")},
		{"no supports", `{"text":"a"}`, ``, place(0, 0, "a") + "," + place(0, 0, "b")},
	} {
		grounding := `,"groundingMetadata":{` + pages + `,"groundingSupports":[` + row.supports + `]}`
		_, v := answerOf(t, "gemini-2.5-flash", candidate(row.parts, grounding))
		if got := v.Get("choices.0.message.annotations").Raw; !chattest.SameJSON(t, cmp.Or(got, "null"), "["+row.want+"]") {
			t.Errorf("%s: %s\nwant %s", row.name, got, row.want)
		}
	}
}

func TestSearches(t *testing.T) {
	for _, row := range []struct {
		model, queries string
		want           int64
	}{
		{"gemini-2.5-flash", `"a","b"`, 1}, {"gemini-2.0-flash", ``, 0}, {"gemini-2.5-flash", `""," "`, 0},
		{"gemini-3-flash", `"a","","b"`, 2}, {"gemini-3.1-pro-preview", `"a"`, 1}, {"gemini-flash-latest", `"a","b"`, 2},
	} {
		got, _ := answerOf(t, row.model, candidate(`{"text":"a"}`, `,"groundingMetadata":{"webSearchQueries":[`+row.queries+`]}`))
		if got.Report.Usage.WebSearch != row.want {
			t.Errorf("%s of %s: %d searches", row.queries, row.model, got.Report.Usage.WebSearch)
		}
	}
}

func TestTiers(t *testing.T) {
	for google, want := range map[string]string{"standard": "", "flex": "flex", "PRIORITY": "priority", "SERVICE_TIER_FLEX": "flex", "": ""} {
		got, err := exchangeFor(t, "gemini-2.5-flash").Answer([]byte(`{` + candidate(`{"text":"a"}`, ``) + `,"usageMetadata":{"promptTokenCount":1,"serviceTier":"` + google + `"}}`))
		if err != nil || got.Report.ServiceTier != want || gjson.GetBytes(got.Body, "service_tier").Str != want {
			t.Errorf("%s: %+v, %v", google, got.Report, err)
		}
	}
}

func TestNoAnswers(t *testing.T) {
	x := exchangeFor(t, "gemini-2.5-flash")
	for _, body := range []string{``, `{`, `[]`, `null`, `"a"`, `{}`, `{"candidates":[]}`, `{"candidates":[{}]`, `<html>`, `{"models":[]}`} {
		if got, err := x.Answer([]byte(body)); err == nil {
			t.Errorf("%s is %s", body, got.Body)
		}
	}
	// Without a usage there is none: nothing is made up.
	got, err := x.Answer([]byte(`{` + candidate(`{"text":"a"}`, `,"finishReason":"STOP"`) + `}`))
	if err != nil || got.Report.Usage != nil || gjson.GetBytes(got.Body, "usage").Exists() || gjson.GetBytes(got.Body, "model").Str != "gemini-2.5-flash" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestReportIsClean(t *testing.T) {
	got, err := exchangeFor(t, "gemini-2.5-flash").Answer([]byte(`{` + candidate(`{"text":"a"}`, ``) + `,"responseId":"a\u0000b\n` + strings.Repeat("é", 100) + `","modelVersion":"` + strings.Repeat("m", 200) + `"}`))
	if err != nil || !strings.HasPrefix(got.Report.UpstreamID, "abé") || len(got.Report.UpstreamID) > chat.MaxUpstreamID || len(got.Report.Model) != chat.MaxModelName {
		t.Errorf("%+v, %v", got.Report, err)
	}
}

func TestErrors(t *testing.T) {
	for _, row := range []struct{ body, kind, code string }{
		{`{"error":{"code":400,"message":"m","status":"INVALID_ARGUMENT"}}`, "invalid_request_error", "INVALID_ARGUMENT"},
		{`[{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED"}}]`, "rate_limit_error", "rate_limit_exceeded"},
		{`{"error":{"code":400,"message":"The input token count (2000000) exceeds the maximum number of tokens allowed (1048576).","status":"INVALID_ARGUMENT"}}`, "invalid_request_error", "context_length_exceeded"},
		{`{"error":{"code":400,"message":"API key not valid.","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID"}]}}`, "authentication_error", "API_KEY_INVALID"},
		{`{"error":{"code":401,"status":"UNAUTHENTICATED"}}`, "authentication_error", "UNAUTHENTICATED"},
		{`{"error":{"code":403,"status":"PERMISSION_DENIED"}}`, "permission_error", "PERMISSION_DENIED"},
		{`{"error":{"code":404,"status":"NOT_FOUND"}}`, "invalid_request_error", "NOT_FOUND"},
		{`{"error":{"code":503,"message":"m","status":"UNAVAILABLE"}}`, "server_error", "UNAVAILABLE"},
		{`{"error":{"code":429}}`, "rate_limit_error", "rate_limit_exceeded"},
		{`{"error":{"code":418}}`, "invalid_request_error", ""},
		{`{"error":{"code":500}}`, "server_error", ""},
	} {
		got := ErrorOf([]byte(row.body))
		if got == nil || got.Type != row.kind || got.Code != row.code || got.Message == "" {
			t.Errorf("%s: %+v", row.body, got)
		}
		var failed *chat.Failed
		if _, err := exchangeFor(t, "gemini-2.5-flash").Answer([]byte(row.body)); !errors.As(err, &failed) {
			t.Errorf("under status 200: %v", err)
		}
	}
	for _, body := range []string{``, `{}`, `[]`, `{"error":"x"}`, `{"error":{}}`, `[{"error":{"code":1}},{}]`, `{"error":{"code":1}`, `5`} {
		if got := ErrorOf([]byte(body)); got != nil {
			t.Errorf("%s: %+v", body, got)
		}
	}
}

func TestRetryDelay(t *testing.T) {
	for delay, want := range map[string]int64{`"34.07s"`: 35, `"48s"`: 48, `"0.2s"`: 1, `"0s"`: 0, `"-3s"`: 0, `"soon"`: 0, `5`: 0} {
		body := `{"error":{"code":429,"details":[{"@type":"type.googleapis.com/google.rpc.Help"},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":` + delay + `}]}}`
		if got := RetryDelay([]byte(body)); got != want {
			t.Errorf("%s: %d", delay, got)
		}
	}
	if RetryDelay([]byte(`<html>`)) != 0 || RetryDelay([]byte(`{"error":{}}`)) != 0 {
		t.Error("a delay out of nothing")
	}
}
