package anthropic

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/provider/chat/chattest"
)

var update = flag.Bool("update", false, "write what is sent into testdata/requests.txt, to be read before it is believed")

func parse(t *testing.T, body string) *chat.Request {
	t.Helper()
	if !json.Valid([]byte(body)) {
		t.Fatalf("not JSON: %s", body)
	}
	r, err := chat.Parse([]byte(body))
	if err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return r
}

func target(model string) Target { return Target{Model: model, MaxOutput: 64000, Created: 1700000000} }

// modelIn is the model in a case's name, which is "name, model".
func modelIn(t *testing.T, c chattest.Case) string {
	t.Helper()
	_, model, _ := strings.Cut(c.Name, ", ")
	if model == "" {
		t.Fatalf("case %q is not whole", c.Name)
	}
	return model
}

func TestRequests(t *testing.T) {
	const file = "testdata/requests.txt"
	head, cases := chattest.Cases(t, file)
	var out strings.Builder
	out.WriteString(head)
	for _, c := range cases {
		x, err := Translate(parse(t, c.Request), target(modelIn(t, c)))
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		if got := string(x.Body()); got != c.Want && !*update {
			t.Errorf("%s:\n got %s\nwant %s", c.Name, got, c.Want)
		}
		out.WriteString("\n= " + c.Name + "\n" + c.Request + "\n->\n" + string(x.Body()) + "\n")
	}
	if *update {
		if err := os.WriteFile(file, []byte(out.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRefusals(t *testing.T) {
	_, cases := chattest.Cases(t, "testdata/refusals.txt")
	for _, c := range cases {
		_, err := Translate(parse(t, c.Request), target(modelIn(t, c)))
		var refused *chat.Unsupported
		if !errors.As(err, &refused) || refused.Param != c.Want || refused.Message == "" {
			t.Errorf("%s: %v, want a refusal of %s", c.Name, err, c.Want)
		}
	}
}

func TestNeedsMaximum(t *testing.T) {
	r := parse(t, `{"messages":[{"role":"user","content":"q"}]}`)
	_, err := Translate(r, Target{Model: "claude-haiku-4-5"})
	var refused *chat.Unsupported
	if !errors.As(err, &refused) || refused.Param != "max_completion_tokens" {
		t.Error(err)
	}
}

func TestModelOf(t *testing.T) {
	for name, want := range map[string]model{
		"claude-2.1":                         {"", 201},
		"claude-instant-1.2":                 {"instant", 102},
		"claude-3-haiku-20240307":            {"haiku", 300},
		"claude-3-5-sonnet-latest":           {"sonnet", 305},
		"claude-4-opus-20250514":             {"opus", 400},
		"claude-sonnet-4-0":                  {"sonnet", 400},
		"claude-opus-4-1-20250805":           {"opus", 401},
		"claude-haiku-4-5":                   {"haiku", 405},
		"anthropic.claude-opus-4-6-v1":       {"opus", 406},
		"claude-fable-5":                     {"fable", 500},
		"claude-mythos-preview":              {"mythos", newest},
		"claude-sonnet-4.5":                  {"sonnet", 405},
		"claude-3-7-sonnet-20250219":         {"sonnet", 307},
		"claude-sonnet-4-5-20250929-special": {"sonnet", 405},
	} {
		if got := modelOf(name); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

func TestClosed(t *testing.T) {
	for _, c := range []struct{ schema, want string }{
		{`{"type":"object","properties":{"a":{"type":"string"}}}`, `{"type":"object","properties":{"a":{"type":"string"}},"additionalProperties":false}`},
		{`{"type":["object","null"],"properties":{}}`, `{"type":["object","null"],"properties":{},"additionalProperties":false}`},
		{`{"type":"object","properties":{"a":{"type":"object"}},"additionalProperties":true}`, ""}, // both mean something
		{`{"type":"object"}`, ""},
		{`{"type":"array","items":{"type":"object","properties":{}}}`, `{"type":"array","items":{"type":"object","properties":{},"additionalProperties":false}}`},
		{`{"$defs":{"d":{"type":"object","properties":{}}},"$ref":"#/$defs/d"}`, `{"$defs":{"d":{"type":"object","properties":{},"additionalProperties":false}},"$ref":"#/$defs/d"}`},
		{`{"anyOf":[{"type":"object","properties":{}},{"type":"null"}]}`, `{"anyOf":[{"type":"object","properties":{},"additionalProperties":false},{"type":"null"}]}`},
		{`{"type":"object","properties":{},"anyOf":[{"required":["a"]}]}`, ""},
		{`{"allOf":[{"type":"object","properties":{}},{"type":"object","properties":{}}]}`, ""},
		{`{"type":"object","properties":{"b":{"not":{"type":"object","properties":{}}}}}`, ""},
		{`{"oneOf":[{"type":"object","properties":{}},{"type":"null"}]}`, ""}, // what answers to two of them is refused, while they are open
		{`{"type":"object","properties":{"a":{}},"required":["a","b"]}`, ""},  // nothing would be left
		{`{"type":"object","properties":{"properties":{"type":"string"},"items":{"type":"string"}}}`,
			`{"type":"object","properties":{"properties":{"type":"string"},"items":{"type":"string"}},"additionalProperties":false}`},
		{`{"items":true,"anyOf":[true]}`, ""},
		{strings.Repeat(`{"items":`, 70) + `{"type":"object","properties":{}}` + strings.Repeat(`}`, 70), ""},
	} {
		if c.want == "" {
			c.want = c.schema
		}
		if got := string(closed(json.RawMessage(c.schema))); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.schema, got, c.want)
		}
	}
}

// TestToolID holds the ids to what Anthropic takes, and apart.
func TestToolID(t *testing.T) {
	seen := map[string]string{}
	for _, id := range []string{"toolu_01", "call_a-b", "a.b", "a:b", "a b", "ä", "", "a_b", "\x00", "a.b"} {
		got := toolID(id)
		if !only(got, "-_") {
			t.Errorf("%q became %q", id, got)
		}
		if other, taken := seen[got]; taken && other != id {
			t.Errorf("%q and %q became %q", id, other, got)
		}
		seen[got] = id
	}
}

// FuzzTranslate takes any JSON: what comes of it is a refusal by name, or JSON that keeps Anthropic's rules.
func FuzzTranslate(f *testing.F) {
	for _, file := range []string{"testdata/requests.txt", "testdata/refusals.txt"} {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, block := range strings.Split(string(text), "\n= ")[1:] {
			first, rest, _ := strings.Cut(block, "\n")
			_, model, _ := strings.Cut(first, ", ")
			request, _, _ := strings.Cut(rest, "->")
			f.Add([]byte(request), model)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte, model string) {
		if !json.Valid(body) || !gjson.ParseBytes(body).IsObject() {
			return
		}
		r, err := chat.Parse(body)
		if err != nil {
			return
		}
		x, err := Translate(r, target(model))
		var refused *chat.Unsupported
		if err != nil {
			if !errors.As(err, &refused) || refused.Param == "" || refused.Message == "" {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		checkRules(t, x.Body())
	})
}

// checkRules holds a body to what Anthropic demands of every one.
func checkRules(t *testing.T, body []byte) {
	t.Helper()
	if !json.Valid(body) {
		t.Fatalf("not JSON: %s", body)
	}
	role := ""
	gjson.GetBytes(body, "messages").ForEach(func(_, m gjson.Result) bool {
		if m.Get("role").Str == role || m.Get("content.#").Int() == 0 {
			t.Fatalf("two messages of one role, or an empty one: %s", body)
		}
		role = m.Get("role").Str
		last := "tool_result"
		m.Get("content").ForEach(func(_, b gjson.Result) bool {
			kind := b.Get("type").Str
			if kind == "text" && strings.TrimSpace(b.Get("text").Str) == "" || kind == "tool_result" && last != kind ||
				kind == "tool_use" && (!only(b.Get("id").Str, "-_") || !b.Get("input").IsObject()) {
				t.Fatalf("a block that Anthropic refuses: %s in %s", b.Raw, body)
			}
			last = kind
			return true
		})
		return true
	})
	if budget := gjson.GetBytes(body, "thinking.budget_tokens").Int(); !gjson.GetBytes(body, "messages.0").Exists() || budget < 0 {
		t.Fatalf("no messages: %s", body)
	}
}
