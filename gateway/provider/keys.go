package provider

import (
	"context"
	"errors"
	"math/rand/v2"
)

// Keyed is one of several ways to the same provider: a key of its own, say.
type Keyed struct {
	Provider
	Weight int // its share of the calls; 0: only after the others have failed
}

// Keys is a Provider that spreads its calls over several keys, by weight. Which key a call gets depends on
// its Request's Order and Attempt alone, so that the attempts of one call go to different keys, and each key
// once before any of them twice.
type Keys []Keyed

// NewKeys needs at least one key; all of them have the same Name.
func NewKeys(keys []Keyed) (Provider, error) {
	if len(keys) == 0 {
		return nil, errors.New("a provider without keys")
	}
	for _, k := range keys {
		if k.Weight < 0 || k.Name() != keys[0].Name() {
			return nil, errors.New("a key of negative weight, or of another provider")
		}
	}
	if len(keys) == 1 {
		return keys[0].Provider, nil
	}
	return Keys(keys), nil
}

// Name implements Provider.
func (k Keys) Name() string { return k[0].Name() }

// Prepare implements Provider.
func (k Keys) Prepare(r *Request) (Terms, error) { return k[0].Prepare(r) }

// Complete implements Provider.
func (k Keys) Complete(ctx context.Context, r Request) (*Completion, error) {
	return k.of(r).Complete(ctx, r)
}

// Stream implements Provider.
func (k Keys) Stream(ctx context.Context, r Request) (Stream, error) { return k.of(r).Stream(ctx, r) }

// of draws the key of an attempt: the keys are drawn by weight without putting back, in an order that is
// the same for all attempts of one Order.
func (k Keys) of(r Request) Provider {
	draw := rand.New(rand.NewPCG(r.Order, 0)) //nolint:gosec // it spreads load and guards nothing
	left := append(Keys(nil), k...)
	for range r.Attempt % len(k) {
		i := Draw(left, weightOfKey, draw)
		left = append(left[:i], left[i+1:]...)
	}
	return left[Draw(left, weightOfKey, draw)].Provider
}

func weightOfKey(k Keyed) int { return k.Weight }

// Draw is the index of one of them, each with a chance as great as its weight. Where none has any it is the
// first, so that those without weight come in their order, after all others.
func Draw[T any](of []T, weight func(T) int, from *rand.Rand) int {
	total := 0
	for _, one := range of {
		total += weight(one)
	}
	if total == 0 {
		return 0
	}
	n := from.IntN(total)
	for i, one := range of {
		if n -= weight(one); n < 0 {
			return i
		}
	}
	return len(of) - 1
}
