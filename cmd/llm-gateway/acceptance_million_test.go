package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/ledger"
	"llm-gateway/migrations/pgtest"
)

const (
	rebuildClients  = 128 // that append at once
	rebuildAccounts = 1000
	rebuildUsual    = 30_000 // events, where the full figure is not asked for
	rebuildLimit    = 15 * time.Minute
)

// rebuildEvents is how many events the test makes: EVENTS, which `make rebuild-million` sets.
func rebuildEvents(t testing.TB) int {
	t.Helper()
	text := os.Getenv("EVENTS")
	if text == "" {
		return rebuildUsual
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < rebuildAccounts {
		t.Fatalf("EVENTS: %q", text)
	}
	return n
}

// TestRebuildMany rebuilds every projection of a large ledger from the topic and from the ledger, and
// says at which rate and in how much memory.
func TestRebuildMany(t *testing.T) {
	n := rebuildEvents(t)
	url := pgtest.Empty(t)
	p := publishedAt(t, url)
	env := []string{"DATABASE_URL=" + url, "BILLING_DEFAULT_BALANCE=" + loadBalance}
	succeeds(t, env, "migrate")
	begin := time.Now()
	n = manyEvents(t, url, n, manySettle)
	t.Logf("%d events appended in %s", n, time.Since(begin).Round(time.Millisecond))
	begin = time.Now()
	s := startServe(t, env...)
	wait := func() bool {
		return countRows(t, url, `SELECT count(*) FROM ledger_shards s CROSS JOIN unnest(ARRAY['balances', 'transactions', 'stats']) AS n (name)
			LEFT JOIN projection_positions p ON p.projection = n.name AND p.shard = s.shard WHERE COALESCE(p.seq, 0) < s.last_seq`) == 0
	}
	eventually(t, rebuildLimit, "the projections are where the ledger ends", wait)
	t.Logf("published and projected in %s: %.0f events/s", time.Since(begin).Round(time.Millisecond), float64(n)/time.Since(begin).Seconds())
	for _, name := range projectionNames {
		for _, from := range []string{"topic", "ledger"} {
			measureRebuild(t, env, name, from, n)
		}
	}
	s.stop()
	p.audit(t)
	auditProjections(t, url)
}

// measureRebuild rebuilds once and reports the rate and the peak memory of the process.
func measureRebuild(t *testing.T, env []string, name, from string, events int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), rebuildLimit)
	defer cancel()
	cmd := command(ctx, t, env, "projections", "rebuild", name, "--from", from, "--json")
	begin := time.Now()
	r, peak := finishMeasured(t, cmd)
	took := time.Since(begin)
	if r.status != 0 {
		t.Fatalf("rebuild %s from %s: %s%s", name, from, r.stdout, r.stderr)
	}
	if !containsAll(r.stdout, `"equal": true`, `"swapped": true`) {
		t.Errorf("rebuild %s from %s:\n%s", name, from, r.stdout)
	}
	t.Logf("%s from the %s: %d events in %s, %.0f/s, at most %d MiB", name, from, events, took.Round(time.Millisecond),
		float64(events)/took.Seconds(), peak)
}

// manyEvents appends requests until the ledger has at least n events, each settled as settle says, and
// returns how many it has.
func manyEvents(t *testing.T, url string, n int, settle func(id uuid.UUID, i int) domain.Settle) int {
	t.Helper()
	reader, err := ledger.OpenReader(t.Context(), ledger.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	meta := reader.Meta()
	reader.Close()
	l, err := ledger.Open(t.Context(), ledger.Config{URL: url, Role: ledger.ServiceRole, Shards: meta.Shards, Currency: meta.Currency})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	account := func(i int) string { return fmt.Sprintf("many-%d", i%rebuildAccounts) }
	var wait sync.WaitGroup
	for w := range rebuildClients {
		wait.Go(func() {
			for i := w; i < rebuildAccounts; i += rebuildClients {
				appendMany(t, l, account(i), domain.Open{Grant: domain.MustAmount("1000000"), Actor: "test"})
			}
			for i := w; i < (n-2*rebuildAccounts)/3+1; i += rebuildClients {
				id := uuid.Must(uuid.NewV7())
				appendMany(t, l, account(i), domain.Reserve{RequestID: id, Amount: domain.MustAmount("0.01"), Data: domain.ReserveData{
					Surface: "chat_completions", Model: loadModel, PriceVersion: "test", BodyHash: "00", MaxOutput: 100, Owner: uuid.New()}})
				appendMany(t, l, account(i), settle(id, i))
			}
		})
	}
	wait.Wait()
	return int(countRows(t, url, `SELECT count(*) FROM ledger_events`))
}

func manySettle(id uuid.UUID, i int) domain.Settle {
	in, out := int64(100+i%900), int64(1+i%97)
	lines := []domain.Line{
		{Meter: domain.Input, Quantity: in, UnitPrice: domain.MustAmount(loadPrices["input"])},
		{Meter: domain.Output, Quantity: out, UnitPrice: domain.MustAmount(loadPrices["output"])},
		{Meter: domain.Requests, Quantity: 1},
	}
	data := domain.CommitData{Surface: "chat_completions", ModelRequested: loadModel, ModelServed: loadModel + "-2024-07-18",
		Provider: "openai", Attempts: []domain.Attempt{{Provider: "openai", Model: loadModel, Status: 200, Millis: 700}},
		PriceVersion: "test", UsageSource: domain.UsageProvider, FinishReason: "stop", TTFTMillis: 200, LatencyMillis: 700}
	var sum domain.Amount
	for l := range lines {
		lines[l].Amount = lines[l].UnitPrice.Times(lines[l].Quantity)
		data.Meters[lines[l].Meter] = lines[l].Quantity
		sum = sum.Add(lines[l].Amount)
	}
	data.Lines, data.CostLines = lines, lines
	return domain.Settle{RequestID: id, Charge: sum, Data: data}
}

func appendMany(t *testing.T, l *ledger.Postgres, account string, op domain.Op) {
	if _, err := l.Append(context.Background(), domain.Command{ID: newCommandID(), Account: account, Op: op}); err != nil {
		t.Error(err)
	}
}
