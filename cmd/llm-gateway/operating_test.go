package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"llm-gateway/gateway/observe"
	"llm-gateway/projections"
)

// TestOperatingPage: docs/operating.md names every metric that the gateway exports, every component that is
// checked, and nothing that does not exist.
func TestOperatingPage(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root, "docs", "operating.md"))
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	m := observe.NewMetrics()
	m.LogFailures(func() int64 { return 0 })
	exported := map[string]bool{}
	for _, name := range metricNames(m) {
		exported[name] = true
		own := !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_")
		if own && !strings.Contains(page, "`"+name+"`") {
			t.Errorf("the metric %s is not on the page", name)
		}
	}
	_, metrics, _ := strings.Cut(page, "\n## Metrics")
	metrics, _, _ = strings.Cut(metrics, "\n## The log")
	for line := range strings.Lines(metrics) {
		cell, _, isRow := strings.Cut(strings.TrimPrefix(line, "| "), " |")
		for _, found := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(cell, -1) {
			if name := found[1]; isRow && !exported[name] {
				t.Errorf("the page names the metric %s, which is not exported", name)
			}
		}
	}
	for _, name := range []string{"postgres", "ledger", "clock", "lease", "sweeper", "journal", "redis", "kafka", "relay", "disk"} {
		if !strings.Contains(page, "\n| `"+name+"` |") {
			t.Errorf("the component %s is not on the page", name)
		}
	}
	if len(projections.Names()) == 0 || !strings.Contains(page, "| `projection NAME` |") {
		t.Error("projections are not on the page")
	}
}

// metricNames are all that is registered, also what has no sample yet.
func metricNames(m *observe.Metrics) (names []string) {
	for _, found := range regexp.MustCompile(`fqName: "([^"]+)"`).FindAllStringSubmatch(m.Described(), -1) {
		names = append(names, found[1])
	}
	return names
}
