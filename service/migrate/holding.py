"""The lease of a session while the migrator works on it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from service.errors import Fenced, ServiceError
from service.migrate.copy import LEASE_S, holder
from service.store import AuthStore, Caller


@dataclass(slots=True)
class Hold:
    """``epoch`` fences everybody else's writes. ``kept`` False: the context's end releases the lease."""

    epoch: int
    kept: bool = False


@asynccontextmanager
async def holding(store: AuthStore, caller: Caller, name: str, *, takeover: bool) -> AsyncIterator[Hold]:
    """Takes the lease, renews it in the background, releases it at the end. Raises LeaseHeld, Deleted."""
    granted = await store.lease(caller, name, holder(), LEASE_S, takeover=takeover, epoch=None)
    hold = Hold(granted.epoch)
    renewal = asyncio.create_task(_renew(store, caller, name, hold.epoch))
    try:
        yield hold
    finally:
        renewal.cancel()
        with suppress(asyncio.CancelledError, ServiceError):
            await renewal
        if not hold.kept:
            with suppress(Fenced):
                await store.release(caller, name, hold.epoch)


async def _renew(store: AuthStore, caller: Caller, name: str, epoch: int) -> None:
    while True:
        await asyncio.sleep(LEASE_S / 4)
        with suppress(ServiceError):  # a write under a lost lease is refused; nothing rests on this
            await store.lease(caller, name, holder(), LEASE_S, takeover=False, epoch=epoch)
