package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/tidwall/gjson"

	"llm-gateway/cmd/llm-gateway/pricebook"
	"llm-gateway/domain"
	"llm-gateway/ledger"
	"llm-gateway/migrations/pgtest"
)

// charges makes requests of an account as a gateway does, and returns their ids.
func charges(t *testing.T, at string, settlements ...domain.Settle) {
	t.Helper()
	r, err := ledger.OpenReader(t.Context(), ledger.Config{URL: at})
	if err != nil {
		t.Fatal(err)
	}
	meta := r.Meta()
	r.Close()
	l, err := ledger.Open(t.Context(), ledger.Config{URL: at, Role: ledger.ServiceRole, Shards: meta.Shards, Currency: meta.Currency})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	appendMany(t, l, "alice", domain.Open{Grant: domain.MustAmount("10"), Actor: "test"})
	for _, s := range settlements {
		appendMany(t, l, "alice", domain.Reserve{RequestID: s.RequestID, Amount: domain.MustAmount("0.01"), Data: domain.ReserveData{
			Surface: "chat_completions", Model: loadModel, PriceVersion: s.Data.PriceVersion, BodyHash: strings.Repeat("0", 64), MaxOutput: 100, Owner: uuid.New(),
			Bound: domain.Bound{Input: 1000, Output: 100, Lines: s.Data.Lines}}})
		appendMany(t, l, "alice", s)
	}
}

// charged is a settlement at the built-in price.
func charged(t *testing.T) domain.Settle {
	t.Helper()
	_, v, err := pricebook.Builtin().Lookup(loadModel, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s := manySettle(uuid.New(), 7)
	charge, err := v.Charge(s.Data.Meters, "")
	if err != nil {
		t.Fatal(err)
	}
	s.Charge, s.Data.Lines, s.Data.CostLines, s.Data.PriceVersion = charge.Amount, charge.Lines, charge.Lines, charge.PriceVersion
	s.Data.Usage = []byte(`{"prompt_tokens":107,"completion_tokens":8}`)
	return s
}

// TestAuditVerb: one request explained, all calculated again, and exit status 1 where anything differs.
func TestAuditVerb(t *testing.T) {
	t.Parallel()
	at := pgtest.URL(t)
	env := []string{"DATABASE_URL=" + at}
	succeeds(t, env, "migrate")
	good, gone := charged(t), charged(t)
	gone.Data.PriceVersion = "openai/gpt-4o-mini@2020-01-01#01234567"
	charges(t, at, good, gone)

	out := succeeds(t, env, "audit", good.RequestID.String(), "--json")
	for path, want := range map[string]string{"chain": "valid", "recheck.equal": "true", "user_id": "alice", "reported.prompt_tokens": "107", "meters.input": "107",
		"events.0.before.balance": "10", "events.0.after.balance": "9.99", "events.0.after.reserved": "0.01", "events.2.after.reserved": "0",
		"charged": good.Charge.String(), "events.#": "3", "attempts.0.status": "200", "bound.input": "1000"} {
		if got := gjson.Get(out, path).String(); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
	text := succeeds(t, env, "audit", good.RequestID.String())
	for _, want := range []string{good.RequestID.String(), `{"prompt_tokens":107,"completion_tokens":8}`, "input 107", "hash chain: valid", "calculated again: equal",
		"10 -> 9.99", good.Charge.String() + " USD"} {
		if !strings.Contains(text, want) {
			t.Errorf("audit lacks %q:\n%s", want, text)
		}
	}
	if text := succeeds(t, env, "audit", gone.RequestID.String()); !strings.Contains(text, "the book does not have openai/gpt-4o-mini@2020-01-01#01234567") {
		t.Errorf("a version that is gone:\n%s", text)
	}
	fails(t, 1, "there is no request 0198c2f4-5d1a-7c3b-8a51-3f0a9d7be201", env, "audit", "0198c2f4-5d1a-7c3b-8a51-3f0a9d7be201")

	report := parsed[ledger.AuditReport](t, env, "audit", "--all")
	if !report.Clean || report.Charges != 2 || len(report.Unlisted) != 1 || report.Unlisted[0].PriceVersion != gone.Data.PriceVersion {
		t.Errorf("%+v", report)
	}
	if text := succeeds(t, env, "audit", "--all"); !strings.Contains(text, "2 charges of") || !strings.Contains(text, "is not in the book: 1 charges") {
		t.Errorf("audit --all says\n%s", text)
	}

	dear := charged(t)
	dear.Data.Lines = append([]domain.Line(nil), dear.Data.Lines...)
	dear.Data.Lines[0].UnitPrice = dear.Data.Lines[0].UnitPrice.Times(2)
	dear.Data.Lines[0].Amount = dear.Data.Lines[0].Amount.Times(2)
	dear.Charge = dear.Charge.Add(good.Data.Lines[0].Amount)
	charges(t, at, dear)
	fails(t, 1, "the audit found differences", env, "audit", "--all")
	if r := run(t, env, "audit", "--all"); !strings.Contains(r.stdout, dear.RequestID.String()) || !strings.Contains(r.stdout, "1 differ") {
		t.Errorf("audit --all says\n%s", r.stdout)
	}
	if r := run(t, env, "audit", dear.RequestID.String(), "--json"); r.status != 1 || gjson.Get(r.stdout, "recheck.equal").Bool() || gjson.Get(r.stdout, "recheck.problems.#").Int() != 1 {
		t.Errorf("audit says %d\n%s", r.status, r.stdout)
	}
	auditTampered(t, at, env, good.RequestID)
}

// TestAuditKnowsSellVersions: a charge by a version of SELL_BOOK is calculated again from the book, too.
func TestAuditKnowsSellVersions(t *testing.T) {
	t.Parallel()
	at := pgtest.URL(t)
	file := sellFile(t, "markup: \"20\"\n")
	env := []string{"DATABASE_URL=" + at, "SELL_BOOK=" + file}
	succeeds(t, env, "migrate")
	good, dear := sold(t, file, charged(t)), sold(t, file, charged(t))
	dear.Data.Lines = append([]domain.Line(nil), dear.Data.Lines...)
	dear.Data.Lines[0] = domain.Line{Meter: dear.Data.Lines[0].Meter, Quantity: dear.Data.Lines[0].Quantity, UnitPrice: domain.MustAmount("0.00001"),
		Amount: domain.MustAmount("0.00001").Times(dear.Data.Lines[0].Quantity)}
	dear.Charge = domain.Zero
	for _, l := range dear.Data.Lines {
		dear.Charge = dear.Charge.Add(l.Amount)
	}
	charges(t, at, good)
	report := parsed[ledger.AuditReport](t, env, "audit", "--all")
	if !report.Clean || report.Charges != 1 || len(report.Unlisted) != 0 {
		t.Errorf("%+v", report)
	}
	if out := succeeds(t, env, "audit", good.RequestID.String(), "--json"); gjson.Get(out, "recheck.unlisted.#").Int() != 0 {
		t.Errorf("audit says\n%s", out)
	}
	charges(t, at, dear) // its own lines multiply and add up: only the book can tell
	if r := run(t, env, "audit", "--all", "--json"); r.status != 1 || gjson.Get(r.stdout, "differ").Int() != 1 {
		t.Errorf("audit says %d\n%s", r.status, r.stdout)
	}
}

// sellFile is a sell book's file.
func sellFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sell.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// sold is a settlement as a sell book has it.
func sold(t *testing.T, file string, s domain.Settle) domain.Settle {
	t.Helper()
	book, err := openSellBook(file, "USD", pricebook.Builtin())
	if err != nil {
		t.Fatal(err)
	}
	_, cost, err := pricebook.Builtin().Lookup(loadModel, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	charge, err := book.Price("alice", cost, time.Now()).Charge(s.Data.Meters, "")
	if err != nil {
		t.Fatal(err)
	}
	s.Charge, s.Data.Lines, s.Data.PriceVersion, s.Data.CostVersion = charge.Amount, charge.Lines, charge.PriceVersion, s.Data.PriceVersion
	return s
}

// auditTampered: an event that was edited breaks the chain, and the audit says where.
func auditTampered(t *testing.T, at string, env []string, id uuid.UUID) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background()) //nolint:errcheck // the test is over
	for _, sql := range []string{`ALTER TABLE ledger_events DISABLE TRIGGER USER`,
		fmt.Sprintf(`UPDATE ledger_events SET payload = convert_to(replace(convert_from(payload, 'UTF8'), '"ttft_ms":200', '"ttft_ms":201'), 'UTF8')
			WHERE request_id = '%s' AND kind = 'commit'`, id)} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	r := run(t, env, "audit", id.String(), "--json")
	if r.status != 1 || !strings.Contains(gjson.Get(r.stdout, "chain").Str, "the hash is not that of the stored bytes") ||
		gjson.Get(r.stdout, "events.0.chain").Str != "valid" || gjson.Get(r.stdout, "events.1.chain").Str == "valid" {
		t.Errorf("an edited event: %d\n%s", r.status, r.stdout)
	}
	if _, err := conn.Exec(t.Context(), `UPDATE ledger_events SET amount = amount + 1 WHERE request_id = $1 AND kind = 'reserve'`, id.String()); err != nil {
		t.Fatal(err)
	}
	r = run(t, env, "audit", id.String(), "--json")
	if r.status != 1 || !strings.HasPrefix(gjson.Get(r.stdout, "events.0.chain").Str, "the column amount is 1.01, the stored bytes say 0.01") {
		t.Errorf("an edited column: %d\n%s", r.status, r.stdout)
	}
}

// TestAccountShowAt: balances of the past.
func TestAccountShowAt(t *testing.T) {
	t.Parallel()
	env := onPostgres(t, "BILLING_DEFAULT_BALANCE=10")
	fails(t, 1, "account alice is not open", env, "account", "show", "alice", "--at", "2026-01-01T00:00:00Z")
	succeeds(t, env, "account", "credit", "alice", "2.5", "--reference", "a", "--open")
	between := time.Now()
	succeeds(t, env, "account", "debit", "alice", "1", "--reference", "b")
	for at, want := range map[string]string{between.Format(time.RFC3339Nano): "12.5", time.Now().In(time.FixedZone("", 3600)).Format(time.RFC3339Nano): "11.5"} {
		if out := parsed[pastOut](t, env, "account", "show", "alice", "--at", at); out.Available.String() != want || out.Reserved.String() != "0" || out.Position == "" || out.OccurredAt == nil {
			t.Errorf("at %s: %+v, want %s", at, out, want)
		}
	}
	before := parsed[pastOut](t, env, "account", "show", "alice", "--at", "2020-01-01T00:00:00Z")
	if !before.Available.IsZero() || before.Position != "" || before.OccurredAt != nil {
		t.Errorf("before it was open: %+v", before)
	}
	if text := succeeds(t, env, "account", "show", "alice", "--at", "2020-01-01T00:00:00Z"); !strings.Contains(text, "none: the account was not open yet") {
		t.Errorf("account show --at says\n%s", text)
	}
}
