package provider

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// TestTermsOfTools: what a provider runs itself is bounded or refused, by name.
func TestTermsOfTools(t *testing.T) {
	anthropic, err1 := NewAnthropic(Config{BaseURL: "http://127.0.0.1:1"})
	gemini, err2 := NewGemini(Config{BaseURL: "http://127.0.0.1:1"})
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	const search = `{"type":"web_search_20250305","name":"web_search","max_uses":`
	for _, c := range []struct {
		p             *Native
		more          string
		param         string // refused by this; "" = accepted
		searches      int64
		rounds, above int64
	}{
		{anthropic, ``, "", 0, 1, anthropicOverhead},
		{anthropic, `,"web_search_options":{}`, "", 5, 6, anthropicOverhead},
		{anthropic, `,"tools":[` + search + `3}]`, "", 3, 4, anthropicToolOverhead},
		{anthropic, `,"tools":[{"type":"web_search_20260209","name":"web_search","max_uses":3}]`, "", 3, 14, anthropicToolOverhead}, // it runs code, too
		{anthropic, `,"context_management":{"edits":[{"type":"clear_thinking_20251015"}]}`, "", 0, 1, anthropicOverhead},
		{anthropic, `,"context_management":{"edits":[{"type":"clear_thinking_20251015"},{"type":"compact_20260112"}]}`, "context_management.edits[1]", 0, 0, 0},
		{anthropic, `,"tools":[` + search + `0}]`, "tools[0].max_uses", 0, 0, 0},
		{anthropic, `,"tools":[` + search + `1e9}]`, "tools[0].max_uses", 0, 0, 0},
		{anthropic, `,"tools":[` + search + `2.5}]`, "tools[0].max_uses", 0, 0, 0},
		{anthropic, `,"tools":[` + search + `null}]`, "tools[0].max_uses", 0, 0, 0},
		{anthropic, `,"tools":[{"type":"code_execution_20250825","name":"code_execution"}]`, "tools[0].type", 0, 0, 0},
		{anthropic, `,"logit_bias":{"1":2}`, "logit_bias", 0, 0, 0},
		{gemini, ``, "", 0, 0, geminiOverhead},
		{gemini, `,"web_search_options":{}`, "", 10, 0, geminiOverhead},
		{gemini, `,"tools":[{"type":"google_search"}]`, "", 10, 0, geminiOverhead},
		{gemini, `,"tools":[{"type":"function","function":{"name":"f"}}]`, "", 0, 0, geminiOverhead},
		{gemini, `,"tools":[{"type":"code_execution"}]`, "", 0, 6, geminiOverhead},
		{gemini, `,"tools":[{"type":"url_context"},{"type":"google_search"}]`, "", 10, 6, geminiOverhead},
	} {
		r := Request{Model: "claude-sonnet-4-5", MaxOutput: 1000, Body: []byte(`{"messages":[{"role":"user","content":"x"}]` + c.more + `}`)}
		terms, err := c.p.Prepare(&r)
		unsupported := new(chat.Unsupported)
		if c.param != "" {
			if !errors.As(err, &unsupported) || unsupported.Param != c.param {
				t.Errorf("%s: %v; want a refusal of %s", c.more, err, c.param)
			}
			continue
		}
		if err != nil || terms.Searches != c.searches || terms.Rounds != c.rounds || terms.Overhead != c.above {
			t.Errorf("%s: %+v, %v", c.more, terms, err)
		}
	}
}

// TestTermsOfWindow: who asks for a larger context window is bounded by it, on every surface.
func TestTermsOfWindow(t *testing.T) {
	anthropic, err := NewAnthropic(Config{BaseURL: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, surface := range []string{chat.SurfaceChat, chat.SurfaceMessages} {
		for _, c := range []struct {
			beta []string
			want int64
		}{
			{nil, 0}, {[]string{"interleaved-thinking-2025-05-14"}, 0},
			{[]string{"context-1m-2025-08-07"}, 1_000_000}, {[]string{"a", "b, context-1m-2025-08-07"}, 1_000_000},
		} {
			r := Request{Surface: surface, Model: "claude-sonnet-4-5", MaxOutput: 10, Header: http.Header{"Anthropic-Beta": c.beta},
				Body: []byte(`{"max_tokens":9,"messages":[{"role":"user","content":"x"}]}`)}
			if terms, err := anthropic.Prepare(&r); err != nil || terms.Window != c.want {
				t.Errorf("%s with %q: %+v, %v", surface, c.beta, terms, err)
			}
		}
	}
}

// TestTermsOfSound: Google bills sound apart, and takes it in several kinds of parts.
func TestTermsOfSound(t *testing.T) {
	gemini, err := NewGemini(Config{BaseURL: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	for part, want := range map[string]bool{
		`{"type":"text","text":"x"}`: false,
		`{"type":"image_url","image_url":{"url":"data:image/png;base64,AA=="}}`:       false,
		`{"type":"image_url","image_url":{"url":"data:audio/mp3;base64,AA=="}}`:       true,
		`{"type":"image_url","image_url":{"url":"https://example.com/a.jpg?x=.mp4"}}`: false,
		`{"type":"image_url","image_url":{"url":"https://example.com/film.mp4"}}`:     true,
		`{"type":"image_url","image_url":{"url":"https://example.com/watch?v=1"}}`:    true,
		`{"type":"input_audio","input_audio":{"data":"AA==","format":"wav"}}`:         true,
		`{"type":"file","file":{"file_data":"data:video/mp4;base64,AA=="}}`:           true,
		`{"type":"file","file":{"file_data":"data:application/pdf;base64,AA=="}}`:     false,
		`{"type":"file","file":{"file_id":"files/abc"}}`:                              true,
		`{"type":"file","file":{"file_id":"files/abc","filename":"notes.txt"}}`:       false,
	} {
		r := Request{Model: "gemini-2.5-flash", MaxOutput: 10, Body: []byte(`{"messages":[{"role":"user","content":[` + part + `]}]}`)}
		if terms, err := gemini.Prepare(&r); err != nil || terms.AudioIn != want {
			t.Errorf("%s: %+v, %v", part, terms, err)
		}
	}
}

// natives are clients of both providers at one server.
func natives(t *testing.T, handler http.HandlerFunc) map[string]*Native {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	anthropic, err1 := NewAnthropic(Config{BaseURL: server.URL + "/v1", APIKey: "the-key"})
	gemini, err2 := NewGemini(Config{BaseURL: server.URL + "/v1beta/", APIKey: "the-key"})
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(anthropic.CloseIdle)
	t.Cleanup(gemini.CloseIdle)
	return map[string]*Native{"anthropic": anthropic, "gemini": gemini}
}

// TestNativeAddresses: each provider is asked where, and with the credentials, that it wants; the client's
// own never leave, but for the version of Anthropic's API.
func TestNativeAddresses(t *testing.T) {
	var got *http.Request
	all := natives(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		w.WriteHeader(http.StatusTeapot)
	})
	client := http.Header{"Authorization": {"Bearer mine"}, "X-Api-Key": {"mine"}, "X-Goog-Api-Key": {"mine"}, "Anthropic-Version": {"2099-01-01"}}
	for _, c := range []struct {
		name, want, key string
		stream          bool
	}{
		{"anthropic", "/v1/messages", "X-Api-Key", false},
		{"anthropic", "/v1/messages", "X-Api-Key", true},
		{"gemini", "/v1beta/models/the-model:generateContent", "X-Goog-Api-Key", false},
		{"gemini", "/v1beta/models/the-model:streamGenerateContent?alt=sse", "X-Goog-Api-Key", true},
	} {
		r := Request{Model: "the-model", MaxOutput: 10, Header: client, Body: []byte(`{"messages":[{"role":"user","content":"x"}]}`)}
		var err error
		if c.stream {
			_, err = all[c.name].Stream(t.Context(), r)
		} else {
			_, err = all[c.name].Complete(t.Context(), r)
		}
		wantError(t, c.want, err, KindRejected, http.StatusTeapot)
		if got.URL.RequestURI() != c.want || got.Header.Get(c.key) != "the-key" || strings.Contains(got.URL.RequestURI(), "the-key") {
			t.Errorf("%s: %s %v", c.name, got.URL.RequestURI(), got.Header)
		}
		for name, values := range got.Header {
			if strings.Contains(strings.Join(values, " "), "mine") {
				t.Errorf("%s: the client's %s went upstream", c.name, name)
			}
		}
		if version := got.Header.Get("Anthropic-Version"); c.name == "anthropic" && version != "2099-01-01" {
			t.Errorf("version %q", version)
		}
		r.Header = nil
		_, _ = all[c.name].Complete(t.Context(), r) // for its headers
		if version := got.Header.Get("Anthropic-Version"); (c.name == "anthropic") != (version == anthropicVersion) {
			t.Errorf("%s: version %q", c.name, version)
		}
	}
}

// TestNativeErrors: errors come in OpenAI's shape, wrong credentials never as the client's fault, and nothing
// that repeats the key.
func TestNativeErrors(t *testing.T) {
	status, body := 0, ""
	all := natives(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
	for _, c := range []struct {
		name   string
		status int
		body   string
		kind   Kind
		typ    string // of the error that the client gets; "" = no body
		after  string
	}{
		{"anthropic", 400, `{"type":"error","error":{"type":"invalid_request_error","message":"max_tokens: too large"}}`, KindRejected, "invalid_request_error", ""},
		{"anthropic", 529, `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`, KindUpstream, "server_error", ""},
		{"anthropic", 401, `{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}`, KindAuth, "", ""},
		{"anthropic", 400, `{"type":"error","error":{"type":"invalid_request_error","message":"the-key"}}`, KindRejected, "", ""},
		{"anthropic", 502, `<html>`, KindUpstream, "", ""},
		{"gemini", 400, `{"error":{"code":400,"message":"API key not valid","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID"}]}}`, KindAuth, "", ""},
		{"gemini", 429, `{"error":{"code":429,"message":"quota","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34.07s"}]}}`, KindRejected, "rate_limit_error", "35"},
		{"gemini", 500, `{"error":{"code":500,"message":"x","status":"INTERNAL"}}`, KindUpstream, "server_error", ""},
		{"gemini", 404, `[{"error":{"code":404,"message":"no model","status":"NOT_FOUND"}}]`, KindRejected, "invalid_request_error", ""},
	} {
		status, body = c.status, c.body
		_, err := all[c.name].Complete(t.Context(), Request{Model: "m", MaxOutput: 10, Body: []byte(`{"messages":[{"role":"user","content":"x"}]}`)})
		e := wantError(t, c.name+" "+c.body, err, c.kind, c.status)
		if typ := gjson.GetBytes(e.Body, "error.type").Str; typ != c.typ || (e.Body == nil) != (c.typ == "") || e.RetryAfter != c.after {
			t.Errorf("%s %d: %s, %q", c.name, c.status, e.Body, e.RetryAfter)
		}
	}
}
