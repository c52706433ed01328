"""Runs of the migrator as rows."""

from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg

from service.sql.pool import Connection

BEGIN_RUN_SQL: Final = """
INSERT INTO migrate_runs (id, tenant, verb, source, run_by, options) VALUES ($1, $2, $3, $4, $5, $6) RETURNING started_at
"""

END_RUN_SQL: Final = "UPDATE migrate_runs SET ended_at = now(), outcome = $2 WHERE id = $1 RETURNING ended_at"

FIND_PROCESS_SQL: Final = "SELECT options::json ->> 'process' FROM migrate_runs WHERE id = $1 AND tenant = $2"

NOTE_SESSION_SQL: Final = """
INSERT INTO migrate_run_sessions (sid, run, name, source_name, outcome, version, digest, counts, sealed)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (sid, run) DO UPDATE SET outcome = excluded.outcome, version = excluded.version, digest = excluded.digest,
    counts = excluded.counts, sealed = excluded.sealed, at = now()
"""

# `copying` was noted before a commit whose process died before it could note the outcome; `changing`: a cutover left its copy
# and did not open it. `same` is not among them: it says
# what stands here, not that we put it there. Nor is a rollback's intention (noted as `copying` by older releases): what
# it is about to give back was committed here by others. A store is the same whoever logs in to it.
LEFT_SO_SQL: Final = r"""
SELECT EXISTS (
    SELECT FROM migrate_run_sessions m JOIN migrate_runs r ON r.id = m.run
    WHERE m.sid = $1 AND m.version = $2 AND m.digest = $3 AND m.source_name = $5
      AND m.outcome IN ('copying', 'copied', 'changing', 'rolled-back') AND (m.outcome = 'rolled-back') = (r.verb = 'rollback')
      AND regexp_replace(r.source, '//[^/]*@', '//') = regexp_replace($4, '//[^/]*@', '//')
)
"""

# `not-handed-over`: a rollback had written these values back when somebody wrote here.
KNOWN_DIGEST_SQL: Final = """
SELECT coalesce(bool_or(m.digest = $2), false) FROM migrate_run_sessions m
WHERE m.sid = $1
  AND m.outcome IN ('copying', 'copied', 'same', 'cut-over', 'giving-back', 'not-handed-over', 'rolled-back')
"""

# The last that moved the session for good was a rollback, and what stands here since is what it left, or what a run took from
# that very source afterwards. A cutover that opened it says `cut-over`.
GIVEN_BACK_SQL: Final = r"""
SELECT last.at, last.source FROM (
    SELECT m.outcome, m.version, m.at, r.source FROM migrate_run_sessions m JOIN migrate_runs r ON r.id = m.run
    WHERE m.sid = $1 AND m.outcome IN ('rolled-back', 'cut-over') ORDER BY m.at DESC LIMIT 1
) last
WHERE last.outcome = 'rolled-back' AND (last.version = $2 OR EXISTS (
    SELECT FROM migrate_run_sessions m JOIN migrate_runs r ON r.id = m.run
    WHERE m.sid = $1 AND m.version = $2 AND m.digest = $3 AND m.outcome IN ('copying', 'copied', 'changing')
      AND m.at >= last.at AND r.verb IN ('copy', 'cutover')
      AND regexp_replace(r.source, '//[^/]*@', '//') = regexp_replace(last.source, '//[^/]*@', '//')
))
"""

LIST_RUNS_SQL: Final = """
SELECT r.id, r.verb, r.source, r.run_by, r.started_at, r.ended_at, r.outcome,
       (SELECT count(*) FROM migrate_run_sessions m WHERE m.run = r.id) AS sessions
FROM migrate_runs r WHERE r.tenant = $1 ORDER BY r.started_at DESC, r.id LIMIT $2
"""

RUN_SESSIONS_SQL: Final = """
SELECT m.name, m.source_name, m.outcome, m.version, m.digest, m.counts, m.sealed, m.at, r.options
FROM migrate_run_sessions m JOIN migrate_runs r ON r.id = m.run
WHERE m.run = $1 AND r.tenant = $2 ORDER BY m.name
"""


async def begin(
    connection: Connection, run: UUID, tenant: str, verb: str, source: str, by: str, options: str
) -> datetime:
    """When it began, by the database's clock."""
    started: datetime = await connection.fetchval(BEGIN_RUN_SQL, run, tenant, verb, source, by, options)
    return started


async def end(connection: Connection, run: UUID, outcome: str) -> datetime:
    """When it ended."""
    ended: datetime = await connection.fetchval(END_RUN_SQL, run, outcome)
    return ended


async def find_process(connection: Connection, run: UUID, tenant: str) -> str | None:
    """Which process the run is, as it said when it began; None when it did not, or there is no such run."""
    process: str | None = await connection.fetchval(FIND_PROCESS_SQL, run, tenant)
    return process


async def note_session(
    connection: Connection,
    sid: UUID,
    run: UUID,
    names: tuple[str, str],
    outcome: str,
    stands: tuple[int | None, bytes | None],
    counts: str,
    sealed: bytes | None,
) -> None:
    """What became of a session: ``names`` here and at the source, ``stands`` its version and digest here."""
    await connection.execute(NOTE_SESSION_SQL, sid, run, *names, outcome, *stands, counts, sealed)


async def left_so(
    connection: Connection, sid: UUID, version: int, digest: bytes, source: str, source_name: str
) -> bool:
    """Whether a run left the session at this version with this digest, taken from that session of that source."""
    left: bool = await connection.fetchval(LEFT_SO_SQL, sid, version, digest, source, source_name)
    return left


async def known_digest(connection: Connection, sid: UUID, digest: bytes) -> bool:
    """Whether a run moved these values of the session, either way."""
    known: bool = await connection.fetchval(KNOWN_DIGEST_SQL, sid, digest)
    return known


async def given_back(
    connection: Connection, sid: UUID, version: int, digest: bytes | None
) -> tuple[datetime, str] | None:
    """When and to which source the session was rolled back, if nothing was committed here since but copies from there."""
    record = await connection.fetchrow(GIVEN_BACK_SQL, sid, version, digest)
    return None if record is None else (record["at"], record["source"])


async def list_runs(connection: Connection, tenant: str, limit: int) -> list[asyncpg.Record]:
    """The latest runs of a tenant, newest first."""
    return await connection.fetch(LIST_RUNS_SQL, tenant, limit)


async def run_sessions(connection: Connection, run: UUID, tenant: str) -> list[asyncpg.Record]:
    """What a run did to each session."""
    return await connection.fetch(RUN_SESSIONS_SQL, run, tenant)
