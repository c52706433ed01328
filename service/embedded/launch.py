"""Runs a Postgres program as the account's user, tied to this process's life."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

from service.embedded.account import Account
from service.embedded.errors import NotMainThread

# Nothing is inherited: the service's environment holds its secrets, and PG* variables would change what Postgres does.
_ENVIRON: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C", "LC_ALL": "C", "TZ": "UTC"}
_SHIM: Final = str(Path(__file__).with_name("shim.py"))


def _through_shim(account: Account, death_signal: signal.Signals, argv: Sequence[str]) -> list[str]:
    shim = [sys.executable, "-I", "-S", "-B", _SHIM]
    return [*shim, str(account.uid), str(account.gid), str(os.getpid()), str(int(death_signal)), *argv]


def run(
    account: Account, argv: Sequence[str], *, keep: Sequence[int] = (), stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end. ``keep`` are descriptors it inherits; output is captured, nothing is raised."""
    return subprocess.run(  # noqa: S603
        _through_shim(account, signal.SIGTERM, argv),
        input=stdin,
        capture_output=True,
        check=False,
        cwd="/",
        env=_ENVIRON,
        pass_fds=tuple(keep),
    )


def spawn(account: Account, argv: Sequence[str], *, keep: Sequence[int], output: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a postmaster in a session of its own, so that a terminal's Ctrl-C reaches it only through us.

    It gets SIGINT, a clean fast shutdown, when the calling *thread* ends, hence only the main thread may call.
    """
    if threading.current_thread() is not threading.main_thread():
        raise NotMainThread
    return subprocess.Popen(  # noqa: S603
        _through_shim(account, signal.SIGINT, argv),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd="/",
        env=_ENVIRON,
        pass_fds=tuple(keep),
        start_new_session=True,
    )
