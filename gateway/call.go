package gateway

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/tidwall/sjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider/chat"
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
	*target           // whose turn it is: one of targets, at first the first
	targets []*target // in the order of trying
	catalog *Catalog
	order   uint64 // random: which keys and providers it gets

	who      *Identity
	surface  string
	asked    *chat.Facts
	header   http.Header
	body     []byte // what is sent: what the client sent, changed only where it must be
	bodyHash string // of what the client sent
	key      string // its Idempotency-Key, or ""
	began    time.Time
	stream   bool
	cap      int64 // output tokens per choice that the balance affords; 0 = not capped
}

// prepare reads a request up to the point where only money is missing. Nothing has been charged, and
// no error from here costs anything.
func (g *Gateway) prepare(c *gin.Context, surface string, alwaysStream bool) (*call, error) {
	k := &call{who: identityOf(c), surface: surface, header: c.Request.Header, began: g.now(), catalog: g.catalog(), order: rand.Uint64()}
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
	k.asked, k.stream = asked, asked.Stream || alwaysStream
	return k, g.price(k, alwaysStream)
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

// price finds what the call can be sent to, and the most that it can cost there.
func (g *Gateway) price(k *call, alwaysStream bool) error {
	targets, err := k.catalog.route(k.asked.Model, k.began, rand.New(rand.NewPCG(k.order, 1))) //nolint:gosec // it spreads load
	if err != nil {
		return err
	}
	if err := k.rewrite(targets[0].model, alwaysStream); err != nil {
		return err
	}
	return k.aim(targets)
}

// rewrite changes the body where it must: the model's own name, streaming, and the usage chunk that
// the meter needs. Everything else stays byte for byte.
func (k *call) rewrite(m *domain.Model, alwaysStream bool) error {
	if name := m.UpstreamName(); k.asked.Model != name {
		if err := k.set("model", strconv.Quote(name)); err != nil {
			return err
		}
	}
	if alwaysStream && !k.asked.Stream {
		if err := k.set("stream", "true"); err != nil {
			return err
		}
	}
	if k.stream && !k.asked.IncludeUsage {
		return k.set("stream_options.include_usage", "true")
	}
	return nil
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func (k *call) set(path, raw string) error {
	body, err := sjson.SetRawBytes(k.body, path, []byte(raw))
	if err != nil {
		return internal(fmt.Errorf("rewriting %s: %w", path, err))
	}
	k.body = body
	return nil
}
