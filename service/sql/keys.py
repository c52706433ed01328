"""Reading rows: many sessions' gets in one statement, pages of a type, a whole session in one snapshot."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg

from service.errors import WHOLE_SET, Corrupt
from service.records import JournalEntry, SessionRow, StoredRow
from service.sql.fragments import stored
from service.sql.pool import Connection, unhurried
from service.sql.sessions import HEAD_COLUMNS, nested_row

# $1, $2 a session each; $3, $4, $5 a row each (its session's place, its own place, its keyed hash).
GET_SQL: Final = f"""
SELECT h.n, NULL::int AS i, s.version, s.pending, s.dek_id, s.deleted_at IS NOT NULL AS deleted,
       NULL::bytea AS kh, NULL::text AS ktype, NULL::bigint AS d_hi, NULL::bigint AS d_lo, NULL::bytea AS sealed
FROM unnest($1::int[], $2::uuid[]) AS h(n, sid)
CROSS JOIN LATERAL (SELECT * FROM sessions s WHERE s.sid = h.sid OFFSET 0) s
UNION ALL
SELECT r.n, r.i, NULL, NULL, NULL, NULL, k.kh, k.ktype, k.d_hi, k.d_lo, k.sealed
FROM unnest($3::int[], $4::int[], $5::bytea[]) AS r(n, i, kh)
CROSS JOIN {stored("($2::uuid[])[r.n]", "r.kh")}
"""

PAGE_SQL: Final = """
SELECT s.version, s.pending, s.dek_id, s.deleted_at IS NOT NULL AS deleted,
       NULL::bytea AS kh, NULL::text AS ktype, NULL::bigint AS d_hi, NULL::bigint AS d_lo, NULL::bytea AS sealed
FROM sessions s WHERE s.sid = $1
UNION ALL (
    SELECT NULL, NULL, NULL, NULL, k.kh, k.ktype, k.d_hi, k.d_lo, k.sealed
    FROM session_keys k WHERE k.sid = $1 AND k.kh > $2 AND k.kh < $3 ORDER BY k.kh LIMIT $4
)
"""

# The session as one column: as two dozen they would come as NULLs with every row. Then its journal, a version and an
# entry each (no kh), then its rows.
STATE_SQL: Final = f"""
SELECT h AS head, NULL::bytea AS kh, NULL::text AS ktype, NULL::bigint AS d_hi, NULL::bigint AS d_lo,
       NULL::bytea AS sealed
FROM (SELECT {HEAD_COLUMNS} FROM sessions s WHERE s.sid = $1) h
UNION ALL (
    SELECT NULL, NULL, NULL, j.version, NULL, j.sealed FROM session_journal j WHERE j.sid = $1 ORDER BY j.version
)
UNION ALL (
    SELECT NULL, k.kh, k.ktype, k.d_hi, k.d_lo, k.sealed FROM session_keys k WHERE k.sid = $1 ORDER BY k.kh
)
"""

_CHUNK: Final = 2000


@dataclass(frozen=True, slots=True)
class Wanted:
    """A get: rows of one session by keyed hash."""

    sid: UUID
    khs: Sequence[bytes]


@dataclass(slots=True)
class Got:
    """``version`` None: no such session. ``rows``: place in ``Wanted.khs`` -> row; a row that is not stored is left out.

    ``pending``: how many commits wait in the journal, which the rows do not show.
    """

    version: int | None
    dek_id: int
    deleted: bool
    rows: dict[int, StoredRow]
    pending: int = 0

    @property
    def settled(self) -> int:
        """The version that the rows show."""
        return (self.version or 0) - self.pending


@dataclass(slots=True)
class WholeSession:
    """A session at one moment: its row, its journal in order, its rows in order of kh."""

    row: SessionRow
    entries: list[JournalEntry]
    rows: list[StoredRow]


async def get_all(connection: Connection, wanted: Sequence[Wanted]) -> list[Got]:
    """Gets of any sessions in one statement; one answer each, in order."""
    rows = [(n, i, kh) for n, get in enumerate(wanted, 1) for i, kh in enumerate(get.khs)]
    records = await connection.fetch(
        GET_SQL,
        list(range(1, len(wanted) + 1)),
        [get.sid for get in wanted],
        [n for n, _, _ in rows],
        [i for _, i, _ in rows],
        [kh for _, _, kh in rows],
    )
    answers = [Got(None, 0, deleted=False, rows={}) for _ in wanted]
    for record in records:
        got = answers[record["n"] - 1]
        if record["i"] is None:
            _, _, got.version, got.pending, got.dek_id, got.deleted = record[:6]
        else:
            got.rows[record["i"]] = _stored(record)
    return answers


async def get_page(connection: Connection, sid: UUID, span: tuple[bytes, bytes], limit: int) -> Got:
    """Up to ``limit`` rows with ``span[0] < kh < span[1]``, in the order of kh; places count from 0.

    The span is a type's own; the column is not asked, so that a row whose type was altered does not pass for absent.
    """
    records = await connection.fetch(PAGE_SQL, sid, span[0], span[1], limit)
    head, stored = _parted(records, "version")
    if head is None:
        return Got(None, 0, deleted=False, rows={})
    rows = {i: _stored(record) for i, record in enumerate(stored)}
    return Got(head["version"], head["dek_id"], head["deleted"], rows, head["pending"])


async def get_state(connection: Connection, sid: UUID) -> WholeSession | None:
    """A session with all its rows, in one snapshot; None when there is none."""
    head, records = _parted(await connection.fetch(STATE_SQL, sid), "head")
    if head is None:
        return None
    entries = sum(record["kh"] is None for record in records) if records and records[0]["kh"] is None else 0
    journal = sorted((_entry(record) for record in records[:entries]), key=lambda entry: entry.version)
    return WholeSession(nested_row(head["head"]), journal, [_stored(record) for record in records[entries:]])


async def stream_state(
    connection: Connection, sid: UUID, chunk: int = _CHUNK
) -> AsyncGenerator[WholeSession | list[StoredRow], None]:
    """The same for a session of any size: the session without rows, then its rows in chunks. Nothing when there is none."""
    async with connection.transaction(readonly=True):
        # Who reads slowly is judged by whoever sends it on; the server would cut the reader off within a chunk.
        await unhurried(connection)
        cursor = await connection.cursor(STATE_SQL, sid)
        first = await cursor.fetchrow()
        if first is None:
            return
        row = nested_row(first["head"])
        entries = await cursor.fetch(row.head.pending) if row.head.pending else []
        yield WholeSession(row, [_entry(record) for record in entries], [])
        while records := await cursor.fetch(chunk):
            if records[0]["kh"] is None:
                raise Corrupt(WHOLE_SET, None)  # an entry that belongs to no commit
            yield [_stored(record) for record in records]


def _entry(record: asyncpg.Record) -> JournalEntry:
    return JournalEntry(record["d_hi"] or 0, record["sealed"])


def _parted(records: list[asyncpg.Record], mark: str) -> tuple[asyncpg.Record | None, list[asyncpg.Record]]:
    """The session's record and its rows'. It comes first, but for a server that gathers both sides in parallel."""
    if records and records[0][mark] is not None:
        return records[0], records[1:]
    head = next((record for record in records if record[mark] is not None), None)
    return head, sorted(
        (record for record in records if record[mark] is None), key=lambda record: bytes(record["kh"] or b"")
    )


def _stored(record: asyncpg.Record) -> StoredRow:
    # By place: the five columns stand together in every statement, at its end where it has others before them.
    kh, ktype, d_hi, d_lo, sealed = record[-5:]
    return StoredRow(kh, ktype, (d_hi, d_lo), sealed)
