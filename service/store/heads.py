"""What is remembered of a session between commits, and who is next to commit.

A head is remembered together with the session's vault, so that the common commit or get needs no look before. Forgetting
is always safe. One commit of a session is in flight at a time; the others queue in the order they came.
"""

import asyncio
import math
from collections import OrderedDict, deque
from typing import Final
from uuid import UUID

from service.errors import Deleted, NoSession
from service.records import Head, SessionRow, Vacant, Value
from service.sql import sessions as sql
from service.sql.pool import Database
from service.store.journal import Journals
from service.vault import MasterKeys, SessionVault, wrap_context

_REMEMBERED: Final = 20_000
_LINES: Final = 40_000
_AT_ONCE_S: Final = 0.1
_BURST: Final = 8
"""Commits in a row, each within that time of the one before: from the next on they are worth the journal."""


class Pace(Value, frozen=True, gc=False):
    """How fast a session is being written: when its last commit was stored, and how many in a row followed at once."""

    last: float = -math.inf
    quick: int = 0

    def hurried(self, now: float) -> bool:
        """Whether one more now is part of a burst, as when a client catches up on the messages of a night."""
        return self.quick >= _BURST and now - self.last < _AT_ONCE_S

    def after(self, now: float) -> "Pace":
        """With one more commit, stored now."""
        return Pace(now, self.quick + 1 if now - self.last < _AT_ONCE_S else 0)


_CALM: Final = Pace()


class Stand(Value, frozen=True, gc=False):
    """A session as far as we know. ``row`` is there when it was read just now: only then may a refusal rest on it.

    ``mask``: the head's, from the commit that made it; None when it was read. ``pace``: of what this process wrote to it.
    """

    head: Head
    vault: SessionVault
    row: SessionRow | None = None
    mask: int | None = None
    pace: Pace = _CALM

    def masked(self) -> int:
        """What hides the sum of the session's rows as they stand."""
        return self.vault.mask(self.head.bound()) if self.mask is None else self.mask


class Line:
    """Whose turn it is to commit to a session: a context that is entered first come, first served. ``taken``: somebody's."""

    __slots__ = ("_waiting", "taken")

    def __init__(self) -> None:
        self.taken = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    def enter_now(self) -> bool:
        """Takes the turn if it is nobody's; who does leaves with `leave`."""
        if self.taken:
            return False
        self.taken = True
        return True

    def leave(self) -> None:
        """The turn goes to whoever has waited longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # or its task was cancelled
                turn.set_result(None)
                return
        self.taken = False

    async def __aenter__(self) -> None:
        if self.enter_now():
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except BaseException:
            if not turn.cancelled():  # it was given the turn in the same moment
                self.leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self.leave()


class Heads:
    """Looks sessions up and remembers the last 20,000 of them. ``journals``: what is remembered of what waits in them."""

    def __init__(self, database: Database, masters: MasterKeys) -> None:
        self._database = database
        self.masters = masters
        self.journals = Journals()
        self._stands: OrderedDict[UUID, Stand] = OrderedDict()
        self._lines: dict[UUID, Line] = {}
        self._lines_most = _LINES

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

    def remember(self, head: Head, vault: SessionVault, mask: int | None = None, pace: Pace = _CALM) -> None:
        self._stands[head.sid] = Stand(head, vault, None, mask, pace)
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
            if len(self._lines) >= self._lines_most:
                self._drop_lines()
            line = self._lines[sid] = Line()
        return line

    def _drop_lines(self) -> None:
        """Of sessions that nobody commits to. Whoever asks for a line enters it at once, so nobody holds one of these."""
        self._lines = {sid: line for sid, line in self._lines.items() if line.taken}
        self._lines_most = _LINES + 2 * len(self._lines)  # or with so many taken it would be done for each one more

    def _vault(self, tenant: str, head: Head) -> SessionVault:
        known = self._stands.get(head.sid)
        if known is not None and known.head.wrapped_key == head.wrapped_key:
            return known.vault
        context = wrap_context(tenant, head.sid.bytes, head.dek_id)
        data_key = self.masters.unwrap(head.master_key_id, head.wrapped_key, context)
        return SessionVault(tenant, head.sid.bytes, head.dek_id, data_key)
