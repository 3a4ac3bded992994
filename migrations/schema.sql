-- What the migrations make, for reading: `go test ./migrations -update` writes it, a test keeps it
-- true. It is not run; goose's own table is left out.

GRANT USAGE ON SCHEMA public TO llm_gateway;

CREATE OR REPLACE FUNCTION create_projection(projection text, table_name text)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
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
END $function$;

CREATE OR REPLACE FUNCTION ledger_refuse_change()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
    RAISE EXCEPTION 'ledger_events is immutable: % is refused', TG_OP
        USING ERRCODE = 'restrict_violation',
              HINT = 'Corrections are new events (account credit --corrects, account debit --corrects).';
END $function$;

CREATE TABLE account_limits (
    account text NOT NULL,
    requests_per_minute bigint,
    requests_per_hour bigint,
    tokens_per_minute bigint,
    changed_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
    changed_by text NOT NULL,
    CONSTRAINT account_limits_pkey PRIMARY KEY (account),
    CONSTRAINT account_limits_requests_per_hour_check CHECK (((requests_per_hour >= 0) AND (requests_per_hour <= 1000000000))),
    CONSTRAINT account_limits_requests_per_minute_check CHECK (((requests_per_minute >= 0) AND (requests_per_minute <= 1000000000))),
    CONSTRAINT account_limits_tokens_per_minute_check CHECK (((tokens_per_minute >= 0) AND (tokens_per_minute <= 1000000000)))
);

GRANT INSERT, SELECT, UPDATE ON account_limits TO llm_gateway;

CREATE TABLE api_keys (
    id uuid NOT NULL,
    hash bytea NOT NULL,
    hint text NOT NULL,
    account text NOT NULL,
    name text NOT NULL,
    role text NOT NULL,
    created_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
    revoked_at timestamp with time zone,
    requests_per_minute bigint NOT NULL DEFAULT 0,
    requests_per_hour bigint NOT NULL DEFAULT 0,
    tokens_per_minute bigint NOT NULL DEFAULT 0,
    CONSTRAINT api_keys_hash_key UNIQUE (hash),
    CONSTRAINT api_keys_pkey PRIMARY KEY (id),
    CONSTRAINT api_keys_hash_check CHECK ((octet_length(hash) = 32)),
    CONSTRAINT api_keys_requests_per_hour_check CHECK (((requests_per_hour >= 0) AND (requests_per_hour <= 1000000000))),
    CONSTRAINT api_keys_requests_per_minute_check CHECK (((requests_per_minute >= 0) AND (requests_per_minute <= 1000000000))),
    CONSTRAINT api_keys_role_check CHECK ((role = ANY (ARRAY['user'::text, 'admin'::text]))),
    CONSTRAINT api_keys_tokens_per_minute_check CHECK (((tokens_per_minute >= 0) AND (tokens_per_minute <= 1000000000)))
);

CREATE INDEX api_keys_account ON api_keys USING btree (account);

GRANT INSERT, SELECT, UPDATE ON api_keys TO llm_gateway;

CREATE TABLE balances (
    shard integer NOT NULL,
    account text NOT NULL,
    available numeric(38,12) NOT NULL,
    reserved numeric(38,12) NOT NULL,
    credit_limit numeric(38,12) NOT NULL,
    frozen boolean NOT NULL,
    last_seq bigint NOT NULL,
    CONSTRAINT balances_pkey PRIMARY KEY (shard, account)
) WITH (fillfactor=50);

GRANT DELETE, INSERT, SELECT, UPDATE ON balances TO llm_gateway;

CREATE TABLE ledger_accounts (
    shard integer NOT NULL,
    account text NOT NULL,
    available numeric(38,12) NOT NULL,
    reserved numeric(38,12) NOT NULL,
    credit_limit numeric(38,12) NOT NULL,
    frozen boolean NOT NULL,
    last_seq bigint NOT NULL,
    CONSTRAINT ledger_accounts_pkey PRIMARY KEY (shard, account),
    CONSTRAINT ledger_accounts_credit_limit_check CHECK ((credit_limit >= (0)::numeric)),
    CONSTRAINT ledger_accounts_reserved_check CHECK ((reserved >= (0)::numeric))
) WITH (fillfactor=50);

GRANT INSERT, SELECT, UPDATE ON ledger_accounts TO llm_gateway;

CREATE TABLE ledger_events (
    shard integer NOT NULL,
    seq bigint NOT NULL,
    schema integer NOT NULL,
    id uuid NOT NULL,
    kind text NOT NULL,
    account text NOT NULL,
    request_id uuid,
    debit text NOT NULL,
    credit text NOT NULL,
    amount numeric(38,12) NOT NULL,
    currency text NOT NULL,
    occurred_at timestamp with time zone NOT NULL,
    payload bytea NOT NULL,
    hash bytea NOT NULL,
    CONSTRAINT ledger_events_pkey PRIMARY KEY (shard, seq),
    CONSTRAINT ledger_events_amount_check CHECK ((amount >= (0)::numeric)),
    CONSTRAINT ledger_events_check CHECK (((request_id IS NOT NULL) = (kind = ANY (ARRAY['reserve'::text, 'commit'::text, 'refund'::text, 'overage'::text])))),
    CONSTRAINT ledger_events_hash_check CHECK ((octet_length(hash) = 32)),
    CONSTRAINT ledger_events_kind_check CHECK ((kind = ANY (ARRAY['credit'::text, 'debit'::text, 'reserve'::text, 'commit'::text, 'refund'::text, 'overage'::text, 'account'::text]))),
    CONSTRAINT ledger_events_payload_check CHECK ((octet_length(payload) <= 65536)),
    CONSTRAINT ledger_events_seq_check CHECK ((seq >= 1))
);

CREATE INDEX ledger_events_account ON ledger_events USING btree (shard, account, seq);

CREATE UNIQUE INDEX ledger_events_id ON ledger_events USING btree (shard, id);

CREATE TRIGGER ledger_events_immutable BEFORE DELETE OR UPDATE ON ledger_events FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();

CREATE TRIGGER ledger_events_no_truncate BEFORE TRUNCATE ON ledger_events FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();

GRANT INSERT, SELECT ON ledger_events TO llm_gateway;

CREATE TABLE ledger_idempotency (
    shard integer NOT NULL,
    account text NOT NULL,
    scope text NOT NULL,
    key text NOT NULL,
    seq bigint NOT NULL,
    CONSTRAINT ledger_idempotency_pkey PRIMARY KEY (shard, account, scope, key),
    CONSTRAINT ledger_idempotency_scope_check CHECK ((scope = ANY (ARRAY['reference'::text, 'request'::text])))
);

GRANT INSERT, SELECT ON ledger_idempotency TO llm_gateway;

CREATE TABLE ledger_leases (
    name text NOT NULL,
    owner uuid NOT NULL,
    until timestamp with time zone NOT NULL,
    CONSTRAINT ledger_leases_pkey PRIMARY KEY (name)
) WITH (fillfactor=50);

GRANT DELETE, INSERT, SELECT, UPDATE ON ledger_leases TO llm_gateway;

CREATE TABLE ledger_meta (
    singleton boolean NOT NULL DEFAULT true,
    id uuid NOT NULL,
    shards integer NOT NULL,
    currency text NOT NULL,
    created_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT ledger_meta_pkey PRIMARY KEY (singleton),
    CONSTRAINT ledger_meta_currency_check CHECK ((currency ~ '^[A-Z]{3}$'::text)),
    CONSTRAINT ledger_meta_shards_check CHECK (((shards >= 1) AND (shards <= 1024))),
    CONSTRAINT ledger_meta_singleton_check CHECK (singleton)
);

GRANT SELECT ON ledger_meta TO llm_gateway;

CREATE TABLE ledger_reservations (
    shard integer NOT NULL,
    request_id uuid NOT NULL,
    account text NOT NULL,
    amount numeric(38,12) NOT NULL,
    held numeric(38,12) NOT NULL,
    state text NOT NULL,
    reserved_seq bigint NOT NULL,
    settled_seq bigint NOT NULL,
    owner uuid NOT NULL,
    late_seq bigint NOT NULL DEFAULT 0,
    CONSTRAINT ledger_reservations_pkey PRIMARY KEY (shard, request_id),
    CONSTRAINT ledger_reservations_amount_check CHECK ((amount >= (0)::numeric)),
    CONSTRAINT ledger_reservations_check CHECK (((held >= (0)::numeric) AND (held <= amount))),
    CONSTRAINT ledger_reservations_check1 CHECK (((state = 'open'::text) = (settled_seq = 0))),
    CONSTRAINT ledger_reservations_check2 CHECK (((state = 'open'::text) OR (held = (0)::numeric))),
    CONSTRAINT ledger_reservations_late_check CHECK (((state = 'late'::text) = (late_seq <> 0))),
    CONSTRAINT ledger_reservations_state_check CHECK ((state = ANY (ARRAY['open'::text, 'settled'::text, 'released'::text, 'expired'::text, 'late'::text])))
) WITH (fillfactor=80);

CREATE INDEX ledger_reservations_open ON ledger_reservations USING btree (owner) WHERE (state = 'open'::text);

GRANT INSERT, SELECT, UPDATE ON ledger_reservations TO llm_gateway;

CREATE TABLE ledger_responses (
    shard integer NOT NULL,
    request_id uuid NOT NULL,
    body bytea NOT NULL,
    broken boolean NOT NULL,
    stored_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT ledger_responses_pkey PRIMARY KEY (shard, request_id)
);

CREATE INDEX ledger_responses_stored ON ledger_responses USING btree (stored_at);

GRANT DELETE, INSERT, SELECT ON ledger_responses TO llm_gateway;

CREATE TABLE ledger_shards (
    shard integer NOT NULL,
    last_seq bigint NOT NULL,
    last_hash bytea NOT NULL,
    last_time timestamp with time zone NOT NULL,
    epoch bigint NOT NULL DEFAULT 0,
    CONSTRAINT ledger_shards_pkey PRIMARY KEY (shard),
    CONSTRAINT ledger_shards_last_hash_check CHECK ((octet_length(last_hash) = 32)),
    CONSTRAINT ledger_shards_last_seq_check CHECK ((last_seq >= 0))
) WITH (fillfactor=10);

GRANT SELECT, UPDATE ON ledger_shards TO llm_gateway;

CREATE TABLE projection_positions (
    projection text NOT NULL,
    shard integer NOT NULL,
    seq bigint NOT NULL,
    hash bytea NOT NULL,
    occurred_at timestamp with time zone NOT NULL,
    next_offset bigint NOT NULL DEFAULT 0,
    CONSTRAINT projection_positions_pkey PRIMARY KEY (projection, shard),
    CONSTRAINT projection_positions_hash_check CHECK ((octet_length(hash) = 32)),
    CONSTRAINT projection_positions_seq_check CHECK ((seq >= 0))
) WITH (fillfactor=20);

GRANT DELETE, INSERT, SELECT, UPDATE ON projection_positions TO llm_gateway;

CREATE TABLE provider_belongings (
    digest bytea NOT NULL,
    account text NOT NULL,
    claimed_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT provider_belongings_pkey PRIMARY KEY (digest),
    CONSTRAINT provider_belongings_digest_check CHECK ((octet_length(digest) = 32))
);

CREATE INDEX provider_belongings_claimed ON provider_belongings USING btree (claimed_at);

GRANT DELETE, INSERT, SELECT ON provider_belongings TO llm_gateway;

CREATE TABLE stats (
    shard integer NOT NULL,
    account text NOT NULL,
    hour timestamp with time zone NOT NULL,
    model text NOT NULL,
    provider text NOT NULL,
    requests bigint NOT NULL,
    meter_input bigint NOT NULL,
    meter_cached_input bigint NOT NULL,
    meter_cache_write_5m bigint NOT NULL,
    meter_cache_write_1h bigint NOT NULL,
    meter_audio_in bigint NOT NULL,
    meter_cached_audio_in bigint NOT NULL,
    meter_image_in bigint NOT NULL,
    meter_output bigint NOT NULL,
    meter_reasoning bigint NOT NULL,
    meter_audio_out bigint NOT NULL,
    meter_image_out bigint NOT NULL,
    meter_web_search bigint NOT NULL,
    meter_requests bigint NOT NULL,
    amount numeric(38,12) NOT NULL,
    cost numeric(38,12) NOT NULL,
    CONSTRAINT stats_pkey PRIMARY KEY (shard, account, hour, model, provider)
) WITH (fillfactor=50);

GRANT DELETE, INSERT, SELECT, UPDATE ON stats TO llm_gateway;

CREATE TABLE transactions (
    shard integer NOT NULL,
    account text NOT NULL,
    seq bigint NOT NULL,
    id uuid NOT NULL,
    kind text NOT NULL,
    amount numeric(38,12) NOT NULL,
    reference text NOT NULL,
    reason text NOT NULL,
    surface text NOT NULL,
    model text NOT NULL,
    request_id uuid,
    occurred_at timestamp with time zone NOT NULL,
    CONSTRAINT transactions_pkey PRIMARY KEY (shard, account, seq)
);

GRANT DELETE, INSERT, SELECT, UPDATE ON transactions TO llm_gateway;
