package gateway

import (
	"context"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"llm-gateway/domain"
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

// SlotsOf are a gateway's.
func SlotsOf(g *Gateway) Slots { return Slots{g.slots} }

// Bodies are those that are being read.
type Bodies struct{ *bodies }

// NewBodies has room for so many bytes.
func NewBodies(most int64) Bodies { return Bodies{newBodies(most, observe.NewMetrics())} }

// Take takes some of it.
func (b Bodies) Take(account string, more int64) bool { return b.take(account, more) }

// BoundBodies makes a gateway read bodies of so many bytes at once; nothing is being read yet.
func BoundBodies(g *Gateway, most int64) { g.bodies.most = most }

// BodiesOf is what a gateway keeps of bodies: bytes, and accounts.
func BodiesOf(g *Gateway) (taken int64, accounts int) {
	g.bodies.mu.Lock()
	defer g.bodies.mu.Unlock()
	return g.bodies.taken, len(g.bodies.of)
}

// Probing are the circuits of a gateway that let nobody through because of a probe under way.
func Probing(g *Gateway, now time.Time) (out []string) {
	g.circuits.mu.Lock()
	defer g.circuits.mu.Unlock()
	for key, one := range g.circuits.of {
		if _, refused := one.Refuses(now); refused && one.State(now) == domain.CircuitHalfOpen {
			out = append(out, key.provider+"/"+key.model)
		}
	}
	return out
}

// MaxQueued bounds the queue.
const MaxQueued = maxQueued
