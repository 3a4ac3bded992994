package embeddings

import (
	"encoding/json"
	"errors"

	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider/chat"
)

var (
	errNoAnswer = errors.New("the body is not a list of embeddings")
	errNoStream = errors.New("embeddings are not streamed")
)

// Error is an error in the API's shape, which is that of chat completions: kind is OpenAI's type of it, code
// and param may be "".
func Error(_ int, kind, code, message, param string) []byte {
	return (&chat.Failed{Message: message, Type: kind, Code: code, Param: param}).Body()
}

// Own is the exchange with a provider that speaks this API: the client's body, with the model's name there.
// It fails as Facts does.
func Own(body []byte, model string) (chat.Exchange, error) {
	r, err := read(body)
	if err != nil {
		return nil, err
	}
	if r.f.Model == model {
		return own{body}, nil
	}
	sent, err := sjson.SetBytes(body, "model", model)
	if err != nil {
		return nil, chat.Invalid("", "The body is not a JSON object.")
	}
	return own{sent}, nil
}

// own is one call of a provider that speaks this API.
type own struct{ body []byte }

func (x own) Body() []byte { return x.body }

// Answer reads the embeddings. Text has nothing: they have no output.
func (x own) Answer(native []byte) (*chat.Completion, error) {
	if !json.Valid(native) {
		return nil, errNoAnswer
	}
	v := gjson.ParseBytes(native)
	if failed := chat.FailureIn(v.Get("error")); failed != nil {
		return nil, failed
	}
	if !v.IsObject() || !v.Get("data").IsArray() {
		return nil, errNoAnswer
	}
	report := chat.Report{Model: told(v, "model", chat.MaxModelName), UpstreamID: told(v, "id", chat.MaxUpstreamID),
		ServiceTier: told(v, "service_tier", chat.MaxServiceTier), Usage: usageOf(v.Get("usage")), Raw: chat.RawUsage(v.Get("usage"))}
	return &chat.Completion{Body: native, Report: report, Text: func() string { return "" }}, nil
}

func told(v gjson.Result, name string, limit int) string {
	return domain.CleanText(v.Get(name).Str, limit)
}

// usageOf reads a usage: prompt_tokens, or where a server leaves that out, total_tokens, which is the same.
// A count that is no whole number from 0 to domain.MaxTokens makes none.
func usageOf(u gjson.Result) *domain.Usage {
	v := u.Get("prompt_tokens")
	if v.Type == gjson.Null {
		v = u.Get("total_tokens")
	}
	n, ok := chat.Tokens(v)
	if !ok {
		return nil
	}
	return &domain.Usage{Input: n}
}

func (x own) Reader() chat.Reader { return noReader{} }

// noReader reads the streams that do not exist.
type noReader struct{}

func (noReader) Event(_ []byte, chunks []chat.Chunk) (_ []chat.Chunk, done bool, err error) {
	return chunks, false, errNoStream
}

func (noReader) End(chunks []chat.Chunk) (_ []chat.Chunk, complete bool) { return chunks, false }

func (noReader) Report() chat.Report { return chat.Report{} }
