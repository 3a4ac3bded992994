package observe

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// inDashboards ends the help of what counts money: Prometheus has nothing but floats.
const inDashboards = " In the ledger's currency, as a float: for dashboards; the ledger has the digits."

// overageReasons are those of the events.
var overageReasons = []string{"beyond_bound", "late", "spooled"}

// money are the metrics of what is charged, and of what is reserved.
type money struct {
	charges   *prometheus.CounterVec
	costs     *prometheus.CounterVec
	overages  *prometheus.CounterVec
	overTaken *prometheus.CounterVec
	open      prometheus.Gauge
	oldest    prometheus.Gauge
	reserved  prometheus.Gauge
}

func newMoney() money {
	m := money{
		charges: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "llm_charge_amount_total",
			Help: "What customers were charged, by model and provider." + inDashboards}, []string{"model", "provider"}),
		costs: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "llm_cost_amount_total",
			Help: "What that cost by the price book, by model and provider." + inDashboards}, []string{"model", "provider"}),
		overages: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ledger_overages_total",
			Help: "Charges that exceeded what was reserved for them, by reason. Each one is a bug or a wrong price book (beyond_bound), a process that was taken for dead (late), or was spooled and not covered any more (spooled)."},
			[]string{"reason"}),
		overTaken: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ledger_overage_amount_total",
			Help: "What they took beyond the reserves, by reason." + inDashboards}, []string{"reason"}),
		open: prometheus.NewGauge(prometheus.GaugeOpts{Name: "ledger_open_reservations",
			Help: "Reservations of the whole ledger that are neither settled nor released. NaN: Postgres did not say."}),
		oldest: prometheus.NewGauge(prometheus.GaugeOpts{Name: "ledger_open_reservation_oldest_seconds",
			Help: "The age of the oldest of them; 0 where there are none. NaN: Postgres did not say."}),
		reserved: prometheus.NewGauge(prometheus.GaugeOpts{Name: "ledger_reserved_amount",
			Help: "What they hold. NaN: Postgres did not say." + inDashboards}),
	}
	for _, reason := range overageReasons { // an increase is only seen from a series that is there
		m.overages.WithLabelValues(reason)
		m.overTaken.WithLabelValues(reason)
	}
	m.ReservationsUnknown()
	return m
}

func (m *money) all() []prometheus.Collector {
	return []prometheus.Collector{m.charges, m.costs, m.overages, m.overTaken, m.open, m.oldest, m.reserved}
}

// float is an amount as Prometheus has it.
func float(amount fmt.Stringer) float64 {
	f, err := strconv.ParseFloat(amount.String(), 64)
	if err != nil {
		return math.NaN()
	}
	return f
}

// Overage counts a charge that exceeded what was reserved for it, and by how much.
func (m *money) Overage(reason string, amount fmt.Stringer) {
	reason = oneOf(reason, overageReasons...)
	m.overages.WithLabelValues(reason).Inc()
	m.overTaken.WithLabelValues(reason).Add(max(0, float(amount)))
}

// Reservations says what is open in the ledger.
func (m *money) Reservations(open int64, oldest time.Duration, reserved fmt.Stringer) {
	m.open.Set(float64(open))
	m.oldest.Set(oldest.Seconds())
	m.reserved.Set(float(reserved))
}

// ReservationsUnknown says that nobody knows what is open.
func (m *money) ReservationsUnknown() {
	for _, g := range []prometheus.Gauge{m.open, m.oldest, m.reserved} {
		g.Set(math.NaN())
	}
}
