package sweep

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"llm-gateway/domain"
	"llm-gateway/ledger/lease"
)

// What is tidied up.
const (
	responsesKept = domain.KeyTTL + time.Hour // the answers of keys; the hour is for clocks that differ
	ownersKept    = 24 * time.Hour            // leases of owners, after their end
	// belongingsKept is longer than providers keep what they have stored: 30 days.
	belongingsKept = 32 * 24 * time.Hour
)

// NewStore looks in Postgres.
func NewStore(pool lease.Pool) Store { return postgres{pool} }

type postgres struct{ pool lease.Pool }

// selectLook visits each owner that has open reservations once, by the partial index, and the rows of
// orphans only: what the living have open is not read, and neither is what was settled. The
// ORDER BY within a single owner is there for the planner: it shall take the index, however old its
// statistics are. Oldest first would mean to read and sort all that there are; every one has its turn.
const selectLook = `WITH RECURSIVE owners (owner) AS (
		(SELECT r.owner FROM ledger_reservations r WHERE r.state = 'open' ORDER BY r.owner LIMIT 1)
		UNION ALL
		SELECT (SELECT r.owner FROM ledger_reservations r WHERE r.state = 'open' AND r.owner > o.owner ORDER BY r.owner LIMIT 1)
		FROM owners o WHERE o.owner IS NOT NULL
	), orphans AS (
		SELECT r.request_id, r.account, r.owner
		FROM owners o CROSS JOIN LATERAL (
			SELECT r.request_id, r.account, r.owner FROM ledger_reservations r
			WHERE r.state = 'open' AND r.owner BETWEEN o.owner AND o.owner ORDER BY r.owner LIMIT $1::int) r
		WHERE NOT EXISTS (SELECT FROM ledger_leases l WHERE l.name = 'owner:' || o.owner::text AND l.until >= now())
		LIMIT $1::int
	)
	SELECT pg_postmaster_start_time(), clock_timestamp(), o.request_id, o.account, o.owner
	FROM (SELECT) one LEFT JOIN orphans o ON true`

// Look implements Store.
func (p postgres) Look(ctx context.Context, limit int) (Look, error) {
	var look Look
	rows, err := p.pool.Query(ctx, selectLook, limit)
	if err != nil {
		return Look{}, fmt.Errorf("looking for orphans: %w", err)
	}
	var id, owner pgtype.UUID
	var account pgtype.Text
	_, err = pgx.ForEachRow(rows, []any{&look.Started, &look.Now, &id, &account, &owner}, func() error {
		if id.Valid {
			look.Orphans = append(look.Orphans, Orphan{RequestID: id.Bytes, Account: account.String, Owner: owner.Bytes})
		}
		return nil
	})
	if err != nil {
		return Look{}, fmt.Errorf("looking for orphans: %w", err)
	}
	return look, nil
}

const (
	// By place and not by key, for which the planner would read the whole table. What is at a place is what
	// the statement saw there: answers are never updated, and a later row is not visible to it.
	deleteResponses = `DELETE FROM ledger_responses WHERE ctid = ANY (ARRAY(
		SELECT a.ctid FROM ledger_responses a
		WHERE a.stored_at < now() - $1::bigint * interval '1 microsecond' ORDER BY a.stored_at LIMIT $2::int))`

	// By place too, for the same reason.
	deleteBelongings = `DELETE FROM provider_belongings WHERE ctid = ANY (ARRAY(
		SELECT b.ctid FROM provider_belongings b
		WHERE b.claimed_at < now() - $1::bigint * interval '1 microsecond' ORDER BY b.claimed_at LIMIT $2::int))`

	// A lease that has run out says no more than one that is not there. It stays while it tells whose
	// open reservations there are.
	deleteOwners = `DELETE FROM ledger_leases WHERE name IN (
		SELECT l.name FROM ledger_leases l
		WHERE l.name LIKE 'owner:%' AND l.until < now() - $1::bigint * interval '1 microsecond'
			AND NOT EXISTS (SELECT FROM ledger_reservations r WHERE r.state = 'open' AND r.owner = l.owner)
		LIMIT $2::int) AND until < now() - $1::bigint * interval '1 microsecond'`
)

// Tidy implements Store.
func (p postgres) Tidy(ctx context.Context, limit int) (more bool, err error) {
	for _, d := range []struct {
		sql  string
		kept time.Duration
	}{{deleteResponses, responsesKept}, {deleteOwners, ownersKept}, {deleteBelongings, belongingsKept}} {
		tag, err := p.pool.Exec(ctx, d.sql, d.kept.Microseconds(), limit)
		if err != nil {
			return false, fmt.Errorf("tidying up: %w", err)
		}
		more = more || tag.RowsAffected() >= int64(limit)
	}
	return more, nil
}
