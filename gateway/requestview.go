package gateway

import (
	"fmt"

	"llm-gateway/domain"
)

// chainValid says that an event's hash is that of its stored bytes and the hash before.
const chainValid = "valid"

// balancesView is an account's balances around an event; numbers, as in GET /billing/balance.
type balancesView struct {
	Balance  number `json:"balance"` // available
	Reserved number `json:"reserved"`
}

func viewOf(b domain.Balances) balancesView {
	return balancesView{number(b.Available), number(b.Reserved)}
}

// NewRequestView tells the life of one request from its events, of which there is at least one.
func NewRequestView(events []domain.Witnessed, currency string) *RequestView {
	first := &events[0].Event
	v := &RequestView{RequestID: first.RequestID, UserID: first.Account, State: domain.ReservationOpen, Currency: currency, Chain: chainValid,
		Bound: domain.Bound{Lines: []domain.Line{}}, Meters: map[domain.Meter]int64{}, Lines: []lineView{},
		Attempts: []domain.Attempt{}}
	for i := range events {
		v.add(&events[i])
	}
	return v
}

// witness shows an event with what stood before and after it.
func (v *RequestView) witness(w *domain.Witnessed) {
	e := &w.Event
	shown := eventView{Position: e.Position().String(), Kind: e.Kind, Amount: number(e.Amount), OccurredAt: e.OccurredAt,
		Hash: fmt.Sprintf("%x", w.Hash), Payload: w.Payload, Chain: chainValid, Before: viewOf(w.Before), After: viewOf(w.After())}
	if w.Previous != nil {
		shown.PreviousHash = fmt.Sprintf("%x", *w.Previous)
	}
	if fault := w.ChainFault(); fault != "" {
		shown.Chain = fault
		if v.Chain == chainValid {
			v.Chain = shown.Position + ": " + fault
		}
	}
	v.Events = append(v.Events, shown)
}

func linesView(lines []domain.Line) []lineView {
	out := make([]lineView, len(lines))
	for i, l := range lines {
		out[i] = lineView{l.Meter, l.Quantity, l.UnitPrice, number(l.Amount), l.PriceVersion}
	}
	return out
}
