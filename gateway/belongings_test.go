package gateway_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/belongtest"
	"llm-gateway/gateway/provider"
)

// remembering is a provider that keeps every answer, as OpenAI and Anthropic do, and tells it to whoever names
// its id: all calls come with one key.
type remembering struct {
	mu    sync.Mutex
	asked int
	kept  map[string]string // what was said, by id
}

func (p *remembering) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	body := gjson.ParseBytes(raw)
	p.asked++
	said := body.Get("input").String() + body.Get("messages").String()
	var recalled []string
	for _, named := range []string{"previous_response_id", "input.#.id", "input.0.id", "container", "container.id"} {
		if what, ok := p.kept[body.Get(named).String()]; ok {
			recalled = append(recalled, what)
		}
	}
	if strings.HasSuffix(r.URL.Path, "/messages") {
		p.message(w, said, recalled)
		return
	}
	p.response(w, body, said, recalled)
}

func (p *remembering) response(w http.ResponseWriter, body gjson.Result, said string, recalled []string) {
	id, item := fmt.Sprintf("resp_%d", p.asked), fmt.Sprintf("rs_%d", p.asked)
	p.kept[id], p.kept[item] = said, said
	answer := fmt.Sprintf(`{"id":%q,"object":"response","status":"completed","model":%q,"output":[{"type":"reasoning","id":%q,"summary":[]},`+
		`{"type":"message","id":"msg_%d","role":"assistant","content":[{"type":"output_text","text":%q}]}],"usage":{"input_tokens":9,"output_tokens":9}}`,
		id, body.Get("model").Str, item, p.asked, strings.Join(recalled, " "))
	if !body.Get("stream").Bool() {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, answer) //nolint:errcheck // the test's own client
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprintf(w, "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":%q}}\n\n", id)
	fmt.Fprintf(w, "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":%s}\n\n", answer)
}

func (p *remembering) message(w http.ResponseWriter, said string, recalled []string) {
	id := fmt.Sprintf("container_%d", p.asked)
	p.kept[id] = said
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"id":"msg_%d","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":%q}],"stop_reason":"end_turn",`+
		`"container":{"id":%q},"usage":{"input_tokens":9,"output_tokens":9}}`, p.asked, strings.Join(recalled, " "), id)
}

// count is how often it was asked.
func (p *remembering) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

// startRemembering is a gateway of such providers.
func startRemembering(t *testing.T, o options) (*env, *remembering) {
	t.Helper()
	p := &remembering{kept: map[string]string{}}
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	openai, err1 := provider.NewOpenAI(provider.Config{BaseURL: server.URL})
	anthropic, err2 := provider.NewAnthropic(provider.Config{BaseURL: server.URL})
	gemini, err3 := provider.NewGemini(provider.Config{BaseURL: server.URL})
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	o.providers = map[string]provider.Provider{"openai": openai, "anthropic": anthropic, "gemini": gemini}
	return start(t, o), p
}

const (
	responsesPath = "/v1/responses"
	messagesPath  = "/v1/messages"
	// hers is what one account said and no other may read.
	hers = "my diagnosis"
)

// said is a response's request; more are its further fields.
func said(text, more string) string {
	return fmt.Sprintf(`{"model":"gpt-4.1","max_output_tokens":20,"input":[{"role":"user","content":%q}]%s}`, text, more)
}

// TestAnothersResponses: whoever knows the id of another account's answer is told nothing of it, whole and
// streamed, by each way to name it; its own account goes on with it.
func TestAnothersResponses(t *testing.T) {
	t.Parallel()
	for _, stream := range []string{"", `,"stream":true`} {
		e, p := startRemembering(t, options{belongs: belongtest.NewMemory()})
		first := e.post("ada", responsesPath, said(hers, stream))
		if first.status != 200 || !strings.Contains(first.body, "resp_1") {
			t.Fatalf("%d %s", first.status, first.body)
		}
		for _, body := range []string{
			said("x", `,"previous_response_id":"resp_1"`+stream),
			`{"model":"gpt-4.1","max_output_tokens":20,"input":[{"type":"item_reference","id":"rs_1"}]` + stream + `}`,
			`{"model":"gpt-4.1","max_output_tokens":20,"input":[{"id":"rs_1"}]` + stream + `}`,
			`{"model":"gpt-4.1","max_output_tokens":20,"input":[{"type":"reasoning","id":"rs_1","summary":[]}]` + stream + `}`,
			`{"model":"gpt-4.1","max_output_tokens":20,"input":[{"type":"image_generation_call","\u0069d":"rs_1"}]` + stream + `}`,
		} {
			before := p.count()
			a := e.post("eve", responsesPath, body)
			checkError(t, body, a, 404, "invalid_request_error", "not_found")
			if p.count() != before || a.id().String() == "" && strings.Contains(a.body, hers) {
				t.Errorf("%s: the provider was asked: %s", body, a.body)
			}
			if a := e.post("ada", responsesPath, body); a.status != 200 || !strings.Contains(a.body, hers) {
				t.Errorf("her own: %s: %d %s", body, a.status, a.body)
			}
		}
		if e.available("eve") != "100" {
			t.Errorf("eve has %s left of 100", e.available("eve"))
		}
	}
}

// TestAnothersContainer is the same for what Anthropic runs code in.
func TestAnothersContainer(t *testing.T) {
	t.Parallel()
	e, p := startRemembering(t, options{belongs: belongtest.NewMemory()})
	body := func(text, more string) string {
		return fmt.Sprintf(`{"model":"claude-sonnet-4-5-20250929","max_tokens":20,"messages":[{"role":"user","content":%q}]%s}`, text, more)
	}
	if a := e.post("ada", messagesPath, body(hers, "")); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	for _, named := range []string{`,"container":"container_1"`, `,"container":{"id":"container_1"}`} {
		before := p.count()
		if a := e.post("eve", messagesPath, body("x", named)); a.status != 404 || p.count() != before {
			t.Errorf("%s: %d %s", named, a.status, a.body)
		}
		if a := e.post("ada", messagesPath, body("x", named)); a.status != 200 || !strings.Contains(a.body, hers) {
			t.Errorf("her own: %s: %d %s", named, a.status, a.body)
		}
	}
}

// unknowable name what no answer of a call tells the id of: it could be anybody's.
var unknowable = []struct{ path, body, param string }{
	{responsesPath, said("x", `,"conversation":"conv_1"`), "conversation"},
	{responsesPath, said("x", `,"conversation":{"id":"conv_1"}`), "conversation"},
	{responsesPath, said("x", `,"prompt":{"id":"pmpt_1"},"tools":[]`), "prompt"},
	{responsesPath, `{"model":"gpt-4.1","input":[{"role":"user","content":[{"type":"input_file","file_id":"file-1"}]}]}`, "input[0].content[0].file_id"},
	{responsesPath, `{"model":"gpt-4.1","input":[{"role":"user","content":[{"type":"input_image","file_id":"file-1"}]}]}`, "input[0].content[0].file_id"},
	{responsesPath, `{"model":"gpt-4.1","input":[{"type":"code_interpreter_call","container_id":"cntr_1"}]}`, "input[0].container_id"},
	{chatPath, `{"model":"gpt-4.1","messages":[{"role":"user","content":[{"type":"file","file":{"file_id":"file-1"}}]}]}`, "messages[0].content[0].file.file_id"},
	{chatPath, `{"model":"claude-sonnet-4-5-20250929","messages":[{"role":"user","content":[{"type":"file","file":{"file_id":"file-1"}}]}]}`, "messages[0].content[0].file.file_id"},
	{chatPath, `{"model":"gpt-4.1","messages":[{"role":"user","content":"x"},{"role":"assistant","audio":{"id":"audio_1"}},{"role":"user","content":"x"}]}`, "messages[1].audio"},
	{chatPath, `{"model":"gpt-4.1","messages":[{"role":"user","content":"x"}],"tools":[{"type":"file_search","vector_store_ids":["vs_1"]}]}`, "tools[0].vector_store_ids"},
	{chatPath, `{"model":"gemini-2.5-flash","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://generativelanguage.googleapis.com/v1beta/files/a.png"}}]}]}`, "messages[0].content[0]"},
	{chatPath, `{"model":"gemini-2.5-flash","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https:///generativelanguage.googleapis.com/v1beta/a.png"}}]}]}`, "messages[0].content[0]"},
	{"/v1beta/models/gemini-2.5-flash:generateContent", `{"contents":[{"parts":[{"fileData":{"fileUri":"https:\\\\generativelanguage.googleapis.com\\v1beta\\files\\1"}}]}]}`, "contents[0].parts[0].fileData.fileUri"},
	{chatPath, `{"model":"gemini-2.5-flash","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"gs://bucket/a.png"}}]}]}`, "messages[0].content[0]"},
	{messagesPath, `{"model":"claude-sonnet-4-5-20250929","max_tokens":9,"messages":[{"role":"user","content":[{"type":"document","source":{"type":"file","file_id":"file_1"}}]}]}`, "messages[0].content[0].source.file_id"},
	{messagesPath, `{"model":"claude-sonnet-4-5-20250929","max_tokens":9,"messages":[{"role":"user","content":[{"type":"container_upload","file_id":"file_1"}]}]}`, "messages[0].content[0].file_id"},
	{messagesPath, `{"model":"claude-sonnet-4-5-20250929","max_tokens":9,"messages":[{"role":"user","content":"x"}],"thread":{"type":"continue","id":"thread_1"}}`, "thread"},
	{messagesPath, `{"model":"claude-sonnet-4-5-20250929","max_tokens":9,"messages":[{"role":"user","content":"x"}],"diagnostics":{"previous_message_id":"msg_1"}}`, "diagnostics.previous_message_id"},
	{messagesPath + "/count_tokens", `{"model":"claude-sonnet-4-5-20250929","messages":[{"role":"user","content":[{"type":"image","source":{"type":"file","file_id":"file_1"}}]}]}`, "messages[0].content[0].source.file_id"},
	{"/v1beta/models/gemini-2.5-flash:generateContent", `{"contents":[{"parts":[{"text":"x"}]}],"cachedContent":"cachedContents/1"}`, "cachedContent"},
	{"/v1beta/models/gemini-2.5-flash:generateContent", `{"contents":[{"parts":[{"file_data":{"file_uri":"files/1"}}]}]}`, "contents[0].parts[0].fileData.fileUri"},
	{"/v1beta/models/gemini-2.5-flash:countTokens", `{"contents":[{"parts":[{"fileData":{"fileUri":"files/1"}}]}]}`, "contents[0].parts[0].fileData.fileUri"},
	{"/v1beta/models/gemini-2.5-flash:countTokens", `{"generateContentRequest":{"contents":[{"parts":[{"text":"x"}]}],"cached_content":"cachedContents/1"}}`, "generateContentRequest.cachedContent"},
	{"/v1beta/models/gemini-embedding-001:embedContent", `{"content":{"parts":[{"fileData":{"fileUri":"files/1","mimeType":"image/png"}}]}}`, "content.parts[0].fileData.fileUri"},
}

// TestUnknowable refuses them by name before any money moves, and says which setting allows them; where it
// does, they reach the provider.
func TestUnknowable(t *testing.T) {
	t.Parallel()
	strict, untouched := startRemembering(t, options{belongs: belongtest.NewMemory()})
	open, reached := startRemembering(t, options{sharedIDs: true})
	for _, c := range unknowable {
		a := strict.post("eve", c.path, c.body)
		if a.status != 400 || !strings.Contains(a.body, "`"+c.param+"` names something") || !strings.Contains(a.body, "SHARED_PROVIDER_IDS") {
			t.Errorf("%s: %d %s", c.body, a.status, a.body)
		}
		before := reached.count()
		if a := open.post("eve", c.path, c.body); reached.count() != before+1 {
			t.Errorf("where it is allowed: %s %s: %d %s", c.path, c.body, a.status, a.body)
		}
	}
	if untouched.count() != 0 {
		t.Errorf("the provider was asked %d times", untouched.count())
	}
}

// TestBelongingsAway: an answer whose ids cannot be kept is delivered and charged all the same, and nobody can
// name it; while nobody can be asked whose an id is, no call names one.
func TestBelongingsAway(t *testing.T) {
	t.Parallel()
	owners := belongtest.NewMemory()
	e, p := startRemembering(t, options{belongs: owners})
	owners.Break(errors.New("away"))
	if a := e.post("ada", responsesPath, said(hers, "")); a.status != 200 || e.life("ada", a.id()).commit == nil {
		t.Fatalf("%d %s", a.status, a.body)
	}
	checkError(t, "while it is away", e.post("ada", responsesPath, said("x", `,"previous_response_id":"resp_1"`)), 503, "service_unavailable", "ledger_unavailable")
	owners.Break(nil)
	checkError(t, "afterwards", e.post("ada", responsesPath, said("x", `,"previous_response_id":"resp_1"`)), 404, "invalid_request_error", "not_found")
	if p.count() != 1 {
		t.Errorf("the provider was asked %d times", p.count())
	}
}

// TestTooManyReferences: the number of ids that are looked up for one request has a bound.
func TestTooManyReferences(t *testing.T) {
	t.Parallel()
	e, p := startRemembering(t, options{belongs: belongtest.NewMemory()})
	items := strings.Repeat(`{"type":"item_reference","id":"a"},`, 1025)
	a := e.post("eve", responsesPath, `{"model":"gpt-4.1","input":[`+strings.TrimSuffix(items, ",")+`]}`)
	checkError(t, "many", a, 400, "invalid_request_error", "invalid_value")
	if p.count() != 0 {
		t.Errorf("the provider was asked %d times", p.count())
	}
}
