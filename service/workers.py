"""Several serving processes on one port: the parent owns Postgres and the port, and watches its children, which share it.

Children are spawned, not forked: no event loop, lock or connection is inherited, the listening sockets alone are. Each has
its own store; what keeps them in step is the database (a commit applies only to the version it was made for), never
shared memory. A child that ends by itself is replaced; children end with the parent, however it ends.
"""

import asyncio
import ctypes
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Final

from service.observe import get_logger

_log = get_logger("authstore.workers")

_CHECK_S: Final = 0.2
_END_S: Final = 45.0
_PR_SET_PDEATHSIG: Final = 1

_LONGEST_PAUSE_S: Final = 30.0
_STEADY_S: Final = 60.0

Work = Callable[[int, Sequence[socket.socket]], None]
"""What a child runs, given its place among the children, from 0, and the sockets they share."""


@dataclass(slots=True)
class _Place:
    """A child, and when the next one may take its place."""

    child: BaseProcess
    began: float
    pause_s: float = 0.0


async def watch(count: int, work: Work, stop: asyncio.Event, sockets: Sequence[socket.socket]) -> None:
    """Keeps ``count`` children running ``work`` (picklable) until ``stop``, then ends them and waits for them.

    One that keeps ending is begun anew with growing pauses of at most 30 s. The sockets are closed here at the end.
    """
    spawn = multiprocessing.get_context("spawn")

    def begin(number: int, pause_s: float = 0.0) -> _Place:
        child = spawn.Process(target=_child, args=(work, number, os.getpid(), sockets))
        child.start()
        return _Place(child, time.monotonic(), pause_s)

    places = [begin(number) for number in range(count)]
    try:
        while not stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _CHECK_S)
            for number, place in enumerate(places):
                if place.child.is_alive() or stop.is_set():
                    continue
                lived = time.monotonic() - place.began
                pause = 0.0 if lived > _STEADY_S else place.pause_s
                if lived >= pause:
                    _log.error("a worker ended", exit_code=place.child.exitcode)
                    places[number] = begin(number, min(max(_CHECK_S, 2 * pause), _LONGEST_PAUSE_S))
    finally:
        # First: while one is open here, clients queue on it behind children that take nothing more.
        for shared in sockets:
            shared.close()
        for place in places:
            place.child.terminate()
        await asyncio.to_thread(_wait, [place.child for place in places])


def _wait(children: list[BaseProcess]) -> None:
    for child in children:
        child.join(_END_S)
        if child.is_alive():
            child.kill()


def _child(work: Work, number: int, parent: int, sockets: Sequence[socket.socket]) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() == parent:  # else it died before the line above could tell us
        work(number, sockets)
