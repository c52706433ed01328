"""Sessions as rows: look, list, lease, delete, restore, purge, rewrap."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg

from service.records import Granted, Head, Identity, Lease, LeaseAsk, SessionRow, Vacant
from service.sql.pool import Connection

# Of the columns' base types: a row within a row has no other that the driver reads.
_HEAD: Final = {
    "sid": "s.sid",
    "tenant": "s.tenant::text",
    "name": "s.name::text",
    "version": "s.version::bigint",
    "epoch": "s.epoch::bigint",
    "lease_holder": "s.lease_holder::text",
    "lease_expires": "s.lease_expires",
    "lease_live": "s.lease_expires > now()",
    "master_key_id": "s.master_key_id::text",
    "dek_id": "s.dek_id::int",
    "wrapped_key": "s.wrapped_key::bytea",
    "rows": "s.row_count::bigint",
    "mark": "s.mark::bigint",
    "recent": "s.recent::bytea",
    "identity_tag": "s.identity_tag::bytea",
    "paired": "s.paired",
    "next_pre_key": "s.next_pre_key::bigint",
    "first_unuploaded": "s.first_unuploaded::bigint",
    "account_sync": "s.account_sync::bigint",
    "signed_pre_key": "s.signed_pre_key::bigint",
    "created_at": "s.created_at",
    "updated_at": "s.updated_at",
    "deleted_at": "s.deleted_at",
    "mirrored": "s.mirrored",
    "pending": "s.pending::bigint",
    "journal_weight": "s.journal_weight::bigint",
    "pre_key_top": "s.pre_key_top::bigint",
}
HEAD_COLUMNS: Final = ", ".join(f"{column} AS {name}" for name, column in _HEAD.items())

FIND_SQL: Final = f"SELECT {HEAD_COLUMNS} FROM sessions s WHERE s.sid = $1"

HOLD_SQL: Final = f"{FIND_SQL} FOR UPDATE"

FIND_PURGED_SQL: Final = "SELECT version, epoch FROM purged_sessions WHERE sid = $1"

LIST_SQL: Final = f"""
SELECT {HEAD_COLUMNS} FROM sessions s
WHERE s.tenant = $1 AND s.name > $2 AND s.name >= $3 AND s.name < $4 AND s.deleted_at IS NULL
ORDER BY s.tenant, s.name LIMIT $5
"""

COUNT_KEYS_SQL: Final = """
SELECT k.sid, k.ktype, count(*) AS count, sum(octet_length(k.sealed))::bigint AS bytes
FROM unnest($1::uuid[]) AS w(sid)
CROSS JOIN LATERAL (SELECT * FROM session_keys k WHERE k.sid = w.sid AND k.ktype <> '' OFFSET 0) k
GROUP BY k.sid, k.ktype
"""

# How it came about is of the row as it was before this statement: for the metrics, which may err when two ask at once.
LEASE_SQL: Final = """
WITH upd AS (
    UPDATE sessions s SET
        epoch = CASE WHEN s.lease_holder = $2 AND NOT ($4 OR s.epoch IS NOT DISTINCT FROM $6::bigint) THEN s.epoch
                     ELSE s.epoch + 1 END,
        lease_holder = $2, lease_expires = now() + $3::float8 * interval '1 second'
    WHERE s.sid = $1 AND s.deleted_at IS NULL
      AND ($5::bigint IS NULL OR (s.epoch = $5 AND s.lease_holder = $2))
      AND ($4 OR s.epoch = $6::bigint OR s.lease_holder IS NULL OR s.lease_holder = $2 OR s.lease_expires <= now())
    RETURNING s.epoch, s.lease_expires
)
SELECT upd.epoch, upd.lease_expires,
       CASE WHEN upd.epoch = was.epoch THEN 'renewed'
            WHEN was.lease_holder <> $2 AND was.lease_expires > now() THEN 'taken_over'
            ELSE 'granted' END AS event
FROM upd, sessions was WHERE was.sid = $1
"""

RELEASE_SQL: Final = """
UPDATE sessions SET lease_holder = NULL, lease_expires = NULL
WHERE sid = $1 AND epoch = $2 AND deleted_at IS NULL RETURNING epoch
"""

# No client's lease lasts as long: it is what keeps a session closed that was given back (`migrate.fence`).
_BEYOND_CLIENTS: Final = "lease_expires > now() + interval '1 day'"

LONG_LEASE_SQL: Final = f"""
SELECT lease_holder::text, epoch::bigint FROM sessions WHERE sid = $1 AND deleted_at IS NULL AND {_BEYOND_CLIENTS}
"""

DELETE_SQL: Final = f"""
UPDATE sessions SET deleted_at = now(), epoch = epoch + 1,
    lease_holder = CASE WHEN {_BEYOND_CLIENTS} THEN lease_holder END,
    lease_expires = CASE WHEN {_BEYOND_CLIENTS} THEN lease_expires END
WHERE sid = $1 AND deleted_at IS NULL AND ($2::bigint IS NULL OR epoch = $2)
RETURNING version, row_count AS rows, deleted_at
"""

RESTORE_SQL: Final = """
UPDATE sessions SET deleted_at = NULL
WHERE sid = $1 AND deleted_at > now() - $2::interval RETURNING version
"""

EXPIRED_SQL: Final = "SELECT sid FROM sessions WHERE deleted_at <= now() - $1::interval ORDER BY deleted_at LIMIT 100"

DELETED_SQL: Final = """
SELECT s.name, (SELECT count(*) FROM session_keys k WHERE k.sid = s.sid AND k.ktype <> '') AS keys, s.deleted_at
FROM sessions s WHERE s.tenant = $1 AND s.deleted_at > now() - $2::interval ORDER BY s.deleted_at DESC LIMIT 1000
"""

# The data key goes with the session's row: whatever copies of the rows remain do not open. Rows are deleted as they were
# when the statement began, so it must be the deletion of then: a session restored since may have got others.
PURGE_SQL: Final = """
WITH gone AS (
    DELETE FROM sessions s WHERE s.sid = $1 AND s.deleted_at <= now() - $2::interval
      AND s.deleted_at = (SELECT seen.deleted_at FROM sessions seen WHERE seen.sid = $1)
    RETURNING s.sid, s.version, s.epoch
), keys AS (
    DELETE FROM session_keys k USING gone WHERE k.sid = $1 RETURNING 1
), journal AS (
    DELETE FROM session_journal j USING gone WHERE j.sid = $1
), origin AS (
    DELETE FROM session_origins o USING gone WHERE o.sid = $1
), entries AS (
    DELETE FROM mirror_entries e USING gone WHERE e.sid = $1
), verdict AS (
    DELETE FROM integrity_verdicts v USING gone WHERE v.sid = $1
), archived AS (
    DELETE FROM integrity_archive a USING gone WHERE a.sid = $1
), stood AS (
    INSERT INTO purged_sessions (sid, version, epoch) SELECT sid, version, epoch + 1 FROM gone
    ON CONFLICT (sid) DO UPDATE SET version = excluded.version, epoch = excluded.epoch, purged_at = now()
)
SELECT (SELECT count(*) FROM keys) AS rows FROM gone
"""

WRAPPED_SQL: Final = """
SELECT sid, tenant, dek_id, master_key_id, wrapped_key FROM sessions
WHERE master_key_id = ANY($1::text[]) AND sid > $2 ORDER BY sid LIMIT 500
"""

REWRAP_SQL: Final = """
UPDATE sessions s SET master_key_id = $4, wrapped_key = w.new
FROM unnest($1::uuid[], $2::bytea[], $3::bytea[]) AS w(sid, old, new)
WHERE s.sid = w.sid AND s.wrapped_key = w.old
"""

CENSUS_SQL: Final = """
SELECT count(*) AS sessions, count(*) FILTER (WHERE paired) AS paired,
       count(*) FILTER (WHERE lease_expires > now()) AS leased, max(updated_at) AS newest
FROM sessions WHERE tenant = $1 AND deleted_at IS NULL
"""

CENSUS_KEYS_SQL: Final = """
SELECT k.ktype, count(*) AS count FROM sessions s JOIN session_keys k ON k.sid = s.sid
WHERE s.tenant = $1 AND s.deleted_at IS NULL AND k.ktype <> '' GROUP BY k.ktype
"""


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A session's data key as it is stored."""

    sid: UUID
    tenant: str
    dek_id: int
    master_key_id: str
    wrapped_key: bytes = field(repr=False)


async def find(connection: Connection, sid: UUID) -> SessionRow | Vacant:
    """The session's row, or where one made now would start."""
    record = await connection.fetchrow(FIND_SQL, sid)
    if record is not None:
        return session_row(record)
    purged = await connection.fetchrow(FIND_PURGED_SQL, sid)
    return Vacant() if purged is None else Vacant(purged["version"], purged["epoch"])


async def hold(connection: Connection, sid: UUID) -> SessionRow | None:
    """The session's row, which nobody else changes until this transaction ends."""
    record = await connection.fetchrow(HOLD_SQL, sid)
    return None if record is None else session_row(record)


async def find_page(connection: Connection, tenant: str, prefix: str, after: str, limit: int) -> list[SessionRow]:
    """Up to ``limit`` live sessions of a tenant with names that begin with ``prefix``, after a name, by name."""
    # Names are ASCII and ordered bytewise: "~" is behind every character a name may have.
    return [session_row(r) for r in await connection.fetch(LIST_SQL, tenant, after, prefix, prefix + "~", limit)]


async def count_keys(connection: Connection, sids: Sequence[UUID]) -> dict[UUID, dict[str, tuple[int, int]]]:
    """Keys and stored bytes by session and type."""
    counts: dict[UUID, dict[str, tuple[int, int]]] = {sid: {} for sid in sids}
    for record in await connection.fetch(COUNT_KEYS_SQL, list(sids)):
        counts[record["sid"]][record["ktype"]] = (record["count"], record["bytes"])
    return counts


async def take_lease(connection: Connection, sid: UUID, ask: LeaseAsk) -> Granted | None:
    """None when another's lease lives, the ask's epoch is not that of its holder's lease, or there is no session. Taking
    over raises the epoch, also of a lease of one's own.
    """
    record = await connection.fetchrow(
        LEASE_SQL, sid, ask.holder, ask.ttl_s, ask.takeover, ask.epoch, ask.takeover_epoch
    )
    return None if record is None else Granted(record["epoch"], record["lease_expires"], record["event"])


async def release_lease(connection: Connection, sid: UUID, epoch: int) -> bool:
    """True when the lease's epoch was this one (or the last lease's, and it is over)."""
    return await connection.fetchval(RELEASE_SQL, sid, epoch) is not None


async def find_long_lease(connection: Connection, sid: UUID) -> tuple[str, int] | None:
    """Holder and epoch of a lease that lasts longer than any client's, by the database's clock."""
    record = await connection.fetchrow(LONG_LEASE_SQL, sid)
    return None if record is None else tuple(record)


async def mark_deleted(connection: Connection, sid: UUID, epoch: int | None) -> tuple[int, int, datetime] | None:
    """``(version, rows, when)`` of the session now deleted, None when it was not there to delete or ``epoch`` is over.

    Its lease ends, but for one beyond clients': what was given back is still closed when it is restored.
    """
    record = await connection.fetchrow(DELETE_SQL, sid, epoch)
    return None if record is None else (record["version"], record["rows"], record["deleted_at"])


async def restore(connection: Connection, sid: UUID, window: timedelta) -> bool:
    """True when a deleted session came back."""
    return await connection.fetchval(RESTORE_SQL, sid, window) is not None


async def purge(connection: Connection, sid: UUID, window: timedelta) -> int | None:
    """Destroys the data key and the rows of a session deleted at least ``window`` ago: how many rows, None if not so."""
    rows: int | None = await connection.fetchval(PURGE_SQL, sid, window)
    return rows


async def find_expired(connection: Connection, window: timedelta) -> list[UUID]:
    """Up to 100 sessions whose window is over."""
    return [record["sid"] for record in await connection.fetch(EXPIRED_SQL, window)]


async def find_deleted(connection: Connection, tenant: str, window: timedelta) -> list[tuple[str, int, datetime]]:
    """``(name, stored keys, when)`` of up to 1,000 sessions deleted less than ``window`` ago, the latest first."""
    return [tuple(record) for record in await connection.fetch(DELETED_SQL, tenant, window)]


async def find_wrapped(connection: Connection, key_ids: Sequence[str], after: UUID) -> list[Wrapped]:
    """Up to 500 sessions after a uuid whose data keys are wrapped by one of these master keys."""
    records = await connection.fetch(WRAPPED_SQL, list(key_ids), after)
    return [Wrapped(UUID(bytes=sid.bytes), *rest) for sid, *rest in records]


async def rewrap(connection: Connection, swaps: Sequence[tuple[UUID, bytes, bytes]], key_id: str) -> None:
    """Swaps wrapped data keys ``(sid, old, new)``; one that changed meanwhile stays."""
    sids, old, new = ([swap[i] for swap in swaps] for i in range(3))
    await connection.execute(REWRAP_SQL, sids, old, new, key_id)


async def census(connection: Connection, tenant: str) -> tuple[asyncpg.Record | None, dict[str, int]]:
    """A tenant's sessions counted, and its keys by type."""
    keys = {record["ktype"]: record["count"] for record in await connection.fetch(CENSUS_KEYS_SQL, tenant)}
    return await connection.fetchrow(CENSUS_SQL, tenant), keys


def nested_row(values: Sequence[Any]) -> SessionRow:
    """`session_row` of a row within a row, which comes without names."""
    return session_row(dict(zip(_HEAD, values, strict=True)))


def session_row(record: asyncpg.Record | dict[str, Any]) -> SessionRow:
    """A record of HEAD_COLUMNS as values."""
    counters = (
        record["next_pre_key"],
        record["first_unuploaded"],
        record["account_sync"],
        record["signed_pre_key"],
    )
    head = Head(
        sid=record["sid"],
        version=record["version"],
        epoch=record["epoch"],
        master_key_id=record["master_key_id"],
        dek_id=record["dek_id"],
        wrapped_key=record["wrapped_key"],
        rows=record["rows"],
        mark=record["mark"],
        recent=record["recent"],
        identity=Identity(record["identity_tag"], record["paired"], counters),
        deleted=record["deleted_at"] is not None,
        mirrored=record["mirrored"],
        pending=record["pending"],
        journal_weight=record["journal_weight"],
        pre_key_top=record["pre_key_top"],
    )
    lease = None
    if record["lease_holder"] is not None:
        lease = Lease(record["lease_holder"], record["lease_expires"], record["lease_live"])
    return SessionRow(
        head, record["tenant"], record["name"], lease, record["created_at"], record["updated_at"], record["deleted_at"]
    )
