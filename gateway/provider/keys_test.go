package provider

import (
	"context"
	"testing"
)

// counted is a key that counts its calls.
type counted struct {
	*Simulated
	calls int
}

func (c *counted) Complete(context.Context, Request) (*Completion, error) {
	c.calls++
	return nil, nil
}

func TestKeysByWeight(t *testing.T) {
	a, b := &counted{}, &counted{}
	keys, err := NewKeys([]Keyed{{a, 3}, {b, 1}})
	if err != nil {
		t.Fatal(err)
	}
	for order := range uint64(4000) {
		if _, err := keys.Complete(t.Context(), Request{Order: order * 7919}); err != nil {
			t.Fatal(err)
		}
	}
	if a.calls < 2850 || a.calls > 3150 || a.calls+b.calls != 4000 {
		t.Errorf("%d and %d calls; want about 3000 and 1000", a.calls, b.calls)
	}
}

func TestAttemptsGoToDifferentKeys(t *testing.T) {
	keys := make([]Keyed, 5)
	for i := range keys {
		keys[i] = Keyed{&counted{}, i + 1}
	}
	p, err := NewKeys(keys)
	if err != nil {
		t.Fatal(err)
	}
	for order := range uint64(50) {
		for attempt := range 5 {
			if _, err := p.Complete(t.Context(), Request{Order: order, Attempt: attempt}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range keys {
			if n := keys[i].Provider.(*counted).calls; n != int(order)+1 {
				t.Fatalf("order %d: key %d was asked %d times", order, i, n)
			}
		}
	}
}

// TestSpareKey: a key without weight is asked when the others have failed.
func TestSpareKey(t *testing.T) {
	a, spare := &counted{}, &counted{}
	keys, err := NewKeys([]Keyed{{spare, 0}, {a, 1}})
	if err != nil {
		t.Fatal(err)
	}
	for order := range uint64(100) {
		for attempt := range 2 {
			if _, err := keys.Complete(t.Context(), Request{Order: order, Attempt: attempt}); err != nil {
				t.Fatal(err)
			}
		}
		if a.calls != int(order)+1 || spare.calls != int(order)+1 {
			t.Fatalf("%d: %d and %d", order, a.calls, spare.calls)
		}
	}
}

func TestNewKeysRefuses(t *testing.T) {
	if _, err := NewKeys(nil); err == nil {
		t.Error("no keys")
	}
	if _, err := NewKeys([]Keyed{{NewSimulated(), -1}}); err == nil {
		t.Error("a negative weight")
	}
	if one, err := NewKeys([]Keyed{{NewSimulated(), 1}}); err != nil || one.Name() != SimulatedName {
		t.Errorf("%v, %v", one, err)
	}
}
