// Package trace is what is told of one request to whoever follows requests: when it began and ended, its
// steps, and what it cost.
//
// The problem: several systems want to know the same in forms of their own, none of them may cost a request
// anything, and a trace that others began has to go on here and upstream. So the gateway fills plain values,
// and hands them to a Tracer when the request has ended; what becomes of them there is no concern of the
// request's.
//
// Invariants:
//   - Nothing here holds a prompt, an answer, a header or a credential: there is no field for one.
//   - A nil *Request takes everything and keeps nothing: where nobody follows, a request pays for a
//     comparison.
//   - Steps are at most maxSteps. A Request belongs to the request's goroutine until Tracer.End, and is not
//     written to afterwards.
//   - Of W3C trace context, only what is valid is read and passed on; baggage is neither.
//
// Tests: tables and a fuzz test for the context, whose reading must be what it writes; allocations of a
// request that nobody follows.
package trace

import (
	"slices"
	"time"

	"llm-gateway/domain"
)

// Kind is what a step does.
type Kind string

// The steps of a model call.
const (
	Reserve Kind = "reserve"
	Attempt Kind = "attempt"
	Settle  Kind = "settle"
)

// maxSteps bounds the steps of one request: more than all retries at a few targets.
const maxSteps = 64

// Tracer is told of requests. Neither method waits or fails.
type Tracer interface {
	// Begin says where a request is in a trace: below its caller, or where that is the zero Context, in a
	// trace of its own.
	Begin(caller Context) Context
	// End takes a request that has ended.
	End(r *Request)
}

// Step is one thing that a request waited for.
type Step struct {
	Kind         Kind
	Span         SpanID
	Began, Ended time.Time
	// Of an attempt:
	Provider, Model string    // in the price book's words
	Status          int       // of the provider's answer; 0 = none came
	Error           string    // the kind of failure, or ""
	FirstByte       time.Time // zero: none came
}

// Request is one request. What is not known is zero.
type Request struct {
	Context              // its own
	Parent        SpanID // its caller's
	Method, Route string
	RequestID     string
	Session       string // what the client calls its session
	Account       string
	Began, Ended  time.Time
	Status        int
	Code          string // of the error that it was answered with
	Steps         []*Step
	Call          *Call // nil: no model was called
}

// Call is what a model call came to.
type Call struct {
	BillingID    string
	Surface      string
	Model        string // in the price book's words
	Provider     string
	ModelServed  string // as the provider says it
	FinishReason string
	Stream       bool
	FirstByte    time.Time
	Currency     string
	Charge       *domain.Charge // nil: it is not known that it was charged
	Refunded     bool           // everything was given back
	Position     string         // of the settlement in the ledger; "" = none yet
}

// Begin begins a step. It is nil where nobody follows, or where there are too many.
func (r *Request) Begin(kind Kind, now time.Time) *Step {
	if r == nil || len(r.Steps) >= maxSteps {
		return nil
	}
	s := &Step{Kind: kind, Span: NewSpanID(), Began: now}
	r.Steps = append(r.Steps, s)
	return s
}

// End ends a request, and what steps it left open.
func (r *Request) End(now time.Time) {
	r.Ended = now
	for _, s := range r.Steps {
		if s.Ended.IsZero() {
			s.Ended = now
		}
	}
}

// Within is the context of what happens in a step.
func (r *Request) Within(s *Step) Context {
	c := r.Context
	c.Span = s.Span
	return c
}

// Failure is why a request failed, in one word; "" where it did not. An answer that broke off has a status
// of success, and its last attempt tells.
func (r *Request) Failure() string {
	if r.Code != "" {
		return r.Code
	}
	for _, s := range slices.Backward(r.Steps) {
		if s.Kind == Attempt {
			return s.Error
		}
	}
	return ""
}
