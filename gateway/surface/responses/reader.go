package responses

import (
	"encoding/json"
	"errors"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider/chat"
)

var errNoEvent = errors.New("an event that is not a JSON object with a type")

// reader passes the events of one stream on.
type reader struct {
	report chat.Report
	data   []byte // reused where an event has line breaks
	text   []byte // reused
}

// deltas are the events whose delta is text that the model wrote.
var deltas = map[string]bool{
	"response.output_text.delta": true, "response.refusal.delta": true, "response.function_call_arguments.delta": true,
	"response.reasoning_summary_text.delta": true, "response.reasoning_text.delta": true,
	"response.custom_tool_call_input.delta": true, "response.audio.transcript.delta": true,
	"response.shell_call_command.delta": true,
}

// Event passes one event on. The usage comes with the last.
func (r *reader) Event(data []byte, chunks []chat.Chunk) (_ []chat.Chunk, done bool, err error) {
	kind := ""
	if json.Valid(data) {
		kind = gjson.GetBytes(data, "type").Str
	}
	r.text = r.text[:0]
	switch {
	case kind == "":
		if e := gjson.GetBytes(data, "error"); e.IsObject() {
			return chunks, false, failedOf(e)
		}
		return chunks, false, errNoEvent
	case deltas[kind]:
		r.text = append(r.text, gjson.GetBytes(data, "delta").Str...)
	case kind == "response.output_item.added":
		r.text = appendCall(r.text, gjson.GetBytes(data, "item"))
	default:
		done, err = r.other(kind, data)
	}
	if err != nil {
		return chunks, false, err
	}
	return append(chunks, chat.Chunk{Data: chat.OneLine(data, &r.data), Event: kind, Text: r.text, Last: done}), done, nil
}

// other takes in what is not a piece of the output.
func (r *reader) other(kind string, data []byte) (done bool, err error) {
	switch kind {
	case "error":
		if e := gjson.GetBytes(data, "error"); e.IsObject() {
			return false, failedOf(e)
		}
		return false, failedOf(gjson.ParseBytes(data))
	case "response.created", "response.in_progress", "response.queued":
		v := gjson.GetBytes(data, "response")
		r.report.Model = domain.CleanText(v.Get("model").Str, chat.MaxModelName)
		r.report.UpstreamID = domain.CleanText(v.Get("id").Str, chat.MaxUpstreamID)
		r.report.Kept = keptOf(v)
	case "response.completed", "response.incomplete", "response.failed", "response.cancelled":
		return r.last(kind, gjson.GetBytes(data, "response"))
	}
	return false, nil
}

// last takes in the event that ends the answer. One that failed without a usage is an error, and what
// was delivered before it is counted.
func (r *reader) last(kind string, response gjson.Result) (done bool, err error) {
	if !response.IsObject() {
		return false, errNoEvent
	}
	r.report, _ = reportOf(response)
	if kind == "response.failed" && r.report.Usage == nil {
		return false, failedOf(response.Get("error"))
	}
	return true, nil
}

// End is called where there was no last event, with which every answer ends: it is not complete.
func (r *reader) End(chunks []chat.Chunk) (_ []chat.Chunk, complete bool) { return chunks, false }

// Report is what is known so far.
func (r *reader) Report() chat.Report { return r.report }
