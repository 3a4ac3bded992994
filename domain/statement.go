package domain

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// ErrStatement is wrapped where events do not make a statement: they are another account's, of another
// time, or do not add up to the balances that they stand between.
var ErrStatement = errors.New("the events make no statement")

// ErrStatementLong says that a month has more lines than a statement may have.
var ErrStatementLong = errors.New("too many lines for one statement")

// MaxStatementLines bounds each list of a statement: its movements, and its charges by day and model.
const MaxStatementLines = 100_000

// StatementBalance is an account at the edge of a month. Balance is all that is the account's:
// Available + Reserved.
type StatementBalance struct {
	Balance   Amount `json:"balance"`
	Available Amount `json:"available"`
	Reserved  Amount `json:"reserved"`
}

// NewStatementBalance is the balance that two parts make.
func NewStatementBalance(available, reserved Amount) StatementBalance {
	return StatementBalance{available.Add(reserved), available, reserved}
}

func (b StatementBalance) equal(o StatementBalance) bool {
	return b.Available.Equal(o.Available) && b.Reserved.Equal(o.Reserved)
}

// StatementLine is one movement into or out of an account that is no charge. Amount is what it did to the
// balance: what went out is negative.
type StatementLine struct {
	Date      string    `json:"date"` // in the statement's time zone
	Time      time.Time `json:"time"` // UTC
	Position  string    `json:"position"`
	Kind      Kind      `json:"kind"` // credit or debit
	Reference string    `json:"reference"`
	Reason    string    `json:"reason,omitempty"`
	Corrects  string    `json:"corrects,omitempty"` // the position of what this corrects
	Amount    Amount    `json:"amount"`
}

// StatementCharge is what requests to one model cost, on one day or in the whole month. Amount is what
// they did to the balance, so it is 0 or negative.
type StatementCharge struct {
	Date         string `json:"date,omitempty"` // in the statement's time zone; "" of the whole month
	Model        string `json:"model"`          // the one that was served
	Requests     int64  `json:"requests"`
	InputTokens  int64  `json:"input_tokens"`
	OutputTokens int64  `json:"output_tokens"`
	Amount       Amount `json:"amount"`
}

// StatementRefund is what was reserved for requests and given back. It moves within the balance, and does
// not change it.
type StatementRefund struct {
	Reason RefundReason `json:"reason"`
	Count  int64        `json:"count"`
	Amount Amount       `json:"amount"`
}

// StatementSums are what each part of a statement did to the balance: the opening balance and all of them
// are the closing balance.
type StatementSums struct {
	Credits     Amount `json:"credits"`
	Debits      Amount `json:"debits"`
	Corrections Amount `json:"corrections"`
	Charges     Amount `json:"charges"`
}

// StatementHolds is what happened to reserved money, which is a part of the balance: opening.reserved +
// Reserved - Charged - Refunded = closing.reserved. Charged is the part of the charges that had been
// reserved for.
type StatementHolds struct {
	Reserved Amount `json:"reserved"`
	Charged  Amount `json:"charged"`
	Refunded Amount `json:"refunded"`
}

// Statement is what happened to an account's money in a month, made from its events. The statement of a
// month that is complete is the same whenever it is made, and its closing balance is the opening balance
// of the month that follows in the same time zone.
type Statement struct {
	Account     string            `json:"account"`
	Currency    string            `json:"currency"`
	Month       string            `json:"month"`
	TimeZone    string            `json:"time_zone"`
	From        time.Time         `json:"from"`
	To          time.Time         `json:"to"`       // the first instant after the month
	Complete    bool              `json:"complete"` // no event can come into the month any more
	Opening     StatementBalance  `json:"opening"`
	Credits     []StatementLine   `json:"credits"`
	Charges     []StatementCharge `json:"charges"` // by day and model
	ByModel     []StatementCharge `json:"charges_by_model"`
	Refunds     []StatementRefund `json:"refunds"` // within the balance
	Debits      []StatementLine   `json:"debits"`
	Corrections []StatementLine   `json:"corrections"`
	Closing     StatementBalance  `json:"closing"`
	Sums        StatementSums     `json:"sums"`
	Holds       StatementHolds    `json:"reservations"`

	month   Month
	charges map[dayModel]*Consumption
	refunds map[RefundReason]*StatementRefund
}

type dayModel struct{ day, model string }

// NewStatement begins the statement of an account's month. Add takes the month's events, in order; Finish
// ends it.
func NewStatement(account, currency string, m Month, opening StatementBalance) *Statement {
	return &Statement{
		Account: account, Currency: currency, Month: m.Name, TimeZone: m.Zone.String(), From: m.From, To: m.To, Opening: opening,
		Credits: []StatementLine{}, Charges: []StatementCharge{}, ByModel: []StatementCharge{}, Refunds: []StatementRefund{},
		Debits: []StatementLine{}, Corrections: []StatementLine{},
		month: m, charges: map[dayModel]*Consumption{}, refunds: map[RefundReason]*StatementRefund{},
	}
}

// Add takes one event of the account and the month. Reserves need not be given: Finish is told their sum.
func (s *Statement) Add(e *Event) error {
	if e.Account != s.Account || e.OccurredAt.Before(s.From) || !e.OccurredAt.Before(s.To) {
		return fmt.Errorf("%w: %s of %s at %s is not of %s in %s", ErrStatement, e.Position(), e.Account,
			e.OccurredAt.Format(timeForm), s.Account, s.Month)
	}
	switch d := e.Data.(type) {
	case *MovementData:
		return s.addMovement(e, d)
	case *CommitData:
		s.Holds.Charged = s.Holds.Charged.Add(e.Amount)
		return s.addCharge(e)
	case *OverageData:
		return s.addCharge(e)
	case *RefundData:
		s.addRefund(e, d)
	}
	return nil
}

func (s *Statement) addMovement(e *Event, d *MovementData) error {
	amount, _ := e.Change()
	line := StatementLine{Date: s.month.Day(e.OccurredAt), Time: e.OccurredAt, Position: e.Position().String(), Kind: e.Kind,
		Reference: d.Reference, Reason: d.Reason, Corrects: d.Corrects, Amount: amount}
	list, sum := &s.Credits, &s.Sums.Credits
	switch {
	case d.Corrects != "":
		list, sum = &s.Corrections, &s.Sums.Corrections
	case e.Kind == KindDebit:
		list, sum = &s.Debits, &s.Sums.Debits
	}
	if len(*list) >= MaxStatementLines {
		return fmt.Errorf("%w: more than %d movements", ErrStatementLong, MaxStatementLines)
	}
	*list, *sum = append(*list, line), sum.Add(amount)
	return nil
}

func (s *Statement) addCharge(e *Event) error {
	key, used, _ := ConsumptionOf(e)
	at := dayModel{s.month.Day(e.OccurredAt), key.Model}
	have := s.charges[at]
	if have == nil {
		if len(s.charges) >= MaxStatementLines {
			return fmt.Errorf("%w: more than %d charges by day and model", ErrStatementLong, MaxStatementLines)
		}
		have = &Consumption{}
		s.charges[at] = have
	}
	*have = have.Add(used)
	s.Sums.Charges = s.Sums.Charges.Sub(e.Amount)
	return nil
}

func (s *Statement) addRefund(e *Event, d *RefundData) {
	have := s.refunds[d.Reason]
	if have == nil {
		have = &StatementRefund{Reason: d.Reason}
		s.refunds[d.Reason] = have
	}
	have.Count++
	have.Amount = have.Amount.Add(e.Amount)
	s.Holds.Refunded = s.Holds.Refunded.Add(e.Amount)
}

// StatementEnd is what is known of a month beside its events.
type StatementEnd struct {
	Closing  StatementBalance // the account after the month's last event
	Reserved Amount           // the sum of the month's reserves
	Complete bool             // no event can come into the month any more
}

// Finish ends a statement. It is ErrStatement where what was added does not lead from the opening to the
// closing balance, to the last digit: then no statement is better than this one.
func (s *Statement) Finish(end StatementEnd) error {
	s.Closing, s.Complete, s.Holds.Reserved = end.Closing, end.Complete, end.Reserved
	for at, used := range s.charges {
		s.Charges = append(s.Charges, chargeOf(at, *used))
	}
	slices.SortFunc(s.Charges, func(a, b StatementCharge) int {
		return cmp.Or(cmp.Compare(a.Date, b.Date), cmp.Compare(a.Model, b.Model))
	})
	s.sumModels()
	for _, r := range s.refunds {
		s.Refunds = append(s.Refunds, *r)
	}
	slices.SortFunc(s.Refunds, func(a, b StatementRefund) int { return cmp.Compare(a.Reason, b.Reason) })
	return s.check()
}

func chargeOf(at dayModel, used Consumption) StatementCharge {
	return StatementCharge{Date: at.day, Model: at.model, Requests: used.Requests, InputTokens: used.Meters.InputTokens(),
		OutputTokens: used.Meters.OutputTokens(), Amount: used.Amount.Neg()}
}

// sumModels tells the charges by model alone, the dearest first.
func (s *Statement) sumModels() {
	sums := map[string]Consumption{}
	for at, used := range s.charges {
		sums[at.model] = sums[at.model].Add(*used)
	}
	for model, used := range sums {
		s.ByModel = append(s.ByModel, chargeOf(dayModel{"", model}, used))
	}
	slices.SortFunc(s.ByModel, func(a, b StatementCharge) int {
		return cmp.Or(a.Amount.Cmp(b.Amount), cmp.Compare(a.Model, b.Model))
	})
}

func (s *Statement) check() error {
	sum := s.Opening.Balance.Add(s.Sums.Credits).Add(s.Sums.Debits).Add(s.Sums.Corrections).Add(s.Sums.Charges)
	held := s.Opening.Reserved.Add(s.Holds.Reserved).Sub(s.Holds.Charged).Sub(s.Holds.Refunded)
	if want := NewStatementBalance(sum.Sub(held), held); !want.equal(s.Closing) {
		return fmt.Errorf("%w: the events of %s in %s lead to %s, of which %s reserved, and the closing balance is %s, of which %s reserved",
			ErrStatement, s.Account, s.Month, sum, held, s.Closing.Balance, s.Closing.Reserved)
	}
	return nil
}
