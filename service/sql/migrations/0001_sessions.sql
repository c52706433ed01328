-- Sessions and their rows. No foreign key from session_keys: its check would cost one look-up a row in every commit;
-- rows are only ever written behind an update of their session's row in the same statement, and `check` names orphans.

CREATE TABLE sessions (
    sid              uuid        PRIMARY KEY,
    tenant           text        NOT NULL CHECK (length(tenant) BETWEEN 1 AND 64),
    name             text        NOT NULL COLLATE "C" CHECK (length(name) BETWEEN 1 AND 128), -- no pattern: every commit would pay for it
    version          bigint      NOT NULL CHECK (version >= 0),
    epoch            bigint      NOT NULL CHECK (epoch >= 0),
    lease_holder     text        CHECK (length(lease_holder) BETWEEN 1 AND 200),
    lease_expires    timestamptz,
    master_key_id    text        NOT NULL CHECK (length(master_key_id) = 16),
    dek_id           int         NOT NULL CHECK (dek_id >= 0),
    wrapped_key      bytea       NOT NULL CHECK (octet_length(wrapped_key) = 60), -- nonce 12, data key 32, tag 16
    rows             bigint      NOT NULL CHECK (rows >= 0),
    mark             bigint      NOT NULL CHECK (mark >= 0 AND mark < 2305843009213693951), -- below 2^61 - 1
    recent           bytea       NOT NULL CHECK (octet_length(recent) % 32 = 0 AND octet_length(recent) <= 512),
    identity_tag     bytea       CHECK (octet_length(identity_tag) = 16),
    paired           boolean     NOT NULL,
    next_pre_key     bigint      CHECK (next_pre_key >= 0),
    first_unuploaded bigint      CHECK (first_unuploaded >= 0),
    account_sync     bigint      CHECK (account_sync >= 0),
    signed_pre_key   bigint      CHECK (signed_pre_key >= 0),
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    deleted_at       timestamptz,
    CHECK ((lease_holder IS NULL) = (lease_expires IS NULL))
) WITH (fillfactor = 60);

CREATE INDEX sessions_by_name ON sessions (tenant, name);
CREATE INDEX sessions_deleted ON sessions (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX sessions_by_master_key ON sessions (master_key_id, sid);

CREATE TABLE session_keys (
    sid    uuid   NOT NULL,
    kh     bytea  NOT NULL CHECK (octet_length(kh) = 24),
    ktype  text   NOT NULL COLLATE "C" CHECK (length(ktype) <= 64), -- empty: creds
    d_hi   bigint NOT NULL,
    d_lo   bigint NOT NULL,
    sealed bytea  NOT NULL CHECK (octet_length(sealed) >= 36), -- header 5, nonce 12, id length 2, value 1, tag 16
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
