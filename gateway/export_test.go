package gateway

import (
	"context"
	"net/http"

	"github.com/gin-gonic/gin"

	"llm-gateway/gateway/observe"
	"llm-gateway/gateway/provider/chat"
)

// ChatFacts is what is read of a chat completion, for the tests beside this package.
func ChatFacts(body []byte) (*chat.Facts, error) {
	f, failed := parseChat(body)
	if failed != nil {
		return nil, failed
	}
	return f, nil
}

// GenerateLimit is where a request of Google's limits its output.
var GenerateLimit = generateLimit

// EdgeOf is the edge alone, before a handler that does nothing.
func EdgeOf(e Edge) http.Handler {
	ready, err := newEdge(e)
	if err != nil {
		panic(err)
	}
	g := &Gateway{edge: ready}
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.Use(g.guarded)
	engine.POST("/v1/chat/completions", func(*gin.Context) {})
	return engine
}

// Slots are the slots of requests in flight.
type Slots struct{ *slots }

// NewSlots makes slots.
func NewSlots(f InFlight, m *observe.Metrics) Slots { return Slots{newSlots(f, m)} }

// Enter takes one.
func (s Slots) Enter(ctx context.Context, account string) (func(), error) {
	return s.enter(ctx, account)
}

// Kept is what is kept: slots, accounts, and requests that wait.
func (s Slots) Kept() (taken, accounts, waiting int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken, len(s.of) + len(s.queued), s.waiting.Len()
}

// MaxQueued bounds the queue.
const MaxQueued = maxQueued
