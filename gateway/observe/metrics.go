// Package observe holds what an operator sees of the gateway: its metrics. Labels are bounded:
// models come from the price book, codes and kinds from closed lists.
package observe

import (
	"strconv"
	"sync"
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
	journaled  *prometheus.CounterVec
	spooled    *prometheus.CounterVec
	batchSize  prometheus.Histogram
	batchTime  prometheus.Histogram
	batchRetry prometheus.Counter
	gate       *prometheus.CounterVec
	rateLimits *prometheus.CounterVec
	followers
	recovery
	resilience
	operating
	telemetry
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
			Help: "Charges that exceeded what was reserved for them. Each one is a bug, a wrong price book, a process that was taken for dead, or was spooled and not covered any more."}),
		journaled: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ledger_journaled_total",
			Help: "Settlements that the ledger did not take in time: written to the journal, or refused by it (full, broken)."}, []string{"result"}),
		spooled: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ledger_spooled_total",
			Help: "Model calls while the ledger was away (BILLING_DEGRADED=spool), at each step: held, refused, unknown or failed; then charged, dropped or withheld; then booked, overage or rejected."},
			[]string{"result"}),
		batchSize: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "ledger_batch_commands",
			Help: "Commands in one append batch.", Buckets: prometheus.ExponentialBuckets(1, 2, 9)}),
		batchTime: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "ledger_batch_seconds",
			Help: "Time of one append batch, COMMIT included.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}),
		batchRetry: prometheus.NewCounter(prometheus.CounterOpts{Name: "ledger_batch_retries_total",
			Help: "Append batches that were tried again, because Postgres failed or was away."}),
		gate: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "gate_verdicts_total",
			Help: "Model calls at the gate: yes, no (refused), overruled (the cache's no was not the ledger's), unknown, error. All but no went on to the ledger."},
			[]string{"verdict"}),
		rateLimits: newRateLimits(),
		followers:  newFollowers(), recovery: newRecovery(), resilience: newResilience(), operating: newOperating(), telemetry: newTelemetry(),
	}
	m.Registry.MustRegister(m.requests, m.durations, m.errors, m.tokens, m.overages, m.journaled, m.spooled, m.batchSize, m.batchTime,
		m.batchRetry, m.gate, m.rateLimits, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.Registry.MustRegister(m.followers.all()...)
	m.Registry.MustRegister(m.recovery.all()...)
	m.Registry.MustRegister(m.resilience.all()...)
	m.Registry.MustRegister(m.operating.all()...)
	m.Registry.MustRegister(m.telemetry.all()...)
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
		m.Overage()
	}
}

// Overage counts a charge that exceeded what was reserved for it.
func (m *Metrics) Overage() { m.overages.Inc() }

// Journaled counts a settlement that the journal was asked to keep, and whether it did.
func (m *Metrics) Journaled(err error) {
	result := "written"
	if err != nil {
		result = "refused"
	}
	m.journaled.WithLabelValues(result).Inc()
}

// SpoolResult is what came of a model call without the ledger.
type SpoolResult string

// The results: of the hold, of the call, and of its booking when the ledger is back.
const (
	SpoolHeld     SpoolResult = "held"
	SpoolRefused  SpoolResult = "refused" // by the balance, or the account is frozen
	SpoolUnknown  SpoolResult = "unknown" // Redis does not know the balance
	SpoolFailed   SpoolResult = "failed"  // Redis did not answer, or the account has too many holds
	SpoolCharged  SpoolResult = "charged"
	SpoolDropped  SpoolResult = "dropped"  // it delivered and reported nothing
	SpoolWithheld SpoolResult = "withheld" // nothing could make the charge durable
	SpoolBooked   SpoolResult = "booked"
	SpoolOverage  SpoolResult = "overage"  // booked, and not covered any more
	SpoolRejected SpoolResult = "rejected" // the ledger could not book it
)

// Spooled counts one step of a call without the ledger.
func (m *Metrics) Spooled(r SpoolResult) { m.spooled.WithLabelValues(string(r)).Inc() }

// Verdict is what the gate made of a call.
type Verdict string

// The verdicts. GateError is a cache that did not answer, or a no that could not be confirmed.
const (
	GateYes       Verdict = "yes"
	GateNo        Verdict = "no"
	GateUnknown   Verdict = "unknown"
	GateOverruled Verdict = "overruled"
	GateError     Verdict = "error"
)

// Gate counts one verdict of the gate.
func (m *Metrics) Gate(v Verdict) { m.gate.WithLabelValues(string(v)).Inc() }

// Batch counts one durable append batch.
func (m *Metrics) Batch(size int, took time.Duration) {
	m.batchSize.Observe(float64(size))
	m.batchTime.Observe(took.Seconds())
}

// BatchRetry counts one failed try of a batch.
func (m *Metrics) BatchRetry(error) { m.batchRetry.Inc() }

// followers are the metrics of what follows the ledger: the relays, the projections and the cache of
// balances. Projections are few and named in code; shards are at most domain.MaxShards.
type followers struct {
	relayLag          *prometheus.GaugeVec
	relayTransactions prometheus.Counter
	relayEvents       prometheus.Counter
	relayRestarts     prometheus.Counter
	applied           *prometheus.CounterVec
	lag               *prometheus.GaugeVec
	halted            *prometheus.GaugeVec
	restarts          prometheus.Counter
	cacheErrors       prometheus.Counter
	refused           prometheus.Gauge

	mu       sync.Mutex
	refusing map[int32]struct{} // the shards that refuse appends now
}

func newFollowers() followers {
	return followers{
		relayLag: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "ledger_relay_lag_events",
			Help: "Events of a shard that are in the ledger and not in the topic."}, []string{"shard"}),
		relayTransactions: prometheus.NewCounter(prometheus.CounterOpts{Name: "ledger_relay_transactions_total",
			Help: "Kafka transactions that the relays committed."}),
		relayEvents: prometheus.NewCounter(prometheus.CounterOpts{Name: "ledger_relay_events_total",
			Help: "Events that the relays published."}),
		relayRestarts: prometheus.NewCounter(prometheus.CounterOpts{Name: "ledger_relay_restarts_total",
			Help: "Relays that began again from the topic's tail, because Kafka failed or another relay took over."}),
		applied: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "projection_events_total",
			Help: "Events that a projection applied."}, []string{"projection"}),
		lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "projection_lag_events",
			Help: "Events of a shard that are in the ledger and not in a projection."}, []string{"projection", "shard"}),
		halted: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "projection_halted",
			Help: "1 where a projection stands still in a shard, because the events do not follow. It needs an operator."},
			[]string{"projection", "shard"}),
		restarts: prometheus.NewCounter(prometheus.CounterOpts{Name: "projection_restarts_total",
			Help: "Times that the projector began again, because Postgres or Kafka failed."}),
		cacheErrors: prometheus.NewCounter(prometheus.CounterOpts{Name: "balance_cache_errors_total",
			Help: "Failures of those who fill the cache of balances. The gate's are gate_verdicts_total."}),
		refused: prometheus.NewGauge(prometheus.GaugeOpts{Name: "ledger_refused_shards",
			Help: "Shards that refuse appends, because the ledger and the topic do not agree. They need an operator."}),
		refusing: map[int32]struct{}{},
	}
}

func (f *followers) all() []prometheus.Collector {
	return []prometheus.Collector{f.relayLag, f.relayTransactions, f.relayEvents, f.relayRestarts, f.applied, f.lag,
		f.halted, f.restarts, f.cacheErrors, f.refused}
}

func label(shard int32) string { return strconv.Itoa(int(shard)) }

// RelayLag says how many events of a shard wait to be published.
func (f *followers) RelayLag(shard int32, events int64) {
	f.relayLag.WithLabelValues(label(shard)).Set(float64(events))
}

// RelayPublished counts one committed Kafka transaction of so many events.
func (f *followers) RelayPublished(_ int32, events int) {
	f.relayTransactions.Inc()
	f.relayEvents.Add(float64(events))
}

// RelayRestarted counts a relay that begins again.
func (f *followers) RelayRestarted(int32, error) { f.relayRestarts.Inc() }

// ProjectionApplied counts events that a projection applied.
func (f *followers) ProjectionApplied(projection string, events int) {
	f.applied.WithLabelValues(projection).Add(float64(events))
}

// ProjectionLag says how many events of a shard a projection has still to apply.
func (f *followers) ProjectionLag(projection string, shard int32, events int64) {
	f.lag.WithLabelValues(projection, label(shard)).Set(float64(events))
}

// ProjectionHalted says that a projection stands still in a shard; with a nil error, that it goes on.
func (f *followers) ProjectionHalted(projection string, shard int32, err error) {
	halted := 0.0
	if err != nil {
		halted = 1
	}
	f.halted.WithLabelValues(projection, label(shard)).Set(halted)
}

// ProjectionRestarted counts a projector that begins again.
func (f *followers) ProjectionRestarted(error) { f.restarts.Inc() }

// ShardRefused says that a shard refuses appends; with a nil error, that it no longer does.
func (f *followers) ShardRefused(shard int32, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		delete(f.refusing, shard)
	} else {
		f.refusing[shard] = struct{}{}
	}
	f.refused.Set(float64(len(f.refusing)))
}

// CacheError counts one failure of whoever fills the cache of balances.
func (f *followers) CacheError(error) { f.cacheErrors.Inc() }
