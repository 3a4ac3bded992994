package completions

import (
	"strings"

	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"llm-gateway/gateway/provider/chat"
)

// Own is the exchange with a provider that speaks this API: the client's body, with the model's name there.
// It fails as Facts does.
func Own(body []byte, model string) (chat.Exchange, error) {
	r, err := read(body)
	if err != nil {
		return nil, err
	}
	sent := body
	set := func(path string, value any) {
		if err == nil {
			sent, err = sjson.SetBytes(sent, path, value)
		}
	}
	if r.f.Model != model {
		set("model", model)
	}
	if !r.limited {
		set("max_tokens", DefaultMaxTokens)
	}
	if r.f.Stream && !r.f.IncludeUsage {
		set("stream_options.include_usage", true)
	}
	if err != nil {
		return nil, chat.Invalid("", "The body is not a JSON object.")
	}
	x := &own{body: sent, each: r.n}
	if r.echo {
		x.echoed = r.texts
	}
	return x, nil
}

// own is one call of a provider that speaks this API.
type own struct {
	body   []byte
	echoed []string // the prompts that come back in the answer
	each   int64    // completions of one prompt
}

func (x *own) Body() []byte { return x.body }

func (x *own) Reader() chat.Reader { return &reader{of: x, echoes: map[int64]string{}} }

// Answer reads a whole completion.
func (x *own) Answer(native []byte) (*chat.Completion, error) {
	v, ok := object(native)
	if failed := chat.FailureIn(v.Get("error")); failed != nil {
		return nil, failed
	}
	if !ok || !v.Get("choices").IsArray() {
		return nil, errNoAnswer
	}
	var report chat.Report
	identify(&report, v)
	report.Usage, report.Raw = chat.UsageFrom(v.Get("usage")), chat.RawUsage(v.Get("usage"))
	v.Get("choices").ForEach(func(_, choice gjson.Result) bool {
		finish(&report, choice)
		return true
	})
	return &chat.Completion{Body: native, Report: report, Text: func() string { return x.text(v.Get("choices")) }}, nil
}

// text is what the model wrote of a whole answer.
func (x *own) text(choices gjson.Result) string {
	var text strings.Builder
	choices.ForEach(func(_, choice gjson.Result) bool {
		said, _ := unechoed(choice.Get("text").Str, x.prompt(choice.Get("index").Int()))
		text.WriteString(said)
		return true
	})
	return text.String()
}

// prompt is what a choice echoes; "" if nothing.
func (x *own) prompt(choice int64) string {
	if i := choice / x.each; choice >= 0 && i < int64(len(x.echoed)) {
		return x.echoed[i]
	}
	return ""
}

// unechoed takes off a text what it repeats of the prompt, of which rest may still come.
func unechoed(text, prompt string) (said, rest string) {
	if rest, ok := strings.CutPrefix(prompt, text); ok {
		return "", rest
	}
	return strings.TrimPrefix(text, prompt), ""
}
