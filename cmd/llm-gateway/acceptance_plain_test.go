package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"llm-gateway/gateway"
	"llm-gateway/migrations/pgtest"
)

// TestPlainGateway: with BILLING_ENABLED=false every API is served in the same flow, without a ledger, which
// the process says at its start, in /health and in every answer.
func TestPlainGateway(t *testing.T) {
	t.Parallel()
	database := pgtest.URL(t)
	key := parsed[keyOut](t, []string{"DATABASE_URL=" + database}, "key", "create", "--account", "zoe").Key
	cmd := command(t.Context(), t, []string{"HOST=127.0.0.1", "PORT=0", "JWT_SECRET_KEY=" + productionSecret, "BILLING_ENABLED=false", "ENVIRONMENT=production", "SIMULATED_PROVIDER=on"}, "serve")
	s, client, token := launchCommand(t, cmd).ready(), newClient(t), signed(t, jwt.SigningMethodHS256, []byte(productionSecret), "somebody", "", time.Hour)
	if text := s.stdout.String(); !strings.Contains(text, "NOTHING IS BILLED") {
		t.Errorf("the start does not warn:\n%s", text)
	}
	for path, body := range map[string]string{
		"/v1/chat/completions":        chatBody(flatModel, "hello", false, ""),
		"/v1/chat/completions/stream": chatBody(flatModel, "hello", true, ""),
		"/v1/messages":                `{"model":"` + flatModel + `","max_tokens":20,"messages":[{"role":"user","content":"hello"}]}`,
		"/v1/responses":               `{"model":"` + flatModel + `","input":"hello"}`,
		"/v1beta/models/" + strings.ReplaceAll(flatModel, "/", "%2F") + ":generateContent": `{"contents":[{"parts":[{"text":"hello"}]}]}`,
	} {
		r := post(t.Context(), client, s.url+path, token, body)
		if r.status != http.StatusOK || r.err != nil || r.header.Get("x-billing") != "disabled" || r.request == "" || r.position != "" {
			t.Errorf("%s: %v %v", path, &r, r.header)
		}
	}
	if r := chat(t.Context(), client, s.url, token, chatBody("no-such-model", "x", false, "")); r.status != http.StatusNotFound || r.header.Get("x-billing") != "disabled" {
		t.Errorf("an unknown model: %v", &r)
	}
	admin := signed(t, jwt.SigningMethodHS256, []byte(productionSecret), "operator", gateway.RoleAdmin, time.Hour)
	for _, path := range []string{"/billing/balance", "/billing/transactions", "/admin/accounts/somebody"} {
		if status, body := fetch(t, client, s.url+path, admin); status != http.StatusNotFound || !strings.Contains(body, `"billing_disabled"`) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, body := fetch(t, client, s.url+"/health", ""); status != http.StatusOK || !strings.Contains(body, `"billing":false`) {
		t.Errorf("/health: %d %s", status, body)
	}
	if status, body := fetch(t, client, s.url+"/ready", ""); status != http.StatusOK || body != `{"status":"ready"}` {
		t.Errorf("/ready: %d %s", status, body)
	}
	if r := chat(t.Context(), client, s.url, key, chatBody(flatModel, "x", false, "")); r.status != http.StatusUnauthorized {
		t.Errorf("an API key without a database: %v", &r)
	}
	if _, err := os.Stat(filepath.Join(cmd.Dir, "data", "postgres")); err == nil {
		t.Error("a Postgres was made")
	}
	s.stop()

	keyed := startServe(t, "BILLING_ENABLED=false", "DATABASE_URL="+database)
	if r := chat(t.Context(), client, keyed.url, key, chatBody(flatModel, "x", false, "")); r.status != http.StatusOK {
		t.Errorf("an API key: %v", &r)
	}
	keyed.stop()
	if n := countRows(t, database, `SELECT count(*) FROM ledger_events`); n != 0 {
		t.Errorf("there are %d events", n)
	}
}
