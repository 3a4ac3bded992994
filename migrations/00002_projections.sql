-- +goose Up

-- Who should do what only one process at a time needs to do: `relay:<cluster>:<topic>:<shard>`,
-- `projector`, `rebuild:<projection>`. A lease is a hint: what it is about is fenced elsewhere.
CREATE TABLE ledger_leases (
    name  text        NOT NULL PRIMARY KEY,
    owner uuid        NOT NULL,
    until timestamptz NOT NULL
) WITH (fillfactor = 50);

-- How far each projection has come in each shard: the last event it applied and that event's hash.
-- A projection's table and its positions move in one transaction. next_offset is where in the
-- partition reading goes on: a hint, for offsets end with their topic. projection is a table's name.
CREATE TABLE projection_positions (
    projection  text        NOT NULL,
    shard       integer     NOT NULL,
    seq         bigint      NOT NULL CHECK (seq >= 0),
    hash        bytea       NOT NULL CHECK (octet_length(hash) = 32),
    occurred_at timestamptz NOT NULL,
    next_offset bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (projection, shard)
) WITH (fillfactor = 20);

-- Makes an empty table of a projection under any name: the live one bears the projection's own, and
-- a rebuild fills another beside it.
-- +goose StatementBegin
CREATE FUNCTION create_projection(projection text, table_name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    CASE projection
    WHEN 'balances' THEN
        EXECUTE format('CREATE TABLE %I (
            shard        integer        NOT NULL,
            account      text           NOT NULL,
            available    numeric(38,12) NOT NULL,
            reserved     numeric(38,12) NOT NULL,
            credit_limit numeric(38,12) NOT NULL,
            frozen       boolean        NOT NULL,
            last_seq     bigint         NOT NULL,
            PRIMARY KEY (shard, account)
        ) WITH (fillfactor = 50)', table_name);
    WHEN 'transactions' THEN
        EXECUTE format('CREATE TABLE %I (
            shard       integer        NOT NULL,
            account     text           NOT NULL,
            seq         bigint         NOT NULL,
            id          uuid           NOT NULL,
            kind        text           NOT NULL,
            amount      numeric(38,12) NOT NULL,
            reference   text           NOT NULL,
            reason      text           NOT NULL,
            surface     text           NOT NULL,
            model       text           NOT NULL,
            request_id  uuid,
            occurred_at timestamptz    NOT NULL,
            PRIMARY KEY (shard, account, seq)
        )', table_name);
    WHEN 'stats' THEN
        EXECUTE format('CREATE TABLE %I (
            shard                 integer        NOT NULL,
            account               text           NOT NULL,
            hour                  timestamptz    NOT NULL,
            model                 text           NOT NULL,
            provider              text           NOT NULL,
            requests              bigint         NOT NULL,
            meter_input           bigint         NOT NULL,
            meter_cached_input    bigint         NOT NULL,
            meter_cache_write_5m  bigint         NOT NULL,
            meter_cache_write_1h  bigint         NOT NULL,
            meter_audio_in        bigint         NOT NULL,
            meter_cached_audio_in bigint         NOT NULL,
            meter_image_in        bigint         NOT NULL,
            meter_output          bigint         NOT NULL,
            meter_reasoning       bigint         NOT NULL,
            meter_audio_out       bigint         NOT NULL,
            meter_image_out       bigint         NOT NULL,
            meter_web_search      bigint         NOT NULL,
            meter_requests        bigint         NOT NULL,
            amount                numeric(38,12) NOT NULL,
            PRIMARY KEY (shard, account, hour, model, provider)
        ) WITH (fillfactor = 50)', table_name);
    ELSE
        RAISE EXCEPTION 'there is no projection %', projection USING ERRCODE = 'invalid_parameter_value';
    END CASE;
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO llm_gateway', table_name);
END $$;
-- +goose StatementEnd
SELECT create_projection(name, name) FROM unnest(ARRAY['balances', 'transactions', 'stats']) AS p(name);

GRANT SELECT, INSERT, UPDATE, DELETE ON ledger_leases TO llm_gateway;
GRANT SELECT, INSERT, UPDATE, DELETE ON projection_positions TO llm_gateway;

-- +goose Down
-- +goose StatementBegin
DO $$ BEGIN RAISE EXCEPTION 'a ledger is never migrated down: restore a backup instead'; END $$;
-- +goose StatementEnd
