package gateway_test

import (
	"net/http"
	"strings"
	"testing"
)

// TestGoogleStreamIsAllData: Google's client for Python takes every line of a stream for JSON, comments too.
func TestGoogleStreamIsAllData(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	for _, key := range []string{"", "once", "once"} { // the last is a repeat, which is told from what was kept
		path, body := askGenerate("sim-small", "sim:tokens=5", 0, true)
		r := e.request(http.MethodPost, "gerda", path, body)
		if key != "" {
			r.Header.Set("Idempotency-Key", key)
		}
		a, lines := e.do(r), 0
		for line := range strings.Lines(a.body) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "data: {") {
				t.Errorf("key %q: %q", key, line)
			}
			lines++
		}
		if a.status != http.StatusOK || lines < 4 || streamedGenerate(t, "google", a.body).finish != "STOP" {
			t.Errorf("key %q: %d %s", key, a.status, a.body)
		}
	}
}

// TestOwnForms: what the models' lists and their errors look like is the client's own, by its headers.
func TestOwnForms(t *testing.T) {
	t.Parallel()
	e := start(t, options{array: true})
	for _, c := range []struct{ method, path, header, field, want string }{
		{"GET", "/v1/models", "anthropic-version", "data.#(id=sim-small).type", "model"},
		{"GET", "/v1/models/sim-small", "anthropic-version", "type", "model"},
		{"GET", "/v1/models/nothing", "anthropic-version", "error.type", "not_found_error"},
		{"GET", "/v1/models", "x-goog-api-key", "models.#(displayName=sim-small).name", "models/sim-small"},
		{"GET", "/v1/models/sim-small", "x-goog-api-key", "name", "models/sim-small"},
		{"GET", "/v1/models/nothing", "x-goog-api-key", "error.status", "NOT_FOUND"},
		{"POST", "/v1/models/sim-small:generateContent", "x-goog-api-key", "candidates.0.finishReason", "STOP"},
		{"POST", "/v1/models/sim-small:countTokens", "x-goog-api-key", "totalTokens", "8"},
		{"POST", "/v1/models/nothing:generateContent", "x-goog-api-key", "error.status", "NOT_FOUND"},
		{"GET", "/v1/files", "anthropic-version", "error.type", "not_found_error"},
		{"GET", "/v1/files", "x-goog-api-key", "error.status", "NOT_FOUND"},
		{"GET", "/v1/files", "", "error.code", "unknown_url"},
		{"GET", "/v1/models/sim-small", "", "object", "model"},
		{"GET", "/v1/models/nothing", "", "error.code", "model_not_found"},
		{"GET", "/v1/models", "", "3.id", "sim-small"},
	} {
		r := e.request(c.method, "otto", c.path, map[string]string{"POST": `{"contents":[{"parts":[{"text":"hi"}]}]}`}[c.method])
		if c.header != "" {
			r.Header.Set(c.header, "2023-06-01")
		}
		if a := e.do(r); a.json(c.field).String() != c.want {
			t.Errorf("%s %s with %s: %d %s", c.method, c.path, c.header, a.status, a.body)
		}
	}
	for header, field := range map[string]string{"anthropic-version": "error.type", "x-goog-api-key": "error.status", "": "error.code"} {
		r := e.request(http.MethodGet, "", "/v1/models", "")
		if header != "" {
			r.Header.Set(header, "wrong")
		}
		want := map[string]string{"anthropic-version": "authentication_error", "x-goog-api-key": "UNAUTHENTICATED", "": "invalid_api_key"}[header]
		if a := e.do(r); a.status != http.StatusUnauthorized || a.json(field).Str != want {
			t.Errorf("without a token, with %q: %d %s", header, a.status, a.body)
		}
	}
}
