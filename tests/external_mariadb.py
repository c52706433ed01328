"""A MariaDB of a test's own: it listens on the loopback, and can follow another one."""

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiomysql
import pymysql
from peers import missing

_START_S = 60


class ExternalMariadb:
    """A context manager; root has no password. ``settings`` go on its command line, like ``{"read-only": "1"}``."""

    def __init__(self, folder: Path, number: int, settings: dict[str, str] | None = None) -> None:
        self._data = folder / f"maria{number}"
        self._log = folder / f"maria{number}.log"
        self._settings = {"server-id": str(number), "log-bin": "bin"} | (settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])

    def url(self, database: str, user: str = "root") -> str:
        return f"mysql://{user}@127.0.0.1:{self.port}/{database}"

    def __enter__(self) -> Self:
        install, server = (
            shutil.which("mariadb-install-db"),
            shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin"),
        )
        if install is None or server is None:
            missing("mariadbd and mariadb-install-db")
        user = pwd.getpwuid(os.geteuid()).pw_name
        command = [install, "--no-defaults", f"--user={user}", f"--datadir={self._data}"]
        command += ["--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(command, check=True, capture_output=True)
        fixed = {"datadir": str(self._data), "socket": str(self._data / "s"), "pid-file": str(self._data / "pid")}
        fixed |= {"port": str(self.port), "bind-address": "127.0.0.1", "innodb-buffer-pool-size": "16M", "user": user}
        words = [f"--{name}={value}" for name, value in (fixed | self._settings).items()]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([server, "--no-defaults", *words], stdout=log, stderr=log)
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.1)
        raise AssertionError(self._log.read_text())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)

    async def run(self, *statements: str, database: str | None = None) -> Any:
        """The last one's rows."""
        connection = await aiomysql.connect(
            host="127.0.0.1", port=self.port, user="root", db=database, charset="utf8mb4", autocommit=True
        )
        try:
            async with connection.cursor() as cursor:
                for statement in statements:
                    await cursor.execute(statement)
                return await cursor.fetchall()
        finally:
            connection.close()

    async def follow(self, other: "ExternalMariadb") -> None:
        """Begins to replicate the other."""
        await self.run(
            f"CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={other.port}, MASTER_USER='root',"
            " MASTER_USE_GTID=slave_pos",
            "START SLAVE",
        )

    async def until_there(self, database: str, statement: str) -> None:
        """Until the statement has rows here."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                if await self.run(statement, database=database):
                    return
            except pymysql.err.MySQLError:
                pass
            await asyncio.sleep(0.1)
        raise AssertionError("nothing arrived")
