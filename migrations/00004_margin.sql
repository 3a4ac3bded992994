-- +goose Up

-- The statistics get what the requests cost the operator, beside what was paid for them.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION create_projection(projection text, table_name text) RETURNS void LANGUAGE plpgsql AS $$
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
            cost                  numeric(38,12) NOT NULL,
            PRIMARY KEY (shard, account, hour, model, provider)
        ) WITH (fillfactor = 50)', table_name);
    ELSE
        RAISE EXCEPTION 'there is no projection %', projection USING ERRCODE = 'invalid_parameter_value';
    END CASE;
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO llm_gateway', table_name);
END $$;
-- +goose StatementEnd

-- Costs are in the events, so the table is made anew from them: it begins empty and without positions, and
-- the projector fills it from the ledger. Until then answers say how far behind they are. The column has no
-- default on purpose: a gateway of an older release, which knows no cost, is refused (its statistics stand
-- still) instead of writing zeros. What an older release's rebuild has begun is dropped, or it would be put in
-- the new table's place. Positions first: the order in which everybody locks.
DELETE FROM projection_positions WHERE projection IN ('stats', 'stats_rebuild');
DROP TABLE IF EXISTS stats_rebuild;
DROP TABLE IF EXISTS stats;
SELECT create_projection('stats', 'stats');

-- +goose Down
-- +goose StatementBegin
DO $$ BEGIN RAISE EXCEPTION 'a ledger is never migrated down: restore a backup instead'; END $$;
-- +goose StatementEnd
