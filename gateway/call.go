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
	"slices"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/observe/trace"
	"llm-gateway/gateway/provider/chat"
)

const (
	// maxBody bounds a request's body, in bytes: enough for a few large images.
	maxBody = 32 << 20
	// trustedLength is how much of a Content-Length is allocated before a byte has come.
	trustedLength = 1 << 20
	// bodyTime bounds the reading of a body, so that slow senders hold nothing up for ever; also of
	// one that nobody wants, because net/http reads it before it sends an early refusal: refusedTime then.
	bodyTime = 2 * time.Minute
	// refusedTime bounds the reading of the rest of a body whose request is refused already. It is shorter than
	// writeTime, so that the refusal still goes out.
	refusedTime = 10 * time.Second
)

// call is one request for a model, read, priced and bounded, before any money moves.
type call struct {
	*target           // whose turn it is: one of targets, at first the first
	targets []*target // in the order of trying
	catalog *Catalog
	order   uint64 // random: which keys and providers it gets

	who            *Identity
	door           *door
	asking         *asking     // what the client sent
	asked          *chat.Facts // what the meter needs of it
	header         http.Header
	body           []byte       // what is sent: what the client sent, changed only where it must be
	chat           []byte       // the same as a chat completion, for those who do not speak the client's API; nil = not made
	foreignRequest chat.Foreign // what chat was made by
	bodyHash       string       // of what the client sent
	key            string       // its Idempotency-Key, or ""
	began          time.Time
	stream         bool
	canonical      []byte         // the client's body, for the response cache; nil = it is not looked for there
	sharedIDs      bool           // what providers keep may be named by every account
	cap            int64          // output tokens per choice that the balance affords; 0 = not capped
	spent          int64          // tokens that it came to
	trace          *trace.Request // nil: nobody follows it
}

// prepare reads a request up to the point where only money is missing, and own. Nothing has been charged, and
// no error from here costs anything. It asks nobody.
func (g *Gateway) prepare(c *gin.Context, d *door, a *asking) (*call, error) {
	k := &call{who: identityOf(c), door: d, asking: a, header: c.Request.Header, began: g.now(), sharedIDs: g.sharedIDs, catalog: g.catalog(), order: rand.Uint64()} //nolint:gosec // it spreads load
	r := recordOf(c)
	r.model = k.catalog.known(a.model) // where the path names it
	var err error
	if k.key, err = readKey(c); err != nil {
		return nil, err
	}
	if err := k.read(c); err != nil {
		return nil, err
	}
	asked, err := k.door.facts(k.asking)
	if err != nil {
		if a.model == "" {
			r.model = k.catalog.known(gjson.GetBytes(a.body, "model").Str)
		}
		return nil, unsupported(err)
	}
	r.model, k.asked, k.stream = k.catalog.known(asked.Model), asked, asked.Stream || k.asking.stream
	if err := g.refuseReferences(k); err != nil {
		return nil, err
	}
	return k, g.price(k)
}

// read reads the path and the body, and keeps a digest of both.
func (k *call) read(c *gin.Context) error {
	if k.door.ask != nil {
		if err := k.door.ask(c, k.asking); err != nil {
			return err
		}
	}
	body, err := readBody(c)
	if err != nil {
		return err
	}
	digest := sha256.New()
	if !k.door.isChat() { // the same text is another request elsewhere
		fmt.Fprintf(digest, "%s\n%s\n%s\n", k.door.surface, k.asking.method, k.asking.model)
	}
	digest.Write(body)
	k.asking.body, k.body, k.bodyHash = body, body, hex.EncodeToString(digest.Sum(nil))
	if err := checkJSON(body); err != nil {
		return err
	}
	return nil
}

// readBody reads the whole body within its bound. What it takes is given back when the request has a slot, or
// has ended.
func readBody(c *gin.Context) ([]byte, error) {
	if c.Request.ContentLength > maxBody {
		return nil, tooLarge()
	}
	if slices.ContainsFunc(c.Request.Header.Values("Content-Encoding"), func(encoding string) bool { return encoding != "" && encoding != "identity" }) {
		return nil, &Error{Status: http.StatusUnsupportedMediaType, Type: typeInvalid, Code: "unsupported_content_encoding",
			Message: "Send the body as it is, without Content-Encoding: nothing is unpacked here."}
	}
	r := recordOf(c)
	r.room.account, r.room.from = identityOf(c).Account, http.MaxBytesReader(c.Writer, c.Request.Body, maxBody)
	var body bytes.Buffer
	if length := min(c.Request.ContentLength, trustedLength); length > 0 {
		if !r.room.reach(length) {
			return nil, noRoom()
		}
		body.Grow(int(length) + bytes.MinRead)
	}
	_, err := body.ReadFrom(&r.room)
	if errors.Is(err, errNoRoom) {
		return nil, noRoom()
	}
	r.bodyRead = true
	if err != nil {
		if over := new(http.MaxBytesError); errors.As(err, &over) {
			return nil, tooLarge()
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

// noRoom refuses a body, because too much of others is being read.
func noRoom() error {
	return unavailable("overloaded", "Too many large requests are being read. Please retry.", nil)
}

func tooLarge() error {
	return &Error{Status: http.StatusRequestEntityTooLarge, Type: typeInvalid, Code: "body_too_large",
		Message: fmt.Sprintf("The body is larger than %d bytes.", maxBody)}
}

// price finds what the call can be sent to, and the most that it can cost there.
func (g *Gateway) price(k *call) error {
	targets, err := k.catalog.route(k.door, k.asked.Model, k.began, rand.New(rand.NewPCG(k.order, 1))) //nolint:gosec // it spreads load
	if err != nil {
		return err
	}
	for _, t := range targets {
		t.version = k.catalog.Sell.Price(k.who.Account, t.version, k.began)
	}
	if k.door.isChat() {
		if err := k.rewrite(targets[0].model); err != nil {
			return err
		}
	}
	return k.aim(targets)
}

// rewrite changes the body of a chat completion where it must: the model's own name, streaming, and the
// usage chunk that the meter needs. Everything else stays byte for byte.
func (k *call) rewrite(m *domain.Model) error {
	if name := m.UpstreamName(); k.asked.Model != name {
		if err := set(&k.body, "model", name); err != nil {
			return err
		}
	}
	if k.asking.stream && !k.asked.Stream {
		if err := set(&k.body, "stream", true); err != nil {
			return err
		}
	}
	if k.stream && !k.asked.IncludeUsage {
		return set(&k.body, "stream_options.include_usage", true)
	}
	return nil
}

// set changes one value of a body.
func set(body *[]byte, path string, value any) error {
	out, err := sjson.SetBytes(*body, path, value)
	if err != nil {
		return internal(fmt.Errorf("rewriting %s: %w", path, err))
	}
	*body = out
	return nil
}
