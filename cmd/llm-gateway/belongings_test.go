package main

import (
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"llm-gateway/gateway/belongtest"
	"llm-gateway/ledger"
	"llm-gateway/migrations/pgtest"
)

// TestBelongings: what Postgres knows of whose a provider's ids are is what the gateway's tests take it for, by
// the rights that serve has.
func TestBelongings(t *testing.T) {
	t.Parallel()
	config, err := pgxpool.ParseConfig(pgtest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig.RuntimeParams["role"] = ledger.ServiceRole
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	belongtest.Conform(t, belongings{pool})
}
