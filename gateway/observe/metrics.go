// Package observe holds what an operator sees of the gateway: its metrics.
//
// Invariants: labels are bounded. Models come from the price book and providers from the catalog (Only), kinds
// from closed lists; whatever else there is, is "other" (names.go). No account is named unless the operator asks
// for that (ShowBalances). Money is a float here and nowhere else, and nothing is calculated from it. Nothing
// here waits for anything.
//
// Tests: what every method makes of the exposition; hostile names by the thousand and the number of series;
// cmd/llm-gateway holds the alerts and the dashboard against the names and labels that are exported.
package observe

import (
	"fmt"
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
	firstBytes *prometheus.HistogramVec
	journaled  *prometheus.CounterVec
	spooled    *prometheus.CounterVec
	batchSize  prometheus.Histogram
	batchTime  prometheus.Histogram
	batchRetry prometheus.Counter
	gate       *prometheus.CounterVec
	followers
	recovery
	operating
	telemetry
	money
	*parties

	models, codes *names
	balances      *balances
}

// NewMetrics makes and registers the metrics, with Go's own and the process's.
func NewMetrics() *Metrics {
	models := newNames(maxModels)
	m := &Metrics{
		Registry: prometheus.NewRegistry(), models: models, codes: newNames(maxCodes), balances: newBalances(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "llm_requests_total",
			Help: "Model calls that were answered, by model and HTTP status."}, []string{"model", "status"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "llm_requests_duration_seconds",
			Help:    "Time from a request's first byte to its answer's last, by model.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 14)}, []string{"model"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "llm_requests_errors_total",
			Help: "Requests that failed, by error code."}, []string{"code"}),
		tokens: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "llm_tokens_total",
			Help: "Billed tokens, by model and direction (input, output)."}, []string{"model", "direction"}),
		firstBytes: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "llm_time_to_first_byte_seconds",
			Help:    "Time from a request's first byte to its provider's, of billed requests, by model.",
			Buckets: prometheus.ExponentialBuckets(0.01, 2, 13)}, []string{"model"}),
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
		followers: newFollowers(), recovery: newRecovery(), money: newMoney(), parties: newParties(newNames(maxProviders), models),
		operating: newOperating(), telemetry: newTelemetry(),
	}
	m.begin()
	m.Registry.MustRegister(m.requests, m.durations, m.errors, m.tokens, m.firstBytes, m.journaled, m.spooled, m.batchSize, m.batchTime,
		m.batchRetry, m.gate, m.balances, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, part := range [][]prometheus.Collector{m.followers.all(), m.recovery.all(), m.money.all(), m.parties.all(), m.operating.all(), m.telemetry.all()} {
		m.Registry.MustRegister(part...)
	}
	m.codes.known.Store(new(isCode))
	return m
}

// Request counts one answered request. model is "" where none was found, code where it succeeded.
func (m *Metrics) Request(model string, status int, code string, took time.Duration) {
	if model != "" {
		model = m.models.of(model)
		m.requests.WithLabelValues(model, statusLabel(status)).Inc()
		m.durations.WithLabelValues(model).Observe(took.Seconds())
	}
	if code != "" {
		m.errors.WithLabelValues(m.codes.of(code)).Inc()
	}
}

// statusLabel is an HTTP status that there can be.
func statusLabel(status int) string {
	if status < 100 || status > 599 {
		return Other
	}
	return strconv.Itoa(status)
}

// Settlement is what a billed request came to.
type Settlement struct {
	Model, Provider string
	Input, Output   int64         // tokens
	Charge, Cost    fmt.Stringer  // exact decimals
	FirstByte       time.Duration // from the request's to the provider's; 0 = not known
}

// Settled counts a billed request: its tokens, what was charged for them and what they cost.
func (m *Metrics) Settled(s Settlement) {
	model, provider := m.models.of(s.Model), m.providers.of(s.Provider)
	m.tokens.WithLabelValues(model, "input").Add(float64(s.Input))
	m.tokens.WithLabelValues(model, "output").Add(float64(s.Output))
	m.charges.WithLabelValues(model, provider).Add(max(0, float(s.Charge)))
	m.costs.WithLabelValues(model, provider).Add(max(0, float(s.Cost)))
	if s.FirstByte > 0 {
		m.firstBytes.WithLabelValues(model).Observe(s.FirstByte.Seconds())
	}
}

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
	lost              prometheus.Gauge
	losses            prometheus.Counter

	mu       sync.Mutex
	refusing map[int32]struct{} // the shards that refuse appends now
	losing   map[int32]struct{} // those of them whose tail is lost
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
		lost: prometheus.NewGauge(prometheus.GaugeOpts{Name: "ledger_tail_lost_shards",
			Help: "Shards of which the topic has events that Postgres has lost. They refuse appends until an operator recovers them (ledger recover --from-topic)."}),
		losses: prometheus.NewCounter(prometheus.CounterOpts{Name: "ledger_recovered_with_loss_total",
			Help: "Times that this process found the ledger recovered without events that it had acknowledged: money that was moved is not."}),
		refusing: map[int32]struct{}{}, losing: map[int32]struct{}{},
	}
}

func (f *followers) all() []prometheus.Collector {
	return []prometheus.Collector{f.relayLag, f.relayTransactions, f.relayEvents, f.relayRestarts, f.applied, f.lag,
		f.halted, f.restarts, f.cacheErrors, f.refused, f.lost, f.losses}
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
	f.mark(f.refusing, f.refused, shard, err != nil)
}

// TailLost says whether a shard refuses appends because its tail is lost.
func (f *followers) TailLost(shard int32, lost bool) { f.mark(f.losing, f.lost, shard, lost) }

func (f *followers) mark(shards map[int32]struct{}, count prometheus.Gauge, shard int32, in bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if delete(shards, shard); in {
		shards[shard] = struct{}{}
	}
	count.Set(float64(len(shards)))
}

// LedgerRecoveredWithLoss counts a recovery without events that had been acknowledged.
func (f *followers) LedgerRecoveredWithLoss() { f.losses.Inc() }

// CacheError counts one failure of whoever fills the cache of balances.
func (f *followers) CacheError(error) { f.cacheErrors.Inc() }

// begin makes the series whose values are few and known: an increase is seen only from a series that is there.
func (m *Metrics) begin() {
	for _, result := range []string{"written", "refused"} {
		m.journaled.WithLabelValues(result)
	}
	for _, lost := range []SpoolResult{SpoolOverage, SpoolRejected, SpoolWithheld} {
		m.spooled.WithLabelValues(string(lost))
	}
}
