package completions

import (
	"bytes"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider/chat"
)

// reader passes the events of one stream on.
type reader struct {
	of     *own
	echoes map[int64]string // by choice: what it has still to echo

	report chat.Report
	usage  *domain.Usage
	raw    []byte // of usage, as it came
	spoken bool   // some text has been delivered
	final  bool   // the usage is that of the whole answer
	data   []byte // reused where an event has line breaks
	text   []byte // reused
}

var done = []byte("[DONE]")

// Event passes one event on. [DONE] is the end, and none: the gateway writes its own.
func (r *reader) Event(data []byte, chunks []chat.Chunk) (_ []chat.Chunk, ended bool, err error) {
	if bytes.Equal(bytes.TrimSpace(data), done) {
		r.final = true
		return chunks, true, nil
	}
	v, ok := object(data)
	if !ok {
		return chunks, false, errNoEvent
	}
	if failed := chat.FailureIn(v.Get("error")); failed != nil {
		return chunks, false, failed
	}
	identify(&r.report, v)
	r.text = r.text[:0]
	choices := v.Get("choices")
	choices.ForEach(func(_, choice gjson.Result) bool {
		r.choice(choice)
		return true
	})
	r.spoken = r.spoken || len(r.text) > 0
	usage := v.Get("usage")
	if usage.IsObject() {
		r.usage, r.raw = chat.UsageFrom(usage), chat.RawUsage(usage)
	}
	alone := usage.IsObject() && choices.IsArray() && !choices.Get("0").Exists()
	r.final = r.final || alone
	return append(chunks, chat.Chunk{Data: chat.OneLine(data, &r.data), Text: r.text, UsageOnly: alone}), false, nil
}

func (r *reader) choice(choice gjson.Result) {
	finish(&r.report, choice)
	i := choice.Get("index").Int()
	echo, known := r.echoes[i]
	if !known {
		echo = r.of.prompt(i)
	}
	said := choice.Get("text").Str
	if echo != "" {
		said, r.echoes[i] = unechoed(said, echo)
	}
	r.text = append(r.text, said...)
}

// End is called where there was no [DONE], with which every answer ends: it is not complete.
func (r *reader) End(chunks []chat.Chunk) (_ []chat.Chunk, complete bool) { return chunks, false }

// Report is what is known so far. Some servers tell a usage in every event: it is not final before the end,
// and one without output is a place keeper where text has been delivered. At the end zero means zero.
func (r *reader) Report() chat.Report {
	report := r.report
	if r.usage != nil && (r.final || !r.spoken || r.usage.Output > 0) {
		usage := *r.usage
		report.Usage, report.Partial = &usage, !r.final
	}
	if report.Usage != nil || r.usage == nil {
		report.Raw = r.raw
	}
	return report
}

// identify takes in what an answer or an event says about itself.
func identify(report *chat.Report, v gjson.Result) {
	keep(&report.UpstreamID, v.Get("id"), chat.MaxUpstreamID)
	keep(&report.Model, v.Get("model"), chat.MaxModelName)
	keep(&report.ServiceTier, v.Get("service_tier"), chat.MaxServiceTier)
}

// finish keeps the first choice's reason to stop, or another's until that has come.
func finish(report *chat.Report, choice gjson.Result) {
	if choice.Get("index").Int() == 0 || report.FinishReason == "" {
		keep(&report.FinishReason, choice.Get("finish_reason"), chat.MaxFinishReason)
	}
}

func keep(to *string, v gjson.Result, limit int) {
	if v.Type == gjson.String && v.Str != "" && v.Str != *to {
		*to = domain.CleanText(v.Str, limit)
	}
}
