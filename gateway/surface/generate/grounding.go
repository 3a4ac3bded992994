package generate

import (
	"encoding/json"
	"unicode/utf8"

	"github.com/tidwall/gjson"
)

// grounding is groundingMetadata: the pages that an answer cites, and where.
type grounding struct {
	Chunks   []groundingChunk   `json:"groundingChunks"`
	Supports []groundingSupport `json:"groundingSupports,omitempty"`
}

type groundingChunk struct {
	Web struct {
		URI   string `json:"uri"`
		Title string `json:"title,omitempty"`
	} `json:"web"`
}

type groundingSupport struct {
	Segment segment `json:"segment"`
	Chunks  []int   `json:"groundingChunkIndices"`
}

// segment is a piece of the text, in bytes.
type segment struct {
	Start int    `json:"startIndex,omitempty"`
	End   int    `json:"endIndex"`
	Text  string `json:"text"`
}

// groundingOf makes Google's citations of OpenAI's annotations; nil if there are none. OpenAI counts in
// characters of the text.
func groundingOf(annotations []gjson.Result, text string) *grounding {
	var g grounding
	pages := map[string]int{}
	for _, a := range annotations {
		c := a.Get("url_citation")
		uri := c.Get("url").Str
		if uri == "" {
			continue
		}
		page, known := pages[uri]
		if !known {
			page = len(g.Chunks)
			pages[uri] = page
			g.Chunks = append(g.Chunks, groundingChunk{})
			g.Chunks[page].Web.URI, g.Chunks[page].Web.Title = uri, c.Get("title").Str
		}
		start, end := c.Get("start_index").Int(), c.Get("end_index").Int()
		if from, to, ok := bytesOf(text, start, end); ok {
			g.Supports = append(g.Supports, groundingSupport{segment{from, to, text[from:to]}, []int{page}})
		}
	}
	if g.Chunks == nil {
		return nil
	}
	return &g
}

// bytesOf is a place in characters as one in bytes; not ok for none, and for what is not in the text.
func bytesOf(text string, start, end int64) (from, to int, ok bool) {
	if start < 0 || end <= start || end > int64(utf8.RuneCountInString(text)) {
		return 0, 0, false
	}
	n := int64(0)
	to = len(text)
	for i := range text {
		if n == start {
			from = i
		}
		if n == end {
			to = i
			break
		}
		n++
	}
	return from, to, true
}

// logprobsResult is what Google tells of the tokens' probabilities.
type logprobsResult struct {
	Chosen []logprob `json:"chosenCandidates"`
	Top    []topList `json:"topCandidates,omitempty"`
}

type topList struct {
	Candidates []logprob `json:"candidates"`
}

type logprob struct {
	Token       string          `json:"token"`
	Probability json.RawMessage `json:"logProbability"`
}

// logprobsOf makes Google's logprobs of OpenAI's; nil if there are none.
func logprobsOf(logprobs gjson.Result) *logprobsResult {
	tokens := logprobs.Get("content").Array()
	if len(tokens) == 0 {
		return nil
	}
	r := &logprobsResult{}
	for _, token := range tokens {
		r.Chosen = append(r.Chosen, logprobOf(token))
		top := topList{Candidates: []logprob{}}
		for _, other := range token.Get("top_logprobs").Array() {
			top.Candidates = append(top.Candidates, logprobOf(other))
		}
		r.Top = append(r.Top, top)
	}
	return r
}

func logprobOf(v gjson.Result) logprob {
	p := logprob{Token: v.Get("token").Str, Probability: json.RawMessage("0")}
	if n := v.Get("logprob"); n.Type == gjson.Number {
		p.Probability = json.RawMessage(n.Raw)
	}
	return p
}
