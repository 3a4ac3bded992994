package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"llm-gateway/cmd/llm-gateway/upstreams"
)

func TestCheckUsage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status     int
		args, want string
	}{
		{2, "everything", "after check comes nothing, or one of: db, redis, kafka, providers, production"},
		{2, "providers openai", `too many arguments: "openai"`},
		{2, "providers --timeout 0s", "--timeout is a duration above 0s and up to 1m0s"},
		{2, "providers --timeout 2m", "--timeout is a duration"},
		{2, "--fast", "flag provided but not defined: -fast"},
	} {
		fails(t, c.status, c.want, nil, append([]string{"check"}, strings.Fields(c.args)...)...)
	}
}

// settingIn finds a setting of `check --json`.
func settingIn(t *testing.T, out checkOut, name string) settingOut {
	t.Helper()
	i := slices.IndexFunc(out.Settings, func(s settingOut) bool { return s.Name == name })
	if i < 0 {
		t.Fatalf("%s is not listed", name)
	}
	return out.Settings[i]
}

// upstreamsFile writes a file of one upstream with models of its own, whose key is hunter2.
func upstreamsFile(t *testing.T, more string) string {
	t.Helper()
	return writeFile(t, filepath.Join(t.TempDir(), "upstreams.yaml"), `upstreams:
  - name: acme
    base_url: http://127.0.0.1:1
    api_key: sk-hunter2
    models: [{model: m, context: 10, prices: {input: "0", output: "0"}}]
`+more)
}

func TestCheckSettings(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good := upstreamsFile(t, "aliases: {fast: m}\nfallbacks: {gpt-4o: [fast]}\n")
	env := []string{"DATA_DIR=" + dir, "UPSTREAMS=" + good, "OPENAI_API_KEY=sk-hunter2", "JWT_SECRET_KEY_FILE=" + writeFile(t, filepath.Join(t.TempDir(), "s"), "hunter2"),
		"DATABASE_URL=postgres://u:hunter2@127.0.0.1:1/d", "PORT=9000"}
	out := parsed[checkOut](t, env, "check")
	if len(out.Settings) != len(declared()) || len(out.Problems) != 0 {
		t.Errorf("%d settings, problems %q", len(out.Settings), out.Problems)
	}
	for _, want := range []settingOut{
		{"PORT", "9000", "environment", ""}, {"HOST", "0.0.0.0", "default", ""}, {"OPENAI_API_KEY", "[secret]", "environment", ""},
		{"ANTHROPIC_API_KEY", "", "default", ""}, {"JWT_SECRET_KEY", "[secret]", "environment, JWT_SECRET_KEY_FILE", ""}, {"UPSTREAMS", good, "environment", ""},
	} {
		if got := settingIn(t, out, want.Name); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	if b := out.PriceBook; b == nil || b.Path != "" || b.Currency != "USD" || b.Models < 100 {
		t.Errorf("price book %+v", b)
	}
	if u := out.Upstreams; u == nil || fmt.Sprint(*u) != fmt.Sprint(upstreamsOut{good, []string{"acme"}, 1, 1, 1}) {
		t.Errorf("upstreams %+v", u)
	}
	text := succeeds(t, env, "check")
	for _, want := range []string{"\nPORT ", "\nprice book: the built-in one, ", "\nupstreams: " + good + ", acme; 1 models, 1 aliases, 1 lists of fallbacks\n", "\nOK\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("check lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "hunter2") {
		t.Errorf("a secret is printed:\n%s", text)
	}
	if text := succeeds(t, nil, "check"); !strings.Contains(text, "\nupstreams: none\n") {
		t.Errorf("without UPSTREAMS:\n%s", text)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("it has made %v, %v", left, err)
	}
}

func TestCheckFindsProblems(t *testing.T) {
	t.Parallel()
	bad := writeFile(t, filepath.Join(t.TempDir(), "bad.yaml"), "upstreams: [{name: acme, api_key: hunter2}]")
	lost := upstreamsFile(t, "aliases: {fast: gpt-none}\n")
	for _, c := range []struct {
		env  []string
		want string // the error
	}{
		{[]string{"PORT=x"}, `1 problem was found: PORT: it must be a whole number from 0 to 65535, not "x"`},
		{[]string{"PORT=x", "OPENAI_BASE_URL=https://me:hunter2@h"}, "2 problems were found; the first: PORT: "},
		{[]string{"OPENAI_API_KEY=hunter2 hunter2"}, "1 problem was found: OPENAI_API_KEY: it must be one word"},
		{[]string{"JWT_ALGORITHM=RS256"}, "1 problem was found: JWT_JWKS_URL: it is needed"},
		{[]string{"ENVIRONMENT=production"}, "1 problem was found: JWT_SECRET_KEY (or JWT_SECRET_KEY_FILE) must be set"},
		{[]string{"BILLING_CURRENCY=EUR"}, "1 problem was found: the prices are in USD and BILLING_CURRENCY is EUR"},
		{[]string{"PRICE_BOOK=" + bad}, "1 problem was found: PRICE_BOOK " + bad + `: price book: line 1: unknown field "upstreams"`},
		{[]string{"SELL_BOOK=" + bad}, "1 problem was found: SELL_BOOK " + bad + `: sell book: line 1: unknown field "upstreams"`},
		{[]string{"UPSTREAMS=" + bad}, "1 problem was found: UPSTREAMS " + bad + `: upstreams: line 1: upstream "acme": base_url: missing`},
		{[]string{"UPSTREAMS=" + lost}, "1 problem was found: UPSTREAMS " + lost + `: upstreams: line 6: aliases: fast: there is no model "gpt-none"`},
		{[]string{"UPSTREAMS=" + bad, "PORT=x"}, "2 problems were found; the first: PORT: "}, // one problem hides no other
		{[]string{"UPSTREAMS=/no/such"}, "1 problem was found: UPSTREAMS: it must be a path to a file that exists"},
	} {
		fails(t, 1, c.want, c.env, "check")
		r := run(t, c.env, "check", "--json")
		out := decoded[checkOut](t, r.stdout)
		if r.status != 1 || len(out.Problems) == 0 || len(out.Settings) != len(declared()) {
			t.Errorf("%v: status %d, problems %q", c.env, r.status, out.Problems)
		}
		for _, said := range []string{r.stdout, r.stderr, run(t, c.env, "check").stdout} {
			if strings.Contains(said, "hunter2") {
				t.Errorf("%v: a secret is printed:\n%s", c.env, said)
			}
		}
	}
}

// asked is what a provider that lists its models was asked with.
type asked struct{ path, credential, version, title string }

// modelServer answers like a provider: by a list to the key sk-good, and otherwise like real ones.
func modelServer(t *testing.T, list string, seen chan<- asked) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := r.Header
		key := h.Get("Authorization") + h.Get("X-Api-Key") + h.Get("X-Goog-Api-Key") + h.Get("Api-Key")
		seen <- asked{r.URL.String(), key, h.Get("Anthropic-Version"), h.Get("X-Title")}
		if !strings.HasSuffix(key, "sk-good") {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprintf(w, `{"error": {"message": "Incorrect API key provided: %s"}}`, key)
			return
		}
		fmt.Fprint(w, list)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// answering is a server with one answer.
func answering(t *testing.T, status int, contentType, body string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Location", "http://127.0.0.1:1/sk-bad")
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

const freeModels = `models: [{model: #, context: 10, prices: {input: "0", output: "0"}}]`

// checkFile makes a file of upstreams out of names and what is said of each.
func checkFile(t *testing.T, upstreams [][2]string) string {
	t.Helper()
	text := "upstreams:\n"
	for _, u := range upstreams {
		text += fmt.Sprintf("  - {name: %s, %s, %s}\n", u[0], u[1], strings.ReplaceAll(freeModels, "#", "m-"+u[0]))
	}
	return "UPSTREAMS=" + writeFile(t, filepath.Join(t.TempDir(), "upstreams.yaml"), text)
}

type probesOut struct {
	Checks []probeOut `json:"checks"`
}

func TestCheckProviders(t *testing.T) {
	t.Parallel()
	seen := make(chan asked, 16)
	base := modelServer(t, `{"object": "list", "data": [{"id": "m"}]}`, seen)
	google := modelServer(t, `{"models": []}`, seen)
	env := []string{"OPENAI_API_KEY=sk-good", "OPENAI_BASE_URL=" + base + "/v1/", "ANTHROPIC_API_KEY=sk-good", checkFile(t, [][2]string{
		{"az", `type: azure, api_key: az-sk-good, base_url: "` + base + `"`},
		{"anthropic", `base_url: "` + base + `/v1"`}, // the key is the setting's
		{"gemini", `api_key: g-sk-good, base_url: "` + google + `/v1beta"`},
		{"acme", `keys: [{api_key: a-sk-good}, {api_key: b-sk-good}], headers: {X-Title: t}, base_url: "` + base + `/api/v1"`},
	})}
	out := parsed[probesOut](t, env, "check", "providers")
	var got []string
	for _, c := range out.Checks {
		if !c.OK || c.Status != http.StatusOK || c.Problem != "" || c.RoundTrip < 0 {
			t.Errorf("%+v", c)
		}
		got = append(got, fmt.Sprintf("%s(%s) %d/%d %s", c.Provider, c.Type, c.Key, c.Keys, strings.NewReplacer(base, "", google, "").Replace(c.URL)))
	}
	want := []string{"openai(openai) 1/1 /v1/models", "anthropic(anthropic) 1/1 /v1/models?limit=1", "gemini(gemini) 1/1 /v1beta/models?pageSize=1",
		"az(azure) 1/1 /openai/models?api-version=2024-10-21", "acme(openai) 1/2 /api/v1/models", "acme(openai) 2/2 /api/v1/models"}
	if !slices.Equal(got, want) {
		t.Errorf("asked\n%q, want\n%q", got, want)
	}
	requests := map[asked]bool{}
	for range want {
		requests[<-seen] = true
	}
	for _, a := range []asked{
		{"/v1/models", "Bearer sk-good", "", ""}, {"/v1/models?limit=1", "sk-good", "2023-06-01", ""}, {"/v1beta/models?pageSize=1", "g-sk-good", "", ""},
		{"/openai/models?api-version=2024-10-21", "az-sk-good", "", ""}, {"/api/v1/models", "Bearer a-sk-good", "", "t"}, {"/api/v1/models", "Bearer b-sk-good", "", "t"},
	} {
		if !requests[a] {
			t.Errorf("no request %+v, but %v", a, requests)
		}
	}
	text := succeeds(t, env, "check", "providers")
	if strings.Contains(text, "sk-good") || strings.Count(text, "OK, ") != len(want) || !strings.Contains(text, "2 of 2") {
		t.Errorf("check providers says\n%s", text)
	}
	if text := succeeds(t, nil, "check", "providers"); !strings.HasPrefix(text, "there is nothing to ask") {
		t.Errorf("without providers it says %q", text)
	}
	if none := parsed[probesOut](t, nil, "check", "providers"); none.Checks == nil || len(none.Checks) != 0 {
		t.Errorf("without providers: %+v", none)
	}
}

func TestCheckProvidersThatFail(t *testing.T) {
	t.Parallel()
	seen := make(chan asked, 64)
	base := modelServer(t, `{"data": []}`, seen)
	hanging := silence(t)
	upstream := func(name, base string) [2]string { return [2]string{name, `api_key: sk-bad, base_url: "` + base + `"`} }
	failing := []struct{ name, base, want string }{
		{"refused", "http://127.0.0.1:1", "no connection: connect: connection refused"},
		{"nohost", "http://nohost.invalid", "no connection: the host name is unknown"},
		{"hanging", "http://" + hanging, "it does not answer within 1s"},
		{"badkey", base, "it refuses the key (401)"},
		{"forbidden", answering(t, http.StatusForbidden, "application/json", "{}"), "it refuses the key (403)"},
		{"html", answering(t, http.StatusOK, "text/html", "<html>sk-bad</html>"), "it answers, but not with a list of models: is its base_url right?"},
		{"other", answering(t, http.StatusOK, "application/json", `{"ok": true}`), "it answers, but not with a list of models: is its base_url right?"},
		{"lost", answering(t, http.StatusNotFound, "text/plain", "sk-bad"), "it lists no models there (404): is its base_url right?"},
		{"moved", answering(t, http.StatusFound, "text/plain", ""), "it redirects (302), which is not followed: is its base_url right?"},
		{"busy", answering(t, http.StatusTooManyRequests, "text/plain", "sk-bad"), "it answers with status 429"},
		{"down", answering(t, http.StatusBadGateway, "text/html", "sk-bad"), "it answers with status 502"},
		{"tls", strings.Replace(base, "http", "https", 1), "no connection: "},
	}
	var all [][2]string
	for _, f := range failing {
		all = append(all, upstream(f.name, f.base))
	}
	all = append(all, [2]string{"keyless", `base_url: "` + base + `"`}, [2]string{"half", `keys: [{api_key: sk-bad}, {api_key: sk-good}], base_url: "` + base + `"`})
	env := []string{checkFile(t, all)}
	r := run(t, env, "check", "providers", "--timeout", "1s", "--json")
	said := map[string]probeOut{}
	for _, c := range decoded[probesOut](t, r.stdout).Checks {
		said[fmt.Sprint(c.Provider, c.Key)] = c
	}
	for _, f := range failing {
		if c := said[f.name+"1"]; c.OK || !strings.HasPrefix(c.Problem, f.want) {
			t.Errorf("%s: %+v, want %s", f.name, c, f.want)
		}
	}
	if c := said["keyless0"]; c.OK || c.Problem != "it asks for a key (401), and none is set" {
		t.Errorf("without a key: %+v", c)
	}
	if !said["half2"].OK || said["half1"].OK {
		t.Errorf("one key of two: %+v, %+v", said["half1"], said["half2"])
	}
	if want := fmt.Sprintf("%d failures were found; the first: refused: no connection", len(failing)+2); r.status != 1 || !strings.Contains(r.stderr, want) {
		t.Errorf("status %d: %s, want %s", r.status, r.stderr, want)
	}
	text := run(t, env, "check", "providers", "--timeout", "1s")
	for _, out := range []string{r.stdout, r.stderr, text.stdout, text.stderr} {
		if strings.Contains(out, "sk-bad") || strings.Contains(out, "sk-good") {
			t.Errorf("a key is printed:\n%s", out)
		}
	}
	if text.status != 1 || !strings.Contains(text.stdout, "FAILED: it refuses the key (401)") || !strings.Contains(text.stdout, "OK, ") {
		t.Errorf("status %d:\n%s", text.status, text.stdout)
	}
	fails(t, 1, "1 failure was found: openai: it refuses the key (401)", []string{"OPENAI_API_KEY=sk-bad", "OPENAI_BASE_URL=" + base}, "check", "providers")
	fails(t, 1, "PORT: it must be", []string{"PORT=x"}, "check", "providers")
	fails(t, 1, "api_key: the key is empty", []string{checkFile(t, [][2]string{{"a", `api_key: "", base_url: "http://h"`}})}, "check", "providers")
}

// TestConfigured holds what the settings and the file make together.
func TestConfigured(t *testing.T) {
	t.Parallel()
	s := &Settings{OpenAIKey: "sk-setting", OpenAIBaseURL: "http://setting", GeminiKey: "sk-gemini"}
	file := &upstreams.File{Upstreams: []upstreams.Upstream{
		{Name: "acme", Type: upstreams.TypeOpenAI, BaseURL: "http://acme"},
		{Name: "openai", Type: upstreams.TypeOpenAI, Keys: []upstreams.Key{{Secret: "sk-file", Weight: 2}}},
		{Name: "gemini", Type: upstreams.TypeGemini, BaseURL: "http://file"},
	}}
	var got []string
	for _, u := range configured(s, file) {
		line := u.Name + "(" + u.Type + ") " + u.BaseURL
		for _, k := range u.Keys {
			line += fmt.Sprintf(" %s:%d", string(k.Secret), k.Weight)
		}
		got = append(got, line)
	}
	want := []string{"openai(openai) http://setting sk-file:2", "gemini(gemini) http://file sk-gemini:1", "acme(openai) http://acme"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
