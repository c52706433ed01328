-- Large commits are stored as one sealed entry each and carried over to rows afterwards.

-- An earlier release that still serves would write rows beside the journal. Its statements name this column, and fail.
ALTER TABLE sessions RENAME COLUMN rows TO row_count;

-- `pending`: the session's last commits that its rows do not show yet; their entries are those of the versions from
-- `version - pending + 1` to `version`. `journal_weight`: what these are to settle together, in bytes and keys.
-- `pre_key_top`: every pre-key ever stored has a plain number up to this one for its id; NULL where that is not known.
CREATE DOMAIN pre_key_number AS bigint CHECK (VALUE >= -1); -- -1: none yet

ALTER TABLE sessions
    ADD COLUMN pending count_from_0 NOT NULL DEFAULT 0,
    ADD COLUMN journal_weight count_from_0 NOT NULL DEFAULT 0,
    ADD COLUMN pre_key_top pre_key_number;

CREATE DOMAIN sealed_commit AS bytea CHECK (octet_length(VALUE) >= 34); -- header 5, nonce 12, text 1, tag 16

CREATE TABLE session_journal (
    sid     uuid          NOT NULL,
    version count_from_0  NOT NULL,
    sealed  sealed_commit NOT NULL,
    at      timestamptz   NOT NULL DEFAULT now(),
    PRIMARY KEY (sid, version)
);
ALTER TABLE session_journal ALTER COLUMN sealed SET STORAGE EXTERNAL;
