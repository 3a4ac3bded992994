package gateway

import (
	"net/http"

	"github.com/gin-gonic/gin"

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
	engine := gin.New()
	engine.Use(g.guarded)
	engine.POST("/v1/chat/completions", func(*gin.Context) {})
	return engine
}
