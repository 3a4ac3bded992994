package main

import (
	"crypto/rand"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
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

// TestPlainParts: what is not money works without a ledger, too: limits and the response cache, in memory and in
// Redis; circuits; a key holds nothing; and every answer says that nothing is billed, whatever it is.
func TestPlainParts(t *testing.T) {
	t.Parallel()
	stores := map[string][]string{"memory": nil}
	if at := os.Getenv("REDIS_URL"); at != "" {
		stores["redis"] = []string{"REDIS_URL=" + at}
	}
	for store, env := range stores {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			s := startServe(t, append(env, "BILLING_ENABLED=false", "RATE_LIMIT_REQUESTS_PER_HOUR=3", "RESPONSE_CACHE=redis", "LOG_LEVEL=INFO", "HEALTH_CHECK_INTERVAL=200ms")...)
			client, token := newClient(t), tokenFor(t, "plain-"+rand.Text())
			for i, want := range []string{"miss", "hit", "hit"} {
				r := chat(t.Context(), client, s.url, token, chatBody(flatModel, "hello again", false, ""))
				if r.status != http.StatusOK || r.header.Get("x-cache") != want || r.header.Get("x-ratelimit-remaining-requests") != strconv.Itoa(2-i) || r.header.Get("x-billing") != "disabled" {
					t.Errorf("call %d: %v, %v", i, &r, r.header)
				}
			}
			refusedPlainly(t, s, client, token)
			watchedPlainly(t, s, client, store == "redis")
			again := tokenFor(t, "plain-"+rand.Text())
			first := askWithKey(t, client, s.url, again, "k", chatBody(flatModel, "once", false, ""))
			second := askWithKey(t, client, s.url, again, "k", chatBody(flatModel, "twice", false, ""))
			if first.status != http.StatusOK || second.status != http.StatusOK || second.replays != "" || first.body == second.body {
				t.Errorf("a key holds something: %+v, %+v", first, second)
			}
		})
	}
}

// refusedPlainly: what is refused says that nothing is billed, too.
func refusedPlainly(t *testing.T, s *served, client *http.Client, token string) {
	t.Helper()
	for path, c := range map[string]struct {
		token, body string
		status      int
	}{
		"/v1/chat/completions": {token, chatBody(flatModel, "one too many", false, ""), http.StatusTooManyRequests},
		"/v1/messages":         {"", "{}", http.StatusUnauthorized},
		"/v1/responses":        {token, "{", http.StatusBadRequest},
		"/nowhere":             {token, "{}", http.StatusNotFound},
	} {
		if r := post(t.Context(), client, s.url+path, c.token, c.body); r.status != c.status || r.header.Get("x-billing") != "disabled" {
			t.Errorf("%s: %v %v", path, &r, r.header)
		}
	}
}

// watchedPlainly: the metrics and the log tell of limits and hits.
func watchedPlainly(t *testing.T, s *served, client *http.Client, inRedis bool) {
	t.Helper()
	_, metrics := fetch(t, client, s.url+"/metrics", "")
	if shared := strings.Contains(metrics, `rate_limit_requests_total{result="shared",scope="store"}`); shared != inRedis {
		t.Errorf("limits are shared: %t", shared)
	}
	if !containsAll(metrics, `rate_limit_requests_total{result="refused",scope="account"} 1`, `llm_response_cache_total{result="hit"} 2`) {
		t.Errorf("the metrics are\n%s", metrics)
	}
	if log := s.stdout.String(); !containsAll(log, `"cache":"hit"`, `"limited":"account"`, `"code":"rate_limit_exceeded"`) {
		t.Errorf("the log is\n%s", log)
	}
}
