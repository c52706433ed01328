-- Moving in and out: which commits another store still has to get, where sessions came from, and what was done when.

ALTER TABLE sessions ADD COLUMN mirrored boolean NOT NULL DEFAULT false;

-- Where a session came from, sealed under its data key (it holds a password). Its row is also the turn of the mirror: who
-- locks it carries entries over. `applied`: the other store has every commit up to this version.
CREATE TABLE session_origins (
    sid     uuid        PRIMARY KEY,
    sealed  bytea       NOT NULL CHECK (octet_length(sealed) >= 34),
    applied bigint      NOT NULL CHECK (applied >= 0),
    kept_at timestamptz NOT NULL DEFAULT now()
);

-- Commits that wait for the mirror, each written by the statement that stored it.
CREATE TABLE mirror_entries (
    sid     uuid        NOT NULL,
    version bigint      NOT NULL CHECK (version >= 1),
    sealed  bytea       NOT NULL CHECK (octet_length(sealed) >= 34), -- header 5, nonce 12, text 1, tag 16
    at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sid, version)
);
ALTER TABLE mirror_entries ALTER COLUMN sealed SET STORAGE EXTERNAL;

-- Runs of the migrator. No id of a key stands in clear: what a run found of a session is sealed under its data key.
CREATE TABLE migrate_runs (
    id         uuid        PRIMARY KEY,
    tenant     text        NOT NULL CHECK (length(tenant) BETWEEN 1 AND 64),
    verb       text        NOT NULL CHECK (verb IN ('copy', 'verify', 'cutover', 'rollback')),
    source     text        NOT NULL CHECK (length(source) <= 500),
    run_by     text        NOT NULL CHECK (length(run_by) <= 200),
    options    text        NOT NULL CHECK (length(options) <= 10000), -- JSON
    started_at timestamptz NOT NULL DEFAULT now(),
    ended_at   timestamptz,
    outcome    text        CHECK (outcome IN ('good', 'findings', 'failed')),
    CHECK ((ended_at IS NULL) = (outcome IS NULL))
);
CREATE INDEX migrate_runs_by_tenant ON migrate_runs (tenant, started_at);

CREATE TABLE migrate_run_sessions (
    sid         uuid        NOT NULL,
    run         uuid        NOT NULL,
    name        text        NOT NULL CHECK (length(name) <= 500),
    source_name text        NOT NULL CHECK (length(source_name) <= 500),
    outcome     text        NOT NULL CHECK (length(outcome) <= 64),
    version     bigint      CHECK (version >= 0), -- of the session here, when the run was done with it
    digest      bytea       CHECK (octet_length(digest) = 32), -- over creds and every key, independent of spelling
    counts      text        NOT NULL CHECK (length(counts) <= 100000), -- JSON: keys by type, repairs, quarantine by reason
    sealed      bytea, -- the details, with ids
    at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sid, run)
);
CREATE INDEX migrate_run_sessions_by_run ON migrate_run_sessions (run);
