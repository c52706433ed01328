"""A MariaDB with its default settings, for the library that needs MySQL."""

import os
import secrets
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from bench.servers import Missing, free_port
from service.embedded import account

_START_S: Final = 60.0
_STOP_S: Final = 60.0
DATABASE: Final = "bench"
USER: Final = "bench"


class MariaDb:
    """Runs as the account that runs Postgres when we are root, which it refuses as well."""

    def __init__(self, folder: Path) -> None:
        self._server = _program("mariadbd", "mysqld")
        self._installer = _program("mariadb-install-db", "mysql_install_db")
        self._admin = _program("mariadb", "mysql")
        self._folder = folder
        self._data = folder / "mariadb"
        self._account = account.for_data(self._data)
        self._process: subprocess.Popen[bytes] | None = None
        self.password = secrets.token_urlsafe(16)
        self.port = free_port()

    @property
    def settings(self) -> dict[str, Any]:
        """How the library is told."""
        who = {"user": USER, "password": self.password, "database": DATABASE}
        return {"host": "127.0.0.1", "port": self.port, **who}

    @property
    def version(self) -> str:
        return self._ask("SELECT version()")

    def __enter__(self) -> Self:
        self._data.mkdir(mode=0o700)
        os.chown(self._data, self._account.uid, self._account.gid)
        first = self._data / "first.sql"
        first.write_text(
            f"CREATE DATABASE {DATABASE};\nCREATE USER '{USER}'@'127.0.0.1' IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL ON *.* TO '{USER}'@'127.0.0.1';\n"
        )
        os.chown(first, self._account.uid, self._account.gid)
        common = ["--no-defaults", f"--datadir={self._data}"]
        with (self._folder / "mariadb.log").open("wb") as log:
            self._run(
                [self._installer, *common, "--skip-test-db", "--auth-root-authentication-method=normal"], log
            ).wait()
            command = [self._server, *common, f"--port={self.port}", "--bind-address=127.0.0.1", "--skip-name-resolve"]
            command += [f"--socket={self._data}/s", f"--pid-file={self._data}/pid", f"--init-file={first}"]
            self._process = self._run(command, log)
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                self._ask("SELECT 1")
            except subprocess.CalledProcessError:
                time.sleep(0.2)
            else:
                return self
        raise RuntimeError(f"MariaDB did not start: {(self._folder / 'mariadb.log').read_text()}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_STOP_S)

    def statements(self) -> int:
        """Statements executed so far, with the one that asks."""
        return int(self._ask("SHOW GLOBAL STATUS LIKE 'Questions'").split()[1])

    def _ask(self, statement: str) -> str:
        command = [self._admin, "--no-defaults", "-N", "-h127.0.0.1", f"-P{self.port}", f"-u{USER}", "-e", statement]
        asked = subprocess.run(
            command, env={"PATH": os.defpath, "MYSQL_PWD": self.password}, check=True, capture_output=True, text=True
        )
        return asked.stdout.strip()

    def _run(self, command: list[str], log: Any) -> subprocess.Popen[bytes]:
        who: dict[str, Any] = {}
        if not self._account.is_self:
            who = {"user": self._account.uid, "group": self._account.gid, "extra_groups": []}
        return subprocess.Popen(
            command, stdout=log, stderr=log, cwd="/", env={"PATH": "/usr/sbin:/usr/bin:/bin"}, **who
        )


def _program(*names: str) -> str:
    for name in names:
        found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        if found is not None:
            return found
    raise Missing(names[0])
