// Package provider calls models upstream.
//
// The problem: a provider's answer is money. What it says it used is what is charged, what it
// delivered before it broke off has been bought all the same, and its failures must reach the
// client as what they are, without its credentials. So every way an answer can end has one typed
// outcome here, and the bytes that a client gets are the provider's own.
//
// Invariants:
//   - The request's body is sent as it is given: what was priced is what is sent.
//   - A whole answer is returned only if it is one complete JSON object with choices; a stream ends
//     with io.EOF only after the provider's own [DONE]. Everything else is an *Error.
//   - A usage is the provider's or nil: nothing here makes one up. Counting is CountText and
//     CountPrompt, and it is the caller who decides to count.
//   - No goroutine is started per call; when Complete or Close has returned, nothing is left but
//     a pooled connection. Every body, event and wait has a named bound.
//   - No error text contains credentials, prompts or answers. Body of an Error is for the client
//     that sent the prompt, never for logs.
//
// Tests: tables for usage and errors; the event reader against its own grammar, byte by byte and
// fuzzed; one conformance table that runs over the simulated provider directly and through
// the OpenAI client against Handler; real recorded traffic with faults, replayed over loopback;
// timeouts on the fake clock of testing/synctest.
package provider

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"llm-gateway/gateway/provider/chat"
)

// Bounds of foreign strings that end up in events.
const (
	maxFinishReason = chat.MaxFinishReason
	maxServiceTier  = chat.MaxServiceTier
	maxModelName    = chat.MaxModelName
	maxUpstreamID   = chat.MaxUpstreamID
	maxRetryAfter   = 64
)

// maxErrorBody bounds an error's body, in bytes: more than any provider's error, and little enough
// to keep and to pass on.
const maxErrorBody = 64 << 10

// Request is one call. Body is a request of Surface that the gateway has validated: one JSON object, no
// duplicate keys, valid UTF-8, with stream and limits set. It is not kept after the call. Of Header only the
// names in passedHeaders go upstream.
type Request struct {
	Surface   string // whose form Body and the answer have; "" = chat completions
	Method    string // what is asked of the model, on surfaces whose path says so
	Model     string // as the provider names it; "" = as Body does
	MaxOutput int64  // the most output tokens of the model
	Body      []byte
	Header    http.Header
	// Made says that the gateway itself made Body, from a request of another surface: it may have what only
	// this project's translators know.
	Made bool
	// Order and Attempt choose among several keys: attempts of one Order go to different ones.
	Order   uint64
	Attempt int

	sent     []byte        // by Prepare: what goes to an OpenAI-compatible upstream
	exchange chat.Exchange // by Prepare: what goes to any other
}

// ErrForeign is what Prepare says of a surface that a provider does not speak: it can be asked by way of a
// chat completion.
var ErrForeign = errors.New("the provider does not speak this surface")

// isChat says whether the request is a chat completion, which every provider takes.
func (r *Request) isChat() bool { return r.Surface == "" || r.Surface == chat.SurfaceChat }

// Terms is what a provider says of a request before it is priced.
type Terms struct {
	// Overhead is how many input tokens the provider's own templates can add, beyond what the bytes of
	// the body and the gateway's constants for OpenAI's template cover.
	Overhead int64
	// ImageTokens is the most that one image in the body can count as input; 0 where that is not known.
	ImageTokens int64
	// Searches is how many web searches the request can cause; 0 where the provider does not limit or
	// report them.
	Searches int64
	// Rounds is how often the provider may ask its model with this input, each time billing all of it; 0 is
	// once.
	Rounds int64
	// Window is the context window, in tokens, where the request asks for a larger one than the model usually
	// has; 0 where it does not.
	Window int64
	// AudioIn says that what the request brings or links to may be sound, beside what says so itself.
	AudioIn bool
	// Kept is where the request links to what is kept at the provider by the operator's key, so that only its
	// translation names it; "" = nowhere.
	Kept string
	// Regional says that answers tell where and how fast they were made, so that factors for it are charged.
	Regional bool
}

// passedHeaders are the client's headers that may reach a provider, in canonical form. Anything
// else, above all its credentials and its baggage, ends at the gateway.
var passedHeaders = [...]string{"Anthropic-Version", "Anthropic-Beta", "Openai-Beta", "Traceparent", "Tracestate"}

// Provider is one upstream. It is safe for concurrent use. Its methods fail with *Error only.
type Provider interface {
	// Name is the provider's name in the price book and in events: "openai", "simulated".
	Name() string
	// Prepare makes the request ready to be sent, and says what bounds it. It fails with
	// *chat.Unsupported where the provider cannot be asked this, and with ErrForeign where it does not speak
	// the request's surface. It is called before the request is
	// priced, and again after each change of its Body.
	Prepare(r *Request) (Terms, error)
	// Complete waits for the whole answer to a request with "stream": false.
	Complete(ctx context.Context, r Request) (*Completion, error)
	// Stream returns after the response's headers, for a request with "stream": true. The context
	// governs the whole stream: when it ends, Next fails with KindCanceled.
	Stream(ctx context.Context, r Request) (Stream, error)
}

// Stream is an answer under way. It belongs to one goroutine; to interrupt a waiting Next, cancel
// the context.
type Stream interface {
	// Next waits for the next chunk: io.EOF after the provider's [DONE], *Error when the stream was
	// cut, stalled or brought an error event. Once it has failed it fails the same way again.
	Next() (Chunk, error)
	// More says that the next chunk, or the end, is here already: Next will not wait for it. What has
	// been passed on need not be flushed before that. No is always a right answer. The last chunk's bytes
	// are no longer valid afterwards.
	More() bool
	// Report is what the provider has said so far. Valid at any time, after Close too.
	Report() Report
	// Close ends the call and returns promptly. It is always to be called, and may be repeated.
	Close() error
}

// Chunk and Report are the translators' own: there is one form of an answer.
type (
	Chunk  = chat.Chunk
	Report = chat.Report
)

// Completion is a whole answer.
type Completion struct {
	Body   []byte // the provider's JSON object byte for byte
	Report Report
	text   func() string // all its text, where Body is no chat completion
}

// Kind says what became of a call that failed.
type Kind string

// The kinds of failure.
const (
	// KindRejected: the provider refused the request with a 4xx other than 401 and 403. Status
	// and Body are the client's to see; 402 and 429 concern the gateway's own account there.
	KindRejected Kind = "rejected"
	// KindAuth: the provider refused the gateway's credentials (401, 403). Body is nil: providers
	// repeat parts of the key in it.
	KindAuth Kind = "auth"
	// KindUpstream: the provider failed before it delivered anything: 5xx, a redirect, no
	// connection, an empty, truncated or foreign body.
	KindUpstream Kind = "upstream"
	// KindTimeout: no connection, no headers or no further bytes in time.
	KindTimeout Kind = "timeout"
	// KindCut: a stream that had begun ended without [DONE], or brought an error event; Body
	// holds that event's JSON.
	KindCut Kind = "cut"
	// KindCanceled: the caller's context ended.
	KindCanceled Kind = "canceled"
	// KindOpen: the provider was not called, because it has failed too often, or because Model has. RetryAfter says
	// when it may be.
	KindOpen Kind = "circuit_open"
)

// Error is every failure of a provider. Its text is made of this package's own words and the
// status code only.
type Error struct {
	Kind       Kind
	Provider   string // the provider's name
	Model      string // of KindOpen: the one model that is left alone; "" = the whole provider
	Status     int    // HTTP status; 0 if there was no answer
	Body       []byte // the provider's error in OpenAI's shape, at most 64 KiB, or nil
	Native     []byte // the same in the provider's own, where that is another; or nil
	RetryAfter string // the Retry-After header, or ""
	Unreached  bool   // no connection came about, so that nothing was asked
	Reason     string // in this package's words
	cause      error  // of KindCanceled: the context's error
}

// Error never contains credentials, prompts or anything else from outside.
func (e *Error) Error() string {
	s := "provider " + e.Provider + ": " + string(e.Kind)
	if e.Status != 0 {
		s += ": status " + strconv.Itoa(e.Status)
	}
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	return s
}

// Unwrap gives the context's error of a canceled call. Other causes stay inside: their texts
// contain addresses.
func (e *Error) Unwrap() error { return e.cause }

// canceled is the failure of a call whose context has ended.
func canceled(name string, cause error) *Error {
	return &Error{Kind: KindCanceled, Provider: name, Reason: "the caller has gone", cause: cause}
}

// closedEarly is how a stream ends that its reader has closed.
func closedEarly(name string) *Error {
	return &Error{Kind: KindCanceled, Provider: name, Reason: "the stream was closed", cause: context.Canceled}
}

// broken is the failure of a stream that does not go on. Before its first chunk nothing has been
// delivered, and the call may be made again.
func broken(name string, begun bool, reason string) *Error {
	kind := KindUpstream
	if begun {
		kind = KindCut
	}
	return &Error{Kind: kind, Provider: name, Status: http.StatusOK, Reason: reason}
}

// statusError is the failure of a call that was answered with an HTTP status other than 200. body is
// the error in OpenAI's shape, or nil.
func statusError(name string, status int, retryAfter string, body []byte) *Error {
	e := &Error{Kind: KindUpstream, Provider: name, Status: status,
		RetryAfter: chat.Clean(retryAfter, maxRetryAfter)}
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		e.Kind = KindAuth
		return e
	case status >= 400 && status < 500:
		e.Kind = KindRejected
	}
	e.Body = body
	return e
}
