package generate

import (
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/provider/chat/chattest"
)

func TestRequests(t *testing.T) {
	for _, c := range chattest.Table(t, "testdata/requests.json") {
		got := foreignOf(t, c.Get("body").Raw).Chat()
		if !chattest.SameJSON(t, string(got), c.Get("want").Raw) {
			t.Errorf("%s:\n%s, want\n%s", c.Get("name"), got, c.Get("want"))
		}
		if r, err := chat.Parse(got); err != nil || len(r.Unknown) > 0 {
			t.Errorf("%s: %v, %v", c.Get("name"), err, r)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range chattest.Table(t, "testdata/refusals.json") {
		body := c.Get("body").Raw
		f, err := Foreign([]byte(body), "id", "m", false)
		if refused(err) != c.Get("param").Str || f != nil {
			t.Errorf("%s: %v at %q, want %s", body, err, refused(err), c.Get("param"))
		}
	}
}

func TestStreamed(t *testing.T) {
	f, err := Foreign([]byte(simple), "id", "models/m", true)
	want := `{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true,"stream_options":{"include_usage":true}}`
	if err != nil || string(f.Chat()) != want {
		t.Errorf("%v: %s", err, f.Chat())
	}
}

func TestCount(t *testing.T) {
	inner := `{"model":"models/m","contents":[{"parts":[{"text":"hi"}]}],"systemInstruction":{"parts":[{"text":"s"}]}}`
	want := `{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":"hi"}]}`
	for _, body := range []string{inner, `{"generateContentRequest":` + inner + `}`, `{"generate_content_request":` + inner + `}`} {
		f, err := CountForeign([]byte(body), "models/m")
		if err != nil || string(f.Chat()) != want {
			t.Errorf("%v: %s", err, body)
		}
	}
	for body, param := range map[string]string{
		`{"contents":[],"generateContentRequest":` + inner + `}`: "contents",
		`{"generateContentRequest":{}}`:                          "contents",
		`{"generateContentRequest":3}`:                           "generateContentRequest",
	} {
		if _, err := CountForeign([]byte(body), "m"); refused(err) != param {
			t.Errorf("%s: %v", body, err)
		}
	}
	if got := string(CountAnswer(7)); got != `{"totalTokens":7,"promptTokensDetails":[{"modality":"TEXT","tokenCount":7}]}` {
		t.Error(got)
	}
}

// TestRecordedRequests reads recorded requests for other providers. Those that use what only Google has are
// named here, with what is refused.
func TestRecordedRequests(t *testing.T) {
	google := map[string]string{"ge-block/0": "modelArmorConfig", "ge-think-1/0": "tools[0].urlContext"}
	n := 0
	for _, s := range chattest.Recorded(t, "generatecontent", 1) {
		if s.Request == "" {
			continue
		}
		n++
		f, err := Foreign([]byte(s.Request), "id", s.Model, s.Stream)
		if param := google[s.Name]; param != "" || err != nil {
			if refused(err) != param {
				t.Errorf("%s: %v", s.Name, err)
			}
			continue
		}
		r, err := chat.Parse(f.Chat())
		if err != nil || len(r.Messages) == 0 || len(r.Unknown) > 0 {
			t.Errorf("%s: %v, %+v", s.Name, err, r)
			continue
		}
		if calls, results := countCalls(r); results > calls || len(r.Tools) != len(gjson.Get(s.Request, "tools.#.functionDeclarations|@flatten").Array()) {
			t.Errorf("%s: %d calls, %d results: %s", s.Name, calls, results, f.Chat())
		}
	}
	if n < 20 {
		t.Errorf("only %d requests", n)
	}
}

func countCalls(r *chat.Request) (calls, results int) {
	for i := range r.Messages {
		calls += len(r.Messages[i].ToolCalls)
		if r.Messages[i].Role == chat.RoleTool {
			results++
		}
	}
	return calls, results
}

func TestError(t *testing.T) {
	for status, word := range map[int]string{400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 402: "RESOURCE_EXHAUSTED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
		409: "ABORTED", 413: "INVALID_ARGUMENT", 418: "INVALID_ARGUMENT", 422: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 502: "UNAVAILABLE",
		503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED", 599: "INTERNAL"} {
		v := gjson.ParseBytes(Error(status, "a_type", "a_code", "Words.", "p"))
		if v.Get("error.code").Int() != int64(status) || v.Get("error.status").Str != word || v.Get("error.message").Str != "Words." {
			t.Errorf("%d: %s", status, v)
		}
		if d := v.Get("error.details.0"); d.Get("reason").Str != "a_code" || d.Get("metadata.type").Str != "a_type" || d.Get("metadata.param").Str != "p" {
			t.Errorf("%d: %s", status, d)
		}
	}
	if got := string(Error(200, "", "", "Words.", "")); got != `{"error":{"code":500,"message":"Words.","status":"INTERNAL"}}` {
		t.Error(got)
	}
}
