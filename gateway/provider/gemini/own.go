package gemini

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider/chat"
)

// own is a call by Google's own API: the request and what comes back go through as they are, and are read
// on the way.
type own struct {
	target Target
	body   []byte
}

// Own is the exchange of a generateContent or streamGenerateContent request that came in Google's form. model
// is the name in the path, as Google knows it. An answer's bytes and a stream's events are Google's.
func Own(body []byte, model string) (chat.Exchange, error) {
	changed, err := OwnBody(body, model)
	if err != nil {
		return nil, err
	}
	return &own{target: Target{Model: strings.TrimPrefix(model, "models/")}, body: changed}, nil
}

func (x *own) Body() []byte { return x.body }

// Answer reads a whole answer.
func (x *own) Answer(native []byte) (*chat.Completion, error) {
	response := parse(native)
	if failed := failure(response); failed != nil {
		return nil, failed
	}
	known := response.Get("candidates").IsArray() || response.Get("usageMetadata").IsObject() || response.Get("promptFeedback").IsObject()
	if !response.IsObject() || !known {
		return nil, errors.New("the answer is no generateContent response")
	}
	h := head{target: x.target, complete: true}
	text := h.read(response, true)
	return &chat.Completion{Body: native, Report: h.report(), Text: func() string { return string(text) }}, nil
}

// read takes in a response and returns the text that it delivers. last says that no more will come.
func (h *head) read(response gjson.Result, last bool) (text []byte) {
	h.take(response)
	for i, candidate := range response.Get("candidates").Array() {
		c := h.choice(candidate, i)
		d, reason := c.fold(h, candidate), candidate.Get("finishReason").Str
		if c.finish == "" && (reason != "" || last) {
			c.end(h, &d, reason)
		}
		text = append(text, delivered(&d)...)
	}
	if !h.blocked {
		return text
	}
	if len(h.choices) == 0 {
		h.choiceAt(0)
	}
	for _, c := range h.choices {
		if d := (chat.Delta{}); c.finish == "" {
			c.end(h, &d, "")
			text = append(text, delivered(&d)...)
		}
	}
	return text
}

func (x *own) Reader() chat.Reader { return &ownReader{reader: reader{head: head{target: x.target}}} }

// ownReader passes events on. Google's streams have no event that says it is the last one: so an event that
// may be it is held back until another comes, or the input ends.
type ownReader struct {
	reader
	held *chat.Chunk
}

// Event never says that the stream is done: Google's streams just end.
func (r *ownReader) Event(data []byte, chunks []chat.Chunk) ([]chat.Chunk, bool, error) {
	response := parse(data)
	if failed := failure(response); failed != nil {
		return chunks, false, failed
	}
	if !response.IsObject() {
		return chunks, false, errors.New("an event is no generateContent response")
	}
	before := r.finished()
	text := r.read(response, false)
	r.settle()
	if bytes.ContainsAny(data, "\r\n") {
		var line bytes.Buffer
		_ = json.Compact(&line, data) // it is JSON: parse has seen it
		data = line.Bytes()
	}
	if r.held != nil {
		chunks, r.held = append(chunks, *r.held), nil
	}
	if !r.complete && r.finished() == before {
		return append(chunks, chat.Chunk{Data: data, Text: text}), false, nil
	}
	r.held = &chat.Chunk{Data: bytes.Clone(data), Text: text}
	return chunks, false, nil
}

// finished is how many candidates have ended.
func (r *ownReader) finished() (n int) {
	for _, c := range r.choices {
		if c.finish != "" {
			n++
		}
	}
	return n
}

// End gives the event that was held back: it was the last one, if every candidate has ended.
func (r *ownReader) End(chunks []chat.Chunk) ([]chat.Chunk, bool) {
	if r.held != nil {
		r.held.Last = r.complete
		chunks, r.held = append(chunks, *r.held), nil
	}
	return chunks, r.complete
}

// sealed begins the thoughtSignature in which package generate has carried another provider's.
const sealed = "bGxtLWdhdGV3YXkv"

// OwnBody is a request of Google's API for the model that the path of the call names: generateContent,
// countTokens, embedContent or batchEmbedContents. Changed is only the model's name, where the body repeats it,
// and what is left of other providers' thinking, whose signatures Google would refuse.
func OwnBody(body []byte, model string) ([]byte, error) {
	v := gjson.ParseBytes(body)
	if !v.IsObject() {
		return nil, chat.Invalid("", "The body must be an object.")
	}
	e := edits{name: chat.Encode("models/" + strings.TrimPrefix(model, "models/"))}
	inner := []gjson.Result{v, v.Get("generateContentRequest"), v.Get("generate_content_request")}
	for _, request := range inner {
		e.rename(request)
	}
	elements(v.Get("requests"), e.rename)
	if bytes.Contains(body, []byte(sealed)) {
		for _, request := range inner {
			e.unseal(request)
		}
	}
	return e.apply(body), nil
}

// edits are what to change in a body. They are made in one go: a request may name thousands.
type edits struct {
	name []byte // of the model, as JSON
	list []edit
}

// edit puts a value in the place of another.
type edit struct {
	at, end int // in the body
	raw     []byte
}

func (e *edits) put(value gjson.Result, raw []byte) {
	e.list = append(e.list, edit{value.Index, value.Index + len(value.Raw), raw})
}

func (e *edits) apply(body []byte) []byte {
	if len(e.list) == 0 {
		return body
	}
	slices.SortFunc(e.list, func(a, b edit) int { return a.at - b.at })
	out, done := make([]byte, 0, len(body)), 0
	for _, edit := range e.list {
		out = append(append(out, body[done:edit.at]...), edit.raw...)
		done = edit.end
	}
	return append(out, body[done:]...)
}

// rename names the model where a request names one.
func (e *edits) rename(request gjson.Result) {
	if of := request.Get("model"); of.Exists() && of.Raw != string(e.name) {
		e.put(of, e.name)
	}
}

// unseal takes out signatures that are not Google's. A part that was nothing else stays as an empty text.
func (e *edits) unseal(request gjson.Result) {
	elements(request.Get("contents"), func(content gjson.Result) {
		elements(content.Get("parts"), func(part gjson.Result) {
			raw := part.Raw
			for _, name := range []string{"thoughtSignature", "thought_signature"} {
				if !strings.HasPrefix(part.Get(name).Str, sealed) {
					continue
				}
				raw, _ = sjson.Delete(raw, name) // a plain name cannot fail
				if !part.Get("text").Exists() && !part.Get("functionCall").Exists() && !part.Get("function_call").Exists() {
					raw, _ = sjson.Set(raw, "text", "")
				}
			}
			if raw != part.Raw {
				e.put(part, []byte(raw))
			}
		})
	})
}

// elements goes through a list, or what stands for a list of one.
func elements(v gjson.Result, do func(gjson.Result)) {
	if !v.IsArray() {
		do(v)
		return
	}
	v.ForEach(func(_, element gjson.Result) bool {
		do(element)
		return true
	})
}

// EmbedUsage is the usage of an answer to embedContent or batchEmbedContents; nil where there is none, as older
// models report none.
func EmbedUsage(native []byte) *domain.Usage {
	of := parse(native).Get("usageMetadata")
	u := UsageOf(of)
	if u == nil {
		return nil
	}
	c := countsOf(of)
	u.AudioIn += c.modality("promptTokenDetails", "AUDIO") // embeddings spell it so
	u.ImageIn += c.modality("promptTokenDetails", "IMAGE")
	u.Output, u.Reasoning = 0, 0
	if c.Bad || u.AudioIn > domain.MaxTokens || u.ImageIn > domain.MaxTokens {
		return nil
	}
	return u
}
