"""The real service as a process of its own, for tests that talk to it over HTTP and kill it."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

COMMAND = Path(sys.executable).parent / "authstore"
_READY_WITHIN_S = 90
_STOP_WITHIN_S = 30


def free_port() -> int:
    """A TCP port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServiceProcess:
    """``authstore serve`` on a free port over its own data folder; a context manager that starts and stops it.

    ``kill9`` leaves everything to the next start: its Postgres dies with it, the data folder stays.
    """

    def __init__(
        self, data_dir: Path, env: dict[str, str] | None = None, command: Sequence[str | Path] = (COMMAND, "serve")
    ) -> None:
        self.data_dir = data_dir
        self.token = secrets.token_urlsafe(24)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = data_dir.parent / f"{data_dir.name}.log"
        self._env = env or {}
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its process id; it must have been started."""
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> None:
        """Starts and waits until it is ready. Raises AssertionError with the end of its log."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Starts and does not wait."""
        env = {
            "PATH": os.environ["PATH"],
            "AUTHSTORE_PORT": str(self.port),
            "AUTHSTORE_DATA_DIR": str(self.data_dir),
            **({"AUTHSTORE_TOKEN": self.token} if self.token else {}),
            **self._env,
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=env, stdout=log, stderr=log, start_new_session=True)

    def kill9(self) -> None:
        """SIGKILL: nothing is flushed, nothing is said."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """After ``kill9`` or ``stop``: the same port, token and data."""
        self.start()

    def stop(self) -> None:
        """SIGTERM, and its exit code must be 0."""
        if self._process is not None:
            assert self._end(signal.SIGTERM) == 0, self._tail()

    def wait(self, within_s: float) -> int:
        """The exit code of one that was told to end, or ends by itself. Raises TimeoutExpired."""
        assert self._process is not None, "not started"
        code = self._process.wait(within_s)
        self._process = None
        return code

    def call(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> Any:
        """The JSON answer of a call that must succeed."""
        status, answer = self.ask(method, path, body, headers)
        assert status < 300, f"{method} {path.rsplit('/', maxsplit=1)[-1]}: {status}"
        return answer

    def ask(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and JSON of any answer."""
        request = urllib.request.Request(self.url + path, method=method)
        request.add_header("Authorization", f"Bearer {self.token}")
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        if body is not None:
            request.add_header("Content-Type", "application/json")
            request.data = json.dumps(body).encode()
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, _json(response.read())
        except urllib.error.HTTPError as refused:
            return refused.code, _json(refused.read())

    def _end(self, how: signal.Signals) -> int:
        assert self._process is not None, "not started"
        self._process.send_signal(how)
        code = self._process.wait(_STOP_WITHIN_S)
        self._process = None
        return code

    def wait_ready(self) -> None:
        """Returns once it is ready. Raises AssertionError with the end of its log."""
        process = self._process
        assert process is not None, "not started"
        deadline = time.monotonic() + _READY_WITHIN_S
        while time.monotonic() < deadline:
            assert process.poll() is None, f"the service ended with {process.returncode}:\n{self._tail()}"
            if _is_ready(f"{self.url}/health/ready"):
                return
            time.sleep(0.05)
        raise AssertionError(f"the service was not ready in {_READY_WITHIN_S} s:\n{self._tail()}")

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _json(body: bytes) -> Any:
    return json.loads(body) if body else None
