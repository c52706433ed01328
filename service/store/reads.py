"""Opening rows: gets, pages of a type, whole states proven by their mark.

A row that does not open is Corrupt, never "absent". A row missing from a get cannot be told from one never stored by that
get alone; a whole state can: its mark covers every row.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Final

from protocol.types import session_uuid
from service.errors import WHOLE_SET, BadInput, Corrupt, Deleted, NoCreds, NoSession, Unavailable
from service.records import Opened, SessionRow, StoredRow
from service.sql import keys as sql
from service.sql.keys import Got, Wanted
from service.sql.pool import Connection, Database, understood
from service.store.commits import ReadLanes
from service.store.heads import Heads, Stand
from service.vault import CREDS_TYPE, PRIME, TAG_BYTES, SessionVault

_ATTEMPTS: Final = 5
_IN_ONE_PIECE: Final = 4000

Asked = Sequence[tuple[str, bytes]]
_Step = SessionRow | list[StoredRow]


@dataclass(frozen=True, slots=True)
class Page:
    keys: list[Opened]
    next: str | None


@dataclass(frozen=True, slots=True)
class State:
    """A session whole. ``chunks`` yields opened rows, creds (the empty type) among them; the last step proves the mark."""

    row: SessionRow
    chunks: AsyncIterator[list[Opened]]


class Reads:
    """Reads what commits stored."""

    def __init__(self, database: Database, heads: Heads, lanes: ReadLanes) -> None:
        self._database = database
        self._heads = heads
        self._lanes = lanes
        self._streams = asyncio.Semaphore(max(1, database.pool_max // 2))

    async def get(self, tenant: str, name: str, asked: Asked) -> dict[int, bytes]:
        """Values by their place in ``asked``; those not stored are left out."""
        stand, got = await self._fetch(tenant, name, asked)
        opened = stand.vault.open_all(list(got.rows.values()))
        return {place: key.value for place, key in zip(got.rows, opened, strict=True)}

    async def creds(self, tenant: str, name: str) -> tuple[int, bytes]:
        """``(version, creds text)``. NoCreds when the session has none yet."""
        stand, got = await self._fetch(tenant, name, [(CREDS_TYPE, b"")])
        if 0 not in got.rows or got.version is None:
            raise NoCreds
        return got.version, stand.vault.open_all([got.rows[0]])[0].value

    async def page(self, tenant: str, name: str, ktype: str, cursor: str | None, limit: int) -> Page:
        """Up to ``limit`` keys of a type after ``cursor``, in an order that stays while others write."""
        sid = session_uuid(tenant, name)
        for fresh in (False, True):
            stand = await self._heads.living(tenant, sid, fresh=fresh)
            tag = stand.vault.type_tag(ktype)
            after = tag if cursor is None else tag + _cursor(cursor)
            got = await self._database.ask(partial(sql.get_page, sid=sid, span=(after, _behind(tag)), limit=limit + 1))
            if self._same(stand, got):
                break
            self._heads.forget(sid)
        else:
            raise Unavailable
        rows = list(got.rows.values())
        keys = stand.vault.open_all(rows[:limit])
        return Page(keys, rows[limit - 1].kh[TAG_BYTES:].hex() if len(rows) > limit else None)

    async def state(self, tenant: str, name: str) -> AsyncGenerator[State, None]:
        """One State, valid until this generator is closed."""
        sid = session_uuid(tenant, name)
        stand = await self._heads.living(tenant, sid)  # not within: two connections a request could starve the pool
        if stand.head.rows <= _IN_ONE_PIECE:
            found = await self._database.ask(lambda connection: sql.get_state(connection, sid))
            if found is None:
                self._heads.forget(sid)
                raise NoSession
            opened = self._open_all(tenant, *found)
            yield State(found[0], _once(opened))
            return

        async def begin(connection: Connection) -> tuple[_Step | None, AsyncGenerator[_Step, None]]:
            steps = sql.stream_state(connection, sid)
            return await anext(steps, None), steps

        # A reader may be slow, and keeps its connection that long: some are always left for others.
        async with self._streams, self._database.asking(begin) as (first, steps), aclosing(steps):
            if first is None:
                self._heads.forget(sid)
                raise NoSession
            assert isinstance(first, SessionRow)  # noqa: S101 - what stream_state promises
            yield State(first, self._stream(tenant, first, steps))

    def _open_all(self, tenant: str, row: SessionRow, stored: list[StoredRow]) -> list[Opened]:
        proof = _Proof(row, self._learn(tenant, row))
        opened = proof.open(stored)
        proof.finish()
        return opened

    async def _stream(self, tenant: str, row: SessionRow, steps: AsyncIterator[_Step]) -> AsyncIterator[list[Opened]]:
        proof = _Proof(row, self._learn(tenant, row))
        with understood():  # it is read outside of what lent the connection
            async for chunk in steps:
                assert isinstance(chunk, list)  # noqa: S101 - what stream_state promises
                yield proof.open(chunk)
        proof.finish()

    def _learn(self, tenant: str, row: SessionRow) -> SessionVault:
        if row.head.deleted:
            self._heads.forget(row.head.sid)
            raise Deleted
        return self._heads.learn(tenant, row).vault

    async def _fetch(self, tenant: str, name: str, asked: Asked) -> tuple[Stand, Got]:
        sid = session_uuid(tenant, name)
        for attempt in range(_ATTEMPTS):
            stand = await self._heads.living(tenant, sid, fresh=attempt > 0)
            khs = [stand.vault.find(ktype, key_id) for ktype, key_id in asked]
            got = await self._lanes.submit(Wanted(sid, khs), len(khs) + 1)
            if self._same(stand, got):
                return stand, got
            self._heads.forget(sid)
        raise Unavailable

    @staticmethod
    def _same(stand: Stand, got: Got) -> bool:
        """The answer is of the session whose vault we looked with: a session made anew hides its rows from the old one's."""
        return got.version is not None and not got.deleted and got.dek_id == stand.head.dek_id


class _Proof:
    """Opens the rows of one snapshot and proves that they are all of them and no others."""

    def __init__(self, row: SessionRow, vault: SessionVault) -> None:
        self._head = row.head
        self._vault = vault
        self._sum = vault.mask(row.head.bound())
        self._count = 0

    def open(self, stored: list[StoredRow]) -> list[Opened]:
        self._sum += self._vault.weigh_all(stored)
        self._count += len(stored)
        return self._vault.open_all(stored)

    def finish(self) -> None:
        if self._sum % PRIME != self._head.mark or self._count != self._head.rows:
            raise Corrupt(WHOLE_SET, None)


async def _once(opened: list[Opened]) -> AsyncIterator[list[Opened]]:
    yield opened


def _cursor(text: str) -> bytes:
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != 16:  # noqa: PLR2004 - kh without the type's tag
        raise BadInput("not a cursor of this list", pointer="cursor")
    return raw


def _behind(tag: bytes) -> bytes:
    """Behind every kh of this type, before any of the next."""
    return tag + b"\xff" * 17
