"""Carries commits back to the source, in order, in its own spelling.

Each turn takes the entries that wait, writes what they come to in one transaction at the source, and drops them here when
that is durable there. Who dies in between leaves the entries, and the next turn writes them again: an entry names values,
so that changes nothing. The source is never read on this way.

A serving process carries for all its sessions (`Worker`); ``authstore migrate mirror`` does the same by hand, and a
rollback carries the last of one session. They take turns a session at a time, whoever they are.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from protocol.types import session_uuid
from service.errors import ServiceError, Unavailable
from service.migrate.origin import Origin
from service.migrate.plan import Name
from service.migrate.reading import reading
from service.migrate.report import Listed, differences
from service.migrate.source import Source, SourceError, Write
from service.migrate.target import read_target
from service.observe import get_logger
from service.store import AuthStore, Caller
from service.store.entries import Entry
from service.store.mirrors import Turn

_log = get_logger("authstore.mirror")

_EVERY_S: Final = 0.5
_PAUSES_S: Final = (1.0, 2.0, 5.0, 15.0, 30.0)
_KEPT_OPEN: Final = 32


@dataclass(slots=True)
class Merged:
    """What entries come to, the later over the earlier."""

    whole: bool = False
    creds: bytes | None = field(default=None, repr=False)
    rows: dict[Name, bytes | None] = field(default_factory=dict, repr=False)

    def writes(self) -> list[Write]:
        return [Write(ktype, key_id, text) for (ktype, key_id), text in self.rows.items()]


def merge(entries: Sequence[Entry]) -> Merged:
    """Pure. Applying the result leaves what applying the entries one after another would."""
    merged = Merged()
    for entry in entries:
        if entry.whole:
            merged = Merged(whole=True)
        merged.creds = merged.creds if entry.creds is None else entry.creds
        merged.rows |= {(ktype, key_id.decode()): text for ktype, key_id, text in entry.rows}
    return merged


class Links:
    """Sources kept open between turns, the least recently used closed first."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], Source] = {}  # by --from and layout

    @asynccontextmanager
    async def to(self, origin: Origin) -> AsyncIterator[Source]:
        """The origin's source; one that failed is closed and opened anew next time."""
        place = origin.spec, json.dumps(origin.layout, sort_keys=True)
        source = self._open.pop(place, None) or await origin.open()
        try:
            yield source
        except BaseException:
            await source.close()
            raise
        self._open[place] = source
        while len(self._open) > _KEPT_OPEN:
            await self._open.pop(next(iter(self._open))).close()

    async def close(self) -> None:
        while self._open:
            await self._open.popitem()[1].close()


async def carry(
    store: AuthStore, caller: Caller, name: str, links: Links, *, until: int | None = None, wait: bool = False
) -> int:
    """Carries entries over (up to version ``until``, else those of one turn); how many. Raises SourceError, Corrupt."""
    async with store.mirrors.turn(caller, name, wait=wait) as turn:
        return 0 if turn is None else await _carry(turn, links, until)


async def carry_and_compare(store: AuthStore, caller: Caller, name: str, links: Links) -> list[Listed]:
    """Brings the source to one version of the session and compares both there: what differs was written by others."""
    async with store.mirrors.turn(caller, name, wait=True) as turn:
        target = await read_target(store, caller, name)
        if turn is None or target is None:
            return []
        await _carry(turn, links, target.version)
        origin = Origin.decode(turn.origin)
        async with links.to(origin) as source, reading(source, origin.options, [origin.session]) as read:
            plan = await read.plan(origin.session, target.digests)
        return differences(plan.digests, target.digests)


async def _carry(turn: Turn, links: Links, until: int | None) -> int:
    origin = Origin.decode(turn.origin)
    carried = 0
    while entries := await turn.entries(until):
        merged = merge([entry for _, entry in entries])
        async with links.to(origin) as source:
            await source.write(origin.session, merged.creds, merged.writes(), whole=merged.whole)
        await turn.done(entries[-1][0])
        carried += len(entries)
        if until is None:
            break
    return carried


class Worker:
    """Carries for every session that has entries. One a process; several processes share the work by turns."""

    def __init__(self, store: AuthStore) -> None:
        self._store = store
        self._links = Links()
        self._failures: dict[bytes, tuple[int, float]] = {}  # session -> failures in a row, when to try again

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await asyncio.sleep(_EVERY_S)
                try:
                    if self._store.is_open:
                        await self.round()
                except Unavailable:
                    continue
                except Exception as error:
                    _log.exception("the mirror failed", exc=error)
        finally:
            await self._links.close()

    async def round(self) -> int:
        """One turn for each session that waits; how many entries were carried."""
        carried = 0
        now = asyncio.get_running_loop().time()
        for each in await self._store.mirrors.all_waiting():
            sid = session_uuid(each.tenant, each.name).bytes
            failures, again = self._failures.get(sid, (0, 0.0))
            if now < again:
                continue
            try:
                carried += await carry(self._store, Caller(each.tenant, "admin"), each.name, self._links)
                self._failures.pop(sid, None)
            except Unavailable:
                raise
            except ServiceError as error:
                self._failures[sid] = failures + 1, now + _PAUSES_S[min(failures, len(_PAUSES_S) - 1)]
                if not failures:  # once, not at every try
                    _log.exception("a mirror's source does not take its commits; they wait", exc=error)
        return carried

    async def close(self) -> None:
        await self._links.close()


async def drain(store: AuthStore, caller: Caller, only: str | None = None) -> int:
    """Carries everything that waits in the caller's tenant now; how many entries. Raises SourceError."""
    links, carried = Links(), 0
    try:
        while waiting := [each for each in await store.mirrors.waiting(caller) if only in (None, each.name)]:
            done = 0
            for each in waiting:
                done += await carry(store, caller, each.name, links, wait=True)
            carried += done
            if not done:
                raise SourceError("entries wait and their source is not known any more")
    finally:
        await links.close()
    return carried
