"""The leak scene: a real service over its real Postgres, and every kind of failure with marked secrets in flight.

What the service let out is gathered as `Evidence`. Failures that need somebody inside are asked for by a session's name
(`leak_scene_service`); all others are made from outside: rows changed behind its back, constraints, kills, bad bytes.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from leak_scene_faults import Faults
from leak_scene_ingest import SentryIngest
from leak_scene_marks import MASTER, NEXT_MASTER, WRONG_MASTER, Marked
from service_process import ServiceProcess

from service.embedded import binaries, running

SERVICE = Path(__file__).with_name("leak_scene_service.py")
# What the control lets Postgres say, which the service's own settings forbid.
_TALKATIVE = "log_error_verbosity = verbose\nlog_min_error_statement = error\n"


@dataclass
class Evidence:
    """Everything the service let out, by where it would be read; ``statuses`` by kind of failure."""

    statuses: dict[str, list[int | None]] = field(default_factory=dict)
    reports: list[bytes] = field(default_factory=list)
    log: bytes = b""
    postgres_log: bytes = b""
    command_line: bytes = b""
    error_bodies: bytes = b""
    metrics: bytes = b""
    dump: bytes = b""

    def told(self) -> dict[str, bytes]:
        """What people and programs read beside the database."""
        return {
            "reports": b"\n".join(self.reports),
            "log": self.log,
            "Postgres' log": self.postgres_log,
            "command line": self.command_line,
            "error bodies": self.error_bodies,
            "metrics": self.metrics,
        }

    def events(self) -> list[dict]:
        """The events among the reports."""
        lines = [line for report in self.reports for line in report.splitlines() if line.startswith(b'{"')]
        return [event for event in map(json.loads, lines) if "exception" in event]


class SceneService(ServiceProcess):
    """The service of the scene."""

    def __init__(self, data_dir: Path, seed: str, how: str, dsn: str) -> None:
        marked = Marked(seed)
        super().__init__(data_dir)
        self.token = marked.token()
        self.how = how
        self.command = [sys.executable, str(SERVICE), seed, how]
        self.env = {
            "PATH": os.environ["PATH"],
            "AUTHSTORE_PORT": str(self.port),
            "AUTHSTORE_DATA_DIR": str(data_dir),
            "AUTHSTORE_TOKEN": self.token,
            "AUTHSTORE_MASTER_KEY": marked.master(MASTER),
            "AUTHSTORE_MAX_BODY_MB": "1",
            "AUTHSTORE_REQUEST_TIMEOUT_S": "1",
            "AUTHSTORE_LOG_FORMAT": "json",
            "AUTHSTORE_LOG_LEVEL": "debug",
            "SENTRY_DSN": dsn,
        }

    def launch(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.command, "serve"], env=self.env, stdout=log, stderr=log, start_new_session=True
            )

    def run(self, *arguments: str, **env: str) -> tuple[int, bytes]:
        """Another command on the same data: its exit code and all it says."""
        done = subprocess.run(
            [*self.command, *arguments], env=self.env | env, capture_output=True, timeout=120, check=False
        )
        return done.returncode, done.stdout + done.stderr


def play(folder: Path, seed: str, how: str) -> Evidence:
    """The whole scene, ``scrubbed`` or ``plain``, in a data folder of its own."""
    marked, evidence, data_dir = Marked(seed), Evidence(), folder / "data"
    data_dir.mkdir(mode=0o700)
    if how == "plain":
        (data_dir / "postgresql.user.conf").write_text(_TALKATIVE)
    with SentryIngest() as ingest:
        service = SceneService(data_dir, seed, how, ingest.dsn)
        with service:
            faults = Faults(service, marked)
            evidence.statuses = faults.make_all()
            evidence.error_bodies = b"\n".join(faults.error_bodies)
            evidence.metrics = faults.metrics()
            rotation = service.run("key", "rotate", AUTHSTORE_MASTER_KEY=_ring(marked, NEXT_MASTER, MASTER))
        refusals = _refusals(service, marked)
        evidence.reports = ingest.received
    evidence.statuses |= {"rotation with a broken data key": [rotation[0]]} | {
        kind: [code] for kind, (code, _) in refusals.items()
    }
    evidence.command_line = b"\n".join([rotation[1], *(said for _, said in refusals.values())])
    evidence.log = service.log.read_bytes()
    logs = [data_dir / "start.log", *(data_dir / "pg" / "log").iterdir()]
    evidence.postgres_log = b"\n".join(path.read_bytes() for path in logs)
    evidence.dump = dumped(data_dir)
    return evidence


def dumped(data_dir: Path) -> bytes:
    """The database as pg_dump writes it."""
    program = str(Path(binaries._of_wheel()) / "pg_dump")
    with running(data_dir) as url:
        return subprocess.run([program, url], capture_output=True, check=True, timeout=120).stdout


def data_files(data_dir: Path) -> dict[str, bytes]:
    """Every file of the data folder, Postgres' own and its write-ahead log among them, by its path."""
    files = [path for path in data_dir.rglob("*") if path.is_file()]
    return {str(path.relative_to(data_dir)): path.read_bytes() for path in files}


def _ring(marked: Marked, *numbers: int) -> str:
    return " ".join(map(marked.master, numbers))


def _refusals(service: SceneService, marked: Marked) -> dict[str, tuple[int, bytes]]:
    """Commands that must fail, by kind: their exit codes and what they say."""
    wrong = {"AUTHSTORE_MASTER_KEY": marked.master(WRONG_MASTER)}
    return {
        "wrong master key at start": service.run("serve", **wrong),
        "wrong master key for a command": service.run("key", "rotate", **wrong),
        "a master key that is none": service.run("serve", AUTHSTORE_MASTER_KEY=marked.master(MASTER)[:-5]),
        "a token that is none": service.run("serve", AUTHSTORE_TOKEN=f"{marked.token()} {marked.token()}"),
        "a variable nobody knows": service.run("serve", AUTHSTORE_TOKN=marked.token()),
        "an unknown session": service.run(
            "sessions", "show", marked.session("none"), AUTHSTORE_MASTER_KEY=_ring(marked, NEXT_MASTER, MASTER)
        ),
    }
