"""A Postgres that is not the service's own: it listens on the loopback and outlives whoever uses it.

The programs and the account are those of the embedded one; its settings are the test's.
"""

import os
import secrets
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from service.embedded import account, binaries, launch

_START_S = 30


class ExternalPostgres:
    """A context manager; ``url`` once it has started. ``settings`` go on its command line, like ``{"fsync": "off"}``."""

    def __init__(self, folder: Path, settings: dict[str, str] | None = None) -> None:
        self._data = folder / "data"
        self._account = account.for_data(self._data)
        self._programs = binaries.find(self._account, folder, None)
        self._settings = settings or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._password = secrets.token_urlsafe(12)

    @property
    def url(self) -> str:
        """Its URL, as a superuser."""
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        """The URL of a proxy before it."""
        return f"postgresql://postgres:{self._password}@127.0.0.1:{port}/postgres?sslmode=disable"

    def __enter__(self) -> Self:
        self._data.mkdir(mode=0o700, parents=True)
        secret = self._data.with_name("secret")
        secret.write_text(self._password)
        for path in (self._data, secret):
            os.chown(path, self._account.uid, self._account.gid)
        keep = (os.open(self._data, os.O_RDONLY), os.open(secret, os.O_RDONLY))
        try:
            self._make(*keep)
            self._start(keep[0])
        finally:
            for descriptor in keep:
                os.close(descriptor)
        self._wait_listening()
        return self

    def become_standby(self) -> None:
        """Starts it anew as one that waits for another server's log and answers readers meanwhile."""
        self.__exit__(None, None, None)
        (self._data / "standby.signal").touch()
        keep = os.open(self._data, os.O_RDONLY)
        try:
            self._start(keep)
        finally:
            os.close(keep)
        self._wait_listening()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait(30)

    def _make(self, data: int, secret: int) -> None:
        # By descriptor: the folders above belong to the test's user, and the account may not pass them.
        command = [self._programs.program("initdb"), "-D", f"/proc/self/fd/{data}", f"--pwfile=/proc/self/fd/{secret}"]
        command += ["-U", "postgres", "--auth=scram-sha-256", "--no-sync", "--locale=C", "--encoding=UTF8"]
        made = launch.run(self._account, command, keep=(data, secret))
        assert made.returncode == 0, made.stderr

    def _start(self, data: int) -> None:
        fixed = {"listen_addresses": "127.0.0.1", "port": str(self.port), "unix_socket_directories": ""}
        words = [word for name, value in (fixed | self._settings).items() for word in ("-c", f"{name}={value}")]
        command = [self._programs.program("postgres"), "-D", f"/proc/self/fd/{data}", *words]
        with self._log.open("wb") as log:
            self._process = launch.spawn(self._account, command, keep=(data,), output=log)

    def _wait_listening(self) -> None:
        assert self._process is not None
        pid_file = self._data / "postmaster.pid"
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if pid_file.exists() and pid_file.read_text().rstrip().endswith(("ready", "standby")):
                return
            time.sleep(0.05)
        raise AssertionError(self._log.read_text())
