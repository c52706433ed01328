"""Reading a session as it lies there, without believing any of it; and what checks leave behind."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import asyncpg

from service.records import JournalEntry, SessionRow, StoredRow
from service.sql.pool import Connection
from service.sql.sessions import FIND_SQL, session_row

SEEN_SQL: Final = "SELECT version FROM integrity_verdicts WHERE sid = $1"

ONE_ROW_SQL: Final = "SELECT kh, ktype, d_hi, d_lo, sealed FROM session_keys WHERE sid = $1 AND kh = $2"

ALL_ROWS_SQL: Final = "SELECT kh, ktype, d_hi, d_lo, sealed FROM session_keys WHERE sid = $1 ORDER BY sid, kh"

ENTRIES_SQL: Final = "SELECT version, sealed FROM session_journal WHERE sid = $1 ORDER BY version"

KEEP_VERDICT_SQL: Final = """
INSERT INTO integrity_verdicts (sid, tenant, name, version, checked, errors, warnings, rules)
SELECT $1, $2, $3, $4, $5, $6, $7, $8::text::jsonb WHERE EXISTS (SELECT FROM sessions s WHERE s.sid = $1)
ON CONFLICT (sid) DO UPDATE SET version = greatest(integrity_verdicts.version, excluded.version),
    checked = excluded.checked, errors = excluded.errors, warnings = excluded.warnings, rules = excluded.rules,
    checked_at = now()
"""

EVER_SQL: Final = "SELECT EXISTS (SELECT FROM integrity_verdicts v WHERE $1::text IS NULL OR v.tenant = $1)"

OPEN_SQL: Final = """
SELECT f.key AS rule, sum(f.value::bigint)::bigint AS count
FROM integrity_verdicts v JOIN sessions s ON s.sid = v.sid CROSS JOIN LATERAL jsonb_each_text(v.rules) f
WHERE (v.errors > 0 OR v.warnings > 0) AND s.deleted_at IS NULL AND ($1::text IS NULL OR v.tenant = $1)
GROUP BY f.key
"""

NEXT_SESSIONS_SQL: Final = """
SELECT s.sid, s.tenant, s.name FROM sessions s
WHERE s.sid > $1 AND s.deleted_at IS NULL AND ($2::text = '' OR s.tenant = $2) ORDER BY s.sid LIMIT $3
"""

COUNT_SESSIONS_SQL: Final = """
SELECT count(*) FROM sessions s WHERE s.sid > $1 AND s.deleted_at IS NULL AND ($2::text = '' OR s.tenant = $2)
"""

ORPHANS_SQL: Final = """
SELECT k.sid, count(*) AS count FROM (SELECT sid FROM session_keys UNION ALL SELECT sid FROM session_journal) k
WHERE k.sid > $1 AND ($2::uuid IS NULL OR k.sid <= $2) AND NOT EXISTS (SELECT FROM sessions s WHERE s.sid = k.sid)
GROUP BY k.sid
"""

VANISHED_SQL: Final = """
SELECT v.sid, v.tenant, v.name FROM integrity_verdicts v
WHERE v.sid > $1 AND ($2::uuid IS NULL OR v.sid <= $2) AND ($3::text = '' OR v.tenant = $3)
  AND NOT EXISTS (SELECT FROM sessions s WHERE s.sid = v.sid)
  AND NOT EXISTS (SELECT FROM purged_sessions p WHERE p.sid = v.sid)
"""

RUN_SQL: Final = "SELECT after, sessions, errors, warnings FROM integrity_runs WHERE scope = $1 AND finished_at IS NULL"

BEGIN_RUN_SQL: Final = """
INSERT INTO integrity_runs (scope, after, sessions, errors, warnings) VALUES ($1, $2, 0, 0, 0)
ON CONFLICT (scope) DO UPDATE SET after = excluded.after, sessions = 0, errors = 0, warnings = 0, started_at = now(),
    finished_at = NULL
"""

ADVANCE_RUN_SQL: Final = """
UPDATE integrity_runs SET after = $2, sessions = $3, errors = $4, warnings = $5,
    finished_at = CASE WHEN $6 THEN now() END
WHERE scope = $1
"""

ARCHIVE_SQL: Final = """
INSERT INTO integrity_archive (sid, version, kh, ktype, d_hi, d_lo, sealed)
SELECT $1, $2, a.kh, a.ktype, a.d_hi, a.d_lo, a.sealed
FROM unnest($3::bytea[], $4::text[], $5::bigint[], $6::bigint[], $7::bytea[]) AS a(kh, ktype, d_hi, d_lo, sealed)
WHERE EXISTS (SELECT FROM sessions s WHERE s.sid = $1)
"""

FORGET_ARCHIVED_SQL: Final = """
DELETE FROM integrity_archive WHERE sid = $1 AND version = $2 AND ($3::bytea[] IS NULL OR kh = ANY($3))
"""

ARCHIVED_SQL: Final = """
SELECT a.version, a.kh, a.ktype, a.d_hi, a.d_lo, a.sealed FROM integrity_archive a
WHERE a.sid = $1 AND a.version = (SELECT max(b.version) FROM integrity_archive b WHERE b.sid = $1)
"""

_NO_SESSION: Final = UUID(int=0)


class Snapshot:
    """One session at one moment: its row, what an earlier check saw, its stored rows."""

    def __init__(self, connection: Connection, row: SessionRow, seen: int | None) -> None:
        self._connection = connection
        self.row = row
        self.seen = seen

    async def one(self, kh: bytes) -> StoredRow | None:
        """The row of this keyed hash."""
        record = await self._connection.fetchrow(ONE_ROW_SQL, self.row.head.sid, kh)
        return None if record is None else _stored(record)

    async def entries(self) -> list[JournalEntry]:
        """The journal, in order."""
        found = await self._connection.fetch(ENTRIES_SQL, self.row.head.sid)
        return [JournalEntry(record["version"], record["sealed"]) for record in found]

    async def chunks(self, size: int) -> AsyncGenerator[list[StoredRow], None]:
        """Every stored row, creds among them."""
        cursor = await self._connection.cursor(ALL_ROWS_SQL, self.row.head.sid)
        while records := await cursor.fetch(size):
            yield [_stored(record) for record in records]


@asynccontextmanager
async def snapshot(connection: Connection, sid: UUID) -> AsyncIterator[Snapshot | None]:
    """The session in one snapshot for as long as the context is open, None when there is none."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        record = await connection.fetchrow(FIND_SQL, sid)
        if record is None:
            yield None
        else:
            yield Snapshot(connection, session_row(record), await connection.fetchval(SEEN_SQL, sid))


async def keep_verdict(
    connection: Connection, row: SessionRow, seen: int, checked: int, counts: tuple[int, int], rules: Mapping[str, int]
) -> None:
    """Remembers a verdict. ``seen``: the version proven, 0 for none; ``counts``: errors, warnings."""
    await connection.execute(
        KEEP_VERDICT_SQL, row.head.sid, row.tenant, row.name, seen, checked, *counts, json.dumps(dict(rules))
    )


async def ever_checked(connection: Connection, tenant: str | None) -> bool:
    """Whether a verdict on any session is remembered, of one tenant or (None) of all."""
    ever: bool = await connection.fetchval(EVER_SQL, tenant)
    return ever


async def open_findings(connection: Connection, tenant: str | None) -> dict[str, int]:
    """Findings of the last verdicts by rule, of one tenant or (None) of all."""
    return {record["rule"]: record["count"] for record in await connection.fetch(OPEN_SQL, tenant)}


@dataclass(frozen=True, slots=True)
class Run:
    """Where a check of all sessions stands."""

    after: UUID = _NO_SESSION
    sessions: int = 0
    errors: int = 0
    warnings: int = 0


@dataclass(frozen=True, slots=True)
class Named:
    """A session to check."""

    sid: UUID
    tenant: str
    name: str = field(repr=False)


async def find_run(connection: Connection, scope: str) -> Run | None:
    """The run that was cut off, None when there is none."""
    record = await connection.fetchrow(RUN_SQL, scope)
    return None if record is None else Run(_uuid(record["after"]), *list(record.values())[1:])


async def begin_run(connection: Connection, scope: str) -> Run:
    """A run from the start."""
    await connection.execute(BEGIN_RUN_SQL, scope, _NO_SESSION)
    return Run()


async def advance_run(connection: Connection, scope: str, run: Run, *, finished: bool) -> None:
    """Remembers where a run stands."""
    await connection.execute(ADVANCE_RUN_SQL, scope, run.after, run.sessions, run.errors, run.warnings, finished)


async def next_sessions(connection: Connection, scope: str, after: UUID, limit: int) -> list[Named]:
    """Up to ``limit`` living sessions after a uuid, by uuid."""
    records = await connection.fetch(NEXT_SESSIONS_SQL, after, scope, limit)
    return [Named(_uuid(record["sid"]), record["tenant"], record["name"]) for record in records]


async def count_sessions(connection: Connection, scope: str, after: UUID) -> int:
    """Living sessions after a uuid."""
    count: int = await connection.fetchval(COUNT_SESSIONS_SQL, after, scope)
    return count


async def find_orphans(connection: Connection, after: UUID, upto: UUID | None) -> list[tuple[UUID, int]]:
    """``(uuid, rows)`` of rows without a session, between two uuids (None: to the end)."""
    return [(_uuid(record["sid"]), record["count"]) for record in await connection.fetch(ORPHANS_SQL, after, upto)]


async def find_vanished(connection: Connection, scope: str, after: UUID, upto: UUID | None) -> list[Named]:
    """Sessions that were checked once and are gone without having been purged."""
    records = await connection.fetch(VANISHED_SQL, after, upto, scope)
    return [Named(_uuid(record["sid"]), record["tenant"], record["name"]) for record in records]


async def archive(connection: Connection, sid: UUID, version: int, rows: Sequence[StoredRow]) -> None:
    """Keeps copies of what a repair at this version replaces, in the place of those kept before."""
    columns = zip(*((row.kh, row.ktype, *row.digest, row.sealed) for row in rows), strict=True)
    async with connection.transaction():
        await connection.execute(FORGET_ARCHIVED_SQL, sid, version, None)
        await connection.execute(ARCHIVE_SQL, sid, version, *map(list, columns))


async def forget_archived(connection: Connection, sid: UUID, version: int, khs: Sequence[bytes] | None = None) -> None:
    """Drops copies of a repair at this version: of these rows, or (None) all."""
    await connection.execute(FORGET_ARCHIVED_SQL, sid, version, None if khs is None else list(khs))


async def find_archived(connection: Connection, sid: UUID) -> tuple[int, list[StoredRow]] | None:
    """``(version before the repair, what is kept of its rows)`` of the session's last repair."""
    records = await connection.fetch(ARCHIVED_SQL, sid)
    return None if not records else (records[0]["version"], [_stored(record) for record in records])


def _stored(record: asyncpg.Record) -> StoredRow:
    return StoredRow(record["kh"], record["ktype"], (record["d_hi"], record["d_lo"]), record["sealed"])


def _uuid(found: UUID) -> UUID:
    return UUID(bytes=found.bytes)
