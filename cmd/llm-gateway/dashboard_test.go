package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// The dashboard is made from this table: `go test ./cmd/llm-gateway -run TestDashboard -update` writes it.
// Grafana's own linter cannot be had here, so TestDashboard checks what Grafana needs by itself.

var dashboardFile = filepath.Join(root, "deployments", "grafana", "dashboard.json")

// panel is one of the table: what it shows, in which of Grafana's units, by which expressions and legends.
type panel struct {
	title, unit string
	exprs       [][2]string
}

var dashboardRows = []struct {
	title  string
	panels []panel
}{
	{"Requests", []panel{
		{"Model calls by status", "reqps", [][2]string{{`sum by (status) (rate(llm_requests_total[$__rate_interval]))`, "{{status}}"}}},
		{"Failures by code", "reqps", [][2]string{{`sum by (code) (rate(llm_requests_errors_total[$__rate_interval]))`, "{{code}}"}}},
		{"Share of calls that failed", "percentunit", [][2]string{{`sum(rate(llm_requests_total{status=~"5.."}[$__rate_interval])) / sum(rate(llm_requests_total[$__rate_interval]))`, "5xx"}}},
		{"Time of a call", "s", [][2]string{
			{`histogram_quantile(0.5, sum by (le) (rate(llm_requests_duration_seconds_bucket[$__rate_interval])))`, "p50"},
			{`histogram_quantile(0.95, sum by (le) (rate(llm_requests_duration_seconds_bucket[$__rate_interval])))`, "p95"}}},
		{"Time to the first byte, p95", "s", [][2]string{{`histogram_quantile(0.95, sum by (le, model) (rate(llm_time_to_first_byte_seconds_bucket[$__rate_interval])))`, "{{model}}"}}},
		{"At the rate limits", "reqps", [][2]string{{`sum by (scope, result) (rate(rate_limit_requests_total[$__rate_interval]))`, "{{scope}} {{result}}"}}},
	}},
	{"Money", []panel{
		{"Charged per hour", "short", [][2]string{{`sum by (model) (rate(llm_charge_amount_total[$__rate_interval])) * 3600`, "{{model}}"}}},
		{"Margin per hour", "short", [][2]string{{`(sum by (model) (rate(llm_charge_amount_total[$__rate_interval])) - sum by (model) (rate(llm_cost_amount_total[$__rate_interval]))) * 3600`, "{{model}}"}}},
		{"Tokens", "short", [][2]string{{`sum by (direction) (rate(llm_tokens_total[$__rate_interval]))`, "{{direction}}"}}},
		{"Reserved now", "short", [][2]string{{`max(ledger_reserved_amount)`, "amount"}, {`max(ledger_open_reservations)`, "reservations"}}},
		{"Age of the oldest reservation", "s", [][2]string{{`max(ledger_open_reservation_oldest_seconds)`, "oldest"}}},
		{"Overages", "short", [][2]string{{`sum by (reason) (increase(ledger_overages_total[$__rate_interval]))`, "{{reason}}"},
			{`sum by (reason) (increase(ledger_overage_amount_total[$__rate_interval]))`, "{{reason}}, amount"}}},
	}},
	{"Ledger", []panel{
		{"Append batches, time", "s", [][2]string{
			{`histogram_quantile(0.5, sum by (le) (rate(ledger_batch_seconds_bucket[$__rate_interval])))`, "p50"},
			{`histogram_quantile(0.99, sum by (le) (rate(ledger_batch_seconds_bucket[$__rate_interval])))`, "p99"}}},
		{"Append batches, commands", "short", [][2]string{{`sum(rate(ledger_batch_commands_sum[$__rate_interval])) / sum(rate(ledger_batch_commands_count[$__rate_interval]))`, "mean"}}},
		{"Retries and refusals", "short", [][2]string{{`sum(rate(ledger_batch_retries_total[$__rate_interval]))`, "retries"}, {`max(ledger_refused_shards)`, "shards that refuse"}, {`max(ledger_tail_lost_shards)`, "of them, tail lost"}}},
		{"Relay, events behind", "short", [][2]string{{`max by (shard) (ledger_relay_lag_events)`, "shard {{shard}}"}}},
		{"Projections, events behind", "short", [][2]string{{`sum by (projection) (max by (projection, shard) (projection_lag_events))`, "{{projection}}"}}},
		{"Projections that stand still", "short", [][2]string{{`sum by (projection) (max by (projection, shard) (projection_halted))`, "{{projection}}"}}},
	}},
	{"What is away", []panel{
		{"Answers", "short", [][2]string{{`min by (dependency) (dependency_up)`, "{{dependency}}"}}},
		{"Waits in the journal", "short", [][2]string{{`sum by (instance) (journal_waiting_commands)`, "{{instance}}"}}},
		{"Journal, size", "bytes", [][2]string{{`sum by (instance) (journal_waiting_bytes)`, "{{instance}}"}}},
		{"Without the ledger", "short", [][2]string{{`sum by (result) (increase(ledger_spooled_total[$__rate_interval]))`, "{{result}}"}}},
		{"Refunds for dead gateways", "short", [][2]string{{`sum(increase(sweeper_refunds_total[$__rate_interval]))`, "refunds"}, {`sum(increase(sweeper_failures_total[$__rate_interval]))`, "failed rounds"}}},
		{"The gate", "reqps", [][2]string{{`sum by (verdict) (rate(gate_verdicts_total[$__rate_interval]))`, "{{verdict}}"}, {`sum(rate(balance_cache_errors_total[$__rate_interval]))`, "cache errors"}}},
	}},
	{"Providers", []panel{
		{"Calls by outcome", "reqps", [][2]string{{`sum by (provider, result) (rate(llm_provider_attempts_total[$__rate_interval]))`, "{{provider}} {{result}}"}}},
		{"Circuits (2 = open)", "short", [][2]string{{`max by (provider, model) (llm_provider_circuit_state)`, "{{provider}} {{model}}"}}},
		{"Retries, made and spared", "reqps", [][2]string{{`sum by (provider, result) (rate(llm_provider_retries_total[$__rate_interval]))`, "{{provider}} {{result}}"}}},
		{"The response cache", "reqps", [][2]string{{`sum by (result) (rate(llm_response_cache_total[$__rate_interval]))`, "{{result}}"}}},
		{"Balances, where they are shown", "short", [][2]string{{`bottomk(20, min by (user_id) (user_balance))`, "{{user_id}}"}}},
	}},
	{"Watching", []panel{
		{"Components that are not up", "short", [][2]string{{`sum by (component) (health_component_up == bool 0)`, "{{component}}"}}},
		{"Told to receivers, and dropped", "short", [][2]string{{`sum by (exporter) (rate(telemetry_sent_total[$__rate_interval]))`, "{{exporter}}"},
			{`sum by (exporter) (rate(telemetry_dropped_total[$__rate_interval]))`, "{{exporter}} dropped"}}},
		{"Log lines that LOG_FILE did not take", "short", [][2]string{{`sum by (instance) (increase(log_write_failures_total[$__rate_interval]))`, "{{instance}}"}}},
	}},
	{"Process", []panel{
		{"CPU", "percentunit", [][2]string{{`sum by (instance) (rate(process_cpu_seconds_total[$__rate_interval]))`, "{{instance}}"}}},
		{"Memory", "bytes", [][2]string{{`sum by (instance) (process_resident_memory_bytes)`, "{{instance}}"}}},
		{"Goroutines and descriptors", "short", [][2]string{{`sum by (instance) (go_goroutines)`, "{{instance}} goroutines"}, {`sum by (instance) (process_open_fds)`, "{{instance}} descriptors"}}},
	}},
}

// The grid: Grafana's is 24 wide; three panels stand beside each other.
const (
	gridWide   = 24
	panelWide  = 8
	panelHigh  = 8
	titleHigh  = 1
	dataSource = "${datasource}"
)

type object = map[string]any

// renderDashboard makes the dashboard of the table, in Grafana's form.
func renderDashboard(t *testing.T) []byte {
	t.Helper()
	id, y, panels := 0, 0, []object{}
	place := func(kind, title string, x, wide, high int) object {
		id++
		return object{"id": id, "type": kind, "title": title, "gridPos": object{"x": x, "y": y, "w": wide, "h": high}}
	}
	source := object{"type": "prometheus", "uid": dataSource}
	for _, row := range dashboardRows {
		head := place("row", row.title, 0, gridWide, titleHigh)
		head["collapsed"], head["panels"] = false, []any{}
		panels = append(panels, head)
		y += titleHigh
		for i, p := range row.panels {
			made := place("timeseries", p.title, i*panelWide%gridWide, panelWide, panelHigh)
			targets := []object{}
			for j, e := range p.exprs {
				targets = append(targets, object{"refId": string(rune('A' + j)), "datasource": source, "expr": e[0], "legendFormat": e[1]})
			}
			made["datasource"], made["targets"] = source, targets
			made["fieldConfig"] = object{"defaults": object{"unit": p.unit}, "overrides": []any{}}
			panels = append(panels, made)
			if (i+1)*panelWide%gridWide == 0 || i == len(row.panels)-1 {
				y += panelHigh
			}
		}
	}
	text, err := json.MarshalIndent(object{"uid": "llm-gateway", "title": "LLM Gateway", "schemaVersion": 39, "version": 1, "editable": true, "refresh": "30s",
		"tags": []string{"llm-gateway"}, "time": object{"from": "now-6h", "to": "now"}, "timezone": "browser", "panels": panels,
		"templating": object{"list": []object{{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus", "current": object{}}}}}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(text, '\n')
}

// grafanaPanel is what Grafana reads of a panel.
type grafanaPanel struct {
	ID         int
	Type       string
	Title      string
	GridPos    struct{ X, Y, W, H int }
	Datasource struct{ Type, UID string }
	Targets    []struct {
		RefID, Expr, LegendFormat string
		Datasource                struct{ Type, UID string }
	}
	FieldConfig struct{ Defaults struct{ Unit string } }
}

type grafanaDashboard struct {
	UID, Title    string
	SchemaVersion int
	Panels        []grafanaPanel
	Templating    struct {
		List []struct{ Name, Type, Query string }
	}
}

func readDashboard(t *testing.T) (d grafanaDashboard) {
	t.Helper()
	text, err := os.ReadFile(dashboardFile)
	if err == nil {
		err = json.Unmarshal(text, &d)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// grafanaUnits are those of Grafana's that are in use here.
var grafanaUnits = []string{"short", "s", "reqps", "percentunit", "bytes"}

// TestDashboard: the file is the table's, and has what Grafana needs.
func TestDashboard(t *testing.T) {
	t.Parallel()
	want := renderDashboard(t)
	if *update {
		writeFile(t, dashboardFile, string(want))
	}
	if got, err := os.ReadFile(dashboardFile); err != nil || string(got) != string(want) {
		t.Errorf("%s is not the table's (-update writes it); %v", dashboardFile, err)
	}
	d := readDashboard(t)
	if d.UID == "" || d.Title == "" || d.SchemaVersion < 30 || len(d.Templating.List) != 1 || d.Templating.List[0].Type != "datasource" ||
		"${"+d.Templating.List[0].Name+"}" != dataSource || d.Templating.List[0].Query != "prometheus" {
		t.Errorf("%+v", d.Templating)
	}
	ids, taken, titles := map[int]bool{}, map[[2]int]string{}, map[string]bool{}
	for _, p := range d.Panels {
		if p.ID < 1 || ids[p.ID] || p.Title == "" || titles[p.Title] {
			t.Errorf("%q has the id %d: it is not one of its own", p.Title, p.ID)
		}
		ids[p.ID], titles[p.Title] = true, true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= gridWide || x < 0 || y < 0 {
					t.Fatalf("%q lies on %q, or beside the grid", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type != "row" {
			checkPanel(t, &p)
		}
	}
}

func checkPanel(t *testing.T, p *grafanaPanel) {
	t.Helper()
	if len(p.Targets) == 0 || p.Datasource.UID != dataSource || p.Datasource.Type != "prometheus" || !slices.Contains(grafanaUnits, p.FieldConfig.Defaults.Unit) {
		t.Errorf("%q: %+v", p.Title, p)
	}
	refs := map[string]bool{}
	for _, target := range p.Targets {
		if refs[target.RefID] || target.RefID == "" || target.Expr == "" || target.LegendFormat == "" || target.Datasource.UID != dataSource {
			t.Errorf("%q: %+v", p.Title, target)
		}
		refs[target.RefID] = true
	}
}
