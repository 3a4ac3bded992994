package gemini

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/provider/chat/chattest"
)

// recorded are the recorded answers of generateContent; the test is skipped where they are absent.
func recorded(t *testing.T) []chattest.Step {
	t.Helper()
	return chattest.Recorded(t, "generatecontent", 25)
}

func TestRecordedAnswers(t *testing.T) {
	for _, s := range recorded(t) {
		if s.Stream {
			continue
		}
		got, err := exchangeFor(t, s.Model).Answer([]byte(s.Body))
		if s.Status != http.StatusOK {
			checkFailed(t, s, err)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", s.Name, err)
			continue
		}
		checkAnswer(t, s, got)
	}
}

func checkFailed(t *testing.T, s chattest.Step, err error) {
	t.Helper()
	want := map[int]string{http.StatusForbidden: "permission_error", http.StatusTooManyRequests: "rate_limit_error"}[s.Status]
	var failed *chat.Failed
	if !errors.As(err, &failed) || failed.Type != want || failed.Message == "" || failed.Code == "" {
		t.Errorf("%s: %#v", s.Name, err)
	}
}

func checkAnswer(t *testing.T, s chattest.Step, got *chat.Completion) {
	t.Helper()
	v, expect := gjson.ParseBytes(got.Body), s.Expect
	message := v.Get("choices.0.message")
	if v.Get("object").Str != chat.ObjectCompletion || v.Get("id").Str == "" || v.Get("created").Int() != created ||
		v.Get("model").Str != expect.Get("model").Str || message.Get("role").Str != "assistant" {
		t.Errorf("%s: %s", s.Name, got.Body)
	}
	finish := expect.Get("finish_reason").Str
	if s.Name == "ge-block/0" {
		finish = chat.FinishContentFilter
	}
	if message.Get("content").Str != expect.Get("text").Str || v.Get("choices.0.finish_reason").Str != finish || len(v.Get("choices").Array()) != 1 {
		t.Errorf("%s: %s, want %s", s.Name, got.Body, expect)
	}
	if n := len([]rune(message.Get("reasoning_content").Str)); n != int(expect.Get("reasoning_chars").Int()) {
		t.Errorf("%s: %d characters of reasoning, want %s", s.Name, n, expect.Get("reasoning_chars"))
	}
	var calls []call
	for _, c := range message.Get("tool_calls").Array() {
		calls = append(calls, call{c.Get("id").Str, c.Get("function.name").Str, c.Get("function.arguments").Str, ""})
		if c.Get("index").Exists() {
			t.Errorf("%s: a whole answer's call has an index", s.Name)
		}
	}
	checkCalls(t, s, calls)
	checkReport(t, s, got.Report, finish)
	checkUsage(t, s, v.Get("usage").Raw)
}

func checkCalls(t *testing.T, s chattest.Step, calls []call) {
	t.Helper()
	want := s.Expect.Get("tool_calls").Array()
	if len(calls) != len(want) {
		t.Errorf("%s: calls %v, want %v", s.Name, calls, want)
		return
	}
	ids := map[string]bool{}
	for i, c := range calls {
		ids[c.id] = true
		if c.id == "" || c.name != want[i].Get("name").Str || !chattest.SameJSON(t, c.arguments, want[i].Get("arguments").Raw) {
			t.Errorf("%s: call %v, want %s", s.Name, c, want[i])
		}
	}
	if len(ids) != len(calls) {
		t.Errorf("%s: ids are used twice: %v", s.Name, ids)
	}
}

func checkReport(t *testing.T, s chattest.Step, got chat.Report, finish string) {
	t.Helper()
	if got.Model != s.Expect.Get("model").Str || got.FinishReason != finish || got.UpstreamID == "" || got.Partial || got.ServiceTier != "" {
		t.Errorf("%s: %+v", s.Name, got)
	}
	want := s.Expect.Get("usage")
	if got.Usage == nil {
		t.Errorf("%s: no usage, want %s", s.Name, want)
		return
	}
	u := *got.Usage
	if u.Input != want.Get("prompt_tokens").Int() || u.Output != want.Get("completion_tokens").Int() ||
		u.CachedInput != want.Get("cached_tokens").Int() || u.Reasoning != want.Get("reasoning_tokens").Int() {
		t.Errorf("%s: %+v, want %s", s.Name, u, want)
	}
	if _, err := u.Meters(); err != nil {
		t.Errorf("%s: %v", s.Name, err)
	}
}

// checkUsage compares the usage in the answer.
func checkUsage(t *testing.T, s chattest.Step, usage string) {
	t.Helper()
	got, want := gjson.Parse(usage), s.Expect.Get("usage")
	for path, name := range map[string]string{"prompt_tokens": "prompt_tokens", "completion_tokens": "completion_tokens", "total_tokens": "total_tokens",
		"prompt_tokens_details.cached_tokens": "cached_tokens", "completion_tokens_details.reasoning_tokens": "reasoning_tokens"} {
		if got.Get(path).Int() != want.Get(name).Int() {
			t.Errorf("%s: usage %s, want %s", s.Name, usage, want)
		}
	}
}

func TestRecordedStreams(t *testing.T) {
	n := 0
	for _, s := range recorded(t) {
		if !s.Stream {
			continue
		}
		n++
		got, complete, report := read(t, exchangeFor(t, s.Model), s.Events())
		expect := s.Expect
		if !complete || got.content != expect.Get("text").Str || got.finish != expect.Get("finish_reason").Str ||
			len([]rune(got.reasoning)) != int(expect.Get("reasoning_chars").Int()) {
			t.Errorf("%s: %+v, want %s", s.Name, got, expect)
		}
		if got.roles != 1 || got.finishes != 1 || got.usages != 1 || len(got.ids) != 1 || len(got.models) != 1 {
			t.Errorf("%s: the form of the stream: %+v", s.Name, got)
		}
		want := got.content + got.reasoning
		for _, c := range got.calls {
			want += c.name + c.arguments
		}
		if len(got.text) != len(want) {
			t.Errorf("%s: the chunks count %q, delivered was %q", s.Name, got.text, want)
		}
		checkCalls(t, s, got.calls)
		checkReport(t, s, report, got.finish)
		checkUsage(t, s, got.usage)
	}
	if n < 9 {
		t.Errorf("only %d streams", n)
	}
}

// TestCutStreams ends every stream after every event: only the whole one is complete.
func TestCutStreams(t *testing.T) {
	for _, s := range recorded(t) {
		if !s.Stream {
			continue
		}
		all := s.Events()
		for n := range len(all) + 1 {
			got, complete, report := read(t, exchangeFor(t, s.Model), all[:n])
			if complete != (n == len(all)) || report.Partial == complete || (got.finish != "") != complete || (got.usages == 1) != complete {
				t.Errorf("%s after %d of %d events: complete %v, %+v, %+v", s.Name, n, len(all), complete, got, report)
			}
			if report.Usage != nil && (report.Usage.Output > s.Expect.Get("usage.completion_tokens").Int() || report.Usage.Input < 1) {
				t.Errorf("%s after %d events: %+v", s.Name, n, *report.Usage)
			}
		}
	}
}

// TestRecordedSearch holds the citations of a page in Google's bytes against the content.
func TestRecordedSearch(t *testing.T) {
	s := chattest.Find(t, recorded(t), "ge-think-1/0")
	got, err := exchangeFor(t, s.Model).Answer([]byte(s.Body))
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"type":"url_citation","url_citation":{"start_index":0,"end_index":63,"title":"Star Wars films (static HTML) • rvest","url":"https://rvest.tidyverse.org/articles/starwars.html"}}]`
	if list := gjson.GetBytes(got.Body, "choices.0.message.annotations").Raw; list != want {
		t.Errorf("%s", list)
	}
}

func TestRecordedImages(t *testing.T) {
	s := chattest.Find(t, recorded(t), "ge-basic-1/0")
	got, err := exchangeFor(t, s.Model).Answer([]byte(s.Body))
	if want := (domain.Usage{Input: 1817, ImageIn: 1806, Output: 5}); err != nil || *got.Report.Usage != want {
		t.Errorf("%v, %+v", err, got.Report.Usage)
	}
}

func TestRecordedLogprobs(t *testing.T) {
	s := chattest.Find(t, recorded(t), "ge-n/0")
	got, err := exchangeFor(t, s.Model).Answer([]byte(s.Body))
	if err != nil {
		t.Fatal(err)
	}
	list := gjson.GetBytes(got.Body, "choices.0.logprobs.content")
	want := `{"token":"2","logprob":-0.01972555,"bytes":[50]}`
	if len(list.Array()) != 7 || list.Get("0.top_logprobs.0").Raw != want || len(list.Get("6.top_logprobs").Array()) != 5 {
		t.Errorf("%s", list)
	}
}

// TestRoundTrip sends recorded thinking and calls back: Google finds its signatures where they were.
func TestRoundTrip(t *testing.T) {
	n := 0
	for _, s := range recorded(t) {
		if s.Status != http.StatusOK || !strings.Contains(s.Of.Get("features").Raw, `"r_thoughtsig"`) {
			continue
		}
		n++
		var want []string
		bodies := []string{s.Body}
		if s.Stream {
			bodies = s.Events()
		}
		for _, body := range bodies {
			for _, p := range gjson.Get(body, "candidates.0.content.parts").Array() {
				if p.Get("thoughtSignature").Exists() {
					want = append(want, p.Get("thoughtSignature").Str)
				}
			}
		}
		if got := sentBack(t, s); strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%s: sent back %v, want %v", s.Name, got, want)
		}
	}
	if n < 10 {
		t.Errorf("only %d recordings", n)
	}
}

// sentBack are the signatures of the request that goes on with a recorded answer.
func sentBack(t *testing.T, s chattest.Step) []string {
	t.Helper()
	x := exchangeFor(t, s.Model)
	message, results := "", ""
	if s.Stream {
		got, _, _ := read(t, x, s.Events())
		message = messageOf(got)
	} else {
		got, err := x.Answer([]byte(s.Body))
		if err != nil {
			t.Fatal(err)
		}
		message = gjson.GetBytes(got.Body, "choices.0.message").Raw
	}
	calls := gjson.Get(message, "tool_calls").Array()
	for _, c := range calls {
		results += `,{"role":"tool","tool_call_id":"` + c.Get("id").Str + `","content":"{\"ok\":true}"}`
	}
	next, err := translate(`{"messages":[{"role":"user","content":"a"},`+message+results+`]}`, s.Model)
	if err != nil {
		t.Fatalf("%s: %v", s.Name, err)
	}
	var out []string
	made := 0
	for _, p := range gjson.GetBytes(next.Body(), "contents.1.parts").Array() {
		if sig := p.Get("thoughtSignature").Str; sig != "" {
			out = append(out, sig)
		}
		if p.Get("functionCall").Exists() {
			if want := s.Expect.Get("tool_calls").Array()[made]; !chattest.SameJSON(t, p.Get("functionCall.args").Raw, want.Get("arguments").Raw) {
				t.Errorf("%s: sent back %s, want %s", s.Name, p, want)
			}
			made++
		}
	}
	if answers := len(gjson.GetBytes(next.Body(), "contents.2.parts").Array()); made != len(calls) || answers != made {
		t.Errorf("%s: %d calls and %d results of %d sent back", s.Name, made, answers, len(calls))
	}
	return out
}

// messageOf is the message that a client makes of a stream.
func messageOf(got streamed) string {
	m := chat.Reply{Role: chat.RoleAssistant, Content: &got.content, ReasoningContent: got.reasoning, ExtraContent: signed(got.signature)}
	for _, c := range got.calls {
		m.ToolCalls = append(m.ToolCalls, chat.ReplyCall{ID: c.id, Type: "function", ExtraContent: signed(c.signature),
			Function: chat.ReplyFunction{Name: c.name, Arguments: c.arguments}})
	}
	return string(chat.Encode(m))
}
