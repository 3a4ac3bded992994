-- +goose Up

-- One row: which ledger this is. Fixed when the ledger is initialised.
CREATE TABLE ledger_meta (
    singleton  boolean     NOT NULL DEFAULT true PRIMARY KEY CHECK (singleton),
    id         uuid        NOT NULL,
    shards     integer     NOT NULL CHECK (shards BETWEEN 1 AND 1024),
    currency   text        NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The head of each shard. Appending locks it, which serialises writers and makes seq gapless.
-- fillfactor: a head is updated by every batch; free space keeps those updates on its page.
CREATE TABLE ledger_shards (
    shard     integer     NOT NULL PRIMARY KEY,
    last_seq  bigint      NOT NULL CHECK (last_seq >= 0),
    last_hash bytea       NOT NULL CHECK (octet_length(last_hash) = 32),
    last_time timestamptz NOT NULL,
    epoch     bigint      NOT NULL DEFAULT 0
) WITH (fillfactor = 10);

-- The events: immutable. payload is the event; the other columns repeat parts of it for queries and
-- constraints, and `ledger verify` proves that they agree with it.
CREATE TABLE ledger_events (
    shard       integer        NOT NULL,
    seq         bigint         NOT NULL CHECK (seq >= 1),
    schema      integer        NOT NULL,
    id          uuid           NOT NULL,
    kind        text           NOT NULL CHECK (kind IN ('credit', 'debit', 'reserve', 'commit', 'refund', 'overage', 'account')),
    account     text           NOT NULL,
    request_id  uuid,
    debit       text           NOT NULL,
    credit      text           NOT NULL,
    amount      numeric(38,12) NOT NULL CHECK (amount >= 0),
    currency    text           NOT NULL,
    occurred_at timestamptz    NOT NULL,
    payload     bytea          NOT NULL CHECK (octet_length(payload) <= 65536),
    hash        bytea          NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (shard, seq),
    CHECK ((request_id IS NOT NULL) = (kind IN ('reserve', 'commit', 'refund', 'overage')))
);
-- The ids are how a repeated command finds its first outcome.
CREATE UNIQUE INDEX ledger_events_id ON ledger_events (shard, id);
-- The account's history, newest first. One request's events are found by its reservation: every index
-- here is paid for by every event.
CREATE INDEX ledger_events_account ON ledger_events (shard, account, seq);

-- The balances that the events add up to, as of the account's last event.
CREATE TABLE ledger_accounts (
    shard        integer        NOT NULL,
    account      text           NOT NULL,
    available    numeric(38,12) NOT NULL,
    reserved     numeric(38,12) NOT NULL CHECK (reserved >= 0),
    credit_limit numeric(38,12) NOT NULL CHECK (credit_limit >= 0),
    frozen       boolean        NOT NULL,
    last_seq     bigint         NOT NULL,
    PRIMARY KEY (shard, account)
) WITH (fillfactor = 50);

-- The life of each request's money. held is what of it is still in reserved.
CREATE TABLE ledger_reservations (
    shard        integer        NOT NULL,
    request_id   uuid           NOT NULL,
    account      text           NOT NULL,
    amount       numeric(38,12) NOT NULL CHECK (amount >= 0),
    held         numeric(38,12) NOT NULL CHECK (held >= 0 AND held <= amount),
    state        text           NOT NULL CHECK (state IN ('open', 'settled', 'released')),
    reserved_seq bigint         NOT NULL,
    settled_seq  bigint         NOT NULL,
    owner        uuid           NOT NULL,
    PRIMARY KEY (shard, request_id),
    CHECK ((state = 'open') = (settled_seq = 0)),
    CHECK (state = 'open' OR held = 0)
) WITH (fillfactor = 80);

-- What makes a named movement happen once: scope `reference` is a credit's or debit's reference.
CREATE TABLE ledger_idempotency (
    shard   integer NOT NULL,
    account text    NOT NULL,
    scope   text    NOT NULL CHECK (scope IN ('reference')),
    key     text    NOT NULL,
    seq     bigint  NOT NULL,
    PRIMARY KEY (shard, account, scope, key)
);

-- API keys: only the hash is here; the key itself is shown once, when it is created.
CREATE TABLE api_keys (
    id         uuid        NOT NULL PRIMARY KEY,
    hash       bytea       NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    hint       text        NOT NULL,
    account    text        NOT NULL,
    name       text        NOT NULL,
    role       text        NOT NULL CHECK (role IN ('user', 'admin')),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    revoked_at timestamptz
);
CREATE INDEX api_keys_account ON api_keys (account);

-- +goose StatementBegin
CREATE FUNCTION ledger_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'ledger_events is immutable: % is refused', TG_OP
        USING ERRCODE = 'restrict_violation',
              HINT = 'Corrections are new events (account credit --corrects, account debit --corrects).';
END $$;
-- +goose StatementEnd
CREATE TRIGGER ledger_events_immutable BEFORE UPDATE OR DELETE ON ledger_events
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER ledger_events_no_truncate BEFORE TRUNCATE ON ledger_events
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();

-- The role that `serve` works as. It may insert and select events and nothing else; what the
-- events add up to it keeps up to date, and can delete none of it.
-- +goose StatementBegin
DO $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'llm_gateway') THEN
        BEGIN
            CREATE ROLE llm_gateway NOLOGIN;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- another database of this cluster was migrated at the same moment
        END;
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO llm_gateway', current_schema());
END $$;
-- +goose StatementEnd
GRANT SELECT ON ledger_meta TO llm_gateway;
GRANT SELECT, UPDATE ON ledger_shards TO llm_gateway;
GRANT SELECT, INSERT ON ledger_events TO llm_gateway;
GRANT SELECT, INSERT, UPDATE ON ledger_accounts TO llm_gateway;
GRANT SELECT, INSERT, UPDATE ON ledger_reservations TO llm_gateway;
GRANT SELECT, INSERT ON ledger_idempotency TO llm_gateway;
GRANT SELECT, INSERT, UPDATE ON api_keys TO llm_gateway;

-- +goose Down
-- +goose StatementBegin
DO $$ BEGIN RAISE EXCEPTION 'a ledger is never migrated down: restore a backup instead'; END $$;
-- +goose StatementEnd
