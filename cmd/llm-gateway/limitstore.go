package main

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"llm-gateway/domain"
	"llm-gateway/gateway"
)

// limitTime bounds one statement on the limits of accounts.
const limitTime = 5 * time.Second

// limitStore keeps what limits are set for single accounts, in Postgres. It implements gateway.Overrides and
// is safe for concurrent use.
type limitStore struct{ pool *pgxpool.Pool }

var _ gateway.Overrides = limitStore{}

// Quotas implements gateway.Overrides.
func (s limitStore) Quotas(ctx context.Context, account string) (c domain.QuotaChange, err error) {
	ctx, cancel := context.WithTimeout(ctx, limitTime)
	defer cancel()
	err = s.pool.QueryRow(ctx, `SELECT requests_per_minute, requests_per_hour, tokens_per_minute FROM account_limits
		WHERE account = $1`, account).Scan(&c[domain.RequestsMinute], &c[domain.RequestsHour], &c[domain.TokensMinute])
	if errors.Is(err, pgx.ErrNoRows) {
		return domain.QuotaChange{}, nil
	}
	return c, err
}

// SetQuotas implements gateway.Overrides.
func (s limitStore) SetQuotas(ctx context.Context, account, actor string, c domain.QuotaChange) error {
	_, err := s.set(ctx, account, actor, c, [domain.Windows]bool{true, true, true})
	return err
}

// set sets those limits of an account that are named, and returns all that is set then.
func (s limitStore) set(ctx context.Context, account, actor string, c domain.QuotaChange, named [domain.Windows]bool) (out domain.QuotaChange, err error) {
	if err := c.Check(); err != nil {
		return out, err
	}
	ctx, cancel := context.WithTimeout(ctx, limitTime)
	defer cancel()
	err = s.pool.QueryRow(ctx, `INSERT INTO account_limits AS l (account, changed_by, requests_per_minute, requests_per_hour, tokens_per_minute)
		VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (account) DO UPDATE SET changed_at = clock_timestamp(), changed_by = excluded.changed_by,
			requests_per_minute = CASE WHEN $6 THEN excluded.requests_per_minute ELSE l.requests_per_minute END,
			requests_per_hour = CASE WHEN $7 THEN excluded.requests_per_hour ELSE l.requests_per_hour END,
			tokens_per_minute = CASE WHEN $8 THEN excluded.tokens_per_minute ELSE l.tokens_per_minute END
		RETURNING requests_per_minute, requests_per_hour, tokens_per_minute`,
		account, actor, c[domain.RequestsMinute], c[domain.RequestsHour], c[domain.TokensMinute],
		named[domain.RequestsMinute], named[domain.RequestsHour], named[domain.TokensMinute]).
		Scan(&out[domain.RequestsMinute], &out[domain.RequestsHour], &out[domain.TokensMinute])
	return out, err
}
