package gateway

import (
	"net/http"

	"github.com/gin-gonic/gin"
)

// health is GET /health: the process is up. It asks nobody else.
func (g *Gateway) health(c *gin.Context) error {
	c.JSON(http.StatusOK, gin.H{"status": "ok", "version": g.version, "environment": g.environment})
	return nil
}

// circuitBreakers is GET /health/circuit-breakers: which providers and models this process leaves alone, because
// they failed. Others may know better.
func (g *Gateway) circuitBreakers(c *gin.Context) error {
	g.circuits.keep(g.catalog())
	c.JSON(http.StatusOK, gin.H{"enabled": !g.circuits.off(), "circuit_breakers": g.circuits.view()})
	return nil
}

// readiness is GET /ready: whether requests can be served, and if not, why. Where they can be served
// without something that is away, it names that.
func (g *Gateway) readiness(c *gin.Context) error {
	if g.leaving.Load() {
		c.JSON(http.StatusServiceUnavailable, gin.H{"status": "not ready", "reason": "shutting down"})
		return nil
	}
	if err := g.ready(c.Request.Context()); err != nil {
		g.log.Warn("not ready", "error", err)
		c.JSON(http.StatusServiceUnavailable, gin.H{"status": "not ready", "reason": err.Error()})
		return nil
	}
	answer := gin.H{"status": "ready"}
	if away := g.degraded(c.Request.Context()); len(away) > 0 {
		answer["degraded"] = away
	}
	c.JSON(http.StatusOK, answer)
	return nil
}
