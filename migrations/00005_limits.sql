-- +goose Up

-- Rate limits of single accounts: NULL is what everybody has, 0 is none. They are operational: no event tells
-- them. A row is changed, never deleted.
CREATE TABLE account_limits (
    account             text        NOT NULL PRIMARY KEY,
    requests_per_minute bigint      CHECK (requests_per_minute BETWEEN 0 AND 1000000000),
    requests_per_hour   bigint      CHECK (requests_per_hour BETWEEN 0 AND 1000000000),
    tokens_per_minute   bigint      CHECK (tokens_per_minute BETWEEN 0 AND 1000000000),
    changed_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_by          text        NOT NULL
);
GRANT SELECT, INSERT, UPDATE ON account_limits TO llm_gateway;

-- Those of single API keys, beside their account's: 0 is none.
ALTER TABLE api_keys
    ADD COLUMN requests_per_minute bigint NOT NULL DEFAULT 0 CHECK (requests_per_minute BETWEEN 0 AND 1000000000),
    ADD COLUMN requests_per_hour   bigint NOT NULL DEFAULT 0 CHECK (requests_per_hour BETWEEN 0 AND 1000000000),
    ADD COLUMN tokens_per_minute   bigint NOT NULL DEFAULT 0 CHECK (tokens_per_minute BETWEEN 0 AND 1000000000);

-- +goose Down
-- +goose StatementBegin
DO $$ BEGIN RAISE EXCEPTION 'a ledger is never migrated down: restore a backup instead'; END $$;
-- +goose StatementEnd
