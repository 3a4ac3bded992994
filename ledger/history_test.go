package ledger

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
)

// historian is what tells of the past, in both stores.
type historian interface {
	subject
	BalanceAt(ctx context.Context, account string, at time.Time) (domain.Past, error)
	Witnessed(ctx context.Context, account string, id uuid.UUID) ([]domain.Witnessed, error)
}

// TestHistory: what both stores tell of the past is what adding up the events one by one gives.
func TestHistory(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(testing.TB) subject{"memory": memorySubject, "postgres": postgresSubject, "pooled": pooledSubject} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkHistory(t, open(t).(historian))
		})
	}
}

func checkHistory(t *testing.T, s historian) {
	t.Helper()
	accounts := []string{"ann", "ben", "cid", "dan", "eve"} // some share a shard
	for _, account := range accounts {
		mustOpen(t, s, account, "100.000000000001")
	}
	requests := map[uuid.UUID]string{}
	for i, charge := range []string{"0.25", "0", "1", "1.5", "0.000000000001"} { // less, nothing, all, and more than was reserved
		for _, account := range accounts {
			id := uuid.New()
			requests[id] = account
			for _, op := range []domain.Op{reserve(id, "1"), settle(id, charge)} {
				if _, err := s.Append(t.Context(), command(account, op)); err != nil {
					t.Fatalf("%d: %v", i, err)
				}
			}
		}
	}
	for _, account := range accounts {
		checkPast(t, s, account)
	}
	for id, account := range requests {
		checkWitnessed(t, s, account, id)
	}
	if w, err := s.Witnessed(t.Context(), "ann", uuid.New()); err != nil || len(w) != 0 {
		t.Errorf("no request: %v, %v", w, err)
	}
	if past, err := s.BalanceAt(t.Context(), "nobody", time.Now()); err != nil || past.Position.Seq != 0 || !past.Available.IsZero() {
		t.Errorf("nobody: %+v, %v", past, err)
	}
}

// eventsOf are all events of the account's shard.
func eventsOf(t *testing.T, s historian, account string) []domain.Recorded {
	t.Helper()
	all, err := s.Events(t.Context(), domain.ShardOf(account, s.Meta().Shards), 0, MaxEvents)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func checkPast(t *testing.T, s historian, account string) {
	t.Helper()
	var want domain.Past
	want.Position.Shard = domain.ShardOf(account, s.Meta().Shards)
	same := func(at time.Time) {
		got, err := s.BalanceAt(t.Context(), account, at)
		if err != nil || !got.Available.Equal(want.Available) || !got.Reserved.Equal(want.Reserved) || got.Position != want.Position || !got.OccurredAt.Equal(want.OccurredAt) {
			t.Errorf("%s at %s: %+v, %v; want %+v", account, at, got, err, want)
		}
	}
	var last time.Time
	for _, r := range eventsOf(t, s, account) {
		if r.Event.Account != account {
			continue
		}
		if at := r.Event.OccurredAt; at.After(last) { // several events may have one time
			same(at.Add(-time.Microsecond))
			last = at
		}
		want.Balances, want.Position, want.OccurredAt = want.After(&r.Event), r.Event.Position(), r.Event.OccurredAt
	}
	same(last)
	same(last.Add(time.Hour))
	same(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC))
	head, err := s.Account(t.Context(), account)
	if err != nil || !head.Available.Equal(want.Available) || !head.Reserved.Equal(want.Reserved) {
		t.Errorf("%s has %+v now, and its events add up to %+v", account, head, want)
	}
}

func checkWitnessed(t *testing.T, s historian, account string, id uuid.UUID) {
	t.Helper()
	got, err := s.Witnessed(t.Context(), account, id)
	plain, failed := s.Request(t.Context(), account, id)
	if err != nil || failed != nil || len(got) != len(plain) || len(got) < 2 {
		t.Fatalf("%d and %d events, %v, %v", len(got), len(plain), err, failed)
	}
	var sum domain.Balances
	n := 0
	for _, r := range eventsOf(t, s, account) {
		if n < len(got) && r.Event.RequestID == id {
			w := &got[n]
			if string(w.Payload) != string(r.Payload) || w.Hash != r.Hash || w.ChainFault() != "" || fmt.Sprint(w.Before) != fmt.Sprint(sum) {
				t.Errorf("event %d of %s: before %+v, want %+v, fault %q", n, id, w.Before, sum, w.ChainFault())
			}
			n++
		}
		if r.Event.Account == account {
			sum = sum.After(&r.Event)
		}
	}
	if n != len(got) {
		t.Errorf("%d of %d events were found", n, len(got))
	}
}
