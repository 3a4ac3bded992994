package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"llm-gateway/domain"
)

// TestVerifyCannotSeeAConsistentForgery states what the heads are not: whoever rewrites the payload,
// the columns, every later hash, the head and the balance leaves nothing behind in the database. The
// report must say which witnesses outside the database it did not have.
func TestVerifyCannotSeeAConsistentForgery(t *testing.T) {
	t.Parallel()
	c := commitCrime(t)
	c.fit(14, `"amount":"20"`, `"amount":"2000"`)
	c.do(`UPDATE ledger_accounts SET available = available + 1980 WHERE account = 'alice'`)
	report := wantClean(t, c.ledger.Reader)
	if !slices.Equal(report.Witnesses, []Witness{WitnessHeads}) ||
		!slices.Equal(report.MissingWitnesses, []Witness{WitnessTopic, WitnessCheckpoints}) {
		t.Fatalf("witnesses %v, missing %v", report.Witnesses, report.MissingWitnesses)
	}
	var text strings.Builder
	if err := report.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"CLEAN", "witnesses: heads; not asked: topic, checkpoints", "only a witness outside"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, text.String())
		}
	}
}

// TestVerifyAsTheService finds a crime through the door that the command line uses.
func TestVerifyAsTheService(t *testing.T) {
	t.Parallel()
	c := commitCrime(t)
	if report := wantClean(t, c.ledger.Reader); report.Events != 24 || report.Accounts != 4 || report.Reservations != 6 {
		t.Fatalf("%d events, %d accounts, %d reservations", report.Events, report.Accounts, report.Reservations)
	}
	c.edit(12, `"model":"m"`, `"model":"n"`)
	if got := places(mustVerify(t, c.ledger.Reader).Findings); !slices.Equal(got, []string{"chain 1:12 alice"}) {
		t.Fatalf("found %v", got)
	}
}

func TestReportJSON(t *testing.T) {
	t.Parallel()
	c := commitCrime(t)
	encoded, err := json.Marshal(wantClean(t, c.ledger.Reader))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(encoded, &got); err != nil {
		t.Fatal(err)
	}
	delete(got, "seconds")
	out, err := json.Marshal(got) // keys sorted
	if err != nil {
		t.Fatal(err)
	}
	want := `{"accounts":4,"balances":"163.000000000001","clean":true,"counts":{},"currency":"USD","events":24,"findings":[],` +
		`"ledger_id":"` + c.ledger.Meta().ID.String() + `","missing_witnesses":["topic","checkpoints"],` +
		`"platform_funding":"-174.000000000001","platform_revenue":"11","reservations":6,"shards":4,"topic_records":0,` +
		`"totals":{"account":"0","commit":"9","credit":"175.000000000001","debit":"1","overage":"2","refund":"9","reserve":"76"},` +
		`"unpublished":0,"witnesses":["heads"]}`
	if string(out) != want {
		t.Errorf("got  %s\nwant %s", out, want)
	}
}

func TestReportCapsFindings(t *testing.T) {
	r := newReport(Meta{Shards: 1, Currency: "USD"}, false)
	for seq := range int64(maxListed + 5) {
		r.findf(CheckChain, domain.Position{Seq: seq + 1}, "alice\x1b[2J", "bad")
	}
	r.findf(CheckHead, domain.Position{}, "", "%s", strings.Repeat("x", 2*maxDetail))
	if len(r.Findings) != maxListed+1 || r.Counts[CheckChain] != maxListed+5 || len(r.Findings[maxListed].Detail) != maxDetail {
		t.Fatalf("%d listed, %v counted", len(r.Findings), r.Counts)
	}
	var text strings.Builder
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"chain at 0:1 of alice[2J: bad\n", "chain: and 5 more\n", fmt.Sprintf("NOT CLEAN: %d findings", maxListed+6)} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, text.String())
		}
	}
}

// TestVerifyBesideAWriter verifies again and again while others append: it must see one state each
// time. The history becomes longer than a page.
func TestVerifyBesideAWriter(t *testing.T) {
	t.Parallel()
	const writers, each = 64, verifyPage/64 + 10
	p, _ := openPostgres(t)
	mustOpen(t, p, "alice", "1")
	done := make(chan struct{})
	go func() {
		defer close(done)
		together(t, writers, func(i int) error {
			for n := range each {
				if _, err := p.Append(context.Background(), command("alice", credit("1", fmt.Sprint(i, "-", n)))); err != nil {
					return err
				}
			}
			return nil
		})
	}()
	defer func() { <-done }()
	runs := 0
	for running := true; running; runs++ {
		wantClean(t, p.Reader)
		select {
		case <-done:
			running = false
		default:
		}
	}
	var seen []int64
	report, err := p.Verify(t.Context(), VerifyOptions{Progress: func(shard int32, seq, last int64) {
		if shard == domain.ShardOf("alice", testShards) {
			seen = append(seen, seq, last)
		}
	}})
	total := int64(writers*each + 2)
	if err != nil || report.Events != total || !slices.Equal(seen, []int64{verifyPage, total, total, total}) {
		t.Fatalf("%d events after %d runs, progress %v, %v", report.Events, runs, seen, err)
	}
}
