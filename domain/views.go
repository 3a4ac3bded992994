package domain

import (
	"errors"
	"time"

	"github.com/google/uuid"
)

// What consumers make of events: the pure part of each projection, and the forms in which what they
// keep is read again. One event at a time, from nothing but the event.

// Change is what an event does to its account's two balances.
func (e *Event) Change() (available, reserved Amount) {
	switch e.Kind {
	case KindCredit:
		return e.Amount, Amount{}
	case KindDebit, KindOverage:
		return e.Amount.Neg(), Amount{}
	case KindReserve:
		return e.Amount.Neg(), e.Amount
	case KindCommit:
		return Amount{}, e.Amount.Neg()
	case KindRefund:
		return e.Amount, e.Amount.Neg()
	}
	return Amount{}, Amount{}
}

// Transaction is a line of an account's statement: money that came in or went out. An account's
// transactions sum to its available + reserved.
type Transaction struct {
	Seq        int64
	ID         uuid.UUID // of the event
	Kind       Kind      // credit, debit, commit or overage
	Amount     Amount    // what went out is negative
	Reference  string    // of a credit or debit
	Reason     string    // of a credit, debit or overage
	Surface    string    // of a charge
	Model      string    // of a charge, as the client named it
	RequestID  uuid.UUID // of a charge; uuid.Nil otherwise
	OccurredAt time.Time
}

// TransactionOf tells an event as a line of a statement; false where it is none, because it moves
// money within the account, or none.
func TransactionOf(e *Event) (Transaction, bool) {
	t := Transaction{Seq: e.Seq, ID: e.ID, Kind: e.Kind, Amount: e.Amount, RequestID: e.RequestID, OccurredAt: e.OccurredAt}
	switch d := e.Data.(type) {
	case *MovementData:
		t.Reference, t.Reason = d.Reference, d.Reason
		if e.Kind == KindDebit {
			t.Amount = e.Amount.Neg()
		}
	case *CommitData:
		t.Amount, t.Surface, t.Model = e.Amount.Neg(), d.Surface, d.ModelRequested
	case *OverageData:
		t.Amount, t.Surface, t.Model, t.Reason = e.Amount.Neg(), d.Surface, d.ModelRequested, string(d.Reason)
	default:
		return Transaction{}, false
	}
	return t, true
}

// Consumption is what one or many charged requests used, were charged, and cost the operator.
type Consumption struct {
	Requests int64 // charged requests
	Meters   Meters
	Amount   Amount // what customers paid
	Cost     Amount // what providers charge: the sum of the cost lines
}

// Add sums two consumptions.
func (c Consumption) Add(o Consumption) Consumption {
	c.Requests += o.Requests
	for m, n := range o.Meters {
		c.Meters[m] += n
	}
	c.Amount, c.Cost = c.Amount.Add(o.Amount), c.Cost.Add(o.Cost)
	return c
}

// ConsumptionKey is what consumption is kept by. Hour is when it was charged, in UTC, cut to the hour;
// Model is the one that was served, or where that is not known the one asked for.
type ConsumptionKey struct {
	Account  string
	Hour     time.Time
	Model    string
	Provider string
}

// ConsumptionOf tells what an event adds to the statistics; false where nothing. The overage of a
// charge that exceeded its reserve repeats the meters and the cost lines of the commit before it: it adds
// its amount only, so that all amounts sum to the revenue, all meters to what providers reported, and all
// costs to what they charge.
func ConsumptionOf(e *Event) (ConsumptionKey, Consumption, bool) {
	var d *CommitData
	repeats := false
	switch data := e.Data.(type) {
	case *CommitData:
		d = data
	case *OverageData:
		d, repeats = &data.CommitData, data.Reason == OverageBeyondBound
	default:
		return ConsumptionKey{}, Consumption{}, false
	}
	key := ConsumptionKey{Account: e.Account, Hour: e.OccurredAt.Truncate(time.Hour), Model: d.ModelServed, Provider: d.Provider}
	if key.Model == "" {
		key.Model = d.ModelRequested
	}
	if repeats {
		return key, Consumption{Amount: e.Amount}, true
	}
	return key, Consumption{Requests: 1, Meters: d.Meters, Amount: e.Amount, Cost: sumLines(d.CostLines)}, true
}

func sumLines(lines []Line) (sum Amount) {
	for i := range lines {
		sum = sum.Add(lines[i].Amount)
	}
	return sum
}

// StatsGroup is what statistics are grouped by.
type StatsGroup string

// The groups of GET /billing/stats, and of GET /admin/stats, which has accounts too. Hours and days are UTC.
const (
	StatsByHour     StatsGroup = "hour"
	StatsByDay      StatsGroup = "day"
	StatsByModel    StatsGroup = "model"
	StatsByProvider StatsGroup = "provider"
	StatsByAccount  StatsGroup = "account"
)

// StatsQuery asks for an account's consumption charged in [From, To), which are whole hours.
type StatsQuery struct {
	From, To time.Time
	Group    StatsGroup
}

// StatsRow is the consumption of one group: Start of an hour or day, or Name of a model, provider or account.
type StatsRow struct {
	Start time.Time
	Name  string
	Consumption
}

// Reading says how current is what was read from a projection.
type Reading struct {
	Position Position  // the last event of the account's shard that it includes; Seq 0: none yet
	AsOf     time.Time // when that event occurred
	Behind   int64     // how many events of that shard the ledger has beyond it
}

// CachedBalance is what a cache knows of an account's projected balance.
type CachedBalance struct {
	Spendable Amount // available + credit limit, rounded down
	Available Amount // to the last digit
	Reserved  Amount // the same
	Frozen    bool
	Position  Position // the account's last event that it includes
	Epoch     int64    // of the shard: how often the ledger was recovered
}

// ErrBalanceUnknown says that a cache does not know an account's balance, so that nobody can say what may
// be spent of it.
var ErrBalanceUnknown = errors.New("the balance is not known")
