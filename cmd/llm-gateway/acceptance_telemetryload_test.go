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
	// telemetryDelay is what the 99th percentile, six requests of a run, may differ by, or by half on a machine
	// that is slower than that: the noise of processes beside each other, some 400 ms on two cores. What waited
	// for a receiver that hangs would take its time-out more, which is two seconds.
	telemetryDelay = time.Second
)

// told is a gateway that tells receivers of one kind.
type told struct {
	*served
	how   string
	took  []time.Duration
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
	rounds := sized(3, 10)
	for range rounds {
		for i, r := range sendLoad(t, bases, sized(200, 2000)*len(bases)) {
			if r.status != http.StatusOK || !r.complete {
				t.Fatalf("a request that somebody was to be told of: %s", &r)
			}
			g := gateways[i/2%len(bases)]
			g.took = append(g.took, r.took)
		}
		for _, g := range gateways {
			g.most = max(g.most, residentOf(t, g.cmd.Process.Pid))
		}
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
	at := func(of *told, share int) time.Duration {
		slices.Sort(of.took)
		return of.took[len(of.took)*share/100]
	}
	t.Logf("%-8s %d requests: p50 %s (%+d ms), p99 %s (%+d ms), at most %d MiB (%+d), ended in %s", g.how, len(g.took),
		at(g, 50).Round(time.Millisecond), (at(g, 50) - at(nobody, 50)).Milliseconds(), at(g, 99).Round(time.Millisecond),
		(at(g, 99) - at(nobody, 99)).Milliseconds(), g.most>>20, (g.most-nobody.most)>>20, g.endIn.Round(time.Millisecond))
	if more := at(g, 99) - at(nobody, 99); more > max(telemetryDelay, at(nobody, 99)/2) {
		t.Errorf("%s: the 99th percentile is %s more", g.how, more)
	}
	if more := g.most - nobody.most; more > telemetryMemory {
		t.Errorf("%s: %s more memory", g.how, fmt.Sprint(more))
	}
	if more := g.endIn - nobody.endIn; more > telemetry.CloseTime+time.Second {
		t.Errorf("%s: the end took %s more", g.how, more)
	}
}
