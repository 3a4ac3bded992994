package observe

import "github.com/prometheus/client_golang/prometheus"

// telemetry are the metrics of what is told to other systems: otlp, langfuse, sentry.
type telemetry struct {
	sent    *prometheus.CounterVec
	dropped *prometheus.CounterVec
}

func newTelemetry() telemetry {
	return telemetry{
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "telemetry_sent_total",
			Help: "Traces and events that a receiver took, by exporter (otlp, langfuse, sentry)."}, []string{"exporter"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "telemetry_dropped_total",
			Help: "Traces and events that were given up, because the receiver did not take them, or too slowly, by exporter. No request waited for them."},
			[]string{"exporter"}),
	}
}

func (t *telemetry) all() []prometheus.Collector { return []prometheus.Collector{t.sent, t.dropped} }

// TelemetrySent counts what a receiver took. Zero shows the exporter's metric before there is any.
func (t *telemetry) TelemetrySent(exporter string, n int) {
	t.sent.WithLabelValues(exporter).Add(float64(n))
}

// TelemetryDropped counts what was given up.
func (t *telemetry) TelemetryDropped(exporter string, n int) {
	t.dropped.WithLabelValues(exporter).Add(float64(n))
}
