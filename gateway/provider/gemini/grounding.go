package gemini

import (
	"encoding/json"
	"strings"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// cite turns the pages that Google searched into annotations, once. Where nothing says which words a
// page supports, it is cited for none.
func (c *choice) cite(d *chat.Delta) {
	if c.cited || !c.grounding.Exists() {
		return
	}
	pages, content := c.grounding.Get("groundingChunks").Array(), c.content.String()
	for _, support := range c.grounding.Get("groundingSupports").Array() {
		start, end, ok := c.place(content, support.Get("segment"))
		if !ok {
			continue
		}
		for _, index := range support.Get("groundingChunkIndices").Array() {
			if i := index.Int(); i >= 0 && i < int64(len(pages)) {
				d.Annotations = citation(d.Annotations, pages[i], start, end)
			}
		}
	}
	if len(d.Annotations) == 0 {
		for _, page := range pages {
			d.Annotations = citation(d.Annotations, page, 0, 0)
		}
	}
	c.cited = len(d.Annotations) > 0
}

func citation(list []chat.Annotation, page gjson.Result, start, end int) []chat.Annotation {
	for _, kind := range []string{"web", "maps", "retrievedContext"} {
		if of := page.Get(kind); of.Get("uri").Str != "" {
			return append(list, chat.Annotation{Type: "url_citation", URLCitation: chat.URLCitation{
				StartIndex: start, EndIndex: end, Title: of.Get("title").Str, URL: of.Get("uri").Str}})
		}
	}
	return list
}

// place is a segment's place in the content, in characters. Google counts bytes from the beginning of
// a part, but does not always say of which: where the segment's own text is not there, it is looked for.
func (c *choice) place(content string, segment gjson.Result) (start, end int, ok bool) {
	from, to, text := segment.Get("startIndex").Int(), segment.Get("endIndex").Int(), segment.Get("text").Str
	if text == "" && to <= from {
		return 0, 0, false
	}
	bases := []int{0}
	if i := segment.Get("partIndex").Int(); i > 0 && i < int64(len(c.starts)) {
		bases = []int{c.starts[i], 0}
	}
	for _, base := range bases {
		a, z := int64(base)+from, int64(base)+to
		if a >= 0 && a <= z && z <= int64(len(content)) && (text == "" || content[a:z] == text) {
			return characters(content, int(a), int(z))
		}
	}
	if i := strings.Index(content, text); text != "" && i >= 0 {
		return characters(content, i, i+len(text))
	}
	return 0, 0, false
}

func characters(content string, from, to int) (start, end int, ok bool) {
	start = utf8.RuneCountInString(content[:from])
	return start, start + utf8.RuneCountInString(content[from:to]), true
}

// logprob is one token in OpenAI's logprobs.
type logprob struct {
	Token   string          `json:"token"`
	Logprob json.RawMessage `json:"logprob"`
	Bytes   []int           `json:"bytes"`
	Top     *[]logprob      `json:"top_logprobs,omitempty"` // nil in those of the top themselves
}

// logprobsOf translates a candidate's logprobsResult; nil if it has none.
func logprobsOf(candidate gjson.Result) json.RawMessage {
	chosen := candidate.Get("logprobsResult.chosenCandidates").Array()
	if len(chosen) == 0 {
		return nil
	}
	tops, content := candidate.Get("logprobsResult.topCandidates").Array(), make([]logprob, len(chosen))
	for i, token := range chosen {
		content[i] = logprobOf(token)
		content[i].Top = &[]logprob{}
		if i < len(tops) {
			for _, other := range tops[i].Get("candidates").Array() {
				*content[i].Top = append(*content[i].Top, logprobOf(other))
			}
		}
	}
	return chat.Encode(map[string]any{"content": content, "refusal": nil})
}

// impossible is OpenAI's number for a probability of nothing, which JSON cannot say.
const impossible = "-9999.0"

func logprobOf(of gjson.Result) logprob {
	p := logprob{Token: of.Get("token").Str, Logprob: json.RawMessage(impossible), Bytes: []int{}}
	switch v := of.Get("logProbability"); v.Type {
	case gjson.Number:
		p.Logprob = json.RawMessage(v.Raw)
	case gjson.Null: // a zero, which Google leaves out
		p.Logprob = json.RawMessage("0")
	}
	for _, b := range []byte(p.Token) {
		p.Bytes = append(p.Bytes, int(b))
	}
	return p
}
