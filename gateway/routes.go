package gateway

import (
	"net/http"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Route is one endpoint. openapi.yaml describes exactly these; a test compares them.
type Route struct{ Method, Path string }

// route is a Route with what serves it. Open routes need no credential.
type route struct {
	Route
	open   bool
	handle func(*Gateway) handler
}

// routes is the whole surface. What is not here does not exist and is never passed through.
var routes = []route{
	{Route{"POST", "/v1/chat/completions"}, false, func(g *Gateway) handler { return g.chatCompletions }},
	{Route{"POST", "/v1/chat/completions/stream"}, false, func(g *Gateway) handler { return g.chatCompletionsStream }},
	{Route{"GET", "/v1/models"}, false, func(g *Gateway) handler { return g.models }},
	{Route{"GET", "/billing/balance"}, false, func(g *Gateway) handler { return g.balance }},
	{Route{"GET", "/billing/transactions"}, false, func(g *Gateway) handler { return g.transactions }},
	{Route{"GET", "/billing/stats"}, false, func(g *Gateway) handler { return g.stats }},
	{Route{"GET", "/billing/requests/{id}"}, false, func(g *Gateway) handler { return g.request }},
	{Route{"GET", "/health"}, true, func(g *Gateway) handler { return g.health }},
	{Route{"GET", "/ready"}, true, func(g *Gateway) handler { return g.readiness }},
	{Route{"GET", "/metrics"}, true, func(g *Gateway) handler { return g.prometheus }},
}

// Routes lists the endpoints, in OpenAPI's way of writing paths.
func Routes() []Route {
	out := make([]Route, len(routes))
	for i, r := range routes {
		out[i] = r.Route
	}
	return out
}

// newEngine builds gin's engine. It trusts no proxy and redirects nothing: a moved POST loses its
// body.
func (g *Gateway) newEngine() *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.SetTrustedProxies(nil) //nolint:errcheck // nil is always accepted
	engine.RedirectTrailingSlash, engine.HandleMethodNotAllowed = false, true
	engine.Use(g.recorded, g.recovered)
	for _, r := range routes {
		handlers := []gin.HandlerFunc{}
		if !r.open {
			handlers = append(handlers, g.render(g.identified))
		}
		engine.Handle(r.Method, ginPath(r.Path), append(handlers, g.render(r.handle(g)))...)
	}
	unknown := g.render(func(c *gin.Context) error {
		return &Error{Status: http.StatusNotFound, Type: typeInvalid, Code: "unknown_url",
			Message: "Unknown request URL: " + c.Request.Method + " " + cut(c.Request.URL.Path) + "."}
	})
	engine.NoRoute(unknown)
	engine.NoMethod(unknown)
	return engine
}

// ginPath turns {id} into :id.
func ginPath(path string) string {
	out := []byte(path)
	kept := out[:0]
	for _, b := range out {
		switch b {
		case '{':
			kept = append(kept, ':')
		case '}':
		default:
			kept = append(kept, b)
		}
	}
	return string(kept)
}

// prometheus is GET /metrics.
func (g *Gateway) prometheus(c *gin.Context) error {
	promhttp.HandlerFor(g.metrics.Registry, promhttp.HandlerOpts{}).ServeHTTP(c.Writer, c.Request)
	return nil
}
