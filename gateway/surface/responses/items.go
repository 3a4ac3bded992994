package responses

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"
)

// The kinds of output items that are made here, which are also the prefixes of their ids.
const (
	kindMessage   = "msg"
	kindReasoning = "rs"
	kindCall      = "fc"
	kindImage     = "ig"
)

// item is one output item as it comes together.
type item struct {
	kind   string
	id     string
	index  int // among the items
	status string
	closed bool

	parts     []outPart // of a message; of a reasoning item at most one
	encrypted string    // of a reasoning item
	callID    string    // of a call, like name and arguments
	name      string
	arguments []byte
	result    string // of an image: base64
}

// outPart is one part of a message, or of a reasoning item's summary.
type outPart struct {
	refusal     bool
	start       int // where it begins in all of the answer's content, in characters
	text        []byte
	annotations []annotation
	logprobs    []json.RawMessage
}

func newItem(kind, id string, index int) *item {
	return &item{kind: kind, id: kind + "_" + id + "_" + strconv.Itoa(index), index: index, status: statusRunning}
}

// The items and parts as they are written.
type messageItem struct {
	ID      string `json:"id"`
	Type    string `json:"type"` // message
	Status  string `json:"status"`
	Content []any  `json:"content"`
	Role    string `json:"role"` // assistant
}

type reasoningItem struct {
	ID               string        `json:"id"`
	Type             string        `json:"type"` // reasoning
	Summary          []summaryText `json:"summary"`
	EncryptedContent *string       `json:"encrypted_content"`
}

type callItem struct {
	ID        string `json:"id"`
	Type      string `json:"type"` // function_call
	Status    string `json:"status"`
	Arguments string `json:"arguments"`
	CallID    string `json:"call_id"`
	Name      string `json:"name"`
}

type imageItem struct {
	ID     string  `json:"id"`
	Type   string  `json:"type"` // image_generation_call
	Status string  `json:"status"`
	Result *string `json:"result"`
}

type summaryText struct {
	Type string `json:"type"` // summary_text
	Text string `json:"text"`
}

type outputText struct {
	Type        string            `json:"type"` // output_text
	Annotations []annotation      `json:"annotations"`
	Logprobs    []json.RawMessage `json:"logprobs"`
	Text        string            `json:"text"`
}

type outputRefusal struct {
	Type    string `json:"type"` // refusal
	Refusal string `json:"refusal"`
}

// annotation is a citation of a web page.
type annotation struct {
	Type       string `json:"type"` // url_citation
	StartIndex int    `json:"start_index"`
	EndIndex   int    `json:"end_index"`
	URL        string `json:"url"`
	Title      string `json:"title"`
}

// view is the item as it is written.
func (i *item) view() any {
	switch i.kind {
	case kindReasoning:
		v := reasoningItem{ID: i.id, Type: "reasoning", Summary: []summaryText{}}
		for k := range i.parts {
			v.Summary = append(v.Summary, summaryText{"summary_text", string(i.parts[k].text)})
		}
		if i.encrypted != "" {
			v.EncryptedContent = &i.encrypted
		}
		return v
	case kindCall:
		return callItem{ID: i.id, Type: "function_call", Status: i.status, Arguments: string(i.arguments), CallID: i.callID, Name: i.name}
	case kindImage:
		v := imageItem{ID: i.id, Type: "image_generation_call", Status: i.status}
		if i.result != "" {
			v.Result = &i.result
		}
		return v
	}
	v := messageItem{ID: i.id, Type: "message", Status: i.status, Content: []any{}, Role: "assistant"}
	for k := range i.parts {
		v.Content = append(v.Content, i.parts[k].view())
	}
	return v
}

// view is the part of a message as it is written.
func (p *outPart) view() any {
	if p.refusal {
		return outputRefusal{"refusal", string(p.text)}
	}
	v := outputText{Type: "output_text", Annotations: p.annotations, Logprobs: p.logprobs, Text: string(p.text)}
	if v.Annotations == nil {
		v.Annotations = []annotation{}
	}
	if v.Logprobs == nil {
		v.Logprobs = []json.RawMessage{}
	}
	return v
}

// cite reads a citation of a chat completion, for a part that begins in the content at start.
func cite(v gjson.Result, start int) annotation {
	of := v.Get("url_citation")
	return annotation{Type: "url_citation", StartIndex: int(of.Get("start_index").Int()) - start, EndIndex: int(of.Get("end_index").Int()) - start,
		URL: of.Get("url").Str, Title: of.Get("title").Str}
}

// raws are the elements of an array, as they were written.
func raws(v gjson.Result) []json.RawMessage {
	out := []json.RawMessage{}
	v.ForEach(func(_, element gjson.Result) bool {
		out = append(out, json.RawMessage(element.Raw))
		return true
	})
	return out
}

// imageData is the base64 of a generated image's data: URL, and of any other URL all of it.
func imageData(v gjson.Result) string {
	url := v.Get("image_url.url").Str
	if _, data, ok := strings.Cut(url, ";base64,"); ok {
		return data
	}
	return url
}
