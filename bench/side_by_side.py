"""The interleaved run: every store does every workload in every round, in an order that rotates."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from bench import counters
from bench.figures import TOLERANCE, WORKLOADS, Slice, drift
from bench.stores import AGAIN, DIRECT, Contestant, Field
from bench.worker import Worker, WorkFailed

T = TypeVar("T")

CROWD: Final = 32


@dataclass(frozen=True, slots=True)
class Share:
    """A workload's share of a round: at most ``most`` operations (w8: a session) and ``budget_ms``, ``least`` for sure."""

    most: int
    budget_ms: float
    counted: int
    least: int = 3


SHARES: Final = {
    "w1": Share(400, 200, 30),
    "w2": Share(300, 250, 30),
    "w3": Share(5, 400, 2),
    "w4": Share(200, 300, 30),
    "w5": Share(6, 400, 2),
    "w6": Share(4, 400, 2, least=2),
    "w7": Share(300, 200, 30),
    "w8": Share(60, 1000, 4),
    "w9": Share(4, 400, 2, least=2),
}
# Enough to see that everything runs, and for nothing else.
TINY: Final = {
    workload: Share(4, 200, 2, least=1) if workload in {"w1", "w2", "w4", "w7"} else Share(1, 200, 1, least=1)
    for workload in WORKLOADS
}


@dataclass(slots=True)
class Outcome:
    """``rounds``: workload -> store -> slices; ``costs``: store -> workload -> what an operation takes; ``drifts``: A/A."""

    rounds: dict[str, dict[str, list[Slice]]]
    costs: dict[str, dict[str, dict[str, float]]]
    examined: dict[str, dict[str, bool]]
    drifts: dict[str, float]

    @property
    def void(self) -> list[str]:
        """Workloads whose A/A pair says that they say nothing."""
        return [workload for workload, drifted in self.drifts.items() if drifted > TOLERANCE]


class Race:
    """``say`` hears of progress. ``rounds`` a workload; one that is void is repeated whole, at most ``repeats`` times."""

    def __init__(
        self,
        worker: Worker,
        start: Field,
        say: Callable[[str], None],
        *,
        shares: Mapping[str, Share] = SHARES,
        rounds: int = 5,
        repeats: int = 2,
    ) -> None:
        self._worker = worker
        self._field = start
        self._say = say
        self._shares = shares
        self._rounds = rounds
        self._repeats = repeats
        self._plan: dict[tuple[str, str], int] = {}

    def run(self) -> Outcome:
        examined = self._make()
        costs = self._count()
        rounds: dict[str, dict[str, list[Slice]]] = {}
        drifts: dict[str, float] = {}
        for place, workload in enumerate(self._shares):
            for attempt in range(self._repeats + 1):
                self._say(f"{workload} {WORKLOADS[workload]}{', again' * bool(attempt)}")
                rounds[workload] = self._race(workload, place)
                drifts[workload] = self._drift(workload, rounds[workload])
                if drifts[workload] <= TOLERANCE:
                    break
        return Outcome(rounds, costs, examined, drifts)

    def _make(self) -> dict[str, dict[str, bool]]:
        """Opens and fills every store; one that fails is left out with its error."""
        examined = {}
        for contestant in list(self._field.contestants):
            name = contestant.name
            self._say(f"filling {name}")
            try:
                self._worker.ask("make", store=name, kind=contestant.kind, settings=contestant.settings)
                examined[name] = self._worker.ask("examine", store=name)
                self._worker.ask("fill", store=name, crowd=CROWD)
            except WorkFailed as failed:
                self._field.contestants.remove(contestant)
                self._field.left_out[contestant.label] = str(failed)
        return examined

    def _count(self) -> dict[str, dict[str, dict[str, float]]]:
        """What operations take; also warms everything up and learns how many fit into a share."""
        costs: dict[str, dict[str, dict[str, float]]] = {c.name: {} for c in self._field.contestants}
        counters.switch(self._field.servers, on=True)
        for contestant in self._field.contestants:
            self._say(f"counting {contestant.name}")
            for workload, share in self._shares.items():
                warm = self._prepared(contestant, workload, share.counted)()
                self._plan[contestant.name, workload] = _fitting(workload, share, warm)
                run = self._prepared(contestant, workload, share.counted)
                before = counters.read_all(contestant.counters)
                took = run(finish=False).took
                after = counters.read_all(contestant.counters)
                self._worker.ask("finish")
                costs[contestant.name][workload] = counters.per_operation(before, after, len(took))
                if contestant.afterwork is not None:
                    costs[contestant.name][workload] |= self._later(contestant, after, len(took))
        counters.switch(self._field.servers, on=False)
        return costs

    def _later(self, contestant: Contestant, answered: Mapping[str, int], operations: int) -> dict[str, float]:
        """What follows when all is answered: of large commits, their rows."""
        contestant.wait()
        found = counters.per_operation(answered, counters.read_all(contestant.counters), operations)
        return {f"later_{name}": found[name] for name in ("statements", "wal_bytes") if found.get(name, 0) > 0}

    def _race(self, workload: str, place: int) -> dict[str, list[Slice]]:
        share = self._shares[workload]
        slices: dict[str, list[Slice]] = {c.name: [] for c in self._field.contestants}
        for number in range(self._rounds):
            for contestant in _rotated(self._field.contestants, number + place):
                n = self._plan[contestant.name, workload]
                run = self._prepared(contestant, workload, n)
                slices[contestant.name].append(run(least=share.least, budgetMs=share.budget_ms))
        return slices

    def _prepared(self, contestant: Contestant, workload: str, n: int) -> Callable[..., Slice]:
        self._worker.ask("prepare", store=contestant.name, workload=workload, n=n, crowd=CROWD)
        contestant.wait()

        def run(*, finish: bool = True, **limits: Any) -> Slice:
            answer = self._worker.ask("run", **limits)
            if finish:
                self._worker.ask("finish")
                contestant.wait()
            return Slice(answer["took"], answer["seconds"])

        return run

    def _drift(self, workload: str, rounds: Mapping[str, Sequence[Slice]]) -> float:
        return drift(workload, rounds) if {DIRECT, AGAIN} <= rounds.keys() else 1.0


def _fitting(workload: str, share: Share, warm: Slice) -> int:
    """How many operations (w8: a session) fit into the share, a third more than seems so: the first ones were cold."""
    each = 1000 * warm.seconds / len(warm.took) * CROWD if workload == "w8" else statistics.median(warm.took)
    return max(share.least, min(share.most, int(share.budget_ms / each * 1.33)))


def _rotated(contestants: Sequence[Contestant], by: int) -> list[Contestant]:
    """Each starts once, and `direct` and its twin stand far apart."""
    twin = [c for c in contestants if c.name == AGAIN]
    others = [c for c in contestants if c.name != AGAIN]
    middle = (next((n for n, c in enumerate(others) if c.name == DIRECT), 0) + len(others) // 2) % (len(others) + 1)
    ordered = others[:middle] + twin + others[middle:]
    return rotated(ordered, by)


def rotated(turns: Sequence[T], by: int) -> list[T]:
    """The same turns, begun so many later."""
    by %= len(turns) or 1
    return [*turns[by:], *turns[:by]]
