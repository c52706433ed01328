"""What keeps a session closed here once it was given back: a lease in the rollback's name that lasts for years.

It is known by its length, which nobody can choose: names are whatever a client calls itself, but no client's lease lasts
longer than an hour. Every release that serves beside this one keeps to it, as it is a lease like any other,
but for one before this that deletes the session.

Who takes it over goes on under its name, for as long: from the first moment, so that whoever fails or dies after that has
changed nothing for others but the epoch. Only a cutover that opens the session ends it.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from protocol.types import session_uuid
from service.errors import Fenced, NoSession, Unavailable
from service.migrate.leases import LEASE_S
from service.migrate.runs import given_back
from service.sql import sessions as sql
from service.store import AuthStore, Caller

FENCE_S: Final = 10 * 365 * 86400.0

_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class Taken:
    """A lease that is ours: under which name and epoch, for how many seconds at a time, and whether it is a fence."""

    owner: str
    epoch: int
    ttl_s: float
    fence: bool


def rollback_name(source: str) -> str:
    """The name of a rollback in leases. ``source``: its kind, or what a run calls it."""
    return f"rollback to {source.partition(' ')[0]}"


async def standing(store: AuthStore, caller: Caller, name: str) -> tuple[str, int] | None:
    """Name and epoch of the fence that a rollback left at the session; None without one."""
    sid = session_uuid(caller.need("admin"), name)
    async with store.database.connection() as connection:
        return await sql.find_long_lease(connection, sid)


async def take(store: AuthStore, caller: Caller, name: str, owner: str, *, takeover: bool) -> Taken:
    """Takes the lease in the owner's name; with ``takeover`` from anybody, a fence as one. Raises LeaseHeld, Deleted,
    Unavailable.
    """
    for _ in range(_ATTEMPTS):
        found = await _found(store, caller, name) if takeover else None
        if found is not None:
            holder, epoch = found
            with suppress(Fenced):  # another took it in between
                granted = await store.lease(caller, name, holder, FENCE_S, takeover=True, epoch=epoch)
                return Taken(holder, granted.epoch, FENCE_S, fence=True)
            continue
        granted = await store.lease(caller, name, owner, LEASE_S, takeover=takeover, epoch=None)
        if not takeover or await _found(store, caller, name) is None:  # or it was handed over in between
            return Taken(owner, granted.epoch, LEASE_S, fence=False)
    raise Unavailable("the lease changed hands just now; try again")


async def _found(store: AuthStore, caller: Caller, name: str) -> tuple[str, int | None] | None:
    """The name of the fence that the session has, or should have, and its epoch where it stands."""
    fence = await standing(store, caller, name)
    if fence is not None:
        return fence
    try:
        given = await given_back(store, caller, name, (await store.show(caller, name)).version)
    except NoSession:
        return None
    return None if given is None else (rollback_name(given.source), None)
