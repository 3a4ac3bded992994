package observe_test

import (
	"errors"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"llm-gateway/gateway/observe"
)

// lines are the samples that an operator sees, without the runtime's own and the histograms'.
func lines(t *testing.T, m *observe.Metrics) (out []string) {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(m.Registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, "go_") || strings.HasPrefix(line, "process_") || strings.Contains(line, "_seconds") || strings.Contains(line, "ledger_batch_commands") {
			continue
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return out
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	m, failed := observe.NewMetrics(), errors.New("away")
	m.RelayLag(3, 17)
	m.RelayLag(3, 5)
	m.RelayPublished(3, 4)
	m.RelayPublished(0, 2)
	m.RelayRestarted(3, failed)
	m.ProjectionApplied("balances", 7)
	m.ProjectionApplied("balances", 1)
	m.ProjectionLag("stats", 2, 9)
	m.ProjectionHalted("stats", 2, failed)
	m.ProjectionHalted("stats", 1, failed)
	m.ProjectionHalted("stats", 1, nil)
	m.ProjectionRestarted(failed)
	for _, shard := range []int32{1, 1, 4, 5} {
		m.ShardRefused(shard, failed)
	}
	m.ShardRefused(4, nil)
	m.ShardRefused(7, nil)
	m.CacheError(failed)
	m.Gate(observe.GateNo)
	m.Gate(observe.GateOverruled)
	m.Gate(observe.GateOverruled)
	m.Settled("sim", 3, 4, true)
	m.Overage()
	m.Spooled(observe.SpoolHeld)
	m.Spooled(observe.SpoolHeld)
	m.Spooled(observe.SpoolOverage)
	m.JournalWaiting(2, 900)
	m.JournalDrained(3)
	m.JournalRefused()
	m.Journaled(nil)
	m.Journaled(failed)
	m.Journaled(failed)
	m.Swept(4)
	m.SweepFailed(failed)
	m.BatchRetry(failed)
	m.Batch(3, time.Millisecond)
	m.TelemetrySent("otlp", 0)
	m.TelemetryDropped("otlp", 2)
	want := []string{
		`balance_cache_errors_total 1`,
		`gate_verdicts_total{verdict="no"} 1`,
		`gate_verdicts_total{verdict="overruled"} 2`,
		`journal_drained_total 3`,
		`journal_refused_total 1`,
		`journal_waiting_bytes 900`,
		`journal_waiting_commands 2`,
		`ledger_batch_retries_total 1`,
		`ledger_journaled_total{result="refused"} 2`,
		`ledger_journaled_total{result="written"} 1`,
		`ledger_overages_total 2`,
		`ledger_refused_shards 2`,
		`ledger_relay_events_total 6`,
		`ledger_relay_lag_events{shard="3"} 5`,
		`ledger_relay_restarts_total 1`,
		`ledger_relay_transactions_total 2`,
		`ledger_spooled_total{result="held"} 2`,
		`ledger_spooled_total{result="overage"} 1`,
		`llm_tokens_total{direction="input",model="sim"} 3`,
		`llm_tokens_total{direction="output",model="sim"} 4`,
		`projection_events_total{projection="balances"} 8`,
		`projection_halted{projection="stats",shard="1"} 0`,
		`projection_halted{projection="stats",shard="2"} 1`,
		`projection_lag_events{projection="stats",shard="2"} 9`,
		`projection_restarts_total 1`,
		`sweeper_failures_total 1`,
		`sweeper_refunds_total 4`,
		`telemetry_dropped_total{exporter="otlp"} 2`,
		`telemetry_sent_total{exporter="otlp"} 0`,
	}
	if got := lines(t, m); !slices.Equal(got, want) {
		t.Errorf("%s\nwant %s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
