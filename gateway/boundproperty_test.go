package gateway_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"llm-gateway/cmd/llm-gateway/pricebook"
	"llm-gateway/domain"
)

type object = map[string]any

// drawn makes requests out of what rapid draws.
type drawn struct{ *rapid.T }

// maybe says yes once in so many times.
func (d drawn) maybe(what string, in int) bool { return rapid.IntRange(1, in).Draw(d.T, what) == 1 }

func (d drawn) text() string {
	if d.maybe("long", 150) {
		return strings.Repeat("what a long story ", 20_000) // beyond the thresholds of the prices
	}
	return "t" + text().Draw(d.T, "text")
}

func (d drawn) one(what string, of ...any) any { return rapid.SampledFrom(of).Draw(d.T, what) }

func (d drawn) name() string { return rapid.StringMatching(`[a-z_]{1,12}`).Draw(d.T, "name") }

func (d drawn) schema() object {
	properties := object{}
	for range rapid.IntRange(0, 4).Draw(d.T, "properties") {
		properties[d.name()] = object{"type": d.one("type", "string", "integer"), "description": d.text()}
	}
	return object{"type": "object", "properties": properties}
}

// picture is an image of 1 x 1, or one that says so: what it counts as is the provider's to say.
var picture = base64.StdEncoding.EncodeToString([]byte("\x89PNG\r\n\x1a\n not much of it"))

// list makes up to most elements.
func list(d drawn, what string, least, most int, element func() any) []any {
	out := []any{}
	for range rapid.IntRange(least, most).Draw(d.T, what) {
		out = append(out, element())
	}
	return out
}

// chatRequest is a chat completion for any model.
func (d drawn) chatRequest(model string) object {
	b := object{"model": model}
	messages := list(d, "earlier", 0, 3, d.chatMessage)
	if d.maybe("called", 3) {
		messages = append(messages, object{"role": "user", "content": d.text()}, object{"role": "assistant", "content": nil, "tool_calls": []any{
			object{"id": "c1", "type": "function", "function": object{"name": d.name(), "arguments": `{"a":"` + rapid.StringMatching(`[a-z ]{0,40}`).Draw(d.T, "a") + `"}`}}}},
			object{"role": "tool", "tool_call_id": "c1", "content": d.text()})
	}
	content := any(d.text())
	if d.maybe("parts", 2) {
		content = list(d, "parts", 1, 4, d.chatPart)
	}
	b["messages"] = append(messages, object{"role": "user", "content": content})
	d.chatLimits(b)
	d.chatTools(b)
	return b
}

func (d drawn) chatMessage() any {
	m := object{"role": d.one("role", "system", "user", "assistant"), "content": d.text()}
	if d.maybe("marked", 6) {
		m["content"] = []any{object{"type": "text", "text": d.text(), "cache_control": object{"type": "ephemeral", "ttl": "1h"}}}
	}
	return m
}

func (d drawn) chatPart() any {
	switch rapid.IntRange(0, 9).Draw(d.T, "part") {
	case 0, 1:
		return object{"type": "image_url", "image_url": object{"url": "data:image/png;base64," + picture, "detail": d.one("detail", "low", "high", "auto")}}
	case 2:
		return object{"type": "image_url", "image_url": object{"url": d.one("link", "https://example.com/a.png", "https://example.com/film.mp4", "https://example.com/it")}}
	case 3:
		return object{"type": "file", "file": object{"filename": "a", "file_data": "data:" + d.one("kind", "application/pdf", "audio/mp3").(string) + ";base64,AAAA"}}
	case 4:
		return object{"type": "input_audio", "input_audio": object{"data": "AAAA", "format": "wav"}}
	}
	return object{"type": "text", "text": d.text()}
}

// chatLimits are the parameters that change how much there may be of something.
func (d drawn) chatLimits(b object) {
	for name, most := range map[string]int{"n": 4, "max_tokens": 5000, "max_completion_tokens": 5000} {
		if d.maybe(name, 4) {
			b[name] = rapid.IntRange(1, most).Draw(d.T, name)
		}
	}
	if d.maybe("tier", 3) {
		b["service_tier"] = d.one("tier", "auto", "default", "flex", "priority")
	}
	if d.maybe("effort", 6) {
		b["reasoning_effort"] = d.one("effort", "low", "high")
	}
	if d.maybe("predicted", 10) {
		b["prediction"] = object{"type": "content", "content": d.text()}
	}
	if d.maybe("spoken", 10) {
		b["modalities"], b["audio"] = []any{"text", "audio"}, object{"voice": "alloy", "format": "wav"}
	}
	if d.maybe("unheard of", 20) {
		b["x_unknown"] = 1
	}
	if d.maybe("edited", 20) {
		b["context_management"] = object{"edits": []any{object{"type": d.one("edit", "clear_tool_uses_20250919", "compact_20260112")}}}
	}
}

func (d drawn) chatTools(b object) {
	if d.maybe("tools", 3) {
		b["tools"] = list(d, "tools", 1, 3, func() any {
			if d.maybe("the provider's", 5) {
				return d.one("own", object{"type": "google_search"}, object{"type": "code_execution"}, object{"type": "url_context"},
					object{"type": "web_search_20250305", "name": "web_search", "max_uses": 2}, object{"type": "web_search_20260209", "name": "web_search", "max_uses": 2})
			}
			return object{"type": "function", "function": object{"name": d.name(), "description": d.text(), "parameters": d.schema(), "strict": d.maybe("strict", 3)}}
		})
	}
	if d.maybe("formed", 6) {
		b["response_format"] = object{"type": "json_schema", "json_schema": object{"name": "s", "schema": d.schema()}}
	}
	if d.maybe("searching", 10) {
		b["web_search_options"] = object{}
	}
}

// messagesRequest is one of Anthropic's Messages.
func (d drawn) messagesRequest(model string) object {
	b := object{"model": model, "max_tokens": rapid.IntRange(1, 5000).Draw(d.T, "max_tokens")}
	messages := []any{object{"role": "user", "content": d.text()}}
	if d.maybe("called", 3) {
		messages = append(messages, object{"role": "assistant", "content": []any{object{"type": "tool_use", "id": "c1", "name": d.name(), "input": object{"a": d.text()}}}},
			object{"role": "user", "content": []any{object{"type": "tool_result", "tool_use_id": "c1", "content": list(d, "results", 0, 2, d.block)}}})
	} else {
		messages = append(messages, object{"role": "assistant", "content": d.text()}, object{"role": "user", "content": list(d, "blocks", 1, 4, d.block)})
	}
	b["messages"] = messages
	if d.maybe("system", 2) {
		b["system"] = d.text()
	}
	if d.maybe("tools", 3) {
		b["tools"] = list(d, "tools", 1, 3, func() any {
			return d.one("tool", object{"name": d.name(), "description": d.text(), "input_schema": d.schema()}, object{"name": d.name(), "input_schema": d.schema()},
				object{"type": "web_search_20250305", "name": "web_search", "max_uses": 2}, object{"type": "web_search_20260209", "name": "web_search"},
				object{"type": "bash_20250124", "name": "bash"})
		})
	}
	if d.maybe("tier", 3) {
		b["service_tier"] = d.one("tier", "auto", "standard_only")
	}
	if d.maybe("edited", 10) {
		b["context_management"] = object{"edits": []any{object{"type": d.one("edit", "clear_tool_uses_20250919", "compact_20260112")}}}
	}
	return b
}

func (d drawn) block() any {
	switch rapid.IntRange(0, 6).Draw(d.T, "block") {
	case 0:
		return object{"type": "image", "source": object{"type": "base64", "media_type": "image/png", "data": picture}}
	case 1:
		return object{"type": "image", "source": object{"type": "url", "url": "https://example.com/a.png"}}
	case 2:
		return object{"type": "document", "source": d.one("source", object{"type": "text", "media_type": "text/plain", "data": d.text()},
			object{"type": "base64", "media_type": "application/pdf", "data": "AAAA"})}
	}
	return object{"type": "text", "text": d.text(), "cache_control": object{"type": "ephemeral", "ttl": d.one("ttl", "5m", "1h")}}
}

// generateRequest is one of Google's generateContent.
func (d drawn) generateRequest() object {
	contents := []any{object{"role": "user", "parts": []any{object{"text": d.text()}}}}
	if d.maybe("called", 3) {
		name := d.name()
		contents = append(contents, object{"role": "model", "parts": []any{object{"functionCall": object{"name": name, "args": object{"a": d.text()}}}}},
			object{"role": "user", "parts": []any{object{"functionResponse": object{"name": name, "response": object{"result": d.text()}}}}})
	} else {
		contents = append(contents, object{"role": "user", "parts": list(d, "parts", 1, 4, d.googlePart)})
	}
	config := object{}
	for name, most := range map[string]int{"maxOutputTokens": 5000, "candidateCount": 3} {
		if d.maybe(name, 3) {
			config[name] = rapid.IntRange(1, most).Draw(d.T, name)
		}
	}
	if d.maybe("formed", 5) {
		config["responseMimeType"], config["responseJsonSchema"] = "application/json", d.schema()
	}
	b := object{"contents": contents, "generationConfig": config}
	if d.maybe("system", 3) {
		b["systemInstruction"] = object{"parts": []any{object{"text": d.text()}}}
	}
	if d.maybe("tools", 3) {
		b["tools"] = []any{d.one("tool", object{"googleSearch": object{}}, object{"codeExecution": object{}}, object{"urlContext": object{}},
			object{"functionDeclarations": list(d, "functions", 1, 3, func() any {
				return object{"name": d.name(), "description": d.text(), "parametersJsonSchema": d.schema()}
			})})}
	}
	if d.maybe("tier", 4) {
		b["serviceTier"] = d.one("tier", "flex", "priority", "standard")
	}
	return b
}

func (d drawn) googlePart() any {
	switch rapid.IntRange(0, 7).Draw(d.T, "part") {
	case 0:
		return object{"inlineData": object{"mimeType": "image/png", "data": picture}}
	case 1:
		return object{"inlineData": object{"mimeType": d.one("kind", "application/pdf", "audio/mp3"), "data": "AAAA"}}
	case 2:
		return object{"fileData": object{"mimeType": d.one("kind", "image/png", "video/mp4"), "fileUri": "https://example.com/a"}}
	}
	return object{"text": d.text()}
}

// responsesRequest is one of OpenAI's Responses.
func (d drawn) responsesRequest(model string) object {
	b := object{"model": model, "input": d.text()}
	if d.maybe("items", 2) {
		b["input"] = append(list(d, "earlier", 0, 2, func() any {
			return object{"role": d.one("role", "developer", "user", "assistant"), "content": d.text()}
		}),
			object{"role": "user", "content": list(d, "parts", 1, 3, d.inputPart)})
	}
	if d.maybe("limited", 3) {
		b["max_output_tokens"] = rapid.IntRange(16, 5000).Draw(d.T, "max_output_tokens")
	}
	if d.maybe("tools", 3) {
		b["tools"] = list(d, "tools", 1, 3, func() any {
			return d.one("tool", object{"type": "function", "name": d.name(), "description": d.text(), "parameters": d.schema()}, object{"type": "web_search"})
		})
	}
	if d.maybe("calls limited", 5) {
		b["max_tool_calls"] = rapid.IntRange(1, 4).Draw(d.T, "max_tool_calls")
	}
	if d.maybe("formed", 6) {
		b["text"] = object{"format": object{"type": "json_schema", "name": "s", "schema": d.schema()}}
	}
	if d.maybe("tier", 3) {
		b["service_tier"] = d.one("tier", "auto", "default", "flex", "priority")
	}
	if d.maybe("instructed", 3) {
		b["instructions"] = d.text()
	}
	return b
}

func (d drawn) inputPart() any {
	switch rapid.IntRange(0, 5).Draw(d.T, "part") {
	case 0:
		return object{"type": "input_image", "image_url": "data:image/png;base64," + picture}
	case 1:
		return object{"type": "input_file", "filename": "a", "file_data": "data:" + d.one("kind", "application/pdf", "audio/mp3").(string) + ";base64,AAAA"}
	}
	return object{"type": "input_text", "text": d.text()}
}

// completionsRequest is one of OpenAI's older completions.
func (d drawn) completionsRequest(model string) object {
	b := object{"model": model, "prompt": d.one("prompt", d.text(), []any{d.text(), d.text()}, []any{1, 22, 333}, []any{[]any{1, 2}, []any{3}})}
	for name, most := range map[string]int{"n": 3, "best_of": 4, "max_tokens": 2000} {
		if d.maybe(name, 3) {
			b[name] = rapid.IntRange(1, most).Draw(d.T, name)
		}
	}
	if d.maybe("suffixed", 8) {
		b["suffix"] = d.text()
	}
	if d.maybe("echoed", 5) {
		b["echo"] = true
	}
	return b
}

func (d drawn) embeddingsRequest(model string) object {
	return object{"model": model, "input": d.one("input", d.text(), []any{d.text(), d.text()}, []any{1, 22, 333}, []any{[]any{1, 2}, []any{3}})}
}

func (d drawn) embedRequest() object {
	one := func() any {
		return object{"content": object{"parts": list(d, "parts", 1, 2, func() any { return object{"text": d.text()} })}}
	}
	return object{"requests": list(d, "requests", 1, 3, one)}
}

// asks are the surfaces: what is asked where, of models of which modes.
var asks = []struct {
	name  string
	modes []domain.Mode
	ask   func(d drawn, model string) (path string, body object)
}{
	{"chat", []domain.Mode{domain.ModeChat}, func(d drawn, m string) (string, object) { return chatPath, d.chatRequest(m) }},
	{"messages", []domain.Mode{domain.ModeChat}, func(d drawn, m string) (string, object) { return "/v1/messages", d.messagesRequest(m) }},
	{"generate", []domain.Mode{domain.ModeChat}, func(d drawn, m string) (string, object) {
		return "/v1beta/models/" + m + ":generateContent", d.generateRequest()
	}},
	{"responses", []domain.Mode{domain.ModeChat}, func(d drawn, m string) (string, object) { return "/v1/responses", d.responsesRequest(m) }},
	{"completions", []domain.Mode{domain.ModeChat, domain.ModeCompletion}, func(d drawn, m string) (string, object) {
		return "/v1/completions", d.completionsRequest(m)
	}},
	{"embeddings", []domain.Mode{domain.ModeEmbedding}, func(d drawn, m string) (string, object) { return "/v1/embeddings", d.embeddingsRequest(m) }},
	{"embed", []domain.Mode{domain.ModeEmbedding}, func(d drawn, m string) (string, object) {
		return "/v1beta/models/" + m + ":batchEmbedContents", d.embedRequest()
	}},
}

// TestNobodyIsBilledBeyondTheBound: whatever is asked by any surface of any model of the built-in book, a
// provider that bills as much as an honest one could stays within what was reserved. The audit at the end
// knows no overage here.
func TestNobodyIsBilledBeyondTheBound(t *testing.T) {
	t.Parallel()
	for _, balance := range []string{"100000", "0.05"} {
		g := &greedy{t: t, book: pricebook.Builtin(), exact: balance != "100000"}
		server := httptest.NewServer(g)
		t.Cleanup(server.Close)
		e := start(t, options{providers: allThree(t, server.URL, nil), balance: balance})
		served, n := map[string]int{}, 0
		for _, s := range asks {
			models := map[string][]string{}
			for _, name := range []string{"openai", "anthropic", "gemini"} {
				if of := pricedModels(g.book, name, s.modes...); len(of) > 0 {
					models[name] = of
				}
			}
			rapid.Check(t, func(rt *rapid.T) {
				n++
				d := drawn{rt}
				name := rapid.SampledFrom(slices.Sorted(maps.Keys(models))).Draw(rt, "provider")
				path, asked := s.ask(d, rapid.SampledFrom(models[name]).Draw(rt, "model"))
				g.told(d)
				if e.bounded(rt, g, fmt.Sprintf("lina-%d", n), path, asked, d.maybe("long context", 8)) {
					served[s.name+" by "+name]++
				}
			})
		}
		t.Logf("with %s: %v", balance, served)
	}
}

// told tells the providers how to split what they bill.
func (g *greedy) told(d drawn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shares, g.last = rapid.SliceOfN(rapid.OneOf(rapid.Just(int64(100)), rapid.Int64Range(0, 100)), 12, 12).Draw(d.T, "shares"), ""
	g.tier = rapid.IntRange(0, 11).Draw(d.T, "answered tier")
}

// bounded sends one request and holds what it was charged against what was reserved; false: it was refused.
func (e *env) bounded(t *rapid.T, g *greedy, account, path string, asked object, long bool) bool {
	body, err := json.Marshal(asked)
	if err != nil {
		t.Fatal(err)
	}
	r := e.request(http.MethodPost, account, path, string(body))
	if long {
		r.Header.Set("Anthropic-Beta", "context-1m-2025-08-07")
	}
	a := e.do(r)
	if a.status == 400 || a.status == 402 || a.status == 404 {
		return false
	}
	l := e.life(account, a.id())
	if a.status != 200 || l.commit == nil || l.overage != nil || l.reserve.Amount.Less(l.commit.Amount) {
		t.Fatalf("%s %s: %d %.300s, %q: %+v for %.3000s\nsent %.3000s", path, account, a.status, a.body, l, l.reserve, body, g.last)
	}
	bound, m := l.reserve.Data.(*domain.ReserveData).Bound, l.commitData().Meters
	if m.InputTokens() > bound.Input || m.OutputTokens() > bound.Output || l.commitData().UsageSource != domain.UsageProvider {
		t.Fatalf("%s: used %v of %+v for %.3000s\nsent %.3000s", path, m, bound, body, g.last)
	}
	return true
}
