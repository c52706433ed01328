"""Copies, cuts over or rolls back in a forked process, one for every line of its input, and killed after a delay.

``copy``, ``cutover`` or ``rollback`` and a delay on a line: the work is begun and killed with SIGKILL that many seconds
later. The answer is ``killed`` or ``ended <exit code>``. Run as ``crash_migrate.py TARGET SOURCE``.
"""

import asyncio
import os
import signal
import sys
import time

import migrating
from migrating import CALLER, shop

from service.migrate.cutover import Cutover, cutover
from service.migrate.origin import Origin
from service.migrate.plan import Options
from service.migrate.report import Folder
from service.migrate.rollback import Rollback, rollback
from service.migrate.runs import Run, called
from service.migrate.sources import (
    open_source,
    postgres,  # noqa: F401 - imported before the fork
)


async def _work(what: str, target: str, source: str, began: int) -> None:
    async with migrating.open_store(target) as store:
        os.write(began, b".")
        if what == "copy":
            await migrating.run_copy(store, source)
            return
        async with await open_source(source) as opened:
            run = await Run.begin(store, CALLER, what, called(opened), {})
            origin = Origin(source, shop.SESSION, Options())
            if what == "rollback":
                report = await rollback(run, opened, origin, shop.SESSION, Rollback())
                assert report.verdict != "failed", report.sessions[0].says
                return
            chosen = Cutover(stopped=True, watch_s=0, mirror=True)
            report = await cutover(run, opened, origin, chosen, Folder(None), lambda _line: None)
        assert report.verdict != "failed", report.sessions[0].says


def _killed_after(what: str, delay: float, target: str, source: str) -> str:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(_work(what, target, source, write))
        except BaseException:
            os._exit(1)
        os._exit(0)
    os.close(write)
    os.read(read, 1)
    os.close(read)
    deadline = time.monotonic() + delay
    ended = status = 0
    while not ended and time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.002)
    if not ended:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    return "killed" if os.WIFSIGNALED(status) else f"ended {os.waitstatus_to_exitcode(status)}"


def main() -> None:
    target, source = sys.argv[1:]
    for line in sys.stdin:
        what, delay = line.split()
        print(_killed_after(what, float(delay), target, source), flush=True)


if __name__ == "__main__":
    main()
