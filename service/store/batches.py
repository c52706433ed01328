"""Commits that came together: those that nothing keeps leave at once, in one go; each stands alone all the same.

A task a commit, a place in line, a wait for the turn: in a batch of small commits that is a tenth of all that the service
does. So whatever needs none of it (the session is remembered, nobody else has its turn, nothing is to be refused) is judged,
sealed and handed to the lanes in a loop. All others go the long way beside them.
"""

import asyncio
from collections.abc import Sequence

from service.errors import DatabaseFault, ServiceError, Unavailable
from service.store.changes import Committed
from service.store.commits import Begun, Commits
from service.store.request import CommitRequest

Outcome = Committed | Exception
Asked = tuple[str, CommitRequest]


async def commit_together(commits: Commits, tenant: str, asked: Sequence[Asked]) -> list[Outcome]:
    """What `Commits.commit` gives or raises for each ``(session, commit)``, in order. Those of one session apply in order:
    behind one that nobody knows the fate of none is stored, or sending it again would put it above them.
    """
    begun = _begin_all(commits, tenant, asked)
    doubted: set[str] = set()
    tasks = [
        asyncio.create_task(_long_way(commits, tenant, *each, doubted))
        for each, one in zip(asked, begun, strict=True)
        if one is None
    ]
    under_way = [one for one in begun if one is not None]
    ended: list[Outcome] = []
    try:
        for one in under_way:
            # While one is waited for, the others go on; those that left with it need no wait any more.
            ended.append(commits.end_now(one) or await _end(commits, one, doubted))  # noqa: PERF401 - how far it came counts
        others = [await task for task in tasks]
    except asyncio.CancelledError:
        for one in under_way[len(ended) + 1 :]:
            commits.abandon(one)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    at_once, later = iter(ended), iter(others)
    return [next(later if one is None else at_once) for one in begun]


def _begin_all(commits: Commits, tenant: str, asked: Sequence[Asked]) -> list[Begun | None]:
    begun: list[Begun | None] = []
    waits: set[str] = set()  # behind one of its own session
    for name, request in asked:
        one = None if name in waits else commits.begin(tenant, name, request)
        if one is None:
            waits.add(name)
        begun.append(one)
    return begun


async def _end(commits: Commits, begun: Begun, doubted: set[str]) -> Outcome:
    try:
        return await commits.end(begun)
    except Exception as error:
        _doubt(doubted, begun.name, error)
        return error


async def _long_way(commits: Commits, tenant: str, name: str, request: CommitRequest, doubted: set[str]) -> Outcome:
    try:
        return await commits.commit(tenant, name, request, doubted)
    except Exception as error:
        _doubt(doubted, name, error)
        return error


def _doubt(doubted: set[str], name: str, error: Exception) -> None:
    """Notes a session before the next one's turn: the turn is handed on, and taken when this has run."""
    if isinstance(error, (Unavailable, DatabaseFault)) or not isinstance(error, ServiceError):
        doubted.add(name)
