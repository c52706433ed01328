CREATE TABLE master_keys (
    id          text        PRIMARY KEY CHECK (length(id) = 16),
    check_value bytea       NOT NULL CHECK (octet_length(check_value) BETWEEN 32 AND 128),
    created_at  timestamptz NOT NULL DEFAULT now(),
    retired_at  timestamptz
);

CREATE TABLE tokens (
    id         text        PRIMARY KEY CHECK (id ~ '^[a-z0-9]{12,32}$'),
    tenant     text        NOT NULL CHECK (length(tenant) BETWEEN 1 AND 64),
    scope      text        NOT NULL CHECK (scope IN ('read', 'write', 'admin')),
    label      text        NOT NULL DEFAULT '' CHECK (length(label) <= 100),
    hash       bytea       NOT NULL CHECK (octet_length(hash) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz
);
