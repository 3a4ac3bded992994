package gateway

import (
	"strings"

	"github.com/gin-gonic/gin"

	"llm-gateway/domain"
	"llm-gateway/gateway/observe/trace"
)

// Whoever follows requests (a Tracer) is told of each when it has ended: of model calls, of questions about
// money, of what was refused. Where nobody does, the caller's trace context goes on upstream as it came, if
// it is valid.

// headerSession is how a client names its session to whoever follows its requests.
const headerSession = "X-Session-Id"

// follow begins to follow a request; nil where nobody wants to know of it.
func (g *Gateway) follow(c *gin.Context, requestID string) *trace.Request {
	caller, _ := trace.Read(c.Request.Header)
	if g.tracer == nil || unfollowed(c.FullPath()) {
		return nil
	}
	r := &trace.Request{Context: g.tracer.Begin(caller), Parent: caller.Span, Method: c.Request.Method, Route: c.FullPath(),
		RequestID: requestID, Began: g.now()}
	if session := c.GetHeader(headerSession); plainID(session) {
		r.Session = session
	}
	return r
}

// unfollowed says of which routes nobody wants to know: probes, and what does not exist.
func unfollowed(path string) bool {
	return path == "" || path == "/ready" || path == "/live" || path == "/metrics" || strings.HasPrefix(path, "/health")
}

// followed hands over a request that has ended.
func (g *Gateway) followed(c *gin.Context, r *record) {
	t := r.trace
	if t == nil {
		return
	}
	t.Status = c.Writer.Status()
	if who, ok := c.Get(keyIdentity); ok {
		t.Account = who.(*Identity).Account
	}
	if e, ok := c.Get(keyError); ok {
		t.Code = e.(*Error).Code
	}
	if r.hold != nil {
		t.Call = r.hold.told(r)
	}
	t.End(g.now())
	g.tracer.End(t)
}

// told is what is told of a model call when it has ended.
func (h *hold) told(r *record) *trace.Call {
	k, report := h.call, r.used.report
	t := &trace.Call{BillingID: h.id.String(), Surface: k.door.surface, Model: k.model.Name, Provider: k.model.Provider,
		ModelServed: report.Model, FinishReason: report.FinishReason, Stream: k.stream, FirstByte: h.first,
		Currency: h.g.currency, Refunded: h.released}
	if r.billed {
		charge := h.charged
		t.Charge = &charge
	}
	if r.bill.position.Seq > 0 {
		t.Position = r.bill.position.String()
	}
	return t
}

// step begins a step of a request; nil where nobody follows it.
func (g *Gateway) step(r *trace.Request, kind trace.Kind) *trace.Step {
	if r == nil {
		return nil
	}
	return r.Begin(kind, g.now())
}

// stepped ends a step.
func (g *Gateway) stepped(s *trace.Step) {
	if s != nil {
		s.Ended = g.now()
	}
}

// trying begins the step of an attempt, and makes the provider's part of the trace hang on it.
func (h *hold) trying(t *target) {
	r := h.call.trace
	if r == nil {
		return
	}
	if h.step = r.Begin(trace.Attempt, h.began); h.step != nil {
		h.step.Provider, h.step.Model = t.upstream.Name(), t.model.Name
		t.request.Header = r.Within(h.step).Into(h.call.header)
	}
}

// tellAttempt ends the step of an attempt.
func (h *hold) tellAttempt(a *domain.Attempt) {
	s := h.step
	if s == nil {
		return
	}
	s.Status, s.Error, s.FirstByte, s.Ended = a.Status, a.Error, h.first, h.g.now()
	h.step = nil
}
