package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"llm-gateway/cmd/llm-gateway/reconcile"
	"llm-gateway/domain"
	"llm-gateway/ledger"
)

// ledgerAt opens the ledger of settings made by onPostgres, on a clock of the test.
func ledgerAt(t *testing.T, env []string, now func() time.Time) *ledger.Postgres {
	t.Helper()
	succeeds(t, env, "migrate")
	address := strings.TrimPrefix(env[0], "DATABASE_URL=")
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context()) //nolint:errcheck // it was only read
	var m ledger.Meta
	if err := conn.QueryRow(t.Context(), `SELECT shards, currency FROM ledger_meta`).Scan(&m.Shards, &m.Currency); err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(t.Context(), ledger.Config{URL: address, Role: ledger.ServiceRole, Shards: m.Shards, Currency: m.Currency, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// chargesOf makes one charge of a model in a ledger.
func chargesOf(t *testing.T, l *ledger.Postgres, account, provider, model string, meters domain.Meters, cost string) {
	t.Helper()
	amount, request := domain.MustAmount(cost), uuid.New()
	meters[domain.Requests] = 1
	lines := []domain.Line{{Meter: domain.Requests, Quantity: 1, UnitPrice: amount, Amount: amount}}
	for _, op := range []domain.Op{
		domain.Reserve{RequestID: request, Amount: domain.MustAmount("1"), Data: domain.ReserveData{Model: model, Owner: uuid.New()}},
		domain.Settle{RequestID: request, Charge: amount, Data: domain.CommitData{ModelRequested: model, ModelServed: model, Provider: provider,
			Meters: meters, Lines: lines, CostLines: lines, UsageSource: domain.UsageProvider}},
	} {
		if _, err := appendOne(t.Context(), l, account, op); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStatementVerb(t *testing.T) {
	t.Parallel()
	env := onPostgres(t, "BILLING_DEFAULT_BALANCE=10")
	at := time.Date(2026, 10, 31, 22, 59, 59, 999999000, time.UTC) // the last moment of October in Berlin
	l := ledgerAt(t, env, func() time.Time { return at })
	if _, err := openAccount(t.Context(), &app{loaded: &Settings{DefaultBalance: domain.MustAmount("10")}}, l, "alice"); err != nil {
		t.Fatal(err)
	}
	chargesOf(t, l, "alice", "simulated", "sim-a", domain.Meters{domain.Output: 7}, "0.25")
	at = at.Add(time.Microsecond)
	chargesOf(t, l, "alice", "simulated", "sim-b", domain.Meters{domain.Output: 9}, "0.000000000001")
	for args, want := range map[string]string{"2026-10": "9.749999999999", "2026-10 --tz Europe/Berlin": "9.75", "2026-09": "0"} {
		out := decoded[domain.Statement](t, succeeds(t, env, strings.Fields("statement alice --month "+args)...))
		if out.Closing.Balance.String() != want || !out.Complete {
			t.Errorf("%s closes with %+v", args, out.Closing)
		}
	}
	next := decoded[domain.Statement](t, succeeds(t, env, strings.Fields("statement --month 2026-11 --tz Europe/Berlin --format json alice")...))
	if next.Opening.Balance.String() != "9.75" || len(next.Charges) != 1 || next.Charges[0].Date != "2026-11-01" {
		t.Errorf("November: %+v", next)
	}
	if text := succeeds(t, env, "statement", "alice", "--month", "2026-10", "--format", "csv"); !strings.Contains(text, "charge,2026-10-31,,,,,,sim-a,1,0,7,-0.25,,USD\n") {
		t.Error(text)
	}
	if text := succeeds(t, env, "statement", "alice", "--month", "2026-10", "--format", "html"); !strings.HasPrefix(text, "<!DOCTYPE html>") {
		t.Error(text)
	}
	fails(t, 1, "account bob is not open", env, "statement", "bob", "--month", "2026-10")
}

func TestReconcileVerb(t *testing.T) {
	t.Parallel()
	env := onPostgres(t)
	at := time.Date(2026, 11, 1, 10, 0, 0, 0, time.UTC)
	l := ledgerAt(t, env, func() time.Time { return at })
	for i, name := range []string{"alice", "bob", "carol"} {
		if _, err := openAccount(t.Context(), &app{loaded: &Settings{DefaultBalance: domain.MustAmount("10")}}, l, name); err != nil {
			t.Fatal(err)
		}
		chargesOf(t, l, name, "openai", "gpt-4o-mini-2024-07-18", domain.Meters{domain.Input: 100, domain.CachedInput: 20, domain.Output: int64(i)}, "0.002")
	}
	chargesOf(t, l, "alice", "other", "gpt-4o-mini-2024-07-18", domain.Meters{domain.Input: 5}, "0.5")
	at = at.AddDate(0, 0, 1)
	chargesOf(t, l, "alice", "openai", "gpt-4o-mini-2024-07-18", domain.Meters{domain.Input: 9}, "0.5")
	file := filepath.Join(t.TempDir(), "usage.json")
	write := func(output int, cost string) {
		text := fmt.Sprintf(`{"data":[{"start_time":1793491200,"end_time":1793577600,"results":[{"model":"gpt-4o-mini-2024-07-18","num_model_requests":3,
			"input_tokens":360,"input_cached_tokens":60,"output_tokens":%d,"amount":{"value":%s,"currency":"usd"}}]}],"has_more":false}`, output, cost)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(3, "0.006")
	same := parsed[reconcile.Report](t, env, "reconcile", "openai", file)
	if same.Differences != 0 || len(same.Lines) != 1 || same.Totals.Cost.Ledger.String() != "0.006" || same.Currency != "USD" {
		t.Errorf("%+v", same)
	}
	write(5, "0.0061")
	fails(t, 1, "the export and the ledger differ", env, "reconcile", "openai", file)
	succeeds(t, env, "reconcile", "openai", file, "--tolerance", "2", "--cost-tolerance", "0.0001")
	r := run(t, env, "reconcile", "openai", file, "--json", "--cost-tolerance", "0.0001")
	var out reconcile.Report
	if err := json.Unmarshal([]byte(r.stdout), &out); err != nil || r.status != 1 || out.Differences != 1 || out.Lines[0].Cost.Differs ||
		out.Lines[0].Cost.Difference.String() != "0.0001" {
		t.Errorf("%d %s %v", r.status, r.stdout, err)
	}
	if text := run(t, env, "reconcile", "openai", file).stdout; !strings.Contains(text, "output_tokens        5       3       +2") {
		t.Error(text)
	}
	other := run(t, env, "reconcile", "openai", file, "--provider", "openai,other", "--to", "2026-11-03", "--json")
	if err := json.Unmarshal([]byte(other.stdout), &out); err != nil || len(out.Lines) != 2 || out.Totals.Counts[0].Ledger != 5 || out.Lines[1].Side != reconcile.LedgerOnly {
		t.Errorf("%s %v", other.stdout, err)
	}
	fails(t, 1, "it has nothing in the time that is asked for", env, "reconcile", "openai", file, "--from", "2026-12-01")
	fails(t, 1, "no such file", nil, "reconcile", "openai", file+"x")
	fails(t, 1, "this export cannot be read", nil, "reconcile", "anthropic", file)
}

// TestStatementUsage: calls that cannot be meant.
func TestStatementUsage(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"statement":                                            "NAME is missing",
		"statement a":                                          "--month is mandatory, such as --month 20",
		"statement a --month 2026-13":                          "a month is written like 2026-11",
		"statement a --month 2999-01":                          "2999-01 has not begun yet",
		"statement a --month 2026-01 --tz Local":               "a time zone is a name like Europe/Berlin",
		"statement a --month 2026-01 --format pdf":             "a statement is json, csv or html",
		"reconcile":                                            "PROVIDER is missing",
		"reconcile openai":                                     "FILE is missing",
		"reconcile azure f":                                    "the providers are openai, anthropic and google",
		"reconcile openai f --tolerance -1":                    "a tolerance is 0 or more",
		"reconcile openai f --cost-tolerance -0.1":             "a tolerance is 0 or more",
		"reconcile openai f --cost-tolerance 1e-3":             "a tolerance is 0 or more",
		"reconcile openai f --from november":                   "--from is a time like",
		"reconcile openai f --from 2026-11-02 --to 2026-11-02": "--from must be before --to",
	} {
		fails(t, 2, want, nil, strings.Fields(args)...)
	}
}
