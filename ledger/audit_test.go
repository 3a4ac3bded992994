package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
)

// auditVersion is the one price version of the tests' book.
func auditVersion(t testing.TB) *domain.PriceVersion {
	t.Helper()
	var rates domain.Rates
	rates.Set(domain.Input, domain.MustAmount("0.000002"))
	rates.Set(domain.Output, domain.MustAmount("0.00001"))
	b, err := domain.NewPriceBook([]domain.Model{{Provider: "p", Name: "m", Mode: domain.ModeChat, Context: 100_000, MaxOutput: 1000,
		Versions: []domain.PriceVersion{{Rates: rates}}}})
	if err != nil {
		t.Fatal(err)
	}
	return &b.Named("m")[0].Versions[0]
}

// charged is a settlement as a gateway makes it.
func charged(t testing.TB, v *domain.PriceVersion, id uuid.UUID, input, output int64) domain.Settle {
	t.Helper()
	m := domain.Meters{domain.Input: input, domain.Output: output, domain.Requests: 1}
	c, err := v.Charge(m, "")
	if err != nil {
		t.Fatal(err)
	}
	return domain.Settle{RequestID: id, Charge: c.Amount, Data: domain.CommitData{Surface: "test", ModelServed: "m", Meters: m, Lines: c.Lines,
		CostLines: c.Lines, PriceVersion: c.PriceVersion, UsageSource: domain.UsageProvider}}
}

// spend makes one request of an account.
func spend(t testing.TB, p *Postgres, account, bound string, s domain.Settle) {
	t.Helper()
	for _, op := range []domain.Op{reserve(s.RequestID, bound), s} {
		if _, err := p.Append(context.Background(), command(account, op)); err != nil {
			t.Fatal(err)
		}
	}
}

func only(v *domain.PriceVersion) func(string) *domain.PriceVersion {
	return func(id string) *domain.PriceVersion {
		if id == v.ID {
			return v
		}
		return nil
	}
}

// TestAudit: charges that are as the book has them are clean, those within their reserve and beyond it;
// those that are not are named, and so are versions that the book does not have.
func TestAudit(t *testing.T) {
	t.Parallel()
	p, _ := openPostgres(t)
	v := auditVersion(t)
	for i := range 7 {
		account := fmt.Sprint("account-", i)
		mustOpen(t, p, account, "100")
		for n := range int64(5) {
			spend(t, p, account, "0.001", charged(t, v, uuid.New(), 100*n, 50*n)) // the last ones beyond the reserve
		}
	}
	seen := map[int32]bool{}
	report, err := p.Audit(t.Context(), only(v), func(shard int32, seq, last int64) { seen[shard] = seq == last })
	if err != nil || !report.Clean || report.Charges != 35 || report.Differ != 0 || len(report.Unlisted) != 0 || report.Amount.String() != "0.049" {
		t.Fatalf("%+v, %v", report, err)
	}
	for shard := range int32(testShards) {
		if !seen[shard] {
			t.Errorf("shard %d was not told to its end", shard)
		}
	}

	wrong := charged(t, v, uuid.New(), 7, 7)
	wrong.Data.Lines[1].UnitPrice, wrong.Data.Lines[1].Amount = domain.MustAmount("0.00002"), domain.MustAmount("0.00014")
	wrong.Charge = domain.MustAmount("0.000154")
	spend(t, p, "account-3", "0.001", wrong)
	short := charged(t, v, uuid.New(), 7, 7)
	short.Charge = domain.MustAmount("0.000083")
	spend(t, p, "account-4", "0.001", short)
	gone := charged(t, v, uuid.New(), 3, 3)
	gone.Data.PriceVersion = "p/old@2020-01-01#01234567"
	spend(t, p, "account-5", "0.001", gone)
	spend(t, p, "account-5", "0.001", func() domain.Settle { s := gone; s.RequestID = uuid.New(); return s }())
	report, err = p.Audit(t.Context(), only(v), nil)
	if err != nil || report.Clean || report.Charges != 39 || report.Differ != 2 || len(report.Differences) != 2 {
		t.Fatalf("%+v, %v", report, err)
	}
	for _, d := range report.Differences {
		want := map[uuid.UUID]string{wrong.RequestID: "7 output at 0.00001 is 0.00007, and 0.00014 at 0.00002 was charged",
			short.RequestID: "the lines sum to 0.000084, and 0.000083 was charged"}[d.RequestID]
		if want == "" || !strings.Contains(strings.Join(d.Problems, ";"), want) || d.Account == "" || d.Position == "" {
			t.Errorf("%+v, want %q", d, want)
		}
	}
	if len(report.Unlisted) != 1 || report.Unlisted[0].Charges != 2 || report.Unlisted[0].PriceVersion != gone.Data.PriceVersion || report.Unlisted[0].First == "" {
		t.Errorf("%+v", report.Unlisted)
	}
}

// TestAuditOfLateCharges: a late and a spooled overage is a charge of its own.
func TestAuditOfLateCharges(t *testing.T) {
	t.Parallel()
	p, _ := openPostgres(t)
	v := auditVersion(t)
	mustOpen(t, p, "zoe", "1")
	late := charged(t, v, uuid.New(), 10, 10)
	for _, op := range []domain.Op{reserve(late.RequestID, "0.1"), domain.Release{RequestID: late.RequestID, Reason: domain.RefundExpired}, late} {
		if _, err := p.Append(t.Context(), command("zoe", op)); err != nil {
			t.Fatal(err)
		}
	}
	spooled := charged(t, v, uuid.New(), 10, 10)
	if _, err := p.Append(t.Context(), command("zoe", domain.Spooled{RequestID: spooled.RequestID, Amount: domain.MustAmount("99"),
		Charge: spooled.Charge, Commit: spooled.Data})); err != nil {
		t.Fatal(err)
	}
	if report, err := p.Audit(t.Context(), only(v), nil); err != nil || !report.Clean || report.Charges != 2 || report.Amount.String() != "0.00024" {
		t.Errorf("%+v, %v", report, err)
	}
}

// TestAuditFollowsPairs: the rest of a charge belongs to the commit right before it.
func TestAuditFollowsPairs(t *testing.T) {
	t.Parallel()
	v := auditVersion(t)
	id := uuid.New()
	s := charged(t, v, id, 100, 100) // 0.0012
	event := func(seq int64, kind domain.Kind, amount string, d domain.Data) (domain.Position, domain.Kind, []byte) {
		e := domain.Event{Schema: 1, Seq: seq, ID: uuid.New(), Kind: kind, Account: "a", RequestID: id, Amount: domain.MustAmount(amount), Currency: "USD", Data: d,
			OccurredAt: domain.EventTime(time.Now())}
		e.Debit, e.Credit = domain.ReservedOf("a"), domain.PlatformRevenue
		if kind == domain.KindOverage {
			e.Debit = domain.AvailableOf("a")
		}
		payload, err := domain.Encode(&e)
		if err != nil {
			t.Fatal(err)
		}
		return e.Position(), kind, payload
	}
	rest := &domain.OverageData{Reason: domain.OverageBeyondBound, CommitData: s.Data}
	other := &domain.OverageData{Reason: domain.OverageBeyondBound, CommitData: s.Data}
	other.PriceVersion = "other"
	for name, c := range map[string]struct {
		seq     int64
		data    *domain.OverageData
		differ  int64
		charges int64
	}{"right behind": {8, rest, 0, 1}, "a gap": {9, rest, 2, 1}, "another explanation": {8, other, 1, 1}} {
		a := &auditor{version: only(v)}
		sh := &shardAudit{auditor: a, unlisted: map[string]Unlisted{}}
		sh.event(event(7, domain.KindCommit, "0.001", &s.Data))
		sh.event(event(c.seq, domain.KindOverage, "0.0002", c.data))
		sh.settle()
		if sh.found.Differ != c.differ || sh.found.Charges != c.charges {
			t.Errorf("%s: %+v", name, sh.found)
		}
	}
	sh := &shardAudit{auditor: &auditor{version: only(v)}, unlisted: map[string]Unlisted{}}
	if sh.event(domain.Position{Seq: 1}, domain.KindCommit, []byte(`{"amount":`)); sh.found.Differ != 1 {
		t.Error("an unreadable event passes")
	}
}

// TestAuditScan: the quick way to read a charge reads what encoding/json does, or leaves it to that.
func TestAuditScan(t *testing.T) {
	t.Parallel()
	v := auditVersion(t)
	s := charged(t, v, uuid.New(), 100, 50)
	s.Data.Attempts = []domain.Attempt{{Provider: "p", Error: `"quo\ted" {[ é`}}
	s.Data.Usage = []byte(`{"a":[{"b":1}],"c":{}}`)
	two := s
	two.Data.Lines = append(slices.Clone(s.Data.Lines), domain.Line{Meter: domain.Output, Quantity: 3, PriceVersion: "other"})
	two.Data.ServiceTier, two.Data.CostLines = "flex", nil
	odd := s
	odd.Data.PriceVersion = `é "x" \`
	for name, c := range map[string]struct {
		data  domain.Data
		quick bool
	}{"usual": {&s.Data, true}, "two models": {&two.Data, true}, "overage": {&domain.OverageData{Reason: domain.OverageLate, CommitData: s.Data}, true},
		"odd": {&odd.Data, false}, "least": {&domain.CommitData{}, true}} {
		e := domain.Event{Schema: 1, Seq: 1, ID: uuid.New(), Kind: domain.KindCommit, Account: "a", RequestID: s.RequestID, Amount: s.Charge, Currency: "USD",
			Debit: domain.ReservedOf("a"), Credit: domain.PlatformRevenue, OccurredAt: domain.EventTime(time.Now()), Data: c.data}
		if _, overage := c.data.(*domain.OverageData); overage {
			e.Kind, e.Debit = domain.KindOverage, domain.AvailableOf("a")
		}
		payload, err := domain.Encode(&e)
		if err != nil {
			t.Fatal(err)
		}
		var quick, slow auditedRow
		if got := quick.scan(payload); got != c.quick {
			t.Errorf("%s is read quickly: %t", name, got)
		}
		if err := json.Unmarshal(payload, &slow); err != nil || c.quick && fmt.Sprint(quick) != fmt.Sprint(slow) {
			t.Errorf("%s: %v\n%+v\n%+v", name, err, quick, slow)
		}
		scanMutants(t, payload)
	}
}

// scanMutants: of payloads that were damaged, what both ways can read they read alike.
func scanMutants(t *testing.T, payload []byte) {
	t.Helper()
	for i := range payload {
		for _, c := range []byte("\"\\{}[],:01x ") {
			mutant := bytes.Clone(payload)
			mutant[i] = c
			var quick, slow auditedRow
			if quick.scan(mutant) && json.Unmarshal(mutant, &slow) == nil && fmt.Sprint(quick) != fmt.Sprint(slow) {
				t.Fatalf("%s\nis read as %+v\nnot as %+v", mutant, quick, slow)
			}
		}
		var cut auditedRow
		if cut.scan(payload[:i]) {
			t.Fatalf("%s is read", payload[:i])
		}
	}
}

// BenchmarkAuditOfOne is what one charge costs the auditor beside reading it: no more than 30 microseconds, or
// a million take longer than a minute on two slow processors.
func BenchmarkAuditOfOne(b *testing.B) {
	v := auditVersion(b)
	s := charged(b, v, uuid.New(), 100, 50)
	e := domain.Event{Schema: 1, Seq: 1, ID: uuid.New(), Kind: domain.KindCommit, Account: "account-77", RequestID: s.RequestID, Amount: s.Charge, Currency: "USD",
		Debit: domain.ReservedOf("account-77"), Credit: domain.PlatformRevenue, OccurredAt: domain.EventTime(time.Now()), Data: &s.Data}
	payload, err := domain.Encode(&e)
	if err != nil {
		b.Fatal(err)
	}
	sh := &shardAudit{auditor: &auditor{version: only(v)}, unlisted: map[string]Unlisted{}}
	b.ReportAllocs()
	for b.Loop() {
		sh.event(e.Position(), domain.KindCommit, payload)
	}
	if sh.settle(); sh.found.Differ > 0 {
		b.Errorf("%+v", sh.found)
	}
}
