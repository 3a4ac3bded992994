package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/cmd/llm-gateway/telemetry/receivertest"
	"llm-gateway/migrations/pgtest"
)

// ownRecorded is a recorded answer of any surface, and what it must be billed as: by plain arithmetic on the
// provider's own numbers.
type ownRecorded struct {
	id, provider, endpoint string
	step                   int
	stream                 bool
	status                 int
	model                  string
	meters                 map[string]int64 // nil: no usage was recorded
}

// ownRecordings are all that are not of OpenAI's chat completions.
func ownRecordings(t *testing.T, models string) (all []ownRecorded) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(replayDir, "recordings", "index.json"))
	if err != nil {
		t.Skip("the recordings of ../shared are absent: ", err)
	}
	for _, entry := range gjson.ParseBytes(text).Array() {
		if entry.Get("endpoint").Str == "chat" {
			continue
		}
		for i, step := range entry.Get("steps").Array() {
			r := ownRecorded{id: entry.Get("id").Str, provider: entry.Get("provider").Str, endpoint: entry.Get("endpoint").Str, step: i,
				stream: step.Get("stream").Bool(), status: int(step.Get("status").Int())}
			r.model = map[string]string{"anthropic": "claude-sonnet-4-5-20250929", "gemini": "gemini-2.5-flash", "openai": "gpt-5-mini"}[r.provider]
			for _, of := range []string{"model_returned", "model_requested"} {
				if name := strings.TrimPrefix(step.Get(of).Str, "models/"); name != "" && strings.Contains(models, `"id":"`+name+`"`) {
					r.model = name
				}
			}
			if u := step.Get("usage_raw"); r.status == http.StatusOK && len(u.Map()) > 0 {
				r.meters = plainMeters(&r, u)
			}
			all = append(all, r)
		}
	}
	return all
}

// plainMeters splits a usage as its provider documents it.
func plainMeters(r *ownRecorded, u gjson.Result) map[string]int64 {
	at := func(path string) int64 { return u.Get(path).Int() }
	switch {
	case r.id == "vx-an-fallback-iter": // two models, and the headline is the second's: 408 + 412 were read
		return map[string]int64{"input": 820, "output": 264}
	case r.provider == "anthropic":
		hour, thought := at("cache_creation.ephemeral_1h_input_tokens"), at("output_tokens_details.thinking_tokens")
		return map[string]int64{"input": at("input_tokens"), "cached_input": at("cache_read_input_tokens"), "cache_write_1h": hour,
			"cache_write_5m": at("cache_creation_input_tokens") - hour, "output": at("output_tokens") - thought, "reasoning": thought,
			"web_search": at("server_tool_use.web_search_requests")}
	case r.provider == "gemini":
		images := at(`promptTokensDetails.#(modality=="IMAGE").tokenCount`)
		return map[string]int64{"input": at("promptTokenCount") + at("toolUsePromptTokenCount") - at("cachedContentTokenCount") - images, "image_in": images,
			"cached_input": at("cachedContentTokenCount"), "output": at("candidatesTokenCount"), "reasoning": at("thoughtsTokenCount")}
	case r.endpoint == "responses":
		cached, thought := at("input_tokens_details.cached_tokens"), at("output_tokens_details.reasoning_tokens")
		return map[string]int64{"input": at("input_tokens") - cached, "cached_input": cached, "output": at("output_tokens") - thought, "reasoning": thought}
	}
	return map[string]int64{"input": at("prompt_tokens"), "output": at("completion_tokens")}
}

// turnsOf repeats what follows the first message of a conversation.
func (r *ownRecorded) turnsOf(both string) string { return strings.Repeat(both, r.step) }

// ask is the recording asked for on its own surface, by a text that is long enough to bound what it used.
func (r *ownRecorded) ask() (path, body string) {
	text := strings.Repeat("x", 16_000) + " cas:" + r.id + ";n=own"
	switch r.endpoint {
	case "messages":
		return "/v1/messages", fmt.Sprintf(`{"model":%q,"max_tokens":8000,"messages":[{"role":"user","content":%q}%s],"stream":%t}`, r.model, text,
			r.turnsOf(`,{"role":"assistant","content":"a"},{"role":"user","content":"b"}`), r.stream)
	case "generateContent", "streamGenerateContent":
		path = "/v1beta/models/" + r.model + ":" + r.endpoint
		if r.stream {
			path += "?alt=sse"
		}
		return path, fmt.Sprintf(`{"contents":[{"role":"user","parts":[{"text":%q}]}%s]}`, text,
			r.turnsOf(`,{"role":"model","parts":[{"text":"a"}]},{"role":"user","parts":[{"text":"b"}]}`))
	case "responses":
		return "/v1/responses", fmt.Sprintf(`{"model":%q,"input":[{"role":"user","content":%q}%s],"stream":%t}`, r.model, text,
			r.turnsOf(`,{"role":"assistant","content":"a"},{"role":"user","content":"b"}`), r.stream)
	case "completions":
		return "/v1/completions", fmt.Sprintf(`{"model":%q,"prompt":%q,"max_tokens":500,"stream":%t}`, r.model, text, r.stream)
	}
	if r.provider == "gemini" {
		return "/v1beta/models/" + r.model + ":batchEmbedContents", fmt.Sprintf(`{"requests":[{"content":{"parts":[{"text":%q}]}}]}`, text)
	}
	return "/v1/embeddings", fmt.Sprintf(`{"model":%q,"input":%q}`, r.model, text)
}

// byChat is the recording asked for by chat completions.
func (r *ownRecorded) byChat() string {
	return fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":%q}%s],"stream":%t}`, r.model, strings.Repeat("x", 16_000)+" cas:"+r.id+";n=chat",
		r.turnsOf(`,{"role":"assistant","content":"a"},{"role":"user","content":"b"}`), r.stream)
}

// TestOwnReplayThroughBinary sends every recorded answer of Anthropic, of Google and of OpenAI's other surfaces
// through the real binary: by its own surface, and what is a chat by chat completions too. What was billed
// must be what was recorded.
func TestOwnReplayThroughBinary(t *testing.T) {
	t.Parallel()
	readRecordings(t)
	dbURL, replay := pgtest.URL(t), startReplay(t, "--auth", "k")
	langfuse := receivertest.NewLangfuse(t)
	scanReceived(t, "Langfuse", langfuse.Raw)
	s := startServe(t, append(langfuseSettings(langfuse), "DATABASE_URL="+dbURL, "OPENAI_BASE_URL="+replay+"/v1", "ANTHROPIC_BASE_URL="+replay, "GEMINI_BASE_URL="+replay+"/v1beta", "OPENAI_API_KEY=k-openai",
		"ANTHROPIC_API_KEY=k-anthropic", "GOOGLE_GEMINI_API_KEY=k-gemini", "BILLING_DEFAULT_BALANCE=10000", "LOG_LEVEL=ERROR", "RETRY_ENABLED=false")...)
	client, token := newClient(t), tokenFor(t, "replayer")
	_, models := fetch(t, client, s.url+"/v1/models", token)
	type sent struct {
		name string
		r    *ownRecorded
		got  reply
	}
	var sents []sent
	all := ownRecordings(t, models)
	for i := range all {
		r := &all[i]
		name := fmt.Sprintf("%s/%d by %s", r.id, r.step, r.model)
		path, body := r.ask()
		sents = append(sents, sent{name + " on " + r.endpoint, r, post(t.Context(), client, s.url+path, token, body)})
		if r.provider != "openai" && r.endpoint != "embeddings" {
			sents = append(sents, sent{name + " by chat", r, chat(t.Context(), client, s.url, token, r.byChat())})
		}
	}
	a := auditLedger(t, dbURL)
	billed := map[string]int{}
	for i := range sents {
		if checkOwnReplayed(t, a, sents[i].name, sents[i].r, &sents[i].got) {
			billed[sents[i].r.endpoint]++
		}
	}
	t.Logf("%d recorded answers; billed by their recorded usage: %v", len(sents), billed)
	for endpoint, least := range map[string]int{"messages": 70, "generateContent": 28, "streamGenerateContent": 16, "responses": 9, "embeddings": 3, "completions": 1} {
		if billed[endpoint] < least {
			t.Errorf("%s: only %d billed", endpoint, billed[endpoint])
		}
	}
	if len(a.open()) != 0 || len(a.lives) != len(sents) {
		t.Errorf("%d open, %d requests in the ledger of %d", len(a.open()), len(a.lives), len(sents))
	}
	checkTold(t, langfuse, a)
	verified(t, "DATABASE_URL="+dbURL)
	if n := a.plainlyCharged(); n != a.charged() {
		t.Errorf("%d of %d charges were calculated by hand", n, a.charged())
	}
	auditedAll(t, int64(a.charged()), "DATABASE_URL="+dbURL)
}

// checkOwnReplayed says whether a usage was recorded and billed.
func checkOwnReplayed(t *testing.T, a *audit, name string, r *ownRecorded, got *reply) bool {
	t.Helper()
	l := a.lives[got.request]
	if l == nil || got.err != nil {
		t.Errorf("%s: %v; in the ledger %+v", name, got, l)
		return false
	}
	if r.status != http.StatusOK {
		want := r.status
		if want == http.StatusForbidden { // the gateway's own credentials there
			want = http.StatusBadGateway
		}
		if got.status != want || l.reason != "provider_error" || l.commits != 0 {
			t.Errorf("%s: recorded %d, got %v; in the ledger %+v", name, r.status, got, *l)
		}
		return false
	}
	if r.meters == nil {
		if got.status == http.StatusOK && l.source != "counted" && l.refunds != 1 || l.commits+l.refunds == 0 {
			t.Errorf("%s: no usage was recorded; got %v; in the ledger %+v", name, got, *l)
		}
		return false
	}
	for meter, n := range l.meters {
		if n != r.meters[meter] && (meter != "requests" || n != 1) {
			t.Errorf("%s: meter %s is billed as %d, recorded as %d", name, meter, n, r.meters[meter])
		}
	}
	told := got.cost != "" && a.rat(got.cost).Cmp(l.commit) == 0
	if strings.HasSuffix(name, " on streamGenerateContent") { // whose clients take every line for data
		told = got.cost == ""
	}
	if l.source != "provider" || !told || l.provider != r.provider || len(l.attempts) != 1 {
		t.Errorf("%s: %v cost %q; in the ledger %+v", name, got, got.cost, *l)
		return false
	}
	return true
}
