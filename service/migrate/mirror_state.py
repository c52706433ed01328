"""How far each mirror is behind its source, and what keeps it, as far as that can be seen from here."""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from service.errors import ServiceError
from service.migrate.origin import Origin, Place
from service.store import AuthStore, Caller

_OPEN_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class MirrorState:
    """A session's mirror. ``source`` without a password; ``since``: when the first of its waiting commits was made; ``why``:
    what keeps them, "" where nothing is seen."""

    session: str
    source: str
    on: bool
    commits: int = 0
    since: datetime | None = None
    why: str = ""

    @property
    def state(self) -> str:
        """In words."""
        if not self.commits:
            return "up to date"
        since = "" if self.since is None else f" since {self.since.isoformat(timespec='seconds')}"
        waits = f"1 commit waits{since}" if self.commits == 1 else f"{self.commits} commits wait{since}"
        kept = f": {self.why}" if self.why else ""
        return f"{waits}{kept}{'' if self.on else '; the mirror is off'}"

    def row(self) -> dict[str, Any]:
        """As columns or JSON members."""
        named = {"session": self.session, "source": self.source, "state": self.state}
        return {**named, "commits": self.commits, "since": self.since}


async def mirrors(store: AuthStore, caller: Caller, only: str | None = None) -> list[MirrorState]:
    """Every mirror of the tenant that is on or has commits that wait, by name. Where some wait, their source is tried."""
    on = set(await store.mirrors.mirrored(caller))
    waiting = {each.name: each for each in await store.mirrors.waiting(caller)}
    tried: dict[Place, str] = {}
    states = []
    for name in sorted(on | waiting.keys()):
        if only not in (None, name):
            continue
        origin, why = await _origin(store, caller, name)
        source = "" if origin is None else origin.shown
        if name not in waiting:
            states.append(MirrorState(name, source, on=True))
            continue
        if origin is not None:
            if origin.place not in tried:
                tried[origin.place] = await _try(origin)
            why = tried[origin.place]
        each = waiting[name]
        states.append(MirrorState(name, source, name in on, each.entries, each.since, why))
    return states


async def _origin(store: AuthStore, caller: Caller, name: str) -> tuple[Origin | None, str]:
    """It, or why there is none."""
    try:
        kept = await store.mirrors.origin(caller, name)
        return (None, "its source is not known any more") if kept is None else (Origin.decode(kept), "")
    except ServiceError as error:
        return None, error.detail


async def _try(origin: Origin) -> str:
    """What keeps one from opening the source from here; "" when nothing does."""
    try:
        async with asyncio.timeout(_OPEN_S), await origin.open():
            return ""
    except ServiceError as error:
        return error.detail
    except TimeoutError:
        return "the source does not answer"
