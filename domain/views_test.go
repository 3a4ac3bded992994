package domain

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

// checkViews drives the bookkeeper and holds what consumers make of its events against the tallies
// that it keeps from the meaning of events alone.
func checkViews(t *rapid.T) {
	k := newBookkeeper(t)
	for range rapid.IntRange(1, 60).Draw(t, "commands") {
		k.do(rapid.SampledFrom([]string{"alice", "bob"}).Draw(t, "account"), ops().Draw(t, "op"))
	}
	sums, changes, revenue, spent := map[string]Amount{}, map[string]Account{}, Zero, Zero
	var cost, costs Amount
	var requests, commits int64
	for _, e := range k.events {
		available, reserved := e.Change()
		a := changes[e.Account]
		changes[e.Account] = Account{Available: a.Available.Add(available), Reserved: a.Reserved.Add(reserved)}
		if line, ok := TransactionOf(e); ok {
			sums[e.Account] = sums[e.Account].Add(line.Amount)
			if line.ID != e.ID || line.Seq != e.Seq || line.Kind != e.Kind {
				t.Fatalf("%+v of %+v", line, e)
			}
		}
		if _, used, ok := ConsumptionOf(e); ok {
			requests += used.Requests
			spent, cost = spent.Add(used.Amount), cost.Add(used.Cost)
		}
		if d, over := e.Data.(*OverageData); e.Kind == KindCommit || over && d.Reason != OverageBeyondBound {
			commits++ // a charge that stands alone
			d, _ := e.Data.(*CommitData)
			if over {
				d = &e.Data.(*OverageData).CommitData
			}
			for _, line := range d.CostLines { // once a request, however much of it was an overage
				costs = costs.Add(line.Amount)
			}
		}
	}
	for name, a := range k.books.Accounts {
		tally := k.tallies[name]
		revenue = revenue.Add(tally.commits).Add(tally.overages)
		if !sums[name].Equal(a.Available.Add(a.Reserved)) {
			t.Fatalf("the transactions of %s sum to %s, it has %s and %s", name, sums[name], a.Available, a.Reserved)
		}
		if c := changes[name]; !c.Available.Equal(a.Available) || !c.Reserved.Equal(a.Reserved) {
			t.Fatalf("the changes of %s sum to %s and %s, it has %s and %s", name, c.Available, c.Reserved, a.Available, a.Reserved)
		}
	}
	if !spent.Equal(revenue) || requests != commits || !cost.Equal(costs) {
		t.Fatalf("consumption: %d requests for %s at %s; events: %d charges for %s at %s", requests, spent, cost, commits, revenue, costs)
	}
}

func TestViews(t *testing.T) {
	t.Parallel()
	rapid.Check(t, checkViews)
}

// TestConsumptionOf: the overage of a charge beyond its reserve adds its amount and nothing else, one
// that stands alone is a request; the hour is cut in UTC; the served model is what counts.
func TestConsumptionOf(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 23, 23, 59, 59, 999_999_000, time.UTC)
	data := CommitData{ModelRequested: "asked", ModelServed: "served", Provider: "openai", Meters: Meters{Input: 7, Output: 3, Requests: 1},
		CostLines: []Line{{Meter: Input, Amount: MustAmount("0.75")}, {Meter: Output, Amount: MustAmount("0.000000000001")}}}
	cost := MustAmount("0.750000000001")
	unnamed := data
	unnamed.ModelServed = ""
	hour := at.Truncate(time.Hour)
	for _, tc := range []struct {
		name  string
		event Event
		model string
		want  Consumption
		ok    bool
	}{
		{"commit", Event{Kind: KindCommit, Data: &data}, "served", Consumption{1, data.Meters, MustAmount("2"), cost}, true},
		{"no served model", Event{Kind: KindCommit, Data: &unnamed}, "asked", Consumption{1, data.Meters, MustAmount("2"), cost}, true},
		{"beyond the bound", Event{Kind: KindOverage, Data: &OverageData{OverageBeyondBound, data}}, "served", Consumption{Amount: MustAmount("2")}, true},
		{"late", Event{Kind: KindOverage, Data: &OverageData{OverageLate, data}}, "served", Consumption{1, data.Meters, MustAmount("2"), cost}, true},
		{"spooled", Event{Kind: KindOverage, Data: &OverageData{OverageSpooled, data}}, "served", Consumption{1, data.Meters, MustAmount("2"), cost}, true},
		{"refund", Event{Kind: KindRefund, Data: &RefundData{Reason: RefundRemainder}}, "", Consumption{}, false},
		{"credit", Event{Kind: KindCredit, Data: &MovementData{}}, "", Consumption{}, false},
	} {
		e := tc.event
		e.Account, e.Amount, e.OccurredAt = "alice", MustAmount("2"), at
		key, got, ok := ConsumptionOf(&e)
		if ok != tc.ok || got.Requests != tc.want.Requests || got.Meters != tc.want.Meters || !got.Amount.Equal(tc.want.Amount) || !got.Cost.Equal(tc.want.Cost) {
			t.Errorf("%s: %+v, %v", tc.name, got, ok)
		}
		if want := (ConsumptionKey{"alice", hour, tc.model, "openai"}); ok && key != want {
			t.Errorf("%s: kept by %+v, want %+v", tc.name, key, want)
		}
	}
	sum := Consumption{1, data.Meters, MustAmount("2"), cost}.Add(Consumption{2, Meters{Input: 1, ImageOut: 4}, MustAmount("0.5"), MustAmount("3")})
	if want := (Meters{Input: 8, Output: 3, Requests: 1, ImageOut: 4}); sum.Requests != 3 || sum.Meters != want || sum.Amount.String() != "2.5" || sum.Cost.String() != "3.750000000001" {
		t.Errorf("sum: %+v", sum)
	}
}

// TestTransactionOf: what a line of a statement says, kind by kind.
func TestTransactionOf(t *testing.T) {
	t.Parallel()
	request := uuid.New()
	commit := CommitData{Surface: "chat_completions", ModelRequested: "asked", ModelServed: "served"}
	for _, tc := range []struct {
		event Event
		want  Transaction
		ok    bool
	}{
		{Event{Kind: KindCredit, Data: &MovementData{Reference: "r", Reason: "why"}}, Transaction{Amount: MustAmount("2"), Reference: "r", Reason: "why"}, true},
		{Event{Kind: KindDebit, Data: &MovementData{Reference: "r"}}, Transaction{Amount: MustAmount("-2"), Reference: "r"}, true},
		{Event{Kind: KindCommit, RequestID: request, Data: &commit}, Transaction{Amount: MustAmount("-2"), Surface: "chat_completions", Model: "asked", RequestID: request}, true},
		{Event{Kind: KindOverage, RequestID: request, Data: &OverageData{OverageLate, commit}}, Transaction{Amount: MustAmount("-2"), Reason: "late", Surface: "chat_completions", Model: "asked", RequestID: request}, true},
		{Event{Kind: KindReserve, RequestID: request, Data: &ReserveData{}}, Transaction{}, false},
		{Event{Kind: KindRefund, RequestID: request, Data: &RefundData{}}, Transaction{}, false},
		{Event{Kind: KindAccount, Data: &AccountData{}}, Transaction{}, false},
	} {
		e := tc.event
		e.Amount, e.Seq, e.ID = MustAmount("2"), 5, uuid.New()
		got, ok := TransactionOf(&e)
		want := tc.want
		if ok {
			want.Kind, want.Seq, want.ID = e.Kind, e.Seq, e.ID
		}
		if ok != tc.ok || !got.Amount.Equal(want.Amount) {
			t.Errorf("%s: %+v, %v", e.Kind, got, ok)
		}
		got.Amount, want.Amount = Zero, Zero
		if got != want {
			t.Errorf("%s: %+v, want %+v", e.Kind, got, want)
		}
	}
}
