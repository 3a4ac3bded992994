package observe_test

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"llm-gateway/gateway/observe"
)

// text is an exact decimal, as the ledger has it.
type text string

func (t text) String() string { return string(t) }

// lines are the samples that an operator sees, without the runtime's own and the histograms'.
func lines(t *testing.T, m *observe.Metrics) (out []string) {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(m.Registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, "go_") || strings.HasPrefix(line, "process_") || strings.Contains(line, "_seconds_") || strings.Contains(line, "ledger_batch_commands") {
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
	m.Settled(observe.Settlement{Model: "sim", Provider: "simulated", Input: 3, Output: 4, Charge: text("1.5"), Cost: text("0.25")})
	m.Overage("late", text("0.75"))
	m.Overage("late", text("0.5"))
	m.Reservations(7, 90*time.Second, text("12.5"))
	m.RateLimited("account", "refused")
	m.RateLimited("a whim", "refused")
	m.Attempt("simulated", "")
	m.Attempt("simulated", "timeout")
	m.Circuit("simulated", "a", observe.CircuitOpen)
	m.Circuit("simulated", "b", observe.CircuitHalfOpen)
	m.Circuit("openai", "", observe.CircuitOpen)
	m.Circuit("openai", "", observe.CircuitClosed)
	m.Answered("postgres", true)
	m.Answered("redis", false)
	m.Answered("kafka", false)
	m.Answered("kafka", true)
	m.Answered("journal", false)
	m.TailLost(4, true)
	m.TailLost(5, true)
	m.TailLost(4, false)
	m.LedgerRecoveredWithLoss()
	m.Request("sim", 200, "", time.Second)
	m.Request("sim", 502, "upstream_error", time.Second)
	m.Request("", 401, "invalid_api_key", time.Second)
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
		`dependency_up{dependency="kafka"} 1`,
		`dependency_up{dependency="postgres"} 1`,
		`dependency_up{dependency="redis"} 0`,
		`gate_verdicts_total{verdict="no"} 1`,
		`gate_verdicts_total{verdict="overruled"} 2`,
		`health_last_check_timestamp_seconds 0`,
		`journal_drained_total 3`,
		`journal_refused_total 1`,
		`journal_waiting_bytes 900`,
		`journal_waiting_commands 2`,
		`ledger_batch_retries_total 1`,
		`ledger_journaled_total{result="refused"} 2`,
		`ledger_journaled_total{result="written"} 1`,
		`ledger_open_reservation_oldest_seconds 90`,
		`ledger_open_reservations 7`,
		`ledger_overage_amount_total{reason="beyond_bound"} 0`,
		`ledger_overage_amount_total{reason="late"} 1.25`,
		`ledger_overage_amount_total{reason="spooled"} 0`,
		`ledger_overages_total{reason="beyond_bound"} 0`,
		`ledger_overages_total{reason="late"} 2`,
		`ledger_overages_total{reason="spooled"} 0`,
		`ledger_recovered_with_loss_total 1`,
		`ledger_refused_shards 2`,
		`ledger_relay_events_total 6`,
		`ledger_relay_lag_events{shard="3"} 5`,
		`ledger_relay_restarts_total 1`,
		`ledger_relay_transactions_total 2`,
		`ledger_reserved_amount 12.5`,
		`ledger_spooled_total{result="held"} 2`,
		`ledger_spooled_total{result="overage"} 1`,
		`ledger_spooled_total{result="rejected"} 0`,
		`ledger_spooled_total{result="withheld"} 0`,
		`ledger_tail_lost_shards 1`,
		`llm_charge_amount_total{model="sim",provider="simulated"} 1.5`,
		`llm_cost_amount_total{model="sim",provider="simulated"} 0.25`,
		`llm_provider_attempts_total{provider="simulated",result="ok"} 1`,
		`llm_provider_attempts_total{provider="simulated",result="timeout"} 1`,
		`llm_provider_circuit_state{model="",provider="openai"} 0`,
		`llm_provider_circuit_state{model="a",provider="simulated"} 2`,
		`llm_provider_circuit_state{model="b",provider="simulated"} 1`,
		`llm_requests_errors_total{code="invalid_api_key"} 1`,
		`llm_requests_errors_total{code="upstream_error"} 1`,
		`llm_requests_total{model="sim",status="200"} 1`,
		`llm_requests_total{model="sim",status="502"} 1`,
		`llm_tokens_total{direction="input",model="sim"} 3`,
		`llm_tokens_total{direction="output",model="sim"} 4`,
		`projection_events_total{projection="balances"} 8`,
		`projection_halted{projection="stats",shard="1"} 0`,
		`projection_halted{projection="stats",shard="2"} 1`,
		`projection_lag_events{projection="stats",shard="2"} 9`,
		`projection_restarts_total 1`,
		`rate_limit_requests_total{result="refused",scope="account"} 1`,
		`rate_limit_requests_total{result="refused",scope="other"} 1`,
		`sweeper_failures_total 1`,
		`sweeper_refunds_total 4`,
		`telemetry_dropped_total{exporter="otlp"} 2`,
		`telemetry_sent_total{exporter="otlp"} 0`,
	}
	if got := lines(t, m); !slices.Equal(got, want) {
		t.Errorf("%s\nwant %s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestLabelsAreBounded: ten thousand hostile names, of whatever kind, make few series; what is not known is other.
func TestLabelsAreBounded(t *testing.T) {
	t.Parallel()
	m := observe.NewMetrics()
	known := map[string]bool{"sim": true, "simulated": true}
	m.Only(func(name string) bool { return known[name] }, func(name string) bool { return known[name] })
	throw(m)
	for _, line := range lines(t, m) {
		if strings.Contains(line, "hostile") || strings.Contains(line, `model="sim"`) {
			t.Errorf("%s", line)
		}
	}
	if n := len(lines(t, m)); n > 600 { // an HTTP status can be one of 500
		t.Errorf("%d series", n)
	}
	throw(observe.NewMetrics()) // without a price book: nothing panics
	unbound := observe.NewMetrics()
	throw(unbound)
	if n := strings.Count(strings.Join(lines(t, unbound), "\n"), "llm_charge_amount_total"); n > 1002 {
		t.Errorf("%d series of models", n)
	}
	m.Request("sim", 200, "", time.Second)
	m.Settled(observe.Settlement{Model: "sim", Provider: "simulated", Charge: text("1"), Cost: text("nothing")})
	if got := strings.Join(lines(t, m), "\n"); !strings.Contains(got, `llm_charge_amount_total{model="sim",provider="simulated"} 1`) ||
		!strings.Contains(got, `llm_requests_total{model="sim",status="200"} 1`) {
		t.Error("what is known is not named")
	}
}

// throw counts what nobody would, by names that nobody knows.
func throw(m *observe.Metrics) {
	for i := range 10_000 {
		name := fmt.Sprint([]string{"hostile", "hostile\xff\xfe", "hostile\"}\n", strings.Repeat("hostile", 99), ""}[i%5], i)
		if i%5 == 4 {
			name = ""
		}
		m.Request(name, i, name, time.Second)
		m.Settled(observe.Settlement{Model: name, Provider: name, Input: 1, Output: 1, Charge: text("1"), Cost: text(name), FirstByte: time.Second})
		m.Overage(name, text(name))
		m.RateLimited(name, name)
		m.Attempt(name, name)
		m.Circuit(name, name, name)
		m.Circuit(name, name, observe.CircuitOpen)
		m.Answered(name, true)
		m.Balance(name, int64(i), text("1"))
	}
}

// TestBalancesAreOptIn: no account is named unless the operator asks for it; then those that were served last, as
// many as they say, as of their last event, and not for ever.
func TestBalancesAreOptIn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		balances := func(m *observe.Metrics) (out []string) {
			for _, line := range lines(t, m) {
				if strings.HasPrefix(line, "user_balance") {
					out = append(out, line)
				}
			}
			return out
		}
		m := observe.NewMetrics()
		m.Balance("anna", 1, text("5"))
		if got := balances(m); got != nil {
			t.Error(got)
		}
		m.ShowBalances(2)
		m.Balance("anna", 3, text("5.25"))
		m.Balance("anna", 2, text("7")) // it comes late
		m.Balance("bert", 1, text("-0.5"))
		if got, want := balances(m), []string{`user_balance{user_id="anna"} 5.25`, `user_balance{user_id="bert"} -0.5`}; !slices.Equal(got, want) {
			t.Error(got)
		}
		m.Balance("anna", 4, text("1"))
		m.Balance("carl\xff", 9, text("1")) // which is no text: it takes bert's place, and is not shown
		if got, want := balances(m), []string{`user_balance{user_id="anna"} 1`}; !slices.Equal(got, want) {
			t.Error(got)
		}
		<-time.After(14 * time.Minute)
		m.Balance("dora", 1, text("2"))
		m.Balance("anna", 5, text("0"))
		<-time.After(2 * time.Minute)
		m.Balance("dora", 2, text("3"))
		<-time.After(14 * time.Minute)
		if got, want := balances(m), []string{`user_balance{user_id="dora"} 3`}; !slices.Equal(got, want) {
			t.Error(got)
		}
		many := observe.NewMetrics()
		many.ShowBalances(1 << 30)
		for i := range observe.MaxBalances + 10 {
			many.Balance(fmt.Sprint(i), 1, text("1"))
		}
		if n := len(balances(many)); n != observe.MaxBalances {
			t.Errorf("%d accounts", n)
		}
	})
}
