"""The commit statement: of many sessions; that of one is in `commit_one`, that of large commits and of bursts in `journal`.

A commit is a compare-and-set on the session's version, made with the head (`records.Head`) it was computed from: lease,
version, pre-key guard, rows, mark and remembered keys in one statement and one round trip. Anything that stands otherwise
applies nothing, and the store looks again and says why.

Every part of one statement reads the snapshot taken when it began, while the UPDATE waits for and then sees what
committed meanwhile. ``seen`` reads the version from the snapshot, the UPDATE from the locked row; only when both are the
expected one do the old rows (mark, guard, counts) belong to the head.
"""

from collections.abc import Sequence
from operator import attrgetter
from typing import Final

from service.records import Applied, Change, NotApplied, SealedRow
from service.sql.commit_one import commit_one
from service.sql.fragments import (
    CHANGE_COLUMNS,
    IDENTITY_COLUMNS,
    UPSERTED,
    columns_to_look,
    differs,
    identity_columns,
    lease_after,
    mark_after,
    may_write,
    outcome,
    stored,
    weight,
)
from service.sql.journal import append_all
from service.sql.pool import Connection
from service.sql.whole import replace

_GIVEN: Final = (*CHANGE_COLUMNS, ("pre_key_top", "bigint"), ("overwrite", "bool"))
_values: Final = attrgetter(*(name for name, _ in _GIVEN))
# $1-$15, an array each with a place a commit.
_ARRAYS: Final = {
    name: f"(${place}::{kind}[])"
    for place, (name, kind) in enumerate((*_GIVEN, ("upserts", "int"), *IDENTITY_COLUMNS), 1)
}
_MOVED: Final = ("recent", "pre_key_top", *(name for name, _ in IDENTITY_COLUMNS))


def _of(name: str, place: str = "was.n") -> str:
    """What the commit at a place, from 1, says."""
    return f"{_ARRAYS[name]}[{place}]"


# $16-$23 a row each, of which ``n`` is its commit's place; a commit has one at least. Nothing here is compared with all else
# in the statement: what belongs to a commit is found by its place in the arrays, what was applied by a hash of places.
_COMMIT: Final = f"""
WITH r AS (
    SELECT {_of("sid", "r.n")} AS sid, r.*
    FROM unnest($16::int[], $17::bytea[], $18::text[], $19::bytea[], $20::bigint[], $21::bigint[], $22::bigint[], $23::bigint[])
        AS r(n, kh, ktype, sealed, d_hi, d_lo, w1, w2)
), was AS MATERIALIZED (
    SELECT r.n, count(k.kh) AS found, sum({weight("r.w1", "r.w2")}) AS weight,
           coalesce(bool_or(r.ktype = 'pre-key' AND r.sealed IS NOT NULL AND NOT {_of("overwrite", "r.n")}
                            AND {differs("r.d_hi", "r.d_lo")}), false) AS clash
    FROM r LEFT JOIN {stored("r.sid", "r.kh")} ON true GROUP BY r.n ORDER BY r.n
), upd AS (
    UPDATE sessions s SET
        version = s.version + 1, {lease_after(_of("lease_epoch"))},
        row_count = s.row_count + {_of("upserts")} - was.found, {mark_after(_of("mark_delta"))},
        {"".join(f"{name} = {_of(name)}, " for name in _MOVED)}updated_at = now()
    FROM was
    WHERE s.sid = {_of("sid")} AND s.version = {_of("expected")} AND s.dek_id = {_of("dek_id")} AND s.deleted_at IS NULL
      AND (SELECT seen.version FROM sessions seen WHERE seen.sid = {_of("sid")}) = {_of("expected")}
      AND {may_write(_of("lease_epoch"))}
      AND NOT was.clash
    RETURNING was.n, s.version, s.epoch, s.row_count AS rows
), del AS (
    DELETE FROM session_keys k USING r
    WHERE r.sealed IS NULL AND k.sid = r.sid AND k.kh = r.kh AND (r.n IN (SELECT upd.n FROM upd)) IS TRUE
), put AS (
    INSERT INTO session_keys (sid, kh, ktype, d_hi, d_lo, sealed)
    SELECT r.sid, r.kh, r.ktype, r.d_hi, r.d_lo, r.sealed FROM r
    WHERE r.sealed IS NOT NULL AND (r.n IN (SELECT upd.n FROM upd)) IS TRUE
    {UPSERTED}
)"""

# One that is in neither part did not apply, and clashes with nothing.
_OUTCOME: Final = """
SELECT upd.n, upd.version, upd.epoch, upd.rows, false AS clash FROM upd
UNION ALL
SELECT was.n, NULL, NULL, NULL, true FROM was WHERE was.clash
"""

COMMIT_SQL: Final = _COMMIT + _OUTCOME

# The same with $24, an entry for the mirror or NULL a commit each. A statement of its own, so that sessions without a
# mirror pay nothing for those with one.
COMMIT_MIRRORED_SQL: Final = (
    _COMMIT
    + f""", noted AS (
    INSERT INTO mirror_entries (sid, version, sealed)
    SELECT {_of("sid", "upd.n")}, upd.version, ($24::bytea[])[upd.n] FROM upd WHERE ($24::bytea[])[upd.n] IS NOT NULL
)"""
    + _OUTCOME
)

# Of a commit that has none: it is found nowhere, and deletes nothing.
_NO_ROW: Final = SealedRow(b"", "", None, (0, 0), (0, 0))


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
    rows = [(n, row) for n, change in enumerate(changes, 1) for row in change.rows or [_NO_ROW]]
    entries = [change.entry for change in changes]
    mirrored = any(entry is not None for entry in entries)
    answers = await connection.fetch(
        COMMIT_MIRRORED_SQL if mirrored else COMMIT_SQL,
        *zip(*map(_values, changes), strict=True),
        [sum(row.sealed is not None for row in change.rows) for change in changes],
        *zip(*(identity_columns(change.identity) for change in changes), strict=True),
        [n for n, _ in rows],
        *columns_to_look([row for _, row in rows]),
        *([entries] if mirrored else ()),
    )
    outcomes: list[Applied | NotApplied] = [NotApplied(clash=False)] * len(changes)
    for answer in answers:
        outcomes[places[answer["n"] - 1]] = outcome(answer)
    return outcomes
