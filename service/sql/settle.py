"""What waits in journals becomes rows (see `journal`): of one session, or of several in one statement.

Settling is a compare-and-set on the version that the rows show (``version - pending``), which only settling and commits of
rows move. It leaves version, lease and head as they are, so it takes nobody's turn.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

import asyncpg

from service.records import SealedRow, Settling
from service.sql.fragments import (
    FRESH_FROM,
    UPSERTED,
    columns_to_insert,
    columns_to_look,
    mark_after,
    parted,
    stored,
    weight,
)
from service.sql.pool import Connection

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

# Of several sessions: $1-$7 an array each with a place a session, $8-$15 a row each that is put, $16-$19 one each that is
# deleted, ``n`` its session's place. See `commit` for how nothing of one session is compared with another's. A session that
# somebody holds is left out: all others would wait for it, and whoever commits to them. ANY keeps to the rows of these few
# sessions also where the plan was made while the journal was empty, as it mostly is.
SETTLE_MANY_SQL: Final = f"""
WITH r AS (
    SELECT ($1::uuid[])[r.n] AS sid, r.*
    FROM unnest($8::int[], $9::bytea[], $10::text[], $11::bytea[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[])
        AS r(n, kh, ktype, sealed, d_hi, d_lo, w1, w2)
), g AS (
    SELECT ($1::uuid[])[g.n] AS sid, g.*
    FROM unnest($16::int[], $17::bytea[], $18::bigint[], $19::bigint[]) AS g(n, kh, w1, w2)
), was AS MATERIALIZED (
    SELECT a.n, count(k.kh) AS found, sum({weight("a.w1", "a.w2")}) AS weight
    FROM (SELECT n, sid, kh, w1, w2 FROM r UNION ALL SELECT n, sid, kh, w1, w2 FROM g) a
    LEFT JOIN {stored("a.sid", "a.kh")} ON true GROUP BY a.n ORDER BY a.n
), held AS MATERIALIZED (
    SELECT h.n FROM unnest($1::uuid[]) WITH ORDINALITY AS h(sid, n)
    CROSS JOIN LATERAL (SELECT FROM sessions l WHERE l.sid = h.sid FOR NO KEY UPDATE SKIP LOCKED) l
), upd AS (
    UPDATE sessions s SET
        row_count = s.row_count + ($7::int[])[was.n] - was.found, {mark_after("($6::bigint[])[was.n]")},
        pending = s.pending - ($4::bigint[])[was.n], journal_weight = s.journal_weight - ($5::bigint[])[was.n]
    FROM was
    WHERE s.sid = ANY ($1::uuid[]) AND s.sid = ($1::uuid[])[was.n] AND s.version - s.pending = ($2::bigint[])[was.n]
      AND s.dek_id = ($3::int[])[was.n] AND s.deleted_at IS NULL AND (was.n IN (SELECT held.n FROM held)) IS TRUE
      AND (SELECT seen.version - seen.pending FROM sessions seen WHERE seen.sid = ($1::uuid[])[was.n])
          = ($2::bigint[])[was.n]
    RETURNING was.n, s.sid, s.row_count AS rows
), del AS (
    DELETE FROM session_keys k USING g
    WHERE k.sid = g.sid AND k.kh = g.kh AND (g.n IN (SELECT upd.n FROM upd)) IS TRUE
), put AS (
    INSERT INTO session_keys (sid, kh, ktype, d_hi, d_lo, sealed)
    SELECT r.sid, r.kh, r.ktype, r.d_hi, r.d_lo, r.sealed FROM r WHERE (r.n IN (SELECT upd.n FROM upd)) IS TRUE
    {UPSERTED}
), gone AS (
    DELETE FROM session_journal j USING upd
    WHERE j.sid = ANY ($1::uuid[]) AND j.sid = upd.sid AND j.version > ($2::bigint[])[upd.n]
      AND j.version <= ($2::bigint[])[upd.n] + ($4::bigint[])[upd.n]
)
SELECT n, rows FROM upd
"""

_values: Final = attrgetter("sid", "settled", "dek_id", "count", "weight", "mark_delta")


# Entries come and go, and autovacuum looks once a minute: a long burst would leave hundreds of megabytes behind until then.
# Whoever else is at it does it for us. The table keeps its length, since shortening it would make readers wait.
TIDY_SQL: Final = "VACUUM (SKIP_LOCKED, TRUNCATE false) session_journal"


async def tidy(connection: Connection) -> None:
    """Makes room for new entries where settled ones lay. Whatever keeps it from that, autovacuum will do it."""
    with suppress(asyncpg.PostgresError, TimeoutError):
        await connection.execute(TIDY_SQL)


async def find_waiting(connection: Connection, older_s: float, after: UUID) -> list[tuple[UUID, str]]:
    """``(sid, tenant)`` of up to ``PAGE`` living sessions after a uuid with an entry older than this, by uuid."""
    found = await connection.fetch(WAITING_SQL, older_s, after, PAGE)
    return [(record["sid"], record["tenant"]) for record in found]


def stands_alone(work: Settling) -> bool:
    """Whether so many of its rows are new that they are worth a statement of their own."""
    return len(parted(work.rows, keyless=work.keyless)[0]) >= FRESH_FROM


async def settle(connection: Connection, work: Settling) -> int | None:
    """Writes the rows, drops the entries: how many rows the session has now, None when nothing waits as it did."""
    fresh, rest = parted(work.rows, keyless=work.keyless)
    if len(fresh) >= FRESH_FROM and not connection.is_in_transaction():
        try:
            return await _settle(connection, SETTLE_FRESH_SQL, work, rest, columns_to_insert(fresh))
        except asyncpg.UniqueViolationError:
            pass  # undone
    return await _settle(connection, SETTLE_SQL, work, work.rows, ())


async def settle_all(connection: Connection, works: Sequence[Settling]) -> list[int | None]:
    """The same for different sessions in one statement; None also for one that somebody holds."""
    if len(works) == 1:
        return [await settle(connection, works[0])]
    outcomes: list[int | None] = [None] * len(works)
    for n, rows in await _settle_many(connection, works):
        outcomes[n - 1] = rows
    return outcomes


async def _settle_many(connection: Connection, works: Sequence[Settling]) -> list[asyncpg.Record]:
    rows = [(n, row) for n, work in enumerate(works, 1) for row in work.rows]
    gone = [(n, kh, *weights) for n, work in enumerate(works, 1) for kh, weights in _gone(work)]
    return await connection.fetch(
        SETTLE_MANY_SQL,
        *zip(*map(_values, works), strict=True),
        [len(work.rows) for work in works],
        [n for n, _ in rows],
        *columns_to_look([row for _, row in rows]),
        *(zip(*gone, strict=True) if gone else ((), (), (), ())),
    )


def _gone(work: Settling) -> Iterable[tuple[bytes, tuple[int, int]]]:
    """What is deleted. A session has one row at least: one that has none deletes what is found nowhere."""
    return zip(work.gone, work.gone_weights, strict=True) if work.gone or work.rows else [(b"", (0, 0))]


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
