package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"llm-gateway/domain"
	"llm-gateway/gateway"
)

// keyTime bounds one statement on the keys.
const keyTime = 5 * time.Second

// maxKeys bounds a listing.
const maxKeys = 10_000

// keyStore keeps API keys in Postgres: their hashes, never the keys. It implements gateway.Keys and
// is safe for concurrent use.
type keyStore struct{ pool *pgxpool.Pool }

var _ gateway.Keys = keyStore{}

// apiKey is what is known of a key.
type apiKey struct {
	ID        uuid.UUID  `json:"id"`
	Account   string     `json:"account"`
	Name      string     `json:"name"`
	Role      string     `json:"role"`
	Hint      string     `json:"hint"` // the key's beginning and end
	CreatedAt time.Time  `json:"created_at"`
	RevokedAt *time.Time `json:"revoked_at"` // null: it is valid
	keyQuotas
}

// keyQuotas are a key's own limits, beside its account's; 0 = none.
type keyQuotas struct {
	RequestsPerMinute int64 `json:"requests_per_minute"`
	RequestsPerHour   int64 `json:"requests_per_hour"`
	TokensPerMinute   int64 `json:"tokens_per_minute"`
}

// Lookup finds who a key speaks for: nil where there is no such key, or it is revoked.
func (s keyStore) Lookup(ctx context.Context, hash [sha256.Size]byte) (*gateway.Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, keyTime)
	defer cancel()
	var id [16]byte
	var out gateway.Identity
	err := s.pool.QueryRow(ctx, `SELECT id, account, role, requests_per_minute, requests_per_hour, tokens_per_minute
		FROM api_keys WHERE hash = $1 AND revoked_at IS NULL`, hash[:]).Scan(&id, &out.Account, &out.Role,
		&out.Quotas[domain.RequestsMinute], &out.Quotas[domain.RequestsHour], &out.Quotas[domain.TokensMinute])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	out.KeyID = uuid.UUID(id).String()
	return &out, err
}

// create stores a new key by its hash and fills in when that was.
func (s keyStore) create(ctx context.Context, k *apiKey, hash [sha256.Size]byte) error {
	ctx, cancel := context.WithTimeout(ctx, keyTime)
	defer cancel()
	return s.pool.QueryRow(ctx, `INSERT INTO api_keys (id, hash, hint, account, name, role, requests_per_minute, requests_per_hour, tokens_per_minute)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING created_at`,
		[16]byte(k.ID), hash[:], k.Hint, k.Account, k.Name, k.Role, k.RequestsPerMinute, k.RequestsPerHour, k.TokensPerMinute).Scan(&k.CreatedAt)
}

const keyColumns = `id, account, name, role, hint, created_at, revoked_at, requests_per_minute, requests_per_hour, tokens_per_minute`

// list returns the keys of an account, or all of them, the oldest first.
func (s keyStore) list(ctx context.Context, account string) ([]apiKey, error) {
	ctx, cancel := context.WithTimeout(ctx, keyTime)
	defer cancel()
	rows, err := s.pool.Query(ctx, `SELECT `+keyColumns+` FROM api_keys WHERE $1::text = '' OR account = $1::text
		ORDER BY created_at, id LIMIT $2`, account, maxKeys)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (apiKey, error) { return scanKey(row) })
}

// revoke ends a key. again says that it had been revoked before, at the time in the answer; the
// answer is nil where there is no such key.
func (s keyStore) revoke(ctx context.Context, id uuid.UUID) (k *apiKey, again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, keyTime)
	defer cancel()
	revoked, err := scanKey(s.pool.QueryRow(ctx, `UPDATE api_keys SET revoked_at = clock_timestamp()
		WHERE id = $1 AND revoked_at IS NULL RETURNING `+keyColumns, [16]byte(id)))
	if !errors.Is(err, pgx.ErrNoRows) {
		return &revoked, false, err
	}
	revoked, err = scanKey(s.pool.QueryRow(ctx, `SELECT `+keyColumns+` FROM api_keys WHERE id = $1`, [16]byte(id)))
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, false, nil
	}
	return &revoked, true, err
}

func scanKey(row pgx.Row) (apiKey, error) {
	var k apiKey
	var id [16]byte
	err := row.Scan(&id, &k.Account, &k.Name, &k.Role, &k.Hint, &k.CreatedAt, &k.RevokedAt, &k.RequestsPerMinute, &k.RequestsPerHour, &k.TokensPerMinute)
	k.ID, k.CreatedAt = id, k.CreatedAt.UTC()
	if k.RevokedAt != nil {
		*k.RevokedAt = k.RevokedAt.UTC()
	}
	return k, err
}
