package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
)

// charger is what tells of charges, in both stores.
type charger interface {
	subject
	Spans(ctx context.Context, account string, from, to time.Time) ([]Span, error)
	EachCharged(ctx context.Context, account string, s Span, progress Progress, do func(*domain.Charged) error) error
}

// TestEachCharged: both stores tell of the same charges, with what was corrected of them.
func TestEachCharged(t *testing.T) {
	t.Parallel()
	w, subjects := timedSubjects(t)
	for name, s := range subjects {
		w.set("2026-01-01T00:00:00Z")
		checkCharged(t, name, w, s.(charger))
	}
}

// told is a charge as a line: its request, what was taken, what was corrected, by which references.
func told(t *testing.T, s charger, account, from, to string) (lines []string) {
	t.Helper()
	begin, _ := time.Parse(time.RFC3339, from)
	end, _ := time.Parse(time.RFC3339, to)
	spans, err := s.Spans(t.Context(), account, begin, end)
	if err != nil {
		t.Fatal(err)
	}
	for _, span := range spans {
		last := span.After
		err := s.EachCharged(t.Context(), account, span, func(_ int32, seq, _ int64) { last = seq }, func(c *domain.Charged) error {
			lines = append(lines, line(c))
			return nil
		})
		if err != nil || last != span.UpTo {
			t.Errorf("%+v was read to %d, %v", span, last, err)
		}
	}
	slices.Sort(lines)
	return lines
}

func line(c *domain.Charged) string {
	return fmt.Sprintf("%d %s %s %s %s", c.RequestID[15], c.Account, c.Amount, c.Corrected, strings.Join(c.Uses, ","))
}

// checkCharged makes charges of every sort, and corrects some.
func checkCharged(t *testing.T, name string, w *watch, s charger) {
	t.Helper()
	id := func(n byte) uuid.UUID { return uuid.UUID{6: 0x70, 8: 0x80, 15: n} }
	where := func(n byte, account string, kind domain.Kind) string {
		events, err := s.Request(t.Context(), account, id(n))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if e.Event.Kind == kind {
				return e.Event.Position().String()
			}
		}
		t.Fatalf("%d has no %s", n, kind)
		return ""
	}
	corrects := func(position, reference string) domain.MovementData {
		return domain.MovementData{Reference: reference, Actor: "test", Corrects: position}
	}
	for _, account := range []string{"ann", "ben"} {
		mustOpen(t, s, account, "100")
	}
	run := func(n byte, account, charge string) {
		must(t, s, command(account, reserve(id(n), "1")))
		must(t, s, command(account, settle(id(n), charge)))
	}
	run(1, "ann", "0.5")
	run(2, "ann", "1.5") // a commit, and an overage beyond its bound
	run(3, "ben", "1.25")
	w.set("2026-02-01T00:00:00Z")
	must(t, s, command("ann", reserve(id(4), "1")))
	must(t, s, command("ann", release(id(4), domain.RefundExpired)))
	must(t, s, command("ann", settle(id(4), "0.75"))) // late
	must(t, s, command("ann", domain.Spooled{RequestID: id(5), Amount: domain.MustAmount("1"), Charge: domain.MustAmount("0.25"), Commit: explained("0.25")}))
	run(6, "ann", "0")
	w.set("2026-03-01T00:00:00Z")
	first := must(t, s, command("ann", domain.Credit{Amount: domain.MustAmount("0.1"), Data: corrects(where(1, "ann", domain.KindCommit), "a")}))
	must(t, s, command("ann", domain.Debit{Amount: domain.MustAmount("0.03"), Data: corrects(where(1, "ann", domain.KindCommit), "b")}))
	must(t, s, command("ann", domain.Debit{Amount: domain.MustAmount("0.01"), Data: corrects(first.Position().String(), "c")})) // a correction's correction
	must(t, s, command("ann", domain.Credit{Amount: domain.MustAmount("1"), Data: corrects(where(2, "ann", domain.KindOverage), "d")}))
	must(t, s, command("ann", domain.Credit{Amount: domain.MustAmount("0.5"), Data: corrects(where(2, "ann", domain.KindCommit), "e")}))
	must(t, s, command("ann", domain.Credit{Amount: domain.MustAmount("0.75"), Data: corrects(where(4, "ann", domain.KindOverage), "f")}))
	must(t, s, command("ann", domain.Credit{Amount: domain.MustAmount("5"), Data: corrects(where(3, "ben", domain.KindCommit), "not ben's")}))
	must(t, s, command("ann", credit("5", `with "corrects":"0:1" in it`)))
	must(t, s, command("ann", domain.Credit{Amount: domain.MustAmount("5"), Data: corrects("9999:1", "of no shard")}))

	january, february := []string{"1 ann 0.5 -0.06 a,b,c", "2 ann 1.5 -1.5 e,d", "3 ben 1.25 0 "}, []string{"4 ann 0.75 -0.75 f", "5 ann 0.25 0 ", "6 ann 0 0 "}
	for _, c := range []struct {
		account, from, to string
		want              []string
	}{
		{"", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z", january},
		{"", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z", february},
		{"", "2025-01-01T00:00:00Z", "2027-01-01T00:00:00Z", append(slices.Clone(january), february...)},
		{"ben", "2026-01-01T00:00:00Z", "2026-03-01T00:00:00Z", january[2:]},
		{"ann", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z", january[:2]},
		{"nobody", "2026-01-01T00:00:00Z", "2026-03-01T00:00:00Z", nil},
		{"", "2026-03-01T00:00:00Z", "2027-01-01T00:00:00Z", nil},
	} {
		if got := told(t, s, c.account, c.from, c.to); !slices.Equal(got, c.want) {
			t.Errorf("%s: charges of %q from %s to %s are\n%q, want\n%q", name, c.account, c.from, c.to, got, c.want)
		}
	}
	enough := errors.New("enough")
	spans, err := s.Spans(t.Context(), "ann", time.Time{}, time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC))
	if err != nil || len(spans) != 1 {
		t.Fatal(spans, err)
	}
	if err := s.EachCharged(t.Context(), "ann", spans[0], nil, func(*domain.Charged) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("%s: %v", name, err)
	}
	if m, ok := s.(*Memory); ok {
		checkSpans(t, m, spans[0])
	}
}

// checkSpans: corrections are found however few events they are known for at once.
func checkSpans(t *testing.T, m *Memory, s Span) {
	t.Helper()
	read := func(span int64) (lines []string) {
		from := m.chargedFrom("ann", s)
		from.span = span
		if err := eachCharged(s, nil, func(c *domain.Charged) error { lines = append(lines, line(c)); return nil }, from); err != nil {
			t.Fatal(err)
		}
		return lines
	}
	whole := read(correctionSpan)
	for span := range int64(12) {
		if got := read(span + 1); !slices.Equal(got, whole) {
			t.Errorf("by spans of %d: %q, want %q", span+1, got, whole)
		}
	}
}
