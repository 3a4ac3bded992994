package gemini

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/provider/chat/chattest"
)

// TestPartialArguments puts together arguments that come a value at a time.
func TestPartialArguments(t *testing.T) {
	kinds := map[string]string{"s": "stringValue", "n": "numberValue", "b": "boolValue", "z": "nullValue"}
	for _, row := range chattest.Table(t, "testdata/partial.json") {
		data := []string{`{` + candidate(`{"functionCall":{"name":"f","willContinue":true},"thoughtSignature":"c2ln"}`, ``) + `}`}
		for _, event := range row.Get("args").Array() {
			list := []map[string]any{}
			for _, of := range event.Array() {
				list = append(list, map[string]any{"jsonPath": of.Get("0").Str, kinds[of.Get("1").Str]: json.RawMessage(of.Get("2").Raw), "willContinue": of.Get("3").Bool()})
			}
			data = append(data, `{`+candidate(`{"functionCall":{"partialArgs":`+string(chat.Encode(list))+`,"willContinue":true}}`, ``)+`}`)
		}
		data = append(data, `{`+candidate(`{"functionCall":{}}`, `,"finishReason":"STOP"`)+`}`)
		got, complete, _ := read(t, exchangeFor(t, "gemini-3-pro"), data)
		if !complete || len(got.calls) != 1 || got.calls[0].signature != "c2ln" || !json.Valid([]byte(got.calls[0].arguments)) {
			t.Errorf("%s: %+v", row.Get("name"), got)
			continue
		}
		args := got.calls[0].arguments
		if want := row.Get("want"); want.Exists() && !chattest.SameJSON(t, args, want.Raw) {
			t.Errorf("%s: %s, want %s", row.Get("name"), args, want)
		}
		if has := row.Get("has.good"); has.Exists() && gjson.Get(args, "good").Str != has.Str {
			t.Errorf("%s: %s", row.Get("name"), args)
		}
	}
}

// TestCallsEnd: a call ends with its last piece, with the next call, or with the candidate.
func TestCallsEnd(t *testing.T) {
	got, complete, report := read(t, exchangeFor(t, "gemini-3-pro"), []string{
		`{` + candidate(`{"functionCall":{"name":"f","args":{"a":1},"willContinue":true}}`, ``) + `}`,
		`{` + candidate(`{"functionCall":{"name":"g","partialArgs":[{"jsonPath":"$.b","numberValue":2}]}},{"functionCall":{"willContinue":true}}`, ``) + `}`,
		`{` + candidate(`{"functionCall":{"id":"own","name":"h","willContinue":true}}`, `,"finishReason":"MAX_TOKENS"`) + `}`,
	})
	want := []call{{got.calls[0].id, "f", `{"a":1}`, ""}, {got.calls[1].id, "g", `{"b":2}`, ""}, {"own", "h", `{}`, ""}}
	if !complete || report.FinishReason != "length" || len(got.calls) != 3 || got.calls[0] != want[0] || got.calls[1] != want[1] || got.calls[2] != want[2] {
		t.Errorf("%+v", got)
	}
}

// TestSeveralChoices: the stream is complete when each that was seen has ended.
func TestSeveralChoices(t *testing.T) {
	r := exchangeFor(t, "gemini-2.0-flash").Reader()
	for i, event := range []string{
		`{"candidates":[{"content":{"parts":[{"text":"b"}]},"index":1},{"content":{"parts":[{"text":"a"}]},"index":0}]}`,
		`{"candidates":[{"finishReason":"MAX_TOKENS","index":1}]}`,
		`{"candidates":[{"content":{"parts":[{"text":"c"}]},"finishReason":"STOP"}]}`,
	} {
		if _, complete := r.End(nil); complete || !r.Report().Partial {
			t.Errorf("complete before event %d", i)
		}
		chunks, _, err := r.Event([]byte(event), nil)
		if err != nil || len(chunks) == 0 || (i == 0 && gjson.GetBytes(chunks[0].Data, "choices.0.index").Int() != 1) {
			t.Errorf("%v, %d chunks", err, len(chunks))
		}
	}
	if _, complete := r.End(nil); !complete || r.Report().Partial || r.Report().FinishReason != "stop" {
		t.Errorf("%+v", r.Report())
	}
}

func TestStreamForms(t *testing.T) {
	for _, row := range []struct {
		name string
		data []string
		ok   func(got streamed, complete bool, report chat.Report) bool
	}{
		{"nothing", nil, func(got streamed, complete bool, _ chat.Report) bool { return !complete && got.roles == 0 }},
		{"a blocked prompt", []string{`{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":4}}`},
			func(got streamed, complete bool, report chat.Report) bool {
				return complete && got.finish == "content_filter" && got.finishes == 1 && got.roles == 1 && report.Usage.Input == 4 && report.FinishReason == "content_filter"
			}},
		{"a blocked prompt that costs nothing", []string{`{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"trafficType":"ON_DEMAND"}}`},
			func(got streamed, complete bool, report chat.Report) bool {
				return complete && got.usages == 1 && *report.Usage == domain.Usage{}
			}},
		{"blocked under way", []string{`{` + candidate(`{"text":"a"}`, ``) + `}`, `{"promptFeedback":{"blockReason":"SAFETY"}}`},
			func(got streamed, complete bool, report chat.Report) bool {
				return complete && got.content == "a" && got.finish == "content_filter" && report.Usage == nil && got.usages == 0
			}},
		{"the last usage with counts", []string{
			`{` + candidate(`{"text":"a"}`, ``) + `,"usageMetadata":{"promptTokenCount":4,"candidatesTokenCount":1,"serviceTier":"flex"}}`,
			`{` + candidate(`{"text":"b"}`, `,"finishReason":"STOP"`) + `,"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":9}}`,
			`{"usageMetadata":{"trafficType":"ON_DEMAND"}}`},
			func(_ streamed, _ bool, report chat.Report) bool {
				return *report.Usage == domain.Usage{Input: 5, Output: 9} && report.ServiceTier == "flex"
			}},
		{"a usage that is unusable is none", []string{
			`{` + candidate(`{"text":"a"}`, ``) + `,"usageMetadata":{"promptTokenCount":4}}`,
			`{` + candidate(``, `,"finishReason":"STOP"`) + `,"usageMetadata":{"promptTokenCount":-4}}`},
			func(got streamed, complete bool, report chat.Report) bool {
				return complete && report.Usage == nil && got.usages == 0
			}},
		{"one id and model throughout", []string{
			`{"responseId":"r1","modelVersion":"m1",` + candidate(`{"text":"a"}`, ``) + `}`, `{"responseId":"r2","modelVersion":"m2",` + candidate(`{"text":"b"}`, ``) + `}`},
			func(got streamed, _ bool, report chat.Report) bool {
				return len(got.ids) == 1 && got.ids["r1"] && len(got.models) == 1 && report.Model == "m1" && report.UpstreamID == "r1"
			}},
		{"an end that is said again", []string{
			`{` + candidate(`{"text":"a"}`, `,"finishReason":"STOP"`) + `}`, `{` + candidate(`{"text":"b"}`, `,"finishReason":"MAX_TOKENS"`) + `}`},
			func(got streamed, complete bool, _ chat.Report) bool {
				return complete && got.content == "ab" && got.finishes == 1 && got.finish == "stop"
			}},
		{"pictures and logprobs", []string{
			`{` + candidate(`{"inlineData":{"mimeType":"image/png","data":"QQ=="}}`, `,"logprobsResult":{"chosenCandidates":[{"token":"é","logProbability":"-Infinity"}]},"finishReason":"STOP"`) + `}`},
			func(got streamed, _ bool, _ chat.Report) bool {
				return got.logprobs == 1 && got.images == `[{"index":0,"type":"image_url","image_url":{"url":"data:image/png;base64,QQ=="}}]`
			}},
		{"citations of a text in pieces", []string{
			`{` + candidate(`{"text":"é o"}`, `,"groundingMetadata":{"webSearchQueries":["q"]}`) + `}`,
			`{` + candidate(`{"text":"ne"}`, `,"finishReason":"STOP","groundingMetadata":{"webSearchQueries":["q"],"groundingChunks":[{"web":{"uri":"u","title":"t"}}],"groundingSupports":[{"segment":{"startIndex":3,"endIndex":6,"text":"one"},"groundingChunkIndices":[0]}]}`) + `,"usageMetadata":{"promptTokenCount":1}}`},
			func(got streamed, _ bool, report chat.Report) bool {
				return got.annotations == `[{"type":"url_citation","url_citation":{"start_index":2,"end_index":5,"title":"t","url":"u"}}]` && report.Usage.WebSearch == 1
			}},
		{"citations after the end", []string{
			`{` + candidate(`{"text":"a"}`, `,"finishReason":"STOP"`) + `}`, `{` + candidate(``, `,"groundingMetadata":{"groundingChunks":[{"web":{"uri":"u"}}]}`) + `}`},
			func(got streamed, complete bool, _ chat.Report) bool { return complete && got.annotations != "" }},
	} {
		got, complete, report := read(t, exchangeFor(t, "gemini-2.5-flash"), row.data)
		if !row.ok(got, complete, report) {
			t.Errorf("%s: complete %v, %+v, %+v", row.name, complete, got, report)
		}
	}
}

func TestErrorEvents(t *testing.T) {
	r := exchangeFor(t, "gemini-2.5-flash").Reader()
	if _, _, err := r.Event([]byte(`{`+candidate(`{"text":"a"}`, ``)+`,"usageMetadata":{"promptTokenCount":4}}`), nil); err != nil {
		t.Fatal(err)
	}
	var failed *chat.Failed
	if _, _, err := r.Event([]byte(`{"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}}`), nil); !errors.As(err, &failed) || failed.Type != "server_error" {
		t.Errorf("%v", err)
	}
	for _, data := range []string{``, `[DONE]`, `[]`, `{`, `5`} {
		if _, _, err := r.Event([]byte(data), nil); err == nil || errors.As(err, &failed) {
			t.Errorf("%s: %v", data, err)
		}
	}
	if _, complete := r.End(nil); complete || !r.Report().Partial || r.Report().Usage == nil {
		t.Errorf("%+v", r.Report())
	}
}

func FuzzReader(f *testing.F) {
	f.Add(`{"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":1}}`, `{"promptFeedback":{"blockReason":"X"}}`)
	f.Add(`{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","partialArgs":[{"jsonPath":"$.a[0]['b']","stringValue":"x"}],"willContinue":true}}]}}]}`, `{"candidates":[{"groundingMetadata":{"groundingChunks":[{"web":{"uri":"u"}}],"groundingSupports":[{"segment":{"startIndex":1,"endIndex":9223372036854775807},"groundingChunkIndices":[0]}]},"finishReason":"STOP"}]}`)
	f.Add(`[{"error":{"code":1}}]`, `{"candidates":[{"index":-1,"logprobsResult":{"chosenCandidates":[{}]}}]}`)
	f.Fuzz(func(t *testing.T, first, second string) {
		x := &exchange{target: Target{Model: "gemini-3-pro"}}
		r := x.Reader()
		for _, event := range []string{first, second} {
			chunks, done, err := r.Event([]byte(event), nil)
			for _, c := range chunks {
				if !json.Valid(c.Data) {
					t.Fatalf("%s", c.Data)
				}
			}
			if done || (err != nil && len(chunks) > 0) {
				t.Fatalf("done %v, %v", done, err)
			}
		}
		if _, complete := r.End(nil); complete == r.Report().Partial {
			t.Fatalf("%+v", r.Report())
		}
		if got, err := x.Answer([]byte(first)); err == nil && !json.Valid(got.Body) {
			t.Fatalf("%s", got.Body)
		}
	})
}
