package gemini

import (
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

const created = 1700000000

// translate parses and translates a request.
func translate(body, model string) (chat.Exchange, error) {
	r, err := chat.Parse([]byte(body))
	if err != nil {
		return nil, err
	}
	return Translate(r, Target{Model: model, MaxOutput: 65536, Created: created})
}

// exchangeFor is an exchange whose answers are read.
func exchangeFor(t *testing.T, model string) chat.Exchange {
	t.Helper()
	x, err := translate(`{"model":"m","messages":[{"role":"user","content":"hi"}]}`, model)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// streamed is what a client puts together from chunks.
type streamed struct {
	content, reasoning, text string // text is what the chunks say they deliver
	calls                    []call
	finish                   string
	roles, finishes, usages  int
	usage, signature         string
	annotations, images      string
	ids, models              map[string]bool
	logprobs                 int
}

type call struct{ id, name, arguments, signature string }

// add takes in the chunks of choice 0.
func (s *streamed) add(t *testing.T, chunks []chat.Chunk) {
	t.Helper()
	if s.ids == nil {
		s.ids, s.models = map[string]bool{}, map[string]bool{}
	}
	for _, c := range chunks {
		v := gjson.ParseBytes(c.Data)
		if !gjson.ValidBytes(c.Data) || strings.Contains(string(c.Data), "\n") || !v.Get("choices").IsArray() || v.Get("object").Str != chat.ObjectChunk || v.Get("created").Int() != created {
			t.Errorf("no chunk: %s", c.Data)
		}
		s.text += string(c.Text)
		s.ids[v.Get("id").Str], s.models[v.Get("model").Str] = true, true
		if len(v.Get("choices").Array()) == 0 {
			s.usages++
			s.usage = v.Get("usage").Raw
			if !c.UsageOnly {
				t.Errorf("not marked as usage: %s", c.Data)
			}
			continue
		}
		if choice := v.Get("choices.0"); choice.Get("index").Int() == 0 {
			s.delta(choice)
		}
	}
}

func (s *streamed) delta(choice gjson.Result) {
	d := choice.Get("delta")
	if d.Get("role").Exists() {
		s.roles++
	}
	s.content += d.Get("content").Str
	s.reasoning += d.Get("reasoning_content").Str
	s.annotations += d.Get("annotations").Raw
	s.images += d.Get("images").Raw
	s.logprobs += len(choice.Get("logprobs.content").Array())
	if sig := d.Get("extra_content.google.thought_signature").Str; sig != "" {
		s.signature = sig
	}
	for _, c := range d.Get("tool_calls").Array() {
		if int(c.Get("index").Int()) == len(s.calls) && c.Get("index").Exists() && c.Get("type").Str == "function" {
			s.calls = append(s.calls, call{c.Get("id").Str, c.Get("function.name").Str, c.Get("function.arguments").Str,
				c.Get("extra_content.google.thought_signature").Str})
		}
	}
	if finish := choice.Get("finish_reason"); finish.Type == gjson.String {
		s.finishes++
		s.finish = finish.Str
	}
}

// read feeds events to a new reader and ends it.
func read(t *testing.T, x chat.Exchange, data []string) (s streamed, complete bool, report chat.Report) {
	t.Helper()
	r := x.Reader()
	for _, event := range data {
		chunks, done, err := r.Event([]byte(event), nil)
		if err != nil || done {
			t.Fatalf("%v, done %v: %s", err, done, event)
		}
		s.add(t, chunks)
	}
	chunks, complete := r.End(nil)
	s.add(t, chunks)
	return s, complete, r.Report()
}
