"""The journal: large commits, and those of a burst, kept as one sealed entry each until their rows are written.

A commit of hundreds of keys costs most where it is spread into rows: a hash, a digest and an encryption a key, an index
entry a key. It is durable as soon as its entry is, so the entry is what the caller waits for; the rows follow
(`settle`), once for all entries that wait.

Appending is the same compare-and-set as any commit (see `commit`), but for rows, which it does not touch.
"""

from collections.abc import Sequence
from operator import attrgetter
from typing import Final
from uuid import UUID

import asyncpg

from service.records import Applied, Change, JournalEntry, NotApplied, SessionRow
from service.sql.fragments import (
    CHANGE_COLUMNS,
    IDENTITY_COLUMNS,
    identity_columns,
    lease_after,
    mark_moved,
    may_write,
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

_STEERING: Final = (*CHANGE_COLUMNS, ("weight", "bigint"))
_IDENTITY: Final = (*IDENTITY_COLUMNS, ("pre_key_top", "bigint"))
_values: Final = attrgetter("journal", *(name for name, _ in CHANGE_COLUMNS), "journal_weight")


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


async def append_all(connection: Connection, changes: Sequence[Change]) -> list[Applied | NotApplied]:
    """Commits of different sessions, each as its entry; one outcome each, in order."""
    if len(changes) == 1:
        answers = await _append_one(connection, changes[0])
        places = [0]
    else:
        # Sessions are locked in the order they stand here, as by every other statement. Behind a pooler plans are not ours,
        # and may lock in another: who then waits in a ring with another process is told so by Postgres, and tries again.
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
