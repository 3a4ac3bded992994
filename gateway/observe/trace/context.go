package trace

import (
	"encoding/hex"
	"maps"
	"math/rand/v2"
	"net/http"
	"strings"
)

// ID is a trace's id, SpanID one of its spans'. Zero is none.
type (
	ID     [16]byte
	SpanID [8]byte
)

// String is the id in hex.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// String is the id in hex.
func (id SpanID) String() string { return hex.EncodeToString(id[:]) }

// NewID makes a trace's id. Ids guard nothing: they need to be different, not secret.
func NewID() (id ID) {
	for id == (ID{}) {
		fill(id[:])
	}
	return id
}

// NewSpanID makes a span's id.
func NewSpanID() (id SpanID) {
	for id == (SpanID{}) {
		fill(id[:])
	}
	return id
}

func fill(b []byte) {
	for i := 0; i < len(b); i += 8 {
		n := rand.Uint64() //nolint:gosec // see NewID
		for j := range 8 {
			b[i+j] = byte(n >> (8 * j))
		}
	}
}

// The headers of W3C trace context, as Go keeps them.
const (
	headerParent = "Traceparent"
	headerState  = "Tracestate"
)

const (
	// parentLen is the length of a traceparent of version 00.
	parentLen = 55
	// maxState bounds a tracestate, in bytes: what is longer may be left out by the standard, and is.
	maxState = 512
	// flagSampled is the only flag that is passed on.
	flagSampled = 1
)

// Context says where in a trace something happens.
type Context struct {
	Trace   ID
	Span    SpanID
	Sampled bool
	State   string // tracestate, passed on as it came
}

// Read takes the caller's context from a request's headers; false where there is none, or none that is valid.
// It removes what is not valid, so that it goes no further.
func Read(h http.Header) (Context, bool) {
	parent, state := h[headerParent], h[headerState]
	if parent == nil && state == nil { // as most requests come
		return Context{}, false
	}
	c, ok := Context{}, false
	if len(parent) == 1 {
		c, ok = parse(parent[0])
	}
	if !ok {
		delete(h, headerParent)
		delete(h, headerState)
		return Context{}, false
	}
	if c.State = strings.Join(state, ","); !validState(c.State) {
		c.State = ""
		delete(h, headerState)
	}
	return c, true
}

// parse reads a traceparent. Of a later version than 00, what 00 knows is read.
func parse(s string) (c Context, ok bool) {
	if len(s) < parentLen || s[2] != '-' || s[35] != '-' || s[52] != '-' || strings.ToLower(s) != s {
		return c, false
	}
	var version, flags [1]byte
	for _, part := range [...]struct {
		into []byte
		text string
	}{{version[:], s[:2]}, {c.Trace[:], s[3:35]}, {c.Span[:], s[36:52]}, {flags[:], s[53:55]}} {
		if _, err := hex.Decode(part.into, []byte(part.text)); err != nil {
			return Context{}, false
		}
	}
	c.Sampled = flags[0]&flagSampled != 0
	longer := len(s) > parentLen && (version[0] == 0 || s[parentLen] != '-' || len(s) > maxState)
	return c, version[0] != 0xff && !longer && c.Trace != ID{} && c.Span != SpanID{}
}

// validState says whether a tracestate is fit to be passed on. What its members say is not looked at.
func validState(s string) bool {
	return len(s) <= maxState && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r > '~' })
}

// Parent is the context as a traceparent.
func (c Context) Parent() string {
	b := make([]byte, 0, parentLen)
	b = hex.AppendEncode(append(b, "00-"...), c.Trace[:])
	b = hex.AppendEncode(append(b, '-'), c.Span[:])
	if c.Sampled {
		return string(append(b, "-01"...))
	}
	return string(append(b, "-00"...))
}

// Into is a copy of the headers with this context in place of the one in them.
func (c Context) Into(h http.Header) http.Header {
	out := make(http.Header, len(h)+2)
	maps.Copy(out, h)
	out[headerParent] = []string{c.Parent()}
	delete(out, headerState)
	if c.State != "" {
		out[headerState] = []string{c.State}
	}
	return out
}
