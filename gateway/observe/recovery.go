package observe

import "github.com/prometheus/client_golang/prometheus"

// recovery are the metrics of what outlives deaths and outages: the journal and the sweeper.
type recovery struct {
	journalRecords prometheus.Gauge
	journalBytes   prometheus.Gauge
	journalDrained prometheus.Counter
	journalRefused prometheus.Counter
	swept          prometheus.Counter
	sweepFailures  prometheus.Counter
}

func newRecovery() recovery {
	return recovery{
		journalRecords: prometheus.NewGauge(prometheus.GaugeOpts{Name: "journal_waiting_commands",
			Help: "Commands in the journal that the ledger has not taken yet. Above 0, Postgres is or was away."}),
		journalBytes: prometheus.NewGauge(prometheus.GaugeOpts{Name: "journal_waiting_bytes",
			Help: "What they take of the journal's bound, in bytes."}),
		journalDrained: prometheus.NewCounter(prometheus.CounterOpts{Name: "journal_drained_total",
			Help: "Commands that the ledger took out of the journal."}),
		journalRefused: prometheus.NewCounter(prometheus.CounterOpts{Name: "journal_refused_total",
			Help: "Commands of the journal that the ledger refused for good: money that could not be booked. Each one needs an operator (ledger journal)."}),
		swept: prometheus.NewCounter(prometheus.CounterOpts{Name: "sweeper_refunds_total",
			Help: "Reservations that were given back because their gateway had died."}),
		sweepFailures: prometheus.NewCounter(prometheus.CounterOpts{Name: "sweeper_failures_total",
			Help: "Rounds of the sweeper that failed, or a part of them."}),
	}
}

func (r *recovery) all() []prometheus.Collector {
	return []prometheus.Collector{r.journalRecords, r.journalBytes, r.journalDrained, r.journalRefused, r.swept, r.sweepFailures}
}

// JournalWaiting says what waits in the journal.
func (r *recovery) JournalWaiting(records int, bytes int64) {
	r.journalRecords.Set(float64(records))
	r.journalBytes.Set(float64(bytes))
}

// JournalDrained counts commands that left the journal for the ledger.
func (r *recovery) JournalDrained(n int) { r.journalDrained.Add(float64(n)) }

// JournalRefused counts a command of the journal that the ledger refused.
func (r *recovery) JournalRefused() { r.journalRefused.Inc() }

// Swept counts orphans that were refunded.
func (r *recovery) Swept(n int) { r.swept.Add(float64(n)) }

// SweepFailed counts a round of the sweeper that failed.
func (r *recovery) SweepFailed(error) { r.sweepFailures.Inc() }
