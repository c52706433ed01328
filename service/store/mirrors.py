"""Mirrors: commits that wait here until another store has them, and where a migrated session came from.

While a session's mirror is on, each commit leaves its entry in the statement that stores it; entries are carried over in
the order of their versions by whoever has the turn, one at a time, and dropped afterwards. Dying in between repeats
entries, which changes nothing: they name values, not changes of values. Versions of entries have no gaps; one that is
missing is Corrupt, never passed over.

Where a session came from (its source, as `migrate` wrote it) is sealed under the session's own data key: it holds a
password, turns with the master key like the rows do, and is gone when the session is purged.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from service.errors import Corrupt, NoSession, ServiceError, TurnLost, Unavailable
from service.records import bind
from service.sql import mirror as sql
from service.sql.pool import Connection, Database, understood
from service.sql.sids import sid_of
from service.store.caller import Caller
from service.store.entries import Entry, in_mirror
from service.store.guards import fenced
from service.store.heads import Heads, Stand
from service.store.settling import Settler
from service.vault import PRIME, SessionVault

_ORIGIN: Final = "origin"
_NOTE: Final = "note "
_ATTEMPTS: Final = 5
_NO_END: Final = 2**63 - 1
_ASK_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """A session with entries that wait."""

    tenant: str
    name: str
    entries: int
    since: datetime


@dataclass(slots=True)
class Turn:
    """The right to carry a session's entries over, held as long as its context is open. Its methods raise TurnLost."""

    origin: bytes = field(repr=False)
    applied: int
    _sid: UUID
    _vault: SessionVault = field(repr=False)
    _connection: Connection = field(repr=False)
    lost: bool = False

    async def entries(self, until: int | None = None, limit: int = 200) -> list[tuple[int, Entry]]:
        """The next entries ``(version, entry)`` up to a version. Corrupt when one is missing."""
        with self._held():
            found = await sql.entries(self._connection, self._sid, _NO_END if until is None else until, limit)
        for place, record in enumerate(found, self.applied + 1):
            if record["version"] != place:
                raise Corrupt("mirror entry", None)
        return [
            (
                record["version"],
                Entry.decode(self._vault.open_entry(in_mirror(record["version"]), record["sealed"])),
            )
            for record in found
        ]

    async def done(self, version: int) -> None:
        """The other store has everything up to ``version``: durable when the turn ends well."""
        with self._held():
            await sql.mark_applied(self._connection, self._sid, version)
        self.applied = version

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """While the other store is waited for. A turn that is lost meanwhile cancels what is under way: beside whoever has the
        next, it could arrive last. The turn is asked for now and then, so that nothing between takes it for idle."""
        limit, over = asyncio.timeout(None), asyncio.Event()
        asking = asyncio.create_task(self._ask(limit, over))
        try:
            async with limit:
                yield
        except asyncio.CancelledError:
            asking.cancel()
            raise
        except Exception:
            if limit.expired():  # whatever was made of being called off
                raise TurnLost from None
            raise
        finally:
            over.set()
            await asyncio.gather(asking, return_exceptions=True)

    async def _ask(self, limit: asyncio.Timeout, over: asyncio.Event) -> None:
        while not over.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), _ASK_S)
                return
            try:
                await sql.hold_turn(self._connection)
            except ServiceError:
                self.lost = True
                if not over.is_set():
                    limit.reschedule(asyncio.get_running_loop().time())
                return

    @contextmanager
    def _held(self) -> Iterator[None]:
        try:
            with understood():
                yield
        except Unavailable:
            self.lost = True
            raise TurnLost from None


class Mirrors:
    """Switches mirrors and hands out turns."""

    def __init__(self, database: Database, heads: Heads, settler: Settler) -> None:
        self._database = database
        self._heads = heads
        self._settler = settler

    async def keep_origin(self, caller: Caller, name: str, origin: bytes) -> None:
        """Remembers where a session came from. Raises NoSession, Deleted."""
        sid, vault = await self._find(caller, name)
        async with self._database.connection() as connection:
            if not await sql.keep_origin(connection, sid, vault.seal_entry(_ORIGIN, origin)):
                raise NoSession

    async def origin(self, caller: Caller, name: str) -> bytes | None:
        """What `keep_origin` was given; None when nothing is remembered."""
        sid, vault = await self._find(caller, name)
        async with self._database.connection() as connection:
            sealed = await sql.find_origin(connection, sid)
        return None if sealed is None else vault.open_entry(_ORIGIN, sealed)

    async def forget_origin(self, caller: Caller, name: str) -> None:
        sid, _ = await self._find(caller, name)
        async with self._database.connection() as connection:
            await sql.forget_origin(connection, sid)

    async def switch(self, caller: Caller, name: str, *, on: bool, epoch: int) -> int:
        """Turns the mirror on or off under the lease of ``epoch``; the version that did. Raises Fenced, NoSession, Deleted,
        Unavailable.

        Off drops entries that still wait.
        """
        tenant = caller.need("admin")
        sid = sid_of(tenant, name)
        async with self._heads.line(sid):
            for _ in range(_ATTEMPTS):
                stand = await self._heads.living(tenant, sid, fresh=True)
                head = stand.head
                if head.pending:
                    await self._settler.settle(stand)  # a mirrored session has no journal
                    continue
                async with self._database.connection() as connection:
                    version = await sql.switch(connection, sid, head.version, head.dek_id, epoch, _next(stand), on=on)
                self._heads.forget(sid)
                if version is not None:
                    return version
                if stand.row is None or stand.row.lease is None or head.epoch != epoch or not stand.row.lease.live:
                    raise fenced(epoch, stand.row)
        raise Unavailable("the session is being written by others; try again")

    async def hand_over(
        self, caller: Caller, name: str, *, version: int, epoch: int, ttl_s: float, run: UUID
    ) -> int | None:
        """Leaves the session to its source for ``ttl_s``, at once: the lease of ``epoch`` lasts that long, the mirror is off,
        the origin is forgotten, and what ``run`` noted says so. The version that did.

        None when it is not at ``version`` any more or that lease is over: then nothing changed. Raises NoSession, Deleted,
        Unavailable.
        """
        tenant = caller.need("admin")
        sid = sid_of(tenant, name)
        async with self._heads.line(sid):
            for _ in range(_ATTEMPTS):
                stand = await self._heads.living(tenant, sid, fresh=True)
                head, lease = stand.head, None if stand.row is None else stand.row.lease
                if head.version != version or head.epoch != epoch or lease is None or not lease.live:
                    return None
                if head.pending:
                    await self._settler.settle(stand)
                    continue
                async with self._database.connection() as connection:
                    done = await sql.hand_over(
                        connection, sid, head.version, head.dek_id, epoch, _next(stand), ttl_s, run
                    )
                self._heads.forget(sid)
                if done is not None:
                    return done
        raise Unavailable("the session is being written by others; try again")

    async def waiting(self, caller: Caller) -> list[Waiting]:
        """Sessions of the caller's tenant with entries that wait."""
        return await self._waiting(caller.need("admin"))

    async def mirrored(self, caller: Caller) -> list[str]:
        """Names of sessions of the caller's tenant whose mirror is on."""
        tenant = caller.need("admin")
        async with self._database.connection() as connection:
            return await sql.mirrored(connection, tenant)

    async def waiting_of(self, caller: Caller, name: str) -> int:
        """How many entries of one session wait; of one that is not there, none."""
        sid = sid_of(caller.need("admin"), name)
        async with self._database.connection() as connection:
            return await sql.waiting_of(connection, sid)

    async def waiting_in_all(self) -> tuple[int, int, datetime | None]:
        """``(entries, sessions, since when)`` that wait, of every tenant: for the operator."""
        async with self._database.connection() as connection:
            return await sql.waiting_in_all(connection)

    async def all_waiting(self) -> list[Waiting]:
        """The same of every tenant: what the worker of a serving process asks."""
        return await self._waiting(None)

    async def _waiting(self, tenant: str | None) -> list[Waiting]:
        async with self._database.connection() as connection:
            found = await sql.waiting(connection, tenant)
        return [Waiting(tenant, name, entries, since) for _, tenant, name, entries, since in found]

    @asynccontextmanager
    async def turn(self, caller: Caller, name: str, *, wait: bool) -> AsyncIterator[Turn | None]:
        """The session's turn; None when it has no origin or (without ``wait``) another has the turn. Raises TurnLost when
        it ended before its context did."""
        sid, vault = await self._find(caller, name)
        turn = None
        try:
            async with self._database.connection() as connection, connection.transaction():
                taken = await sql.take_turn(connection, sid, wait=wait)
                if taken is not None:
                    turn = Turn(vault.open_entry(_ORIGIN, taken[0]), taken[1], sid, vault, connection)
                yield turn
        except Unavailable:
            if turn is not None and turn.lost:
                raise TurnLost from None  # and not what the end of its transaction made of it
            raise

    async def seal_note(self, caller: Caller, name: str, about: str, text: bytes) -> bytes:
        """A note about a session, sealed under its data key. Raises NoSession, Deleted."""
        _, vault = await self._find(caller, name)
        return vault.seal_entry(_NOTE + about, text)

    async def open_note(self, caller: Caller, name: str, about: str, sealed: bytes) -> bytes:
        """A note that `seal_note` sealed. Corrupt when the session was made anew since."""
        _, vault = await self._find(caller, name)
        return vault.open_entry(_NOTE + about, sealed)

    async def _find(self, caller: Caller, name: str) -> tuple[UUID, SessionVault]:
        tenant = caller.need("admin")
        sid = sid_of(tenant, name)
        return sid, (await self._heads.living(tenant, sid, fresh=True)).vault


def _next(stand: Stand) -> int:
    """What a commit without rows adds to the session's mark."""
    head = stand.head
    mask = stand.vault.mask(bind(head.version + 1, head.dek_id, head.recent, head.identity, head.pre_key_top))
    return (mask - stand.masked()) % PRIME
