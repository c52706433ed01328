"""The commit statement: of many sessions; that of one is in `commit_one`, that of large commits and of bursts in `journal`.

A commit is a compare-and-set on the session's version, made with the head (`records.Head`) it was computed from: lease,
version, pre-key guard, rows, mark and remembered keys in one statement and one round trip. Anything that stands otherwise
applies nothing, and the store looks again and says why.

Every part of one statement reads the snapshot taken when it began, while the UPDATE waits for and then sees what
committed meanwhile. ``seen`` reads the version from the snapshot, the UPDATE from the locked row; only when both are the
expected one do the old rows (mark, guard, counts) belong to the head.
"""

from collections.abc import Sequence
from typing import Final

from service.records import Applied, Change, NotApplied
from service.sql.commit_one import commit_one
from service.sql.fragments import (
    UPSERTED,
    columns,
    differs,
    lease_after,
    mark_after,
    may_write,
    outcome,
    weight,
)
from service.sql.journal import append_all
from service.sql.pool import Connection
from service.sql.whole import replace

_ROWS: Final = "n, kh, ktype, sealed, d_hi, d_lo, w1, w2"


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
), was AS (
    SELECT r.n, count(*) AS found, sum({weight("r.w1", "r.w2")}) AS weight,
           bool_or(r.ktype = 'pre-key' AND r.sealed IS NOT NULL AND NOT ($23::bool[])[r.n]
                   AND {differs("r.d_hi", "r.d_lo")}) AS clash
    FROM r JOIN session_keys k ON k.sid = r.sid AND k.kh = r.kh GROUP BY r.n
), upd AS (
    UPDATE sessions s SET
        version = s.version + 1, {lease_after("c.lease_epoch")},
        row_count = s.row_count + c.upserts - coalesce(was.found, 0), {mark_after("c.mark_delta")},
        recent = c.recent, identity_tag = c.identity_tag, paired = c.paired, next_pre_key = c.next_pre_key,
        first_unuploaded = c.first_unuploaded, account_sync = c.account_sync, signed_pre_key = c.signed_pre_key,
        pre_key_top = ($24::bigint[])[c.n], updated_at = now()
    FROM c JOIN sessions seen ON seen.sid = c.sid AND seen.version = c.expected LEFT JOIN was ON was.n = c.n
    WHERE s.sid = c.sid AND s.version = c.expected AND s.dek_id = c.dek_id AND s.deleted_at IS NULL
      AND {may_write("c.lease_epoch")}
      AND NOT coalesce(was.clash, false)
    RETURNING c.n, s.version, s.epoch, s.row_count AS rows
), del AS (
    DELETE FROM session_keys k USING upd JOIN r ON r.n = upd.n
    WHERE r.sealed IS NULL AND k.sid = r.sid AND k.kh = r.kh
), put AS (
    INSERT INTO session_keys (sid, kh, ktype, d_hi, d_lo, sealed)
    SELECT r.sid, r.kh, r.ktype, r.d_hi, r.d_lo, r.sealed FROM r JOIN upd ON upd.n = r.n WHERE r.sealed IS NOT NULL
    {UPSERTED}
)"""

_OUTCOME: Final = """
SELECT c.n, upd.version, upd.epoch, upd.rows, coalesce(was.clash, false) AS clash
FROM c LEFT JOIN upd ON upd.n = c.n LEFT JOIN was ON was.n = c.n
"""

COMMIT_SQL: Final = _COMMIT + _OUTCOME

# The same with $25, an entry for the mirror or NULL a commit each. A statement of its own, so that sessions without a
# mirror pay nothing for those with one.
COMMIT_MIRRORED_SQL: Final = (
    _COMMIT
    + """, noted AS (
    INSERT INTO mirror_entries (sid, version, sealed)
    SELECT c.sid, upd.version, ($25::bytea[])[c.n] FROM upd JOIN c ON c.n = upd.n WHERE ($25::bytea[])[c.n] IS NOT NULL
)"""
    + _OUTCOME
)


async def commit_all(connection: Connection, changes: Sequence[Change]) -> list[Applied | NotApplied]:
    """Commits of different sessions in one statement; one outcome each, in order."""
    journaled = [place for place, change in enumerate(changes) if change.journal is not None]
    if len(journaled) == len(changes):
        return await append_all(connection, changes)
    if journaled:
        return await _commit_journaled(connection, changes, journaled)
    if len(changes) > 1:
        return await _commit_batch(connection, changes)
    change = changes[0]
    if change.replace:
        return [await replace(connection, change)]
    if change.entry is not None:
        return await _commit_batch(connection, changes)
    return [await commit_one(connection, change)]


async def _commit_journaled(
    connection: Connection, changes: Sequence[Change], journaled: Sequence[int]
) -> list[Applied | NotApplied]:
    """Those for the journal in a statement of their own; the others, which are other sessions', in theirs."""
    outcomes: dict[int, Applied | NotApplied] = {}
    appended = await append_all(connection, [changes[place] for place in journaled])
    outcomes.update(zip(journaled, appended, strict=True))
    others = [place for place in range(len(changes)) if place not in outcomes]
    outcomes.update(zip(others, await commit_all(connection, [changes[n] for n in others]), strict=True))
    return [outcomes[place] for place in range(len(changes))]


async def _commit_batch(connection: Connection, changes: Sequence[Change]) -> list[Applied | NotApplied]:
    # Sessions are locked in the order they stand here: in one order by every process, none waits for the other in a ring.
    places = sorted(range(len(changes)), key=lambda place: changes[place].sid.int)
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
        *columns([row for _, row in rows]),
        [row.weights[0] for _, row in rows],
        [row.weights[1] for _, row in rows],
        [change.overwrite for change in changes],
        [change.pre_key_top for change in changes],
        *([entries] if mirrored else ()),
    )
    outcomes: list[Applied | NotApplied] = [NotApplied(clash=False)] * len(changes)
    for answer in answers:
        outcomes[places[answer["n"] - 1]] = outcome(answer)
    return outcomes
