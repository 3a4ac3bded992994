package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"llm-gateway/cmd/llm-gateway/pricebook"
	"llm-gateway/domain"
	"llm-gateway/ledger"
	"llm-gateway/migrations/pgtest"
)

// bookFile is the built-in price book with gpt-4o-mini's input at another price per million.
func bookFile(t *testing.T, input string) string {
	t.Helper()
	_, v, err := pricebook.Builtin().Lookup(loadModel, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cached, _ := v.Rates.Get(domain.CachedInput)
	output, _ := v.Rates.Get(domain.Output)
	text := fmt.Sprintf(`{currency: USD, unit: per_million, as_of: 2026-08-21, sources: {a: b}, models: [
		{provider: openai, model: %s, mode: chat, context: 128000, max_output: 16384, sources: [], versions: [{prices: {input: "%s", cached_input: "%s", output: "%s"}}]}]}`,
		loadModel, input, cached.Times(perMillion), output.Times(perMillion))
	path := filepath.Join(t.TempDir(), "book.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// period is the days around now, for --from and --to.
func period() []string {
	now := time.Now().UTC()
	return []string{"--from", now.AddDate(0, 0, -1).Format(time.DateOnly), "--to", now.AddDate(0, 0, 2).Format(time.DateOnly)}
}

// rerated runs `price rerate --json`.
func rerated(t *testing.T, env []string, args ...string) rerateOut {
	t.Helper()
	return parsed[rerateOut](t, env, append(append([]string{"price", "rerate"}, period()...), args...)...)
}

// TestPriceRerate: a report by another book changes nothing; corrections make it so, once, are linked to what
// they correct, and are counted by the next re-rating, whatever its book.
func TestPriceRerate(t *testing.T) {
	t.Parallel()
	at := pgtest.URL(t)
	env := []string{"DATABASE_URL=" + at}
	succeeds(t, env, "migrate")
	one, two := charged(t), charged(t)
	gone := charged(t)
	gone.Data.PriceVersion = "openai/long-gone@2020-01-01#01234567"
	charges(t, at, one, two, gone)
	input := domain.MustAmount("0.00000005").Times(one.Data.Meters[domain.Input]) // a book that is 0.05 per million dearer or cheaper
	dear, cheap := bookFile(t, "0.2"), bookFile(t, "0.1")

	same := rerated(t, env)
	if len(same.Rows) != 1 || !same.Total.Difference.IsZero() || same.Plan.Credits+same.Plan.Debits != 0 || same.Total.Charges != 2 || !same.Total.Charged.Equal(one.Charge.Times(2)) {
		t.Errorf("by its own book: %+v", same)
	}
	if len(same.Unrated) != 1 || same.Unrated[0].Model != "openai/long-gone" || same.Unrated[0].Problem != "the book has no such model" || same.Unrated[0].Charges != 1 {
		t.Errorf("not re-rated: %+v", same.Unrated)
	}
	report := rerated(t, env, "--book", cheap, "--account", "alice")
	if !report.Total.Difference.Equal(input.Times(2).Neg()) || report.Plan.Credits != 2 || !report.Plan.Credited.Equal(input.Times(2)) || report.Corrected != nil {
		t.Errorf("by a cheaper book: %+v", report)
	}
	if none := rerated(t, env, "--book", cheap, "--account", "bob"); none.Total.Charges != 0 {
		t.Errorf("of nobody: %+v", none)
	}
	if sell := rerated(t, env, "--sell", sellFile(t, "markup: \"100\"\n")); !sell.Total.Rerated.Equal(one.Charge.Times(4)) {
		t.Errorf("by a sell book: %+v", sell.Total)
	}
	text := succeeds(t, env, append([]string{"price", "rerate", "--book", cheap}, period()...)...)
	for _, want := range []string{"alice", "openai/" + loadModel, "not re-rated: 1 charges", "To correct it: 2 credits of " + input.Times(2).String(), "in force when a request was reserved"} {
		if !strings.Contains(text, want) {
			t.Errorf("price rerate lacks %q:\n%s", want, text)
		}
	}

	before := available(t, env)
	correct := []string{"--correct", "--reason", "prices were wrong", "--actor", "ops", "--yes"}
	done := rerated(t, env, append([]string{"--book", cheap}, correct...)...)
	if done.Corrected == nil || done.Corrected.Credits != 2 || done.Corrected.Debits != 0 || !done.Corrected.Credited.Equal(input.Times(2)) {
		t.Fatalf("corrections: %+v", done.Corrected)
	}
	if after := available(t, env); !after.Equal(before.Add(input.Times(2))) {
		t.Errorf("%s became %s", before, after)
	}
	checkLinks(t, at, one.RequestID, two.RequestID)
	if again := rerated(t, env, append([]string{"--book", cheap}, correct...)...); again.Plan.Credits+again.Plan.Debits != 0 || again.Corrected.Credits != 0 || !again.Total.Corrected.Equal(input.Times(2).Neg()) {
		t.Errorf("a second time: %+v, %+v", again.RerateReport, again.Corrected)
	}
	correctAgain(t, env, correct, one, input, map[string]string{"dear": dear, "cheap": cheap})
	if after := available(t, env); !after.Equal(before) {
		t.Errorf("after all, %s is %s", before, after)
	}
	succeeds(t, env, "ledger", "verify")
}

// correctAgain: by another book what was given back counts, and back to the first one it is not the
// same correction.
func correctAgain(t *testing.T, env, correct []string, one domain.Settle, input domain.Amount, books map[string]string) {
	t.Helper()
	dear, cheap := books["dear"], books["cheap"]
	paid := one.Charge.Sub(input)
	for _, book := range []string{dear, cheap, dear, ""} {
		args := correct
		want := map[string]domain.Amount{dear: one.Charge.Add(input), cheap: one.Charge.Sub(input), "": one.Charge}[book]
		if book != "" {
			args = append([]string{"--book", book}, correct...)
		}
		out := rerated(t, env, args...)
		if moved := out.Corrected.Debited.Sub(out.Corrected.Credited); !moved.Equal(want.Sub(paid).Times(2)) || out.Corrected.Failed+out.Corrected.Repeated != 0 {
			t.Errorf("to %s from %s: %+v", want, paid, out.Corrected)
		}
		paid = want
	}
}

// TestPriceRerateRefuses: corrections are asked for in full, and what an account does not have is only taken
// by force.
func TestPriceRerateRefuses(t *testing.T) {
	t.Parallel()
	at := pgtest.URL(t)
	env := []string{"DATABASE_URL=" + at}
	succeeds(t, env, "migrate")
	one := charged(t)
	charges(t, at, one)
	with := func(args ...string) []string {
		return append(append([]string{"price", "rerate"}, period()...), args...)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"price", "rerate"}, "--from and --to are mandatory"},
		{[]string{"price", "rerate", "--from", "2026-02-01", "--to", "2026-02-01"}, "--from must be before --to"},
		{[]string{"price", "rerate", "--from", "yesterday", "--to", "2026-02-01"}, "--from is a time like"},
		{with("--correct"), "--correct wants --reason and --actor"},
		{with("--correct", "--reason", "r"), "--correct wants --reason and --actor"},
		{with("--correct", "--reason", "r", "--actor", "a", "--json"), "give --yes"},
		{with("--yes"), "give --correct"},
		{with("--account", "a b"), "an account's name"},
	} {
		fails(t, 2, c.want, env, c.args...)
	}
	broken := filepath.Join(t.TempDir(), "none.yaml")
	fails(t, 1, broken, env, with("--book", broken)...)
	fails(t, 1, broken, env, with("--sell", broken)...)
	dear := bookFile(t, "100000")
	fails(t, 2, "nobody is there to be asked", env, with("--book", dear, "--correct", "--reason", "r", "--actor", "a")...)

	correct := with("--book", dear, "--correct", "--reason", "r", "--actor", "a", "--yes")
	before := available(t, env)
	fails(t, 1, "1 charges could not be corrected", env, correct...)
	if r := run(t, env, correct...); !strings.Contains(r.stdout, "not corrected: ") || !strings.Contains(r.stdout, "insufficient_funds: alice needs") || !available(t, env).Equal(before) {
		t.Errorf("price rerate says\n%s", r.stdout)
	}
	succeeds(t, env, append(correct, "--force")...)
	if after := available(t, env); after.Sign() >= 0 {
		t.Errorf("%s became %s", before, after)
	}
}

// TestPriceRerateOnce: runs at once, and runs that are killed, correct each charge once.
func TestPriceRerateOnce(t *testing.T) {
	t.Parallel()
	const n = 200
	at := pgtest.URL(t)
	env := []string{"DATABASE_URL=" + at}
	succeeds(t, env, "migrate")
	var all []domain.Settle
	for range n {
		all = append(all, charged(t))
	}
	charges(t, at, all...)
	input := domain.MustAmount("0.00000005").Times(all[0].Data.Meters[domain.Input])
	before, book := available(t, env), bookFile(t, "0.1")
	args := append([]string{"price", "rerate", "--book", book, "--correct", "--reason", "r", "--actor", "a", "--yes"}, period()...)

	killed := command(t.Context(), t, env, args...)
	killed.Stdout = &bytes.Buffer{}
	if err := killed.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "a first correction", func() bool { return corrections(t, at) > 0 })
	killed.Process.Kill() //nolint:errcheck // it may have ended
	killed.Wait()         //nolint:errcheck // it was killed
	t.Logf("%d of %d corrections before the end", corrections(t, at), n)

	var two sync.WaitGroup
	for range 2 {
		two.Go(func() {
			if r := run(t, env, args...); r.status != 0 && !strings.Contains(r.stderr, "another `price rerate --correct` is at it") {
				t.Errorf("%d\n%s", r.status, r.stderr)
			}
		})
	}
	two.Wait()
	if got := corrections(t, at); got != n || !available(t, env).Equal(before.Add(input.Times(n))) {
		t.Errorf("%d corrections of %d charges; %s became %s", got, n, before, available(t, env))
	}
}

// available is what alice has.
func available(t *testing.T, env []string) domain.Amount {
	t.Helper()
	return parsed[accountOut](t, env, "account", "show", "alice").Available
}

// eachMovement goes through alice's credits and debits that correct something.
func eachMovement(t *testing.T, at string, do func(r *ledger.Reader, e *domain.Event, d *domain.MovementData)) {
	t.Helper()
	r, err := ledger.OpenReader(t.Context(), ledger.Config{URL: at})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	events, err := r.Transactions(t.Context(), "alice", 10_000, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range events {
		if d, ok := events[i].Event.Data.(*domain.MovementData); ok && d.Corrects != "" {
			do(r, &events[i].Event, d)
		}
	}
}

func corrections(t *testing.T, at string) (n int) {
	t.Helper()
	eachMovement(t, at, func(*ledger.Reader, *domain.Event, *domain.MovementData) { n++ })
	return n
}

// checkLinks: each correction names its charge's position, its request, the reason and the actor.
func checkLinks(t *testing.T, at string, requests ...uuid.UUID) {
	t.Helper()
	linked := map[string]bool{}
	eachMovement(t, at, func(r *ledger.Reader, e *domain.Event, d *domain.MovementData) {
		for _, id := range requests {
			events, err := r.Request(context.Background(), "alice", id)
			if err != nil {
				t.Fatal(err)
			}
			if d.Corrects == events[1].Event.Position().String() && strings.HasPrefix(d.Reference, "rerate:"+id.String()+":") && d.Reason == "prices were wrong" && d.Actor == "ops" && e.Kind == domain.KindCredit {
				linked[id.String()] = true
			}
		}
	})
	if len(linked) != len(requests) {
		t.Errorf("%d of %d corrections are linked", len(linked), len(requests))
	}
}
