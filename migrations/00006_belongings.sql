-- +goose Up

-- Which account an id of a provider's was given to: by the operator's one key whoever knows an id would be
-- given what it names. digest is SHA-256 of the provider's name, a zero byte and the id. They are
-- operational: no event tells them, and they are deleted when providers no longer keep what they name.
CREATE TABLE provider_belongings (
    digest     bytea       NOT NULL PRIMARY KEY CHECK (octet_length(digest) = 32),
    account    text        NOT NULL,
    claimed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX provider_belongings_claimed ON provider_belongings (claimed_at);
GRANT SELECT, INSERT, DELETE ON provider_belongings TO llm_gateway;

-- +goose Down
-- +goose StatementBegin
DO $$ BEGIN RAISE EXCEPTION 'a ledger is never migrated down: restore a backup instead'; END $$;
-- +goose StatementEnd
