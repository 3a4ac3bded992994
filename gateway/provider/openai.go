package provider

import (
	"bytes"
	"context"
	"io"
	"net/url"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"llm-gateway/gateway/provider/chat"
)

// OpenAI is a Provider of OpenAI's own protocol: OpenAI itself, Azure, and whatever speaks it.
type OpenAI struct {
	*upstream
	// url is where a model's requests go.
	url         func(model string) *url.URL
	outputLimit string
	own         bool // OpenAI's own models, whose images have a known upper bound
}

const chatPath = "/chat/completions"

// NewOpenAI is an OpenAI-compatible upstream. Its base URL is what an OpenAI SDK would be given: /v1 may
// be left out where there is no other path.
func NewOpenAI(c Config) (*OpenAI, error) {
	u, err := newUpstream(c, "openai", "Authorization", "Bearer ")
	if err != nil {
		return nil, err
	}
	p := &OpenAI{upstream: u, outputLimit: c.OutputLimit, own: u.name == "openai"}
	endpoint := u.under("/v1", chatPath)
	if c.Compatible && u.base.Path != "" {
		endpoint = u.under("", chatPath)
	}
	p.url = func(string) *url.URL { return endpoint }
	u.errorBody = openAIError
	return p, nil
}

// NewAzure is a resource of Azure OpenAI, whose deployments are the models.
func NewAzure(c Config) (*OpenAI, error) {
	u, err := newUpstream(c, "azure", "Api-Key", "")
	if err != nil {
		return nil, err
	}
	p := &OpenAI{upstream: u, outputLimit: c.OutputLimit, own: true}
	p.url = func(deployment string) *url.URL {
		endpoint := u.under("", "/openai/deployments/"+deployment+chatPath)
		endpoint.RawQuery = url.Values{"api-version": {c.APIVersion}}.Encode()
		return endpoint
	}
	u.errorBody = openAIError
	return p, nil
}

// openAIError is an error body that is in OpenAI's shape already.
func openAIError(body []byte) []byte {
	if !isErrorBody(body) {
		return nil
	}
	return body
}

// openAIImageTokens is above what any model of OpenAI's bills for one image: gpt-4o-mini's 2,833 and
// 5,667 for each of at most 8 tiles, by its documentation.
const openAIImageTokens = 50_000

// Prepare implements Provider: the body is sent as it is, but for the model's own name there and the
// name of the parameter that limits the output.
func (p *OpenAI) Prepare(r *Request) (Terms, error) {
	if !r.isChat() {
		exchange, terms, err := p.ownOf(r)
		r.exchange = exchange
		return terms, err
	}
	if err := p.rename(r); err != nil {
		return Terms{}, err
	}
	if !p.own {
		return Terms{}, nil
	}
	return Terms{ImageTokens: openAIImageTokens}, nil
}

// rename puts the names of this upstream into the body.
func (p *OpenAI) rename(r *Request) (err error) {
	r.sent = r.Body
	if r.Made {
		r.sent = p.plain(r)
	}
	if r.Model != "" && gjson.GetBytes(r.sent, "model").Str != r.Model {
		r.sent, err = sjson.SetRawBytes(r.sent, "model", []byte(strconv.Quote(r.Model)))
	}
	if p.outputLimit == "" || err != nil {
		return err
	}
	other := "max_tokens"
	if p.outputLimit == other {
		other = "max_completion_tokens"
	}
	limit := gjson.GetBytes(r.sent, other)
	if limit.Type != gjson.Number {
		return nil
	}
	if r.sent, err = sjson.DeleteBytes(r.sent, other); err != nil {
		return err
	}
	if own := gjson.GetBytes(r.sent, p.outputLimit); own.Type == gjson.Number && own.Int() >= limit.Int() {
		return nil // the greater of the two was bounded
	}
	r.sent, err = sjson.SetRawBytes(r.sent, p.outputLimit, []byte(limit.Raw))
	return err
}

// plain takes out of a body that was made here what OpenAI's models refuse: what other providers' turns left
// in it, and an effort where there is no reasoning.
func (p *OpenAI) plain(r *Request) []byte {
	name := strings.TrimPrefix(r.Model, "ft:")
	for _, reasoning := range [...]string{"o1", "o3", "o4", "gpt-5", "gpt-6"} {
		if !p.own || strings.HasPrefix(name, reasoning) && !strings.Contains(name, "-chat") {
			return chat.Plain(r.Body)
		}
	}
	return chat.Plain(r.Body, "reasoning_effort")
}

// message is the request as it is sent.
func (p *OpenAI) message(r *Request) (message, error) {
	if r.sent == nil && r.exchange == nil {
		if _, err := p.Prepare(r); err != nil {
			return message{}, broken(p.name, false, "the request could not be prepared")
		}
	}
	if r.exchange != nil {
		return message{url: p.under("/v1", pathOf[r.Surface]), body: r.exchange.Body(), header: r.Header}, nil
	}
	return message{url: p.url(r.Model), body: r.sent, header: r.Header}, nil
}

// pathOf is where OpenAI serves its other surfaces.
var pathOf = map[string]string{
	chat.SurfaceResponses:   "/responses",
	chat.SurfaceCompletions: "/completions",
	chat.SurfaceEmbeddings:  "/embeddings",
}

// Complete implements Provider.
func (p *OpenAI) Complete(ctx context.Context, r Request) (*Completion, error) {
	m, err := p.message(&r)
	if err != nil {
		return nil, err
	}
	if r.exchange != nil {
		return p.completeBy(ctx, m, r.exchange)
	}
	body, err := p.whole(ctx, m)
	if err != nil {
		return nil, err
	}
	var a answer
	if !a.whole(body) {
		e := broken(p.name, false, "not a chat completion")
		e.Body = openAIError(body)
		return nil, e
	}
	return &Completion{Body: body, Report: a.Report()}, nil
}

// Stream implements Provider.
func (p *OpenAI) Stream(ctx context.Context, r Request) (Stream, error) {
	m, err := p.message(&r)
	if err != nil {
		return nil, err
	}
	if r.exchange != nil {
		return p.streamBy(ctx, m, r.exchange)
	}
	c, err := p.openStream(ctx, m)
	if err != nil {
		return nil, err
	}
	return &openAIStream{incoming: newIncoming(c)}, nil
}

// openAIStream is a stream of server-sent events.
type openAIStream struct {
	incoming
	answer answer
}

var doneData = []byte("[DONE]")

// Next implements Stream.
func (s *openAIStream) Next() (Chunk, error) {
	if s.end != nil {
		return Chunk{}, s.end
	}
	data, lines, err := s.events.next()
	if err != nil {
		s.end = s.broken(err, s.answer.begun, "the stream ended without [DONE]")
		return Chunk{}, s.end
	}
	if bytes.Equal(bytes.TrimSpace(data), doneData) {
		s.end = io.EOF
		return Chunk{}, io.EOF
	}
	chunk, failed := s.answer.chunk(s.call.of.name, data, lines)
	if failed != nil {
		s.end = failed
		return Chunk{}, failed
	}
	return chunk, nil
}

// More implements Stream.
func (s *openAIStream) More() bool { return s.end == nil && !s.closed && s.events.more() }

// Report implements Stream.
func (s *openAIStream) Report() Report { return s.answer.Report() }
