package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider"
)

// greedy is the three providers at once, at their worst: it bills as much of what it was sent as an honest
// provider could. What that is it finds out by itself, from the body that came and from what the providers
// document, and shares it out over the kinds of tokens as it was told.
type greedy struct {
	t    *testing.T
	book *domain.PriceBook

	mu     sync.Mutex
	shares []int64 // in percent: how the next answer's totals split, from the first on
	tier   int     // which of the possible service tiers the next answer names
	exact  bool    // texts are as many tokens as their vocabulary says, where that is public
	last   string  // what it was sent and what it billed
}

// weight is what a body can come to.
type weight struct {
	text, images  int64
	input, output int64 // the totals
	opaque, audio bool  // there is input that the body does not show; there may be sound in it
	rounds        int64 // how often the whole input may be read
	searches      int64
}

// What the providers document of one image and of their templates, in tokens.
var (
	imageMost    = map[string]int64{"openai": 2_833 + 8*5_667, "anthropic": 4_784, "gemini": 20 * 258}
	templateMost = map[string]int64{"openai": 3, "anthropic": 4, "gemini": 8}
)

const (
	perMessage   = 4
	perTool      = 12
	anthropicUse = 530 // once, where there are tools
)

// texts are the fields whose strings a model reads; documents are read as JSON.
var (
	texts     = words("text content name description arguments title context data thinking refusal output instructions system prompt suffix input thought result")
	documents = words("parameters input_schema parametersJsonSchema schema responseJsonSchema responseSchema args response input_examples")
)

func words(list string) map[string]bool {
	out := map[string]bool{}
	for word := range strings.FieldsSeq(list) {
		out[word] = true
	}
	return out
}

// weigh adds up a part of a body.
func (w *weight) weigh(key string, v gjson.Result) {
	switch {
	case documents[key] && (v.IsObject() || v.IsArray()), key == "input" && v.IsObject():
		w.text += int64(len(v.Get("@ugly").Raw))
	case v.Type == gjson.String:
		if texts[key] {
			w.text += int64(len(v.Str))
		}
	case v.Type == gjson.Number:
		if texts[key] { // a prompt of tokens
			w.text++
		}
	case v.IsArray():
		v.ForEach(func(_, element gjson.Result) bool {
			w.weigh(key, element)
			return true
		})
	case v.IsObject():
		w.object(v)
	}
}

func (w *weight) object(v gjson.Result) {
	kind := v.Get("type").Str
	mime := v.Get("inlineData.mimeType").Str + v.Get("fileData.mimeType").Str
	switch {
	case kind == "image_url" || kind == "image" || kind == "input_image" || strings.HasPrefix(mime, "image/"):
		w.images++
		return
	case kind == "input_audio" || strings.HasPrefix(mime, "audio/") || strings.HasPrefix(mime, "video/"):
		w.opaque, w.audio = true, true
		return
	case mime != "" || kind == "file" || kind == "input_file" || kind == "document" && v.Get("source.type").Str != "text":
		w.opaque = true
		return
	}
	v.ForEach(func(key, value gjson.Result) bool {
		w.weigh(key.Str, value)
		return true
	})
}

// perhaps is some share of a number: all of it, or less.
func (g *greedy) perhaps(n int64) int64 {
	share := g.shares[0]
	g.shares = append(g.shares[1:], share)
	return n * share / 100
}

// of looks a model up by its provider's name of it.
func (g *greedy) of(providerName, upstream string) *domain.Model {
	for _, m := range g.book.Models() {
		if m.Provider == providerName && m.UpstreamName() == upstream {
			return m
		}
	}
	g.t.Errorf("%s was asked for %q", providerName, upstream)
	return &domain.Model{}
}

// ServeHTTP answers as the provider that the path belongs to.
func (g *greedy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		g.t.Error(err)
	}
	body, answer := gjson.ParseBytes(raw), ""
	switch path := r.URL.Path; {
	case strings.HasSuffix(path, "/chat/completions"):
		answer = g.chat(body)
	case strings.HasSuffix(path, "/responses"):
		answer = g.response(body)
	case strings.HasSuffix(path, "/completions"):
		answer = g.completion(body)
	case strings.HasSuffix(path, "/embeddings"):
		answer = g.embedding(body)
	case strings.HasSuffix(path, "/messages"):
		answer = g.message(body, r.Header)
	default:
		model, method, _ := strings.Cut(strings.TrimPrefix(path, "/v1beta/models/"), ":")
		answer = g.gemini(body, model, method)
	}
	g.last = string(raw) + "\n" + answer
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, answer) // a gateway that has gone away fails by itself
}

// total is the most input of a request that was weighed.
func (g *greedy) total(w *weight, name string, m *domain.Model, window int64) int64 {
	most := w.text + w.images*imageMost[name] + templateMost[name]
	if w.opaque || most > window {
		most = window
	}
	return g.perhaps(most * max(1, w.rounds))
}

// limit is the output that a request allows for one choice.
func limit(m *domain.Model, asked ...gjson.Result) int64 {
	for _, v := range asked {
		if v.Type == gjson.Number {
			return v.Int()
		}
	}
	return m.OutputLimit()
}

// tiers are the service tiers that OpenAI could answer a request for one with.
func (g *greedy) answered(asked string) string {
	could := []string{asked, "default"}
	if asked == "" || asked == "auto" {
		could = []string{"default", "flex", "priority", "scale"}
	}
	return could[g.tier%len(could)]
}

func (g *greedy) chat(body gjson.Result) string {
	m, w := g.of("openai", body.Get("model").Str), &weight{opaque: body.Get("web_search_options").Exists() || body.Get("x_unknown").Exists()}
	w.weigh("content", body.Get("messages"))
	for _, list := range []string{"tools", "functions", "response_format"} {
		w.weigh(list, body.Get(list))
	}
	w.text += perMessage*body.Get("messages.#").Int() + perTool*(body.Get("tools.#").Int()+body.Get("functions.#").Int())
	if tokens, exact := provider.CountPrompt(m.UpstreamName(), []byte(body.Raw)); g.exact && exact && w.images == 0 && !w.opaque {
		w.text = min(w.text, tokens)
	}
	w.input = g.total(w, "openai", m, m.Context)
	each := limit(m, body.Get("max_completion_tokens"), body.Get("max_tokens")) + int64(len(body.Get("prediction.content").Str))
	w.output = g.perhaps(each * max(1, body.Get("n").Int()))
	cached := g.perhaps(w.input)
	audioIn, audioOut := int64(0), int64(0)
	if w.audio {
		audioIn = g.perhaps(w.input - cached)
	}
	if body.Get("audio").Exists() {
		audioOut = g.perhaps(w.output)
	}
	return fmt.Sprintf(`{"id":"c","object":"chat.completion","created":1,"model":%q,"service_tier":%q,"choices":[{"index":0,"message":{"role":"assistant",`+
		`"content":"x"},"finish_reason":"stop"}],"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,`+
		`"prompt_tokens_details":{"cached_tokens":%d,"cache_write_tokens":%d,"audio_tokens":%d},"completion_tokens_details":{"reasoning_tokens":%d,"audio_tokens":%d}}}`,
		m.UpstreamName(), g.answered(body.Get("service_tier").Str), w.input, w.output, w.input+w.output, cached, g.perhaps(w.input-cached-audioIn), audioIn,
		g.perhaps(w.output-audioOut), audioOut)
}

func (g *greedy) response(body gjson.Result) string {
	m, w := g.of("openai", body.Get("model").Str), &weight{rounds: 1, opaque: body.Get("previous_response_id").Exists()}
	for _, part := range []string{"input", "instructions", "tools", "text"} {
		w.weigh(part, body.Get(part))
	}
	w.text += perMessage*(1+body.Get("input.#").Int()) + perTool*body.Get("tools.#").Int()
	if calls := body.Get("max_tool_calls").Int(); strings.Contains(body.Get("tools").Raw, `"web_search"`) {
		w.opaque, w.rounds, w.searches = true, 1+calls, calls
	}
	w.input = g.total(w, "openai", m, m.Context)
	w.output = g.perhaps(limit(m, body.Get("max_output_tokens")))
	var output strings.Builder
	for range w.searches {
		output.WriteString(`{"type":"web_search_call","id":"w","status":"completed","action":{"type":"search","query":"x"}},`)
	}
	cached := g.perhaps(w.input)
	return fmt.Sprintf(`{"id":"r","object":"response","created_at":1,"status":"completed","model":%q,"service_tier":%q,"output":[%s{"type":"message","id":"m",`+
		`"role":"assistant","status":"completed","content":[{"type":"output_text","text":"x","annotations":[]}]}],"usage":{"input_tokens":%d,`+
		`"input_tokens_details":{"cached_tokens":%d},"output_tokens":%d,"output_tokens_details":{"reasoning_tokens":%d},"total_tokens":%d}}`,
		m.UpstreamName(), g.answered(body.Get("service_tier").Str), output.String(), w.input, cached, w.output, g.perhaps(w.output), w.input+w.output)
}

func (g *greedy) completion(body gjson.Result) string {
	m, w := g.of("openai", body.Get("model").Str), &weight{}
	prompts := max(1, body.Get("prompt.#").Int())
	if body.Get("prompt.0").Type == gjson.Number {
		prompts = 1
	}
	w.weigh("prompt", body.Get("prompt"))
	w.text += prompts * int64(len(body.Get("suffix").Str))
	w.input = g.total(w, "openai", m, m.Context*prompts)
	w.output = g.perhaps(limit(m, body.Get("max_tokens")) * prompts * max(1, body.Get("n").Int(), body.Get("best_of").Int()))
	return fmt.Sprintf(`{"id":"t","object":"text_completion","created":1,"model":%q,"choices":[{"index":0,"text":"x","finish_reason":"stop","logprobs":null}],`+
		`"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}}`, m.UpstreamName(), w.input, w.output, w.input+w.output)
}

func (g *greedy) embedding(body gjson.Result) string {
	m, w := g.of("openai", body.Get("model").Str), &weight{}
	w.weigh("input", body.Get("input"))
	w.input = g.total(w, "openai", m, m.Context*max(1, body.Get("input.#").Int()))
	return fmt.Sprintf(`{"object":"list","model":%q,"data":[{"object":"embedding","index":0,"embedding":[0.5]}],"usage":{"prompt_tokens":%d,"total_tokens":%d}}`,
		m.UpstreamName(), w.input, w.input)
}

// anthropicTools is what tools bring beside their own JSON.
func (w *weight) anthropicTools(tools gjson.Result) {
	for i, tool := range tools.Array() {
		w.text += perTool
		if i == 0 {
			w.text += anthropicUse
		}
		switch kind := tool.Get("type").Str; {
		case strings.HasPrefix(kind, "web_search_"):
			uses := tool.Get("max_uses").Int()
			w.opaque, w.searches, w.rounds = true, w.searches+uses, w.rounds+uses
			if kind != "web_search_20250305" { // it runs code, too
				w.rounds += 10
			}
		case strings.HasPrefix(kind, "bash_"):
			w.text += 245
		}
	}
}

func (g *greedy) message(body gjson.Result, header http.Header) string {
	m, w := g.of("anthropic", body.Get("model").Str), &weight{rounds: 1}
	for _, part := range []string{"system", "messages", "tools", "output_config"} {
		w.weigh(part, body.Get(part))
	}
	w.text += perMessage * body.Get("messages.#").Int()
	w.anthropicTools(body.Get("tools"))
	output, window := body.Get("max_tokens").Int(), m.Context
	if strings.Contains(body.Get("context_management").Raw, "compact_") {
		w.opaque, w.rounds, output = true, w.rounds+1, 2*output
	}
	if strings.Contains(header.Get("Anthropic-Beta"), "context-1m") {
		window = 1_000_000
	}
	w.input, w.output = g.total(w, "anthropic", m, window), g.perhaps(output)
	read := g.perhaps(w.input)
	written := g.perhaps(w.input - read)
	hour := g.perhaps(written)
	tier := []string{"standard", "priority"}[g.tier%2]
	if body.Get("service_tier").Str == "standard_only" {
		tier = "standard"
	}
	return fmt.Sprintf(`{"id":"m","type":"message","role":"assistant","model":%q,"content":[{"type":"text","text":"x"}],"stop_reason":"end_turn","stop_sequence":null,`+
		`"usage":{"input_tokens":%d,"cache_read_input_tokens":%d,"cache_creation_input_tokens":%d,"cache_creation":{"ephemeral_5m_input_tokens":%d,`+
		`"ephemeral_1h_input_tokens":%d},"output_tokens":%d,"service_tier":%q,"server_tool_use":{"web_search_requests":%d}}}`,
		m.UpstreamName(), w.input-read-written, read, written, written-hour, hour, w.output, tier, g.perhaps(w.searches))
}

func (g *greedy) gemini(body gjson.Result, model, method string) string {
	m, w := g.of("gemini", model), &weight{rounds: 1}
	if strings.HasSuffix(method, "Contents") || method == "embedContent" {
		w.weigh("requests", body)
		w.input = g.total(w, "gemini", m, m.Context*max(1, body.Get("requests.#").Int()))
		return fmt.Sprintf(`{"embedding":{"values":[0.5]},"embeddings":[{"values":[0.5]}],"usageMetadata":{"promptTokenCount":%d}}`, w.input)
	}
	for _, part := range []string{"contents", "systemInstruction", "tools", "generationConfig"} {
		w.weigh(part, body.Get(part))
	}
	w.text += perMessage*(1+body.Get("contents.#").Int()) + perTool*body.Get("tools.0.functionDeclarations.#").Int()
	tools := body.Get("tools").Raw
	if strings.Contains(tools, `"codeExecution"`) || strings.Contains(tools, `"urlContext"`) {
		w.opaque, w.rounds = true, 6
	}
	if strings.Contains(tools, `"googleSearch"`) {
		w.opaque, w.searches = true, 1+g.perhaps(9)
	}
	w.input = g.total(w, "gemini", m, m.Context)
	c := body.Get("generationConfig")
	w.output = g.perhaps(limit(m, c.Get("maxOutputTokens")) * max(1, c.Get("candidateCount").Int()))
	used, cached, thoughts, audio := g.perhaps(w.input), g.perhaps(w.input), g.perhaps(w.output), int64(0)
	if w.audio {
		audio = g.perhaps(w.input)
	}
	tier := "STANDARD"
	if asked := body.Get("serviceTier").Str; asked != "" && g.tier%2 == 0 {
		tier = strings.ToUpper(asked)
	}
	return fmt.Sprintf(`{"candidates":[{"index":0,"content":{"role":"model","parts":[{"text":"x"}]},"finishReason":"STOP","groundingMetadata":{"webSearchQueries":[%s]}}],`+
		`"modelVersion":%q,"responseId":"g","usageMetadata":{"promptTokenCount":%d,"toolUsePromptTokenCount":%d,"cachedContentTokenCount":%d,"candidatesTokenCount":%d,`+
		`"thoughtsTokenCount":%d,"promptTokensDetails":[{"modality":"AUDIO","tokenCount":%d}],"serviceTier":%q}}`,
		strings.TrimSuffix(strings.Repeat(`"q",`, int(w.searches)), ","), m.UpstreamName(), w.input-used, used, min(cached, w.input-used), w.output-thoughts, thoughts,
		min(audio, w.input-used), tier)
}

// pricedModels are the models of the book that can be called now, of one mode and provider.
func pricedModels(book *domain.PriceBook, providerName string, modes ...domain.Mode) (names []string) {
	for _, m := range book.Models() {
		for _, mode := range modes {
			if _, _, err := book.Lookup(m.Provider+"/"+m.Name, time.Now()); err == nil && m.Mode == mode && m.Provider == providerName {
				names = append(names, m.Name)
			}
		}
	}
	return names
}
