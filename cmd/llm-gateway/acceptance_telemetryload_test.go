package main

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"llm-gateway/cmd/llm-gateway/telemetry"
	"llm-gateway/cmd/llm-gateway/telemetry/receivertest"
	"llm-gateway/migrations/pgtest"
)

const (
	// telemetryMemory is what full queues of all exporters may take.
	telemetryMemory = 64 << 20
	// telemetryDelay is what the 99th percentile may differ by, or by half on a machine that is slower than that:
	// the noise of other tests beside this one. What waited for a receiver that hangs would take its time-out more,
	// which is two seconds.
	telemetryDelay = time.Second
	// telemetryPace is the time between requests where their time is compared: below what the machine can do, so
	// that it is the gateway's time and not that of a queue before it.
	telemetryPace = 25 * time.Millisecond
)

// told is a gateway that tells receivers of one kind.
type told struct {
	*served
	how   string
	took  []time.Duration // each request of those at a steady pace
	busy  []time.Duration // each of those that came all at once
	endIn time.Duration
	most  int64 // resident bytes, at most
}

// tellingBadly are the settings of a gateway all of whose receivers behave so.
func tellingBadly(t *testing.T, how receivertest.Badness) []string {
	t.Helper()
	otlp, langfuse, sentry := receivertest.NewBad(t, how), receivertest.NewBad(t, how), receivertest.NewBad(t, how)
	return []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + otlp.URL, "OTEL_EXPORTER_OTLP_TIMEOUT=2000", "LANGFUSE_ENABLED=true", "LANGFUSE_HOST=" + langfuse.URL,
		"LANGFUSE_PUBLIC_KEY=pk", "LANGFUSE_SECRET_KEY=sk", "SENTRY_DSN=" + receivertest.DSN(sentry.URL), "SENTRY_TRACES_SAMPLE_RATE=1"}
}

// TestTelemetryLoad: gateways whose receivers hang, fail or send garbage serve as one that tells nobody, side by
// side under the same load: no request slower, memory flat, what was not taken counted, the end in time.
func TestTelemetryLoad(t *testing.T) {
	t.Parallel()
	w, dbURL := newWitness(t), pgtest.URL(t)
	base := append(w.settings(), "DATABASE_URL="+dbURL, "BILLING_DEFAULT_BALANCE="+loadBalance, "LOG_LEVEL=ERROR")
	gateways := []*told{{served: startServe(t, base...), how: "nobody"}}
	bads := []receivertest.Badness{receivertest.Hangs, receivertest.Fails, receivertest.Garbage}
	if full() {
		bads = receivertest.Bads
	}
	for _, how := range bads {
		gateways = append(gateways, &told{served: startServe(t, append(tellingBadly(t, how), base...)...), how: string(how)})
	}
	var bases []string
	for _, g := range gateways {
		bases = append(bases, g.url)
	}
	rounds := sized(3, 5)
	for range rounds {
		for i, took := range served200(t, sendLoad(t, bases, sized(200, 1000)*len(bases))) {
			g := gateways[i/2%len(bases)]
			g.busy = append(g.busy, took)
		}
		for _, g := range gateways {
			g.most = max(g.most, residentOf(t, g.cmd.Process.Pid))
		}
	}
	left, pace := sized(100, 600)*len(bases), time.NewTicker(telemetryPace)
	defer pace.Stop()
	steady := sendWhile(t, bases, func() bool { <-pace.C; left--; return left >= 0 })
	for i, took := range served200(t, steady) {
		g := gateways[i/2%len(bases)]
		g.took = append(g.took, took)
	}
	for _, g := range gateways[1:] {
		g.checkDropped(t)
	}
	for _, g := range gateways {
		begin := time.Now()
		g.stop()
		g.endIn = time.Since(begin)
	}
	for _, g := range gateways {
		g.compare(t, gateways[0])
	}
}

// served200 is how long each of these took, all of which were served.
func served200(t *testing.T, replies []reply) []time.Duration {
	t.Helper()
	var took []time.Duration
	for _, r := range replies {
		if r.status != http.StatusOK || !r.complete {
			t.Fatalf("a request that somebody was to be told of: %s", &r)
		}
		took = append(took, r.took)
	}
	return took
}

// checkDropped waits until each exporter has counted what was not taken.
func (g *told) checkDropped(t *testing.T) {
	t.Helper()
	if receivertest.Badness(g.how) == receivertest.Floods { // it takes what it is sent
		return
	}
	dropped := map[string]int64{}
	client := newClient(t)
	eventually(t, toldLimit, g.how+": drops are counted", func() bool {
		_, text := fetch(t, client, g.url+"/metrics", "")
		for _, found := range regexp.MustCompile(`telemetry_dropped_total{exporter="(\w+)"} (\S+)`).FindAllStringSubmatch(text, -1) {
			n, err := strconv.ParseFloat(found[2], 64)
			if err != nil {
				t.Fatal(err)
			}
			dropped[found[1]] = int64(n)
		}
		return dropped["otlp"] > 0 && dropped["langfuse"] > 0 && dropped["sentry"] > 0
	})
	t.Logf("%s: dropped %v", g.how, dropped)
}

// compare holds a gateway against one that tells nobody.
func (g *told) compare(t *testing.T, nobody *told) {
	t.Helper()
	t.Logf("%-8s steady %s; all at once %s; at most %d MiB (%+d), ended in %s", g.how, against(g.took, nobody.took), against(g.busy, nobody.busy),
		g.most>>20, (g.most-nobody.most)>>20, g.endIn.Round(time.Millisecond))
	was := percentile(nobody.took, 99)
	if more := percentile(g.took, 99) - was; more > max(telemetryDelay, was/2) {
		t.Errorf("%s: the 99th percentile is %s more", g.how, more)
	}
	if more := g.most - nobody.most; more > telemetryMemory {
		t.Errorf("%s: %s more memory", g.how, fmt.Sprint(more))
	}
	if more := g.endIn - nobody.endIn; more > telemetry.CloseTime+time.Second {
		t.Errorf("%s: the end took %s more", g.how, more)
	}
}

// percentile sorts what it is given.
func percentile(took []time.Duration, share int) time.Duration {
	slices.Sort(took)
	return took[len(took)*share/100]
}

// against says two percentiles, and how they differ from another gateway's, in milliseconds.
func against(took, other []time.Duration) string {
	millis := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	p50, p99 := percentile(took, 50), percentile(took, 99)
	return fmt.Sprintf("(%d) p50 %.1f ms (%+.1f), p99 %.1f ms (%+.1f)", len(took), millis(p50), millis(p50-percentile(other, 50)),
		millis(p99), millis(p99-percentile(other, 99)))
}
