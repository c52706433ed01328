"""Carries commits back to the source, in order, in its own spelling.

Each turn takes the entries that wait, writes what they come to in one transaction at the source, and drops them here when
that is durable there. Who dies in between leaves the entries, and the next turn writes them again: an entry names values,
so that changes nothing. The source is never read on this way.

A serving process carries for all its sessions (`Worker`); ``authstore migrate mirror`` does the same by hand, and a
rollback carries the last of one session. They take turns a session at a time, whoever they are.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Final

from protocol.types import session_uuid
from service.errors import ServiceError, Unavailable
from service.migrate.origin import Origin, Place
from service.migrate.pace import Pace
from service.migrate.plan import Name
from service.migrate.reading import reading
from service.migrate.report import Listed, differences
from service.migrate.source import Source, SourceAway, SourceError, Write
from service.migrate.sources.threads import DoneLate
from service.migrate.target import Target, read_target
from service.observe import Metrics, get_logger
from service.store import AuthStore, Caller
from service.store.entries import Entry
from service.store.holders import MIRROR
from service.store.mirrors import Turn, Waiting

_log = get_logger("authstore.mirror")

_EVERY_S: Final = 0.5
_PAUSES_S: Final = (1.0, 2.0, 5.0, 15.0, 30.0)
_TELL_EVERY_S: Final = 300.0
_KEPT_OPEN: Final = 32
_WRITE_S: Final = 10.0
_ROW_S: Final = 0.01
_BYTES_A_S: Final = 1 << 20


class Hangs(SourceAway):
    """The source takes longer for a write than it may; what it did not confirm is written again."""


@dataclass(slots=True)
class Merged:
    """What entries come to, the later over the earlier."""

    whole: bool = False
    creds: bytes | None = field(default=None, repr=False)
    rows: dict[Name, bytes | None] = field(default_factory=dict, repr=False)

    def writes(self) -> list[Write]:
        return [Write(ktype, key_id, text) for (ktype, key_id), text in self.rows.items()]

    def write_s(self, patience: int = 1) -> float:
        """How long a source may take for it, seconds: row by row and over a slow link if it must."""
        size = len(self.creds or b"") + sum(len(text) for text in self.rows.values() if text is not None)
        return _WRITE_S + patience * (len(self.rows) * _ROW_S + size / _BYTES_A_S)


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
        self._open: dict[Place, Source] = {}

    @asynccontextmanager
    async def to(self, origin: Origin) -> AsyncIterator[Source]:
        """The origin's source; one that failed is closed and opened anew next time."""
        source = self._open.pop(origin.place, None) or await origin.open()
        try:
            yield source
        except BaseException:
            await source.close()
            raise
        if (other := self._open.pop(origin.place, None)) is not None:
            await other.close()
        self._open[origin.place] = source
        while len(self._open) > _KEPT_OPEN:
            await self._open.pop(next(iter(self._open))).close()

    async def close(self) -> None:
        while self._open:
            await self._open.popitem()[1].close()


async def carry(
    store: AuthStore,
    caller: Caller,
    name: str,
    links: Links,
    *,
    until: int | None = None,
    wait: bool = False,
    pace: Pace | None = None,
) -> int:
    """Carries entries over (up to version ``until``, else those of one turn); how many. Raises SourceError, Corrupt.

    ``pace``: Hangs when the source takes longer for a write than `Merged.write_s`; without one it may take any time.
    """
    async with store.mirrors.turn(caller, name, wait=wait) as turn:
        return 0 if turn is None else await _carry(turn, links, until, pace)


async def carry_and_compare(store: AuthStore, caller: Caller, name: str, links: Links) -> list[Listed]:
    """Brings the source to one version of the session and compares both there: what differs was written by others."""
    async with carried(store, caller, name, links) as brought:
        if brought is None:
            return []
        target, origin = brought
        async with links.to(origin) as source, reading(source, origin.options, [origin.session]) as read:
            plan = await read.plan(origin.session, target.digests)
        return differences(plan.digests, target.digests)


@asynccontextmanager
async def carried(
    store: AuthStore, caller: Caller, name: str, links: Links
) -> AsyncIterator[tuple[Target, Origin] | None]:
    """Brings the source to the version that is here, and keeps it there while the context is open, whoever writes here.

    None when the session is not here or no source of it is remembered. Raises SourceError, Corrupt.
    """
    async with store.mirrors.turn(caller, name, wait=True) as turn:
        target = await read_target(store, caller, name)
        if turn is None or target is None:
            yield None
            return
        await _carry(turn, links, target.version)
        async with turn.kept():
            yield target, Origin.decode(turn.origin)


async def _carry(turn: Turn, links: Links, until: int | None, pace: Pace | None = None) -> int:
    origin = Origin.decode(turn.origin)
    carried = 0
    while entries := await turn.entries(until, (pace or Pace()).entries):
        merged = merge([entry for _, entry in entries])
        limit = None if pace is None else merged.write_s(pace.patience)
        async with turn.kept(), _in_time(limit), links.to(origin) as source:
            await source.write(origin.session, merged.creds, merged.writes(), whole=merged.whole)
        await turn.done(entries[-1][0])
        carried += len(entries)
        if until is None:
            break
    return carried


@asynccontextmanager
async def _in_time(seconds: float | None) -> AsyncIterator[None]:
    """Calls off what takes longer, and waits until that is done. Raises Hangs then, unless it did what it was to do."""
    limit = asyncio.timeout(seconds)
    others = _cancelling()
    try:
        async with limit:
            try:
                yield
            except DoneLate:
                if not limit.expired() or _cancelling() > others + 1:
                    raise asyncio.CancelledError from None
    except Exception:
        if limit.expired():  # whatever the source made of being called off
            raise Hangs from None
        raise


def _cancelling() -> int:
    """How many want the current task to end."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


class Worker:
    """Carries for every session that has entries. One a process; several processes share the work by turns.

    Sources are visited side by side, the sessions of one source one after another. A source that does not open, or hangs
    in a write, is left alone for a while, and so is a session whose commits it does not take: neither keeps the others
    waiting for longer than a write may take.
    """

    def __init__(self, store: AuthStore, metrics: Metrics | None = None) -> None:
        self._store = store
        self._metrics = metrics
        self._links = Links()
        self._origins: dict[bytes, Origin] = {}  # by session
        self._visits: dict[Place, asyncio.Task[int]] = {}
        self._failures: dict[bytes | Place, tuple[int, float]] = {}  # failures in a row, when to try again
        self._paces: dict[bytes, Pace] = {}  # of sessions that were called off and wait still
        self._told_at = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await asyncio.sleep(_EVERY_S)
                try:
                    if self._store.is_open:
                        await self._set_out()
                except Unavailable:
                    continue
                except Exception as error:
                    _log.exception("the mirror failed", exc=error)
        finally:
            await self.close()

    async def round(self) -> int:
        """One turn for each session that waits; how many entries were carried."""
        return sum(await asyncio.gather(*await self._set_out()))

    async def close(self) -> None:
        """Ends what is under way; an entry that is not known to be carried stays."""
        visits = list(self._visits.values())
        for visit in visits:
            visit.cancel()
        await asyncio.gather(*visits, return_exceptions=True)
        await self._links.close()

    async def _set_out(self) -> list["asyncio.Task[int]"]:
        """Begins a visit to each source that has something to carry and is not being visited."""
        waiting = await self._store.mirrors.all_waiting()
        self._tell(waiting)
        sources: dict[Place, list[Waiting]] = {}
        for each in waiting:
            if self._due(_sid(each)) and (origin := await self._origin(each)) is not None and self._due(origin.place):
                sources.setdefault(origin.place, []).append(each)
        begun = []
        for place, sessions in sources.items():
            if place not in self._visits:
                visit = self._visits[place] = asyncio.create_task(self._visit(place, sessions))
                visit.add_done_callback(partial(self._ended, place))
                begun.append(visit)
        return begun

    def _ended(self, place: Place, visit: "asyncio.Task[int]") -> None:
        del self._visits[place]
        if not visit.cancelled() and (error := visit.exception()) is not None:
            _log.exception("the mirror failed", exc=error)

    async def _visit(self, place: Place, sessions: Sequence[Waiting]) -> int:
        """One turn for each of a source's sessions, as long as the source can be reached and does not hang; one that failed
        before, and may be why it hangs, after the others."""
        carried = 0
        for each in sorted(sessions, key=lambda each: _sid(each) in self._failures):
            try:
                # Opened before the turn, which holds a connection of ours.
                async with self._links.to(self._origins[_sid(each)]):
                    pass
                carried += await self._carry(each)
            except Exception as error:
                self._failed(place, error)
                self._origins.pop(_sid(each), None)  # it may come from elsewhere by now
                break
            self._failures.pop(place, None)
        return carried

    async def _carry(self, each: Waiting) -> int:
        """Raises Hangs, which is true of its source too."""
        pace = self._paces.get(_sid(each), Pace())
        try:
            async with self._store.holders.one(MIRROR, each.tenant):
                carried = await carry(self._store, Caller(each.tenant, "admin"), each.name, self._links, pace=pace)
        except Unavailable:
            return 0  # our own database: the next round tries again
        except Hangs:
            self._paces[_sid(each)] = pace.called_off()
            self._pause(_sid(each))
            raise
        except Exception as error:
            self._failed(_sid(each), error)
            self._origins.pop(_sid(each), None)
            return 0
        self._failures.pop(_sid(each), None)
        if _sid(each) in self._paces:
            self._paces[_sid(each)] = pace.confirmed()
        return carried

    async def _origin(self, each: Waiting) -> Origin | None:
        sid = _sid(each)
        if sid not in self._origins:
            try:
                text = await self._store.mirrors.origin(Caller(each.tenant, "admin"), each.name)
                if text is None:
                    return None
                self._origins[sid] = Origin.decode(text)
            except Unavailable:
                raise
            except Exception as error:
                self._failed(sid, error)
                return None
        return self._origins[sid]

    def _due(self, key: bytes | Place) -> bool:
        return asyncio.get_running_loop().time() >= self._failures.get(key, (0, 0.0))[1]

    def _failed(self, key: bytes | Place, error: Exception) -> None:
        if not self._pause(key):  # once, not at every try
            _log.exception("a mirror's source does not take its commits; they wait", exc=error)

    def _pause(self, key: bytes | Place) -> int:
        """Leaves it alone for a while; how often it had failed in a row before."""
        failures, _ = self._failures.get(key, (0, 0.0))
        now = asyncio.get_running_loop().time()
        if not self._failures:
            self._told_at = now
        self._failures[key] = failures + 1, now + _PAUSES_S[min(failures, len(_PAUSES_S) - 1)]
        return failures

    def _tell(self, waiting: Sequence[Waiting]) -> None:
        """How many wait and for how long: to the metrics always, to the log now and then while something fails."""
        oldest = min((each.since for each in waiting), default=None)
        age = 0.0 if oldest is None else max(0.0, (datetime.now(UTC) - oldest).total_seconds())
        if self._metrics is not None:
            self._metrics.mirrors(len(waiting), age)
        sids = {_sid(each) for each in waiting}
        self._failures = {k: v for k, v in self._failures.items() if sids and (k in sids or not isinstance(k, bytes))}
        self._paces = {sid: pace for sid, pace in self._paces.items() if sid in sids}
        now = asyncio.get_running_loop().time()
        if self._failures and now - self._told_at >= _TELL_EVERY_S:
            self._told_at = now
            commits = sum(each.entries for each in waiting)
            _log.warning("commits wait for their source", sessions=len(waiting), commits=commits, delay_s=round(age))


async def drain(store: AuthStore, caller: Caller, only: str | None = None) -> int:
    """Carries everything that waits in the caller's tenant now; how many entries. Raises what kept one session's from it,
    once those of the others are carried."""
    links, carried = Links(), 0
    failed: dict[str, ServiceError] = {}
    try:
        while waiting := [
            each
            for each in await store.mirrors.waiting(caller)
            if only in (None, each.name) and each.name not in failed
        ]:
            done = 0
            for each in waiting:
                try:
                    done += await carry(store, caller, each.name, links, wait=True)
                except Unavailable:
                    raise
                except ServiceError as error:
                    failed[each.name] = error
            carried += done
            if not done and await _lost(store, caller, {each.name for each in waiting} - failed.keys()):
                raise SourceError("entries wait and their source is not known any more")
    finally:
        await links.close()
    if failed:
        why = "; ".join(sorted({error.detail for error in failed.values()}))
        raise SourceError(f"{carried} commits carried over, but those of {len(failed)} sessions still wait: {why}")
    return carried


async def _lost(store: AuthStore, caller: Caller, names: Set[str]) -> bool:
    """Whether entries of one of these wait whose source is not known: others may have carried them since we looked."""
    still = [each.name for each in await store.mirrors.waiting(caller) if each.name in names]
    return any([await store.mirrors.origin(caller, name) is None for name in still])


def _sid(each: Waiting) -> bytes:
    return session_uuid(each.tenant, each.name).bytes
