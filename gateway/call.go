package gateway

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/tidwall/sjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider"
)

const (
	// maxBody bounds a request's body, in bytes: enough for a few large images.
	maxBody = 32 << 20
	// trustedLength is how much of a Content-Length is allocated before a byte has come.
	trustedLength = 1 << 20
	// bodyTime bounds the reading of a body, so that slow senders hold nothing up for ever; also of
	// one that nobody wants, because net/http reads it before it sends an early refusal.
	bodyTime = 2 * time.Minute
)

// call is one request for a model, read, priced and bounded, before any money moves.
type call struct {
	who      *Identity
	surface  string
	asked    *chatRequest
	model    *domain.Model
	version  *domain.PriceVersion
	upstream provider.Provider
	header   http.Header
	need     domain.Need
	bound    domain.Bound // the price of need
	body     []byte       // what is sent: what the client sent, changed only where it must be
	bodyHash string       // of what the client sent
	key      string       // its Idempotency-Key, or ""
	began    time.Time
	stream   bool
	exact    int64 // what exactInput found; 0 = not asked yet
	cap      int64 // output tokens per choice that the balance affords; 0 = not capped
}

// prepare reads a request up to the point where only money is missing. Nothing has been charged, and
// no error from here costs anything.
func (g *Gateway) prepare(c *gin.Context, surface string, alwaysStream bool) (*call, error) {
	k := &call{who: identityOf(c), surface: surface, header: c.Request.Header, began: g.now()}
	var err error
	if k.key, err = readKey(c); err != nil {
		return nil, err
	}
	body, err := readBody(c)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	k.body, k.bodyHash = body, hex.EncodeToString(sum[:])
	if err := checkJSON(body); err != nil {
		return nil, err
	}
	asked, failed := parseChat(body)
	if failed != nil {
		return nil, failed
	}
	k.asked, k.stream = asked, asked.stream || alwaysStream
	if err := g.price(k); err != nil {
		return nil, err
	}
	return k, k.rewrite(alwaysStream)
}

// readBody reads the whole body within its bound.
func readBody(c *gin.Context) ([]byte, error) {
	tooLarge := &Error{Status: http.StatusRequestEntityTooLarge, Type: typeInvalid, Code: "body_too_large",
		Message: fmt.Sprintf("The body is larger than %d bytes.", maxBody)}
	if c.Request.ContentLength > maxBody {
		return nil, tooLarge
	}
	if encoding := c.GetHeader("Content-Encoding"); encoding != "" && encoding != "identity" {
		return nil, invalid("unsupported_parameter", "", "Send the body without Content-Encoding.")
	}
	var body bytes.Buffer
	if c.Request.ContentLength > 0 {
		body.Grow(int(min(c.Request.ContentLength, trustedLength)) + bytes.MinRead)
	}
	if _, err := body.ReadFrom(http.MaxBytesReader(c.Writer, c.Request.Body, maxBody)); err != nil {
		if over := new(http.MaxBytesError); errors.As(err, &over) {
			return nil, tooLarge
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, invalid("invalid_json", "", "The body ended early.")
		}
		return nil, &Error{Status: http.StatusBadRequest, Type: typeInvalid, Code: "invalid_json",
			Message: "The body could not be read.", cause: err}
	}
	http.NewResponseController(c.Writer).SetReadDeadline(time.Time{}) //nolint:errcheck // lifted: the wait for the answer is no read
	return body.Bytes(), nil
}

// price finds the model, its price and its provider. An unknown price is no call: never free.
func (g *Gateway) price(k *call) error {
	var err error
	k.model, k.version, err = g.prices().Lookup(k.asked.model, k.began)
	switch {
	case errors.Is(err, domain.ErrModelUnknown):
		return &Error{Status: http.StatusNotFound, Type: typeInvalid, Code: "model_not_found", Param: "model",
			Message: fmt.Sprintf("The model %q does not exist here. GET /v1/models lists what can be called.", cut(k.asked.model))}
	case err != nil:
		return invalid("price_unknown", "model", fmt.Sprintf("The model %q has no price at this time, so it is not called.", k.model.Name))
	case k.model.Mode != domain.ModeChat || k.model.ResponsesOnly:
		return invalid("unsupported_parameter", "model", fmt.Sprintf("The model %q is not served by chat completions.", k.model.Name))
	}
	if k.upstream = g.providers[k.model.Provider]; k.upstream == nil {
		return g.notConfigured(k.model)
	}
	k.need = k.asked.need(k.model)
	return k.rebound()
}

// rebound prices the need, after every change of it.
func (k *call) rebound() error {
	var err error
	if k.bound, err = k.version.Bound(k.need); err != nil {
		return needError(err)
	}
	return nil
}

func (g *Gateway) notConfigured(m *domain.Model) error {
	how := g.missing[m.Provider]
	if how == "" {
		how = "No provider of that name is set up."
	}
	e := unavailable("provider_not_configured", fmt.Sprintf("The model %q belongs to the provider %s, which is not configured. %s",
		m.Name, m.Provider, how), nil)
	e.RetryAfter = 0 // waiting does not help
	return e
}

// needError says why a need cannot be bounded.
func needError(err error) error {
	if errors.Is(err, domain.ErrPriceMissing) {
		return invalid("price_unknown", "", "Part of this request has no price, so it is not called: "+err.Error()+".")
	}
	return invalid("invalid_value", "", "This request asks for more than can be priced: "+err.Error()+".")
}

// rewrite changes the body where it must: the model's own name, streaming, and the usage chunk that
// the meter needs. Everything else stays byte for byte.
func (k *call) rewrite(alwaysStream bool) error {
	if k.asked.model != k.model.Name {
		if err := k.set("model", strconv.Quote(k.model.Name)); err != nil {
			return err
		}
	}
	if alwaysStream && !k.asked.stream {
		if err := k.set("stream", "true"); err != nil {
			return err
		}
	}
	if k.stream && !k.asked.includeUsage {
		return k.set("stream_options.include_usage", "true")
	}
	return nil
}

func (k *call) set(path, raw string) error {
	body, err := sjson.SetRawBytes(k.body, path, []byte(raw))
	if err != nil {
		return internal(fmt.Errorf("rewriting %s: %w", path, err))
	}
	k.body = body
	return nil
}

// exactInput is the input's exact number of tokens where that can be known and is smaller than the
// cheap bound, else that bound. It counts once: counting costs time.
func (k *call) exactInput() int64 {
	if k.exact != 0 {
		return k.exact
	}
	k.exact = k.need.InputTokens
	if k.asked.opaque {
		return k.exact
	}
	if tokens, exact := provider.CountPrompt(k.model.Name, k.body); exact {
		k.exact = min(k.exact, tokens+templateTokens)
	}
	return k.exact
}

// countInput replaces the cheap bound of the input by its exact number of tokens, where that can be
// known, and says whether the need became smaller.
func (k *call) countInput() bool {
	before := k.need.InputTokens
	k.need.InputTokens = k.exactInput()
	return k.need.InputTokens < before
}

// capOutput limits the output to what the balance affords, in what is sent and in the need.
func (k *call) capOutput(perChoice int64) error {
	name := "max_completion_tokens"
	if err := k.set(name, strconv.FormatInt(perChoice, 10)); err != nil {
		return err
	}
	k.cap = perChoice
	k.need.OutputTokens = k.asked.outputBound(perChoice, k.model)
	return nil
}

// request is what the provider gets.
func (k *call) request() provider.Request {
	return provider.Request{Model: k.model.Name, Body: k.body, Header: k.header}
}
