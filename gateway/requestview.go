package gateway

import (
	"encoding/json"
	"fmt"
	"slices"

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

// costFields are the fields of an event's data that say what a request cost the operator.
var costFields = []string{"cost_lines", "cost_version"}

// withholdCost leaves out of the events what the request cost, where that is not what the customer pays, and says
// so. The hashes are those of the whole events: who may see all of them can prove them.
func (v *RequestView) withholdCost(events []domain.Witnessed) error {
	for i := range events {
		d := commitOf(&events[i].Event)
		if d == nil || d.CostVersion == "" && domain.SameLines(d.Lines, d.CostLines) {
			continue
		}
		payload, err := withoutCost(events[i].Payload)
		if err != nil {
			return fmt.Errorf("withholding the cost at %s: %w", events[i].Event.Position(), err)
		}
		v.Events[i].Payload, v.Events[i].Withheld = payload, costFields
		if v.Withheld == nil {
			v.Withheld = slices.Clone(costFields)
		}
	}
	return nil
}

// commitOf is what an event says of a charge; nil where it charges nothing.
func commitOf(e *domain.Event) *domain.CommitData {
	switch d := e.Data.(type) {
	case *domain.CommitData:
		return d
	case *domain.OverageData:
		return &d.CommitData
	}
	return nil
}

// withoutCost is an event without its costFields.
func withoutCost(payload []byte) ([]byte, error) {
	var event, data map[string]json.RawMessage
	if err := json.Unmarshal(payload, &event); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(event["data"], &data); err != nil {
		return nil, err
	}
	for _, field := range costFields {
		delete(data, field)
	}
	left, err := json.Marshal(data)
	if err != nil {
		return nil, err
	}
	event["data"] = left
	return json.Marshal(event)
}

func linesView(lines []domain.Line) []lineView {
	out := make([]lineView, len(lines))
	for i, l := range lines {
		out[i] = lineView{l.Meter, l.Quantity, l.UnitPrice, number(l.Amount), l.PriceVersion}
	}
	return out
}
