"""Opening rows: gets, pages of a type, whole states proven by their mark.

A row that does not open is Corrupt, never "absent". A row missing from a get cannot be told from one never stored by that
get alone; a whole state can: its mark covers every row and every entry of the journal.

What waits in the journal has the last word. A state takes it from its own snapshot; a get or a page from memory, where
that is of the version that the rows were read at, or reads it behind them: as long as the rows still show the same
version, the journal's newest end is what the session is.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final
from uuid import UUID

from service.errors import WHOLE_SET, BadInput, Corrupt, Deleted, NoCreds, NoSession, Unavailable
from service.records import Head, Opened, SessionRow, StoredRow
from service.sql import keys as sql
from service.sql.journal import read_journal
from service.sql.keys import Got, Wanted, WholeSession
from service.sql.pool import Connection, Database, understood
from service.sql.sids import sid_of
from service.store.commits import ReadLanes
from service.store.heads import Heads, Stand
from service.store.holders import STREAM, Holders
from service.store.journal import CREDS, Merged, Pending, open_journal
from service.vault import PRIME, TAG_BYTES, SessionVault

_ATTEMPTS: Final = 5
_IN_ONE_PIECE: Final = 4000

Asked = Sequence[tuple[str, bytes]]
_Step = WholeSession | list[StoredRow]


@dataclass(frozen=True, slots=True)
class Page:
    keys: list[Opened]
    next: str | None


@dataclass(frozen=True, slots=True)
class State:
    """A session whole. ``chunks`` yields opened keys, creds (the empty type) among them, types in one piece each; the last
    step proves the mark. ``proven``: it comes in one chunk, and is proven already.
    """

    row: SessionRow
    chunks: AsyncIterator[list[Opened]]
    proven: bool


class Reads:
    """Reads what commits stored."""

    def __init__(self, database: Database, heads: Heads, lanes: ReadLanes, holders: Holders) -> None:
        self._database = database
        self._heads = heads
        self._lanes = lanes
        self._broken: set[UUID] = set()
        self._holders = holders

    async def get(self, tenant: str, name: str, asked: Asked) -> dict[int, bytes]:
        """Values by their place in ``asked``; those not stored are left out."""
        return (await self._values(tenant, name, asked))[1]

    async def creds(self, tenant: str, name: str) -> tuple[int, bytes]:
        """``(version, creds text)``. NoCreds when the session has none yet."""
        version, values = await self._values(tenant, name, [CREDS])
        if 0 not in values:
            raise NoCreds
        return version, values[0]

    async def page(self, tenant: str, name: str, ktype: str, cursor: str | None, limit: int) -> Page:
        """Up to ``limit`` keys of a type after ``cursor``, in an order that stays while others write."""
        sid = sid_of(tenant, name)
        for attempt in range(_ATTEMPTS):
            stand = await self._heads.living(tenant, sid, fresh=attempt > 0)
            tag = stand.vault.type_tag(ktype)
            after = tag if cursor is None else tag + _cursor(cursor)
            got = await self._database.ask(partial(sql.get_page, sid=sid, span=(after, _behind(tag)), limit=limit + 1))
            if self._same(stand, got) and (pending := await self._journal(stand, got)) is not None:
                return _page(stand.vault, ktype, list(got.rows.values()), pending, after, limit)
            self._heads.forget(sid)
        raise Unavailable

    async def state(self, tenant: str, name: str) -> AsyncGenerator[State, None]:
        """One State, valid until this generator is closed."""
        sid = sid_of(tenant, name)
        stand = await self._heads.living(tenant, sid)  # not within: two connections a request could starve the pool
        if stand.head.rows <= _IN_ONE_PIECE:
            found = await self._database.ask(lambda connection: sql.get_state(connection, sid))
            if found is None:
                self._heads.forget(sid)
                raise NoSession
            proof = self._proof(tenant, found)
            opened = proof.open(found.rows)
            proof.finish()
            yield State(found.row, _once(opened + proof.merged.rest()), proven=True)
            return
        if sid in self._broken:
            await self._read_through(tenant, sid)
        async with self._in_pieces(tenant, sid) as state:
            yield state

    @asynccontextmanager
    async def _in_pieces(self, tenant: str, sid: UUID) -> AsyncGenerator[State, None]:
        async def begin(connection: Connection) -> tuple[_Step | None, AsyncGenerator[_Step, None]]:
            steps = sql.stream_state(connection, sid)
            return await anext(steps, None), steps

        async with self._holders.one(STREAM, tenant), self._database.asking(begin) as (first, steps), aclosing(steps):
            if first is None:
                self._heads.forget(sid)
                raise NoSession
            assert isinstance(first, WholeSession)  # noqa: S101 - what stream_state promises
            yield State(first.row, self._stream(self._proof(tenant, first), steps), proven=False)

    async def _read_through(self, tenant: str, sid: UUID) -> None:
        """Its last reader was cut off, which tells nobody why: who asks again hears of the damage before anything is sent.

        A look that is itself broken off has seen nothing: the next reader gets a stream again.
        """
        self._broken.discard(sid)
        async with self._in_pieces(tenant, sid) as state:
            async for _ in state.chunks:
                pass

    async def _stream(self, proof: "_Proof", steps: AsyncIterator[_Step]) -> AsyncIterator[list[Opened]]:
        try:
            with understood():  # it is read outside of what lent the connection
                async for chunk in steps:
                    assert isinstance(chunk, list)  # noqa: S101 - what stream_state promises
                    yield proof.open(chunk)
            proof.finish()
        except Corrupt:
            self._broken.add(proof.sid)
            raise
        yield proof.merged.rest()

    def _proof(self, tenant: str, found: WholeSession) -> "_Proof":
        vault = self._learn(tenant, found.row)
        head = found.row.head
        pending = open_journal(head, vault, found.entries)
        if head.pending:
            self._heads.journals.keep(head.sid, pending)
        return _Proof(head, vault, pending)

    def _learn(self, tenant: str, row: SessionRow) -> SessionVault:
        if row.head.deleted:
            self._heads.forget(row.head.sid)
            raise Deleted
        return self._heads.learn(tenant, row).vault

    async def _values(self, tenant: str, name: str, asked: Asked) -> tuple[int, dict[int, bytes]]:
        """``(version, values by their place)``."""
        sid = sid_of(tenant, name)
        for attempt in range(_ATTEMPTS):
            stand = await self._heads.living(tenant, sid, fresh=attempt > 0)
            khs = [stand.vault.find(ktype, key_id) for ktype, key_id in asked]
            got = await self._lanes.submit(Wanted(sid, khs), len(khs) + 1)
            if self._same(stand, got) and (pending := await self._journal(stand, got)) is not None:
                return pending.version, _opened(stand.vault, got, asked, pending)
            self._heads.forget(sid)
        raise Unavailable

    async def _journal(self, stand: Stand, got: Got) -> Pending | None:
        """What waits above rows just read; None when the rows are not what they were."""
        sid = stand.head.sid
        if not got.pending:
            return Pending(got.version or 0)
        now = self._heads.remembered(sid)
        if now is not None and now.head.version == got.version and now.head.pending == got.pending:
            pending = self._heads.journals.of(now.head)
            if pending is not None:
                return pending
        found = await self._database.ask(lambda connection: read_journal(connection, sid))
        if found is None or found[0].head.deleted or found[0].head.dek_id != stand.head.dek_id:
            return None
        if found[0].head.settled != got.settled:
            return None
        head = self._heads.learn(found[0].tenant, found[0]).head
        pending = open_journal(head, stand.vault, found[1])
        self._heads.journals.keep(sid, pending)
        return pending

    @staticmethod
    def _same(stand: Stand, got: Got) -> bool:
        """The answer is of the session whose vault we looked with: a session made anew hides its rows from the old one's."""
        return got.version is not None and not got.deleted and got.dek_id == stand.head.dek_id


class _Proof:
    """Opens what one snapshot holds and proves that it is all of it and nothing else."""

    def __init__(self, head: Head, vault: SessionVault, pending: Pending) -> None:
        self.sid = head.sid
        self._head = head
        self._vault = vault
        self._sum = vault.mask(head.bound()) + pending.share
        self._count = 0
        self.merged = Merged(pending)

    def open(self, stored: list[StoredRow]) -> list[Opened]:
        self._sum += self._vault.weigh_all(stored)
        self._count += len(stored)
        return self.merged.chunk(self._vault.open_all(stored))

    def finish(self) -> None:
        if self._sum % PRIME != self._head.mark or self._count != self._head.rows:
            raise Corrupt(WHOLE_SET, None)


def _opened(vault: SessionVault, got: Got, asked: Asked, pending: Pending) -> dict[int, bytes]:
    """Values by their place: of the rows, and of the journal above them."""
    waiting = pending.values
    rows = got.rows if not waiting else {n: row for n, row in got.rows.items() if asked[n] not in waiting}
    opened = vault.open_all(list(rows.values()))
    values = {place: key.value for place, key in zip(rows, opened, strict=True)}
    if waiting:
        newer = ((place, waiting.get(name)) for place, name in enumerate(asked))
        values.update((place, value) for place, value in newer if value is not None)
    return values


def _page(vault: SessionVault, ktype: str, rows: list[StoredRow], pending: Pending, after: bytes, limit: int) -> Page:
    """``rows``: up to one more than ``limit``; what lies behind the last of so many is not known here."""
    last = rows[limit].kh if len(rows) > limit else _behind(after[:TAG_BYTES])
    opened = vault.open_all([row for row in rows if row.kh < last])
    keys = {row.kh: key for row, key in zip(rows, opened, strict=False)}
    for (of_type, key_id), value in pending.values.items():
        if of_type != ktype:
            continue
        kh = vault.find(of_type, key_id)
        if not after < kh < last:
            continue
        keys.pop(kh, None)
        if value is not None:
            keys[kh] = Opened(ktype, key_id, value)
    khs = sorted(keys)
    more = len(khs) > limit or len(rows) > limit
    shown = khs[:limit]
    if not more:
        return Page([keys[kh] for kh in shown], None)
    end = shown[-1] if len(khs) > limit else max([*shown[-1:], rows[limit - 1].kh])
    return Page([keys[kh] for kh in shown], end[TAG_BYTES:].hex())


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
