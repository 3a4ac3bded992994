package responses

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

// seed adds the requests of the tables.
func seed(f *testing.F) {
	f.Helper()
	for _, file := range []string{"testdata/facts.txt", "testdata/foreign.txt"} {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "{") {
				f.Add([]byte(line))
			}
		}
	}
}

// FuzzRequests: whatever object is sent, it is refused by name, or bounded, and what is made of it is JSON.
func FuzzRequests(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		if !json.Valid(body) || !gjson.ParseBytes(body).IsObject() {
			t.Skip()
		}
		facts, err := Facts(body)
		if err != nil {
			refused(t, err)
		} else if facts.Rounds < 1 || facts.Choices != 1 || facts.InputBytes < int64(len(body)) || facts.ImageBytes > facts.InputBytes ||
			facts.MaxOutput < 0 || facts.WebSearch != (facts.Searches > 0) || facts.WebSearch && !facts.Opaque {
			t.Errorf("%+v of %s", facts, body)
		}
		if x, err := Own(body, "gpt"); err == nil && (!json.Valid(x.Body()) || gjson.GetBytes(x.Body(), "model").Str != "gpt") {
			t.Errorf("%s became %s", body, x.Body())
		}
		checkAnything(t, body)
	})
}

// checkAnything: what can be carried is a chat completion, and what is repeated of it in the answer is JSON.
func checkAnything(t *testing.T, body []byte) {
	t.Helper()
	f, err := Foreign(body, testID, created)
	if err != nil {
		refused(t, err)
		return
	}
	if !json.Valid(f.Chat()) || len(gjson.GetBytes(f.Chat(), "messages").Array()) == 0 {
		t.Errorf("%s became %s", body, f.Chat())
	}
	stream(t, string(body), f, []string{delta(`{"content":"a"}`), finish("stop")})
	answer, err := f.Answer([]byte(`{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}`))
	if err != nil || !json.Valid(answer) {
		t.Errorf("%v: %s", err, answer)
	}
}

// FuzzAnswers: whatever comes back, nothing panics, and nobody is made to believe it was an answer's end.
func FuzzAnswers(f *testing.F) {
	for _, s := range streams {
		for _, c := range s.chunks {
			f.Add([]byte(c))
		}
	}
	for _, data := range []string{
		`{"type":"response.completed","response":{"id":"r","status":"completed","output":[],"usage":{"input_tokens":1,"output_tokens":1}}}`,
		`{"type":"response.failed","response":{"error":{"message":"m"}}}`, `{"type":"error"}`, `{"type":"response.output_item.added","item":[]}`,
		`{"id":"r","status":"completed","output":[{"type":"web_search_call"}],"tool_usage":{"web_search":{"num_requests":-1}}}`,
		`{"choices":[{"message":{"content":"a","tool_calls":[{"id":"c"}],"thinking_blocks":[{"index":-1}],"images":[{}]},"finish_reason":"length"}]}`,
	} {
		f.Add([]byte(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		x := own{}
		if answer, err := x.Answer(data); err == nil {
			_ = answer.Text()
		}
		r := x.Reader()
		chunks, done, err := r.Event(data, nil)
		if done && (err != nil || !strings.HasPrefix(chunks[0].Event, "response.") || !chunks[0].Last) {
			t.Errorf("%v: the end by %s", err, data)
		}
		carrier, err := Foreign([]byte(asked), testID, created)
		if err != nil {
			t.Fatal(err)
		}
		if answer, err := carrier.Answer(data); err == nil && !json.Valid(answer) {
			t.Errorf("%s became %s", data, answer)
		}
		stream(t, string(data), carrier, []string{string(data), delta(`{"content":"a"}`), string(data)})
	})
}
