-- +goose Up

-- A reservation that was released because its owner had gone is expired, and may be charged late, once:
-- late_seq is that overage. Of those that were released before, nobody can be late any more.
ALTER TABLE ledger_reservations DROP CONSTRAINT ledger_reservations_state_check;
ALTER TABLE ledger_reservations ADD COLUMN late_seq bigint NOT NULL DEFAULT 0;
ALTER TABLE ledger_reservations ADD CONSTRAINT ledger_reservations_state_check
    CHECK (state IN ('open', 'settled', 'released', 'expired', 'late'));
ALTER TABLE ledger_reservations ADD CONSTRAINT ledger_reservations_late_check CHECK ((state = 'late') = (late_seq <> 0));
-- What a sweeper looks for: few, wherever gateways live.
CREATE INDEX ledger_reservations_open ON ledger_reservations (owner) WHERE state = 'open';

-- Scope `request` is a client's Idempotency-Key; seq is the reserve of the request that took it last.
ALTER TABLE ledger_idempotency DROP CONSTRAINT ledger_idempotency_scope_check;
ALTER TABLE ledger_idempotency ADD CONSTRAINT ledger_idempotency_scope_check CHECK (scope IN ('reference', 'request'));
GRANT UPDATE (seq) ON ledger_idempotency TO llm_gateway;

-- The answers of requests that had an idempotency key, for whoever asks again. They are operational:
-- no event tells them, and after a while they are deleted.
CREATE TABLE ledger_responses (
    shard      integer     NOT NULL,
    request_id uuid        NOT NULL,
    body       bytea       NOT NULL,
    broken     boolean     NOT NULL,
    stored_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (shard, request_id)
);
CREATE INDEX ledger_responses_stored ON ledger_responses (stored_at);
GRANT SELECT, INSERT, DELETE ON ledger_responses TO llm_gateway;

-- +goose Down
-- +goose StatementBegin
DO $$ BEGIN RAISE EXCEPTION 'a ledger is never migrated down: restore a backup instead'; END $$;
-- +goose StatementEnd
