"""The lease of a session while the migrator works on it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from service.errors import Fenced, ServiceError
from service.migrate.leases import LEASE_S
from service.store import AuthStore, Caller


@dataclass(slots=True)
class Hold:
    """``epoch`` fences everybody else's writes. ``kept`` False: the context's end releases the lease."""

    epoch: int
    kept: bool = False
    _store: AuthStore = field(kw_only=True, repr=False)
    _caller: Caller = field(kw_only=True, repr=False)
    _name: str = field(kw_only=True, repr=False)
    _owner: str = field(kw_only=True, repr=False)
    _ttl_s: float = LEASE_S
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    async def renew(self) -> None:
        """This very lease once more. Raises Fenced when it was taken over or ended, Deleted, Unavailable."""
        async with self._turn:  # or a slow one with the shorter time would land last
            await self._store.lease(
                self._caller, self._name, self._owner, self._ttl_s, takeover=False, epoch=self.epoch
            )

    async def prolong(self, ttl_s: float) -> None:
        """Renews it, now and from now on, for so long. Raises as `renew` does."""
        self._ttl_s = ttl_s
        await self.renew()


@asynccontextmanager
async def holding(store: AuthStore, caller: Caller, name: str, owner: str, *, takeover: bool) -> AsyncIterator[Hold]:
    """Takes the lease in the owner's name, renews it in the background, releases it at the end. Raises LeaseHeld, Deleted."""
    granted = await store.lease(caller, name, owner, LEASE_S, takeover=takeover, epoch=None)
    hold = Hold(granted.epoch, _store=store, _caller=caller, _name=name, _owner=owner)
    renewal = asyncio.create_task(_renew(hold))
    try:
        yield hold
    finally:
        renewal.cancel()
        with suppress(asyncio.CancelledError, ServiceError):
            await renewal
        if not hold.kept:
            with suppress(Fenced):
                await store.release(caller, name, hold.epoch)


async def _renew(hold: Hold) -> None:
    while True:
        await asyncio.sleep(LEASE_S / 4)
        with suppress(ServiceError):  # a write under a lost lease is refused; nothing rests on this
            await hold.renew()
