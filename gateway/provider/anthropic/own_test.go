package anthropic

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/provider/chat/chattest"
)

func ownOf(t testing.TB, body string) chat.Exchange {
	t.Helper()
	x, err := Own([]byte(body), "m")
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestOwnBody(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"nothing to change", `{ "model": "m", "messages": [{"role":"user","content":"<q>"}], "x": 1.50 }`, ""},
		{"the name", `{"messages":[],"model":"alias","x":[1, 2]}`, `{"messages":[],"model":"m","x":[1, 2]}`},
		{"no name", `{"messages":[]}`, `{"messages":[],"model":"m"}`},
		{"searches without a limit", `{"model":"m","tools":[{"name":"a"},{"type":"web_search_20250305","name":"web_search"},{"type":"web_search_20260318","max_uses":null}]}`,
			`{"model":"m","tools":[{"name":"a"},{"type":"web_search_20250305","name":"web_search","max_uses":10},{"type":"web_search_20260318","max_uses":10}]}`},
		{"searches with a limit", `{"model":"m","tools":[{"type":"web_search_20250305","max_uses":3}]}`, ""},
		{"signed thinking", `{"model":"m","messages":[{"role":"assistant","content":[{"type":"thinking","thinking":"","signature":"s"},{"type":"redacted_thinking","data":"d"}]}]}`, ""},
		{"thinking of others", `{"model":"m","messages":[{"role":"user","content":"q"},{"role":"assistant","content":[{"type":"thinking","thinking":"t","signature":""}, {"type":"text", "text":"a"},{"type":"thinking","thinking":"","signature":"llm-gateway:google-thought-signature:call:C"},{"type":"tool_use","id":"i","name":"n","input":{}}],"x":1},{"role":"user","content":"q"}]}`,
			`{"model":"m","messages":[{"role":"user","content":"q"},{"role":"assistant","content":[{"type":"text", "text":"a"},{"type":"tool_use","id":"i","name":"n","input":{}}],"x":1},{"role":"user","content":"q"}]}`},
		{"nothing but thinking of others", `{"model":"m","messages":[{"role":"user","content":"q"},{"role":"assistant","content":[{"type":"thinking","thinking":"t"}]},{"role":"user","content":"q"}]}`,
			`{"model":"m","messages":[{"role":"user","content":"q"},{"role":"user","content":"q"}]}`},
		{"what a user calls thinking", `{"model":"m","messages":[{"role":"user","content":[{"type":"thinking","thinking":"t"}]}]}`, ""},
		{"citations of others", `{"model":"m","messages":[{"role":"assistant","content":[{"type":"text","text":"a","citations":[{"type":"web_search_result_location","url":"u","encrypted_index":""}]},{"type":"text","text":"b","citations":[{"type":"web_search_result_location","encrypted_index":"e"},{"type":"char_location"}]}]}]}`,
			`{"model":"m","messages":[{"role":"assistant","content":[{"type":"text","text":"a"},{"type":"text","text":"b","citations":[{"type":"web_search_result_location","encrypted_index":"e"},{"type":"char_location"}]}]}]}`},
	} {
		if c.want == "" {
			c.want = c.body
		}
		if got := string(ownOf(t, c.body).Body()); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}

// namesOf are the names of a stream's events.
func namesOf(body string) (names []string) {
	for line := range strings.Lines(body) {
		if name, ok := strings.CutPrefix(line, "event: "); ok {
			names = append(names, strings.TrimRight(name, "\r\n"))
		}
	}
	return names
}

func TestOwnRecordings(t *testing.T) {
	for _, r := range chattest.Recorded(t, "messages", 35) {
		switch {
		case !r.OK():
			var failed *chat.Failed
			if _, err := ownOf(t, `{"model":"m"}`).Answer([]byte(r.Body)); !errors.As(err, &failed) {
				t.Errorf("%s: %v", r.Name, err)
			}
		case r.Stream:
			checkOwnStream(t, r)
		default:
			got, err := ownOf(t, `{"model":"m"}`).Answer([]byte(r.Body))
			if err != nil || string(got.Body) != r.Body {
				t.Errorf("%s: %v", r.Name, err)
				continue
			}
			checkOwn(t, r, got.Report, got.Text())
		}
	}
}

func checkOwnStream(t *testing.T, r chattest.Step) {
	t.Helper()
	names, events := namesOf(r.Body), r.Events()
	reader, text := ownOf(t, `{"model":"m"}`).Reader(), ""
	for i, event := range events {
		data := []byte(event)
		chunks, done, err := reader.Event(data, nil)
		if err != nil || len(chunks) != 1 || done != (i == len(events)-1) {
			t.Fatalf("%s, event %d: %d chunks, %v, %v", r.Name, i, len(chunks), done, err)
		}
		for j := range data {
			data[j] = 'x' // it must not be kept
		}
		c := chunks[0]
		if string(c.Data) != event || c.Event != names[i] || c.Last != done || c.UsageOnly {
			t.Errorf("%s: %s became %s %v %s", r.Name, event, c.Event, c.Last, c.Data)
		}
		text += string(c.Text)
	}
	checkOwn(t, r, reader.Report(), text)
}

// checkOwn holds what was read against what the recording is known to mean.
func checkOwn(t *testing.T, r chattest.Step, got chat.Report, text string) {
	t.Helper()
	use := r.Expect.Get("usage")
	if got.Model != r.Expect.Get("model").Str || got.FinishReason != r.Expect.Get("finish_reason").Str || got.UpstreamID == "" || got.Partial || got.Usage == nil {
		t.Errorf("%s: %+v, want %s", r.Name, got, r.Expect.Raw)
		return
	}
	u := *got.Usage
	if len(got.Iterations) > 0 { // all that served, of which the recording expects the last
		u = got.Iterations[len(got.Iterations)-1].Usage
	}
	if u.Input != use.Get("prompt_tokens").Int() || u.Output != use.Get("completion_tokens").Int() || u.CachedInput != use.Get("cached_tokens").Int() ||
		u.WebSearch != use.Get("web_search_requests").Int() || u.CacheWrite5m+u.CacheWrite1h != use.Get("cache_write_tokens").Int() {
		t.Errorf("%s: %+v, want %s", r.Name, u, use.Raw)
	}
	for word := range strings.FieldsSeq(r.Expect.Get("text").Str) {
		if !strings.Contains(text, word) {
			t.Errorf("%s: %q is not in %q", r.Name, word, text)
		}
	}
	for _, call := range r.Expect.Get("tool_calls").Array() {
		if !strings.Contains(text, call.Get("name").Str) {
			t.Errorf("%s: no call of %s in %q", r.Name, call.Get("name").Str, text)
		}
	}
}

// TestOwnPrefixes: a stream that was cut is not complete, and what had been counted by then is told.
func TestOwnPrefixes(t *testing.T) {
	for _, r := range chattest.Recorded(t, "messages", 35) {
		if !r.Stream {
			continue
		}
		events := r.Events()
		for n := range events {
			reader := ownOf(t, `{"model":"m"}`).Reader()
			counted := false
			for _, event := range events[:n] {
				if _, done, err := reader.Event([]byte(event), nil); done || err != nil {
					t.Fatalf("%s: %v, %v", r.Name, done, err)
				}
				switch gjson.Get(event, "type").Str {
				case "message_start":
					counted = false
				case "message_delta":
					counted = true
				}
			}
			if chunks, complete := reader.End(nil); complete || len(chunks) > 0 {
				t.Errorf("%s: %d events are complete", r.Name, n)
			}
			if report := reader.Report(); report.Partial == counted || n > 0 && (report.Usage == nil || report.Model == "") {
				t.Errorf("%s: after %d events: %+v", r.Name, n, report)
			}
		}
	}
}

func TestOwnErrors(t *testing.T) {
	x := ownOf(t, `{"model":"m"}`)
	for _, wrong := range []string{"", "{", "7", "{}", `{"role":"assistant"}`, `{"role":"user","content":[]}`} {
		if _, err := x.Answer([]byte(wrong)); err == nil {
			t.Errorf("%q is an answer", wrong)
		}
	}
	for event, code := range map[string]string{
		`{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`: "overloaded_error",
		`{"type":"error"}`: "",
	} {
		_, done, err := x.Reader().Event([]byte(event), nil)
		var failed *chat.Failed
		if done || !errors.As(err, &failed) || failed.Code != code {
			t.Errorf("%s: %v, %v", event, done, err)
		}
	}
	if _, _, err := x.Reader().Event([]byte(`{"type":`), nil); err == nil {
		t.Error("half an event is one")
	}
}

// TestOwnOddEvents: what nobody here knows is passed on, and cannot break the frame that it stands in.
func TestOwnOddEvents(t *testing.T) {
	for _, c := range []struct{ event, name, data string }{
		{`{"type":"news","x":1}`, "news", `{"type":"news","x":1}`},
		{`{"type":"a\nb"}`, "", `{"type":"a\nb"}`},
		{"{\"type\":\n\"ping\"}", "ping", `{"type":"ping"}`},
		{`{}`, "", `{}`},
	} {
		chunks, done, err := ownOf(t, `{"model":"m"}`).Reader().Event([]byte(c.event), nil)
		if err != nil || done || len(chunks) != 1 || chunks[0].Event != c.name || string(chunks[0].Data) != c.data {
			t.Errorf("%s: %v %+v", c.event, err, chunks)
		}
	}
}

// TestOwnIterations: several models that served are told apart, and summed.
func TestOwnIterations(t *testing.T) {
	const answer = `{"role":"assistant","model":"a","content":[],"stop_reason":"end_turn","usage":{"input_tokens":9,"output_tokens":5,
		"iterations":[{"model":"a","input_tokens":8,"output_tokens":1},{"model":"b","input_tokens":9,"output_tokens":5}]}}`
	got, err := ownOf(t, `{"model":"m"}`).Answer([]byte(answer))
	if err != nil || len(got.Report.Iterations) != 2 || *got.Report.Usage != (domain.Usage{Input: 17, Output: 6}) {
		t.Errorf("%v, %+v", err, got)
	}
}

// FuzzOwn takes any body and events: nothing panics, the body stays JSON, and events pass as they are.
func FuzzOwn(f *testing.F) {
	f.Add([]byte(`{"model":"a","messages":[{"role":"assistant","content":[{"type":"thinking"},{"type":"text","citations":[{"type":"web_search_result_location"}]}]}],"tools":[{"type":"web_search_1"}]}`), []byte(`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":1}}`))
	f.Add([]byte(`{"tools":{"0":{"type":"web_search_"}},"messages":{"a":{"role":"assistant","content":"x"}}}`), []byte(`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}`))
	f.Fuzz(func(t *testing.T, body, event []byte) {
		if !json.Valid(body) || !gjson.ParseBytes(body).IsObject() {
			return
		}
		x, err := Own(body, "m")
		if err == nil && !json.Valid(x.Body()) {
			t.Fatalf("%s became %s", body, x.Body())
		}
		if err != nil {
			return
		}
		if _, err := x.Answer(event); err == nil && !json.Valid(event) {
			t.Fatalf("%s is an answer", event)
		}
		r := x.Reader()
		chunks, _, err := r.Event(event, nil)
		if err == nil && !bytes.ContainsAny(event, "\r\n") && (len(chunks) != 1 || !bytes.Equal(chunks[0].Data, event)) {
			t.Fatalf("%s became %+v", event, chunks)
		}
		r.Report()
	})
}
