package gateway

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"llm-gateway/gateway/health"
)

// Health is what background checks saw last.
type Health interface {
	// Last is the last report, nil before the first; old: it is older than it should be.
	Last() (r *health.Report, old bool)
	// History is the last checks, the latest first.
	History() []health.Past
}

// health is GET /health: the process is up. It asks nobody else.
func (g *Gateway) health(c *gin.Context) error {
	c.JSON(http.StatusOK, gin.H{"status": "ok", "version": g.version, "environment": g.environment, "billing": !g.unbilled})
	return nil
}

// live is GET /live: this process answers. Nothing else counts: who restarts a gateway because its database
// is away has two things down.
func (g *Gateway) live(c *gin.Context) error {
	c.JSON(http.StatusOK, gin.H{"status": "alive"})
	return nil
}

// Circuits are those of a provider that are not closed, as background checks report them.
func (g *Gateway) Circuits(provider string) []health.Circuit { return g.circuits.notClosed(provider) }

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

// detailed is what GET /health/detailed answers.
type detailed struct {
	*health.Report
	Stale   bool   `json:"stale"` // the check is older than it should be
	Billing bool   `json:"billing"`
	Version string `json:"version"`
}

// checkedNow is the last report, or a 503 before the first.
func (g *Gateway) checkedNow() (*health.Report, bool, error) {
	if g.checks != nil {
		if r, old := g.checks.Last(); r != nil {
			return r, old, nil
		}
	}
	return nil, false, unavailable("not_checked", "Nothing has been checked yet.", nil)
}

// healthDetailed is GET /health/detailed: every component and every provider, as of the last check. The
// status of the answer is 200 whatever it says: it is a report, not a probe.
func (g *Gateway) healthDetailed(c *gin.Context) error {
	r, old, err := g.checkedNow()
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, detailed{r, old, !g.unbilled, g.version})
	return nil
}

// healthSystem is GET /health/system: what the process takes of its machine, as of the last check.
func (g *Gateway) healthSystem(c *gin.Context) error {
	r, _, err := g.checkedNow()
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, r.System)
	return nil
}

// healthHistory is GET /health/history: the last checks, the latest first.
func (g *Gateway) healthHistory(c *gin.Context) error {
	past := []health.Past{}
	if g.checks != nil {
		past = g.checks.History()
	}
	c.JSON(http.StatusOK, gin.H{"checks": past})
	return nil
}

// operator lets those pass who may know what stands behind the gateway: administrators, or everybody where
// the operator chose so (HEALTH_DETAILS).
func (g *Gateway) operator(c *gin.Context) error {
	if g.healthPublic {
		return nil
	}
	return g.administrator(c)
}
