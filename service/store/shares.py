"""Slots that tenants share: whoever holds the fewest is next, in turns; within a tenant those who came first."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Shares:
    """``slots`` for anyone, and ``spare`` ones for tenants that hold none: nobody can keep all while another waits."""

    def __init__(self, slots: int, spare: int = 0) -> None:
        self._slots = slots
        self._spare = spare
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # tenants in the order of their turns

    @asynccontextmanager
    async def one(self, tenant: str) -> AsyncIterator[None]:
        """A slot, when it is this tenant's turn."""
        await self._take(tenant)
        try:
            yield
        finally:
            self._give_back(tenant)

    async def _take(self, tenant: str) -> None:
        if self._may(tenant):  # then nobody waits who may
            self._held[tenant] += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was given already
                self._give_back(tenant)
            raise

    def _give_back(self, tenant: str) -> None:
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        while self._waiting:
            following = min(self._waiting, key=lambda waiting: self._held[waiting])
            if not self._may(following):
                return
            turns = self._waiting.pop(following)
            turn = turns.popleft()
            if turns:
                self._waiting[following] = turns  # behind the others
            if not turn.done():  # whoever was cancelled is still in line
                self._held[following] += 1
                turn.set_result(None)

    def _may(self, tenant: str) -> bool:
        taken = self._held.total()
        return taken < self._slots or (not self._held[tenant] and taken < self._slots + self._spare)
