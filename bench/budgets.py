"""What sealing, fencing and the error tracker cost of w8: the service as shipped beside the service without the thing.

    started ── one Postgres, a database and a service an arm (`reduced` takes out) ── one Node process ── w8, round by round

The tracker goes the other way round: shipped, the service has none, so the arm that has one reports to a `Sink`. Each share
is told by CPU time (of Node, the service and its Postgres backends, a transaction) and by transactions/s, the median of the
rounds with the smallest and the largest. The service as shipped runs twice: what tells that pair apart is noise. `direct` runs
too, since the goal is a multiple of it.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench import cpu
from bench.afterwork import Afterwork
from bench.budget_report import AGAIN, SHIPPED, TRACKED, UNFENCED, UNSEALED, Turn, assemble, least, markdown
from bench.counters import Statements
from bench.servers.postgres import Postgres, season
from bench.servers.service import Service
from bench.servers.sink import Sink
from bench.side_by_side import CROWD, rotated
from bench.sql import Sql
from bench.stores import DIRECT
from bench.worker import Worker

__all__ = ["ARMS", "TINY", "Arm", "Load", "fill", "markdown", "measure", "started"]

# arm -> what `reduced` takes out
REDUCED: Final = {UNSEALED: "sealing", UNFENCED: "fencing"}
ARMS: Final = (SHIPPED, UNSEALED, TRACKED, DIRECT, AGAIN, UNFENCED)  # those that are the same stand apart
# It would run beside one arm or another; every database is cleaned before every round instead.
_SETTINGS: Final = {"autovacuum": "off"}

_ROOT: Final = Path(__file__).parent.parent
# A backend is known by its server: another one on the machine may have a database of the same name.
_BACKENDS: Final = (
    "SELECT array_agg(pid) AS pids FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend'"
)


@dataclass(frozen=True, slots=True)
class Load:
    """An arm's part of a round: ``passes``, each of ``n`` operations a session at most.

    Passes are short and alternate between the arms. On a shared machine one takes up to twice as much as the next; what
    disturbs only ever adds, so that a round's figures are the least of its passes. ``keys``: of the session beside the crowd.
    """

    passes: int = 8
    n: int = 75
    budget_ms: float = 1000
    crowd: int = CROWD
    keys: int = 1127


TINY: Final = Load(passes=1, n=2, crowd=3, keys=20)


@dataclass(frozen=True, slots=True)
class Arm:
    """A service under measurement, or none (`direct`), and how to see what its database does."""

    name: str
    service: Service | None
    url: str
    server: Sql

    def drive(self, worker: Worker, load: Load) -> Turn:
        """One turn at w8; everything it needs is made before. What a burst leaves to become rows is part of its CPU time."""
        worker.ask("prepare", store=self.name, workload="w8", n=load.n, crowd=load.crowd)
        self._wait()
        before = self._spent(worker)
        answer = worker.ask("run", budgetMs=load.budget_ms)
        self._wait()
        after = self._spent(worker)
        worker.ask("finish")
        done = len(answer["took"])
        costs = (cpu.between(*pair) / 1000 / done for pair in zip(before, after, strict=True))
        return Turn(answer["seconds"] * 1_000_000 / done, *costs)

    def _wait(self) -> None:
        if self.service is not None:
            Afterwork(Statements(self.server, self.name, self.url)).wait()

    def clean(self) -> None:
        """What autovacuum would do."""
        sql = Sql(self.url)
        sql.run("VACUUM (ANALYZE)")
        sql.close()

    def _spent(self, worker: Worker) -> list[cpu.Spent]:
        backends = self.server.row(_BACKENDS, self.name)["pids"] or []
        services = [] if self.service is None else [self.service.pid]
        return [cpu.spent(pids) for pids in ([worker.pid], services, backends)]


def measure(folder: Path, say: Callable[[str], None], *, rounds: int = 7, tiny: bool = False) -> dict[str, Any]:
    """Starts everything below ``folder``, runs the rounds, and tells the shares; for JSON. ``tiny``: does it run?"""
    load, rounds = (TINY, 1) if tiny else (Load(), rounds)
    turns: dict[str, list[Turn]] = {name: [] for name in ARMS}
    with started(folder, say) as arms, Worker(folder / "worker.log") as worker:
        if not tiny:
            season(arms[DIRECT].server)
        for arm in arms.values():
            say(f"filling {arm.name}")
            fill(worker, arm, load)
            arm.drive(worker, load)  # warms it up
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            for name, turn in _round(worker, arms, load, number).items():
                turns[name].append(turn)
    return assemble(turns)


def _round(worker: Worker, arms: Mapping[str, Arm], load: Load, number: int) -> dict[str, Turn]:
    for arm in arms.values():
        arm.clean()
    passes: dict[str, list[Turn]] = {name: [] for name in arms}
    for place in range(load.passes):
        for name in rotated(ARMS, number + place):
            passes[name].append(arms[name].drive(worker, load))
    return {name: least(turns) for name, turns in passes.items()}


@contextmanager
def started(folder: Path, say: Callable[[str], None], sink: Sink | None = None) -> Iterator[dict[str, Arm]]:
    """Every arm's service, on one Postgres. Everything stops at the end."""
    with ExitStack() as stack:
        sink = sink or stack.enter_context(Sink())
        postgres = stack.enter_context(Postgres(_room(folder, "postgres"), _SETTINGS))
        arms = {}
        for name in ARMS:
            say(f"starting {name}")
            url = postgres.database(name)
            service = None if name == DIRECT else stack.enter_context(_service(_room(folder, name), name, url, sink))
            arms[name] = Arm(name, service, url, postgres.sql)
        yield arms


def _service(room: Path, name: str, url: str, sink: Sink) -> Service:
    if name in REDUCED:
        command = [sys.executable, "-m", "bench.reduced", REDUCED[name], "serve"]
        return Service(room, url, command=command, environ={"PYTHONPATH": str(_ROOT)})
    return Service(room, url, environ={"SENTRY_DSN": sink.dsn} if name == TRACKED else None)


def fill(worker: Worker, arm: Arm, load: Load) -> None:
    """Makes the arm known to the worker, and its sessions."""
    if arm.service is None:
        worker.ask("make", store=arm.name, kind=DIRECT, settings={"url": arm.url})
    else:
        settings = {"url": arm.service.url, "token": arm.service.token}
        worker.ask("make", store=arm.name, kind="client", settings=settings)
    worker.ask("fill", store=arm.name, keys=load.keys, crowd=load.crowd)


def _room(folder: Path, name: str) -> Path:
    room = folder / name
    room.mkdir(mode=0o755)
    return room
