package provider

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tidwall/gjson"
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
	// TotalTimeout bounds a call from its beginning to its end, the client's slowness included.
	TotalTimeout = 30 * time.Minute
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

// Config describes an upstream, whatever protocol it speaks. Zero durations mean the constants above.
type Config struct {
	Name    string // the provider's name in the price book and in events; "" = the protocol's own
	BaseURL string // http or https; what its own SDK would be given
	APIKey  string // "" = none, for local upstreams
	// Header is sent along with every request.
	Header http.Header
	// OutputLimit names the parameter that limits the output there, for OpenAI-compatible upstreams:
	// max_tokens or max_completion_tokens. "" = as the client sent it.
	OutputLimit string
	APIVersion  string // Azure's api-version
	// Compatible: any path of BaseURL is the whole of it, to which nothing but the endpoint is added.
	Compatible bool

	// Transport replaces the pool of connections; ConnectTimeout is then the transport's affair.
	Transport http.RoundTripper

	ConnectTimeout time.Duration
	HeaderTimeout  time.Duration
	IdleTimeout    time.Duration
	TotalTimeout   time.Duration
}

// upstream is the HTTP side of a provider. It follows no redirects and retries nothing: a call that may
// have reached the model may have cost money.
type upstream struct {
	name          string
	base          *url.URL
	header        http.Header // what every request carries, the credentials among it
	secret        string
	transport     http.RoundTripper
	headerTimeout time.Duration
	idleTimeout   time.Duration
	totalTimeout  time.Duration
	// errorBody reads an error's body: OpenAI's shape of it, or nil where it is none.
	errorBody func(body []byte) []byte
	// retryDelay reads from an error's body in how many seconds to come again; nil where only the header
	// says that.
	retryDelay func(body []byte) int64
}

// newUpstream checks the configuration. keyHeader and scheme say how the key is sent. Its errors do not
// show the key, nor the address beyond its scheme and host.
func newUpstream(c Config, name, keyHeader, scheme string) (*upstream, error) {
	base, err := baseURL(c.BaseURL)
	if err != nil {
		return nil, err
	}
	if strings.ContainsFunc(c.APIKey, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("the upstream's API key contains blanks or control characters")
	}
	u := &upstream{name: c.Name, base: base, header: make(http.Header, 8), secret: c.APIKey, transport: c.Transport,
		headerTimeout: orDefault(c.HeaderTimeout, HeaderTimeout), idleTimeout: orDefault(c.IdleTimeout, IdleTimeout),
		totalTimeout: orDefault(c.TotalTimeout, TotalTimeout)}
	if u.name == "" {
		u.name = name
	}
	maps.Copy(u.header, c.Header)
	u.header["Content-Type"] = []string{"application/json"}
	u.header["User-Agent"] = []string{"llm-gateway"}
	if c.APIKey != "" {
		u.header[keyHeader] = []string{scheme + c.APIKey}
	}
	if u.transport == nil {
		u.transport = newTransport(orDefault(c.ConnectTimeout, ConnectTimeout))
	}
	return u, nil
}

// Name implements Provider.
func (p *upstream) Name() string { return p.name }

// CloseIdle closes the connections that no call is using, for a clean end of the process.
func (p *upstream) CloseIdle() {
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

// baseURL is an address without its trailing slashes.
func baseURL(base string) (*url.URL, error) {
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
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), ""
	return u, nil
}

// under is a path below the base, which may end in version already.
func (p *upstream) under(version, path string) *url.URL {
	u := *p.base
	u.Path = strings.TrimRight(strings.TrimSuffix(u.Path, version), "/") + version + path
	return &u
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

// call is one HTTP exchange. Its timer is the only thing that waits beside the caller.
type call struct {
	of       *upstream
	parent   context.Context // the caller's: says whether he has gone
	ctx      context.Context // the exchange's: parent, or the timer's end
	cancel   context.CancelCauseFunc
	timer    *time.Timer
	deadline time.Time // of all of it
	response *http.Response
}

// message is one request as it is sent.
type message struct {
	url    *url.URL
	body   []byte
	header http.Header // the client's: of it only passedHeaders are sent
	accept string
}

// The media types that are asked for.
const (
	acceptJSON   = "application/json"
	acceptEvents = "text/event-stream"
)

// open sends the request and waits for an answer with status 200.
func (p *upstream) open(ctx context.Context, m message) (*call, error) {
	if err := ctx.Err(); err != nil {
		return nil, canceled(p.name, err)
	}
	c := &call{of: p, parent: ctx, deadline: time.Now().Add(p.totalTimeout)}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	c.timer = time.AfterFunc(min(p.headerTimeout, p.totalTimeout), func() { c.cancel(errExpired) })
	response, err := p.transport.RoundTrip(p.request(c.ctx, m)) //nolint:bodyclose // the call owns it
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

// openStream opens an event stream; what is none fails.
func (p *upstream) openStream(ctx context.Context, m message) (*call, error) {
	m.accept = acceptEvents
	c, err := p.open(ctx, m)
	if err != nil {
		return nil, err
	}
	media, _, _ := mime.ParseMediaType(c.response.Header.Get("Content-Type"))
	if media == "text/html" || media == acceptJSON {
		defer c.close()
		e := broken(p.name, false, "not an event stream")
		e.Body = p.errorBody(c.readError())
		return nil, e
	}
	return c, nil
}

// whole asks for a whole answer.
func (p *upstream) whole(ctx context.Context, m message) ([]byte, error) {
	m.accept = acceptJSON
	c, err := p.open(ctx, m)
	if err != nil {
		return nil, err
	}
	defer c.close()
	body, readErr := c.readAll()
	if readErr != nil {
		return nil, c.failure(readErr, KindUpstream)
	}
	return body, nil
}

// request is built by hand: the URL is parsed once, and the transport alone has neither redirects
// nor cookies.
func (p *upstream) request(ctx context.Context, m message) *http.Request {
	header := make(http.Header, 8)
	for _, name := range passedHeaders {
		if v := m.header[name]; len(v) > 0 {
			header[name] = v
		}
	}
	for name, v := range p.header { // its own version of a provider's API is for the client to say
		if header[name] == nil {
			header[name] = v
		}
	}
	header["Accept"] = []string{m.accept}
	// With GetBody the transport can send again on another connection what it has certainly not
	// sent on one that turned out to be closed.
	body := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(m.body)), nil }
	first, _ := body()
	return (&http.Request{Method: http.MethodPost, URL: m.url, Host: m.url.Host, Header: header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Body: first, GetBody: body, ContentLength: int64(len(m.body))}).WithContext(ctx)
}

// Read reads the response's body and expires when it brings nothing for the idle timeout, of which only
// the waiting is timed: a client that reads slowly is no stalled upstream. It expires at the deadline, too.
func (c *call) Read(b []byte) (int, error) {
	left := time.Until(c.deadline)
	if left <= 0 {
		c.cancel(errExpired)
		return 0, errExpired
	}
	c.timer.Reset(min(c.of.idleTimeout, left))
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
	if c.of.secret != "" && bytes.Contains(body, []byte(c.of.secret)) {
		body = nil
	}
	retryAfter := c.response.Header.Get("Retry-After")
	if retryAfter == "" && c.of.retryDelay != nil {
		if seconds := c.of.retryDelay(body); seconds > 0 {
			retryAfter = strconv.FormatInt(seconds, 10)
		}
	}
	e := statusError(c.of.name, c.response.StatusCode, retryAfter, c.of.errorBody(body))
	if e.Body != nil && e.Kind == KindRejected {
		e.Native = body
	}
	if gjson.GetBytes(e.Body, "error.type").Str == "authentication_error" { // Google says that with status 400
		e.Kind, e.Body, e.Native = KindAuth, nil, nil
	}
	return e
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
	expired := context.Cause(c.ctx) == errExpired
	if expired || (errors.As(err, &network) && network.Timeout()) {
		e.Kind, e.Reason = KindTimeout, "nothing came in time"
	}
	if c.response == nil && !expired && unreached(err) {
		e.Unreached = true
		if e.Kind == KindTimeout {
			e.Reason = "no connection came about in time"
		}
	}
	return e
}

// unreached says that a transport's error came before there was a connection: what happens on one is a read
// or a write, or an end.
func unreached(err error) bool {
	var (
		op          *net.OpError
		dns         *net.DNSError
		certificate *tls.CertificateVerificationError
		record      tls.RecordHeaderError
		alert       tls.AlertError
		network     net.Error
	)
	switch {
	case errors.As(err, &dns), errors.As(err, &certificate), errors.As(err, &record), errors.As(err, &alert):
		return true
	case errors.As(err, &op):
		return op.Op == "dial" || op.Op == "proxyconnect"
	}
	return errors.As(err, &network) && network.Timeout() // of the TLS handshake
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
