"""Our service, as `authstore serve` runs it."""

import base64
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bench.servers import free_port
from bench.servers.postgres import COUNTING
from bench.sql import Sql
from service.embedded import attach

_COMMAND: Final = (str(Path(sys.executable).parent / "authstore"), "serve")
_START_S: Final = 90.0
_STOP_S: Final = 60.0
_LOOKING_ON = re.compile(rb"/(metrics|health)")
_RENEWALS = re.compile(rb'^authstore_lease_events_total\{event="renewed"\} ([\d.e+]+)$', re.M)
_REQUESTS = re.compile(rb'^authstore_requests_total\{method="\w+",route="([^"]+)",status="\d+"\} ([\d.e+]+)$', re.M)


class Service:
    """On a free port, and a unix socket beside it. Without a database's URL it brings its own Postgres.

    ``command`` stands in for `authstore serve`; ``environ`` is added to what it is given.
    """

    def __init__(
        self,
        folder: Path,
        database_url: str | None = None,
        *,
        workers: int = 1,
        command: Sequence[str] = _COMMAND,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = folder
        self._url = database_url
        self._workers = workers
        self._command = command
        self._more = dict(environ or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._sql: Sql | None = None
        self.token = secrets.token_urlsafe(24)
        self.port = free_port()
        self.socket = folder / "http.sock"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def countable(self) -> bool:
        """Whether its counters are whole: with several processes each answer holds one process's."""
        return self._workers == 1

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def postgres_url(self) -> str:
        """Of its embedded Postgres."""
        url = attach(self._folder / "data")
        if url is None:
            raise RuntimeError("the embedded Postgres does not answer")
        return url

    @property
    def sql(self) -> Sql:
        """A connection to its embedded Postgres."""
        if self._sql is None:
            self._sql = Sql(self.postgres_url)
            self._sql.run("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        return self._sql

    def __enter__(self) -> Self:
        data = self._folder / "data"
        data.mkdir(mode=0o700)
        if self._url is None:
            lines = (f"{name} = '{value}'\n" for name, value in COUNTING.items())
            (data / "postgresql.user.conf").write_text("".join(lines))
        with (self._folder / "service.log").open("wb") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environ(data), stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._answers("/health/ready"):
                return self
            time.sleep(0.05)
        raise RuntimeError(f"the service did not start: {(self._folder / 'service.log').read_text()[-4000:]}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._sql is not None:
            self._sql.close()
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(_STOP_S)

    def requests(self) -> tuple[int, int]:
        """Requests answered so far, but for those of looking on, and how many of them renewed a lease."""
        text = self._get("/metrics")
        counts = [int(float(count)) for route, count in _REQUESTS.findall(text) if not _LOOKING_ON.match(route)]
        renewals = _RENEWALS.search(text)
        return sum(counts), int(float(renewals[1])) if renewals else 0

    def memory(self) -> int:
        """Resident bytes of the serving process."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))

    def _environ(self, data: Path) -> dict[str, str]:
        environ = {
            "PATH": os.environ.get("PATH", os.defpath),
            "AUTHSTORE_PORT": str(self.port),
            "AUTHSTORE_DATA_DIR": str(data),
            "AUTHSTORE_UNIX_SOCKET": str(self.socket),
            "AUTHSTORE_TOKEN": self.token,
            "AUTHSTORE_WORKERS": str(self._workers),
        }
        if self._url is not None:
            environ["AUTHSTORE_DATABASE_URL"] = self._url
            environ["AUTHSTORE_MASTER_KEY"] = base64.b64encode(secrets.token_bytes(32)).decode()
        return environ | self._more

    def _answers(self, path: str) -> bool:
        try:
            self._get(path)
        except OSError:
            return False
        return True

    def _get(self, path: str) -> bytes:
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bytes(answer.read())
