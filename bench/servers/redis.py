"""A Redis with an append-only file, fsynced always or every second."""

import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from bench.servers import Missing, free_port

_START_S: Final = 20.0
_STOP_S: Final = 30.0


class Redis:
    """``fsync`` as Redis calls it; snapshots are off."""

    def __init__(self, folder: Path, fsync: Literal["always", "everysec"]) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise Missing("redis-server")
        self._program = program
        self._folder = folder
        self._fsync = fsync
        self._password = secrets.token_urlsafe(16)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self.port}"

    @property
    def version(self) -> str:
        return self.info("server")["redis_version"]

    def __enter__(self) -> Self:
        lines = ["bind 127.0.0.1", f"port {self.port}", f"dir {self._folder}", 'save ""', "appendonly yes"]
        lines += [f"appendfsync {self._fsync}", f"requirepass {self._password}"]
        with (self._folder / "redis.log").open("wb") as log:
            process = subprocess.Popen([self._program, "-"], stdin=subprocess.PIPE, stdout=log, stderr=log)
        assert process.stdin is not None
        process.stdin.write("\n".join(lines).encode())
        process.stdin.close()
        self._process = process
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and process.poll() is None:
            try:
                self.info("server")
            except OSError:
                time.sleep(0.05)
            else:
                return self
        raise RuntimeError(f"Redis did not start: {(self._folder / 'redis.log').read_text()}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_STOP_S)

    def info(self, section: str) -> dict[str, str]:
        """What INFO says of a section."""
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection,
            connection.makefile("rb") as file,
        ):
            connection.sendall(f"AUTH {self._password}\r\nINFO {section}\r\n".encode())
            if not file.readline().startswith(b"+OK"):
                raise OSError("Redis refused")
            text = file.read(int(file.readline()[1:])).decode()
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)

    def commands(self) -> int:
        """Commands executed so far, inside transactions too, but for those of looking on."""
        own = {"cmdstat_auth", "cmdstat_info"}
        stats = {name: value for name, value in self.info("commandstats").items() if name not in own}
        return sum(int(value.split("calls=")[1].split(",")[0]) for value in stats.values())
