package anthropic

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"llm-gateway/gateway/provider/chat"
)

const (
	// DefaultMaxUses is how often a web search may be used whose max_uses is not given: without one, nothing
	// bounds what it costs. Whoever bounds the request counts with the same.
	DefaultMaxUses = 10
	// ForeignSignature begins the signatures of thinking that no model of Anthropic's did: the gateway made
	// them to carry other providers' signatures through clients of this API.
	ForeignSignature = "llm-gateway:"
)

// Own is a call in Anthropic's own form: body goes as it is, but for the model's name, the limit of web
// searches, and what other providers' answers left in the conversation that Anthropic would refuse (thinking
// that is not signed by it, citations without its index). Answers and events come back byte for byte.
func Own(body []byte, model string) (_ chat.Exchange, err error) {
	if gjson.GetBytes(body, "model").Str != model {
		if body, err = sjson.SetRawBytes(body, "model", []byte(quote(model))); err != nil {
			return nil, errNoRequest(err)
		}
	}
	if body, err = limitSearches(body); err != nil {
		return nil, errNoRequest(err)
	}
	if body, err = sweep(body); err != nil {
		return nil, errNoRequest(err)
	}
	return &own{body: body}, nil
}

func errNoRequest(err error) error {
	return chat.Invalid("messages", "The request cannot be read: %v.", err)
}

func quote(s string) string {
	b, err := chat.Marshal(s)
	if err != nil { // unreachable: a string is valid
		return `""`
	}
	return string(b)
}

// limitSearches puts DefaultMaxUses where there is no max_uses.
func limitSearches(body []byte) ([]byte, error) {
	var err error
	for i, tool := range gjson.GetBytes(body, "tools").Array() {
		if err == nil && strings.HasPrefix(tool.Get("type").Str, "web_search_") && tool.Get("max_uses").Type == gjson.Null {
			body, err = sjson.SetBytes(body, "tools."+strconv.Itoa(i)+".max_uses", DefaultMaxUses)
		}
	}
	return body, err
}

// sweep takes out of the conversation what other providers' answers left in it.
func sweep(body []byte) ([]byte, error) {
	messages := gjson.GetBytes(body, "messages")
	var kept []string
	swept := false
	messages.ForEach(func(_, m gjson.Result) bool {
		raw, changed := m.Raw, false
		if m.Get("role").Str == chat.RoleAssistant {
			raw, changed = sweepTurn(m)
		}
		swept = swept || changed
		if raw != "" {
			kept = append(kept, raw)
		}
		return true
	})
	if !swept {
		return body, nil
	}
	return sjson.SetRawBytes(body, "messages", []byte("["+strings.Join(kept, ",")+"]"))
}

// sweepTurn sweeps one turn; a turn that had nothing else is gone.
func sweepTurn(m gjson.Result) (raw string, changed bool) {
	var blocks []string
	m.Get("content").ForEach(func(_, b gjson.Result) bool {
		block := b.Raw
		switch {
		case b.Get("type").Str == "thinking" && foreignThought(b.Get("signature").Str):
			changed = true
			return true
		case b.Get("type").Str == "text" && uncitable(b.Get("citations")):
			if without, err := sjson.Delete(block, "citations"); err == nil {
				block, changed = without, true
			}
		}
		blocks = append(blocks, block)
		return true
	})
	if !changed {
		return m.Raw, false
	}
	if len(blocks) == 0 {
		return "", true
	}
	raw, err := sjson.SetRaw(m.Raw, "content", "["+strings.Join(blocks, ",")+"]")
	if err != nil {
		return m.Raw, false
	}
	return raw, true
}

func foreignThought(signature string) bool {
	return signature == "" || strings.HasPrefix(signature, ForeignSignature)
}

// uncitable says whether a citation of a web page lacks the index that Anthropic demands back.
func uncitable(citations gjson.Result) (lacks bool) {
	citations.ForEach(func(_, c gjson.Result) bool {
		lacks = lacks || c.Get("type").Str == "web_search_result_location" && c.Get("encrypted_index").Str == ""
		return !lacks
	})
	return lacks
}

// own is a call in Anthropic's own form.
type own struct{ body []byte }

func (o *own) Body() []byte { return o.body }

func (o *own) Reader() chat.Reader { return &ownReader{} }

// Answer reads a whole message; native is the answer.
func (o *own) Answer(native []byte) (*chat.Completion, error) {
	if failed := ErrorOf(native); failed != nil {
		return nil, failed
	}
	m := gjson.ParseBytes(native)
	if !json.Valid(native) || !m.Get("content").IsArray() || m.Get("role").Str != chat.RoleAssistant {
		return nil, errNoAnswer
	}
	report := reportOf(m)
	report.FinishReason = finishOf(m.Get("stop_reason").Str, m.Get(`content.#(type=="tool_use")`).Exists())
	report.Raw = chat.RawUsage(m.Get("usage"))
	bill(&report, UsageOf(m.Get("usage")), m.Get("usage.iterations"))
	return &chat.Completion{Body: native, Report: report, Text: func() string { return writtenIn(m.Get("content")) }}, nil
}

// writtenIn is all that was written in a message: its text, its thinking, its calls.
func writtenIn(content gjson.Result) string {
	var text strings.Builder
	content.ForEach(func(_, b gjson.Result) bool {
		text.WriteString(b.Get("text").Str + b.Get("thinking").Str + b.Get("name").Str)
		if input := b.Get("input"); input.IsObject() {
			text.WriteString(input.Raw)
		}
		return true
	})
	return text.String()
}

// ownReader passes the events of one stream on.
type ownReader struct {
	report  chat.Report
	tally   tally
	counted bool // message_delta has told the output
	called  bool
	reason  string
	rounds  string // the iterations of the last usage that named them
	data    []byte // reused, like text
	text    []byte
}

// Event passes one event on, and reads what it tells of usage.
func (r *ownReader) Event(data []byte, chunks []chat.Chunk) (_ []chat.Chunk, done bool, err error) {
	r.data, r.text = append(r.data[:0], data...), r.text[:0]
	if token, ok := textDelta(data); ok {
		r.text = append(r.text, gjson.ParseBytes(token).Str...)
		return append(chunks, chat.Chunk{Data: r.data, Text: r.text, Event: "content_block_delta"}), false, nil
	}
	if !json.Valid(data) {
		return chunks, false, errNoEvent
	}
	e := gjson.ParseBytes(data)
	kind := e.Get("type").Str
	if kind == "error" {
		if failed := ErrorOf(data); failed != nil {
			return chunks, false, failed
		}
		return chunks, false, &chat.Failed{Type: "server_error", Message: "The provider reported an error."}
	}
	r.read(kind, e)
	if bytes.ContainsAny(r.data, "\r\n") { // an event of several lines: a chunk has one
		if r.data, err = chat.Marshal(json.RawMessage(data)); err != nil {
			return chunks, false, errNoEvent
		}
	}
	done = kind == "message_stop"
	chunk := chat.Chunk{Data: r.data, Text: r.text, Last: done}
	if only(kind, "_") {
		chunk.Event = kind
	}
	return append(chunks, chunk), done, nil
}

// read takes in what an event tells.
func (r *ownReader) read(kind string, e gjson.Result) {
	switch kind {
	case "message_start": // where there are two, the later one's usage counts
		r.tally, r.rounds, r.counted, r.called, r.reason = tally{}, "", false, false, ""
		before := r.report
		r.report = reportOf(e.Get("message"))
		r.report.ServiceTier, r.report.Geo, r.report.Speed = before.ServiceTier, before.Geo, before.Speed
		r.count(e.Get("message.usage"))
	case "content_block_start":
		b := e.Get("content_block")
		r.called = r.called || b.Get("type").Str == "tool_use"
		r.text = append(r.text, b.Get("text").Str+b.Get("thinking").Str+b.Get("name").Str...)
		if input := b.Get("input"); strings.Trim(input.Raw, "{} \t\r\n") != "" {
			r.text = append(r.text, input.Raw...)
		}
	case "content_block_delta":
		d := e.Get("delta")
		r.text = append(r.text, d.Get("text").Str+d.Get("thinking").Str+d.Get("partial_json").Str...)
	case "message_delta":
		if reason := e.Get("delta.stop_reason").Str; reason != "" {
			r.reason = reason
		}
		r.report.Kept = keptOf(r.report.Kept, e.Get("delta.container.id"))
		r.count(e.Get("usage"))
		r.counted = r.counted || e.Get("usage.output_tokens").Exists()
	}
}

func (r *ownReader) count(usage gjson.Result) {
	r.tally.set(usage)
	if i := usage.Get("iterations"); i.IsArray() {
		r.rounds = i.Raw
	}
	if tier := usage.Get("service_tier").Str; tier != "" {
		r.report.ServiceTier = pricedTier(tier)
	}
	placed(&r.report, usage)
}

// End is called where there was no message_stop, with which every answer ends: it is not complete.
func (r *ownReader) End(chunks []chat.Chunk) (_ []chat.Chunk, complete bool) { return chunks, false }

// Report is what is known so far.
func (r *ownReader) Report() chat.Report {
	report := r.report
	report.Partial, report.Raw = !r.counted, r.tally.raw
	if r.reason != "" {
		report.FinishReason = finishOf(r.reason, r.called)
	}
	bill(&report, r.tally.usage(), gjson.Parse(r.rounds))
	return report
}
