package main

import (
	"context"
	"crypto/sha256"

	"github.com/jackc/pgx/v5/pgxpool"

	"llm-gateway/gateway"
)

// belongings keep in Postgres which account an id of a provider's was given to, by a digest of it. They
// implement gateway.Belongings for all gateways of the database, and are safe for concurrent use. The sweeper
// deletes old ones.
type belongings struct{ pool *pgxpool.Pool }

var _ gateway.Belongings = belongings{}

const (
	// In the order of the digests, so that two claims of the same ids wait for each other and do not lock up.
	claimBelongings = `INSERT INTO provider_belongings (digest, account)
		SELECT DISTINCT d, $2::text FROM unnest($1::bytea[]) d ORDER BY d ON CONFLICT DO NOTHING`

	countForeign = `SELECT count(*) FROM unnest($1::bytea[]) d
		LEFT JOIN provider_belongings b ON b.digest = d AND b.account = $2::text WHERE b.digest IS NULL`
)

// Claim implements gateway.Belongings.
func (b belongings) Claim(ctx context.Context, account, provider string, ids []string) error {
	_, err := b.pool.Exec(ctx, claimBelongings, digestsOf(provider, ids), account)
	return err
}

// Own implements gateway.Belongings.
func (b belongings) Own(ctx context.Context, account, provider string, ids []string) (bool, error) {
	foreign := 0
	err := b.pool.QueryRow(ctx, countForeign, digestsOf(provider, ids), account).Scan(&foreign)
	return err == nil && foreign == 0, err
}

// digestsOf hides ids: whoever reads the table can name nothing by it. Providers' names have no zero byte.
func digestsOf(provider string, ids []string) [][]byte {
	digests := make([][]byte, len(ids))
	for i, id := range ids {
		d := sha256.Sum256([]byte(provider + "\x00" + id))
		digests[i] = d[:]
	}
	return digests
}
