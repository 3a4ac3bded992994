package gateway_test

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider"
)

// TestKeysOnEverySurface: a request with an Idempotency-Key happens once in every API, whole and streamed, and
// its repeat is the first answer byte for byte; the same text in another API is another request.
func TestKeysOnEverySurface(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	for _, s := range append(slices.Clip(speeches), &speech{name: "list", ask: func(model, text string, turns int, _ bool) (string, string) {
		path, body := askGenerate(model, text, turns, true)
		return strings.TrimSuffix(path, "?alt=sse"), body
	}}) {
		for _, stream := range []bool{false, true} {
			path, body := s.ask("sim-small", "hello", 0, stream)
			key := fmt.Sprint(s.name, stream)
			first := e.do(e.keyed("kim", key, path, body))
			again := e.do(e.keyed("kim", key, path, body))
			if first.status != 200 || again.body != first.body || again.header.Get("idempotent-replayed") != "true" || again.id() != first.id() {
				t.Errorf("%s: %d\n%s\n%d %v\n%s", key, first.status, first.body, again.status, again.header, again.body)
			}
			if got, want := again.header.Get("Content-Type"), first.header.Get("Content-Type"); got != want {
				t.Errorf("%s: %s, first %s", key, got, want)
			}
			if l := e.life("kim", first.id()); l.commit == nil {
				t.Errorf("%s: %q", key, l)
			}
		}
	}
	body := `{"model":"sim-small","max_tokens":5,"messages":[{"role":"user","content":"x"}]}`
	if a := e.do(e.keyed("kim", "one", "/v1/messages", body)); a.status != 200 {
		t.Fatal(a.body)
	}
	checkError(t, "the same text elsewhere", e.do(e.keyed("kim", "one", chatPath, body)), 422, "invalid_request_error", "idempotency_key_reused")
}

// TestEmbeddings: OpenAI's and Google's models by OpenAI's and Google's API; what is billed is what was
// recorded, or where nothing was, what was counted.
func TestEmbeddings(t *testing.T) {
	t.Parallel()
	e := replay(t, nil)
	openAI := func(model, id, more string) (string, string) {
		return "/v1/embeddings", fmt.Sprintf(`{"model":%q,"input":"cas:%s"%s}`, model, id, more)
	}
	google := func(model, id string) (string, string) {
		return "/v1beta/models/" + model + ":batchEmbedContents", fmt.Sprintf(`{"requests":[{"model":"models/%s","content":{"parts":[{"text":"cas:%s"}]}}]}`, model, id)
	}
	vector := func(v gjson.Result) (out []float64) {
		for _, n := range v.Array() {
			out = append(out, n.Float())
		}
		return out
	}
	check := func(name string, a answer, path string, tokens int64, source domain.UsageSource) {
		t.Helper()
		l := e.life("eva", a.id())
		if a.status != 200 || len(vector(a.json(path))) < 100 {
			t.Fatalf("%s: %d %.300s", name, a.status, a.body)
		}
		if d := l.commitData(); l.commit == nil || d.Meters.OutputTokens() != 0 || d.Meters[domain.Input] != tokens && tokens > 0 || d.Meters[domain.Input] == 0 || d.UsageSource != source {
			t.Errorf("%s: %q %v", name, l, d.Meters)
		}
	}
	path, body := openAI("text-embedding-3-small", "oa-emb-2", "")
	check("openai", e.post("eva", path, body), "data.0.embedding", 2, domain.UsageProvider)
	path, body = openAI("gemini-embedding-2", "ge-emb", "")
	floats := e.post("eva", path, body)
	check("google by openai", floats, "data.0.embedding", 4, domain.UsageProvider)
	path, body = google("gemini-embedding-2", "ge-emb")
	check("google", e.post("eva", path, body), "embeddings.0.values", 4, domain.UsageProvider)
	path, body = google("text-embedding-3-small", "oa-emb-2")
	check("openai by google", e.post("eva", path, body), "embeddings.0.values", 2, domain.UsageProvider)

	path, body = openAI("gemini-embedding-2", "ge-emb", `,"encoding_format":"base64"`)
	packed, err := base64.StdEncoding.DecodeString(e.post("eva", path, body).json("data.0.embedding").Str)
	want := vector(floats.json("data.0.embedding"))
	if err != nil || len(packed) != 4*len(want) {
		t.Fatalf("%d bytes for %d numbers: %v", len(packed), len(want), err)
	}
	for i, n := range want {
		if got := math.Float32frombits(binary.LittleEndian.Uint32(packed[4*i:])); got != float32(n) {
			t.Fatalf("number %d is %v, want %v", i, got, n)
		}
	}
	path, body = openAI("text-embedding-3-small", "oa-emb-2;fault=429;ra=7", "")
	if a := e.post("eva", path, body); a.status != 429 || a.header.Get("Retry-After") != "7" || e.life("eva", a.id()).String() != lifeRefunded {
		t.Errorf("%d %s", a.status, a.body)
	}
	path, body = openAI("gpt-4o", "oa-emb-2", "")
	checkError(t, "a chat model", e.post("eva", path, body), 400, "invalid_request_error", "unsupported_parameter")
	path, body = openAI("text-embedding-3-small", "oa-emb-e400", "")
	if a := e.post("eva", path, body); a.status != 400 || a.json("error.message").Str == "" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestCompletions: OpenAI's older models as they are, and any chat model by one user message.
func TestCompletions(t *testing.T) {
	t.Parallel()
	e := replay(t, nil)
	ask := func(model, id, more string) answer {
		return e.post("carl", "/v1/completions", fmt.Sprintf(`{"model":%q,"prompt":"%s cas:%s","max_tokens":1000%s}`, model, strings.Repeat("x", 2000), id, more))
	}
	a := ask("babbage-002", "oa-cmpl", "")
	if d := e.life("carl", a.id()).commitData(); a.status != 200 || a.json("object").Str != "text_completion" || d.Meters[domain.Input] != 49 || d.Meters[domain.Output] != 57 {
		t.Errorf("%d %s %v", a.status, a.body, d.Meters)
	}
	s := ask("davinci-002", "oas-cmpl", `,"stream":true`)
	if l := e.life("carl", s.id()); !s.events(t).done || l.String() != lifeCounted {
		t.Errorf("%q %s", l, s.body)
	}
	for model, id := range map[string]string{"gpt-4o": "oa-chat-basic-1", "claude-sonnet-4-5-20250929": "an-basic-2", "gemini-2.5-flash": "ge-book"} {
		a := ask(model, id, "")
		l := e.life("carl", a.id())
		if a.status != 200 || a.json("object").Str != "text_completion" || a.json("choices.0.text").Str == "" || a.json("choices.0.finish_reason").Str != "stop" || l.commit == nil {
			t.Errorf("%s: %d %s %q", model, a.status, a.body, l)
		}
	}
	stream := ask("claude-sonnet-4-5-20250929", "ans-book", `,"stream":true,"stream_options":{"include_usage":true}`)
	text, usages := "", 0
	for _, chunk := range stream.events(t).data {
		text += gjson.Get(chunk, "choices.0.text").Str
		if gjson.Get(chunk, "usage").IsObject() {
			usages++
		}
	}
	if text == "" || usages != 1 || !stream.events(t).done {
		t.Errorf("%q, %d usages: %s", text, usages, stream.body)
	}
}

// TestCountsAreFree: tokens are counted by the provider for its own models, by the gateway for others, for
// nothing, whatever the balance.
func TestCountsAreFree(t *testing.T) {
	t.Parallel()
	e := start(t, options{balance: "0"})
	a := e.post("nora", "/v1/messages/count_tokens", `{"model":"sim-small","messages":[{"role":"user","content":"hello there"}]}`)
	if n := a.json("input_tokens").Int(); a.status != 200 || n < 5 || n > 20 {
		t.Errorf("%d %s", a.status, a.body)
	}
	b := e.post("nora", "/v1beta/models/sim-small:countTokens", `{"contents":[{"parts":[{"text":"hello there"}]}]}`)
	if n := b.json("totalTokens").Int(); b.status != 200 || n != a.json("input_tokens").Int() {
		t.Errorf("%d %s", b.status, b.body)
	}
	if len(e.asked.reserved("nora")) != 0 {
		t.Error("it was reserved for")
	}
}

// TestCountsByTheProvider: a count that a provider makes is a request of no tokens.
func TestCountsByTheProvider(t *testing.T) {
	t.Parallel()
	all := countingServers(t)
	e := start(t, options{balance: "0", providers: all})
	for path, body := range map[string]string{
		"/v1/messages/count_tokens":                   `{"model":"claude-sonnet-4-5-20250929","messages":[{"role":"user","content":"hello"}]}`,
		"/v1beta/models/gemini-2.5-flash:countTokens": `{"contents":[{"parts":[{"text":"hello"}]}]}`,
	} {
		a := e.post("nils", path, body)
		l := e.life("nils", a.id())
		if a.status != 200 || !strings.Contains(a.body, "4711") || l.commit == nil || !l.commit.Amount.IsZero() || !l.reserve.Amount.IsZero() {
			t.Errorf("%s: %d %s %q", path, a.status, a.body, l)
		}
	}
}

// countingServers are both providers, which count everything as 4711.
func countingServers(t *testing.T) map[string]provider.Provider {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/messages/count_tokens" && r.URL.Path != "/v1beta/models/gemini-2.5-flash:countTokens" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		io.WriteString(w, `{"input_tokens":4711,"totalTokens":4711}`) //nolint:errcheck // the test's own client
	}))
	t.Cleanup(server.Close)
	anthropic, err1 := provider.NewAnthropic(provider.Config{BaseURL: server.URL})
	gemini, err2 := provider.NewGemini(provider.Config{BaseURL: server.URL})
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return map[string]provider.Provider{"anthropic": anthropic, "gemini": gemini}
}

// TestModelsOfClients: each API's own clients get the list of models in their own form.
func TestModelsOfClients(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	get := func(path, header string) answer {
		r := e.request("GET", "mona", path, "")
		if header != "" {
			r.Header.Set(header, "2023-06-01")
		}
		return e.do(r)
	}
	for _, c := range []struct{ path, header, field, want string }{
		{"/v1/models", "", "data.#(id==\"sim-small\").object", "model"},
		{"/v1/models", "anthropic-version", "data.#(id==\"sim-small\").type", "model"},
		{"/v1/models", "x-goog-api-key", "models.#(name==\"models/sim-small\").displayName", "sim-small"},
		{"/v1/models/sim-small", "", "id", "sim-small"},
		{"/v1/models/simulated/sim-small", "", "id", "simulated/sim-small"},
		{"/v1/models/simulated%2Fsim-small", "", "id", "simulated/sim-small"},
		{"/v1/models/sim-small", "anthropic-version", "display_name", "sim-small"},
		{"/v1beta/models", "", "models.#(name==\"models/sim-small\").version", "001"},
		{"/v1beta/models/sim-small", "", "name", "models/sim-small"},
	} {
		if a := get(c.path, c.header); a.status != 200 || a.json(c.field).Str != c.want {
			t.Errorf("%s with %s: %d %.300s", c.path, c.header, a.status, a.body)
		}
	}
	checkError(t, "no such model", get("/v1/models/nothing", ""), 404, "invalid_request_error", "model_not_found")
	if a := get("/v1beta/models/nothing", ""); a.status != 404 || a.json("error.status").Str != "NOT_FOUND" {
		t.Errorf("%d %s", a.status, a.body)
	}
}
