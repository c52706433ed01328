"""The Postgres of the rivals, and of our service as an external database: the programs of our wheel, default settings.

Defaults also mean fsync, full_page_writes and synchronous_commit on. Statement counting is loaded but off until asked.
"""

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bench.servers import free_port
from bench.sql import Sql
from service.embedded import account, binaries, launch

_START_S: Final = 60.0
_STOP_S: Final = 60.0
_SEASONING_MIB: Final = 768
COUNTING: Final = {"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track": "none"}


class Postgres:
    """``folder`` must be enterable for the account that runs it. ``settings`` override the defaults."""

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._data = folder / "pg"
        self._account = account.for_data(self._data)
        self._programs = binaries.find(self._account, folder, None)
        self._settings = COUNTING | dict(settings or {})
        self._password = secrets.token_urlsafe(16)
        self._process: subprocess.Popen[bytes] | None = None
        self._sql: Sql | None = None
        self.port = free_port()

    @property
    def version(self) -> str:
        return self._programs.version

    @property
    def sql(self) -> Sql:
        """A superuser's connection to look on from."""
        if self._sql is None:
            self._sql = Sql(self.url("postgres"))
            self._sql.run("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        return self._sql

    def url(self, database: str) -> str:
        return f"postgresql://postgres:{self._password}@127.0.0.1:{self.port}/{database}?sslmode=disable"

    def database(self, name: str) -> str:
        """Makes a database. Returns its URL."""
        self.sql.run(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def __enter__(self) -> Self:
        self._data.mkdir(mode=0o700)
        secret = self._folder / "password"
        secret.touch(mode=0o600)
        secret.write_text(self._password)
        for path in (self._data, secret):
            os.chown(path, self._account.uid, self._account.gid)
        initdb = [self._programs.program("initdb"), "-D", str(self._data), f"--pwfile={secret}", "-U", "postgres"]
        initdb += ["--auth=scram-sha-256", "--locale=C", "--encoding=UTF8"]
        made = launch.run(self._account, initdb)
        if made.returncode != 0:
            raise RuntimeError(f"initdb: {made.stderr.decode()}")
        with (self._data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in self._settings.items())
        self._start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._sql is not None:
            self._sql.close()
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(_STOP_S)

    def _start(self) -> None:
        command = [self._programs.program("postgres"), "-D", str(self._data), "-p", str(self.port)]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        with (self._folder / "pg.log").open("wb") as log:
            self._process = launch.spawn(self._account, command, keep=(), output=log)
        pid_file = self._data / "postmaster.pid"
        deadline = time.monotonic() + _START_S
        while self._process.poll() is None and time.monotonic() < deadline:
            if pid_file.exists() and pid_file.read_text().rstrip().endswith("ready"):
                return
            time.sleep(0.05)
        raise RuntimeError(f"Postgres did not start: {(self._folder / 'pg.log').read_text()}")


def season(sql: Sql) -> None:
    """Brings a server to where one is that has run for a while: its log goes on in files that a checkpoint let go.

    A new server makes each 16 MiB of it when they are reached: zeros, an fsync, and all commits wait that long.
    """
    sql.run(
        f"SELECT pg_logical_emit_message(false, '', repeat('x', 1 << 20)) FROM generate_series(1, {_SEASONING_MIB})"
    )
    sql.run("CHECKPOINT")
