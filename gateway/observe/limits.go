package observe

import "github.com/prometheus/client_golang/prometheus"

func newRateLimits() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rate_limit_requests_total",
		Help: "Model calls at their limits, by scope and result. account, key, all: admitted or refused. in_flight: refused. " +
			"store: where they were kept, shared or memory (Redis did not answer). return: what was to be given back, dropped (too much at once) or lost."},
		[]string{"scope", "result"})
}

// RateLimited counts what came of a limit. Both are words of a closed list.
func (m *Metrics) RateLimited(scope, result string) {
	m.rateLimits.WithLabelValues(scope, result).Inc()
}
