"""Mirrors as rows: the switch, entries that wait, and whose turn it is to carry them over."""

from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg

from service.errors import Unavailable
from service.sql.fragments import mark_moved
from service.sql.pool import Connection, understood, unhurried

_WAITING_PAGE: Final = 1000
_BEFORE_ALL: Final = UUID(int=0)
# How long another's turn is waited for, and for how long a server may be silent about ours.
_TURN_S: Final = 600.0
_ANSWER_S: Final = 10.0

# What still waits was not applied, whatever is kept: entries follow `applied` without a gap.
KEEP_ORIGIN_SQL: Final = """
INSERT INTO session_origins AS o (sid, sealed, applied) SELECT s.sid, $2, s.version FROM sessions s WHERE s.sid = $1
ON CONFLICT (sid) DO UPDATE SET sealed = excluded.sealed, kept_at = now(), applied = CASE
    WHEN EXISTS (SELECT FROM mirror_entries e WHERE e.sid = o.sid) THEN o.applied ELSE excluded.applied END
RETURNING sid
"""

FIND_ORIGIN_SQL: Final = "SELECT sealed FROM session_origins WHERE sid = $1"

FORGET_ORIGIN_SQL: Final = "DELETE FROM session_origins WHERE sid = $1"

# Switching is a commit without rows: it raises the version, so that no commit made with the other flag in mind applies.
SWITCH_SQL: Final = f"""
WITH upd AS (
    UPDATE sessions s SET
        version = s.version + 1, mirrored = $6, updated_at = now(),
        {mark_moved("$5")}
    WHERE s.sid = $1 AND s.version = $2 AND s.dek_id = $3 AND s.deleted_at IS NULL AND s.pending = 0
      AND s.epoch = $4 AND s.lease_expires > now()
    RETURNING s.sid, s.version
), origin AS (
    UPDATE session_origins o SET applied = upd.version FROM upd WHERE o.sid = upd.sid AND $6
), entries AS (
    DELETE FROM mirror_entries e USING upd WHERE e.sid = upd.sid AND NOT $6
)
SELECT version FROM upd
"""

# All of it or nothing, so that a session is either handed over or stays here, wherever the process dies: its mirror is off,
# its lease is closed for long, its source is no longer remembered, and the run that did it says so. As a commit without
# rows, it raises the version: what was committed here since is newer.
HAND_OVER_SQL: Final = f"""
WITH upd AS (
    UPDATE sessions s SET
        version = s.version + 1, mirrored = false, updated_at = now(),
        lease_expires = now() + $6::float8 * interval '1 second',
        {mark_moved("$5")}
    WHERE s.sid = $1 AND s.version = $2 AND s.dek_id = $3 AND s.deleted_at IS NULL AND s.pending = 0
      AND s.epoch = $4 AND s.lease_expires > now()
    RETURNING s.sid, s.version
), entries AS (
    DELETE FROM mirror_entries e USING upd WHERE e.sid = upd.sid
), origin AS (
    DELETE FROM session_origins o USING upd WHERE o.sid = upd.sid
), noted AS (
    UPDATE migrate_run_sessions m SET outcome = 'rolled-back', version = upd.version, at = now()
    FROM upd WHERE m.sid = upd.sid AND m.run = $7
)
SELECT version FROM upd
"""

# A page at a time along the primary key; $1 NULL: of every tenant.
WAITING_SQL: Final = """
SELECT e.sid, s.tenant, s.name, count(*) AS entries, min(e.at) AS oldest
FROM mirror_entries e JOIN sessions s ON s.sid = e.sid WHERE e.sid > $2 AND ($1::text IS NULL OR s.tenant = $1)
GROUP BY e.sid, s.tenant, s.name ORDER BY e.sid LIMIT $3
"""

MIRRORED_SQL: Final = """
SELECT s.name FROM sessions s WHERE s.tenant = $1 AND s.mirrored AND s.deleted_at IS NULL ORDER BY s.name
"""

WAITING_OF_ONE_SQL: Final = "SELECT count(*) FROM mirror_entries WHERE sid = $1"

WAITING_IN_ALL_SQL: Final = """
SELECT count(*) AS entries, count(DISTINCT sid) AS sessions, min(at) AS oldest FROM mirror_entries
"""

TURN_SQL: Final = "SELECT sealed, applied FROM session_origins WHERE sid = $1 FOR UPDATE"

FREE_TURN_SQL: Final = f"{TURN_SQL} SKIP LOCKED"

HELD_SQL: Final = "SELECT 1"

ENTRIES_SQL: Final = """
SELECT version, sealed FROM mirror_entries WHERE sid = $1 AND version <= $2 ORDER BY version LIMIT $3
"""

APPLIED_SQL: Final = """
WITH gone AS (DELETE FROM mirror_entries WHERE sid = $1 AND version <= $2)
UPDATE session_origins SET applied = $2 WHERE sid = $1
"""


async def keep_origin(connection: Connection, sid: UUID, sealed: bytes) -> bool:
    """False when there is no such session."""
    return await connection.fetchval(KEEP_ORIGIN_SQL, sid, sealed) is not None


async def find_origin(connection: Connection, sid: UUID) -> bytes | None:
    sealed: bytes | None = await connection.fetchval(FIND_ORIGIN_SQL, sid)
    return sealed


async def forget_origin(connection: Connection, sid: UUID) -> None:
    await connection.execute(FORGET_ORIGIN_SQL, sid)


async def switch(
    connection: Connection, sid: UUID, expected: int, dek_id: int, epoch: int, mark_delta: int, *, on: bool
) -> int | None:
    """The new version; None when the session does not stand so or the lease of ``epoch`` does not live.

    Off drops entries that still wait.
    """
    version: int | None = await connection.fetchval(SWITCH_SQL, sid, expected, dek_id, epoch, mark_delta, on)
    return version


async def hand_over(
    connection: Connection, sid: UUID, expected: int, dek_id: int, epoch: int, mark_delta: int, ttl_s: float, run: UUID
) -> int | None:
    """The new version; None when the session does not stand so or the lease of ``epoch`` does not live.

    That lease ends in ``ttl_s`` then; what ``run`` noted of the session becomes `rolled-back`.
    """
    version: int | None = await connection.fetchval(HAND_OVER_SQL, sid, expected, dek_id, epoch, mark_delta, ttl_s, run)
    return version


async def waiting(connection: Connection, tenant: str | None) -> list[tuple[UUID, str, str, int, datetime]]:
    """``(sid, tenant, name, entries, since)`` of every session with entries, longest waiting first; of one tenant or all."""
    found: list[asyncpg.Record] = []
    page: list[asyncpg.Record] | None = None
    while page is None or len(page) == _WAITING_PAGE:
        page = await connection.fetch(WAITING_SQL, tenant, found[-1]["sid"] if found else _BEFORE_ALL, _WAITING_PAGE)
        found += page
    return sorted((tuple(record) for record in found), key=lambda each: each[-1])


async def mirrored(connection: Connection, tenant: str) -> list[str]:
    """Names of the tenant's sessions whose mirror is on."""
    return [record["name"] for record in await connection.fetch(MIRRORED_SQL, tenant)]


async def waiting_of(connection: Connection, sid: UUID) -> int:
    """How many entries of a session wait."""
    count: int = await connection.fetchval(WAITING_OF_ONE_SQL, sid)
    return count


async def waiting_in_all(connection: Connection) -> tuple[int, int, datetime | None]:
    """``(entries, sessions, since)`` that wait, of every tenant."""
    record = await connection.fetchrow(WAITING_IN_ALL_SQL)
    assert record is not None  # noqa: S101 - one row, whatever there is
    return record["entries"], record["sessions"], record["oldest"]


async def take_turn(connection: Connection, sid: UUID, *, wait: bool) -> tuple[bytes, int] | None:
    """``(sealed origin, last version carried over)``, the turn held until the transaction ends, however long that takes.

    None when the session has no origin, or (without ``wait``) while another has the turn. Raises Unavailable when another
    has it for longer than it is waited for.
    """
    await unhurried(connection)
    if not wait:
        record = await connection.fetchrow(FREE_TURN_SQL, sid)
    else:
        try:
            record = await connection.fetchrow(TURN_SQL, sid, timeout=_TURN_S)
        except TimeoutError:
            raise Unavailable(
                f"another has been carrying this session's commits for {_TURN_S:g} s; try again"
            ) from None
    return None if record is None else (record["sealed"], record["applied"])


async def hold_turn(connection: Connection) -> None:
    """The turn's transaction is still there, and whatever stands in between has heard of it. Raises Unavailable."""
    with understood():
        await connection.execute(HELD_SQL, timeout=_ANSWER_S)


async def entries(connection: Connection, sid: UUID, until: int, limit: int) -> list[asyncpg.Record]:
    """``(version, sealed)`` up to version ``until``, in order."""
    return await connection.fetch(ENTRIES_SQL, sid, until, limit)


async def mark_applied(connection: Connection, sid: UUID, version: int) -> None:
    """The other store has everything up to ``version``."""
    await connection.execute(APPLIED_SQL, sid, version)
