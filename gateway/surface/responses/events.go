package responses

import (
	"encoding/json"

	"llm-gateway/gateway/provider/chat"
)

// event is one event of a stream. What an event does not have is nil, or "".
type event struct {
	Type            string             `json:"type"`
	SequenceNumber  int                `json:"sequence_number"`
	Response        *response          `json:"response,omitempty"`
	ItemID          string             `json:"item_id,omitempty"`
	OutputIndex     *int               `json:"output_index,omitempty"`
	ContentIndex    *int               `json:"content_index,omitempty"`
	SummaryIndex    *int               `json:"summary_index,omitempty"`
	AnnotationIndex *int               `json:"annotation_index,omitempty"`
	Item            any                `json:"item,omitempty"`
	Part            any                `json:"part,omitempty"`
	Annotation      *annotation        `json:"annotation,omitempty"`
	Delta           *string            `json:"delta,omitempty"`
	Logprobs        *[]json.RawMessage `json:"logprobs,omitempty"`
	Text            *string            `json:"text,omitempty"`
	Refusal         *string            `json:"refusal,omitempty"`
	Name            string             `json:"name,omitempty"`
	Arguments       *string            `json:"arguments,omitempty"`
}

// emit numbers an event and appends it.
func (s *steps) emit(e *event) {
	e.SequenceNumber = s.w.sequence
	s.w.sequence++
	s.events = append(s.events, chat.Chunk{Data: chat.Encode(e), Event: e.Type})
}

// of is an event of an item.
func (s *steps) of(own *item, kind string) *event {
	return &event{Type: kind, ItemID: own.id, OutputIndex: &own.index}
}

// ofPart is an event of a message's last part.
func (s *steps) ofPart(own *item, kind string, part any) *event {
	last := len(own.parts) - 1
	return &event{Type: kind, ItemID: own.id, OutputIndex: &own.index, ContentIndex: &last, Part: part}
}

// closeAll closes what is open, in order. Where the answer is incomplete, its last item is.
func (s *steps) closeAll(status string) {
	for i, own := range s.w.items {
		if i < len(s.w.items)-1 {
			s.close(own, statusCompleted)
		} else {
			s.close(own, status)
		}
	}
}

// close ends an item, once.
func (s *steps) close(own *item, status string) {
	if own.closed {
		return
	}
	own.closed = true
	if s.w.open == own {
		s.w.open = nil
	}
	switch own.kind {
	case kindMessage:
		s.closePart(own)
	case kindReasoning:
		s.closeReasoning(own)
	case kindCall:
		s.closeCall(own)
	}
	own.status = status
	s.emit(&event{Type: "response.output_item.done", OutputIndex: &own.index, Item: own.view()})
}

// closePart ends a message's last part.
func (s *steps) closePart(own *item) {
	if len(own.parts) == 0 {
		return
	}
	p := &own.parts[len(own.parts)-1]
	text := string(p.text)
	if p.refusal {
		e := s.ofPart(own, "response.refusal.done", nil)
		e.Refusal = &text
		s.emit(e)
	} else {
		e := s.ofPart(own, "response.output_text.done", nil)
		e.Text, e.Logprobs = &text, &[]json.RawMessage{}
		*e.Logprobs = append(*e.Logprobs, p.logprobs...)
		s.emit(e)
	}
	s.emit(s.ofPart(own, "response.content_part.done", p.view()))
}

// closeReasoning ends a summary. An item without what its provider wants back is still marked as made here.
func (s *steps) closeReasoning(own *item) {
	if own.encrypted == "" {
		own.encrypted = (&carried{}).encode()
	}
	if len(own.parts) == 0 {
		return
	}
	text := string(own.parts[0].text)
	e := s.of(own, "response.reasoning_summary_text.done")
	e.SummaryIndex, e.Text = new(int), &text
	s.emit(e)
	e = s.of(own, "response.reasoning_summary_part.done")
	e.SummaryIndex, e.Part = new(int), summaryText{"summary_text", text}
	s.emit(e)
}

// closeCall ends a call. One without arguments has those that mean none.
func (s *steps) closeCall(own *item) {
	if len(own.arguments) == 0 {
		s.arguments(own, "{}")
	}
	arguments := string(own.arguments)
	e := s.of(own, "response.function_call_arguments.done")
	e.Name, e.Arguments = own.name, &arguments
	s.emit(e)
}
