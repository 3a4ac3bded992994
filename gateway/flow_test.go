package gateway_test

import (
	"math/big"
	"net/http"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider"
)

// checkWhole: a whole answer's headers, ledger and arithmetic agree to the last digit.
func checkWhole(t *testing.T, e *env, account, model string, a answer) life {
	t.Helper()
	if a.status != http.StatusOK || a.err != nil {
		t.Fatalf("status %d, %v: %s", a.status, a.err, a.body)
	}
	l := e.life(account, a.id())
	if l.commit == nil || l.commitData().UsageSource != domain.UsageProvider || l.overage != nil {
		t.Fatalf("the request's life is %q", l)
	}
	want := cost(t, e.book, model, a.json("usage"), a.json("service_tier").Str, 0)
	if ratOf(l.commit).Cmp(want) != 0 || ratText(t, a.header.Get("x-billing-cost")).Cmp(want) != 0 {
		t.Errorf("charged %s, said %s, want %s for %s", l.commit.Amount, a.header.Get("x-billing-cost"), want, a.json("usage").Raw)
	}
	checkPosition(t, l, a.header.Get("x-billing-position"))
	return l
}

// checkPosition: what the client was told is the position of the request's last event.
func checkPosition(t *testing.T, l life, position string) {
	t.Helper()
	last := l.commit
	if l.refund != nil {
		last = l.refund
	}
	if position != last.Position().String() {
		t.Errorf("position %q, the last event is at %s", position, last.Position())
	}
}

func TestWholeAnswers(t *testing.T) {
	t.Parallel()
	providers, upstream := both(t)
	e := start(t, options{providers: providers})
	for _, c := range []struct{ name, asked, model, prompt, more, choices string }{
		{"simulated", "sim-small", "sim-small", "hello", "", "1"},
		{"by provider and model", "simulated/sim-small", "sim-small", "hello", "", "1"},
		{"over http", "gpt-4o-mini", "gpt-4o-mini", "hello", "", "1"},
		{"over http by provider and model", "openai/gpt-4o", "gpt-4o", "hello", "", "1"},
		{"many choices", "sim-small", "sim-small", "hello", `,"n":5`, "5"},
		{"a maximum", "sim-large", "sim-large", "sim:tokens=500", `,"max_tokens":100`, "1"},
		{"the new maximum", "sim-large", "sim-large", "sim:tokens=500", `,"max_completion_tokens":100`, "1"},
		{"nulls for defaults", "sim-small", "sim-small", "hello", `,"n":null,"max_tokens":null,"stream":null,"stream_options":null,"tools":null,"user":null`, "1"},
		{"cached and reasoning", "sim-large", "sim-large", "a few words sim:cached=3 sim:reasoning=77", "", "1"},
		{"a flat price", "sim-flat", "sim-flat", "hello", "", "1"},
		{"a price of nothing", "sim-free", "sim-free", "hello", "", "1"},
		{"tools", "sim-small", "sim-small", "hello", `,"tool_choice":"required","tools":[{"type":"function","function":{"name":"look","parameters":{"type":"object","properties":{"at":{"type":"string"}},"required":["at"]}}}]`, "1"},
		{"a schema", "sim-small", "sim-small", "hello", `,"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}}}`, "1"},
		{"unknown fields", "sim-small", "sim-small", "hello", `,"some_new_field":{"x":[1,2,3]}`, "1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			body := chatBody(c.asked, c.prompt, c.more)
			a := e.chat("whole", body)
			l := checkWhole(t, e, "whole", c.model, a)
			if a.json("choices.#").Raw != c.choices || a.header.Get("Content-Type") != "application/json" {
				t.Errorf("%s choices, %s", a.json("choices.#").Raw, a.header.Get("Content-Type"))
			}
			if d := l.commitData(); d.ModelRequested != c.asked || d.ModelServed != c.model || d.Stream || len(d.Attempts) != 1 {
				t.Errorf("commit data %+v", d)
			}
			if model, _, _ := e.book.Lookup(c.model, l.reserve.OccurredAt); model.Provider == "openai" {
				if want := strings.Replace(body, c.asked, c.model, 1); upstream.sent() != want {
					t.Errorf("sent %s\nwant %s", upstream.sent(), want)
				}
			}
		})
	}
}

func TestStreamedAnswers(t *testing.T) {
	t.Parallel()
	providers, upstream := both(t)
	e := start(t, options{providers: providers})
	for _, c := range []struct {
		name, path, model, more string
		asked                   bool // for the usage
	}{
		{"plain", chatPath, "sim-small", `,"stream":true`, false},
		{"usage asked for", chatPath, "sim-small", `,"stream":true,"stream_options":{"include_usage":true}`, true},
		{"usage not wanted", chatPath, "sim-small", `,"stream":true,"stream_options":{"include_usage":false}`, false},
		{"no options", chatPath, "sim-small", `,"stream":true,"stream_options":null`, false},
		{"empty options", chatPath, "gpt-4o-mini", `,"stream":true,"stream_options":{}`, false},
		{"other options", chatPath, "gpt-4o-mini", `,"stream":true,"stream_options":{"include_obfuscation":false}`, false},
		{"the streaming address", streamPath, "gpt-4o-mini", ``, false},
		{"and no", streamPath, "gpt-4o-mini", `,"stream":false`, false},
		{"and null", streamPath, "gpt-4o-mini", `,"stream":null`, false},
		{"and yes", streamPath, "gpt-4o-mini", `,"stream":true,"stream_options":{"include_usage":true}`, true},
		{"choices", chatPath, "gpt-4o", `,"stream":true,"n":3`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := e.post("streamed", c.path, chatBody(c.model, "hello sim:tokens=12", c.more))
			checkStreamed(t, e, "streamed", c.model, a, c.asked)
			if e.book == nil || !strings.HasPrefix(c.model, "gpt") {
				return
			}
			sent := upstream.sent()
			if !gjson.Get(sent, "stream").Bool() || !gjson.Get(sent, "stream_options.include_usage").Bool() ||
				strings.Count(sent, `"stream"`) != 1 || strings.Count(sent, `"include_usage"`) != 1 {
				t.Errorf("sent %s", sent)
			}
			if c.name == "other options" && gjson.Get(sent, "stream_options.include_obfuscation").Raw != "false" {
				t.Errorf("sent %s", sent)
			}
		})
	}
}

// checkStreamed: the stream is the provider's own but for the usage that was not asked for, and it
// ends with its bill.
func checkStreamed(t *testing.T, e *env, account, model string, a answer, usageAsked bool) {
	t.Helper()
	if a.status != http.StatusOK || a.err != nil || a.header.Get("Content-Type") != "text/event-stream; charset=utf-8" {
		t.Fatalf("status %d, %v: %s", a.status, a.err, a.body)
	}
	s, l := a.events(t), e.life(account, a.id())
	if !s.done || s.failure != "" || l.commit == nil || l.commitData().UsageSource != domain.UsageProvider || !l.commitData().Stream {
		t.Fatalf("done: %t, failure %q, life %q", s.done, s.failure, l)
	}
	d := l.commitData()
	last := gjson.Parse(s.data[len(s.data)-1])
	if (last.Get("choices.#").Raw == "0") != usageAsked || last.Get("usage").IsObject() != usageAsked {
		t.Errorf("asked for usage: %t; the last chunk is %s", usageAsked, last.Raw)
	}
	if usageAsked && last.Get("usage.completion_tokens").Int() != d.Meters[domain.Output] {
		t.Errorf("billed %v for %s", d.Meters, last.Get("usage").Raw)
	}
	bill := s.bill(t)
	if bill.Get("request_id").Str != a.id().String() || bill.Get("cost").Str != l.commit.Amount.String() {
		t.Errorf("bill %s; committed %s", bill.Raw, l.commit.Amount)
	}
	checkPosition(t, l, bill.Get("position").Str)
	usage := gjson.Parse(`{"prompt_tokens":` + itoa(d.Meters[domain.Input]) + `,"completion_tokens":` + itoa(d.Meters[domain.Output]) + `}`)
	if want := cost(t, e.book, model, usage, "", 0); ratOf(l.commit).Cmp(want) != 0 {
		t.Errorf("charged %s, want %s", l.commit.Amount, want)
	}
	if a.header.Get("x-billing-cost") != "" || a.header.Get("Content-Length") != "" {
		t.Errorf("headers of a stream: %v", a.header)
	}
}

func itoa(n int64) string { return new(big.Int).SetInt64(n).String() }

// TestStreamIsTheProvidersOwn compares the frames with what the provider sends to the same body.
func TestStreamIsTheProvidersOwn(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	body := chatBody("sim-small", "hello", `,"stream":true,"stream_options":{"include_usage":true}`)
	got := e.chat("own", body).events(t)
	stream, err := provider.NewSimulated().Stream(t.Context(), provider.Request{Body: []byte(body)})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close() //nolint:errcheck // simulated
	for i := 0; ; i++ {
		chunk, err := stream.Next()
		if err != nil {
			if i != len(got.data) {
				t.Errorf("%d chunks, want %d", len(got.data), i)
			}
			return
		}
		if i >= len(got.data) || got.data[i] != string(chunk.Data) {
			t.Fatalf("chunk %d differs from %s", i, chunk.Data)
		}
	}
}

// TestBodyBytes: what the meter does not have to change goes upstream byte for byte, and what it
// changes, it changes in its place.
func TestBodyBytes(t *testing.T) {
	t.Parallel()
	providers, upstream := both(t)
	e := start(t, options{providers: providers})
	for _, c := range []struct{ name, body, want string }{
		{"blanks, order, escapes and numbers stay",
			" {\n \"temperature\" : 1.0e0 ,\t\"messages\":[ {\"content\":\"a\\u00e9\\/\",\"role\":\"user\"} ], \"x\":1E400, \"model\":\"gpt-4o\"}\r\n", ""},
		{"an escaped key is one key",
			`{"\u006dodel":"openai/gpt-4o","messages":[{"role":"user","content":"x"}]}`,
			`{"\u006dodel":"gpt-4o","messages":[{"role":"user","content":"x"}]}`},
		{"an escaped value is the same model",
			`{"model":"gpt\u002d4o","messages":[{"role":"user","content":"x"}]}`, ""},
		{"only the top level's model", `{"messages":[{"role":"user","content":"x","model":"a"}],"model":"openai/gpt-4o"}`,
			`{"messages":[{"role":"user","content":"x","model":"a"}],"model":"gpt-4o"}`},
		{"an escaped stream", `{"model":"gpt-4o","messages":[{"role":"user","content":"x"}],"strea\u006d":true,"stream\u005foptions":{"include_usage":true}}`, ""},
	} {
		want := c.want
		if want == "" {
			want = c.body
		}
		if a := e.chat("bytes", c.body); a.status != http.StatusOK || upstream.sent() != want {
			t.Errorf("%s: status %d %s\nsent %s\nwant %s", c.name, a.status, a.code(), upstream.sent(), want)
		}
	}
	escaped := `{"model":"gpt-4o","messages":[{"role":"user","content":"x"}],"strea\u006d":false,"stream\u005foptions":{"include\u005fusage":false}}`
	if a := e.post("bytes", streamPath, escaped); a.status != http.StatusOK {
		t.Errorf("status %d: %s", a.status, a.body)
	}
	sent := upstream.sent()
	keys := gjson.Get(sent, "@keys")
	if keys.Get("#").Int() != 4 || gjson.Get(sent, "stream_options.@keys.#").Int() != 1 ||
		!gjson.Get(sent, "stream").Bool() || !gjson.Get(sent, "stream_options.include_usage").Bool() {
		t.Errorf("sent %s", sent)
	}
}

func TestHeadersUpstream(t *testing.T) {
	t.Parallel()
	providers, upstream := both(t)
	e := start(t, options{providers: providers})
	r := e.request(http.MethodPost, "headers", chatPath, chatBody("gpt-4o", "x", ""))
	r.Header.Set("OpenAI-Beta", "assistants=v2")
	r.Header.Set("OpenAI-Organization", "org-of-the-client")
	if a := e.do(r); a.status != http.StatusOK {
		t.Fatal(a.body)
	}
	if got := upstream.calls[0].Header.Get("OpenAI-Beta"); got != "assistants=v2" {
		t.Errorf("OpenAI-Beta is %q", got)
	}
}
