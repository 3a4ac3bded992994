package anthropic

import (
	"encoding/json"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider/chat"
)

// errNoAnswer is what Answer says to a body that is no message.
var errNoAnswer = errors.New("the body is not a message of Anthropic's")

// exchange is one translated call.
type exchange struct {
	body     []byte
	target   Target
	jsonTool string // the tool whose input is the content
}

func (x *exchange) Body() []byte { return x.body }

func (x *exchange) Reader() chat.Reader {
	return &reader{target: x.target, jsonTool: x.jsonTool, report: chat.Report{}}
}

// Answer translates a whole message.
func (x *exchange) Answer(native []byte) (*chat.Completion, error) {
	if failed := ErrorOf(native); failed != nil {
		return nil, failed
	}
	m := gjson.ParseBytes(native)
	if !json.Valid(native) || !m.Get("content").IsArray() || m.Get("role").Str != chat.RoleAssistant {
		return nil, errNoAnswer
	}
	reply := gather(m.Get("content"), x.jsonTool)
	report := reportOf(m)
	report.FinishReason = finishOf(m.Get("stop_reason").Str, len(reply.ToolCalls) > 0)
	var t tally
	t.set(m.Get("usage"))
	headline := t.usage()
	report.Raw = t.raw
	bill(&report, headline, m.Get("usage.iterations"))
	answer := chat.Answer{ID: m.Get("id").Str, Object: chat.ObjectCompletion, Created: x.target.Created, Model: m.Get("model").Str,
		Choices: []chat.Choice{{Message: reply, FinishReason: report.FinishReason}},
		Usage:   chat.UsageOf(headline), ServiceTier: tierOf(m.Get("usage.service_tier").Str)}
	return &chat.Completion{Body: answer.Encode(), Report: report}, nil
}

// reportOf is what a message says about itself, beside its usage.
func reportOf(m gjson.Result) chat.Report {
	r := chat.Report{
		Model:      domain.CleanText(m.Get("model").Str, chat.MaxModelName),
		UpstreamID: domain.CleanText(m.Get("id").Str, chat.MaxUpstreamID),
	}
	r.ServiceTier = pricedTier(m.Get("usage.service_tier").Str)
	r.Kept = keptOf(nil, m.Get("container.id"))
	placed(&r, m.Get("usage"))
	return r
}

// keptOf adds the id of the container that an answer's code ran in: later requests can name it.
func keptOf(ids []string, container gjson.Result) []string {
	if container.Type != gjson.String || container.Str == "" || len(ids) >= chat.MaxReferences {
		return ids
	}
	return append(ids, strings.Clone(container.Str))
}

// placed takes in where and how fast an answer was made, as far as a usage tells.
func placed(r *chat.Report, usage gjson.Result) {
	for to, name := range map[*string]string{&r.Geo: "inference_geo", &r.Speed: "speed"} {
		if told := usage.Get(name).Str; told != "" {
			*to = domain.CleanText(told, chat.MaxRegion)
		}
	}
}

// pricedTier is the tier by the price book's names, where "" is the usual one.
func pricedTier(tier string) string {
	if tier == "standard" {
		return ""
	}
	return domain.CleanText(tier, chat.MaxServiceTier)
}

// tierOf is the tier in OpenAI's words; nil where none is told.
func tierOf(tier string) *string {
	switch tier {
	case "":
		return nil
	case "standard":
		tier = "default"
	}
	return &tier
}

// finishOf is OpenAI's word for a reason to stop. The call of the tool that only gives the content its form
// is none of the client's. A reason that nobody here knows is no failure: the answer has been bought.
func finishOf(reason string, calls bool) string {
	switch reason {
	case "max_tokens", "model_context_window_exceeded":
		return chat.FinishLength
	case "refusal":
		return chat.FinishContentFilter
	case "tool_use":
		if calls {
			return chat.FinishToolCalls
		}
	}
	return chat.FinishStop
}

// gather makes one reply of a message's blocks. Blocks of searches that Anthropic ran itself, and such
// as nobody here knows, are no part of it.
func gather(content gjson.Result, jsonTool string) chat.Reply {
	reply := chat.Reply{Role: chat.RoleAssistant}
	text, spoken := []byte(nil), false
	content.ForEach(func(_, b gjson.Result) bool {
		switch kind := b.Get("type").Str; {
		case kind == "text":
			spoken = true
			start := utf8.RuneCount(text)
			text = append(text, b.Get("text").Str...)
			reply.Annotations = appendCitations(reply.Annotations, b.Get("citations"), start, utf8.RuneCount(text))
		case kind == "thinking":
			reply.ReasoningContent += b.Get("thinking").Str
			reply.ThinkingBlocks = append(reply.ThinkingBlocks, thoughtOf(b))
		case kind == "redacted_thinking":
			reply.ThinkingBlocks = append(reply.ThinkingBlocks, thoughtOf(b))
		case kind == "tool_use" && jsonTool != "" && b.Get("name").Str == jsonTool:
			spoken = true
			text = append(text, argumentsOf(b.Get("input"))...)
		case kind == "tool_use":
			reply.ToolCalls = append(reply.ToolCalls, chat.ReplyCall{ID: b.Get("id").Str, Type: "function",
				Function: chat.ReplyFunction{Name: b.Get("name").Str, Arguments: argumentsOf(b.Get("input"))}})
		}
		return true
	})
	if content := string(text); spoken || len(reply.ToolCalls) == 0 {
		reply.Content = &content
	}
	return reply
}

func thoughtOf(b gjson.Result) chat.ThinkingBlock {
	return chat.ThinkingBlock{Type: b.Get("type").Str, Thinking: b.Get("thinking").Str,
		Signature: b.Get("signature").Str, Data: b.Get("data").Str}
}

// argumentsOf is the input of a call as JSON text.
func argumentsOf(input gjson.Result) string {
	if !input.IsObject() {
		return "{}"
	}
	return input.Raw
}

// appendCitations appends the pages that a text cites, which stands in the content from start to end,
// in characters. Citations of documents have no equal.
func appendCitations(to []chat.Annotation, citations gjson.Result, start, end int) []chat.Annotation {
	citations.ForEach(func(_, c gjson.Result) bool {
		to = appendCitation(to, c, start, end)
		return true
	})
	return to
}

func appendCitation(to []chat.Annotation, c gjson.Result, start, end int) []chat.Annotation {
	if c.Get("type").Str != "web_search_result_location" {
		return to
	}
	return append(to, chat.Annotation{Type: "url_citation", URLCitation: chat.URLCitation{
		StartIndex: start, EndIndex: end, Title: c.Get("title").Str, URL: c.Get("url").Str}})
}
