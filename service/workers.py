"""Several serving processes on one port: the parent owns Postgres and the port, and watches its children, which share it.

Children are spawned, not forked: no event loop, lock or connection is inherited, the listening sockets alone are. Each has
its own store; what keeps them in step is the database (a commit applies only to the version it was made for), never
shared memory. A child that ends by itself is replaced, unless none gets as far as serving; children end with the parent,
however it ends.
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
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Final

from service.errors import StartError
from service.observe import get_logger

_log = get_logger("authstore.workers")

_CHECK_S: Final = 0.2
_END_S: Final = 45.0
_PR_SET_PDEATHSIG: Final = 1

_LONGEST_PAUSE_S: Final = 30.0
_STEADY_S: Final = 60.0
_TRIES: Final = 3

Work = Callable[[Sequence[socket.socket], Callable[[], None]], None]
"""What a child runs, given the sockets that all share, and what it calls once it serves."""


@dataclass(slots=True)
class _Place:
    """A child, what it says, and when the next one may take its place.

    ``said``: a pipe's two ends. As long as ours for writing is open too, only a child's word makes the other readable.
    """

    child: BaseProcess
    said: tuple[Connection, Connection]
    began: float
    pause_s: float = 0.0

    def serves(self) -> bool:
        """Whether it lives and has said that it serves."""
        return self.said[0].poll() and self.child.is_alive()


async def watch(
    count: int,
    work: Work,
    stop: asyncio.Event,
    sockets: Sequence[socket.socket],
    ending: Callable[[], None] = lambda: None,
) -> None:
    """Keeps ``count`` children running ``work`` (picklable) until ``stop``, then ends them and waits for them.

    One that keeps ending is begun anew with growing pauses of at most 30 s. The sockets are closed here at the
    end, and ``ending`` is called just before.
    Raises StartError when none serves and three for each place have ended in a row: the port would take connections
    that nobody answers.
    """
    spawn = multiprocessing.get_context("spawn")

    def begin(pause_s: float = 0.0) -> _Place:
        said = spawn.Pipe(duplex=False)
        child = spawn.Process(target=_child, args=(work, os.getpid(), sockets, said[1]))
        child.start()
        return _Place(child, said, time.monotonic(), pause_s)

    places = [begin() for _ in range(count)]
    ended = 0
    try:
        while not stop.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_CHECK_S):
                    await stop.wait()
            if stop.is_set():
                break
            ended = 0 if any(place.serves() for place in places) else ended
            ended += _replace_ended(places, begin)
            if ended >= _TRIES * count:
                raise StartError("no worker serves: each ends while it starts, and has logged what ended it")
    finally:
        # First: while one is open here, clients queue on it behind children that take nothing more.
        ending()
        for shared in sockets:
            shared.close()
        for place in places:
            place.child.terminate()
        await asyncio.to_thread(_wait, [place.child for place in places])


def _replace_ended(places: list[_Place], begin: Callable[[float], _Place]) -> int:
    """Begins the next one in each place whose child has ended and whose pause is over; how many that were."""
    ended = 0
    for number, place in enumerate(places):
        if place.child.is_alive():
            continue
        lived = time.monotonic() - place.began
        pause = 0.0 if lived > _STEADY_S else place.pause_s
        if lived >= pause:
            _log.error("a worker ended", exit_code=place.child.exitcode)
            places[number] = begin(min(max(_CHECK_S, 2 * pause), _LONGEST_PAUSE_S))
            ended += 1
    return ended


def _wait(children: list[BaseProcess]) -> None:
    for child in children:
        child.join(_END_S)
        if child.is_alive():
            child.kill()


def _child(work: Work, parent: int, sockets: Sequence[socket.socket], says: Connection) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() == parent:  # else it died before the line above could tell us
        work(sockets, lambda: says.send_bytes(b"serving"))
