package responses

import (
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/provider/chat/chattest"
)

const (
	testID  = "0a1b2c3d"
	created = 1700000000
)

// foreignOf is a request that can be carried.
func foreignOf(t *testing.T, body string) chat.Foreign {
	t.Helper()
	f, err := Foreign([]byte(body), testID, created)
	if err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return f
}

func TestForeign(t *testing.T) {
	_, cases := chattest.Cases(t, "testdata/foreign.txt")
	for _, c := range cases {
		f, err := Foreign([]byte(c.Request), testID, created)
		if err != nil {
			if got := refused(t, err); got != c.Want {
				t.Errorf("%s: %s, want %s", c.Name, err, c.Want)
			}
			continue
		}
		if got := string(f.Chat()); got != c.Want {
			t.Errorf("%s:\n got %s\nwant %s", c.Name, got, c.Want)
		}
		if _, err := chat.Parse(f.Chat()); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
	}
}

// TestEcho holds the answer against the schema: every field is there, and repeats the request.
func TestEcho(t *testing.T) {
	const completion = `{"id":"x","object":"chat.completion","created":1,"model":"served","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}`
	for request, want := range map[string]string{
		`{"model":"m","input":"q"}`: `{"id":"resp_0a1b2c3d","object":"response","created_at":1700000000,"status":"completed","background":false,
			"error":null,"incomplete_details":null,"instructions":null,"max_output_tokens":null,"max_tool_calls":null,"model":"served",
			"output":[{"id":"msg_0a1b2c3d_0","type":"message","status":"completed","content":[{"type":"output_text","annotations":[],"logprobs":[],"text":"hi"}],"role":"assistant"}],
			"parallel_tool_calls":true,"previous_response_id":null,"prompt_cache_key":null,"reasoning":{"effort":null,"summary":null},
			"safety_identifier":null,"service_tier":null,"store":false,"temperature":null,"text":{"format":{"type":"text"},"verbosity":"medium"},
			"tool_choice":"auto","tools":[],"top_logprobs":0,"top_p":null,"truncation":"disabled","usage":null,"user":null,"metadata":{}}`,
		`{"model":"m","input":"q","instructions":"i","max_output_tokens":5,"max_tool_calls":2,"parallel_tool_calls":false,"prompt_cache_key":"k",
			"reasoning":{"effort":"low","summary":"auto"},"safety_identifier":"s","service_tier":"flex","store":true,"temperature":1,"text":{"format":{"type":"json_object"},"verbosity":"low"},
			"tool_choice":"required","tools":[{"type":"function","name":"f"}],"top_logprobs":1,"top_p":0.5,"truncation":"auto","user":"u","metadata":{"a":"b"}}`: `{
			"id":"resp_0a1b2c3d","object":"response","created_at":1700000000,"status":"completed","background":false,
			"error":null,"incomplete_details":null,"instructions":"i","max_output_tokens":5,"max_tool_calls":2,"model":"served",
			"output":[{"id":"msg_0a1b2c3d_0","type":"message","status":"completed","content":[{"type":"output_text","annotations":[],"logprobs":[],"text":"hi"}],"role":"assistant"}],
			"parallel_tool_calls":false,"previous_response_id":null,"prompt_cache_key":"k","reasoning":{"effort":"low","summary":"auto"},
			"safety_identifier":"s","service_tier":null,"store":false,"temperature":1,"text":{"format":{"type":"json_object"},"verbosity":"low"},
			"tool_choice":"required","tools":[{"type":"function","name":"f","description":null,"parameters":null,"strict":null}],"top_logprobs":1,"top_p":0.5,
			"truncation":"disabled","usage":null,"user":"u","metadata":{"a":"b"}}`,
	} {
		got, err := foreignOf(t, request).Answer([]byte(completion))
		if err != nil || !chattest.SameJSON(t, string(got), want) {
			t.Errorf("%s: %v\n got %s\nwant %s", request, err, got, want)
		}
	}
}

// TestOwnBody: what is sent to OpenAI differs only where it must.
func TestOwnBody(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"the name", `{"model":"alias","input":"q" , "x":1}`, `{"model":"gpt-5","input":"q" , "x":1}`},
		{"a search", `{"model":"a","input":"q","tools":[{"type":"web_search"}]}`, `{"model":"gpt-5","input":"q","tools":[{"type":"web_search"}],"max_tool_calls":10}`},
		{"a search without a bound", `{"model":"a","input":"q","tools":[{"type":"web_search"}],"max_tool_calls":null}`, `{"model":"gpt-5","input":"q","tools":[{"type":"web_search"}],"max_tool_calls":10}`},
		{"a search with a bound", `{"model":"a","input":"q","tools":[{"type":"web_search"}],"max_tool_calls":2}`, `{"model":"gpt-5","input":"q","tools":[{"type":"web_search"}],"max_tool_calls":2}`},
		{"reasoning from here", `{"model":"a","input":[{"type":"reasoning","encrypted_content":"llm-gateway.1.e30"},{"role":"user","content":"q"},{"type":"reasoning","encrypted_content":"gAAA"},{"type":"reasoning","encrypted_content":"llm-gateway.1."}]}`,
			`{"model":"gpt-5","input":[{"role":"user","content":"q"},{"type":"reasoning","encrypted_content":"gAAA"}]}`},
		{"talk of it", `{"model":"a","input":[ {"role":"user","content":"llm-gateway.1."} ]}`, `{"model":"gpt-5","input":[ {"role":"user","content":"llm-gateway.1."} ]}`},
	} {
		x, err := Own([]byte(c.body), "gpt-5")
		if err != nil || string(x.Body()) != c.want {
			t.Errorf("%s: %v\n got %s\nwant %s", c.name, err, x.Body(), c.want)
		}
	}
}

func TestError(t *testing.T) {
	got := Error(429, "rate_limit_error", "rate_limit_exceeded", "Slow down.", "")
	if want := `{"error":{"message":"Slow down.","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded"}}`; string(got) != want {
		t.Errorf("%s", got)
	}
}

// TestNoCompletion: what is no chat completion becomes an error, not an empty answer.
func TestNoCompletion(t *testing.T) {
	f := foreignOf(t, `{"model":"m","input":"q"}`)
	for _, body := range []string{``, `{`, `[]`, `{}`, `{"choices":[]}`, `{"error":{"message":"x"}}`} {
		if got, err := f.Answer([]byte(body)); err == nil {
			t.Errorf("%s became %s", body, got)
		}
	}
	if gjson.GetBytes(f.Chat(), "model").Str != "m" {
		t.Errorf("%s", f.Chat())
	}
}
