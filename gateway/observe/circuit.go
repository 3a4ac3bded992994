package observe

import "github.com/prometheus/client_golang/prometheus"

// resilience are the metrics of providers that fail. Providers and models are those of the catalog.
type resilience struct {
	circuits *prometheus.GaugeVec
	retries  *prometheus.CounterVec
}

func newResilience() resilience {
	return resilience{
		circuits: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "llm_provider_circuit_state",
			Help: "The circuit of a provider (model empty) or of one of its models that has failed: 0 closed, 1 half open, 2 open. In this process."},
			[]string{"provider", "model"}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "llm_provider_retries_total",
			Help: "Calls of a provider that failed and could be made again: made, or spared by the budget of retries."},
			[]string{"provider", "result"}),
	}
}

func (r *resilience) all() []prometheus.Collector {
	return []prometheus.Collector{r.circuits, r.retries}
}

// Circuit says what state a circuit is in: closed, half_open or open. model is "" for the provider's own.
func (r *resilience) Circuit(provider, model, state string) {
	r.circuits.WithLabelValues(provider, model).Set(map[string]float64{"half_open": 1, "open": 2}[state])
}

// CircuitGone says that there is no such provider or model any more.
func (r *resilience) CircuitGone(provider, model string) {
	r.circuits.DeleteLabelValues(provider, model)
}

// Retried counts a call that could be made again, and whether it was.
func (r *resilience) Retried(provider string, made bool) {
	result := "spared"
	if made {
		result = "made"
	}
	r.retries.WithLabelValues(provider, result).Inc()
}
