"""w8 by a service that does nothing beside keeping: what of its goals is within reach of any, on the machine it runs on.

Our client as shipped drives both, `servers.hollow` and the service, in the same interleaved rounds as `direct` and the library
that most people use. A goal that the hollow service misses is out of reach of whatever is written in its place.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from bench.figures import GOALS, Goal, Slice, drift, figure, measured
from bench.servers.hollow import Hollow
from bench.side_by_side import CROWD, rotated
from bench.stores import AGAIN, DIRECT, OURS, Contestant, line_up
from bench.worker import Worker

_W8: Final = "w8"
_LIBRARY: Final = "postgres-baileys"
HOLLOW: Final = "hollow"
_STORES: Final = (DIRECT, _LIBRARY, OURS, AGAIN)
_OPERATIONS: Final = 75  # a session and turn
_BUDGET_MS: Final = 1000
_TURNS: Final = 3  # a round


def measure(folder: Path, say: Callable[[str], None], *, rounds: int = 5, tiny: bool = False) -> dict[str, Any]:
    """store -> its figure at w8, and how far `direct` measured twice differs; for JSON."""
    n, crowd, turns = (2, 3, 1) if tiny else (_OPERATIONS, CROWD, (1 if tiny else rounds) * _TURNS)
    with line_up(folder, _STORES) as start, Worker(folder / "worker.log") as worker:
        url = next(c for c in start.contestants if c.name == DIRECT).settings["url"]
        with Hollow(url) as hollow:
            start.contestants.insert(-1, _contestant(hollow))
            if not tiny:
                start.season(say)
            for contestant in start.contestants:
                worker.ask("make", store=contestant.name, kind=contestant.kind, settings=contestant.settings)
                _turn(worker, contestant, n, crowd)
            slices: dict[str, list[Slice]] = {contestant.name: [] for contestant in start.contestants}
            for number in range(turns):
                say(f"a hollow service: turn {number + 1} of {turns}")
                for contestant in rotated(start.contestants, number):
                    slices[contestant.name].append(_turn(worker, contestant, n, crowd))
            for contestant in start.contestants:
                worker.ask("end", store=contestant.name)
    stores = {name: figure(_W8, slices, name).as_json() for name in slices}
    return {"stores": stores, "drift": round(drift(_W8, slices), 4)}


def _contestant(hollow: Hollow) -> Contestant:
    return Contestant(HOLLOW, "hollow", "client", {"url": hollow.url, "token": "of-nobody"}, "yes")


def _turn(worker: Worker, contestant: Contestant, n: int, crowd: int) -> Slice:
    worker.ask("prepare", store=contestant.name, workload=_W8, n=n, crowd=crowd)
    contestant.wait()
    answer = worker.ask("run", budgetMs=_BUDGET_MS)
    worker.ask("finish")
    contestant.wait()
    return Slice(answer["took"], answer["seconds"])


def markdown(results: Mapping[str, Any]) -> str:
    """Each goal of w8 beside what the hollow service and ours reach."""
    stores = results["stores"]
    rows = [
        "| of w8 | goal | a hollow service | ours | |",
        "|---|---|---|---|---|",
        *(_row(goal, stores) for goal in GOALS if goal.workload == _W8 and goal.rival in stores),
    ]
    rates = ", ".join(f"{name} {found['per_second']:,.0f}/s" for name, found in stores.items() if name != AGAIN)
    said = (
        f"Transactions/s: {rates}. `direct`, measured twice, differs by {results['drift'] - 1:.0%}. The hollow service writes "
        "each request's body into Postgres' log, waits for its fsync and answers: no reading, no rows, no sealing, no lease."
    )
    return "\n".join([*rows, "", said])


def _row(goal: Goal, stores: Mapping[str, Mapping[str, float]]) -> str:
    hollow, ours = (measured(goal, stores, name) for name in (HOLLOW, OURS))
    wanted = f"{'≤' if goal.at_most else '≥'} {goal.bound:g}"
    what = {"per_second": "transactions/s", "p99_ms": "p99"}[goal.measure]
    verdict = "reached" if goal.reached(ours) else "within reach" if goal.reached(hollow) else "out of reach"
    return f"| {what}, of {goal.rival} | {wanted} | {hollow:.2f} | {ours:.2f} | {verdict} |"
