"""Whose lease a session's is. Each run has a name of its own there: two runs of one operator are two writers.

A run that was killed leaves its lease behind. Where its process is known to be gone (`alive`) that lease is ended; elsewhere
it ends by its time, or by ``--takeover``.
"""

import re
from contextlib import suppress
from typing import Final
from uuid import UUID

from service.errors import Deleted, Fenced, NoSession
from service.migrate import alive
from service.records import Lease
from service.sql import runs as sql
from service.store import AuthStore, Caller

LEASE_S: Final = 60.0

_HOLDER_CHARS: Final = 200
_HOLDER: Final = re.compile(r"authstore migrate ([0-9a-f-]{36}) \(")


def holder(run: UUID, by: str) -> str:
    """A run's name in leases."""
    return f"authstore migrate {run} ({by})"[:_HOLDER_CHARS]


async def is_of_the_dead(store: AuthStore, caller: Caller, lease: Lease) -> bool:
    """Whether it is that of a run of this tenant whose process is gone."""
    named = _HOLDER.match(lease.holder)
    if named is None:
        return False
    try:
        run = UUID(named[1])
    except ValueError:
        return False
    async with store.database.connection() as connection:
        return alive.gone(await sql.find_process(connection, run, caller.need("admin")))


async def end_that_of_the_dead(store: AuthStore, caller: Caller, name: str) -> None:
    """Ends the session's lease if a run left it that is dead. Whoever takes the session then is nobody's to push aside."""
    with suppress(NoSession, Deleted, Fenced):
        shown = await store.show(caller, name)
        if shown.lease is not None and shown.lease.live and await is_of_the_dead(store, caller, shown.lease):
            await store.release(caller, name, shown.epoch)
