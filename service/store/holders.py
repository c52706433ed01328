"""Who keeps a connection of the general pool for as long as somebody else takes: a reader, a judge, another store.

Together they leave one of it, whatever its size: a lease, a look or a new session waits for none of them. Readers, who alone
have no bound in time, leave one more where there are three: checks and mirrors go on beside the slowest. Kinds take turns with
what they share, and tenants with what is their kind's.

A stream is bound by its reader's rate alone. A bound on the whole would make a state that is large, or read over a slow line,
one that nobody can ever read, since who is cut off begins anew; what a slow reader keeps is a slot of his kind and an old
snapshot.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Literal

from service.store.shares import Shares

Kind = Literal["stream", "check", "mirror"]

STREAM: Final = "stream"
CHECK: Final = "check"
MIRROR: Final = "mirror"

# Judging takes a processor, and two judges only halve each other's.
_CHECKS: Final = 1
# A turn keeps its connection while a source writes, since whoever carried beside it could be overtaken: the older values
# would arrive last. So they are few, and none may take as long as a source that hangs does.
_TURNS: Final = 4
_TURNS_OF_POOL: Final = 3  # one for so many connections


class Holders:
    """Slots of one store. ``pool``: connections of its general pool."""

    def __init__(self, pool: int) -> None:
        together = max(1, pool - 1)
        streams = min(pool // 2 + 1, max(1, together - 1))
        self._together = Shares(together)
        self._of: Final[dict[Kind, Shares]] = {
            # The last one is for a tenant that has none: nobody's slow readers keep everybody else's waiting.
            STREAM: Shares(max(1, streams - 1), spare=int(streams > 1)),
            CHECK: Shares(_CHECKS),
            MIRROR: Shares(max(1, min(_TURNS, pool // _TURNS_OF_POOL))),
        }

    @asynccontextmanager
    async def one(self, kind: Kind, tenant: str) -> AsyncIterator[None]:
        """A slot, when it is this tenant's turn within its kind, and its kind's among all. Who has one asks for no other."""
        async with self._of[kind].one(tenant), self._together.one(kind):
            yield
