package main

import (
	"context"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"llm-gateway/cmd/llm-gateway/pricebook"
	"llm-gateway/domain"
	"llm-gateway/ledger"
	"llm-gateway/migrations/pgtest"
)

const (
	auditUsual  = 5000 // requests, where the full figure is not asked for
	auditMost   = time.Minute
	auditMemory = 256 // MiB
)

// auditRequests is how many requests the test makes: AUDIT_REQUESTS, which `make audit-million` sets.
func auditRequests(t testing.TB) int {
	t.Helper()
	text := os.Getenv("AUDIT_REQUESTS")
	if text == "" {
		return auditUsual
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < rebuildAccounts {
		t.Fatalf("AUDIT_REQUESTS: %q", text)
	}
	return n
}

// TestAuditMany calculates every charge of a large ledger again, and says at which rate and in how much
// memory.
func TestAuditMany(t *testing.T) {
	t.Parallel()
	n := auditRequests(t)
	url := pgtest.URL(t)
	env := []string{"DATABASE_URL=" + url}
	succeeds(t, env, "migrate")
	_, version, err := pricebook.Builtin().Lookup(loadModel, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	events := manyEvents(t, url, 3*n+2*rebuildAccounts-3, func(id uuid.UUID, i int) domain.Settle {
		m := domain.Meters{domain.Input: int64(100 + i%900), domain.CachedInput: int64(i % 50), domain.Output: int64(1 + i%97), domain.Requests: 1}
		charge, err := version.Charge(m, "")
		if err != nil {
			t.Error(err)
		}
		s := manySettle(id, i)
		s.Charge, s.Data.Meters, s.Data.Lines, s.Data.CostLines, s.Data.PriceVersion = charge.Amount, m, charge.Lines, charge.Lines, charge.PriceVersion
		return s
	})
	t.Logf("%d events appended in %s", events, time.Since(begin).Round(time.Millisecond))
	ctx, cancel := context.WithTimeout(t.Context(), rebuildLimit)
	defer cancel()
	cmd := command(ctx, t, env, "audit", "--all", "--json")
	begin = time.Now()
	r, peak := finishMeasured(t, cmd)
	took := time.Since(begin)
	if r.status != 0 {
		t.Fatalf("audit: %s%s", r.stdout, r.stderr)
	}
	report := decoded[ledger.AuditReport](t, r.stdout)
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		t.Fatal("no resource usage")
	}
	t.Logf("%d charges in %s, %.0f/s, at most %d MiB; %s of CPU", report.Charges, took.Round(time.Millisecond), float64(report.Charges)/took.Seconds(),
		peak, time.Duration(usage.Utime.Nano()+usage.Stime.Nano()).Round(time.Millisecond))
	if !report.Clean || report.Charges < int64(n) || len(report.Unlisted) > 0 {
		t.Errorf("%d requests: %+v", n, report)
	}
	if took > auditMost || peak > auditMemory {
		t.Errorf("it took %s and %d MiB", took, peak)
	}
}
