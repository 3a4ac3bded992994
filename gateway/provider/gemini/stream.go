package gemini

import (
	"encoding/json"
	"errors"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// reader translates the events of one stream. Each is a whole response that has what is new.
type reader struct {
	head
	ended bool
}

// Event never says that the stream is done: Google's streams just end.
func (r *reader) Event(data []byte, chunks []chat.Chunk) ([]chat.Chunk, bool, error) {
	response := parse(data)
	if failed := failure(response); failed != nil {
		return chunks, false, failed
	}
	if !response.IsObject() {
		return chunks, false, errors.New("an event is no generateContent response")
	}
	r.take(response)
	for i, candidate := range response.Get("candidates").Array() {
		chunks = r.candidate(chunks, r.choice(candidate, i), candidate)
	}
	if r.blocked {
		chunks = r.block(chunks)
	}
	return chunks, false, nil
}

// candidate appends what is new of a candidate, and its end as a chunk of its own.
func (r *reader) candidate(chunks []chat.Chunk, c *choice, candidate gjson.Result) []chat.Chunk {
	d, reason := c.fold(&r.head, candidate), candidate.Get("finishReason").Str
	ends := c.finish == "" && reason != ""
	switch {
	case ends:
		c.end(&r.head, &d, reason)
	case c.finish != "":
		c.cite(&d) // citations that come after the end
	}
	if logprobs := logprobsOf(candidate); logprobs != nil || !isEmpty(&d) {
		chunks = r.chunk(chunks, c, d, logprobs, nil)
	}
	if ends {
		chunks = r.chunk(chunks, c, chat.Delta{}, nil, &c.finish)
	}
	r.settle()
	return chunks
}

// block ends what a blocked prompt leaves open: an empty answer, filtered.
func (r *reader) block(chunks []chat.Chunk) []chat.Chunk {
	if len(r.choices) == 0 {
		r.choiceAt(0)
	}
	for _, c := range r.choices {
		if c.finish != "" {
			continue
		}
		var d chat.Delta
		if c.end(&r.head, &d, ""); !isEmpty(&d) {
			chunks = r.chunk(chunks, c, d, nil, nil)
		}
		chunks = r.chunk(chunks, c, chat.Delta{}, nil, &c.finish)
	}
	r.settle()
	return chunks
}

// settle looks whether every candidate has ended.
func (r *reader) settle() {
	r.complete = len(r.choices) > 0
	for _, c := range r.choices {
		r.complete = r.complete && c.finish != ""
	}
}

func isEmpty(d *chat.Delta) bool {
	return d.Content == nil && d.ReasoningContent == "" && d.ToolCalls == nil && d.Annotations == nil && d.Images == nil && d.ExtraContent == nil
}

// chunk appends one chunk of one choice. The first of a choice says who speaks.
func (r *reader) chunk(chunks []chat.Chunk, c *choice, d chat.Delta, logprobs json.RawMessage, finish *string) []chat.Chunk {
	if !c.begun {
		c.begun, d.Role = true, chat.RoleAssistant
		if d.Content == nil && d.ToolCalls == nil {
			d.Content = new(string)
		}
	}
	e := r.event()
	e.Choices = []chat.EventChoice{{Index: c.index, Delta: d, Logprobs: logprobs, FinishReason: finish}}
	return append(chunks, chat.Chunk{Data: e.Encode(), Text: delivered(&d)})
}

// event begins a chunk, and fixes what all of them say alike.
func (r *reader) event() *chat.Event {
	r.model, r.fixed = r.servedBy(), true
	return &chat.Event{ID: r.id, Object: chat.ObjectChunk, Created: r.target.Created, Model: r.model}
}

// delivered is the text of a delta, for counting.
func delivered(d *chat.Delta) []byte {
	var text []byte
	if d.Content != nil {
		text = append(text, *d.Content...)
	}
	text = append(text, d.ReasoningContent...)
	for i := range d.ToolCalls {
		text = append(append(text, d.ToolCalls[i].Function.Name...), d.ToolCalls[i].Function.Arguments...)
	}
	return text
}

// End appends the usage of a complete answer. A stream that breaks off has no more to say.
func (r *reader) End(chunks []chat.Chunk) ([]chat.Chunk, bool) {
	if usage := chat.UsageOf(r.used()); r.complete && !r.ended && usage != nil {
		e := r.event()
		e.Choices, e.Usage, e.ServiceTier = []chat.EventChoice{}, usage, named(r.tier)
		chunks = append(chunks, chat.Chunk{Data: e.Encode(), UsageOnly: true})
	}
	r.ended = true
	return chunks, r.complete
}

func (r *reader) Report() chat.Report { return r.report() }
