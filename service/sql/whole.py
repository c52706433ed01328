"""A session's rows all at once: a session replaced whole, and one that is new."""

from typing import Final

import asyncpg

from service.records import Applied, Change, NotApplied
from service.sql.fragments import columns_to_insert, identity_columns, lease_after, may_write
from service.sql.pool import Connection

# The insert names `gone` so that it runs after the delete. A settle that came first moved no version, but rows that the
# delete would not see: what waits must be what it was, too.
REPLACE_SQL: Final = f"""
WITH upd AS (
    UPDATE sessions s SET
        version = s.version + 1, {lease_after("$4::bigint")},
        row_count = $5, mark = $6, recent = $7, identity_tag = $8, paired = $9, next_pre_key = $10,
        first_unuploaded = $11, account_sync = $12, signed_pre_key = $13, pre_key_top = $20, updated_at = now(),
        pending = 0, journal_weight = 0
    WHERE s.sid = $1 AND s.version = $2 AND s.dek_id = $3 AND s.deleted_at IS NULL
      AND (SELECT seen.version FROM sessions seen WHERE seen.sid = $1) = $2
      AND (SELECT seen.pending FROM sessions seen WHERE seen.sid = $1) = s.pending
      AND {may_write("$4::bigint")}
    RETURNING s.sid, s.version, s.epoch, s.row_count AS rows
), gone AS (
    DELETE FROM session_keys k USING upd WHERE k.sid = $1 RETURNING 1
), waiting AS (
    DELETE FROM session_journal j USING upd WHERE j.sid = $1
), put AS (
    INSERT INTO session_keys (sid, kh, ktype, d_hi, d_lo, sealed)
    SELECT upd.sid, r.* FROM (SELECT count(*) FROM gone) g, upd,
        unnest($14::bytea[], $15::text[], $16::bigint[], $17::bigint[], $18::bytea[]) AS r(kh, ktype, d_hi, d_lo, sealed)
), noted AS (
    INSERT INTO mirror_entries (sid, version, sealed)
    SELECT upd.sid, upd.version, $19::bytea FROM upd WHERE $19::bytea IS NOT NULL
)
SELECT version, epoch, rows FROM upd
"""

# No session is made under a retired master key: the share lock makes a rotation wait for what is under way, and what
# comes after it sees the retirement.
CREATE_SQL: Final = """
WITH living AS (
    SELECT 1 FROM master_keys m WHERE m.id = $8 AND m.retired_at IS NULL FOR SHARE
), made AS (
    INSERT INTO sessions (sid, tenant, name, version, epoch, lease_holder, lease_expires, master_key_id, dek_id, wrapped_key,
        row_count, mark, recent, identity_tag, paired, next_pre_key, first_unuploaded, account_sync, signed_pre_key,
        pre_key_top)
    SELECT $1, $2::text, $3::text, $4::bigint, $5::bigint, $6::text, now() + $7::float8 * interval '1 second', $8, $9, $10,
        $11, $12, $13, $14, $15, $16, $17, $18, $19, $25
    FROM living WHERE NOT EXISTS (SELECT FROM purged_sessions p WHERE p.sid = $1 AND (p.version > $4 OR p.epoch > $5))
    ON CONFLICT (sid) DO NOTHING
    RETURNING sid, version, epoch, row_count AS rows, lease_expires
), put AS (
    INSERT INTO session_keys (sid, kh, ktype, d_hi, d_lo, sealed)
    SELECT made.sid, r.* FROM made,
        unnest($20::bytea[], $21::text[], $22::bigint[], $23::bigint[], $24::bytea[]) AS r(kh, ktype, d_hi, d_lo, sealed)
)
SELECT version, epoch, rows, lease_expires FROM made
"""


async def replace(connection: Connection, change: Change) -> Applied | NotApplied:
    answer = await connection.fetchrow(
        REPLACE_SQL,
        change.sid,
        change.expected,
        change.dek_id,
        change.lease_epoch,
        len(change.rows),
        change.mark_delta,
        change.recent,
        *identity_columns(change.identity),
        *columns_to_insert(change.rows),
        change.entry,
        change.pre_key_top,
    )
    return NotApplied(clash=False) if answer is None else Applied(answer["version"], answer["epoch"], answer["rows"])


async def create(
    connection: Connection,
    change: Change,
    *,
    tenant: str,
    name: str,
    epoch: int,
    wrapped: tuple[str, bytes],
    lease: tuple[str, float] | None = None,
) -> asyncpg.Record | None:
    """Makes a session at ``change.expected`` (its first version) with its rows and lease (holder, seconds).

    The row ``(version, epoch, rows, lease_expires)``, or None when one stands there already or the master key it is
    wrapped by is retired or not registered.
    """
    holder, ttl_s = lease or (None, None)
    return await connection.fetchrow(
        CREATE_SQL,
        change.sid,
        tenant,
        name,
        change.expected,
        epoch,
        holder,
        ttl_s,
        wrapped[0],
        change.dek_id,
        wrapped[1],
        len(change.rows),
        change.mark_delta,
        change.recent,
        *identity_columns(change.identity),
        *columns_to_insert(change.rows),
        change.pre_key_top,
    )
