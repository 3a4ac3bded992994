package gateway_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
	"llm-gateway/gateway"
)

// TestRefusalsSayTheirModel: the line of a refused call says whose it was and for which model, whatever refused
// it, once that is known; and a model that nobody knows is in no line.
func TestRefusalsSayTheirModel(t *testing.T) {
	t.Parallel()
	plain := chatBody("sim-small", "x", "")
	for name, c := range map[string]struct {
		path, body string
		status     int
		model      string // in the line; "" = none
		o          options
		before     func(t *testing.T, e *env)
	}{
		"a rate limit": {chatPath, plain, 429, "sim-small", options{limits: limitsOf(t, domain.Quotas{domain.RequestsHour: 1})}, asked},
		"no slot":      {chatPath, plain, 503, "sim-small", options{inFlight: gateway.InFlight{Most: 1}}, occupied},
		"no money":     {chatPath, plain, 402, "sim-small", options{balance: "0"}, nil},
		"frozen":       {chatPath, plain, 403, "sim-small", options{}, func(_ *testing.T, e *env) { e.get("lena", "/v1/models"); e.freeze("lena", true) }},
		"a circuit": {chatPath, plain, 503, "sim-small", options{failing: gateway.Resilience{Circuits: domain.CircuitRules{Failures: 1, Recovery: 1 << 40}}},
			func(_ *testing.T, e *env) { e.chat("lena", chatBody("sim-small", "sim:status=500", "")) }},
		"an alias, no money":       {chatPath, chatBody("short", "x", ""), 402, "sim-small", options{balance: "0", routing: gateway.Routing{Aliases: map[string]string{"short": "sim-small"}}}, nil},
		"by its full name":         {chatPath, chatBody("simulated/sim-small", "x", ""), 402, "sim-small", options{balance: "0"}, nil},
		"in a path":                {"/v1beta/models/sim-small:generateContent", `{"contents":[{"parts":[{"text":"x"}]}]}`, 402, "sim-small", options{balance: "0"}, nil},
		"not set up":               {chatPath, chatBody("gpt-4o-mini", "x", ""), 503, "gpt-4o-mini", options{}, nil},
		"another endpoint's":       {"/v1/embeddings", `{"model":"sim-small","input":"x"}`, 400, "sim-small", options{}, nil},
		"somebody's file":          {chatPath, `{"model":"sim-small","messages":[{"role":"user","content":[{"type":"file","file":{"file_id":"file-1"}}]}]}`, 400, "sim-small", options{}, nil},
		"a wrong field":            {chatPath, `{"n":-1,"model":"sim-small","messages":[{"role":"user","content":"x"}]}`, 400, "sim-small", options{}, nil},
		"a wrong field, unknown":   {chatPath, `{"n":-1,"model":"hostile-words","messages":[{"role":"user","content":"x"}]}`, 400, "", options{}, nil},
		"a wrong field, no model":  {chatPath, `{"n":-1,"model":7,"messages":[]}`, 400, "", options{}, nil},
		"in a path, and malformed": {"/v1beta/models/sim-small:generateContent", `{`, 400, "sim-small", options{}, nil},
		"an estimate":              {"/billing/estimate", chatBody("gpt-4o-mini", "x", ""), 503, "gpt-4o-mini", options{}, nil},
		"unknown":                  {chatPath, chatBody("hostile-words", "x", ""), 404, "", options{}, nil},
		"unknown, in a path":       {"/v1beta/models/hostile-words:generateContent", `{"contents":[{"parts":[{"text":"x"}]}]}`, 404, "", options{}, nil},
		"malformed":                {chatPath, `{"model":"sim-small",`, 400, "", options{}, nil},
	} {
		e := start(t, c.o)
		if c.before != nil {
			c.before(t, e)
		}
		r := e.request(http.MethodPost, "lena", c.path, c.body)
		r.Header.Set("x-request-id", "refused-one")
		if a := e.do(r); a.status != c.status {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		var line string
		for one := range strings.Lines(e.logs.String()) {
			if gjson.Get(one, "request_id").Str == "refused-one" {
				line += one
			}
		}
		if got := gjson.Get(line, "model"); got.Str != c.model || got.Exists() != (c.model != "") || gjson.Get(line, "user_id").Str != "lena" || strings.Count(line, `"model"`) > 1 {
			t.Errorf("%s: %s", name, line)
		}
		if strings.Contains(e.logs.String(), "hostile-words") {
			t.Errorf("%s: %s", name, e.logs)
		}
	}
}

// asked uses up a limit of one request.
func asked(_ *testing.T, e *env) { e.chat("lena", chatBody("sim-small", "x", "")) }

// occupied takes a slot, until the test ends.
func occupied(t *testing.T, e *env) {
	leave, err := gateway.SlotsOf(e.gw).Enter(t.Context(), "somebody")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(leave)
}
