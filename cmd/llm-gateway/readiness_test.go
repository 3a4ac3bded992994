package main

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestReadyWithout: with BILLING_DEGRADED=spool a Postgres that hangs is not waited for until a balancer gives up.
func TestReadyWithout(t *testing.T) {
	t.Parallel()
	hangs := func(ctx context.Context) error { <-ctx.Done(); return errPostgresAway }
	other := errors.New("another clock")
	fine := func(context.Context) error { return nil }
	for _, c := range []struct {
		name        string
		ready       func(context.Context) error
		redis, want error
		took        time.Duration
	}{
		{"Postgres answers", fine, errors.New("away"), nil, 0},
		{"Postgres hangs", hangs, nil, nil, spoolPatience},
		{"both are away", hangs, errors.New("away"), errPostgresAway, spoolPatience},
		{"Postgres answers, and not well", func(context.Context) error { return other }, nil, other, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second) // a balancer's usual patience
			defer cancel()
			began := time.Now()
			err := readyWithout(c.ready, func(ctx context.Context) error { return errors.Join(c.redis, ctx.Err()) })(ctx)
			if took := time.Since(began); !errors.Is(err, c.want) || took != c.took {
				t.Errorf("%s: %v after %s", c.name, err, took)
			}
		})
	}
}
