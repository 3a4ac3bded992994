package completions

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// checked says whether a body is what the gateway lets through: one JSON object whose keys are unique.
func checked(body []byte) bool {
	v := gjson.ParseBytes(body)
	if !json.Valid(body) || !v.IsObject() {
		return false
	}
	seen, unique := map[string]bool{}, true
	v.ForEach(func(key, _ gjson.Result) bool {
		name := strings.ToLower(key.String())
		unique = unique && !seen[name]
		seen[name] = true
		return unique
	})
	options := v.Get("stream_options").Raw
	return unique && strings.Count(options, "usage") < 2 && !strings.Contains(options, `\`)
}

// FuzzRequest: what is sent costs what was read, and what goes elsewhere costs no more.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		`{"model":"o","prompt":["a","b"],"n":2,"best_of":3,"stream":true,"suffix":"x"}`,
		`{"model":"o","prompt":[[1,2],[3]],"echo":true,"max_tokens":null}`,
		`{"model":"o","prompt":"a","stop":"b","stream":true,"stream_options":{"include_usage":false}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		facts, err := Facts(body)
		if !checked(body) || err != nil {
			return
		}
		x, err := Own(body, "m")
		if err != nil {
			t.Fatal(err)
		}
		sent, err := Facts(x.Body())
		if err != nil {
			t.Fatalf("%v: %s", err, x.Body())
		}
		want := *facts
		want.Model, want.InputBytes, want.IncludeUsage = "m", sent.InputBytes, facts.IncludeUsage || facts.Stream
		if !reflect.DeepEqual(*sent, want) || !gjson.GetBytes(x.Body(), "max_tokens").Exists() {
			t.Errorf("%+v of %s;\n%+v of %s", *facts, body, *sent, x.Body())
		}
		foreign, err := Foreign(body, "1", 1)
		if err != nil {
			return
		}
		if !json.Valid(foreign.Chat()) {
			t.Fatalf("not JSON: %s", foreign.Chat())
		}
		if r, err := chat.Parse(foreign.Chat()); err == nil && (r.MaxOutput != facts.MaxOutput || r.Choices != facts.Choices || r.Stream != facts.Stream || len(r.Messages) != 1) {
			t.Errorf("%s of %s", foreign.Chat(), body)
		}
	})
}

// FuzzAnswer: whatever comes back, nothing panics, and what is made is JSON.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"choices":[{"index":0,"text":"ab","finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}`))
	f.Add([]byte(`{"choices":[{"index":-1,"delta":{"content":"a"}}],"usage":{}}`))
	f.Add([]byte("{\"choices\":\n[{\"message\":{\"content\":[{\"text\":1}]}}]}"))
	f.Fuzz(func(t *testing.T, native []byte) {
		x, err := Own([]byte(`{"model":"m","prompt":["a","b"],"echo":true}`), "m")
		if err != nil {
			t.Fatal(err)
		}
		if answer, err := x.Answer(native); err == nil {
			_ = answer.Text()
		}
		r := x.Reader()
		for range 2 {
			chunks, _, err := r.Event(native, nil)
			if err == nil && len(chunks) == 1 && (!json.Valid(chunks[0].Data) || strings.ContainsAny(string(chunks[0].Data), "\r\n")) {
				t.Errorf("%q", chunks[0].Data)
			}
		}
		_ = r.Report()
		foreign, err := Foreign([]byte(`{"model":"m","prompt":"a"}`), "1", 1)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := foreign.Answer(native); err == nil && !json.Valid(out) {
			t.Errorf("not JSON: %s", out)
		}
		w := foreign.Writer()
		gather(t, w.End(w.Chunk(native, w.Chunk(native, nil))))
	})
}
