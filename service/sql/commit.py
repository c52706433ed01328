"""The commit statement, and its siblings for sessions that are new or replaced whole.

A commit is a compare-and-set on the session's version, made with the head (`records.Head`) it was computed from: lease,
version, pre-key guard, rows, mark and remembered keys in one statement and one round trip. Anything that stands otherwise
applies nothing, and the store looks again and says why.

Every part of one statement reads the snapshot taken when it began, while the UPDATE waits for and then sees what
committed meanwhile. ``seen`` reads the version from the snapshot, the UPDATE from the locked row; only when both are the
expected one do the old rows (mark, guard, counts) belong to the head.
"""

from collections.abc import Sequence
from typing import Any, Final

import asyncpg

from service.records import Applied, Change, Identity, NotApplied, SealedRow
from service.sql.pool import Connection

_ROWS: Final = "n, kh, ktype, sealed, d_hi, d_lo, w1, w2"


def _lease_after(given: str) -> str:
    """What becomes of the lease. ``given``: the epoch a commit names, NULL for none."""
    # A write without an epoch over an expired lease ends that lease: its owner's late writes are fenced.
    return f"""
        epoch = CASE WHEN {given} IS NULL AND s.lease_holder IS NOT NULL THEN s.epoch + 1 ELSE s.epoch END,
        lease_holder = CASE WHEN {given} IS NOT NULL THEN s.lease_holder END,
        lease_expires = CASE WHEN {given} IS NOT NULL THEN s.lease_expires END"""


def _may_write(given: str) -> str:
    return f"""
        CASE WHEN {given} IS NULL THEN s.lease_expires IS NULL OR s.lease_expires <= now() ELSE s.epoch = {given} END"""


def _mark_after(delta: str) -> str:
    return f"""
        mark = mod(mod(s.mark + {delta} - coalesce(was.weight, 0), 2305843009213693951) + 2305843009213693951,
                   2305843009213693951)::bigint"""


_WEIGHT: Final = "k.d_hi::numeric * r.w1 + k.d_lo::numeric * r.w2"
_DIFFERS: Final = "(k.d_hi <> r.d_hi OR k.d_lo <> r.d_lo)"
_UPSERTED: Final = """
    ON CONFLICT (sid, kh) DO UPDATE SET d_hi = excluded.d_hi, d_lo = excluded.d_lo, sealed = excluded.sealed"""

# $1-$14 a commit each, $15-$22 a row each; row.n is its commit's place in $2, from 1.
_COMMIT: Final = f"""
WITH c AS (
    SELECT * FROM unnest($1::int[], $2::uuid[], $3::bigint[], $4::int[], $5::bigint[], $6::bigint[], $7::int[], $8::bytea[],
                         $9::bytea[], $10::bool[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[])
        AS c(n, sid, expected, dek_id, lease_epoch, mark_delta, upserts, recent,
             identity_tag, paired, next_pre_key, first_unuploaded, account_sync, signed_pre_key)
), r AS (
    SELECT ($2::uuid[])[n] AS sid, r.*
    FROM unnest($15::int[], $16::bytea[], $17::text[], $18::bytea[], $19::bigint[], $20::bigint[], $21::bigint[], $22::bigint[])
        AS r({_ROWS})
), old AS MATERIALIZED (
    SELECT r.n, r.sid, r.kh, {_WEIGHT} AS weight,
           r.ktype = 'pre-key' AND r.sealed IS NOT NULL AND NOT ($23::bool[])[r.n] AND {_DIFFERS} AS clash
    FROM r JOIN session_keys k ON k.sid = r.sid AND k.kh = r.kh
), was AS (
    SELECT n, count(*) AS found, sum(weight) AS weight, bool_or(clash) AS clash FROM old GROUP BY n
), upd AS (
    UPDATE sessions s SET
        version = s.version + 1, {_lease_after("c.lease_epoch")},
        rows = s.rows + c.upserts - coalesce(was.found, 0), {_mark_after("c.mark_delta")},
        recent = c.recent, identity_tag = c.identity_tag, paired = c.paired, next_pre_key = c.next_pre_key,
        first_unuploaded = c.first_unuploaded, account_sync = c.account_sync, signed_pre_key = c.signed_pre_key,
        updated_at = now()
    FROM c JOIN sessions seen ON seen.sid = c.sid AND seen.version = c.expected LEFT JOIN was ON was.n = c.n
    WHERE s.sid = c.sid AND s.version = c.expected AND s.dek_id = c.dek_id AND s.deleted_at IS NULL
      AND {_may_write("c.lease_epoch")}
      AND NOT coalesce(was.clash, false)
    RETURNING c.n, s.version, s.epoch, s.rows
), del AS (
    DELETE FROM session_keys k USING upd JOIN r ON r.n = upd.n
    WHERE r.sealed IS NULL AND k.sid = r.sid AND k.kh = r.kh
), put AS (
    INSERT INTO session_keys (sid, kh, ktype, d_hi, d_lo, sealed)
    SELECT r.sid, r.kh, r.ktype, r.d_hi, r.d_lo, r.sealed FROM r JOIN upd ON upd.n = r.n WHERE r.sealed IS NOT NULL
    {_UPSERTED}
)"""

_OUTCOME: Final = """
SELECT c.n, upd.version, upd.epoch, upd.rows, coalesce(was.clash, false) AS clash
FROM c LEFT JOIN upd ON upd.n = c.n LEFT JOIN was ON was.n = c.n
"""

COMMIT_SQL: Final = _COMMIT + _OUTCOME

# The same with $24, an entry for the mirror or NULL a commit each. A statement of its own, so that sessions without a
# mirror pay nothing for those with one.
COMMIT_MIRRORED_SQL: Final = (
    _COMMIT
    + """, noted AS (
    INSERT INTO mirror_entries (sid, version, sealed)
    SELECT c.sid, upd.version, ($24::bytea[])[c.n] FROM upd JOIN c ON c.n = upd.n WHERE ($24::bytea[])[c.n] IS NOT NULL
)"""
    + _OUTCOME
)

# The commonest commit, that of one session, with $1-$14 of it and $15-$21 a row each: a third less work for the server
# than the same as a batch of one. Rows carry the session's uuid, so that each is looked up by its whole key: with "$1" in
# its place, a plan made on an empty table reads all rows of the session.
COMMIT_ONE_SQL: Final = f"""
WITH r AS (
    SELECT $1::uuid AS sid, r.*
    FROM unnest($15::bytea[], $16::text[], $17::bytea[], $18::bigint[], $19::bigint[], $20::bigint[], $21::bigint[])
        AS r(kh, ktype, sealed, d_hi, d_lo, w1, w2)
), was AS MATERIALIZED (
    SELECT count(*) AS found, sum({_WEIGHT}) AS weight,
           coalesce(bool_or(r.ktype = 'pre-key' AND r.sealed IS NOT NULL AND NOT $14::bool AND {_DIFFERS}), false) AS clash
    FROM r JOIN session_keys k ON k.sid = r.sid AND k.kh = r.kh
), upd AS (
    UPDATE sessions s SET
        version = s.version + 1, {_lease_after("$4::bigint")},
        rows = s.rows + $6::int - was.found, {_mark_after("$5::bigint")},
        recent = $7, identity_tag = $8, paired = $9, next_pre_key = $10,
        first_unuploaded = $11, account_sync = $12, signed_pre_key = $13, updated_at = now()
    FROM was
    WHERE s.sid = $1 AND s.version = $2 AND s.dek_id = $3 AND s.deleted_at IS NULL
      AND (SELECT seen.version FROM sessions seen WHERE seen.sid = $1) = $2
      AND {_may_write("$4::bigint")}
      AND NOT was.clash
    RETURNING s.version, s.epoch, s.rows
), del AS (
    DELETE FROM session_keys k USING upd, r WHERE r.sealed IS NULL AND k.sid = r.sid AND k.kh = r.kh
), put AS (
    INSERT INTO session_keys (sid, kh, ktype, d_hi, d_lo, sealed)
    SELECT r.sid, r.kh, r.ktype, r.d_hi, r.d_lo, r.sealed FROM upd, r WHERE r.sealed IS NOT NULL
    {_UPSERTED}
)
SELECT upd.version, upd.epoch, upd.rows, was.clash FROM was LEFT JOIN upd ON true
"""

# The insert names `gone` so that it runs after the delete.
REPLACE_SQL: Final = f"""
WITH upd AS (
    UPDATE sessions s SET
        version = s.version + 1, {_lease_after("$4::bigint")},
        rows = $5, mark = $6, recent = $7, identity_tag = $8, paired = $9, next_pre_key = $10,
        first_unuploaded = $11, account_sync = $12, signed_pre_key = $13, updated_at = now()
    WHERE s.sid = $1 AND s.version = $2 AND s.dek_id = $3 AND s.deleted_at IS NULL
      AND (SELECT seen.version FROM sessions seen WHERE seen.sid = $1) = $2
      AND {_may_write("$4::bigint")}
    RETURNING s.sid, s.version, s.epoch, s.rows
), gone AS (
    DELETE FROM session_keys k USING upd WHERE k.sid = upd.sid RETURNING 1
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
        rows, mark, recent, identity_tag, paired, next_pre_key, first_unuploaded, account_sync, signed_pre_key)
    SELECT $1, $2::text, $3::text, $4::bigint, $5::bigint, $6::text, now() + $7::float8 * interval '1 second', $8, $9, $10,
        $11, $12, $13, $14, $15, $16, $17, $18, $19
    FROM living WHERE NOT EXISTS (SELECT FROM purged_sessions p WHERE p.sid = $1 AND (p.version > $4 OR p.epoch > $5))
    ON CONFLICT (sid) DO NOTHING
    RETURNING sid, version, epoch, rows, lease_expires
), put AS (
    INSERT INTO session_keys (sid, kh, ktype, d_hi, d_lo, sealed)
    SELECT made.sid, r.* FROM made,
        unnest($20::bytea[], $21::text[], $22::bigint[], $23::bigint[], $24::bytea[]) AS r(kh, ktype, d_hi, d_lo, sealed)
)
SELECT version, epoch, rows, lease_expires FROM made
"""


async def commit_all(connection: Connection, changes: Sequence[Change]) -> list[Applied | NotApplied]:
    """Commits of different sessions in one statement; one outcome each, in order."""
    if len(changes) > 1:
        return await _commit_batch(connection, changes)
    change = changes[0]
    if change.replace:
        return [await _replace(connection, change)]
    return (
        await _commit_batch(connection, changes)
        if change.entry is not None
        else [await _commit_one(connection, change)]
    )


async def _commit_one(connection: Connection, change: Change) -> Applied | NotApplied:
    rows = change.rows
    answer = await connection.fetchrow(
        COMMIT_ONE_SQL,
        change.sid,
        change.expected,
        change.dek_id,
        change.lease_epoch,
        change.mark_delta,
        sum(row.sealed is not None for row in rows),
        change.recent,
        *_identity(change.identity),
        change.overwrite,
        *_columns(rows),
        [row.weights[0] for row in rows],
        [row.weights[1] for row in rows],
    )
    assert answer is not None  # noqa: S101 - an aggregate is always a row
    return _outcome(answer)


async def _commit_batch(connection: Connection, changes: Sequence[Change]) -> list[Applied | NotApplied]:
    # Sessions are locked in the order they stand here: in one order by every process, none waits for the other in a ring.
    places = sorted(range(len(changes)), key=lambda place: changes[place].sid)
    changes = [changes[place] for place in places]
    rows = [(n, row) for n, change in enumerate(changes, 1) for row in change.rows]
    entries = [change.entry for change in changes]
    mirrored = any(entry is not None for entry in entries)
    answers = await connection.fetch(
        COMMIT_MIRRORED_SQL if mirrored else COMMIT_SQL,
        list(range(1, len(changes) + 1)),
        [change.sid for change in changes],
        [change.expected for change in changes],
        [change.dek_id for change in changes],
        [change.lease_epoch for change in changes],
        [change.mark_delta for change in changes],
        [sum(row.sealed is not None for row in change.rows) for change in changes],
        [change.recent for change in changes],
        [change.identity.tag for change in changes],
        [change.identity.paired for change in changes],
        *zip(*(change.identity.counters for change in changes), strict=True),
        [n for n, _ in rows],
        *_columns([row for _, row in rows]),
        [row.weights[0] for _, row in rows],
        [row.weights[1] for _, row in rows],
        [change.overwrite for change in changes],
        *([entries] if mirrored else ()),
    )
    outcomes: list[Applied | NotApplied] = [NotApplied(clash=False)] * len(changes)
    for answer in answers:
        outcomes[places[answer["n"] - 1]] = _outcome(answer)
    return outcomes


async def _replace(connection: Connection, change: Change) -> Applied | NotApplied:
    answer = await connection.fetchrow(
        REPLACE_SQL,
        change.sid,
        change.expected,
        change.dek_id,
        change.lease_epoch,
        len(change.rows),
        change.mark_delta,
        change.recent,
        *_identity(change.identity),
        *_columns_to_insert(change.rows),
        change.entry,
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
        *_identity(change.identity),
        *_columns_to_insert(change.rows),
    )


def _outcome(answer: asyncpg.Record) -> Applied | NotApplied:
    if answer["version"] is None:
        return NotApplied(clash=answer["clash"])
    return Applied(answer["version"], answer["epoch"], answer["rows"])


def _identity(identity: Identity) -> tuple[Any, ...]:
    return identity.tag, identity.paired, *identity.counters


def _columns(rows: Sequence[SealedRow]) -> list[list[Any]]:
    return [
        [row.kh for row in rows],
        [row.ktype for row in rows],
        [row.sealed for row in rows],
        [row.digest[0] for row in rows],
        [row.digest[1] for row in rows],
    ]


def _columns_to_insert(rows: Sequence[SealedRow]) -> list[list[Any]]:
    kh, ktype, sealed, high, low = _columns(rows)
    return [kh, ktype, high, low, sealed]
