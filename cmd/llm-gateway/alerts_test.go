package main

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/prometheus/client_golang/prometheus"

	"llm-gateway/domain"
	"llm-gateway/gateway/observe"
)

var (
	alertsDir  = filepath.Join(root, "deployments", "prometheus")
	runbooks   = "docs/operating.md"
	severities = []string{"critical", "warning"}
)

type alertRule struct {
	Alert, Expr         string
	For                 string
	Labels, Annotations map[string]string
}

type alertTest struct {
	AlertRuleTest []struct {
		Alertname string
		ExpAlerts []map[string]any `yaml:"exp_alerts"`
	} `yaml:"alert_rule_test"`
}

func readYAML(t *testing.T, name string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(alertsDir, name))
	if err == nil {
		err = yaml.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func readAlerts(t *testing.T) (out []alertRule) {
	t.Helper()
	var file struct{ Groups []struct{ Rules []alertRule } }
	readYAML(t, "alerts.yaml", &file)
	for _, g := range file.Groups {
		out = append(out, g.Rules...)
	}
	return out
}

// TestAlerts: every alert says how bad it is, what it is and what to do, where the handbook goes on, and is made
// to fire and to clear by promtool's test.
func TestAlerts(t *testing.T) {
	t.Parallel()
	handbook, err := os.ReadFile(filepath.Join(root, runbooks))
	if err != nil {
		t.Fatal(err)
	}
	var tests struct{ Tests []alertTest }
	readYAML(t, "alerts_test.yaml", &tests)
	fires, clears := map[string]bool{}, map[string]bool{}
	for _, test := range tests.Tests {
		for _, at := range test.AlertRuleTest {
			fires[at.Alertname] = fires[at.Alertname] || len(at.ExpAlerts) > 0
			clears[at.Alertname] = clears[at.Alertname] || fires[at.Alertname] && len(at.ExpAlerts) == 0
		}
	}
	seen := map[string]bool{}
	for _, a := range readAlerts(t) {
		if a.Alert == "" || seen[a.Alert] || !slices.Contains(severities, a.Labels["severity"]) {
			t.Errorf("%q, severity %q", a.Alert, a.Labels["severity"])
		}
		seen[a.Alert] = true
		for _, said := range []string{"summary", "description", "action"} {
			if a.Annotations[said] == "" {
				t.Errorf("%s has no %s", a.Alert, said)
			}
		}
		if a.Annotations["runbook_url"] != runbooks+"#"+strings.ToLower(a.Alert) || !strings.Contains(string(handbook), "\n### "+a.Alert+"\n") {
			t.Errorf("%s is not in the handbook: %s", a.Alert, a.Annotations["runbook_url"])
		}
		if !fires[a.Alert] || !clears[a.Alert] {
			t.Errorf("%s is not made to fire and to clear", a.Alert)
		}
	}
	for name := range fires {
		if !seen[name] {
			t.Errorf("the test makes %s fire, and there is no such alert", name)
		}
	}
}

// promtool runs Prometheus's own tool. Where that is missing the test is skipped, but under CI it fails.
func promtool(t *testing.T, dir string, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("promtool is not installed (Debian's package prometheus has it)")
		}
		t.Skip("promtool is not installed (Debian's package prometheus has it): the rules are not checked")
	}
	command := exec.CommandContext(t.Context(), path, args...)
	command.Dir = dir
	if out, err := command.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// TestAlertsFire: Prometheus itself parses the rules, and makes each of them fire and clear.
func TestAlertsFire(t *testing.T) {
	t.Parallel()
	promtool(t, alertsDir, "check", "rules", "alerts.yaml")
	promtool(t, alertsDir, "test", "rules", "alerts_test.yaml")
}

// grafanaVariable is what Grafana puts into an expression before it asks.
var grafanaVariable = strings.NewReplacer("$__rate_interval", "5m", "$__range", "1h")

// TestDashboardParses: Prometheus itself parses every expression of the dashboard.
func TestDashboardParses(t *testing.T) {
	t.Parallel()
	rules := "groups:\n  - name: dashboard\n    rules:\n"
	for _, p := range readDashboard(t).Panels {
		for _, target := range p.Targets {
			rules += fmt.Sprintf("      - record: panel_%d_%s\n        expr: '%s'\n", p.ID, target.RefID, strings.ReplaceAll(grafanaVariable.Replace(target.Expr), "'", "''"))
		}
	}
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "dashboard.yaml"), rules)
	promtool(t, dir, "check", "rules", "dashboard.yaml")
}

// exported is one metric: its labels, and whether it is a histogram.
type exported struct {
	labels    []string
	histogram bool
}

var descForm = regexp.MustCompile(`fqName: "([^"]+)".*variableLabels: \{([^}]*)\}`)

// exportedMetrics are all that the registry has, whether or not there is a series of them yet.
func exportedMetrics(t *testing.T) map[string]exported {
	t.Helper()
	m := observe.NewMetrics()
	m.Request("m", 200, "", time.Second)
	m.Settled(observe.Settlement{Model: "m", Provider: "p", Charge: domain.Zero, Cost: domain.Zero, FirstByte: time.Second})
	m.Batch(1, time.Second)
	m.LogFailures(func() int64 { return 0 })
	families, err := m.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]exported{}
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		m.Registry.Describe(descs)
	}()
	for d := range descs {
		found := descForm.FindStringSubmatch(d.String())
		if found == nil {
			t.Fatalf("a metric describes itself as %s", d)
		}
		out[found[1]] = exported{labels: strings.FieldsFunc(found[2], func(r rune) bool { return r == ',' || r == ' ' })}
	}
	for _, f := range families {
		e := out[f.GetName()]
		e.histogram = f.GetType().String() == "HISTOGRAM"
		for _, pair := range f.GetMetric()[0].GetLabel() {
			if !slices.Contains(e.labels, pair.GetName()) && !strings.HasPrefix(f.GetName(), "go_") {
				t.Errorf("%s has the label %s, which it does not describe", f.GetName(), pair.GetName())
			}
		}
		out[f.GetName()] = e
	}
	return out
}

var (
	exprStrings  = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	exprSelector = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)\s*\{([^}]*)\}`)
	exprGrouping = regexp.MustCompile(`\b(?:by|without|on|ignoring)\s*\(([^)]*)\)`)
	exprRange    = regexp.MustCompile(`\[[^\]]*\]`)
	exprName     = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*`)
	exprCall     = regexp.MustCompile(`[a-zA-Z_]+\s*\(`)
	exprKeywords = []string{"and", "or", "unless", "offset", "bool"}
	// scrapeLabels are put on by whoever scrapes.
	scrapeLabels = []string{"instance", "job"}
)

// metricsIn are the metrics that an expression names, each with the labels that are asked of it by name; grouped
// are the labels that it groups by.
func metricsIn(expr string) (metrics map[string][]string, grouped []string) {
	metrics = map[string][]string{}
	text := exprRange.ReplaceAllString(exprStrings.ReplaceAllString(expr, `""`), "")
	for _, g := range exprGrouping.FindAllStringSubmatch(text, -1) {
		grouped = append(grouped, exprName.FindAllString(g[1], -1)...)
	}
	text = exprGrouping.ReplaceAllString(text, " ")
	for _, s := range exprSelector.FindAllStringSubmatch(text, -1) {
		metrics[s[1]] = append(metrics[s[1]], exprName.FindAllString(s[2], -1)...)
	}
	text = exprCall.ReplaceAllString(exprSelector.ReplaceAllString(text, " "), "(")
	for _, name := range exprName.FindAllString(text, -1) {
		if !slices.Contains(exprKeywords, name) {
			metrics[name] = append(metrics[name], []string{}...)
		}
	}
	return metrics, grouped
}

// lookUp finds an exported metric by the name of one of its series.
func lookUp(all map[string]exported, series string) (exported, bool) {
	if e, ok := all[series]; ok && !e.histogram {
		return e, true
	}
	for _, part := range []string{"_bucket", "_sum", "_count"} {
		if base, cut := strings.CutSuffix(series, part); cut && all[base].histogram {
			e := all[base]
			if part == "_bucket" {
				e.labels = append(slices.Clone(e.labels), "le")
			}
			return e, true
		}
	}
	return exported{}, false
}

// TestMetricsAreExported: what the alerts, their tests and the dashboard name is what a gateway exports, and has
// the labels that they ask for.
func TestMetricsAreExported(t *testing.T) {
	t.Parallel()
	all, exprs := exportedMetrics(t), map[string]string{}
	for _, a := range readAlerts(t) {
		exprs[a.Alert] = a.Expr
	}
	for _, p := range readDashboard(t).Panels {
		for _, target := range p.Targets {
			exprs[p.Title+" "+target.RefID] = target.Expr
		}
	}
	var tests struct {
		Tests []struct {
			InputSeries []struct{ Series string } `yaml:"input_series"`
		}
	}
	readYAML(t, "alerts_test.yaml", &tests)
	for i, test := range tests.Tests {
		for j, s := range test.InputSeries {
			exprs[fmt.Sprintf("input series %d of test %d", j, i)] = s.Series
		}
	}
	for _, where := range slices.Sorted(maps.Keys(exprs)) {
		complain(t, wrongNames(all, where, exprs[where]))
		complain(t, wrongValues(t, where, exprs[where]))
	}
	for _, wrong := range []string{`rate_limit_requests_total{result="error"}`, `x + gate_verdicts_total{verdict=~"yes|nobody"}`} {
		if wrongValues(t, "", wrong) == nil {
			t.Errorf("%s passes", wrong)
		}
	}
	for _, wrong := range []string{`sum(no_such_metric)`, `llm_requests_total{nobody="x"}`, `sum by (nobody) (llm_requests_total)`, `llm_requests_duration_seconds`,
		`rate(ledger_batch_seconds_count{le="1"}[5m])`} {
		if wrongNames(all, "", wrong) == nil {
			t.Errorf("%s passes", wrong)
		}
	}
}

func wrongNames(all map[string]exported, where, expr string) (problems []string) {
	metrics, grouped := metricsIn(expr)
	if len(metrics) == 0 {
		problems = append(problems, where+" names no metric: "+expr)
	}
	for name, labels := range metrics {
		e, ok := lookUp(all, name)
		if !ok {
			problems = append(problems, fmt.Sprintf("%s: no gateway exports %s", where, name))
			continue
		}
		for _, label := range append(labels, grouped...) {
			if !slices.Contains(e.labels, label) && !slices.Contains(scrapeLabels, label) {
				problems = append(problems, fmt.Sprintf("%s: %s has no label %s", where, name, label))
			}
		}
	}
	return problems
}

// closedLabels make a series with a value of a label that has a closed list of them; what is in none becomes
// other, or is not taken.
var closedLabels = map[string]func(m *observe.Metrics, value string){
	"rate_limit_requests_total.scope":    func(m *observe.Metrics, v string) { m.RateLimited(v, "refused") },
	"rate_limit_requests_total.result":   func(m *observe.Metrics, v string) { m.RateLimited("account", v) },
	"llm_provider_attempts_total.result": func(m *observe.Metrics, v string) { m.Attempt("p", v) },
	"gate_verdicts_total.verdict": func(m *observe.Metrics, v string) {
		if v := observe.Verdict(v); slices.Contains([]observe.Verdict{observe.GateYes, observe.GateNo, observe.GateUnknown, observe.GateOverruled, observe.GateError}, v) {
			m.Gate(v)
		}
	},
	"ledger_journaled_total.result": func(*observe.Metrics, string) {},
	"ledger_spooled_total.result":   func(*observe.Metrics, string) {},
	"ledger_overages_total.reason":  func(*observe.Metrics, string) {},
}

var exprMatcher = regexp.MustCompile(`([a-zA-Z_]+)\s*=~?\s*"([^"]*)"`)

// wrongValues are values that an expression asks for, and that a closed label never has.
func wrongValues(t *testing.T, where, expr string) (problems []string) {
	t.Helper()
	for _, s := range exprSelector.FindAllStringSubmatch(expr, -1) {
		for _, matcher := range exprMatcher.FindAllStringSubmatch(s[2], -1) {
			use := closedLabels[s[1]+"."+matcher[1]]
			if use == nil {
				continue
			}
			for value := range strings.SplitSeq(matcher[2], "|") {
				m := observe.NewMetrics()
				use(m, value)
				if !hasSeries(t, m, s[1], matcher[1], value) {
					problems = append(problems, fmt.Sprintf("%s: %s never has %s=%q", where, s[1], matcher[1], value))
				}
			}
		}
	}
	return problems
}

func hasSeries(t *testing.T, m *observe.Metrics, name, label, value string) bool {
	t.Helper()
	families, err := m.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, one := range f.GetMetric() {
			for _, pair := range one.GetLabel() {
				if f.GetName() == name && pair.GetName() == label && pair.GetValue() == value {
					return true
				}
			}
		}
	}
	return false
}
