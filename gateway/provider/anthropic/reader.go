package anthropic

import (
	"bytes"
	"encoding/json"
	"errors"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

var (
	errNoEvent = errors.New("an event that is not a JSON object")
	// errBegunAgain is a stream that began again, after calls of tools that the client had seen, and
	// went on otherwise. The client may be running them: nothing can take them back.
	errBegunAgain = errors.New("the answer began again, and called other tools than before")
)

// reader translates the events of one stream. What most events are, a piece of text, goes through
// without being decoded.
type reader struct {
	target   Target
	jsonTool string

	report     chat.Report
	tally      tally
	iterations []byte // of the last usage that named them
	counted    bool   // message_delta has told the output
	tier       string
	reason     string // why the model stopped, in Anthropic's word

	id, model   string // of the first message_start: one through all chunks
	begun       bool
	frame       []byte // of a chunk of text, up to the text
	data        []byte // reused for chunks of text, like text
	text        []byte
	characters  int // of the content so far
	open        openBlock
	calls       []call // that the client has seen, over all attempts
	called      int    // of this attempt
	thoughts    []chat.ThinkingBlock
	annotations []chat.Annotation
}

// openBlock is the block that is being delivered.
type openBlock struct {
	kind     string // Anthropic's type; "" = none is open
	thought  chat.ThinkingBlock
	thinking []byte // of thought
	start    int    // in the content, in characters
	cited    []chat.Annotation
	call     int    // of a tool_use: its number in this attempt
	given    string // of a tool_use: the arguments that came with its start
	received int    // of a tool_use: bytes of arguments that came since
}

// Event takes in one event.
func (r *reader) Event(data []byte, chunks []chat.Chunk) (_ []chat.Chunk, done bool, err error) {
	if token, ok := textDelta(data); ok && r.open.kind == "text" {
		return append(chunks, r.textChunk(token)), false, nil
	}
	e := gjson.ParseBytes(data)
	if !json.Valid(data) || !e.IsObject() {
		return chunks, false, errNoEvent
	}
	switch e.Get("type").Str {
	case "message_start":
		return r.messageStart(e.Get("message"), chunks), false, nil
	case "content_block_start":
		if chunks, err = r.blockStop(chunks); err == nil {
			chunks, err = r.blockStart(e.Get("content_block"), chunks)
		}
	case "content_block_delta":
		chunks, err = r.delta(e.Get("delta"), chunks)
	case "content_block_stop":
		chunks, err = r.blockStop(chunks)
	case "message_delta":
		r.messageDelta(e)
	case "message_stop":
		if chunks, err = r.blockStop(chunks); err == nil {
			return r.messageStop(chunks)
		}
	case "error":
		err = &chat.Failed{Type: "server_error", Message: "The provider reported an error."}
		if failed := ErrorOf(data); failed != nil {
			err = failed
		}
	}
	return chunks, false, err
}

// End is called where there was no message_stop, with which every answer ends: it is not complete.
func (r *reader) End(chunks []chat.Chunk) (_ []chat.Chunk, complete bool) { return chunks, false }

// Report is what is known so far.
func (r *reader) Report() chat.Report {
	report := r.report
	report.Partial, report.Raw = !r.counted, r.tally.raw
	bill(&report, r.tally.usage(), gjson.ParseBytes(r.iterations))
	return report
}

// messageStart begins the answer, or begins it again: then what the first attempt told of usage and of
// thinking is void. The client keeps the id and the model that it was told first.
func (r *reader) messageStart(m gjson.Result, chunks []chat.Chunk) []chat.Chunk {
	r.tally, r.iterations, r.counted, r.reason = tally{}, nil, false, ""
	r.open, r.called, r.thoughts = openBlock{}, 0, nil
	told := reportOf(m)
	r.report.Model, r.report.FinishReason = told.Model, ""
	r.setUsage(m.Get("usage"))
	if r.begun {
		return chunks
	}
	r.report.UpstreamID = told.UpstreamID
	r.id, r.model = m.Get("id").String(), m.Get("model").String()
	return r.begin(chunks)
}

// begin gives the first chunk, once.
func (r *reader) begin(chunks []chat.Chunk) []chat.Chunk {
	if r.begun {
		return chunks
	}
	r.begun = true
	empty := ""
	first := r.event(chat.Delta{Role: chat.RoleAssistant, Content: &empty})
	data := first.Encode()
	// The frame is the first chunk up to its empty content.
	first.Choices[0].Delta.Role = ""
	frame := first.Encode()
	r.frame = frame[:bytes.Index(frame, []byte(`"content":""`))+len(`"content":`)]
	return append(chunks, chat.Chunk{Data: data})
}

func (r *reader) event(delta chat.Delta) chat.Event {
	return chat.Event{ID: r.id, Object: chat.ObjectChunk, Created: r.target.Created, Model: r.model,
		Choices: []chat.EventChoice{{Delta: delta}}}
}

// chunk is one of anything but plain text.
func (r *reader) chunk(delta chat.Delta, text string) chat.Chunk {
	e := r.event(delta)
	return chat.Chunk{Data: e.Encode(), Text: []byte(text)}
}

// frameEnd is what follows the text in a chunk of text.
const frameEnd = `},"logprobs":null,"finish_reason":null}]}`

// textChunk makes a chunk of a JSON string, as it stands.
func (r *reader) textChunk(token []byte) chat.Chunk {
	r.data = append(append(append(r.data[:0], r.frame...), token...), frameEnd...)
	if bytes.IndexByte(token, '\\') < 0 {
		r.text = append(r.text[:0], token[1:len(token)-1]...)
	} else {
		r.text = append(r.text[:0], gjson.ParseBytes(token).Str...)
	}
	r.characters += utf8.RuneCount(r.text)
	return chat.Chunk{Data: r.data, Text: r.text}
}

// content makes a chunk of text.
func (r *reader) content(text string, chunks []chat.Chunk) []chat.Chunk {
	if text == "" {
		return chunks
	}
	r.characters += utf8.RuneCountInString(text)
	return append(chunks, r.chunk(chat.Delta{Content: &text}, text))
}

// reasoning makes a chunk of thinking, and keeps it for the signed block.
func (r *reader) reasoning(text string, chunks []chat.Chunk) []chat.Chunk {
	if text == "" {
		return chunks
	}
	r.open.thinking = append(r.open.thinking, text...)
	return append(chunks, r.chunk(chat.Delta{ReasoningContent: text}, text))
}

func (r *reader) setUsage(u gjson.Result) {
	r.tally.set(u)
	if i := u.Get("iterations"); i.IsArray() {
		r.iterations = []byte(i.Raw)
	}
	if tier := u.Get("service_tier").Str; tier != "" {
		r.tier = tier
		r.report.ServiceTier = pricedTier(tier)
	}
	placed(&r.report, u)
}

// messageDelta takes in why the model stopped, and what it came to.
func (r *reader) messageDelta(e gjson.Result) {
	if reason := e.Get("delta.stop_reason").Str; reason != "" {
		r.reason = reason
		r.report.FinishReason = finishOf(reason, r.shown(r.called) > 0)
	}
	r.setUsage(e.Get("usage"))
	r.counted = r.counted || e.Get("usage.output_tokens").Exists()
}

// messageStop gives what comes last: signed thinking and citations, the reason, the usage.
func (r *reader) messageStop(chunks []chat.Chunk) (_ []chat.Chunk, done bool, err error) {
	if r.called < len(r.calls) {
		return chunks, false, errBegunAgain
	}
	chunks = r.begin(chunks)
	if len(r.thoughts)+len(r.annotations) > 0 {
		for i := range r.thoughts {
			r.thoughts[i].Index = &i
		}
		chunks = append(chunks, r.chunk(chat.Delta{ThinkingBlocks: r.thoughts, Annotations: r.annotations}, ""))
	}
	r.report.FinishReason = finishOf(r.reason, r.shown(r.called) > 0)
	last := r.event(chat.Delta{})
	last.Choices[0].FinishReason = &r.report.FinishReason
	chunks = append(chunks, chat.Chunk{Data: last.Encode()})
	if headline := r.tally.usage(); headline != nil {
		last.Choices, last.Usage, last.ServiceTier = []chat.EventChoice{}, chat.UsageOf(headline), tierOf(r.tier)
		chunks = append(chunks, chat.Chunk{Data: last.Encode(), UsageOnly: true})
	}
	return chunks, true, nil
}
