-- What checks found, where a check of all sessions stands, and what repairs replaced.

-- The last verdict on a session. Its version tells a database put back to an older time: rows and marks of then agree.
CREATE TABLE integrity_verdicts (
    sid        uuid        PRIMARY KEY,
    tenant     text        NOT NULL CHECK (length(tenant) BETWEEN 1 AND 64),
    name       text        NOT NULL COLLATE "C" CHECK (length(name) BETWEEN 1 AND 128),
    version    bigint      NOT NULL CHECK (version >= 0), -- the newest that a check has seen
    checked    bigint      NOT NULL CHECK (checked >= 0), -- rows
    errors     bigint      NOT NULL CHECK (errors >= 0),
    warnings   bigint      NOT NULL CHECK (warnings >= 0),
    rules      jsonb       NOT NULL CHECK (jsonb_typeof(rules) = 'object'), -- rule -> findings
    checked_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX integrity_verdicts_open ON integrity_verdicts (sid) WHERE errors > 0 OR warnings > 0;

-- A check of all sessions goes by their uuid, and goes on from here when it was cut off.
CREATE TABLE integrity_runs (
    scope       text        PRIMARY KEY CHECK (length(scope) <= 64), -- a tenant, or empty: all of them
    after       uuid        NOT NULL,
    sessions    bigint      NOT NULL CHECK (sessions >= 0),
    errors      bigint      NOT NULL CHECK (errors >= 0),
    warnings    bigint      NOT NULL CHECK (warnings >= 0),
    started_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);

-- Rows as they were before a repair, sealed as they were. They go with their session.
CREATE TABLE integrity_archive (
    sid         uuid        NOT NULL,
    version     bigint      NOT NULL, -- the session's, before the repair
    kh          bytea       NOT NULL CHECK (octet_length(kh) = 24),
    ktype       text        NOT NULL COLLATE "C" CHECK (length(ktype) <= 64),
    d_hi        bigint      NOT NULL,
    d_lo        bigint      NOT NULL,
    sealed      bytea       NOT NULL,
    archived_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sid, version, kh)
);
ALTER TABLE integrity_archive ALTER COLUMN sealed SET STORAGE EXTERNAL;
