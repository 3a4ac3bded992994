package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
)

// pricing is what of a ledger the record of prices is kept by.
type pricing interface {
	subject
	ReadPrices(ctx context.Context, record *domain.PriceRecord) error
	ChargedOtherwise(ctx context.Context, prices []domain.Repricing) (*Charged, error)
}

func recordCommand(r *domain.PriceRecord, d *domain.PricesData) domain.Command {
	return command(domain.PricesAccount, domain.RecordPrices{After: r.Last, Data: domain.AccountData{Prices: d, Actor: "test"}})
}

func versionsNamed(ids ...string) domain.Versions {
	out := domain.Versions{}
	for _, id := range ids {
		out[id] = domain.Dated{Model: "a/m"}
	}
	return out
}

// TestPricesRecorded: on both stores, many that find the same change record it once, there and back again is
// four changes, and no money and no account of anybody's comes of it.
func TestPricesRecorded(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(testing.TB) subject{"memory": memorySubject, "postgres": postgresSubject, "pooled": pooledSubject} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t).(pricing)
			for i, ids := range [][]string{{"a/m@launch#a"}, {"a/m@launch#b"}, {"a/m@launch#a"}, {"a/m@launch#b", "a/m@launch#c"}} {
				recordAtOnce(t, s, versionsNamed(ids...))
				record := &domain.PriceRecord{}
				if err := s.ReadPrices(t.Context(), record); err != nil || record.Next(domain.BookCost, versionsNamed(ids...)) != nil {
					t.Fatalf("after %d: %v, %+v", i, err, record)
				}
			}
			events, err := s.Events(t.Context(), domain.ShardOf(domain.PricesAccount, testShards), 0, 100)
			if err != nil || len(events) != 4 {
				t.Errorf("%d events, %v", len(events), err)
			}
			wantAccount(t, s, domain.PricesAccount, "0", "0")
			mustReject(t, s, command(domain.PricesAccount, domain.Open{Actor: "test"}), domain.RejectInvalid)
			mustReject(t, s, command(domain.PricesAccount, credit("1", "a gift")), domain.RejectInvalid)
		})
	}
}

// recordAtOnce records a change by several at the same time: one does, the others are told that it moved.
func recordAtOnce(t *testing.T, s pricing, versions domain.Versions) {
	t.Helper()
	before := &domain.PriceRecord{}
	if err := s.ReadPrices(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	d, won := before.Next(domain.BookCost, versions), atomic.Int32{}
	together(t, 8, func(int) error {
		c := recordCommand(before, d)
		_, err := s.Append(context.Background(), c)
		if r := new(domain.Rejection); errors.As(err, &r) && r.Reason == domain.RejectPricesMoved {
			return nil
		}
		if won.Add(1); err == nil { // whoever got no answer asks again
			if again, repeated := s.Append(context.Background(), c); repeated != nil || !again.Repeated {
				return fmt.Errorf("asked again: %+v, %w", again, repeated)
			}
		}
		return err
	})
	if won.Load() != 1 {
		t.Errorf("%d have recorded the same change", won.Load())
	}
}

// TestChargedOtherwise: on both stores, which charges contradict prices, by their time and their version; the
// newest is told.
func TestChargedOtherwise(t *testing.T) {
	t.Parallel()
	clock, subjects := timedSubjects(t)
	charge := func(s subject, account, version, cost string) {
		t.Helper()
		id, op := uuid.New(), settle(uuid.Nil, "1")
		op.RequestID, op.Data.PriceVersion, op.Data.CostVersion = id, version, cost
		op.Data.ModelRequested = `_version":"a/m@launch#ffffffff` // a client may write what it likes
		op.Data.Tags = map[string]string{"price_version": "a/m@launch#ffffffff", "cost_version": "a/n@launch#ffffffff"}
		must(t, s, command(account, reserve(id, "1")))
		must(t, s, command(account, op))
	}
	for i, at := range []string{"2026-05-01T00:00:00Z", "2026-05-02T00:00:00Z", "2026-05-03T00:00:00Z"} {
		clock.set(at)
		for _, s := range subjects {
			for _, account := range []string{"alice", "bob"} {
				if i == 0 {
					mustOpen(t, s, account, "100")
				}
				charge(s, account, "a/m@launch#0000000"+fmt.Sprint(i), "")
			}
			for range 2 * chargedPage { // these look alike
				charge(s, "alice", "b/m@launch#00000000", "")
			}
			charge(s, "bob", "a/n@launch#00000000+10%#00000000", "a/n@launch#00000000")
		}
	}
	day := func(d int) time.Time { return time.Date(2026, 5, d, 0, 0, 0, 0, time.UTC) }
	price := func(model, version string, from, until int) domain.Repricing {
		return domain.Repricing{Model: model, Version: version, From: day(from), Until: day(until)}
	}
	for i, c := range []struct {
		prices []domain.Repricing
		by     string
	}{
		{nil, ""},
		{[]domain.Repricing{price("a/m", "a/m@2026-05-01#99999999", 1, 9)}, "a/m@launch#00000002"},
		{[]domain.Repricing{price("a/m", "a/m@2026-05-01#99999999", 1, 3)}, "a/m@launch#00000001"},
		{[]domain.Repricing{price("a/m", "a/m@launch#00000002", 3, 9)}, ""},
		{[]domain.Repricing{price("a/m", "a/m@2026-05-04#99999999", 4, 9)}, ""},
		{[]domain.Repricing{price("a/n", "a/n@launch#00000000", 1, 9)}, ""},
		{[]domain.Repricing{price("a/n", "a/n@launch#00000001", 1, 9)}, "a/n@launch#00000000+10%#00000000"},
		{[]domain.Repricing{price("a/o", "a/o@launch#0", 1, 9), price("a/m", "a/m@2026-05-02#9", 2, 3), price("a/n", "a/n@2026-05-01#0", 1, 2)}, "a/m@launch#00000001"},
		{[]domain.Repricing{{Model: "a/m", Version: "a/m@launch#9", Until: day(2)}}, "a/m@launch#00000000"},
	} {
		for name, s := range subjects {
			found, err := s.(pricing).ChargedOtherwise(t.Context(), c.prices)
			switch {
			case err != nil:
				t.Errorf("%s %d: %v", name, i, err)
			case found == nil && c.by != "" || found != nil && found.By != c.by:
				t.Errorf("%s %d: %+v, want %q", name, i, found, c.by)
			case found != nil:
				events, err := s.Events(t.Context(), found.Position.Shard, found.Position.Seq-1, 1)
				if err != nil || !events[0].Event.OccurredAt.Equal(found.OccurredAt) {
					t.Errorf("%s %d: at %s is %+v, %v", name, i, found.Position, events, err)
				}
			}
		}
	}
}

// TestChargedOtherwiseSold: on both stores, which charges contradict what is sold: by whom they were paid, by their
// very version; among more of them that only look alike than any page has.
func TestChargedOtherwiseSold(t *testing.T) {
	t.Parallel()
	clock, subjects := timedSubjects(t)
	charge := func(s subject, account string, data domain.CommitData) {
		t.Helper()
		id, op := uuid.New(), settle(uuid.Nil, "1")
		data.Lines, data.CostLines = op.Data.Lines, slices.Clone(op.Data.Lines)
		for i := range data.CostLines {
			data.CostLines[i].PriceVersion = data.ModelServed // of the cost's part, here
		}
		data.Meters = op.Data.Meters
		op.RequestID, op.Data = id, data
		must(t, s, command(account, reserve(id, "1")))
		must(t, s, command(account, op))
	}
	const model, cost = "a/m", "a/m@launch#00000000"
	accounts := []string{"alice", "p_1", "pz1", "bob"}
	for i, at := range []string{"2026-05-01T00:00:00Z", "2026-05-02T00:00:00Z"} {
		clock.set(at)
		for _, s := range subjects {
			for _, account := range accounts {
				if i == 0 {
					mustOpen(t, s, account, "1000")
				}
				charge(s, account, domain.CommitData{PriceVersion: cost + "+1" + fmt.Sprint(i) + "%#" + account, CostVersion: cost})
			}
			for range 4 * chargedPage { // read, and told apart
				charge(s, "bob", domain.CommitData{PriceVersion: cost + "+10%#bob*us#00000000", CostVersion: cost + "*us#00000000", Tags: map[string]string{"price_version": cost}})
			}
			charge(s, "bob", domain.CommitData{PriceVersion: cost + "+10%#bob-50%#00000000", Cache: domain.CacheHit})
			charge(s, "bob", domain.CommitData{PriceVersion: cost + "+10%#bob", CostVersion: cost})
			charge(s, "bob", domain.CommitData{PriceVersion: "a/n@launch#0", ModelServed: cost})
			charge(s, "bob", domain.CommitData{PriceVersion: "a/o@launch#0"})
		}
	}
	day := func(d int) time.Time { return time.Date(2026, 5, d, 0, 0, 0, 0, time.UTC) }
	book, err := domain.NewSellBook(new(domain.PriceBook), domain.SellRules{}, []domain.SellGroup{
		{Name: "one", Accounts: []string{"alice", "carol"}}, {Name: "some", Accounts: []string{"al*", "p_*"}}, {Name: "nobody", Accounts: []string{`a\%`}}})
	if err != nil {
		t.Fatal(err)
	}
	price := func(group, version string, from, until int) domain.Repricing {
		return domain.Repricing{Model: model, Version: version, From: day(from), Until: day(until), Payers: &domain.Payers{Book: book, Group: group}}
	}
	for i, c := range []struct {
		prices []domain.Repricing
		by     string
	}{
		{[]domain.Repricing{price("one", cost+"+11%#alice", 2, 9)}, ""},
		{[]domain.Repricing{price("one", cost+"+11%#alice", 1, 9)}, cost + "+10%#alice"},
		{[]domain.Repricing{price("one", cost+"+10%#alice", 1, 9)}, cost + "+11%#alice"},
		{[]domain.Repricing{price("one", cost, 1, 2)}, cost + "+10%#alice"}, // at cost: its ID begins like what was paid
		{[]domain.Repricing{price("some", cost+"+10%#p_1", 1, 2)}, ""},      // alice is in the first group that names her
		{[]domain.Repricing{price("some", cost+"+12%#0", 1, 9)}, cost + "+11%#p_1"},
		{[]domain.Repricing{price("nobody", cost+"+12%#0", 1, 9)}, ""},
		{[]domain.Repricing{price("", cost+"+10%#bob", 1, 2)}, cost + "+10%#pz1"},
		{[]domain.Repricing{price("", cost+"+10%#pz1", 1, 2)}, cost + "+10%#bob"},
		{[]domain.Repricing{price("", cost+"+10%#bob", 3, 9), price("one", cost+"+11%#alice", 2, 9)}, ""},
		{[]domain.Repricing{price("one", cost+"+11%#alice", 2, 9), price("some", cost+"+10%#0", 2, 9)}, cost + "+11%#p_1"},
		{[]domain.Repricing{price("one", cost+"+11%#alice", 2, 9), {Model: "a/o", Version: "a/o@launch#1", From: day(1), Until: day(2)}}, "a/o@launch#0"}, // a cost is anybody's
	} {
		for name, s := range subjects {
			found, err := s.(pricing).ChargedOtherwise(t.Context(), c.prices)
			if err != nil || found == nil && c.by != "" || found != nil && found.By != c.by {
				t.Errorf("%s %d: %+v, %v, want %q", name, i, found, err, c.by)
			}
		}
	}
}

// TestVerifyPrices: a record that does not follow from the one before is a finding.
func TestVerifyPrices(t *testing.T) {
	t.Parallel()
	p, _ := openPostgres(t)
	record := &domain.PriceRecord{}
	must(t, p, recordCommand(record, record.Next(domain.BookCost, versionsNamed("a/m@launch#a"))))
	if err := p.ReadPrices(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	forged := record.Next(domain.BookCost, versionsNamed("a/m@launch#b"))
	forged.Changes[0].From = "a/m@launch#c"
	must(t, p, recordCommand(record, forged))
	want := "replay " + domain.Position{Shard: domain.ShardOf(domain.PricesAccount, testShards), Seq: 2}.String() + " " + domain.PricesAccount
	if r := mustVerify(t, p.Reader); r.Clean || len(r.Findings) != 1 || places(r.Findings)[0] != want {
		t.Errorf("%+v, want %s", r.Findings, want)
	}
	if err := p.ReadPrices(t.Context(), record); !errors.Is(err, domain.ErrRecord) {
		t.Errorf("it is read as %v", err)
	}
}
