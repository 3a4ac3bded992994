package messages

import (
	"encoding/json"
	"errors"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// errNoAnswer is what Answer says to a body that is no chat completion.
var errNoAnswer = errors.New("the body is not a chat completion")

// answer is a message of Anthropic's.
type answer struct {
	ID           string  `json:"id"`
	Type         string  `json:"type"` // message
	Role         string  `json:"role"` // assistant
	Model        string  `json:"model"`
	Content      []block `json:"content"`     // never nil
	StopReason   *string `json:"stop_reason"` // null until it is known
	StopSequence *string `json:"stop_sequence"`
	Usage        usage   `json:"usage"`
}

// block is a block of content.
type block struct {
	Type      string          `json:"type"`
	Text      *string         `json:"text,omitempty"`
	Citations []citation      `json:"citations,omitempty"`
	Thinking  *string         `json:"thinking,omitempty"`
	Signature *string         `json:"signature,omitempty"`
	Data      string          `json:"data,omitempty"`
	ID        string          `json:"id,omitempty"`
	Name      string          `json:"name,omitempty"`
	Input     json.RawMessage `json:"input,omitempty"`
}

// citation is a page that was found. Anthropic's own has an encrypted_index; without one it takes none back.
type citation struct {
	Type           string `json:"type"` // web_search_result_location
	CitedText      string `json:"cited_text"`
	URL            string `json:"url"`
	Title          string `json:"title"`
	EncryptedIndex string `json:"encrypted_index"`
}

// usage counts cached input beside the input, not in it.
type usage struct {
	Input        int64           `json:"input_tokens"`
	CacheWritten int64           `json:"cache_creation_input_tokens"`
	CacheRead    int64           `json:"cache_read_input_tokens"`
	Output       int64           `json:"output_tokens"`
	Details      *outputsDetails `json:"output_tokens_details,omitempty"`
	ServiceTier  string          `json:"service_tier,omitempty"`
}

type outputsDetails struct {
	Thinking int64 `json:"thinking_tokens"`
}

// Answer translates a whole chat completion.
func (f *foreign) Answer(completion []byte) ([]byte, error) {
	c := gjson.ParseBytes(completion)
	choice := c.Get("choices.0")
	m := choice.Get("message")
	if !json.Valid(completion) || !choice.IsObject() { // what a filter stopped may have no message
		return nil, errNoAnswer
	}
	blocks := blocksOf(m)
	calls := m.Get("tool_calls.0").Exists()
	reason := stopReason(choice.Get("finish_reason").Str, calls, m.Get("refusal").Str != "")
	return chat.Encode(answer{ID: messageID(f.id), Type: "message", Role: roleAssistant, Model: c.Get("model").Str,
		Content: blocks, StopReason: &reason, Usage: usageOf(c.Get("usage"), c.Get("service_tier").Str)}), nil
}

func messageID(id string) string { return "msg_" + id }

// blocksOf are the blocks of a reply: thinking, text, calls.
func blocksOf(m gjson.Result) []block {
	blocks := thinkingOf(m)
	if text := contentText(m.Get("content")); text != "" {
		b := textBlock(text)
		b.Citations = citationsOf(m.Get("annotations"), text)
		blocks = append(blocks, b)
	}
	if text := m.Get("refusal").Str; text != "" {
		blocks = append(blocks, textBlock(text))
	}
	if signature := googleSignature(m); signature != "" {
		blocks = append(blocks, thinkingBlock("", messageSignature+signature))
	}
	m.Get("tool_calls").ForEach(func(_, call gjson.Result) bool {
		if signature := googleSignature(call); signature != "" {
			blocks = append(blocks, thinkingBlock("", callSignature+signature))
		}
		blocks = append(blocks, block{Type: "tool_use", ID: call.Get("id").Str, Name: call.Get("function.name").Str,
			Input: inputOf(argumentsOf(call))})
		return true
	})
	return blocks
}

// thinkingOf are the signed blocks, or, where there are none, the reasoning that nobody signed.
func thinkingOf(m gjson.Result) []block {
	blocks, told := []block{}, false
	m.Get("thinking_blocks").ForEach(func(_, b gjson.Result) bool {
		if b.Get("type").Str == "redacted_thinking" {
			blocks = append(blocks, block{Type: "redacted_thinking", Data: b.Get("data").Str})
			return true
		}
		told = told || b.Get("thinking").Str != ""
		blocks = append(blocks, thinkingBlock(b.Get("thinking").Str, b.Get("signature").Str))
		return true
	})
	if text := reasoningOf(m); text.Str != "" && !told {
		blocks = append([]block{thinkingBlock(text.Str, "")}, blocks...)
	}
	return blocks
}

func textBlock(text string) block { return block{Type: "text", Text: &text} }

func thinkingBlock(text, signature string) block {
	return block{Type: "thinking", Thinking: &text, Signature: &signature}
}

// contentText is the text of a content: a string, or with some providers parts.
func contentText(content gjson.Result) string {
	text := content.Str
	if content.IsArray() {
		content.ForEach(func(_, p gjson.Result) bool {
			text += p.Get("text").Str
			return true
		})
	}
	return text
}

// reasoningOf is the reasoning of a message or delta, by either of its names.
func reasoningOf(m gjson.Result) gjson.Result {
	if v := m.Get("reasoning_content"); v.Type == gjson.String && v.Str != "" {
		return v
	}
	if v := m.Get("reasoning"); v.Type == gjson.String {
		return v
	}
	return gjson.Result{}
}

func googleSignature(of gjson.Result) string {
	return of.Get("extra_content.google.thought_signature").Str
}

// argumentsOf are the arguments of a call: text, or with some providers an object.
func argumentsOf(call gjson.Result) string {
	v := call.Get("function.arguments")
	if v.IsObject() {
		return v.Raw
	}
	return v.Str
}

// citationsOf are the pages that a text cites; places are in characters.
func citationsOf(annotations gjson.Result, text string) (cited []citation) {
	var characters []rune
	annotations.ForEach(func(_, a gjson.Result) bool {
		c, ok := citationOf(a)
		if !ok {
			return true
		}
		if characters == nil {
			characters = []rune(text)
		}
		start, end := a.Get("url_citation.start_index").Int(), a.Get("url_citation.end_index").Int()
		if 0 <= start && start < end && end <= int64(len(characters)) {
			c.CitedText = string(characters[start:end])
		}
		cited = append(cited, c)
		return true
	})
	return cited
}

func citationOf(annotation gjson.Result) (citation, bool) {
	page := annotation.Get("url_citation")
	return citation{Type: "web_search_result_location", URL: page.Get("url").Str, Title: page.Get("title").Str}, page.IsObject()
}

// stopReason is Anthropic's word. Some providers say stop where they call tools.
func stopReason(finish string, calls, refused bool) string {
	switch {
	case refused || finish == chat.FinishContentFilter:
		return "refusal"
	case finish == chat.FinishLength:
		return "max_tokens"
	case calls:
		return "tool_use"
	}
	return "end_turn"
}

// usageOf translates a usage; one that is absent is zero, because clients demand it. xAI leaves reasoning out
// of the completion's tokens, which its total shows.
func usageOf(u gjson.Result, tier string) usage {
	details := u.Get("prompt_tokens_details")
	read, written := details.Get("cached_tokens").Int(), details.Get("cache_write_tokens").Int()
	prompt, output, reasoning := u.Get("prompt_tokens").Int(), u.Get("completion_tokens").Int(), u.Get("completion_tokens_details.reasoning_tokens").Int()
	if total := u.Get("total_tokens").Int(); reasoning > 0 && total == prompt+output+reasoning {
		output += reasoning
	}
	out := usage{Input: max(prompt-read-written, 0), CacheRead: read, CacheWritten: written, Output: output}
	if reasoning > 0 {
		out.Details = &outputsDetails{Thinking: reasoning}
	}
	switch tier {
	case "default":
		out.ServiceTier = "standard"
	case "priority", "batch":
		out.ServiceTier = tier
	}
	return out
}
