package gateway

import (
	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// scrapesAtOnce bounds the scrapes at a time: whoever reaches the gateway may ask for its metrics.
const scrapesAtOnce = 4

// watch bounds the metrics' labels by what the catalog has now, and serves them unless they are off.
func (g *Gateway) watch(off bool) {
	g.metrics.Only(func(model string) bool { return len(g.catalog().Prices.Named(model)) > 0 },
		func(name string) bool { _, ok := g.catalog().Providers[name]; return ok })
	if !off {
		g.scrape = promhttp.HandlerFor(g.metrics.Registry, promhttp.HandlerOpts{MaxRequestsInFlight: scrapesAtOnce})
	}
}

// prometheus is GET /metrics. It is open to everybody and names no account, unless the operator asked for that.
func (g *Gateway) prometheus(c *gin.Context) error {
	if g.scrape == nil {
		return unknownURL(c)
	}
	g.scrape.ServeHTTP(c.Writer, c.Request)
	return nil
}
