package gemini

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/provider/chat/chattest"
)

func TestTranslate(t *testing.T) {
	for _, row := range chattest.Table(t, "testdata/requests.json") {
		name := row.Get("name").Str
		x, err := translate(row.Get("request").Raw, row.Get("model").Str)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !chattest.SameJSON(t, string(x.Body()), row.Get("want").Raw) {
			t.Errorf("%s:\n%s\nwant\n%s", name, x.Body(), row.Get("want").Raw)
		}
		// Twice the same: caches at Google live on it.
		if again, _ := translate(row.Get("request").Raw, row.Get("model").Str); !bytes.Equal(again.Body(), x.Body()) {
			t.Errorf("%s: not the same again: %s", name, again.Body())
		}
	}
}

// with is the least request with fields added, or put in the place of its own.
func with(t *testing.T, add gjson.Result) string {
	t.Helper()
	body, more := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	if err := json.Unmarshal([]byte(`{"model":"m","messages":[{"role":"user","content":"hi"}]}`), &body); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(add.Raw), &more); err != nil {
		t.Fatal(err)
	}
	maps.Copy(body, more)
	return string(chat.Encode(body))
}

func TestSettings(t *testing.T) {
	for _, row := range chattest.Table(t, "testdata/settings.json") {
		x, err := translate(with(t, row.Get("add")), row.Get("model").Str)
		if err != nil {
			t.Errorf("%s: %v", row.Raw, err)
			continue
		}
		got := gjson.GetBytes(x.Body(), row.Get("path").Str).Raw
		if got == "" {
			got = "null"
		}
		if !chattest.SameJSON(t, got, row.Get("want").Raw) {
			t.Errorf("%s\ngot %s", row.Raw, got)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, row := range chattest.Table(t, "testdata/refusals.json") {
		model := cmp.Or(row.Get("model").Str, "gemini-2.5-flash")
		_, err := translate(with(t, row.Get("add")), model)
		var refused *chat.Unsupported
		if !errors.As(err, &refused) || refused.Param != row.Get("param").Str || refused.Invalid != row.Get("invalid").Bool() || refused.Message == "" {
			t.Errorf("%s\ngot %#v", row.Raw, err)
		}
	}
}

// TestDepth: what no JSON writer of Go's takes is refused where it stands, and panics nowhere.
func TestDepth(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 11000) + "1" + strings.Repeat("}", 11000)
	for _, body := range []string{
		`{"messages":[{"role":"user","content":"q"}],"tools":[{"type":"function","function":{"name":"f","parameters":` + deep + `}}]}`,
		`{"messages":[{"role":"user","content":"q"}],"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":` + deep + `}}}`,
		`{"messages":[{"role":"assistant","tool_calls":[{"id":"a","function":{"name":"f","arguments":` + deep + `}}]}]}`,
	} {
		var refused *chat.Unsupported
		if _, err := translate(body, "gemini-2.5-flash"); !errors.As(err, &refused) {
			t.Errorf("%.60s: %v", body, err)
		}
	}
}

func TestMaxOutput(t *testing.T) {
	r, err := chat.Parse([]byte(`{"messages":[{"role":"user","content":"hi"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	x, err := Translate(r, Target{Model: "gemini-2.5-flash"})
	if err != nil || gjson.GetBytes(x.Body(), "generationConfig").Raw != "{}" {
		t.Errorf("%v, %s", err, x.Body())
	}
}

func FuzzTranslate(f *testing.F) {
	f.Add(`{"messages":[{"role":"user","content":"hi"}]}`, "gemini-3-flash")
	f.Add(`{"messages":[{"role":"assistant","tool_calls":[{"id":"a","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"a","content":"{\"a\":1}"}],"tools":[{"type":"function","function":{"name":"f","parameters":{}}}],"tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"auto","tools":[{"function":{"name":"f"}}]}}}`, "gemini-2.5-pro")
	f.Add(`{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:;base64,"}},{"type":"file","file":{}}]}],"thinking":{"type":"enabled","budget_tokens":1e2},"extra_body":{"google":{"thinking_config":{"thinking_budget":0.5}}}}`, "gemini-")
	f.Add(`{"messages":[],"reasoning_effort":"high","n":8,"top_k":1e400,"web_search_options":[1],"response_format":{"type":"json_schema","json_schema":{}}}`, "models/gemini-3.1-pro")
	f.Fuzz(func(t *testing.T, body, model string) {
		if !json.Valid([]byte(body)) || !gjson.Parse(body).IsObject() {
			return
		}
		x, err := translate(body, model)
		var refused *chat.Unsupported
		if err != nil {
			if !errors.As(err, &refused) || refused.Param == "" {
				t.Fatalf("%v", err)
			}
			return
		}
		if !json.Valid(x.Body()) || len(gjson.GetBytes(x.Body(), "contents").Array()) == 0 {
			t.Fatalf("%s", x.Body())
		}
	})
}
