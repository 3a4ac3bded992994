package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"llm-gateway/domain"
	"llm-gateway/gateway/health"
	"llm-gateway/gateway/observe"
	"llm-gateway/gateway/provider"
)

// named is a provider that is asked for nothing but its name.
type named struct {
	provider.Provider
	name string
}

func (n named) Name() string { return n.name }

// housesOf is a catalog of providers by name, without models.
func housesOf(names ...string) *Catalog {
	c := &Catalog{Prices: &domain.PriceBook{}, Providers: map[string]provider.Provider{}}
	for _, name := range names {
		c.Providers[name] = named{name: name}
	}
	return c
}

// TestCircuitsReloaded: catalogs are exchanged while calls fail and operators look. In the end there is what the last
// catalog has, and nothing else: no circuit, no budget and no metric.
func TestCircuitsReloaded(t *testing.T) {
	t.Parallel()
	m := observe.NewMetrics()
	c := newCircuits(Resilience{Circuits: domain.CircuitRules{Failures: 1, Recovery: time.Hour}, RetryPercent: 10}, time.Now, m, health.NewTraffic(nil), slog.New(slog.DiscardHandler))
	both, one := housesOf("a", "b"), housesOf("a")
	c.keep(both)
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			for n := range 200 {
				catalog := both
				if (i+n)%3 == 0 {
					catalog = one
				}
				c.keep(catalog)
				to := &target{upstream: named{name: []string{"a", "b"}[n%2]}, model: &domain.Model{Name: "m"}}
				if leave, err := c.admit(to); err == nil {
					c.called(to)
					c.ended(leave, &provider.Error{Kind: provider.KindUpstream, Unreached: true})
					c.mayRetry(to)
				}
				if len(c.view()) == 0 {
					t.Error("nobody is there")
				}
			}
		})
	}
	wait.Wait()
	c.keep(both)
	for _, name := range []string{"a", "b"} {
		to := &target{upstream: named{name: name}, model: &domain.Model{Name: "m"}}
		if leave, err := c.admit(to); err == nil { // it was forgotten just now
			c.called(to)
			c.ended(leave, &provider.Error{Kind: provider.KindUpstream, Unreached: true})
		}
	}
	if got := viewed(c); got != "a open, b open" {
		t.Errorf("of both: %s", got)
	}
	c.keep(one)
	if got := viewed(c); got != "a open" || c.budgets["b"] != nil {
		t.Errorf("of one: %s, and budgets %v", got, c.budgets)
	}
	if text := scraped(m); !strings.Contains(text, `provider="a"`) || strings.Contains(text, `provider="b"`) {
		t.Errorf("the metrics say:\n%s", text)
	}
}

func viewed(c *circuits) string {
	var out []string
	for _, v := range c.view() {
		out = append(out, fmt.Sprintf("%s %s", v.Provider, v.State))
	}
	return strings.Join(out, ", ")
}

// scraped are the lines that the metrics have of circuits.
func scraped(m *observe.Metrics) (text string) {
	w := httptest.NewRecorder()
	promhttp.HandlerFor(m.Registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "llm_provider_circuit_state{") {
			text += line
		}
	}
	return text
}

// TestCircuitsKeptAlone: a call sees without waiting for anybody that the catalog is the one before.
func TestCircuitsKeptAlone(t *testing.T) {
	t.Parallel()
	c := newCircuits(Resilience{}, time.Now, observe.NewMetrics(), health.NewTraffic(nil), slog.New(slog.DiscardHandler))
	catalog := housesOf("a")
	c.keep(catalog)
	c.mu.Lock()
	defer c.mu.Unlock()
	done := make(chan error, 1)
	go func() {
		c.keep(catalog)
		done <- nil
	}()
	limit := time.AfterFunc(10*time.Second, func() { done <- errors.New("it waits for the lock") })
	defer limit.Stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
