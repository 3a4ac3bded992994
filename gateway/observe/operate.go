package observe

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// operating are the metrics of the process itself: which build it is, how its components are, its log.
type operating struct {
	build      *prometheus.GaugeVec
	components *prometheus.GaugeVec
	lastCheck  prometheus.Gauge
}

func newOperating() operating {
	return operating{
		build: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "llm_gateway_build_info",
			Help: "1, with the version that runs as a label."}, []string{"version"}),
		components: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "health_component_up",
			Help: "1 where a component, or a provider (`provider NAME`), was up at the last check, 0 where it was degraded or down. Missing where nobody can tell."},
			[]string{"component"}),
		lastCheck: prometheus.NewGauge(prometheus.GaugeOpts{Name: "health_last_check_timestamp_seconds",
			Help: "When the health was last checked, in Unix seconds."}),
	}
}

func (o *operating) all() []prometheus.Collector {
	return []prometheus.Collector{o.build, o.components, o.lastCheck}
}

// Build says which version runs.
func (o *operating) Build(version string) { o.build.WithLabelValues(version).Set(1) }

// Component says how a component was at the last check.
func (o *operating) Component(name string, up, known bool) {
	switch {
	case !known:
		o.components.DeleteLabelValues(name)
	case up:
		o.components.WithLabelValues(name).Set(1)
	default:
		o.components.WithLabelValues(name).Set(0)
	}
}

// Checked notes when the health was checked.
func (o *operating) Checked() { o.lastCheck.SetToCurrentTime() }

// LogFailures counts lines that LOG_FILE did not take, by a function.
func (m *Metrics) LogFailures(count func() int64) {
	m.Registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "log_write_failures_total",
		Help: "Log lines that LOG_FILE did not take. They went to stderr."}, func() float64 { return float64(count()) }))
}

// Described lists what is exported, also what has no sample yet, a description to a line.
func (m *Metrics) Described() string {
	descriptions := make(chan *prometheus.Desc)
	go func() { // ends when all is described
		m.Registry.Describe(descriptions)
		close(descriptions)
	}()
	var all strings.Builder
	for d := range descriptions {
		all.WriteString(d.String() + "\n")
	}
	return all.String()
}
