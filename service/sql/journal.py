"""The journal: large commits, and those of a burst, kept as one sealed entry each until their rows are written.

A commit of hundreds of keys costs most where it is spread into rows: a hash, a digest and an encryption a key, an index
entry a key. It is durable as soon as its entry is, so the entry is what the caller waits for; the rows follow
(`settle`), once for all entries that wait.

Appending is the same compare-and-set as any commit (see `commit`), but for rows, which it does not touch. Settling is one
on the version that the rows show (``version - pending``), which only settling and commits of rows move. It leaves version,
lease and head as they are, so it takes nobody's turn.
"""

from collections.abc import Sequence
from contextlib import suppress
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

import asyncpg

from service.records import Applied, Change, JournalEntry, NotApplied, SealedRow, SessionRow, Settling
from service.sql.fragments import (
    FRESH_FROM,
    IDENTITY_COLUMNS,
    UPSERTED,
    columns_to_insert,
    columns_to_look,
    identity_columns,
    lease_after,
    mark_after,
    mark_moved,
    may_write,
    parted,
    stored,
    weight,
)
from service.sql.pool import Connection
from service.sql.sessions import HEAD_COLUMNS, nested_row

# Of one session, as it mostly comes: without arrays.
APPEND_SQL: Final = f"""
WITH upd AS (
    UPDATE sessions s SET
        version = s.version + 1, {lease_after("$4::bigint")}, {mark_moved("$5::bigint")},
        pending = s.pending + 1, journal_weight = s.journal_weight + $15,
        recent = $7, identity_tag = $8, paired = $9, next_pre_key = $10,
        first_unuploaded = $11, account_sync = $12, signed_pre_key = $13, pre_key_top = $14, updated_at = now()
    WHERE s.sid = $1 AND s.version = $2 AND s.dek_id = $3 AND s.deleted_at IS NULL AND NOT s.mirrored
      AND {may_write("$4::bigint")}
    RETURNING s.sid, s.version, s.epoch, s.row_count AS rows
), put AS (
    INSERT INTO session_journal (sid, version, sealed) SELECT upd.sid, upd.version, $6::bytea FROM upd
)
SELECT 1 AS n, version, epoch, rows FROM upd
"""

_STEERING: Final = (
    ("sid", "uuid"),
    ("expected", "bigint"),
    ("dek_id", "int"),
    ("lease_epoch", "bigint"),
    ("mark_delta", "bigint"),
    ("weight", "bigint"),
    ("recent", "bytea"),
)
_IDENTITY: Final = (*IDENTITY_COLUMNS, ("pre_key_top", "bigint"))


_values: Final = attrgetter(
    "journal", "sid", "expected", "dek_id", "lease_epoch", "mark_delta", "journal_weight", "recent"
)


def _append_many_sql(changed: Sequence[tuple[str, str]] = ()) -> str:
    """Of many sessions: $1 the entries, then an array a column, a place a commit. ``changed``: what more the session gets."""
    arrays = ", ".join(f"${place}::{kind}[]" for place, (_, kind) in enumerate((*_STEERING, *changed), 2))
    names = ", ".join(name for name, _ in (*_STEERING, *changed))
    # Entries are the bulk: they go from their array to their table without a stop.
    return f"""
WITH c AS (
    SELECT * FROM unnest({arrays}) WITH ORDINALITY AS c({names}, n)
), upd AS (
    UPDATE sessions s SET
        version = s.version + 1, {lease_after("c.lease_epoch")}, {mark_moved("c.mark_delta")},
        pending = s.pending + 1, journal_weight = s.journal_weight + c.weight,
        {"".join(f"{name} = c.{name}, " for name, _ in changed)}recent = c.recent, updated_at = now()
    FROM c
    WHERE s.sid = c.sid AND s.version = c.expected AND s.dek_id = c.dek_id AND s.deleted_at IS NULL AND NOT s.mirrored
      AND {may_write("c.lease_epoch")}
    RETURNING c.n, s.sid, s.version, s.epoch, s.row_count AS rows
), put AS (
    INSERT INTO session_journal (sid, version, sealed)
    SELECT upd.sid, upd.version, ($1::bytea[])[upd.n::int] FROM upd
)
SELECT n, version, epoch, rows FROM upd
"""


APPEND_MANY_SQL: Final = _append_many_sql(_IDENTITY)

# Of commits that leave the identity as it is, as those of a burst do: each array costs as much as a member has of them.
APPEND_KEYS_SQL: Final = _append_many_sql()

# The session, then its entries in order.
JOURNAL_SQL: Final = f"""
SELECT h AS head, NULL::bigint AS version, NULL::bytea AS sealed
FROM (SELECT {HEAD_COLUMNS} FROM sessions s WHERE s.sid = $1) h
UNION ALL (
    SELECT NULL, j.version, j.sealed FROM session_journal j WHERE j.sid = $1 ORDER BY j.version
)
"""

PAGE: Final = 100

WAITING_SQL: Final = """
SELECT DISTINCT s.sid, s.tenant FROM session_journal j JOIN sessions s ON s.sid = j.sid
WHERE j.at < now() - $1::float8 * interval '1 second' AND s.sid > $2 AND s.deleted_at IS NULL ORDER BY s.sid LIMIT $3
"""

# $1-$7 of the session; $8-$14 a row each that is put, $15-$17 one each that is deleted: what they were is looked for first.
# See `commit_one` for the uuid in each row.
_SETTLE: Final = f"""
WITH r AS (
    SELECT $1::uuid AS sid, r.*
    FROM unnest($8::bytea[], $9::text[], $10::bytea[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[])
        AS r(kh, ktype, sealed, d_hi, d_lo, w1, w2)
), g AS (
    SELECT $1::uuid AS sid, g.* FROM unnest($15::bytea[], $16::bigint[], $17::bigint[]) AS g(kh, w1, w2)
), was AS MATERIALIZED (
    SELECT count(*) AS found, sum({weight("a.w1", "a.w2")}) AS weight
    FROM (SELECT sid, kh, w1, w2 FROM r UNION ALL SELECT sid, kh, w1, w2 FROM g) a
    CROSS JOIN {stored("a.sid", "a.kh")}
), upd AS (
    UPDATE sessions s SET
        row_count = s.row_count + $7::int - was.found, {mark_after("$6::bigint")},
        pending = s.pending - $4::bigint, journal_weight = s.journal_weight - $5::bigint
    FROM was
    WHERE s.sid = $1 AND s.version - s.pending = $2::bigint AND s.dek_id = $3 AND s.deleted_at IS NULL
      AND (SELECT seen.version - seen.pending FROM sessions seen WHERE seen.sid = $1) = $2
    RETURNING s.row_count AS rows
), del AS (
    DELETE FROM session_keys k USING upd, g WHERE k.sid = g.sid AND k.kh = g.kh
), put AS (
    INSERT INTO session_keys (sid, kh, ktype, d_hi, d_lo, sealed)
    SELECT r.sid, r.kh, r.ktype, r.d_hi, r.d_lo, r.sealed FROM upd, r
    {UPSERTED}
), gone AS (
    DELETE FROM session_journal j USING upd WHERE j.sid = $1 AND j.version > $2 AND j.version <= $2 + $4
)"""

_SETTLED: Final = """
SELECT rows FROM upd
"""

SETTLE_SQL: Final = _SETTLE + _SETTLED

# The same with rows that are surely new, $18-$22 (see `commit_one.COMMIT_FRESH_SQL`).
SETTLE_FRESH_SQL: Final = (
    _SETTLE
    + """, fresh AS (
    INSERT INTO session_keys (sid, kh, ktype, d_hi, d_lo, sealed)
    SELECT $1, f.* FROM upd,
        unnest($18::bytea[], $19::text[], $20::bigint[], $21::bigint[], $22::bytea[]) AS f(kh, ktype, d_hi, d_lo, sealed)
)"""
    + _SETTLED
)


# Entries come and go, and autovacuum looks once a minute: a long burst would leave hundreds of megabytes behind until then.
# Whoever else is at it does it for us. The table keeps its length, since shortening it would make readers wait.
TIDY_SQL: Final = "VACUUM (SKIP_LOCKED, TRUNCATE false) session_journal"


async def append_all(connection: Connection, changes: Sequence[Change]) -> list[Applied | NotApplied]:
    """Commits of different sessions, each as its entry; one outcome each, in order."""
    if len(changes) == 1:
        answers = await _append_one(connection, changes[0])
        places = [0]
    else:
        # Sessions are locked in the order they stand here, as by every other statement.
        places = sorted(range(len(changes)), key=[change.sid.bytes for change in changes].__getitem__)
        answers = await _append_many(connection, [changes[place] for place in places])
    outcomes: list[Applied | NotApplied] = [NotApplied(clash=False)] * len(changes)
    for n, version, epoch, rows in answers:
        outcomes[places[n - 1]] = Applied(version, epoch, rows)
    return outcomes


async def _append_one(connection: Connection, change: Change) -> list[asyncpg.Record]:
    return await connection.fetch(
        APPEND_SQL,
        change.sid,
        change.expected,
        change.dek_id,
        change.lease_epoch,
        change.mark_delta,
        change.journal,
        change.recent,
        *identity_columns(change.identity),
        change.pre_key_top,
        change.journal_weight,
    )


async def _append_many(connection: Connection, changes: Sequence[Change]) -> list[asyncpg.Record]:
    columns = zip(*map(_values, changes), strict=True)
    if all(change.same_identity for change in changes):
        return await connection.fetch(APPEND_KEYS_SQL, *columns)
    return await connection.fetch(
        APPEND_MANY_SQL,
        *columns,
        *zip(*(identity_columns(change.identity) for change in changes), strict=True),
        [change.pre_key_top for change in changes],
    )


async def read_journal(connection: Connection, sid: UUID) -> tuple[SessionRow, list[JournalEntry]] | None:
    """A session and its entries in one snapshot; None when there is none."""
    records = await connection.fetch(JOURNAL_SQL, sid)
    head = next((record for record in records if record["head"] is not None), None)
    if head is None:
        return None
    found = [JournalEntry(record["version"], record["sealed"]) for record in records if record["head"] is None]
    return nested_row(head["head"]), sorted(found, key=lambda entry: entry.version)


async def tidy(connection: Connection) -> None:
    """Makes room for new entries where settled ones lay. Whatever keeps it from that, autovacuum will do it."""
    with suppress(asyncpg.PostgresError, TimeoutError):
        await connection.execute(TIDY_SQL)


async def find_waiting(connection: Connection, older_s: float, after: UUID) -> list[tuple[UUID, str]]:
    """``(sid, tenant)`` of up to ``PAGE`` living sessions after a uuid with an entry older than this, by uuid."""
    found = await connection.fetch(WAITING_SQL, older_s, after, PAGE)
    return [(record["sid"], record["tenant"]) for record in found]


async def settle(connection: Connection, work: Settling, *, keyless: bool) -> int | None:
    """Writes the rows, drops the entries: how many rows the session has now, None when nothing waits as it did.

    ``keyless``: the session has no rows of keys yet, so that all that come are new.
    """
    fresh, rest = parted(work.rows, keyless=keyless)
    if len(fresh) >= FRESH_FROM and not connection.is_in_transaction():
        try:
            return await _settle(connection, SETTLE_FRESH_SQL, work, rest, columns_to_insert(fresh))
        except asyncpg.UniqueViolationError:
            pass  # undone
    return await _settle(connection, SETTLE_SQL, work, work.rows, ())


async def _settle(
    connection: Connection, text: str, work: Settling, rows: Sequence[SealedRow], fresh: Sequence[Any]
) -> int | None:
    settled: int | None = await connection.fetchval(
        text,
        work.sid,
        work.settled,
        work.dek_id,
        work.count,
        work.weight,
        work.mark_delta,
        len(work.rows),
        *columns_to_look(rows),
        work.gone,
        *(zip(*work.gone_weights, strict=True) if work.gone else ((), ())),
        *fresh,
    )
    return settled
