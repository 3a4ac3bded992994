package provider

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/anthropic"
	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/provider/gemini"
	"llm-gateway/gateway/surface/generate"
	"llm-gateway/gateway/surface/messages"
)

// Native is a Provider that does not speak OpenAI's protocol: chat completions and their answers are
// translated; what comes in the provider's own form goes through.
type Native struct {
	*upstream
	translate func(r *chat.Request, model string, maxOutput, created int64) (chat.Exchange, error)
	// own is a request of another surface than chat completions; ErrForeign where the provider does not speak
	// it.
	own    func(r *Request) (chat.Exchange, Terms, error)
	url    func(r *Request, stream bool) *url.URL
	terms  func(r *chat.Request) (Terms, error)
	window func(h http.Header) int64 // a larger context window that the client's headers ask for; nil: none can
	failed func(body []byte) *chat.Failed
}

// What Anthropic's own prompts add at most, in tokens: its documentation has up to 530 for tools, and the
// recorded requests with schemas, citations and thinking up to some hundreds more.
const (
	anthropicOverhead     = 512
	anthropicToolOverhead = 2048
	// anthropicImageTokens is above what any of its models bills for one image: 4,784 by its documentation.
	anthropicImageTokens = 5_000
	anthropicVersion     = "2023-06-01"
)

// geminiOverhead is above what Google's templates were seen to add, in tokens.
const geminiOverhead = 512

// NewAnthropic is Anthropic's Messages API. A trailing /v1 of the base URL is accepted.
func NewAnthropic(c Config) (*Native, error) {
	u, err := newUpstream(c, "anthropic", "X-Api-Key", "")
	if err != nil {
		return nil, err
	}
	if u.header["Anthropic-Version"] == nil {
		u.header["Anthropic-Version"] = []string{anthropicVersion}
	}
	endpoint, count := u.under("/v1", "/messages"), u.under("/v1", "/messages/count_tokens")
	return newNative(u, Native{
		translate: func(r *chat.Request, model string, maxOutput, created int64) (chat.Exchange, error) {
			return anthropic.Translate(r, anthropic.Target{Model: model, MaxOutput: maxOutput, Created: created})
		},
		own: anthropicOwn,
		url: func(r *Request, _ bool) *url.URL {
			if r.Method == MethodCount {
				return count
			}
			return endpoint
		},
		terms:  anthropicTerms,
		window: anthropicWindow,
		failed: anthropic.ErrorOf,
	}), nil
}

// anthropicLongWindow is the context window that models have which usually have less, where it is asked for by
// anthropicLongBeta.
const (
	anthropicLongWindow = 1_000_000
	anthropicLongBeta   = "context-1m"
)

func anthropicWindow(h http.Header) int64 {
	if strings.Contains(strings.Join(h.Values("Anthropic-Beta"), ","), anthropicLongBeta) {
		return anthropicLongWindow
	}
	return 0
}

func anthropicTerms(r *chat.Request) (Terms, error) {
	if err := onlyClears(r); err != nil {
		return Terms{}, err
	}
	t := Terms{Overhead: anthropicOverhead, ImageTokens: anthropicImageTokens, Regional: true}
	if len(r.Tools) > 0 || r.Format.Type == "json_schema" || r.Format.Type == "json_object" {
		t.Overhead = anthropicToolOverhead
	}
	if r.WebSearch.Exists() {
		t.Searches = anthropic.MaxWebSearches
	}
	for i := range r.Tools {
		searches, err := anthropicSearches(&r.Tools[i])
		if err != nil {
			return Terms{}, err
		}
		t.Searches += searches
		if searches > 0 && r.Tools[i].Type != messages.FirstSearch {
			t.Rounds += messages.ServerRounds
		}
	}
	t.Rounds += 1 + t.Searches
	return t, nil
}

// onlyClears refuses edits of the context other than those that only take from it: a summary is written by the
// model, and billed beside the answer.
func onlyClears(r *chat.Request) error {
	for _, f := range r.Unknown {
		if f.Name != "context_management" {
			continue
		}
		for i, edit := range gjson.Get(f.Raw, "edits").Array() {
			if !strings.HasPrefix(edit.Get("type").Str, "clear_") {
				return &chat.Unsupported{Param: fmt.Sprintf("context_management.edits[%d]", i),
					Message: "Of Anthropic's edits of the context only those that clear it can be metered in chat completions."}
			}
		}
	}
	return nil
}

// anthropicSearches is how often a tool may search the web. Other tools that Anthropic runs itself are billed
// by what nobody here can see, or bring in texts without a bound.
func anthropicSearches(t *chat.Tool) (int64, error) {
	if t.Type == "function" || t.Type == "custom" {
		return 0, nil
	}
	most := t.Raw.Get("max_uses")
	switch {
	case !strings.HasPrefix(t.Type, "web_search_"):
		return 0, &chat.Unsupported{Param: t.Param + ".type", Message: "This tool of Anthropic's cannot be metered in chat completions."}
	case most.Type != gjson.Number || most.Num < 1 || most.Num > maxUses || most.Num != math.Trunc(most.Num):
		return 0, &chat.Unsupported{Param: t.Param + ".max_uses", Invalid: true,
			Message: fmt.Sprintf("A web search needs `max_uses`, from 1 to %d: each search is billed.", maxUses)}
	}
	return int64(most.Num), nil
}

// maxUses bounds the web searches that one tool may be allowed.
const maxUses = 100

// geminiTerms: Google bills one search for a request of its 2.x models, and one for each query of the later
// ones, of which it tells no limit.
func geminiTerms(r *chat.Request) (Terms, error) {
	t := Terms{Overhead: geminiOverhead, AudioIn: gemini.Sounds(r), Kept: keptByGoogle(r)}
	if r.WebSearch.Exists() {
		t.Searches = generate.MaxQueries
	}
	for i := range r.Tools {
		switch r.Tools[i].Type {
		case "function":
		case "google_search":
			t.Searches = generate.MaxQueries
		default: // what Google runs by itself, each time with the whole prompt and what came before
			t.Rounds = generate.ToolRounds
		}
	}
	return t, nil
}

// keptByGoogle is where a request links to what was uploaded to Google; "" = nowhere.
func keptByGoogle(r *chat.Request) string {
	for i := range r.Messages {
		for j := range r.Messages[i].Parts {
			p := &r.Messages[i].Parts[j]
			if p.URL != "" && !strings.HasPrefix(p.URL, "data:") && generate.KeptByGoogle(p.URL) {
				return p.Param
			}
		}
	}
	return ""
}

// NewGemini is Google's Gemini API. A trailing /v1beta of the base URL is accepted.
func NewGemini(c Config) (*Native, error) {
	u, err := newUpstream(c, "gemini", "X-Goog-Api-Key", "")
	if err != nil {
		return nil, err
	}
	u.retryDelay = gemini.RetryDelay
	return newNative(u, Native{
		translate: func(r *chat.Request, model string, maxOutput, created int64) (chat.Exchange, error) {
			return gemini.Translate(r, gemini.Target{Model: model, MaxOutput: maxOutput, Created: created})
		},
		own:    geminiOwn,
		url:    func(r *Request, stream bool) *url.URL { return geminiURL(u, r, stream) },
		terms:  geminiTerms,
		failed: gemini.ErrorOf,
	}), nil
}

// geminiURL is where a method of a model is.
func geminiURL(u *upstream, r *Request, stream bool) *url.URL {
	method := r.Method
	switch {
	case r.Surface == chat.SurfaceEmbeddings:
		method = "batchEmbedContents"
	case stream:
		method = "streamGenerateContent"
	case r.isChat(), method == "":
		method = "generateContent"
	}
	endpoint := u.under("/v1beta", "/models/"+r.Model+":"+method)
	if stream {
		endpoint.RawQuery = "alt=sse"
	}
	return endpoint
}

func newNative(u *upstream, n Native) *Native {
	n.upstream = u
	u.errorBody = func(body []byte) []byte {
		if failed := n.failed(body); failed != nil {
			return failed.Body()
		}
		return nil
	}
	return &n
}

// Prepare implements Provider.
func (p *Native) Prepare(r *Request) (Terms, error) {
	terms, err := p.prepare(r)
	if p.window != nil {
		terms.Window = p.window(r.Header)
	}
	return terms, err
}

func (p *Native) prepare(r *Request) (Terms, error) {
	if !r.isChat() {
		exchange, terms, err := p.own(r)
		r.exchange = exchange
		return terms, err
	}
	request, err := chat.Parse(r.Body)
	if err != nil {
		return Terms{}, err
	}
	if r.exchange, err = p.translate(request, r.Model, r.MaxOutput, time.Now().Unix()); err != nil {
		return Terms{}, err
	}
	return p.terms(request)
}

// message is the request as it is sent.
func (p *Native) message(r *Request, stream bool) (message, error) {
	if r.exchange == nil {
		if _, err := p.Prepare(r); err != nil {
			return message{}, broken(p.name, false, "the request could not be prepared")
		}
	}
	return message{url: p.url(r, stream), body: r.exchange.Body(), header: r.Header}, nil
}

// Complete implements Provider.
func (p *Native) Complete(ctx context.Context, r Request) (*Completion, error) {
	m, err := p.message(&r, false)
	if err != nil {
		return nil, err
	}
	return p.completeBy(ctx, m, r.exchange)
}

// completeBy sends a request and reads the answer, by an exchange.
func (u *upstream) completeBy(ctx context.Context, m message, by chat.Exchange) (*Completion, error) {
	body, err := u.whole(ctx, m)
	if err != nil {
		return nil, err
	}
	answer, err := by.Answer(body)
	if err != nil {
		e := broken(u.name, false, "not an answer")
		e.Body = u.errorBody(body)
		return nil, e
	}
	return &Completion{Body: answer.Body, Report: answer.Report, text: answer.Text}, nil
}

// Stream implements Provider.
func (p *Native) Stream(ctx context.Context, r Request) (Stream, error) {
	m, err := p.message(&r, true)
	if err != nil {
		return nil, err
	}
	return p.streamBy(ctx, m, r.exchange)
}

// streamBy sends a request and reads the stream, by an exchange.
func (u *upstream) streamBy(ctx context.Context, m message, by chat.Exchange) (Stream, error) {
	c, err := u.openStream(ctx, m)
	if err != nil {
		return nil, err
	}
	return &nativeStream{incoming: newIncoming(c), reader: by.Reader()}, nil
}

// nativeStream translates a stream, event by event.
type nativeStream struct {
	incoming
	reader  chat.Reader
	waiting []Chunk // translated and not given out yet
	next    int     // of waiting
	last    error   // what comes after waiting; nil = more events
	begun   bool
}

// Next implements Stream.
func (s *nativeStream) Next() (Chunk, error) {
	for s.end == nil {
		if s.next < len(s.waiting) {
			s.begun = true
			s.next++
			return s.waiting[s.next-1], nil
		}
		if s.last != nil {
			s.end = s.last
			break
		}
		s.read()
	}
	return Chunk{}, s.end
}

// read takes in the next event.
func (s *nativeStream) read() {
	s.waiting, s.next = s.waiting[:0], 0
	data, _, err := s.events.next()
	if err != nil {
		s.last = s.ended(err)
		return
	}
	done := false
	s.waiting, done, err = s.reader.Event(data, s.waiting)
	failed := new(chat.Failed)
	switch {
	case errors.As(err, &failed):
		s.last = &Error{Kind: KindCut, Provider: s.call.of.name, Status: s.call.response.StatusCode, Body: failed.Body(), Reason: "an error event"}
	case err != nil:
		s.last = broken(s.call.of.name, s.begun, "an event that cannot be read")
	case done:
		s.last = io.EOF
	}
}

// ended is how a stream ends whose input has ended.
func (s *nativeStream) ended(err error) error {
	if err == io.EOF {
		complete := false
		if s.waiting, complete = s.reader.End(s.waiting); complete {
			return io.EOF
		}
		s.waiting = s.waiting[:0]
	}
	return s.broken(err, s.begun, "the stream ended before the answer did")
}

// More implements Stream. Many events become no chunk: what is here already is read on until one does.
func (s *nativeStream) More() bool {
	for s.end == nil && !s.closed {
		if s.next < len(s.waiting) || s.last != nil {
			return true
		}
		if !s.events.more() {
			return false
		}
		s.read()
	}
	return false
}

// Report implements Stream.
func (s *nativeStream) Report() Report { return s.reader.Report() }
