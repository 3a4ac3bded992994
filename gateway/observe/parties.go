package observe

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// The states of a circuit, as Circuit takes them.
const (
	CircuitClosed   = "closed"
	CircuitHalfOpen = "half_open"
	CircuitOpen     = "open"
)

// circuitStates are what the gauge says of them: the worse the more.
var circuitStates = map[string]float64{CircuitClosed: 0, CircuitHalfOpen: 1, CircuitOpen: 2}

// What limits there are, and what became of requests at them.
var (
	limitScopes  = []string{"account", "key", "all", "in_flight", "bodies", "store", "return"}
	limitResults = []string{"admitted", "refused", "shared", "memory", "dropped", "lost"}
)

// Dependencies are what a gateway works with.
var dependencies = []string{"postgres", "redis", "kafka"}

// parties are the metrics of whom a gateway deals with: clients at their limits, providers, and what it stands on.
type parties struct {
	limited  *prometheus.CounterVec
	attempts *prometheus.CounterVec
	circuits *prometheus.GaugeVec
	retries  *prometheus.CounterVec
	cached   *prometheus.CounterVec
	up       *prometheus.GaugeVec

	providers, models *names
}

func newParties(providers, models *names) *parties {
	p := &parties{providers: providers, models: models,
		limited: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rate_limit_requests_total",
			Help: "Model calls at their limits, by scope and result. account, key, all: admitted or refused. in_flight, bodies: refused. " +
				"store: where they were kept, shared or memory (Redis did not answer). return: what was to be given back, dropped (too much at once) or lost."},
			[]string{"scope", "result"}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "llm_provider_attempts_total",
			Help: "Calls of providers, by what they came to: ok, or the kind of failure."}, []string{"provider", "result"}),
		circuits: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "llm_provider_circuit_state",
			Help: "The circuit of a provider (model empty) or of one of its models that has failed: 0 closed, 1 half open, 2 open. In this process."},
			[]string{"provider", "model"}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "llm_provider_retries_total",
			Help: "Calls of a provider that failed and could be made again: made, or spared by the budget of retries."},
			[]string{"provider", "result"}),
		cached: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "llm_response_cache_total",
			Help: "Model calls at the response cache: hit, miss or bypass; and what was wrong with it: error (left alone for a second), broken (an entry that is none)."},
			[]string{"result"}),
		up: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "dependency_up",
			Help: "1 where Postgres, Redis or Kafka answered this process at the last look, 0 where not."}, []string{"dependency"}),
	}
	return p
}

func (p *parties) all() []prometheus.Collector {
	return []prometheus.Collector{p.limited, p.attempts, p.circuits, p.retries, p.cached, p.up}
}

// RateLimited counts a request at a limit: scope says which limit, result what became of it.
func (p *parties) RateLimited(scope, result string) {
	p.limited.WithLabelValues(oneOf(scope, limitScopes...), oneOf(result, limitResults...)).Inc()
}

// attemptResults are the kinds of failures of providers.
var attemptResults = []string{"ok", "rejected", "auth", "upstream", "timeout", "cut", "canceled"}

// Attempt counts one call of a provider; kind is that of its failure, or "".
func (p *parties) Attempt(provider, kind string) {
	if kind == "" {
		kind = "ok"
	}
	p.attempts.WithLabelValues(p.providers.of(provider), oneOf(kind, attemptResults...)).Inc()
}

// Circuit says what state a circuit is in: closed, half_open or open; a state that is none counts as closed.
// model is "" for the provider's own.
func (p *parties) Circuit(provider, model, state string) {
	p.circuits.WithLabelValues(p.circuit(provider, model)...).Set(circuitStates[state])
}

// CircuitGone says that there is no such provider or model any more.
func (p *parties) CircuitGone(provider, model string) {
	p.circuits.DeleteLabelValues(provider, model)
}

// circuit are the labels of one.
func (p *parties) circuit(provider, model string) []string {
	if model != "" {
		model = p.models.of(model)
	}
	return []string{p.providers.of(provider), model}
}

// Retried counts a call that could be made again, and whether it was.
func (p *parties) Retried(provider string, made bool) {
	result := "spared"
	if made {
		result = "made"
	}
	p.retries.WithLabelValues(p.providers.of(provider), result).Inc()
}

// Cached counts what the response cache had for a call.
func (p *parties) Cached(result string) { p.cached.WithLabelValues(result).Inc() }

// Answered says whether one of postgres, redis and kafka answered just now; of others nothing is shown.
func (p *parties) Answered(name string, yes bool) {
	if !slices.Contains(dependencies, name) {
		return
	}
	up := 0.0
	if yes {
		up = 1
	}
	p.up.WithLabelValues(name).Set(up)
}
