"""Sessions of a source, one after another, planned; the next is read while the last is being worked on."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from service.errors import BadInput
from service.migrate.plan import Blocked, Name, Options, SessionPlan, alike, plan_session, taken_names
from service.migrate.source import Found, Snapshot, Source, SourceAway, SourceError, SourceRefused, WrongSource

_READS: Final = 3
LAGS: Final[Mapping[bool | None, Sequence[str]]] = {
    True: ["the source is a standby: what its primary stored last may be missing; a cutover needs the primary"],
    None: [
        "whether the source follows another server, and may lag behind it, cannot be told: its user may not ask (MySQL: "
        "REPLICATION CLIENT, MariaDB: REPLICA MONITOR); make sure that it is the primary"
    ],
    False: [],
}
"""What a report must say, by what `Source.standby` answers."""

NOTHING: Final = "the source holds no session: nothing was done"

Progress = Callable[[int, int], None]
"""``progress(sessions done, sessions in all)``."""


class NotThere(BadInput):
    """The source has no session of a name given with --session."""


@dataclass(slots=True)
class Reading:
    """An open snapshot and the sessions asked for. ``taken``: names here that several of them would have."""

    source: Source
    snapshot: Snapshot
    options: Options
    names: list[str]
    alike: list[tuple[str, str]]
    taken: frozenset[str] = field(default_factory=frozenset)
    notes: list[str] = field(default_factory=list)
    """What a report must say of the source."""

    async def plan(self, session: str, ours: Collection[Name] = ()) -> SessionPlan:
        """One session's plan; ``ours`` as in `plan_session`."""
        found = await self._read(session)
        plan = plan_session(session, found, self.options, datetime.now(UTC), ours)
        if plan.name in self.taken:
            plan.blocked = Blocked.name_taken
        return plan

    async def plans(self) -> AsyncIterator[SessionPlan]:
        """Every session's plan, at most two in memory. One that cannot be read is blocked, and keeps nobody up.

        Raises what is true of all of them: SourceAway, SourceRefused, WrongSource.
        """
        ahead: asyncio.Task[SessionPlan] | None = None
        try:
            for place, name in enumerate(self.names):
                plan = await (ahead or self._plan(name))
                ahead = None
                if place + 1 < len(self.names):
                    ahead = asyncio.ensure_future(self._plan(self.names[place + 1]))
                yield plan
        finally:
            if ahead is not None:
                ahead.cancel()
                await asyncio.gather(ahead, return_exceptions=True)

    async def _plan(self, session: str) -> SessionPlan:
        try:
            return await self.plan(session)
        except (SourceAway, SourceRefused, WrongSource):
            raise
        except SourceError as error:
            name = self.options.names.get(session, session)
            return SessionPlan(session, name, blocked=Blocked.unreadable, why=error.detail)

    async def _read(self, session: str) -> Found:
        if self.snapshot.consistent:
            return await self.snapshot.read(session)
        for _ in range(_READS):
            before = await self.source.fingerprint(session)
            found = await self.snapshot.read(session)
            if await self.source.fingerprint(session) == before:
                return found
        raise SourceError("a session changes faster than it can be read: stop its writer and try again")


@asynccontextmanager
async def reading(source: Source, options: Options, only: Sequence[str] = ()) -> AsyncIterator[Reading]:
    """The source at this moment. ``only``: sessions by their name there or here. BadInput when one is unknown
    (of ``only``: NotThere)."""
    async with source.snapshot() as snapshot:
        every = [name async for name in snapshot.sessions()]
        if not only and options.names.keys() - set(every):
            raise BadInput("[sessions] names a session that the source does not have", pointer="--map")
        chosen = [name for name in every if not only or name in only or options.names.get(name) in only]
        named = {options.names.get(name, name) for name in chosen} | set(chosen)
        if any(name not in named for name in only):
            raise NotThere("the source has no session of a name given with --session", pointer="--session")
        taken = taken_names([(name, options.names.get(name, name)) for name in every])
        notes = LAGS[await source.standby()]
        yield Reading(source, snapshot, options, chosen, alike(every), frozenset(taken), list(notes))
