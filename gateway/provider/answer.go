package provider

import (
	"bytes"
	"encoding/json"
	"net/http"
	"unsafe"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider/chat"
)

// answer reads a provider's answer, whole or chunk by chunk, into a Report. It is the hot path: a
// chunk is validated and walked once, and its text gathered in one reused buffer.
type answer struct {
	report   Report
	usage    *domain.Usage
	raw      []byte // of usage, as it came
	text     []byte
	begun    bool // a chunk has been read
	spoken   bool // some text has been delivered
	finished bool // a choice has given its finish reason
}

// Report is the report so far. A usage of no output while text is being delivered is the place
// keeper that some upstreams send in every chunk, not a report: believed, it would make aborted
// streams free. At the end of the answer zero means zero.
func (a *answer) Report() Report {
	r := a.report
	if a.usage != nil && (a.finished || !a.spoken || a.usage.Output > 0) {
		u := *a.usage
		r.Usage = &u
	}
	if r.Usage != nil || a.usage == nil {
		r.Raw = a.raw
	}
	return r
}

// view is b as a string without a copy. gjson keeps no strings; what is kept of its results is
// cloned before b changes.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// chunk reads one event of a stream. lines is the number of data lines it came in.
func (a *answer) chunk(name string, data []byte, lines int) (Chunk, *Error) {
	a.text = a.text[:0]
	before := *a
	f, ok := a.read(data, true)
	if !ok {
		*a = before // half an event reports nothing
		return Chunk{}, broken(name, a.begun, "an event that is not a JSON object")
	}
	if lines > 1 {
		// Line breaks of valid JSON stand between its tokens; out there they would end the frame.
		for i := bytes.IndexByte(data, '\n'); i >= 0; i = bytes.IndexByte(data, '\n') {
			data[i] = ' '
		}
	}
	if f.hasError {
		return Chunk{}, eventError(name, data)
	}
	a.begun = true
	a.spoken = a.spoken || len(a.text) > 0
	usageOnly := f.choices == 0 && f.hasUsage
	a.finished = a.finished || usageOnly
	return Chunk{Data: data, Text: a.text, UsageOnly: usageOnly}, nil
}

// eventError is an error event inside a stream. Its JSON goes to the client, if it is small enough.
func eventError(name string, data []byte) *Error {
	e := &Error{Kind: KindCut, Provider: name, Status: http.StatusOK, Reason: "an error event"}
	if isErrorBody(data) {
		e.Body = bytes.Clone(data)
	}
	return e
}

// whole reads a complete answer; false if it is none.
func (a *answer) whole(body []byte) bool {
	if !json.Valid(body) {
		return false
	}
	f, ok := a.read(body, false)
	a.finished = true
	return ok && f.choices >= 0 && !f.hasError
}

// findings are what one object of an answer turned out to be.
type findings struct {
	choices  int  // their number; -1 without a list of them
	hasUsage bool // a usage object, usable or not
	hasError bool
}

// read takes in one object of the answer, and gathers the text of its deltas if asked to. false if
// it is no JSON object. Of members with the same name the last one counts, as in most clients.
func (a *answer) read(data []byte, deltas bool) (findings, bool) {
	f := findings{choices: -1}
	s := scanner{b: data}
	if !s.enter('{') {
		return f, false
	}
	for first := true; s.more(&first, '}'); {
		switch string(s.key()) {
		case "id":
			setString(&a.report.UpstreamID, s.raw(), maxUpstreamID)
		case "model":
			setString(&a.report.Model, s.raw(), maxModelName)
		case "service_tier":
			setString(&a.report.ServiceTier, s.raw(), maxServiceTier)
		case "usage":
			if raw := s.raw(); !isNull(raw) && !s.bad {
				usage := gjson.Parse(view(raw))
				a.usage, a.raw = chat.UsageFrom(usage), chat.RawUsage(usage)
				f.hasUsage = raw[0] == '{'
			}
		case "error":
			raw := s.raw()
			f.hasError = len(raw) > 0 && (raw[0] == '{' || (raw[0] == '"' && len(raw) > len(`""`)))
		case "choices":
			f.choices = a.readChoices(&s, deltas)
		default:
			s.skip()
		}
	}
	return f, s.end()
}

// isNull reports whether a value says nothing: null, or what a bad text leaves.
func isNull(raw []byte) bool { return len(raw) == 0 || raw[0] == 'n' }

// setString keeps a string of the answer; null, other types and what is there already change
// nothing.
func setString(to *string, raw []byte, limit int) {
	if len(raw) <= len(`""`) || raw[0] != '"' || raw[len(raw)-1] != '"' || string(raw[1:len(raw)-1]) == *to {
		return
	}
	*to = chat.Clean(gjson.Parse(view(raw)).Str, limit)
}

func (a *answer) readChoices(s *scanner, deltas bool) (n int) {
	if !s.enter('[') {
		s.skip()
		return -1
	}
	for first := true; s.more(&first, ']'); {
		n++
		a.readChoice(s, deltas)
	}
	return n
}

func (a *answer) readChoice(s *scanner, deltas bool) {
	if !s.enter('{') {
		s.skip()
		return
	}
	index, reason := []byte("0"), []byte(nil)
	for first := true; s.more(&first, '}'); {
		switch key := s.key(); {
		case string(key) == "index":
			index = s.raw()
		case string(key) == "finish_reason":
			reason = s.raw()
		case deltas && string(key) == "delta":
			a.readDelta(s)
		default:
			s.skip()
		}
	}
	if len(reason) > len(`""`) && reason[0] == '"' {
		a.finish(reason, string(index) == "0")
	}
}

// finish keeps the first choice's reason, or another's until that has come.
func (a *answer) finish(reason []byte, first bool) {
	if first || a.report.FinishReason == "" {
		setString(&a.report.FinishReason, reason, maxFinishReason)
	}
	a.finished = true
}

// readDelta gathers a delta's text: quickly what is nearly every delta, by appendMember the rest.
func (a *answer) readDelta(s *scanner) {
	if !s.enter('{') {
		s.skip()
		return
	}
	reasoned := false
	for first := true; s.more(&first, '}'); {
		key := s.key()
		if (string(key) == "content" || string(key) == "refusal") && s.peek() == '"' {
			a.text = s.appendString(a.text)
			continue
		}
		raw := s.raw()
		if !isNull(raw) && !s.bad {
			a.text = appendMember(a.text, view(key), gjson.Parse(view(raw)), &reasoned)
		}
	}
}

// SetText tells what Text is of a Body in another form.
func (c *Completion) SetText(text string) { c.text = func() string { return text } }

// Text is all the text that the answer delivers, for counting when it reports no usage.
func (c *Completion) Text() string {
	if c.text != nil {
		return c.text()
	}
	var text []byte
	gjson.GetBytes(c.Body, "choices").ForEach(func(_, choice gjson.Result) bool {
		text = appendText(text, choice.Get("message"))
		return true
	})
	return string(text)
}

// appendText appends the text of a message, as a model had to produce it.
func appendText(dst []byte, message gjson.Result) []byte {
	reasoned := false
	message.ForEach(func(key, value gjson.Result) bool {
		dst = appendMember(dst, key.Str, value, &reasoned)
		return true
	})
	return dst
}

// appendMember appends the text of one member of a message or delta. reasoned remembers that there
// was reasoning: an upstream that gives it two names sends it twice.
func appendMember(dst []byte, key string, value gjson.Result, reasoned *bool) []byte {
	switch key {
	case "content":
		return appendContent(dst, value)
	case "refusal":
		return append(dst, value.Str...)
	case "reasoning_content", "reasoning":
		if value.Str != "" && !*reasoned {
			*reasoned = true
			return append(dst, value.Str...)
		}
	case "tool_calls":
		value.ForEach(func(_, call gjson.Result) bool {
			dst = appendCall(dst, call.Get("function"))
			return true
		})
	case "function_call":
		return appendCall(dst, value)
	case "audio":
		return append(dst, value.Get("transcript").Str...)
	}
	return dst
}

// appendContent appends a string, or the texts of a list of parts.
func appendContent(dst []byte, content gjson.Result) []byte {
	if !content.IsArray() {
		return append(dst, content.Str...)
	}
	content.ForEach(func(_, part gjson.Result) bool {
		dst = append(dst, part.Get("text").Str...)
		return true
	})
	return dst
}

func appendCall(dst []byte, function gjson.Result) []byte {
	if !function.IsObject() {
		return dst
	}
	dst = append(dst, function.Get("name").Str...)
	return append(dst, function.Get("arguments").Str...)
}

// isErrorBody reports whether a body is an error of OpenAI's shape that may be passed on.
func isErrorBody(body []byte) bool {
	return len(body) <= maxErrorBody && json.Valid(body) &&
		gjson.GetBytes(body, "error.message").Type == gjson.String
}
