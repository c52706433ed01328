"""The commit of one session: any rows, many that are new, or the one or two that Baileys commits most.

The same compare-and-set as of many sessions (see `commit`), without the joins that tell sessions apart. All three say first
what was stored under the rows' names (``was``), then move the session, then its rows.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import asyncpg

from service.records import Applied, Change, NotApplied, SealedRow
from service.sql.fragments import (
    FRESH_FROM,
    UPSERTED,
    columns_to_insert,
    columns_to_look,
    differs,
    identity_columns,
    lease_after,
    mark_after,
    may_write,
    outcome,
    parted,
    stored,
    weight,
)
from service.sql.pool import Connection

# $1-$15 of the commit: see `_run`. $6 counts the values put.
_MOVED: Final = f"""upd AS (
    UPDATE sessions s SET
        version = s.version + 1, {lease_after("$4::bigint")},
        row_count = s.row_count + $6::int - was.found, {mark_after("$5::bigint")},
        recent = $7, identity_tag = $8, paired = $9, next_pre_key = $10,
        first_unuploaded = $11, account_sync = $12, signed_pre_key = $13, pre_key_top = $15, updated_at = now()
    FROM was
    WHERE s.sid = $1 AND s.version = $2 AND s.dek_id = $3 AND s.deleted_at IS NULL
      AND (SELECT seen.version FROM sessions seen WHERE seen.sid = $1) = $2
      AND {may_write("$4::bigint")}
      AND NOT was.clash
    RETURNING s.version, s.epoch, s.row_count AS rows
)"""

_OUTCOME: Final = """
SELECT upd.version, upd.epoch, upd.rows, was.clash FROM was LEFT JOIN upd ON true
"""

# $16-$22 a row each. Rows carry the session's uuid, so that each is looked up by its whole key: with "$1" in its place, a
# plan made on an empty table reads all rows of the session.
_ANY: Final = f"""
WITH r AS (
    SELECT $1::uuid AS sid, r.*
    FROM unnest($16::bytea[], $17::text[], $18::bytea[], $19::bigint[], $20::bigint[], $21::bigint[], $22::bigint[])
        AS r(kh, ktype, sealed, d_hi, d_lo, w1, w2)
), was AS MATERIALIZED (
    SELECT count(*) AS found, sum({weight("r.w1", "r.w2")}) AS weight,
           coalesce(bool_or(r.ktype = 'pre-key' AND r.sealed IS NOT NULL AND NOT $14::bool
                            AND {differs("r.d_hi", "r.d_lo")}), false) AS clash
    FROM r CROSS JOIN {stored("r.sid", "r.kh")}
), {_MOVED}, del AS (
    DELETE FROM session_keys k USING upd, r WHERE r.sealed IS NULL AND k.sid = r.sid AND k.kh = r.kh
), put AS (
    INSERT INTO session_keys (sid, kh, ktype, d_hi, d_lo, sealed)
    SELECT r.sid, r.kh, r.ktype, r.d_hi, r.d_lo, r.sealed FROM upd, r WHERE r.sealed IS NOT NULL
    {UPSERTED}
)"""

COMMIT_ONE_SQL: Final = _ANY + _OUTCOME

# The same with rows that are held to be new, $23-$27: pre-keys, which Baileys makes by the hundred, and the first keys of a
# session. They are not looked for, and inserted without the care of an upsert, which is 40 % less work. One that is there
# already fails the whole statement.
COMMIT_FRESH_SQL: Final = (
    _ANY
    + """, fresh AS (
    INSERT INTO session_keys (sid, kh, ktype, d_hi, d_lo, sealed)
    SELECT $1, f.* FROM upd,
        unnest($23::bytea[], $24::text[], $25::bigint[], $26::bigint[], $27::bytea[]) AS f(kh, ktype, d_hi, d_lo, sealed)
)"""
    + _OUTCOME
)

# One value put ($16-$22) and perhaps one deleted ($23-$25, or NULL): a session that moves on, a pre-key used up, creds
# saved. Without arrays, which Postgres spreads into rows and keeps aside: a seventh less work.
COMMIT_SMALL_SQL: Final = f"""
WITH was AS MATERIALIZED (
    SELECT count(*) AS found,
           sum(CASE WHEN k.kh = $16 THEN {weight("$21::bigint", "$22::bigint")}
                    ELSE {weight("$24::bigint", "$25::bigint")} END) AS weight,
           coalesce(bool_or($17::text = 'pre-key' AND NOT $14::bool AND k.kh = $16
                            AND {differs("$19::bigint", "$20::bigint")}), false) AS clash
    FROM session_keys k WHERE k.sid = $1::uuid AND k.kh = ANY (ARRAY[$16::bytea, $23::bytea])
), {_MOVED}, del AS (
    DELETE FROM session_keys k USING upd WHERE k.sid = $1 AND k.kh = $23
), put AS (
    INSERT INTO session_keys (sid, kh, ktype, d_hi, d_lo, sealed)
    SELECT $1, $16, $17, $19, $20, $18::bytea FROM upd
    {UPSERTED}
){_OUTCOME}"""

_SMALL: Final = 2  # rows


class _Small(NamedTuple):
    put: SealedRow
    gone: SealedRow | None


async def commit_one(connection: Connection, change: Change) -> Applied | NotApplied:
    """A commit of one session, neither whole nor mirrored."""
    small = _small(change.rows)
    if small is not None:
        return await _run(connection, COMMIT_SMALL_SQL, change, _of_small(small))
    fresh, rest = parted(change.rows, keyless=change.keyless)
    if len(fresh) >= FRESH_FROM and not connection.is_in_transaction():
        try:
            return await _run(connection, COMMIT_FRESH_SQL, change, [*columns_to_look(rest), *columns_to_insert(fresh)])
        except asyncpg.UniqueViolationError:
            pass  # undone; whether they may be written again is judged by the statement that looks
    return await _run(connection, COMMIT_ONE_SQL, change, columns_to_look(change.rows))


async def _run(connection: Connection, text: str, change: Change, rows: Sequence[Any]) -> Applied | NotApplied:
    answer = await connection.fetchrow(
        text,
        change.sid,
        change.expected,
        change.dek_id,
        change.lease_epoch,
        change.mark_delta,
        sum(row.sealed is not None for row in change.rows),
        change.recent,
        *identity_columns(change.identity),
        change.overwrite,
        change.pre_key_top,
        *rows,
    )
    assert answer is not None  # noqa: S101 - an aggregate is always a row
    return outcome(answer)


def _small(rows: Sequence[SealedRow]) -> _Small | None:
    """The rows as `COMMIT_SMALL_SQL` takes them, None when they are others."""
    if not 0 < len(rows) <= _SMALL:
        return None
    put = [row for row in rows if row.sealed is not None]
    gone = [row for row in rows if row.sealed is None]
    return _Small(put[0], gone[0] if gone else None) if len(put) == 1 else None


def _of_small(small: _Small) -> list[Any]:
    put, gone = small
    row = [put.kh, put.ktype, put.sealed, *put.digest, *put.weights]
    return [*row, None, None, None] if gone is None else [*row, gone.kh, *gone.weights]
