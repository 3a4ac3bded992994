package provider

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// Bounds of a call to an OpenAI-compatible upstream.
const (
	// ConnectTimeout bounds TCP and TLS set-up, each.
	ConnectTimeout = 10 * time.Second
	// HeaderTimeout bounds the time from the call to the response's headers. A whole answer's
	// headers come when the model has finished thinking.
	HeaderTimeout = 10 * time.Minute
	// IdleTimeout bounds the time that a body may bring nothing, not even a keep-alive comment.
	IdleTimeout = 2 * time.Minute
	// MaxAnswerBytes bounds a whole answer, unpacked.
	MaxAnswerBytes = 64 << 20

	// idlePerHost is large, because a gateway has few hosts and each has all its connections: what
	// does not fit is a TLS handshake per request.
	idlePerHost     = 1024
	idleConnTimeout = 90 * time.Second
	keepAlive       = 30 * time.Second
	// pingAfter is when HTTP/2 asks whether a silent connection is alive, pingTimeout how long it
	// waits for the answer.
	pingAfter   = 30 * time.Second
	pingTimeout = 15 * time.Second
	// maxHeaderBytes bounds the upstream's response headers.
	maxHeaderBytes = 64 << 10
	// drainBytes and drainTimeout bound what is read after [DONE] or after an error's body to have
	// the connection back. It is normally the five bytes of the last chunk, already there.
	drainBytes   = 4 << 10
	drainTimeout = 50 * time.Millisecond
	// firstRead is the buffer for a body of unknown length; trustedLength is how much of a
	// Content-Length is allocated before a byte has come.
	firstRead     = 8 << 10
	trustedLength = 1 << 20
)

// errExpired is the cause with which a call's own timer cancels it.
var errExpired = errors.New("timer expired")

// OpenAIConfig describes an OpenAI-compatible upstream. Zero durations mean the constants above.
type OpenAIConfig struct {
	Name    string // the provider's name; "" = "openai"
	BaseURL string // http or https, with or without a trailing /v1
	APIKey  string // sent as bearer token; "" = none, for local upstreams

	// Transport replaces the pool of connections; ConnectTimeout is then the transport's affair.
	Transport http.RoundTripper

	ConnectTimeout time.Duration
	HeaderTimeout  time.Duration
	IdleTimeout    time.Duration
}

// OpenAI is a Provider over HTTP. It follows no redirects and retries nothing: a call that may have
// reached the model may have cost money.
type OpenAI struct {
	name          string
	url           *url.URL
	authorization string
	transport     http.RoundTripper
	headerTimeout time.Duration
	idleTimeout   time.Duration
}

// NewOpenAI checks the configuration. Its errors do not show the key, nor the address beyond its
// scheme and host.
func NewOpenAI(c OpenAIConfig) (*OpenAI, error) {
	endpoint, err := chatURL(c.BaseURL)
	if err != nil {
		return nil, err
	}
	if strings.ContainsFunc(c.APIKey, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("the upstream's API key contains blanks or control characters")
	}
	p := &OpenAI{name: c.Name, url: endpoint, transport: c.Transport,
		headerTimeout: orDefault(c.HeaderTimeout, HeaderTimeout),
		idleTimeout:   orDefault(c.IdleTimeout, IdleTimeout)}
	if p.name == "" {
		p.name = "openai"
	}
	if c.APIKey != "" {
		p.authorization = "Bearer " + c.APIKey
	}
	if p.transport == nil {
		p.transport = newTransport(orDefault(c.ConnectTimeout, ConnectTimeout))
	}
	return p, nil
}

// Name implements Provider.
func (p *OpenAI) Name() string { return p.name }

// CloseIdle closes the connections that no call is using, for a clean end of the process.
func (p *OpenAI) CloseIdle() {
	if t, ok := p.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d <= 0 {
		return otherwise
	}
	return d
}

// chatURL is the address of the chat completions below a base URL.
func chatURL(base string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSpace(base))
	if err != nil {
		return nil, errors.New("the upstream's base URL is not a URL")
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return nil, errors.New("the upstream's base URL is neither http nor https")
	case u.User != nil, u.RawQuery != "", u.Fragment != "":
		return nil, fmt.Errorf("the base URL of %s has credentials, a query or a fragment", u.Host)
	}
	path := strings.TrimSuffix(strings.TrimRight(u.Path, "/"), "/v1")
	u.Path, u.RawPath = strings.TrimRight(path, "/")+"/v1/chat/completions", ""
	return u, nil
}

func newTransport(connect time.Duration) *http.Transport {
	dialer := &net.Dialer{Timeout: connect, KeepAlive: keepAlive}
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dialer.DialContext,
		TLSHandshakeTimeout:    connect,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
		MaxIdleConnsPerHost:    idlePerHost,
		IdleConnTimeout:        idleConnTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
	}
}

// Complete implements Provider.
func (p *OpenAI) Complete(ctx context.Context, r Request) (*Completion, error) {
	c, err := p.open(ctx, r, "application/json")
	if err != nil {
		return nil, err
	}
	defer c.close()
	body, readErr := c.readAll()
	if readErr != nil {
		return nil, c.failure(readErr, KindUpstream)
	}
	var a answer
	if !a.whole(body) {
		e := broken(p.name, false, "not a chat completion")
		if isErrorBody(body) {
			e.Body = body
		}
		return nil, e
	}
	return &Completion{Body: body, Report: a.Report()}, nil
}

// Stream implements Provider.
func (p *OpenAI) Stream(ctx context.Context, r Request) (Stream, error) {
	c, err := p.open(ctx, r, "text/event-stream")
	if err != nil {
		return nil, err
	}
	media, _, _ := mime.ParseMediaType(c.response.Header.Get("Content-Type"))
	if media == "text/html" || media == "application/json" {
		defer c.close()
		e := broken(p.name, false, "not an event stream")
		if body := c.readError(); isErrorBody(body) {
			e.Body = body
		}
		return nil, e
	}
	return &openAIStream{call: c, events: newEventReader(c)}, nil
}

// call is one HTTP exchange. Its timer is the only thing that waits beside the caller.
type call struct {
	of       *OpenAI
	parent   context.Context // the caller's: says whether he has gone
	ctx      context.Context // the exchange's: parent, or the timer's end
	cancel   context.CancelCauseFunc
	timer    *time.Timer
	response *http.Response
}

// open sends the request and waits for an answer with status 200.
func (p *OpenAI) open(ctx context.Context, r Request, accept string) (*call, error) {
	if err := ctx.Err(); err != nil {
		return nil, canceled(p.name, err)
	}
	c := &call{of: p, parent: ctx}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	c.timer = time.AfterFunc(p.headerTimeout, func() { c.cancel(errExpired) })
	response, err := p.transport.RoundTrip(p.request(c.ctx, r, accept)) //nolint:bodyclose // the call owns it
	c.timer.Stop()
	if err != nil {
		defer c.cancel(nil)
		return nil, c.failure(err, KindUpstream)
	}
	c.response = response
	if response.StatusCode != http.StatusOK {
		defer c.close()
		return nil, c.refusal()
	}
	return c, nil
}

// request is built by hand: the URL is parsed once, and the transport alone has neither redirects
// nor cookies.
func (p *OpenAI) request(ctx context.Context, r Request, accept string) *http.Request {
	header := make(http.Header, 8)
	for _, name := range passedHeaders {
		if v := r.Header[name]; len(v) > 0 {
			header[name] = v
		}
	}
	header["Accept"] = []string{accept}
	header["Content-Type"] = []string{"application/json"}
	header["User-Agent"] = []string{"llm-gateway"}
	if p.authorization != "" {
		header["Authorization"] = []string{p.authorization}
	}
	// With GetBody the transport can send again on another connection what it has certainly not
	// sent on one that turned out to be closed.
	body := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(r.Body)), nil }
	first, _ := body()
	return (&http.Request{Method: http.MethodPost, URL: p.url, Host: p.url.Host, Header: header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Body: first, GetBody: body, ContentLength: int64(len(r.Body))}).WithContext(ctx)
}

// Read reads the response's body and expires when it brings nothing for the idle timeout. Only the
// waiting is timed: a client that reads slowly is no stalled upstream.
func (c *call) Read(b []byte) (int, error) {
	c.timer.Reset(c.of.idleTimeout)
	n, err := c.response.Body.Read(b)
	c.timer.Stop()
	return n, err
}

// close ends the exchange. The connection goes back to the pool if the body has been read to its
// end, and is closed otherwise.
func (c *call) close() {
	c.timer.Stop()
	c.cancel(nil)
	_ = c.response.Body.Close() // an answer has been had; a failed close changes nothing
}

// drain reads what is left, if that is little and comes soon.
func (c *call) drain() {
	c.timer.Reset(drainTimeout)
	_, _ = io.CopyN(io.Discard, c.response.Body, drainBytes) // only to reach the end
	c.timer.Stop()
}

// readAll reads a body of at most MaxAnswerBytes.
func (c *call) readAll() ([]byte, error) {
	size := int64(firstRead)
	if length := c.response.ContentLength; length >= 0 {
		size = min(length+1, trustedLength) // one more byte of room, to meet the end without growing
	}
	body := make([]byte, 0, size)
	for {
		if len(body) == cap(body) {
			body = append(body, 0)[:len(body)]
		}
		n, err := c.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case len(body) > MaxAnswerBytes:
			return nil, errTooLong
		case err == io.EOF:
			return body, nil
		case err != nil:
			return nil, err
		}
	}
}

var errTooLong = errors.New("an answer is longer than the bound")

// readError reads the body of an error; nil if it is too long or does not come.
func (c *call) readError() []byte {
	body, err := io.ReadAll(io.LimitReader(c, maxErrorBody+1))
	if err != nil || len(body) > maxErrorBody {
		return nil
	}
	return body
}

// refusal is the error of an answer with another status than 200.
func (c *call) refusal() *Error {
	body := c.readError()
	if err := c.parent.Err(); err != nil {
		return canceled(c.of.name, err)
	}
	key := strings.TrimPrefix(c.of.authorization, "Bearer ")
	if key != "" && bytes.Contains(body, []byte(key)) {
		body = nil
	}
	return statusError(c.of.name, c.response.StatusCode, c.response.Header.Get("Retry-After"), body)
}

// failure says why an exchange broke off; kind is what it is when neither the caller nor a timer
// ended it.
func (c *call) failure(err error, kind Kind) *Error {
	if gone := c.parent.Err(); gone != nil {
		return canceled(c.of.name, gone)
	}
	e := &Error{Kind: kind, Provider: c.of.name, Reason: reason(err)}
	if c.response != nil {
		e.Status = c.response.StatusCode
	}
	var network net.Error
	if context.Cause(c.ctx) == errExpired || (errors.As(err, &network) && network.Timeout()) {
		e.Kind, e.Reason = KindTimeout, "nothing came in time"
	}
	return e
}

// reason names a transport's error in words that have no addresses in them.
func reason(err error) string {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return "its name was not resolved"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET):
		return "connection reset"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection was closed early"
	case errors.Is(err, errTooLong), errors.Is(err, errEventTooLong):
		return err.Error()
	}
	return "the connection failed"
}

// openAIStream is a stream of server-sent events.
type openAIStream struct {
	call   *call
	events *eventReader
	answer answer
	end    error // what Next has ended with
	closed bool
}

var doneData = []byte("[DONE]")

// Next implements Stream.
func (s *openAIStream) Next() (Chunk, error) {
	if s.end != nil {
		return Chunk{}, s.end
	}
	data, lines, err := s.events.next()
	if err != nil {
		s.end = s.broken(err)
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

// broken is the failure of a stream that ended before [DONE].
func (s *openAIStream) broken(err error) *Error {
	kind := KindUpstream
	if s.answer.begun {
		kind = KindCut
	}
	e := s.call.failure(err, kind)
	if err == io.EOF && e.Kind == kind {
		e.Reason = "the stream ended without [DONE]"
	}
	return e
}

// Report implements Stream.
func (s *openAIStream) Report() Report { return s.answer.Report() }

// Close implements Stream.
func (s *openAIStream) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	if s.end == io.EOF {
		s.call.drain()
	}
	s.call.close()
	if s.end == nil {
		s.end = &Error{Kind: KindCanceled, Provider: s.call.of.name, Reason: "the stream was closed",
			cause: context.Canceled}
	}
	return nil
}
