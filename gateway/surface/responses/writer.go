package responses

import (
	"encoding/json"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// writer translates one stream. Messages and reasoning items are closed when another item begins, calls at
// the end: providers may go from one call to another and back.
type writer struct {
	sent *sent

	sequence   int
	model      string
	tier       *string
	usage      *usage
	finish     string
	begun      bool
	ended      bool
	items      []*item
	open       *item         // the message or reasoning item under way
	calls      map[int]*item // by the index that chunks give them
	carried    carried
	characters int // of the content so far
}

func newWriter(s *sent) *writer { return &writer{sent: s, calls: map[int]*item{}} }

// Chunk takes in one chunk of a chat completion. What is none says nothing.
func (w *writer) Chunk(data []byte, events []chat.Chunk) []chat.Chunk {
	if !json.Valid(data) || w.ended {
		return events
	}
	v := gjson.ParseBytes(data)
	if model := v.Get("model").Str; model != "" {
		w.model = model
	}
	if tier := tierFrom(v.Get("service_tier")); tier != nil {
		w.tier = tier
	}
	if u := usageFrom(v.Get("usage")); u != nil {
		w.usage = u
	}
	s := steps{w: w, events: events}
	s.begin()
	v.Get("choices").ForEach(func(_, choice gjson.Result) bool {
		if choice.Get("index").Int() == 0 {
			s.choice(choice)
		}
		return true
	})
	return s.events
}

// End closes what is open and appends the last event.
func (w *writer) End(events []chat.Chunk) []chat.Chunk {
	if w.ended {
		return events
	}
	w.ended = true
	s := steps{w: w, events: events}
	s.begin()
	if len(w.items) == 0 {
		s.part(s.item(kindMessage), false)
	}
	status, why := end(w.finish)
	s.closeAll(status)
	if w.carried.holds() {
		own := s.item(kindReasoning)
		own.encrypted = w.carried.encode()
		s.close(own, statusCompleted)
	}
	r := w.response()
	r.Status, r.IncompleteDetails, r.Usage = status, why, w.usage
	for _, own := range w.items {
		r.Output = append(r.Output, own.view())
	}
	s.emit(&event{Type: "response." + status, Response: r})
	s.events[len(s.events)-1].Last = true
	return s.events
}

func (w *writer) response() *response {
	r := w.sent.response()
	r.Model, r.ServiceTier = w.model, w.tier
	return r
}

// steps are what one chunk, or the end, becomes.
type steps struct {
	w      *writer
	events []chat.Chunk
}

// begin gives the first two events, once.
func (s *steps) begin() {
	if s.w.begun {
		return
	}
	s.w.begun = true
	for _, kind := range []string{"response.created", "response.in_progress"} {
		s.emit(&event{Type: kind, Response: s.w.response()})
	}
}

// choice takes in what a chunk says of the answer.
func (s *steps) choice(choice gjson.Result) {
	w, d := s.w, choice.Get("delta")
	if text := reasoningOf(d); text != "" {
		s.think(text)
	}
	if text := d.Get("content").Str; text != "" {
		s.say(text, raws(choice.Get("logprobs.content")))
	}
	if text := d.Get("refusal").Str; text != "" {
		s.refuse(text)
	}
	d.Get("images").ForEach(func(_, image gjson.Result) bool { s.image(imageData(image)); return true })
	d.Get("tool_calls").ForEach(func(_, call gjson.Result) bool { s.call(call); return true })
	d.Get("thinking_blocks").ForEach(func(_, block gjson.Result) bool { w.carried.think(block); return true })
	if signature := signatureOf(d); signature != "" {
		w.carried.ThoughtSignature = signature
	}
	d.Get("annotations").ForEach(func(_, a gjson.Result) bool { s.cite(a); return true })
	if finish := choice.Get("finish_reason").Str; finish != "" {
		w.finish = finish
	}
}

// item begins a new item, after the one that was under way.
func (s *steps) item(kind string) *item {
	w := s.w
	if w.open != nil {
		s.close(w.open, statusCompleted)
	}
	own := newItem(kind, w.sent.id, len(w.items))
	w.items = append(w.items, own)
	if kind == kindMessage || kind == kindReasoning {
		w.open = own
	}
	if kind != kindCall { // a call has its name first
		s.added(own)
	}
	return own
}

func (s *steps) added(own *item) {
	s.emit(&event{Type: "response.output_item.added", OutputIndex: &own.index, Item: own.view()})
}

// under is the item of a kind that is under way, or a new one.
func (s *steps) under(kind string) *item {
	if s.w.open != nil && s.w.open.kind == kind {
		return s.w.open
	}
	return s.item(kind)
}

func (s *steps) think(text string) {
	own := s.under(kindReasoning)
	if len(own.parts) == 0 {
		own.parts = append(own.parts, outPart{})
		e := s.of(own, "response.reasoning_summary_part.added")
		e.SummaryIndex, e.Part = new(int), summaryText{Type: "summary_text"}
		s.emit(e)
	}
	own.parts[0].text = append(own.parts[0].text, text...)
	e := s.of(own, "response.reasoning_summary_text.delta")
	e.SummaryIndex, e.Delta = new(int), &text
	s.emit(e)
}

// part is the last part of a message if it is of the kind, or a new one.
func (s *steps) part(own *item, refusal bool) *outPart {
	last := len(own.parts) - 1
	if last >= 0 && own.parts[last].refusal == refusal {
		return &own.parts[last]
	}
	if last >= 0 {
		s.closePart(own)
	}
	own.parts = append(own.parts, outPart{refusal: refusal, start: s.w.characters})
	p := &own.parts[last+1]
	s.emit(s.ofPart(own, "response.content_part.added", p.view()))
	return p
}

func (s *steps) say(text string, logprobs []json.RawMessage) {
	own := s.under(kindMessage)
	p := s.part(own, false)
	p.text, p.logprobs = append(p.text, text...), append(p.logprobs, logprobs...)
	s.w.characters += utf8.RuneCountInString(text)
	e := s.ofPart(own, "response.output_text.delta", nil)
	e.Delta, e.Logprobs = &text, &logprobs
	s.emit(e)
}

func (s *steps) refuse(text string) {
	own := s.under(kindMessage)
	p := s.part(own, true)
	p.text = append(p.text, text...)
	e := s.ofPart(own, "response.refusal.delta", nil)
	e.Delta = &text
	s.emit(e)
}

func (s *steps) image(data string) {
	own := s.item(kindImage)
	own.result = data
	s.emit(s.of(own, "response.image_generation_call.completed"))
	s.close(own, statusCompleted)
}

// call takes in a piece of a call. A new id begins a new one, even under an index that was used before.
func (s *steps) call(v gjson.Result) {
	w, index, id := s.w, int(v.Get("index").Int()), v.Get("id").Str
	own := w.calls[index]
	if own == nil || id != "" && id != own.callID && v.Get("function.name").Str != "" {
		own = s.item(kindCall)
		own.callID, own.name = callID(v, own), v.Get("function.name").Str
		w.calls[index] = own
		s.added(own)
	}
	w.carried.sign(own.callID, signatureOf(v))
	s.arguments(own, v.Get("function.arguments").Str)
}

func (s *steps) arguments(own *item, piece string) {
	if piece == "" {
		return
	}
	own.arguments = append(own.arguments, piece...)
	e := s.of(own, "response.function_call_arguments.delta")
	e.Delta = &piece
	s.emit(e)
}

// cite adds a citation to the text that it is about. Citations may come when that is closed: then the
// response at the end has them, and this event.
func (s *steps) cite(v gjson.Result) {
	var about *item
	part, start := 0, int(v.Get("url_citation.start_index").Int())
	for _, own := range s.w.items {
		for i := range own.parts {
			if own.kind == kindMessage && !own.parts[i].refusal && (about == nil || own.parts[i].start <= start) {
				about, part = own, i
			}
		}
	}
	if about == nil {
		return
	}
	p := &about.parts[part]
	p.annotations = append(p.annotations, cite(v, p.start))
	last := len(p.annotations) - 1
	e := s.of(about, "response.output_text.annotation.added")
	e.ContentIndex, e.AnnotationIndex, e.Annotation = &part, &last, &p.annotations[last]
	s.emit(e)
}
