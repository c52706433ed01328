"""The lease of a session while the migrator works on it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from uuid import UUID

from service.errors import Deleted, Fenced, NoSession, ServiceError
from service.migrate.fence import FENCE_S, take
from service.migrate.leases import LEASE_S
from service.store import AuthStore, Caller


@dataclass(slots=True)
class Hold:
    """``epoch`` fences everybody else's writes. ``kept`` False: the context's end releases the lease, which opens the session
    to whoever comes. It is True from the start where a rollback's fence was taken over."""

    epoch: int
    kept: bool
    _store: AuthStore = field(kw_only=True, repr=False)
    _caller: Caller = field(kw_only=True, repr=False)
    _name: str = field(kw_only=True, repr=False)
    _owner: str = field(kw_only=True, repr=False)
    _ttl_s: float = field(kw_only=True, repr=False)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    async def renew(self) -> None:
        """This very lease once more. Raises Fenced when it was taken over or ended, Deleted, Unavailable."""
        async with self._turn:  # or a slow one with the shorter time would land last
            await self._store.lease(
                self._caller, self._name, self._owner, self._ttl_s, takeover=False, epoch=self.epoch
            )

    async def fence(self) -> None:
        """Makes it one that lasts for years. Raises as `renew` does."""
        self._ttl_s, self.kept = FENCE_S, True
        await self.renew()

    async def hand_over(self, version: int, run: UUID) -> int | None:
        """`Mirrors.hand_over` under this lease. Where it fails without saying whether it did, the lease is left to end by
        itself: it may be what keeps the session closed."""
        before = self.kept
        async with self._turn:
            self.kept = True
            done = await self._store.mirrors.hand_over(
                self._caller, self._name, version=version, epoch=self.epoch, ttl_s=FENCE_S, run=run
            )
            if done is None:
                self.kept = before
            else:
                self._ttl_s = FENCE_S
        return done


@asynccontextmanager
async def holding(store: AuthStore, caller: Caller, name: str, owner: str, *, takeover: bool) -> AsyncIterator[Hold]:
    """Takes the lease as `fence.take` does, renews it in the background, releases it at the end unless it is kept. Raises
    LeaseHeld, Deleted, Unavailable."""
    taken = await take(store, caller, name, owner, takeover=takeover)
    hold = Hold(
        taken.epoch, taken.fence, _store=store, _caller=caller, _name=name, _owner=taken.owner, _ttl_s=taken.ttl_s
    )
    renewal = asyncio.create_task(_renew(hold))
    try:
        yield hold
    finally:
        renewal.cancel()
        with suppress(asyncio.CancelledError, ServiceError):
            await renewal
        if not hold.kept:
            with suppress(Fenced, Deleted, NoSession):
                await store.release(caller, name, hold.epoch)


async def _renew(hold: Hold) -> None:
    while True:
        await asyncio.sleep(LEASE_S / 4)
        with suppress(ServiceError):  # a write under a lost lease is refused; nothing rests on this
            await hold.renew()
