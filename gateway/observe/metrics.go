// Package observe holds what an operator sees of the gateway: its metrics. Labels are bounded:
// models come from the price book, codes and kinds from closed lists.
package observe

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Metrics are the gateway's. Make them with NewMetrics; they are safe for concurrent use.
type Metrics struct {
	Registry *prometheus.Registry

	requests   *prometheus.CounterVec
	durations  *prometheus.HistogramVec
	errors     *prometheus.CounterVec
	tokens     *prometheus.CounterVec
	overages   prometheus.Counter
	batchSize  prometheus.Histogram
	batchTime  prometheus.Histogram
	batchRetry prometheus.Counter
}

// NewMetrics makes and registers the metrics, with Go's own and the process's.
func NewMetrics() *Metrics {
	m := &Metrics{
		Registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "llm_requests_total",
			Help: "Model calls that were answered, by model and HTTP status."}, []string{"model", "status"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "llm_requests_duration_seconds",
			Help:    "Time from a request's first byte to its answer's last, by model.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 14)}, []string{"model"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "llm_requests_errors_total",
			Help: "Requests that failed, by error code."}, []string{"code"}),
		tokens: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "llm_tokens_total",
			Help: "Billed tokens, by model and direction (input, output)."}, []string{"model", "direction"}),
		overages: prometheus.NewCounter(prometheus.CounterOpts{Name: "ledger_overages_total",
			Help: "Charges that exceeded what was reserved for them. Each one is a bug or a wrong price book."}),
		batchSize: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "ledger_batch_commands",
			Help: "Commands in one append batch.", Buckets: prometheus.ExponentialBuckets(1, 2, 9)}),
		batchTime: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "ledger_batch_seconds",
			Help: "Time of one append batch, COMMIT included.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}),
		batchRetry: prometheus.NewCounter(prometheus.CounterOpts{Name: "ledger_batch_retries_total",
			Help: "Append batches that were tried again, because Postgres failed or was away."}),
	}
	m.Registry.MustRegister(m.requests, m.durations, m.errors, m.tokens, m.overages, m.batchSize, m.batchTime,
		m.batchRetry, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Request counts one answered request. model is "" where none was found, code where it succeeded.
func (m *Metrics) Request(model string, status int, code string, took time.Duration) {
	if model != "" {
		m.requests.WithLabelValues(model, strconv.Itoa(status)).Inc()
		m.durations.WithLabelValues(model).Observe(took.Seconds())
	}
	if code != "" {
		m.errors.WithLabelValues(code).Inc()
	}
}

// Settled counts a billed request's tokens, and whether its charge exceeded its reserve.
func (m *Metrics) Settled(model string, input, output int64, overage bool) {
	m.tokens.WithLabelValues(model, "input").Add(float64(input))
	m.tokens.WithLabelValues(model, "output").Add(float64(output))
	if overage {
		m.overages.Inc()
	}
}

// Batch counts one durable append batch.
func (m *Metrics) Batch(size int, took time.Duration) {
	m.batchSize.Observe(float64(size))
	m.batchTime.Observe(took.Seconds())
}

// BatchRetry counts one failed try of a batch.
func (m *Metrics) BatchRetry(error) { m.batchRetry.Inc() }
