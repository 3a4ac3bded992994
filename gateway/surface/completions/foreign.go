package completions

import (
	"fmt"

	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"llm-gateway/gateway/provider/chat"
)

// Foreign reads the request for providers that do not speak this API, and for chat models. id is a random
// one to make the answer's own of, created is in Unix seconds. It fails with *chat.Unsupported.
func Foreign(body []byte, id string, created int64) (chat.Foreign, error) {
	r, err := read(body)
	if err != nil {
		return nil, err
	}
	if err := r.portable(); err != nil {
		return nil, err
	}
	f := &foreign{head: head{ID: "cmpl-" + id, Object: objectCompletion, Created: created, Model: r.f.Model}}
	f.chat, err = r.asChat(body)
	return f, err
}

// portable refuses what is more than one prompt of text and its completions.
func (r *request) portable() error {
	switch {
	case r.tokens:
		return refusal("prompt", "Token ids cannot be read by this model. Send the prompt as text.")
	case len(r.texts) == 0:
		return refusal("prompt", "This model cannot begin without a prompt.")
	case len(r.texts) > 1:
		return refusal("prompt", "This model completes only one prompt at a time.")
	case r.texts[0] == "":
		return refusal("prompt", "This model cannot begin with an empty prompt.")
	case r.echo:
		return refused("echo")
	case r.suffix != "":
		return refused("suffix")
	case r.bestOf > 1:
		return refused("best_of")
	case r.nothing:
		return refusal("max_tokens", "`max_tokens` must be at least 1 for this model.")
	}
	return nil
}

// refusal is of a request that is well said and cannot be had.
func refusal(param, format string, args ...any) error {
	return &chat.Unsupported{Param: param, Message: fmt.Sprintf(format, args...)}
}

func refused(param string) error {
	return refusal(param, "`%s` is not supported for this model: it has chat completions only.", param)
}

// carried are the parameters that mean the same in a chat completion, readBefore those that read has dealt with.
// No other goes there: it might be one of chat completions that costs what was not bounded.
var (
	carried = map[string]bool{
		"temperature": true, "top_p": true, "top_k": true, "n": true, "stop": true, "presence_penalty": true, "frequency_penalty": true,
		"logit_bias": true, "seed": true, "service_tier": true, "user": true,
	}
	readBefore = map[string]bool{
		"model": true, "prompt": true, "max_tokens": true, "echo": true, "suffix": true, "best_of": true, "stream": true, "stream_options": true,
	}
)

// asChat is the request as a chat completion.
func (r *request) asChat(body []byte) (out []byte, err error) {
	out = chat.Encode(chatRequest{r.f.Model, []chatMessage{{chat.RoleUser, r.texts[0]}}, r.f.MaxOutput})
	if r.f.Stream {
		out, err = sjson.SetRawBytes(out, "stream", []byte("true"))
		if err == nil {
			out, err = sjson.SetRawBytes(out, "stream_options", []byte(`{"include_usage":true}`))
		}
	}
	gjson.ParseBytes(body).ForEach(func(key, v gjson.Result) bool {
		name := key.String()
		switch {
		case err != nil:
		case v.Type == gjson.Null || readBefore[name]:
		case carried[name]:
			out, err = sjson.SetRawBytes(out, name, []byte(v.Raw))
		default:
			err = refused(name)
		}
		return err == nil
	})
	return out, err
}

// foreign is one request, served by way of a chat completion.
type foreign struct {
	head head
	chat []byte
}

func (f *foreign) Chat() []byte { return f.chat }

func (f *foreign) Writer() chat.Writer { return &writer{head: f.head} }

// Answer makes a completion of a whole chat completion.
func (f *foreign) Answer(completion []byte) ([]byte, error) {
	v, ok := object(completion)
	if !ok || !v.Get("choices").IsArray() {
		return nil, errNoCompletion
	}
	out := answer{head: f.head, Choices: []choice{}, Usage: chat.RawObject(v.Get("usage"))}
	out.serve(v)
	v.Get("choices").ForEach(func(_, c gjson.Result) bool {
		out.Choices = append(out.Choices, choiceOf(c, "message"))
		return true
	})
	return chat.Encode(out), nil
}

// writer makes chunks of completions of chat chunks. A chunk that says only who speaks becomes none.
type writer struct {
	head  head
	usage []byte // that came beside a choice, and is still to be told
}

// Chunk takes in one chat chunk. What is no JSON object says nothing.
func (w *writer) Chunk(data []byte, events []chat.Chunk) []chat.Chunk {
	v, ok := object(data)
	if !ok {
		return events
	}
	w.head.serve(v)
	said := []choice{}
	v.Get("choices").ForEach(func(_, c gjson.Result) bool {
		if next := choiceOf(c, "delta"); next.Text != "" || next.FinishReason != nil {
			said = append(said, next)
		}
		return true
	})
	if len(said) > 0 {
		events = append(events, chat.Chunk{Data: chat.Encode(answer{head: w.head, Choices: said})})
	}
	if usage := chat.RawObject(v.Get("usage")); usage != nil {
		w.usage = usage
		if !v.Get("choices.0").Exists() {
			events = w.tell(events)
		}
	}
	return events
}

// tell appends the usage that has not been told.
func (w *writer) tell(events []chat.Chunk) []chat.Chunk {
	if w.usage == nil {
		return events
	}
	last := answer{head: w.head, Choices: []choice{}, Usage: w.usage}
	w.usage = nil
	return append(events, chat.Chunk{Data: chat.Encode(last), UsageOnly: true})
}

// End has no event of its own: the gateway writes [DONE].
func (w *writer) End(events []chat.Chunk) []chat.Chunk { return w.tell(events) }
