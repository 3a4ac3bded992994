package chatschema

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"llm-gateway/gateway/provider"
)

// TestSimulated: what the simulated provider answers is made here, so that the strict mode holds.
func TestSimulated(t *testing.T) {
	t.Parallel()
	tools := `,"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","required":["a"],"properties":{"a":{"type":"integer"}}}}}],"tool_choice":"required"`
	format := `,"response_format":{"type":"json_schema","json_schema":{"name":"s","strict":true,"schema":{"type":"object","required":["a"],"properties":{"a":{"type":"string"}},"additionalProperties":false}}}`
	calls := 0
	for _, more := range []string{``, `,"n":3`, `,"max_completion_tokens":2`, tools, tools + `,"n":2`, format, `,"logprobs":true,"top_logprobs":2`, `,"service_tier":"flex"`} {
		for _, prompt := range []string{"Hello", "sim:tokens=40", "sim:reasoning=7 sim:cached=3", "sim:tokens=0"} {
			body := fmt.Sprintf(`{"model":"sim-small","messages":[{"role":"user","content":%q}]%s`, prompt, more)
			whole := simulated(t, body+"}")
			if err := StrictCompletion([]byte(whole)); err != nil {
				t.Errorf("%s: %v", body, err)
			}
			calls += strings.Count(whole, `"tool_calls":[{`)
			for _, options := range []string{"", `,"stream_options":{"include_usage":true}`} {
				if err := StrictStream(dataOf(simulated(t, body+`,"stream":true`+options+"}"))); err != nil {
					t.Errorf("%s, streamed: %v", body, err)
				}
			}
		}
	}
	if calls == 0 {
		t.Error("no answer has a tool call")
	}
}

func simulated(t testing.TB, body string) string {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/chat/completions", strings.NewReader(body))
	w := httptest.NewRecorder()
	if provider.Handler(provider.NewSimulated()).ServeHTTP(w, r); w.Code != http.StatusOK {
		t.Fatalf("%s: %d %s", body, w.Code, w.Body)
	}
	return w.Body.String()
}
