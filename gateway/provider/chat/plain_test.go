package chat

import (
	"encoding/json"
	"testing"
)

func TestPlain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, body, want string }{
		{"nothing to do", `{ "model":"m", "messages":[{"role":"user","content":"x"}],"x":1e5}`, `{"model":"m","messages":[{"role":"user","content":"x"}],"x":1e5}`},
		{"parameters", `{"top_k":5,"thinking":{},"extra_body":{},"reasoning_effort":"low","messages":[]}`, `{"messages":[]}`},
		{"a message", `{"messages":[{"role":"assistant","thinking_blocks":[{}],"reasoning_content":"r","extra_content":{},"cache_control":{},"content":null}]}`,
			`{"messages":[{"role":"assistant","content":null}]}`},
		{"parts and calls", `{"messages":[{"content":[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}},7],"tool_calls":[{"id":"1","extra_content":{"google":{}}}]}]}`,
			`{"messages":[{"content":[{"type":"text","text":"a"},7],"tool_calls":[{"id":"1"}]}]}`},
		{"tools, but not their schemas", `{"tools":[{"cache_control":{},"function":{"name":"f","cache_control":{},"parameters":{"properties":{"cache_control":{},"top_k":{}}}}}]}`,
			`{"tools":[{"function":{"name":"f","parameters":{"properties":{"cache_control":{},"top_k":{}}}}}]}`},
		{"names with escapes", `{"thin\u006bing":{},"messages":"none"}`, `{"messages":"none"}`},
	} {
		if got := string(Plain([]byte(c.body), "reasoning_effort")); got != c.want || !json.Valid([]byte(got)) {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
