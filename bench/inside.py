"""The service's part of a workload without its edge: body read, judged, sealed, stored, in this process.

What a commit or an opening spends at the database (statement, fsync, driver) is told from what it spends around it.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, ParamSpec, TypeVar
from unittest.mock import patch

import uvloop
from multidict import CIMultiDict

from bench.servers.nothing import NOTHING
from service.errors import BadInput
from service.http.raw_json import encode
from service.http.wire import BatchedAnswer, CommitsAnswer, parse_commit, parse_commits, parse_steering
from service.store import AuthStore, Caller
from service.store.auth_store import StoreOptions
from service.store.changes import Committed
from service.vault import MasterKeys

P = ParamSpec("P")
T = TypeVar("T")

_ME: Final = Caller("default", "write")
_MAIN: Final = "main"
_GROUP: Final = 256
_LONG_S: Final = 3600.0
_NO_HEADERS: Final[CIMultiDict[str]] = CIMultiDict()
# What talks to the database, as the store calls it.
_AT_THE_DATABASE: Final = (
    "service.store.auth_store.commit_all",
    "service.sql.keys.get_state",
    "service.sql.sessions.take_lease",
)


@dataclass(frozen=True, slots=True)
class Spent:
    """Of one operation, in ms. ``later``: until what it left in the journal has become rows."""

    service: float
    database: float
    later: float = 0.0


Texts = Mapping[str, Any]
Keys = Mapping[str, Mapping[str, str | None]]


def body_of(keys: Keys, creds: str | None = None) -> bytes:
    """A commit's body, as the client writes it: values as texts, None deletes."""
    types = [f"{json.dumps(ktype)}:{_members(values)}" for ktype, values in keys.items()]
    parts = [] if creds is None else [f'"creds":{creds}']
    return "".join(["{", ",".join([*parts, '"keys":{' + ",".join(types) + "}"]), "}"]).encode()


class Inside:
    """``texts``: what `node/parts.mjs` answers to ``values``."""

    def __init__(self, url: str, texts: Texts, master_key: bytes) -> None:
        self._texts = texts
        self._database_s = 0.0
        self._numbers = count()
        self._patches = ExitStack()
        for name in _AT_THE_DATABASE:
            self._patches.enter_context(patch(name, self._clocked(_named(name))))
        self._store = AuthStore(url, MasterKeys([master_key]), None, StoreOptions())

    async def open(self) -> None:
        """Fills the session that workloads change."""
        await self._store.open()
        await self._commit(
            _MAIN, body_of({"session": self._sessions(), "pre-key": self._texts["preKeys"]}, self._creds)
        )

    async def close(self) -> None:
        await self._store.close()
        self._patches.close()

    async def time(self, workload: str, n: int) -> list[Spent]:
        """``n`` operations, one after the other; what they need is made before, and is rows."""
        operation = await getattr(self, f"_{workload}")(n)
        await self._settle()
        spent = []
        for i in range(n):
            self._database_s, began = 0.0, time.perf_counter()
            await operation(i)
            took = time.perf_counter() - began
            at_the_database = self._database_s
            later = await self._settle()
            spent.append(Spent((took - at_the_database) * 1000, at_the_database * 1000, later * 1000))
        return spent

    async def _settle(self) -> float:
        began = time.perf_counter()
        await self.settle()
        return time.perf_counter() - began

    async def settle(self) -> None:
        """Makes rows of all that waits."""
        await self._store.settler.settle_all()

    async def lease(self, name: str) -> None:
        """Takes a session's lease, for longer than anything is measured."""
        await self._store.lease(_ME, name, "bench", _LONG_S, takeover=False, epoch=None)

    async def commit_many(self, body: bytes) -> Sequence[int]:
        """The versions that a request's commits left."""
        asked = [(name, change) for name, change in parse_commits(body) if not isinstance(change, BadInput)]
        done = [outcome for outcome in await self._store.commit_all(_ME, asked) if isinstance(outcome, Committed)]
        encode(CommitsAnswer([BatchedAnswer(one.version, one.epoch) for one in done]))
        return [one.version for one in done]

    async def nothing(self, n: int) -> list[float]:
        """A question to the database that asks for nothing, ``n`` times, in ms."""
        took = []
        async with self._store.database.connection() as connection:
            for _ in range(n):
                began = time.perf_counter()
                await connection.fetchval(NOTHING)
                took.append((time.perf_counter() - began) * 1000)
        return took

    async def _w2(self, _: int) -> Callable[[int], Awaitable[None]]:
        bodies = [body_of({"session": {self._address(n): text}}) for n, text in enumerate(self._texts["sessions"])]
        return lambda i: self._commit(_MAIN, bodies[i % len(bodies)])

    async def _w3(self, n: int) -> Callable[[int], Awaitable[None]]:
        body, names = body_of({"pre-key": self._texts["preKeys"]}), await self._fresh(n)
        return lambda i: self._commit(names[i], body)

    async def _w4(self, n: int) -> Callable[[int], Awaitable[None]]:
        used = [f"{next(self._numbers) + 10_000}" for _ in range(n)]
        text = self._texts["preKeys"]["1"]
        await self._commit(_MAIN, body_of({"pre-key": dict.fromkeys(used, text)}))
        session = {self._address(0): self._texts["sessions"][0]}
        bodies = [body_of({"session": session, "pre-key": {key_id: None}}) for key_id in used]
        return lambda i: self._commit(_MAIN, bodies[i])

    async def _w5(self, _: int) -> Callable[[int], Awaitable[None]]:
        body = body_of({"session": self._sessions()})
        return lambda _: self._commit(_MAIN, body)

    async def _w6(self, n: int) -> Callable[[int], Awaitable[None]]:
        body, names = body_of(self._texts["whole"], self._creds), await self._fresh(n)
        return lambda i: self._commit(names[i], body)

    async def _w7(self, _: int) -> Callable[[int], Awaitable[None]]:
        body = body_of({}, self._creds)
        return lambda _: self._commit(_MAIN, body)

    async def _w9(self, n: int) -> Callable[[int], Awaitable[None]]:
        names = await self._fresh(n)
        for name in names:
            await self._commit(name, body_of(self._texts["whole"]))
        return lambda i: self._restart(names[i])

    async def _restart(self, name: str) -> None:
        await self.lease(name)
        async with self._store.state(_ME, name) as state:
            async for _ in state.chunks:
                pass

    async def _commit(self, name: str, body: bytes) -> None:
        await self._store.commit(_ME, name, parse_commit(body, parse_steering(_NO_HEADERS)))

    async def _fresh(self, n: int) -> Sequence[str]:
        """Sessions with creds and no keys."""
        names = [f"fresh-{next(self._numbers)}" for _ in range(n)]
        for name in names:
            await self._commit(name, body_of({}, self._creds))
        return names

    @property
    def _creds(self) -> str:
        return str(self._texts["creds"])

    def _sessions(self) -> dict[str, str]:
        return {self._address(n): text for n, text in enumerate(self._texts["sessions"][:_GROUP])}

    @staticmethod
    def _address(n: int) -> str:
        return f"1555{1_000_000 + n}.0"

    def _clocked(self, call: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        async def clocked(*args: P.args, **named: P.kwargs) -> T:
            began = time.perf_counter()
            try:
                return await call(*args, **named)
            finally:
                self._database_s += time.perf_counter() - began

        return clocked


def _named(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(__import__(module, fromlist=[name]), name)


def _members(values: Mapping[str, str | None]) -> str:
    return "{" + ",".join(f"{json.dumps(name)}:{text or 'null'}" for name, text in values.items()) + "}"


def runner() -> asyncio.Runner:
    """The service's own event loop."""
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)
