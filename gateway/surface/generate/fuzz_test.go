package generate

import (
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/provider/chat/chattest"
)

// FuzzRequest reads any JSON: nothing panics, counts are in their bounds, and what Foreign takes is a chat
// completion that its own parser takes.
func FuzzRequest(f *testing.F) {
	for _, name := range []string{"facts.json", "requests.json", "refusals.json"} {
		for _, c := range chattest.Table(f, "testdata/"+name) {
			f.Add(c.Get("body").Raw)
		}
	}
	f.Fuzz(func(t *testing.T, body string) {
		if !gjson.Valid(body) || !gjson.Parse(body).IsObject() {
			return
		}
		facts, err := Facts([]byte(body), "m", false)
		if err == nil && (facts.Choices < 1 || facts.Choices > maxCandidates || facts.MaxOutput < 0 || facts.MaxOutput > maxAskedToken || facts.Rounds < 1 ||
			facts.InputBytes < int64(len(body)) || facts.ImageBytes > int64(len(body))) {
			t.Errorf("%s: %+v", body, facts)
		}
		EmbedFacts([]byte(body), "m", true)
		CountForeign([]byte(body), "m")
		foreign, err := Foreign([]byte(body), "id", "m", true)
		if err != nil {
			if refused(err) == "" && !isRefusal(err) {
				t.Errorf("%s: %v", body, err)
			}
			return
		}
		if !gjson.ValidBytes(foreign.Chat()) {
			t.Fatalf("%s became %s", body, foreign.Chat())
		}
		if r, err := chat.Parse(foreign.Chat()); err != nil || len(r.Unknown) > 0 {
			t.Errorf("%s became %s: %v", body, foreign.Chat(), err)
		}
	})
}

func isRefusal(err error) bool {
	_, ok := err.(*chat.Unsupported) //nolint:errorlint // nothing wraps it
	return ok
}

// FuzzAnswer reads any chunks and answers: what comes out is JSON, and exactly one event is the last.
func FuzzAnswer(f *testing.F) {
	f.Add(chunk(`{"content":"a"}`, "stop"), usageChunk, chunk(`{"tool_calls":[{"index":-3,"function":{"name":"f","arguments":"{"}}]}`, "null"))
	f.Add(chunk(`{"thinking_blocks":`+blocks+`}`, "length"), `{"choices":[{"index":9999999999999,"delta":3}]}`, `{"choices":{"index":1}}`)
	f.Add(chunk(`{"content":"ü","annotations":[{"url_citation":{"url":"x","start_index":0,"end_index":1}}],"images":[{"image_url":{"url":"data:;base64,A"}}]}`, "stop"), `{"usage":{"prompt_tokens":1e300}}`, "")
	for _, c := range chattest.Table(f, "testdata/answers.json") {
		f.Add(c.Get("answer").Raw, "", "")
	}
	f.Fuzz(func(t *testing.T, a, b, c string) {
		foreign := foreignOf(t, simple)
		if out, err := foreign.Answer([]byte(a)); err == nil && !gjson.ValidBytes(out) {
			t.Errorf("%s became %s", a, out)
		}
		w := foreign.Writer()
		var out []chat.Chunk
		for _, data := range []string{a, b, c} {
			out = w.Chunk([]byte(data), out)
		}
		out = w.End(out)
		for i, e := range out {
			if !gjson.ValidBytes(e.Data) || e.Last != (i == len(out)-1) {
				t.Errorf("event %d of %d: %s", i, len(out), e.Data)
			}
		}
	})
}
