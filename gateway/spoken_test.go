package gateway_test

import (
	"net/http"
	"testing"
)

// TestSpokenAPI asks for the paths that several APIs have, and for one that none has, as each API's clients
// do: Google's newer ones call the models below /v1, where everybody's are.
func TestSpokenAPI(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	const google, anthropic, ask = "x-goog-api-key", "anthropic-version", `{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}`
	for _, c := range []struct {
		header, method, path string
		status               int
		holds, want          string
	}{
		{"", "GET", "/v1/models", 200, "data.3.id", "sim-small"},
		{anthropic, "GET", "/v1/models", 200, "data.3.type", "model"},
		{google, "GET", "/v1/models", 200, "models.3.name", "models/sim-small"},
		{"", "GET", "/v1beta/models", 200, "models.3.name", "models/sim-small"},
		{"", "GET", "/v1/models/sim-small", 200, "object", "model"},
		{anthropic, "GET", "/v1/models/sim-small", 200, "type", "model"},
		{google, "GET", "/v1/models/sim-small", 200, "name", "models/sim-small"},
		{"", "GET", "/v1beta/models/sim-small", 200, "name", "models/sim-small"},
		{"", "GET", "/v1/models/none", 404, "error.code", "model_not_found"},
		{anthropic, "GET", "/v1/models/none", 404, "error.type", "not_found_error"},
		{google, "GET", "/v1/models/none", 404, "error.status", "NOT_FOUND"},
		{"", "GET", "/v1beta/models/none", 404, "error.status", "NOT_FOUND"},
		{"", "GET", "/v1/files", 404, "error.code", "unknown_url"},
		{anthropic, "GET", "/v1/files", 404, "error.type", "not_found_error"},
		{google, "GET", "/v1/files", 404, "error.status", "NOT_FOUND"},
		{google, "POST", "/v1/models/sim-small:generateContent", 200, "candidates.0.finishReason", "STOP"},
		{google, "POST", "/v1/models/sim-small:countTokens", 200, "totalTokens", ""},
		{google, "POST", "/v1/models/sim-small:none", 404, "error.status", "NOT_FOUND"},
		{google, "POST", "/v1/models/sim-small", 404, "error.status", "NOT_FOUND"},
	} {
		r := e.request(c.method, "vera", c.path, ask)
		if c.header != "" {
			r.Header.Set(c.header, "2026-10-21")
		}
		a := e.do(r)
		if got := a.json(c.holds); a.status != c.status || !got.Exists() || c.want != "" && got.String() != c.want {
			t.Errorf("%s %s with %q: %d %s", c.method, c.path, c.header, a.status, a.body)
		}
	}
	r := e.request(http.MethodGet, "", "/v1/models", "")
	r.Header.Set(google, "wrong")
	if a := e.do(r); a.status != 401 || a.json("error.status").Str != "UNAUTHENTICATED" {
		t.Errorf("a wrong key: %d %s", a.status, a.body)
	}
}
