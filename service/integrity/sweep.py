"""Every session, one after the other by uuid. Where it stands is kept in the database after each, so that a check that was cut
off goes on there. On the way it names rows without a session and sessions that are gone without having been deleted.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from uuid import UUID

from protocol.rules import Finding
from protocol.types import session_uuid
from service.errors import Deleted, NoSession
from service.integrity.check import check_session
from service.integrity.report import Report
from service.sql import integrity as sql
from service.sql.integrity import Named, Run
from service.store import AuthStore, Caller

_PAGE = 200


@dataclass(frozen=True, slots=True)
class Stray:
    """A finding of no session that is there. ``name``: a session's, or the uuid of its rows."""

    tenant: str
    name: str = field(repr=False)
    finding: Finding


@dataclass(frozen=True, slots=True)
class Begun:
    """A sweep begins or goes on: how many sessions were done before, with what, and how many are to come."""

    done: int
    left: int
    errors: int = 0
    warnings: int = 0


async def _as_judged(report: Report) -> Report:
    return report


async def sweep(
    store: AuthStore,
    tenant: str | None,
    *,
    restart: bool = False,
    then: Callable[[Report], Awaitable[Report]] = _as_judged,
) -> AsyncIterator[Begun | Report | Stray]:
    """First `Begun`, then a report a session, and strays among them. ``tenant`` None: every tenant's.

    ``then``: what is done about a session before it counts as done; its report is what counts.
    """
    scope = tenant or ""
    async with store.database.connection() as connection:
        found = None if restart else await sql.find_run(connection, scope)
        run = found or await sql.begin_run(connection, scope)
        left = await sql.count_sessions(connection, scope, run.after)
    yield Begun(run.sessions, left, run.errors, run.warnings)
    while True:
        async with store.database.connection() as connection:
            page = await sql.next_sessions(connection, scope, run.after, _PAGE)
        upto = page[-1].sid if len(page) == _PAGE else None
        strays = await _strays(store, scope, run.after, upto)
        for session in page:
            # With the session behind them, so that a sweep that goes on neither repeats nor forgets one.
            while strays and strays[-1][0] < session.sid:
                run = replace(run, errors=run.errors + 1)
                yield strays.pop()[1]
            try:
                report = await then(await _one(store, session))
            except (NoSession, Deleted):
                continue  # deleted since the page was read
            yield report
            run = Run(session.sid, run.sessions + 1, run.errors + report.errors, run.warnings + report.warnings)
            await _remember(store, scope, run)
        while strays:
            run = replace(run, errors=run.errors + 1)
            yield strays.pop()[1]
        if upto is None:
            await _remember(store, scope, run, finished=True)
            return
        run = replace(run, after=upto)


async def _one(store: AuthStore, session: Named) -> Report:
    """Raises Deleted, NoSession. Whatever else one session brings about must not keep the others from their turn."""
    if session_uuid(session.tenant, session.name) != session.sid:
        return _of_one(session, Finding("session-misplaced", ""))
    try:
        return await check_session(store, Caller(session.tenant, "admin"), session.name)
    except (NoSession, Deleted):
        raise
    except Exception as error:
        # Where the database is away, the sweep ends here too: what was done cannot be remembered.
        return _of_one(session, unjudged(error))


def unjudged(error: Exception) -> Finding:
    """What is said of a session that could not be judged: of the error its class alone."""
    return Finding("session-unjudged", "", detail=type(error).__name__)


def _of_one(session: Named, finding: Finding) -> Report:
    report = Report(session.tenant, session.name, 0)
    report.add([finding])
    return report


async def _strays(store: AuthStore, scope: str, after: UUID, upto: UUID | None) -> list[tuple[UUID, Stray]]:
    """By their uuid, the first one last."""
    async with store.database.connection() as connection:
        # Rows without a session have no tenant: only who looks at everything can be told.
        orphans = [] if scope else await sql.find_orphans(connection, after, upto)
        vanished = await sql.find_vanished(connection, scope, after, upto)
    strays = [(sid, Stray("", str(sid), Finding("orphan-rows", "", detail=f"{count} rows"))) for sid, count in orphans]
    strays += [(each.sid, Stray(each.tenant, each.name, Finding("session-vanished", ""))) for each in vanished]
    return sorted(strays, key=lambda stray: stray[0], reverse=True)


async def _remember(store: AuthStore, scope: str, run: Run, *, finished: bool = False) -> None:
    async with store.database.connection() as connection:
        await sql.advance_run(connection, scope, run, finished=finished)
