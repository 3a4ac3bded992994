package ledger

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"llm-gateway/domain"
)

// owner connects as the owner of the tables.
func owner(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { drop(conn) })
	return conn
}

func mustExec(t testing.TB, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(context.Background(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func queryInt(t testing.TB, conn *pgx.Conn, sql string, args ...any) (n int64) {
	t.Helper()
	if err := conn.QueryRow(context.Background(), sql, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func mustVerify(t testing.TB, r *Reader) *Report {
	t.Helper()
	report, err := r.Verify(context.Background(), VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// wantClean fails on anything that Verify finds.
func wantClean(t testing.TB, r *Reader) *Report {
	t.Helper()
	report := mustVerify(t, r)
	if !report.Clean {
		var text strings.Builder
		report.WriteText(&text) //nolint:errcheck // a Builder takes everything
		t.Fatalf("verify:\n%s", text.String())
	}
	return report
}

// places brings findings to "check position account" each, sorted.
func places(findings []Finding) []string {
	var out []string
	for _, f := range findings {
		words := slices.DeleteFunc([]string{string(f.Check), f.Position, f.Account}, func(w string) bool { return w == "" })
		out = append(out, strings.Join(words, " "))
	}
	slices.Sort(out)
	return out
}

// explained gives a settlement of amount the meters and lines that make it up.
func explained(amount string) domain.CommitData {
	a := domain.MustAmount(amount)
	d := domain.CommitData{Surface: "test", ModelServed: "m", UsageSource: domain.UsageProvider}
	d.Meters[domain.Requests] = 1
	d.Lines = []domain.Line{{Meter: domain.Requests, Quantity: 1, UnitPrice: a, Amount: a}}
	return d
}

func settle(request uuid.UUID, amount string) domain.Settle {
	return domain.Settle{RequestID: request, Charge: domain.MustAmount(amount), Data: explained(amount)}
}
