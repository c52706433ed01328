-- Sessions and their rows. No foreign key from session_keys: its check would cost one look-up a row in every commit;
-- rows are only ever written behind an update of their session's row in the same statement, and `check` names orphans.

-- Lengths and ranges are those of domains, not of the tables: Postgres parses every CHECK of a table anew in every statement
-- that updates it, also those of columns that stay as they are, which was a fifth of a commit. A domain's is kept parsed.
CREATE DOMAIN count_from_0 AS bigint CHECK (VALUE >= 0);
CREATE DOMAIN mark_value AS bigint CHECK (VALUE >= 0 AND VALUE < 2305843009213693951); -- below 2^61 - 1
CREATE DOMAIN recent_keys AS bytea CHECK (octet_length(VALUE) % 32 = 0 AND octet_length(VALUE) <= 512);
CREATE DOMAIN identity_hash AS bytea CHECK (octet_length(VALUE) = 16);
CREATE DOMAIN wrapped_data_key AS bytea CHECK (octet_length(VALUE) = 60); -- nonce 12, data key 32, tag 16
CREATE DOMAIN data_key_number AS int CHECK (VALUE >= 0);
CREATE DOMAIN master_key_name AS text CHECK (length(VALUE) = 16);
CREATE DOMAIN tenant_name AS text CHECK (length(VALUE) BETWEEN 1 AND 64);
CREATE DOMAIN session_name AS text COLLATE "C" CHECK (length(VALUE) BETWEEN 1 AND 128);
CREATE DOMAIN holder_name AS text CHECK (length(VALUE) BETWEEN 1 AND 200);
CREATE DOMAIN key_hash AS bytea CHECK (octet_length(VALUE) = 24);
CREATE DOMAIN key_type AS text COLLATE "C" CHECK (length(VALUE) <= 64); -- empty: creds
CREATE DOMAIN sealed_value AS bytea CHECK (octet_length(VALUE) >= 36); -- header 5, nonce 12, id length 2, value 1, tag 16

CREATE TABLE sessions (
    sid              uuid             PRIMARY KEY,
    tenant           tenant_name      NOT NULL,
    name             session_name     NOT NULL,
    version          count_from_0     NOT NULL,
    epoch            count_from_0     NOT NULL,
    lease_holder     holder_name,
    lease_expires    timestamptz,
    master_key_id    master_key_name  NOT NULL,
    dek_id           data_key_number  NOT NULL,
    wrapped_key      wrapped_data_key NOT NULL,
    rows             count_from_0     NOT NULL,
    mark             mark_value       NOT NULL,
    recent           recent_keys      NOT NULL,
    identity_tag     identity_hash,
    paired           boolean          NOT NULL,
    next_pre_key     count_from_0,
    first_unuploaded count_from_0,
    account_sync     count_from_0,
    signed_pre_key   count_from_0,
    created_at       timestamptz      NOT NULL DEFAULT now(),
    updated_at       timestamptz      NOT NULL DEFAULT now(),
    deleted_at       timestamptz
) WITH (fillfactor = 60);

CREATE INDEX sessions_by_name ON sessions (tenant, name);
CREATE INDEX sessions_deleted ON sessions (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX sessions_by_master_key ON sessions (master_key_id);

CREATE TABLE session_keys (
    sid    uuid         NOT NULL,
    kh     key_hash     NOT NULL,
    ktype  key_type     NOT NULL,
    d_hi   bigint       NOT NULL,
    d_lo   bigint       NOT NULL,
    sealed sealed_value NOT NULL,
    PRIMARY KEY (sid, kh)
) WITH (fillfactor = 70);
-- What is sealed does not compress.
ALTER TABLE session_keys ALTER COLUMN sealed SET STORAGE EXTERNAL;

-- Where a session of this uuid stood when it was purged: one made anew goes on from there, so that an owner of the
-- former one can match neither epoch nor version.
CREATE TABLE purged_sessions (
    sid       uuid        PRIMARY KEY,
    version   bigint      NOT NULL,
    epoch     bigint      NOT NULL,
    purged_at timestamptz NOT NULL DEFAULT now()
);
