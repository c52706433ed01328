"""What is remembered of a session between commits, and who is next to commit.

A head is remembered together with the session's vault, so that the common commit or get needs no look before. Forgetting
is always safe. One commit of a session is in flight at a time; the others queue in the order they came.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Final
from uuid import UUID

from service.errors import Deleted, NoSession
from service.records import Head, SessionRow, Vacant, Value
from service.sql import sessions as sql
from service.sql.pool import Database
from service.store.journal import Journals
from service.vault import MasterKeys, SessionVault, wrap_context

_REMEMBERED: Final = 20_000


class Stand(Value, frozen=True, gc=False):
    """A session as far as we know. ``row`` is there when it was read just now: only then may a refusal rest on it.

    ``mask``: the head's, from the commit that made it; None when it was read.
    """

    head: Head
    vault: SessionVault
    row: SessionRow | None = None
    mask: int | None = None

    def masked(self) -> int:
        """What hides the sum of the session's rows as they stand."""
        return self.vault.mask(self.head.bound()) if self.mask is None else self.mask


class Line:
    """Whose turn it is to commit to a session: a context that is entered first come, first served."""

    __slots__ = ("_end", "_lock", "_users")

    def __init__(self, end: Callable[[], object]) -> None:
        self._lock = asyncio.Lock()
        self._users = 0
        self._end = end

    async def __aenter__(self) -> None:
        self._users += 1
        try:
            await self._lock.acquire()
        except BaseException:
            self._leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()
        self._leave()

    def _leave(self) -> None:
        self._users -= 1
        if not self._users:
            self._end()


class Heads:
    """Looks sessions up and remembers the last 20,000 of them. ``journals``: what is remembered of what waits in them."""

    def __init__(self, database: Database, masters: MasterKeys) -> None:
        self._database = database
        self.masters = masters
        self.journals = Journals()
        self._stands: OrderedDict[UUID, Stand] = OrderedDict()
        self._lines: dict[UUID, Line] = {}

    def remembered(self, sid: UUID) -> Stand | None:
        stand = self._stands.get(sid)
        if stand is not None:
            self._stands.move_to_end(sid)
        return stand

    async def look(self, tenant: str, sid: UUID) -> Stand | Vacant:
        """The session as it stands now; remembered when it lives."""
        found = await self._database.ask(lambda connection: sql.find(connection, sid))
        return found if isinstance(found, Vacant) else self.learn(tenant, found)

    async def living(self, tenant: str, sid: UUID, *, fresh: bool = False) -> Stand:
        """The session, remembered or looked up. Raises NoSession, Deleted."""
        stand = None if fresh else self.remembered(sid)
        if stand is not None:
            return stand
        found = await self.look(tenant, sid)
        if isinstance(found, Vacant):
            raise NoSession
        if found.head.deleted:
            raise Deleted
        return found

    def learn(self, tenant: str, row: SessionRow) -> Stand:
        """A session read just now, with its vault."""
        head = row.head
        stand = Stand(head, self._vault(tenant, head), row)
        if head.deleted:
            self.forget(head.sid)
        else:
            self.remember(head, stand.vault)
        return stand

    def remember(self, head: Head, vault: SessionVault, mask: int | None = None) -> None:
        self._stands[head.sid] = Stand(head, vault, None, mask)
        self._stands.move_to_end(head.sid)
        while len(self._stands) > _REMEMBERED:
            self._stands.popitem(last=False)

    def forget(self, sid: UUID) -> None:
        """Also its journal: what was remembered of it may not have become durable."""
        self._stands.pop(sid, None)
        self.journals.forget(sid)

    def line(self, sid: UUID) -> Line:
        """One commit of a session at a time, first come, first served."""
        line = self._lines.get(sid)
        if line is None:
            line = self._lines[sid] = Line(partial(self._lines.pop, sid))
        return line

    def _vault(self, tenant: str, head: Head) -> SessionVault:
        known = self._stands.get(head.sid)
        if known is not None and known.head.wrapped_key == head.wrapped_key:
            return known.vault
        context = wrap_context(tenant, head.sid.bytes, head.dek_id)
        data_key = self.masters.unwrap(head.master_key_id, head.wrapped_key, context)
        return SessionVault(tenant, head.sid.bytes, head.dek_id, data_key)
