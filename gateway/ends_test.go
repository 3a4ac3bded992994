package gateway_test

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider"
)

// TestProviderStatus: what a provider's refusals and failures become, whole and streamed, from this
// process and over HTTP. Nothing was delivered, so everything is refunded.
func TestProviderStatus(t *testing.T) {
	t.Parallel()
	providers, _ := both(t)
	e := start(t, options{providers: providers})
	for _, c := range []struct {
		upstream, status string
		want             int
		kind, code       string // "" = the provider's own error is passed on
		retryAfter       string
	}{
		{"400", "refused", 400, "", "", ""},
		{"404", "refused", 404, "", "", ""},
		{"409", "refused", 409, "", "", ""},
		{"422", "refused", 422, "", "", ""},
		{"429", "refused", 429, "", "", "1"},
		{"402", "our account", 502, "upstream_error", "upstream_error", ""},
		{"401", "our key", 502, "upstream_error", "upstream_auth", ""},
		{"403", "our key", 502, "upstream_error", "upstream_auth", ""},
		{"500", "failed", 502, "upstream_error", "upstream_error", ""},
		{"503", "failed", 502, "upstream_error", "upstream_error", ""},
		{"529", "failed", 502, "upstream_error", "upstream_error", ""},
	} {
		for _, model := range []string{"sim-small", "gpt-4o-mini"} {
			for _, path := range []string{chatPath, streamPath} {
				name := c.upstream + " of " + model + " at " + path
				a := e.post("wim", path, chatBody(model, "sim:status="+c.upstream, ""))
				if c.kind != "" {
					checkError(t, name, a, c.want, c.kind, c.code)
				} else if a.status != c.want || a.json("error.message").Str != "Simulated failure with status "+c.upstream+"." {
					t.Errorf("%s: %d %s", name, a.status, a.body)
				}
				if a.header.Get("Retry-After") != c.retryAfter || strings.Contains(a.body, "the-upstream-key") {
					t.Errorf("%s: Retry-After %q: %s", name, a.header.Get("Retry-After"), a.body)
				}
				if l := e.life("wim", a.id()); l.String() != "reserve refund(provider_error)" {
					t.Errorf("%s: %q", name, l)
				}
			}
		}
	}
	if e.available("wim") != "100" {
		t.Errorf("%s is left of 100", e.available("wim"))
	}
}

func TestProviderTimeout(t *testing.T) {
	t.Parallel()
	upstream := httptest.NewServer(provider.Handler(provider.NewSimulated()))
	t.Cleanup(upstream.Close)
	openai, err := provider.NewOpenAI(provider.Config{BaseURL: upstream.URL, HeaderTimeout: 150 * time.Millisecond, IdleTimeout: 150 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(openai.CloseIdle)
	gone, err := provider.NewOpenAI(provider.Config{BaseURL: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	e := start(t, options{providers: map[string]provider.Provider{"openai": openai, "anthropic": gone}})
	for _, path := range []string{chatPath, streamPath} {
		a := e.post("xena", path, chatBody("gpt-4o", "sim:delay=30s", ""))
		checkError(t, path, a, 504, "upstream_error", "upstream_timeout")
		if l := e.life("xena", a.id()); l.String() != "reserve refund(provider_error)" {
			t.Errorf("%s: %q", path, l)
		}
		checkError(t, path, e.post("xena", path, chatBody("claude-2.1", "x", "")), 502, "upstream_error", "upstream_error")
	}
	a := e.chat("xena", chatBody("gpt-4o", "sim:tokens=5 sim:pace=20s", `,"stream":true`))
	if s := a.events(t); s.done || s.failure != "upstream_timeoutupstream_error" || e.life("xena", a.id()).String() != "reserve refund(provider_error)" {
		t.Errorf("stalled after the role: %+v, %q", s, e.life("xena", a.id()))
	}
}

// TestEndsOfStreams: however a stream ends, what was delivered or reported is committed, and a stream
// that was cut fails in its client.
func TestEndsOfStreams(t *testing.T) {
	t.Parallel()
	providers, _ := both(t)
	e := start(t, options{providers: providers})
	const counted, refunded = "reserve commit(counted) refund(remainder)", "reserve refund(provider_error)"
	for _, c := range []struct {
		prompt, more string
		status       int
		failure      string // of the error event; "" = the stream ends with [DONE]
		life         string
		output       int64
	}{
		{"sim:tokens=20", "", 200, "", "reserve commit(provider) refund(remainder)", 20},
		{"sim:tokens=0", "", 200, "", "reserve commit(provider) refund(remainder)", 0},
		{"sim:tokens=20 sim:nousage", "", 200, "", counted, 20},
		{"sim:tokens=20 sim:nousage", `,"stream_options":{"include_usage":true}`, 200, "", counted, 20},
		{"sim:tokens=0 sim:nousage", "", 200, "", counted, 0},
		{"sim:tokens=20 sim:nousage", `,"n":3`, 200, "", counted, 60},
		{"sim:tokens=20 sim:cut=0", "", 502, "upstream_error", refunded, 0},
		{"sim:tokens=20 sim:cut=1", "", 200, "upstream_errorupstream_error", refunded, 0}, // the role: no text
		{"sim:tokens=20 sim:cut=2", "", 200, "upstream_errorupstream_error", counted, 1},
		{"sim:tokens=20 sim:cut=11", "", 200, "upstream_errorupstream_error", counted, 10},
		{"sim:tokens=20 sim:cut=21", "", 200, "upstream_errorupstream_error", counted, 20},
		{"sim:tokens=20 sim:cut=22", "", 200, "upstream_errorupstream_error", counted, 20}, // before the usage
		{"sim:tokens=20 sim:cut=23", "", 200, "upstream_errorupstream_error", "reserve commit(provider) refund(remainder)", 20},
		{"sim:tokens=20 sim:cut=5 sim:reasoning=500", "", 200, "upstream_errorupstream_error", counted, 4},
		{"sim:tokens=20 sim:error=0", "", 502, "upstream_error", refunded, 0},
		{"sim:tokens=20 sim:error=1", "", 200, "server_error", refunded, 0},
		{"sim:tokens=20 sim:error=8", "", 200, "server_error", counted, 7},
	} {
		for _, model := range []string{"sim-small", "gpt-4o-mini"} {
			a := e.post("yan", streamPath, chatBody(model, c.prompt, c.more))
			name := model + ": " + c.prompt + c.more
			l := e.life("yan", a.id())
			if d := l.commitData(); l.String() != c.life || !near(d.Meters[domain.Output], c.output, strings.Contains(c.more, `"n"`)) {
				t.Errorf("%s: %q with %v, want %q with %d", name, l, d.Meters, c.life, c.output)
			}
			if c.status != 200 {
				checkError(t, name, a, c.status, "upstream_error", c.failure)
				continue
			}
			if s := a.events(t); a.status != 200 || a.err != nil || s.failure != c.failure || s.done != (c.failure == "") || len(s.comments) == 1 != s.done {
				t.Errorf("%s: %d %v, failure %q, done: %t, %q", name, a.status, a.err, s.failure, s.done, s.comments)
			}
		}
	}
}

// TestWholeAnswersWithoutUsage are counted.
func TestWholeAnswersWithoutUsage(t *testing.T) {
	t.Parallel()
	providers, _ := both(t)
	e := start(t, options{providers: providers})
	for _, model := range []string{"sim-small", "gpt-4o-mini"} {
		for more, choices := range map[string]int64{"": 1, `,"n":4`: 4} {
			body := chatBody(model, "sim:tokens=20 sim:nousage", more)
			a := e.chat("zoe", body)
			l := e.life("zoe", a.id())
			input, _ := provider.CountPrompt(model, []byte(body))
			if m := l.commitData().Meters; a.status != 200 || l.String() != "reserve commit(counted) refund(remainder)" ||
				!near(m[domain.Output], 20*choices, choices > 1) || m[domain.Input] != input || m[domain.Requests] != 1 {
				t.Errorf("%s%s: %d %q %v", model, more, a.status, l, m)
			}
		}
		for _, prompt := range []string{"sim:cut=4", "sim:error=4"} {
			a := e.chat("zoe", chatBody(model, prompt, ""))
			checkError(t, prompt, a, 502, "upstream_error", "upstream_error")
			if l := e.life("zoe", a.id()); l.String() != "reserve refund(provider_error)" {
				t.Errorf("%s: %q", prompt, l)
			}
		}
	}
}

// near allows for what is lost or won where the texts of several choices meet: they are counted as one.
func near(got, want int64, choices bool) bool {
	return got == want || choices && got >= want-4 && got <= want+4
}
