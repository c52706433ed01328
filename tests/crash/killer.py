"""SIGKILL to what a service is made of, and how long it takes to be ready again."""

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar

import aiohttp

KINDS: Final = ("service", "postgres", "backend", "both", "starting")
T = TypeVar("T")
_STEP_S: Final = 0.02
_READY_WITHIN_S: Final = 60.0


class Killable(Protocol):
    """`ServiceProcess`, as far as it is needed here."""

    data_dir: Path
    url: str

    def kill9(self) -> None: ...
    def launch(self) -> None: ...
    def wait_ready(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Kill:
    """What was killed, when it was, and when the service was ready again; monotonic seconds."""

    kind: str
    at: float
    ready: float


class Killer:
    """Kills at random, one after the other; each time the service must be ready again within 60 s."""

    def __init__(self, service: Killable, rng: random.Random, kinds: Sequence[str] = KINDS) -> None:
        self._service = service
        self._rng = rng
        self._kinds = kinds
        self.kills: list[Kill] = []

    async def run(self, kills: int, pause_s: tuple[float, float]) -> None:
        """Every kind in turn, in an order of chance."""
        while len(self.kills) < kills:
            for kind in self._rng.sample(self._kinds, len(self._kinds))[: kills - len(self.kills)]:
                await asyncio.sleep(self._rng.uniform(*pause_s))
                at = time.monotonic()
                await self._kill(kind)
                self.kills.append(Kill(kind, at, time.monotonic()))

    async def _kill(self, kind: str) -> None:
        if kind == "postgres":
            await self._kill_postgres()
            return await self._ready()
        if kind == "backend":
            await self._kill_backend()
            return await self._ready()
        if kind == "both":
            first = self._rng.choice(("service", "postgres"))
            if first == "postgres":
                await self._kill_postgres()
            pid = postmaster(self._service.data_dir)
            await asyncio.to_thread(self._service.kill9)
            if first == "service" and pid is not None:
                _send_kill(pid)
        else:
            await asyncio.to_thread(self._service.kill9)
        if kind == "starting":
            await asyncio.to_thread(self._service.launch)
            await asyncio.sleep(self._rng.uniform(0, 0.9))
            await asyncio.to_thread(self._service.kill9)
        await asyncio.to_thread(self._service.launch)
        return await asyncio.to_thread(self._service.wait_ready)

    async def _kill_postgres(self) -> None:
        pid = await _found(lambda: postmaster(self._service.data_dir))
        assert pid is not None
        _send_kill(pid)
        await _found(lambda: postmaster(self._service.data_dir) != pid)

    async def _kill_backend(self) -> None:
        pid = self._rng.choice(await _found(lambda: backends(self._service.data_dir)))
        _send_kill(pid)
        await _found(lambda: not _alive(pid))

    async def _ready(self) -> None:
        async with asyncio.timeout(_READY_WITHIN_S), aiohttp.ClientSession() as http:
            while True:
                with suppress(aiohttp.ClientError, OSError):
                    async with http.get(f"{self._service.url}/health/ready") as response:
                        if response.status == 200:
                            return
                await asyncio.sleep(_STEP_S)


async def _found(look: Callable[[], T]) -> T:
    """What ``look`` finds once it finds something."""
    async with asyncio.timeout(_READY_WITHIN_S):
        while not (found := look()):  # noqa: ASYNC110  only looking tells
            await asyncio.sleep(_STEP_S)
    return found


def postmaster(data_dir: Path) -> int | None:
    """The process id of the folder's living Postgres."""
    try:
        pid = int((data_dir / "pg/postmaster.pid").read_text().partition("\n")[0])
    except (OSError, ValueError):
        return None
    return pid if _alive(pid) else None


def backends(data_dir: Path) -> list[int]:
    """Its processes that serve a connection."""
    pid = postmaster(data_dir)
    return [] if pid is None else [child for child in children(pid) if b"[local]" in _read(child, "cmdline")]


def children(pid: int) -> list[int]:
    """The processes a process has started."""
    return [int(child) for child in _read(pid, f"task/{pid}/children").split()]


def _alive(pid: int) -> bool:
    return _read(pid, "stat").rpartition(b")")[2].split()[:1] not in ([], [b"Z"], [b"X"])


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _send_kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
