"""Is an answer a promise kept? WAL fsyncs against acknowledged commits, one after the other.

A commit that waited for nobody needs a flush of its own before its answer, so there are at least as many fsyncs as
answers. A server with fsync or synchronous_commit off answers many times a flush: the control that this sees it.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.sql import Sql
from bench.stores import Contestant
from bench.worker import Worker

COMMITS: Final = 150
_GONE_S: Final = 15.0
_FSYNCS: Final = (
    "SELECT coalesce(sum(fsyncs), 0)::bigint AS n FROM pg_stat_io WHERE object = 'wal' AND context = 'normal'"
)
# A backend's counts are only certain to be told when it ends.
_END: Final = (
    "SELECT count(pg_terminate_backend(pid)) AS n FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()"
)
_LEFT: Final = "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()"


@dataclass(frozen=True, slots=True)
class Proof:
    """Acknowledged commits and the WAL fsyncs of the same moments."""

    commits: int
    fsyncs: int

    @property
    def holds(self) -> bool:
        return self.fsyncs >= self.commits


def prove(contestant: Contestant, log: Path, commits: int = COMMITS) -> Proof | None:
    """A store over Postgres, in a process of its own while nothing else runs; None for other stores."""
    statements = contestant.statements
    if statements is None:
        return None
    sql, database = statements.sql, statements.database
    with Worker(log) as worker:
        worker.ask("make", store="proof", kind=contestant.kind, settings=contestant.settings)
        worker.ask("fill", store="proof", keys=20)
        worker.ask("prepare", store="proof", workload="w2", n=commits)
        before = _told(sql, database)
        answered = len(worker.ask("run")["took"])
        worker.ask("finish")
        after = _told(sql, database)
    return Proof(answered, after - before)


def _told(sql: Sql, database: str) -> int:
    """WAL fsyncs so far, everybody's: whoever is connected to the database is sent away and comes back."""
    sql.row(_END, database)
    deadline = time.monotonic() + _GONE_S
    while sql.row(_LEFT, database)["n"] and time.monotonic() < deadline:
        time.sleep(0.02)
    return int(sql.row(_FSYNCS)["n"])
