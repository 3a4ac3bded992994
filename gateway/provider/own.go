package provider

import (
	"errors"
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider/anthropic"
	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/provider/gemini"
	"llm-gateway/gateway/surface/completions"
	"llm-gateway/gateway/surface/embed"
	"llm-gateway/gateway/surface/embeddings"
	"llm-gateway/gateway/surface/responses"
)

// What comes in a provider's own form goes to it as it is, and comes back as it is; here is which provider
// speaks what.

// MethodCount asks how many tokens a request has; Google's own word for it.
const MethodCount = "countTokens"

// anthropicOwn are Anthropic's Messages, and the counting of their tokens.
func anthropicOwn(r *Request) (chat.Exchange, Terms, error) {
	if r.Surface != chat.SurfaceMessages {
		return nil, Terms{}, ErrForeign
	}
	exchange, err := anthropic.Own(r.Body, r.Model)
	if err == nil && r.Method == MethodCount {
		return counting{exchange.Body(), "input_tokens"}, Terms{}, nil
	}
	return exchange, Terms{Overhead: anthropicToolOverhead, ImageTokens: anthropicImageTokens, Regional: true}, err
}

// geminiOwn are Google's own methods, and OpenAI's embeddings, which are translated.
func geminiOwn(r *Request) (chat.Exchange, Terms, error) {
	if r.Surface == chat.SurfaceEmbeddings {
		exchange, err := newEmbedding(r)
		return exchange, Terms{}, err
	}
	if r.Surface != chat.SurfaceGenerate && r.Surface != chat.SurfaceEmbed {
		return nil, Terms{}, ErrForeign
	}
	if r.Method == "generateContent" || r.Method == "streamGenerateContent" {
		exchange, err := gemini.Own(r.Body, r.Model)
		return exchange, Terms{Overhead: geminiOverhead}, err
	}
	body, err := gemini.OwnBody(r.Body, r.Model)
	if err != nil {
		return nil, Terms{}, err
	}
	if r.Method == MethodCount {
		return counting{body, "totalTokens"}, Terms{}, nil
	}
	return embedding{body: body, model: r.Model, counted: func() int64 { return CountInputs(r.Model, r.Body) }}, Terms{}, nil
}

// counting asks a provider to count, which costs nothing.
type counting struct {
	body   []byte
	answer string // the field that has the number
}

func (c counting) Body() []byte { return c.body }

func (c counting) Answer(native []byte) (*chat.Completion, error) {
	if gjson.GetBytes(native, c.answer).Type != gjson.Number {
		return nil, errNoCount
	}
	return &chat.Completion{Body: native, Report: chat.Report{Usage: &domain.Usage{}}, Text: noText}, nil
}

func (counting) Reader() chat.Reader { return noReader{} }

func noText() string { return "" }

var (
	errNoCount  = errors.New("the answer has no number of tokens")
	errNoStream = errors.New("there is no such stream")
)

// noReader is of what is never streamed.
type noReader struct{}

func (noReader) Event(_ []byte, chunks []Chunk) ([]Chunk, bool, error) {
	return chunks, false, errNoStream
}
func (noReader) End(chunks []Chunk) ([]Chunk, bool) { return chunks, false }
func (noReader) Report() Report                     { return Report{} }

// embedding is a call of embedContent or batchEmbedContents. Where Google does not say what it counted, the
// input is counted here.
type embedding struct {
	body     []byte
	model    string
	counted  func() int64
	openAI   bool // asked by OpenAI's embeddings, and answered so
	encoding string
}

// newEmbedding translates OpenAI's embeddings.
func newEmbedding(r *Request) (chat.Exchange, error) {
	body, err := embed.OpenAIToGemini(r.Body, r.Model)
	if err != nil {
		return nil, err
	}
	return embedding{body: body, model: r.Model, counted: func() int64 { return CountInputs(r.Model, r.Body) }, openAI: true,
		encoding: gjson.GetBytes(r.Body, "encoding_format").Str}, nil
}

// CountInputs is the number of tokens of the texts of an embedding request, OpenAI's or Google's, as
// CountText counts; lists of tokens count by their length.
func CountInputs(model string, body []byte) int64 {
	var text strings.Builder
	tokens := int64(0)
	var collect func(v gjson.Result)
	collect = func(v gjson.Result) {
		v.ForEach(func(key, value gjson.Result) bool {
			switch {
			case value.IsObject() || value.IsArray():
				collect(value)
			case value.Type == gjson.Number && v.IsArray():
				tokens++
			case value.Type == gjson.String && !noInput[key.Str]:
				text.WriteString(value.Str)
			}
			return true
		})
	}
	collect(gjson.ParseBytes(body))
	return tokens + CountText(model, text.String())
}

// CountCompletion is the number of tokens of the prompts of an older completion, each with the suffix, as
// CountInputs counts.
func CountCompletion(model string, body []byte, prompts int64) int64 {
	prompt, n := gjson.GetBytes(body, "prompt"), prompts*CountText(model, gjson.GetBytes(body, "suffix").Str)
	if prompt.Exists() {
		n += CountInputs(model, []byte(`{"prompt":`+prompt.Raw+`}`))
	}
	return n
}

// noInput are the texts of an embedding request that are not embedded.
var noInput = map[string]bool{"model": true, "encoding_format": true, "user": true, "taskType": true, "task_type": true}

func (e embedding) Body() []byte { return e.body }

func (e embedding) Answer(native []byte) (*chat.Completion, error) {
	if !gjson.GetBytes(native, "embedding").IsObject() && !gjson.GetBytes(native, "embeddings").IsArray() {
		return nil, errNoVectors
	}
	usage := gemini.EmbedUsage(native)
	answer := &chat.Completion{Body: native, Report: chat.Report{Model: e.model, Usage: usage, Raw: chat.RawUsage(gjson.GetBytes(native, "usageMetadata"))}, Text: noText}
	if !e.openAI {
		return answer, nil
	}
	tokens := int64(0)
	if usage != nil {
		tokens = usage.Input
	} else {
		tokens = e.counted()
	}
	var err error
	answer.Body, err = embed.OpenAIAnswer(native, e.model, e.encoding, tokens)
	return answer, err
}

var errNoVectors = errors.New("the answer has no embeddings")

func (embedding) Reader() chat.Reader { return noReader{} }

// ownOf is a request to an OpenAI-compatible upstream that is no chat completion, and where it goes.
func (p *OpenAI) ownOf(r *Request) (chat.Exchange, Terms, error) {
	switch {
	case r.Surface == chat.SurfaceResponses && p.own:
		exchange, err := responses.Own(r.Body, r.Model)
		return exchange, Terms{ImageTokens: openAIImageTokens}, err
	case r.Surface == chat.SurfaceCompletions:
		exchange, err := completions.Own(r.Body, r.Model)
		return exchange, Terms{}, err
	case r.Surface == chat.SurfaceEmbeddings:
		exchange, err := embeddings.Own(r.Body, r.Model)
		return exchange, Terms{}, err
	}
	return nil, Terms{}, ErrForeign
}
