"""Settling: what waits in a session's journal becomes rows, once for all commits that wait.

Nobody waits for it: a commit is durable with its entry, and reads take rows and journal together. Sessions are settled when
they have been quiet for a moment or much waits, those that are due together in one statement; what a process that died left
behind, by whoever looks next. Only a commit that must see or change rows, or finds the journal full, settles first. Room is
made where settled entries lay once they are many.

| what can happen | what follows |
|---|---|
| the process dies before the statement's answer | settled or not, whole: the same state either way |
| another process settled or replaced the session meanwhile | nothing applied; the session is looked up anew |
| one of several in a statement makes it fail | each is settled alone |
| an entry does not open | the session stays as it is; its reads say Corrupt, and so does a check |
| the database is away | tried again, later |
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from time import monotonic
from typing import Final, NamedTuple, TypeVar
from uuid import UUID

from msgspec.structs import replace

from service.errors import Unavailable
from service.observe import get_logger, report
from service.records import Head, SealedRow, Settling, Vacant
from service.sql import journal
from service.sql import settle as sql
from service.sql.pool import Connection, Database
from service.store.heads import Heads, Line, Stand
from service.store.journal import Pending, open_journal
from service.vault import PRIME, weigh

T = TypeVar("T")

_QUIET_S: Final = 0.25
_LONGEST_S: Final = 15.0
_LEFT_BEHIND_S: Final = 60.0
_LOOK_S: Final = 0.1
_MUCH: Final = (256, 1 << 22)  # entries, weight: settled at once
_FULL: Final = (512, 1 << 23)  # beyond which a commit waits for it: what is settled takes a second at most
_TIDY: Final = 1 << 26  # weight, settled since the journal's table was last tidied
_ATTEMPTS: Final = 5
_TOLD: Final = 1000
_FIRST: Final = UUID(int=0)
_TOGETHER: Final = (8, 1 << 20)  # sessions, weight: settled by one statement, while their commits wait for it
_SLICE: Final = 128
"""Rows made before others have their turn."""

_log = get_logger("authstore.settling")


def is_full(head: Head) -> bool:
    """So much waits that the next commit has to wait for it."""
    return head.pending >= _FULL[0] or head.journal_weight >= _FULL[1]


class _Due:
    """A session that waits: since when, and when it was written last."""

    __slots__ = ("last", "much", "since", "tenant")

    def __init__(self, tenant: str, now: float) -> None:
        self.tenant = tenant
        self.since = now
        self.last = now
        self.much = False

    def is_due(self, now: float) -> bool:
        return self.much or now - self.last >= _QUIET_S or now - self.since >= _LONGEST_S


class _Taken(NamedTuple):
    """A session to be settled, whose turn is ours."""

    line: Line
    stand: Stand
    pending: Pending


class Settler:
    """Settles sessions: on demand, and by itself while `run` runs."""

    def __init__(self, database: Database, heads: Heads) -> None:
        self._database = database
        self._heads = heads
        self._due: dict[UUID, _Due] = {}
        self._some = asyncio.Event()
        self._told: set[UUID] = set()
        self._settled = 0  # weight

    def note(self, tenant: str, head: Head, now: float) -> None:
        """A commit went into the session's journal, ``now`` by `monotonic`."""
        due = self._due.get(head.sid)
        if due is None:
            due = self._due[head.sid] = _Due(tenant, now)
            self._some.set()
        due.last = now
        due.much = head.pending >= _MUCH[0] or head.journal_weight >= _MUCH[1]

    async def run(self) -> None:
        """Settles what is due, for as long as the process serves."""
        clock = asyncio.get_running_loop().time
        looked = clock() - _LEFT_BEHIND_S
        while True:
            # Not `wait_for`: before Python 3.12 that forgets a cancellation that comes as the event does.
            with suppress(TimeoutError):
                async with asyncio.timeout_at(looked + _LEFT_BEHIND_S):
                    await self._some.wait()
            for sids in _groups(self._late(self._due)):
                await self._settle_due(self._late(sids))  # some may be written again by now
            if self._settled >= _TIDY:
                self._settled = 0
                await self._quietly(_FIRST, self._tidy())
            if clock() - looked >= _LEFT_BEHIND_S:
                looked = clock()
                await self._quietly(_FIRST, self._settle_left_behind())
            if not self._due:
                self._some.clear()
            else:
                await asyncio.sleep(_LOOK_S)

    def _late(self, sids: Iterable[UUID]) -> list[UUID]:
        """Those that are due by now."""
        now = monotonic()
        return [sid for sid in sids if (due := self._due.get(sid)) is not None and due.is_due(now)]

    async def _settle_due(self, sids: Sequence[UUID]) -> None:
        for sid in sids:
            self._due[sid].last = monotonic()  # the next try comes after a pause, when this one finds no database
        if await self._tried_together(sids):
            for sid in sids:
                if due := self._due.get(sid):
                    await self._quietly(sid, self.settle_now(due.tenant, sid))

    async def _tried_together(self, sids: Sequence[UUID]) -> bool:
        """False when there is no database. Whatever else keeps them from it together is met again by the one it concerns."""
        if not sids[1:]:
            return True
        reached = False
        try:
            # Before their turns are taken, and without patience: so many are not to be held for long.
            async with self._database.connection(patient=False) as used:
                reached = True
                await self._settle_together(used, sids)
        except Unavailable:
            return reached
        except Exception as error:
            if self._is_news(_FIRST):
                _log.exception("sessions were not settled together", exc=error)
                report(error)
        return True

    async def _settle_together(self, connection: Connection, sids: Sequence[UUID]) -> None:
        """In one statement those whose turn is free and whose journal is remembered; the others are still due then."""
        held: list[_Taken] = []
        try:
            held.extend(self._take(sids))
            if not held[1:]:
                return
            groups: list[list[tuple[_Taken, Settling]]] = [[]]
            for one in held:
                work = await _prepare(one.stand, one.pending)
                if sql.stands_alone(work):
                    groups.append([(one, work)])
                else:
                    groups[0].append((one, work))
            for group in filter(None, groups):
                outcomes = await sql.settle_all(connection, [work for _, work in group])
                for (one, _), rows in zip(group, outcomes, strict=True):
                    if self._settled_as(one.stand, one.pending, rows) is not None:
                        self._due.pop(one.stand.head.sid, None)
                    held.remove(one)
                    one.line.leave()
        finally:
            for one in held:
                one.line.leave()

    def _take(self, sids: Sequence[UUID]) -> Iterator["_Taken"]:
        """Takes the turn of each that can be settled at once, as long as there is room."""
        room = _TOGETHER[1]
        for sid in sids:
            stand = self._heads.remembered(sid)
            pending = None if stand is None else self._heads.journals.of(stand.head)
            if stand is None or pending is None or not pending.count or pending.weight > room:
                continue
            line = self._heads.line(sid)
            if line.enter_now():
                room -= pending.weight
                yield _Taken(line, stand, pending)

    async def settle_now(self, tenant: str, sid: UUID, *, fresh: bool = False) -> None:
        """All that waits of a session, in its turn; ``fresh``: also what this process does not know of.

        Nothing when there is no such session, or it is deleted. Raises Corrupt, Unavailable.
        """
        async with self._heads.line(sid):
            for attempt in range(_ATTEMPTS):
                known = None if fresh or attempt else self._heads.remembered(sid)
                stand = known or await self._heads.look(tenant, sid)
                if isinstance(stand, Vacant) or stand.head.deleted or not stand.head.pending:
                    break
                if await self.settle(stand) is not None:
                    break
            else:
                return  # others write and settle it all the time
            self._due.pop(sid, None)

    async def settle_all(self) -> None:
        """What is known to wait, now."""
        waiting = {sid: due.tenant for sid, due in self._due.items()}
        sids = list(waiting)
        for some in _groups(sids):
            await self._tried_together(some)
        for sid in sids:
            if sid in self._due:
                await self.settle_now(waiting[sid], sid)

    async def settle(self, stand: Stand, connection: Connection | None = None) -> Stand | None:
        """For who has the session's turn: the same session with nothing waiting; None when it has to be looked up anew.

        With a connection, in its transaction.
        """
        pending = self._heads.journals.of(stand.head) or await self._read(stand, connection)
        if pending is None:
            return None
        work = await _prepare(stand, pending)
        return self._settled_as(stand, pending, await self._run(connection, lambda used: sql.settle(used, work)))

    async def _read(self, stand: Stand, connection: Connection | None) -> Pending | None:
        """What waits, from the database; None when it is not what the stand says."""
        head = stand.head
        found = await self._run(connection, lambda used: journal.read_journal(used, head.sid))
        if found is None or found[0].head.version != head.version or found[0].head.pending != head.pending:
            self._heads.forget(head.sid)
            return None
        return open_journal(head, stand.vault, found[1])

    def _settled_as(self, stand: Stand, pending: Pending, rows: int | None) -> Stand | None:
        """The session after it was settled, of so many rows; None where it did not apply."""
        head = stand.head
        self._heads.journals.forget(head.sid)
        if rows is None:
            self._heads.forget(head.sid)
            return None
        self._settled += pending.weight
        head = replace(head, rows=rows, pending=0, journal_weight=0)
        self._heads.remember(head, stand.vault, stand.mask, stand.pace)
        return replace(stand, head=head)

    async def _run(self, connection: Connection | None, work: Callable[[Connection], Awaitable[T]]) -> T:
        if connection is not None:
            return await work(connection)
        async with self._database.connection() as used:
            return await work(used)

    async def _tidy(self) -> None:
        async with self._database.connection(patient=False) as connection:
            await sql.tidy(connection)

    async def _settle_left_behind(self) -> None:
        after = _FIRST
        while True:
            async with self._database.connection(patient=False) as connection:
                waiting = await sql.find_waiting(connection, _LEFT_BEHIND_S, after)
            for sid, tenant in waiting:
                await self._quietly(sid, self.settle_now(tenant, sid, fresh=True))
            if len(waiting) < sql.PAGE:
                return
            after = waiting[-1][0]

    async def _quietly(self, sid: UUID, work: Awaitable[None]) -> None:
        """What fails is told once, and does not keep other sessions from their turn."""
        try:
            await work
        except Unavailable:
            pass  # it stays due
        except Exception as error:
            self._due.pop(sid, None)
            if self._is_news(sid):
                _log.exception("a session was not settled", exc=error)
                report(error)

    def _is_news(self, sid: UUID) -> bool:
        """Whether it was not told of before; from so many on nothing is."""
        if len(self._told) >= _TOLD or sid in self._told:
            return False
        self._told.add(sid)
        return True


def _groups(sids: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    for at in range(0, len(sids), _TOGETHER[0]):
        yield sids[at : at + _TOGETHER[0]]


async def _prepare(stand: Stand, pending: Pending) -> Settling:
    """The newest value of each key, sealed as a row."""
    head, vault = stand.head, stand.vault
    rows: list[SealedRow] = []
    put = [(ktype, key_id, value) for (ktype, key_id), value in pending.values.items() if value is not None]
    for at in range(0, len(put), _SLICE):
        rows += vault.seal_all(put[at : at + _SLICE])
        await asyncio.sleep(0)
    gone: list[bytes] = []
    names = [(*name, None) for name, value in pending.values.items() if value is None]
    for at in range(0, len(names), _SLICE):
        gone += vault.find_all(names[at : at + _SLICE])
        await asyncio.sleep(0)
    share = sum(weigh(row.weights, row.digest) for row in rows)
    delta = (share - pending.share) % PRIME
    weights = vault.weights(gone)
    of_journal = pending.settled, head.dek_id, pending.count, pending.weight
    return Settling(head.sid, *of_journal, delta, rows, gone, weights, head.rows <= 1)
