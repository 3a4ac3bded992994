package embeddings

import (
	"errors"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/provider/chat/chattest"
)

func ownOf(t *testing.T, body string) chat.Exchange {
	t.Helper()
	x, err := Own([]byte(body), "m")
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestOwnBody(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"model":"m", "input":"a"}`:                    `{"model":"m", "input":"a"}`,
		`{"model":"o", "input":[1, 2],"x":0.10}`:        `{"model":"m", "input":[1, 2],"x":0.10}`,
		`{"input":"a","mod\u0065l":"o","dimensions":3}`: `{"input":"a","mod\u0065l":"m","dimensions":3}`,
	} {
		if got := string(ownOf(t, body).Body()); got != want {
			t.Errorf("%s:\n got %s\nwant %s", body, got, want)
		}
	}
}

func TestAnswer(t *testing.T) {
	t.Parallel()
	for native, want := range map[string]chat.Report{
		`{"object":"list","data":[{"index":0,"embedding":"AAAA"}],"model":"s","usage":{"prompt_tokens":3,"total_tokens":3}}`: {Model: "s", Usage: &domain.Usage{Input: 3}},
		`{"data":[],"id":"i","service_tier":"t","usage":{"total_tokens":4}}`:                                                 {UpstreamID: "i", ServiceTier: "t", Usage: &domain.Usage{Input: 4}},
		`{"data":[],"usage":{"prompt_tokens":0,"total_tokens":4}}`:                                                           {Usage: &domain.Usage{}},
		`{"data":[],"error":null,"usage":{"prompt_tokens":-1}}`:                                                              {},
		`{"data":[],"usage":{"prompt_tokens":1.5}}`:                                                                          {},
		`{"data":[],"usage":{"prompt_tokens":"1"}}`:                                                                          {},
		`{"data":[],"usage":{"prompt_tokens":99999999999999999999}}`:                                                         {},
		`{"data":[],"usage":{}}`:                                                                                             {},
		`{"data":[]}`:                                                                                                        {},
	} {
		got, err := ownOf(t, `{"model":"m","input":"a"}`).Answer([]byte(native))
		if err != nil {
			t.Errorf("%s: %v", native, err)
			continue
		}
		r := got.Report
		if string(got.Body) != native || got.Text() != "" || r.Model != want.Model || r.UpstreamID != want.UpstreamID || r.ServiceTier != want.ServiceTier ||
			(r.Usage == nil) != (want.Usage == nil) || r.Usage != nil && *r.Usage != *want.Usage {
			t.Errorf("%s: %+v", native, r)
		}
	}
}

func TestNoAnswer(t *testing.T) {
	t.Parallel()
	for native, want := range map[string]string{
		``: "", `{`: "", `[]`: "", `"x"`: "", `{}`: "", `{"data":{}}`: "", `{"data":null,"error":""}`: "", `{"object":"list","data":[]`: "",
		`{"error":{"message":"no","type":"t","code":400}}`: `{"error":{"message":"no","type":"t","param":null,"code":"400"}}`,
		`{"data":[],"error":"no"}`:                         `{"error":{"message":"no","type":"server_error","param":null,"code":null}}`,
		`{"error":{}}`:                                     `{"error":{"message":"The provider reported an error.","type":"server_error","param":null,"code":null}}`,
	} {
		_, err := ownOf(t, `{"model":"m","input":"a"}`).Answer([]byte(native))
		failed := new(chat.Failed)
		if got := errors.As(err, &failed); err == nil || got != (want != "") || got && string(failed.Body()) != want {
			t.Errorf("%s: %v, %s", native, err, failed.Body())
		}
	}
}

func TestNoStream(t *testing.T) {
	t.Parallel()
	r := ownOf(t, `{"model":"m","input":"a"}`).Reader()
	if chunks, done, err := r.Event([]byte(`[DONE]`), nil); err == nil || done || len(chunks) > 0 {
		t.Error("an event is read")
	}
	if chunks, complete := r.End(nil); complete || len(chunks) > 0 || r.Report().Usage != nil {
		t.Error("a stream ends well")
	}
}

func TestRecordings(t *testing.T) {
	t.Parallel()
	for _, s := range chattest.Recorded(t, "embeddings", 1) {
		if strings.HasPrefix(s.Name, "oa-") {
			checkRecording(t, s.Name, s.Of)
		}
	}
}

func checkRecording(t *testing.T, name string, step gjson.Result) {
	t.Helper()
	request, native := step.Get("request").Raw, step.Get("response.body").Str
	f, err := Facts([]byte(request))
	if step.Get("status").Int() == 400 {
		// OpenAI refuses it, and so does Facts: its body is an error, whatever it came with.
		if err == nil {
			t.Errorf("%s: %+v", name, f)
		}
		failed := new(chat.Failed)
		if _, err := ownOf(t, `{"model":"m","input":"a"}`).Answer([]byte(native)); !errors.As(err, &failed) || failed.Message != gjson.Get(native, "error.message").Str {
			t.Errorf("%s: %v", name, err)
		}
		return
	}
	want := step.Get("expect")
	if err != nil || f.Opaque || f.InputBytes < want.Get("usage.prompt_tokens").Int() {
		t.Errorf("%s: %+v, %v", name, f, err)
	}
	texts, err := Inputs([]byte(request))
	if err != nil || int64(len(texts)) != want.Get("n").Int() {
		t.Errorf("%s: %q, %v", name, texts, err)
	}
	answer, err := ownOf(t, request).Answer([]byte(native))
	if err != nil || string(answer.Body) != native || answer.Report.Model != want.Get("model").Str ||
		answer.Report.Usage == nil || *answer.Report.Usage != (domain.Usage{Input: want.Get("usage.prompt_tokens").Int()}) {
		t.Errorf("%s: %v, %+v", name, err, answer)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"data":[{"embedding":[0.1]}],"model":"m","usage":{"prompt_tokens":1,"total_tokens":1}}`))
	f.Add([]byte(`{"error":{"message":"no","code":1}}`))
	f.Fuzz(func(t *testing.T, native []byte) {
		x := ownOf(t, `{"model":"m","input":"a"}`)
		answer, err := x.Answer(native)
		if err == nil && answer.Report.Usage != nil {
			if _, err := answer.Report.Usage.Meters(); err != nil {
				t.Errorf("%v: %s", err, native)
			}
		}
	})
}
