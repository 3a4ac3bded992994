package responses

import (
	"encoding/json"
	"errors"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// errNoCompletion is what Answer says to a body that is no chat completion.
var errNoCompletion = errors.New("the body is not a chat completion")

// Answer translates a whole chat completion.
func (f *foreign) Answer(completion []byte) ([]byte, error) {
	v := gjson.ParseBytes(completion)
	if !json.Valid(completion) || !v.Get("choices.0.message").IsObject() {
		return nil, errNoCompletion
	}
	choice := v.Get("choices.0")
	r := f.sent.response()
	r.Model, r.ServiceTier, r.Usage = v.Get("model").Str, tierFrom(v.Get("service_tier")), usageFrom(v.Get("usage"))
	r.Status, r.IncompleteDetails = end(choice.Get("finish_reason").Str)
	items := itemsOf(choice, f.sent.id)
	for i, own := range items {
		own.status = statusCompleted
		if i == len(items)-1 && own.kind != kindImage {
			own.status = r.Status
		}
		r.Output = append(r.Output, own.view())
	}
	return chat.Encode(r), nil
}

// itemsOf are the items that a message becomes. One that says nothing is an empty message.
func itemsOf(choice gjson.Result, id string) (items []*item) {
	m := choice.Get("message")
	add := func(kind string) *item {
		items = append(items, newItem(kind, id, len(items)))
		return items[len(items)-1]
	}
	addReasoning(m, add)
	if m.Get("content").Str != "" || m.Get("refusal").Str != "" {
		addMessage(choice, add(kindMessage))
	}
	m.Get("images").ForEach(func(_, image gjson.Result) bool {
		add(kindImage).result = imageData(image)
		return true
	})
	m.Get("tool_calls").ForEach(func(_, call gjson.Result) bool {
		own := add(kindCall)
		own.callID, own.name = callID(call, own), call.Get("function.name").Str
		own.arguments = []byte(argumentsOf(call))
		return true
	})
	if len(items) == 0 {
		addMessage(choice, add(kindMessage))
	}
	return items
}

// callID is a call's id. Where a provider gave none, results still need one to name.
func callID(call gjson.Result, own *item) string {
	if id := call.Get("id").Str; id != "" {
		return id
	}
	return "call_" + own.id
}

func argumentsOf(call gjson.Result) string {
	if arguments := call.Get("function.arguments").Str; arguments != "" {
		return arguments
	}
	return "{}"
}

// addReasoning adds the reasoning, and what its provider wants back with it.
func addReasoning(m gjson.Result, add func(kind string) *item) {
	text, own := reasoningOf(m), carried{ThoughtSignature: signatureOf(m)}
	m.Get("thinking_blocks").ForEach(func(_, block gjson.Result) bool {
		own.think(block)
		return true
	})
	m.Get("tool_calls").ForEach(func(_, call gjson.Result) bool {
		own.sign(call.Get("id").Str, signatureOf(call))
		return true
	})
	if text == "" && !own.holds() {
		return
	}
	reasoning := add(kindReasoning)
	reasoning.encrypted = own.encode()
	if text != "" {
		reasoning.parts = []outPart{{text: []byte(text)}}
	}
}

// reasoningOf is the reasoning of a message or of a delta, by either of its names.
func reasoningOf(v gjson.Result) string {
	if text := v.Get("reasoning_content").Str; text != "" {
		return text
	}
	return v.Get("reasoning").Str
}

// signatureOf is Google's signature of a message or of a call.
func signatureOf(v gjson.Result) string { return v.Get("extra_content.google.thought_signature").Str }

func addMessage(choice gjson.Result, own *item) {
	m := choice.Get("message")
	if text, refused := m.Get("content").Str, m.Get("refusal").Str; text != "" || refused == "" {
		p := outPart{text: []byte(text), logprobs: raws(choice.Get("logprobs.content"))}
		m.Get("annotations").ForEach(func(_, a gjson.Result) bool {
			p.annotations = append(p.annotations, cite(a, 0))
			return true
		})
		own.parts = append(own.parts, p)
	}
	if refused := m.Get("refusal").Str; refused != "" {
		own.parts = append(own.parts, outPart{refusal: true, text: []byte(refused)})
	}
}
