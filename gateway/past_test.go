package gateway_test

import (
	"encoding/hex"
	"fmt"
	"net/url"
	"testing"
	"time"

	"llm-gateway/domain"
)

// stepping is a clock that goes on by a second whenever it is looked at.
func stepping(from time.Time) func() time.Time {
	var ticks int64
	mu := make(chan struct{}, 1)
	return func() time.Time {
		mu <- struct{}{}
		defer func() { <-mu }()
		ticks++
		return from.Add(time.Duration(ticks) * time.Second)
	}
}

// TestBalanceAt: at each event's time the balance is what all events up to it add up to, and just before it
// what those before it do.
func TestBalanceAt(t *testing.T) {
	t.Parallel()
	began := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	e := start(t, options{ledgerNow: stepping(began)})
	e.chat("lea", chatBody("sim-flat", "x", ""))
	e.chat("lea", chatBody("sim-small", "sim:status=500", ""))
	e.append("lea", domain.Credit{Amount: domain.MustAmount("5.000000000001"), Data: domain.MovementData{Reference: "r", Actor: "test"}})
	shard := domain.ShardOf("lea", testShards)
	events, err := e.memory.Events(t.Context(), shard, 0, 100)
	if err != nil || len(events) < 7 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	at := func(moment time.Time) answer {
		return e.get("lea", "/billing/balance?at="+url.QueryEscape(moment.Format(time.RFC3339Nano)))
	}
	check := func(moment time.Time, want domain.Balances, position string) {
		a := at(moment)
		if a.status != 200 || a.json("balance").Raw != want.Available.String() || a.json("reserved").Raw != want.Reserved.String() || a.json("position").String() != position {
			t.Errorf("at %s: %d %s, want %+v at %s", moment, a.status, a.body, want, position)
		}
	}
	var sum domain.Balances
	last := ""
	for i := range events {
		event := &events[i].Event
		if i == 0 || events[i-1].Event.OccurredAt.Before(event.OccurredAt) {
			check(event.OccurredAt.Add(-time.Microsecond), sum, last)
		}
		sum, last = sum.After(event), event.Position().String()
		if i == len(events)-1 || event.OccurredAt.Before(events[i+1].Event.OccurredAt) {
			check(event.OccurredAt, sum, last)
			check(event.OccurredAt.In(time.FixedZone("", 7200)), sum, last)
		}
	}
	if a := at(began); masked(a.body) != `{"user_id":"lea","at":"TIME","balance":0,"reserved":0,"currency":"USD","position":null,"occurred_at":null}` {
		t.Error(a.body)
	}
	for _, bad := range []string{"", "yesterday", "2026-03-01", "2026-13-01T00:00:00Z", "1772323200", "2026-03-01T00:00:00", "9999-12-31T00:00:00Z", "\x00"} {
		a := e.get("lea", "/billing/balance?at="+url.QueryEscape(bad))
		checkError(t, bad, a, 400, "invalid_request_error", "invalid_value")
	}
}

// TestRequestWitnessed: the view tells the balances around each event, what the provider reported, and
// whether the chain holds.
func TestRequestWitnessed(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	asked := e.chat("max", chatBody("sim-small", "one two three sim:tokens=10", `,"max_tokens":20`))
	v := e.get("max", "/billing/requests/"+asked.id().String())
	events := v.json("events").Array()
	if len(events) != 3 || v.json("chain").Str != "valid" || v.json("overage").Str != "0" || v.json("attempts.#").Int() != 1 || v.json("attempts.0.status").Int() != 200 {
		t.Fatal(v.body)
	}
	if v.json("reported.prompt_tokens").Int() != v.json("meters.input").Int() || v.json("reported.completion_tokens").Int() != 10 {
		t.Errorf("reported %s, understood %s", v.json("reported").Raw, v.json("meters").Raw)
	}
	account, err := e.memory.Account(t.Context(), "max")
	if err != nil {
		t.Fatal(err)
	}
	for i, event := range events {
		if event.Get("chain").Str != "valid" {
			t.Errorf("event %d: %s", i, event.Raw)
		}
		if i > 0 && (event.Get("before").Raw != events[i-1].Get("after").Raw || event.Get("previous_hash").Str != events[i-1].Get("hash").Str) {
			t.Errorf("event %d does not follow: %s after %s", i, event.Raw, events[i-1].Raw)
		}
	}
	first, last := events[0].Get("before"), events[2].Get("after")
	if first.Raw != `{"balance":100,"reserved":0}` || last.Raw != fmt.Sprintf(`{"balance":%s,"reserved":0}`, account.Available) {
		t.Errorf("from %s to %s", first.Raw, last.Raw)
	}
}

// TestChainFault: one byte of the event, of its hash or of the hash before makes the link invalid, as does another
// amount beside them.
func TestChainFault(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	asked := e.chat("ned", chatBody("sim-small", "x", ""))
	events, err := e.memory.Witnessed(t.Context(), "ned", asked.id())
	if err != nil || len(events) != 3 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	for name, break1 := range map[string]func(w *domain.Witnessed){
		"payload":  func(w *domain.Witnessed) { w.Payload[len(w.Payload)/2] ^= 1 },
		"hash":     func(w *domain.Witnessed) { w.Hash[0] ^= 1 },
		"previous": func(w *domain.Witnessed) { w.Previous[31] ^= 1 },
		"amount":   func(w *domain.Witnessed) { w.Column = w.Column.Add(w.Column) },
		"missing":  func(w *domain.Witnessed) { w.Previous = nil },
	} {
		w := events[1]
		w.Payload = append([]byte(nil), w.Payload...)
		w.Previous = new(*w.Previous)
		if fault := w.ChainFault(); fault != "" {
			t.Errorf("sound, and yet %s", fault)
		}
		if break1(&w); w.ChainFault() == "" {
			t.Errorf("%s: %s is taken for valid", name, hex.EncodeToString(w.Hash[:]))
		}
	}
}
