package completions

import (
	"errors"
	"strings"
	"testing"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider/chat"
)

func TestOwnBody(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"model":"m", "prompt":"a","max_tokens":5}`:                                               ``,
		`{"model":"m","max_tokens":0,"echo":true,"x":[1, 2]}`:                                      ``,
		`{"model":"m","max_tokens":5,"stream":false}`:                                              ``,
		`{"model":"o","max_tokens":5}`:                                                             `{"model":"m","max_tokens":5}`,
		`{"mod\u0065l":"o","max_tokens":5}`:                                                        `{"mod\u0065l":"m","max_tokens":5}`,
		`{"model":"m","prompt":"a"}`:                                                               `{"model":"m","prompt":"a","max_tokens":16}`,
		`{"model":"m","max_tokens":null}`:                                                          `{"model":"m","max_tokens":16}`,
		`{"model":"m","max_tokens":5,"stream":true}`:                                               `{"model":"m","max_tokens":5,"stream":true,"stream_options":{"include_usage":true}}`,
		`{"model":"m","max_tokens":5,"stream":true,"stream_options":null}`:                         `{"model":"m","max_tokens":5,"stream":true,"stream_options":{"include_usage":true}}`,
		`{"model":"m","max_tokens":5,"stream":true,"stream_options":{"a":1}}`:                      `{"model":"m","max_tokens":5,"stream":true,"stream_options":{"a":1,"include_usage":true}}`,
		`{"model":"m","max_tokens":5,"stream_options":{"include\u005fusage":false},"stream":true}`: `{"model":"m","max_tokens":5,"stream_options":{"include\u005fusage":true},"stream":true}`,
		`{"model":"m","max_tokens":5,"stream":true,"stream_options":{"include_usage":true}}`:       ``,
	} {
		if want == "" {
			want = body
		}
		x, err := Own([]byte(body), "m")
		if err != nil {
			t.Errorf("%s: %v", body, err)
		} else if got := string(x.Body()); got != want {
			t.Errorf("%s:\n got %s\nwant %s", body, got, want)
		}
	}
}

func ownOf(t *testing.T, body string) chat.Exchange {
	t.Helper()
	x, err := Own([]byte(body), "m")
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestAnswer(t *testing.T) {
	t.Parallel()
	for native, want := range map[string]struct {
		report chat.Report
		text   string
	}{
		`{"id":"i","model":"s","service_tier":"default","choices":[{"index":1,"text":"b","finish_reason":"length"},{"index":0,"text":"a","finish_reason":"stop"}],
			"usage":{"prompt_tokens":3,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":1},"completion_tokens_details":null}}`: {
			chat.Report{UpstreamID: "i", Model: "s", ServiceTier: "default", FinishReason: "stop", Usage: &domain.Usage{Input: 3, Output: 2, CachedInput: 1}}, "ba"},
		`{"choices":[],"usage":{"prompt_tokens":0,"completion_tokens":0}}`:   {chat.Report{Usage: &domain.Usage{}}, ""},
		`{"choices":[],"usage":{"prompt_tokens":1}}`:                         {chat.Report{}, ""},
		`{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":-1}}`:  {chat.Report{}, ""},
		`{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1.5}}`: {chat.Report{}, ""},
		`{"choices":[],"error":null}`:                                        {chat.Report{}, ""},
		`{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":1,"prompt_cache_hit_tokens":4}}`: {
			chat.Report{Usage: &domain.Usage{Input: 5, Output: 1, CachedInput: 4}}, ""},
		`{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":1,"total_tokens":8,"completion_tokens_details":{"reasoning_tokens":2}}}`: {
			chat.Report{Usage: &domain.Usage{Input: 5, Output: 3, Reasoning: 2}}, ""},
	} {
		got, err := ownOf(t, `{"model":"m"}`).Answer([]byte(native))
		if err != nil {
			t.Errorf("%s: %v", native, err)
			continue
		}
		if string(got.Body) != native || got.Text() != want.text || !sameReport(got.Report, want.report) {
			t.Errorf("%s:\n got %+v, %q", native, got.Report, got.Text())
		}
	}
}

func sameReport(a, b chat.Report) bool {
	if (a.Usage == nil) != (b.Usage == nil) || a.Usage != nil && *a.Usage != *b.Usage {
		return false
	}
	return a.Model == b.Model && a.Partial == b.Partial && a.FinishReason == b.FinishReason && a.ServiceTier == b.ServiceTier && a.UpstreamID == b.UpstreamID
}

func TestNoAnswer(t *testing.T) {
	t.Parallel()
	for native, want := range map[string]string{
		``: "", `{`: "", `[]`: "", `"x"`: "", `{}`: "", `{"choices":{}}`: "", `{"choices":null}`: "",
		`{"error":{"message":"no","type":"t","code":400,"param":null}}`: `{"error":{"message":"no","type":"t","param":null,"code":"400"}}`,
		`{"error":"no","choices":[]}`:                                   `{"error":{"message":"no","type":"server_error","param":null,"code":null}}`,
		`{"error":{}}`:                                                  `{"error":{"message":"The provider reported an error.","type":"server_error","param":null,"code":null}}`,
	} {
		_, err := ownOf(t, `{"model":"m"}`).Answer([]byte(native))
		checkFailure(t, native, err, want)
		if native == `{}` || strings.HasPrefix(native, `{"choices"`) {
			continue // events that say nothing pass
		}
		_, _, err = ownOf(t, `{"model":"m"}`).Reader().Event([]byte(native), nil)
		checkFailure(t, native, err, want)
	}
}

func checkFailure(t *testing.T, native string, err error, want string) {
	t.Helper()
	failed := new(chat.Failed)
	if got := errors.As(err, &failed); err == nil || got != (want != "") || got && string(failed.Body()) != want {
		t.Errorf("%s: %v, %s", native, err, failed.Body())
	}
}

// passed is what a reader made of a stream.
type passed struct {
	data, text string
	usages     int
	ended      bool
	report     chat.Report
}

// readAll feeds events to a new reader.
func readAll(t *testing.T, x chat.Exchange, events ...string) (p passed) {
	t.Helper()
	r := x.Reader()
	for _, event := range events {
		if p.ended {
			t.Fatal("events after the end")
		}
		chunks, done, err := r.Event([]byte(event), nil)
		if err != nil {
			t.Fatalf("%v: %s", err, event)
		}
		for _, c := range chunks {
			p.data += string(c.Data) + "\n"
			p.text += string(c.Text)
			if c.UsageOnly {
				p.usages++
			}
			if c.Last || c.Event != "" {
				t.Errorf("an event with a name, or the last: %+v", c)
			}
		}
		p.ended = done
	}
	if chunks, complete := r.End(nil); len(chunks) > 0 || complete {
		t.Error("a stream without [DONE] is complete")
	}
	p.report = r.Report()
	return p
}

// TestUsageOfStreams: what a stream came to, when it is cut after any event.
func TestUsageOfStreams(t *testing.T) {
	t.Parallel()
	const (
		empty  = `{"choices":[{"index":0,"text":""}],"usage":{"prompt_tokens":5,"completion_tokens":0}}`
		zero   = `{"choices":[{"index":0,"text":"a"}],"usage":{"prompt_tokens":5,"completion_tokens":0}}`
		one    = `{"choices":[{"index":0,"text":"b"}],"usage":{"prompt_tokens":5,"completion_tokens":1}}`
		none   = `{"choices":[{"index":0,"text":"c","finish_reason":"stop"}],"usage":null}`
		usage  = `{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":3}}`
		filter = `{"choices":[],"prompt_filter_results":[]}`
	)
	for name, c := range map[string]struct {
		events  []string
		input   int64 // -1: no usage
		output  int64
		partial bool
		usages  int
	}{
		"nothing yet":            {[]string{filter}, -1, 0, false, 0},
		"no usage":               {[]string{none}, -1, 0, false, 0},
		"before any text":        {[]string{empty}, 5, 0, true, 0},
		"a place keeper":         {[]string{zero}, -1, 0, false, 0},
		"a place keeper, at end": {[]string{zero, "[DONE]"}, 5, 0, false, 0},
		"continuous":             {[]string{zero, one, none}, 5, 1, true, 0},
		"continuous, at end":     {[]string{zero, one, none, " [DONE]"}, 5, 1, false, 0},
		"usage alone":            {[]string{zero, one, none, usage}, 5, 3, false, 1},
		"usage alone, at end":    {[]string{none, usage, "[DONE]"}, 5, 3, false, 1},
	} {
		got := readAll(t, ownOf(t, `{"model":"m","stream":true}`), c.events...)
		if got.ended != strings.Contains(c.events[len(c.events)-1], "DONE") || got.usages != c.usages || got.report.Partial != c.partial {
			t.Errorf("%s: %+v", name, got)
		}
		if u := got.report.Usage; (u == nil) != (c.input < 0) || u != nil && (u.Input != c.input || u.Output != c.output) {
			t.Errorf("%s: %+v", name, u)
		}
	}
}

// TestLines: a frame has one line.
func TestLines(t *testing.T) {
	t.Parallel()
	got := readAll(t, ownOf(t, `{"model":"m","stream":true}`), "{\"choices\":\r\n[{\"text\":\"a\\nb\"}]}")
	if got.data != "{\"choices\":  [{\"text\":\"a\\nb\"}]}\n" || got.text != "a\nb" {
		t.Errorf("%+v", got)
	}
}

// TestEcho: what comes back of the prompts is no output, however it is cut.
func TestEcho(t *testing.T) {
	t.Parallel()
	x := ownOf(t, `{"model":"m","prompt":["Hello","Bye"],"n":2,"echo":true}`)
	whole, err := x.Answer([]byte(`{"choices":[{"index":0,"text":"Hello you"},{"index":1,"text":"Hello"},{"index":2,"text":"Bye bye"},{"index":3,"text":"By"},{"index":4,"text":"!"},{"index":-1,"text":"?"}]}`))
	if err != nil || whole.Text() != " you bye!?" {
		t.Errorf("%q, %v", whole.Text(), err)
	}
	got := readAll(t, x,
		`{"choices":[{"index":0,"text":"He"}]}`, `{"choices":[{"index":3,"text":"Bye b"}]}`, `{"choices":[{"index":0,"text":"llo"}]}`,
		`{"choices":[{"index":0,"text":""}]}`, `{"choices":[{"index":0,"text":"Hello"},{"index":3,"text":"ye"}]}`, `{"choices":[{"index":1,"text":"Other"}]}`)
	if got.text != " bHelloyeOther" {
		t.Errorf("%q", got.text)
	}
	plain, err := ownOf(t, `{"model":"m","prompt":"Hello"}`).Answer([]byte(`{"choices":[{"index":0,"text":"Hello"}]}`))
	if err != nil || plain.Text() != "Hello" {
		t.Errorf("%q, %v", plain.Text(), err)
	}
}
