package telemetry_test

import (
	"bytes"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"llm-gateway/cmd/llm-gateway/telemetry"
	"llm-gateway/cmd/llm-gateway/telemetry/receivertest"
	"llm-gateway/gateway/observe/trace"
)

const (
	offered = 5_000 // requests: more than the queues hold
	// slack is what a loaded machine may add to a bound.
	slack = 2 * time.Second
)

// lockedBuffer is a log that may be written to from anywhere.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// TestBadReceivers: whatever receivers do, who tells them does not wait, all that is not taken is counted, the
// end comes in time, and the log says it once.
func TestBadReceivers(t *testing.T) {
	t.Parallel()
	for _, how := range receivertest.Bads {
		t.Run(string(how), func(t *testing.T) {
			t.Parallel()
			otlp, langfuseHost, sentryHost := receivertest.NewBad(t, how), receivertest.NewBad(t, how), receivertest.NewBad(t, how)
			log := &lockedBuffer{}
			told, counted := open(t, telemetry.Config{Log: slog.New(slog.NewTextHandler(log, nil)), Sampler: sampler(t, "always_on", ""),
				OTLP:     &telemetry.OTLP{URL: otlp.URL + "/v1/traces", Timeout: 300 * time.Millisecond},
				Langfuse: langfuse(langfuseHost.URL), Sentry: &telemetry.Sentry{DSN: receivertest.DSN(sentryHost.URL), Rate: 1}})
			r := called(t, told, trace.Context{})
			longest := time.Duration(0)
			for range offered {
				begin := time.Now()
				told.End(r)
				longest = max(longest, time.Since(begin))
			}
			if longest > slack {
				t.Errorf("a request waited for %s", longest)
			}
			begin := time.Now()
			told.Close()
			if took := time.Since(begin); took > telemetry.CloseTime+slack {
				t.Errorf("the end took %s", took)
			}
			for _, exporter := range []string{"otlp", "langfuse", "sentry"} {
				sent, dropped := counted.of(exporter)
				if sent+dropped != offered || how != receivertest.Floods && sent != 0 {
					t.Errorf("%s: %d sent, %d dropped of %d", exporter, sent, dropped, offered)
				}
				if lines := strings.Count(log.String(), "exporter="+exporter); how != receivertest.Floods && lines != 1 {
					t.Errorf("%s: %d lines in the log:\n%s", exporter, lines, log)
				}
			}
			if strings.Contains(log.String(), "oops") || strings.Contains(log.String(), "127.0.0.1") || strings.Contains(log.String(), receivertest.LangfuseSecret) {
				t.Errorf("the log says what a receiver said, or where it is:\n%s", log)
			}
		})
	}
}

// TestNothingLeft: after the end nothing runs, and nothing that is offered is taken for sent.
func TestNothingLeft(t *testing.T) { //nolint:paralleltest // it counts goroutines
	before := runtime.NumGoroutine()
	bad := receivertest.NewBad(t, receivertest.Absent)
	told, counted := open(t, telemetry.Config{OTLP: &telemetry.OTLP{URL: bad.URL, Timeout: time.Second}, Langfuse: langfuse(bad.URL),
		Sentry: &telemetry.Sentry{DSN: receivertest.DSN(bad.URL), Rate: 1}})
	r := called(t, told, trace.Context{})
	told.End(r)
	told.Close()
	told.End(r)
	for _, exporter := range []string{"otlp", "langfuse", "sentry"} {
		if sent, dropped := counted.of(exporter); sent != 0 || dropped != 2 {
			t.Errorf("%s: %d sent, %d dropped", exporter, sent, dropped)
		}
	}
	for deadline := time.Now().Add(slack); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<16)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// TestRetried: a receiver that asks for patience gets the same again.
func TestRetried(t *testing.T) {
	t.Parallel()
	receiver := receivertest.NewOTLP(t, nil)
	receiver.Busy(1)
	told, counted := open(t, telemetry.Config{OTLP: &telemetry.OTLP{URL: receiver.URL() + "/v1/traces", Timeout: time.Minute}})
	told.End(called(t, told, trace.Context{}))
	for deadline := time.Now().Add(time.Minute); ; runtime.Gosched() {
		if sent, dropped := counted.of("otlp"); sent == 1 && dropped == 0 {
			break
		} else if dropped > 0 || time.Now().After(deadline) {
			t.Fatalf("%d sent, %d dropped", sent, dropped)
		}
	}
	told.Close()
	if n := len(receiver.Spans()); n != 5 {
		t.Errorf("%d spans", n)
	}
}
