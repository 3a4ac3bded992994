package gateway_test

import (
	"fmt"
	"strings"
	"testing"
)

// TestMetricsOff: where metrics are off there is no such route, and calls go on.
func TestMetricsOff(t *testing.T) {
	t.Parallel()
	e := start(t, options{noMetrics: true})
	if a := e.chat("olga", chatBody("sim-small", "x", "")); a.status != 200 {
		t.Fatal(a.body)
	}
	checkError(t, "off", e.get("", "/metrics"), 404, "invalid_request_error", "unknown_url")
}

// TestMetricsNameNobody: neither accounts nor what clients make up get into the metrics.
func TestMetricsNameNobody(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	for i := range 20 {
		e.chat("a-secret-account", chatBody(fmt.Sprint("made-up-", i), "x", ""))
	}
	e.chat("a-secret-account", chatBody("sim-small", "x", ""))
	e.chat("a-secret-account", chatBody("sim-small", "sim:status=500", ""))
	body := e.get("", "/metrics").body
	for _, leak := range []string{"a-secret-account", "made-up", "user_balance"} {
		if strings.Contains(body, leak) {
			t.Errorf("the metrics have %q", leak)
		}
	}
	for _, want := range []string{`llm_requests_total{model="sim-small",status="200"} 1`, `llm_provider_attempts_total{provider="simulated",result="ok"} 1`,
		`llm_provider_attempts_total{provider="simulated",result="upstream"} 1`} {
		if !strings.Contains(body, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
}
