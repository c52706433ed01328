"""Medians, ratios and their ranges, and when a run says nothing."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from bench.stores import AGAIN, DIRECT, OURS

# workload -> (what it does, whether it is told in operations a second)
WORKLOADS: Final = {
    "w1": "get 1 session",
    "w2": "set 1 session",
    "w3": "first login: set 812 pre-keys",
    "w4": "receive: get 1 + 1, set 2",
    "w5": "group send: get 256, set 256",
    "w6": "load 1,127 keys + creds",
    "w7": "saveCreds",
    "w8": "32 sessions receive: transactions/s",
    "w9": "restart: read creds + 1,127 keys",
}
BY_RATE: Final = frozenset({"w8"})
# The largest difference between the same store measured twice; beyond it a run says nothing.
TOLERANCE: Final = 1.15


@dataclass(frozen=True, slots=True)
class Slice:
    """One store's turn at one workload in one round: each operation's time in ms, and all of it in seconds."""

    took: Sequence[float]
    seconds: float

    def speed(self, workload: str) -> float:
        """What is compared: the median in ms, or operations a second."""
        return len(self.took) / self.seconds if workload in BY_RATE else statistics.median(self.took)


@dataclass(frozen=True, slots=True)
class Figure:
    """A store at a workload. ``ratio`` to `direct`: the median of the rounds' ratios, with the smallest and largest.

    ``p99_ms`` needs a hundred operations; with fewer it is the slowest one.
    """

    p50_ms: float
    p99_ms: float
    per_second: float
    operations: int
    ratio: float
    ratio_low: float
    ratio_high: float

    def as_json(self) -> dict[str, Any]:
        return {name: round(value, 4) for name, value in asdict(self).items()}


Rounds = Mapping[str, Sequence[Slice]]  # store -> one slice a round


def ratios(workload: str, rounds: Rounds, store: str) -> list[float]:
    """The store to `direct`, round by round: both ran within moments of each other."""
    pairs = zip(rounds[store], rounds[DIRECT], strict=True)
    return [mine.speed(workload) / theirs.speed(workload) for mine, theirs in pairs]


def figure(workload: str, rounds: Rounds, store: str) -> Figure:
    """Over all rounds."""
    took = sorted(ms for part in rounds[store] for ms in part.took)
    to_direct = ratios(workload, rounds, store)
    return Figure(
        p50_ms=statistics.median(took),
        p99_ms=took[min(len(took) - 1, int(len(took) * 0.99))],
        per_second=statistics.median(len(part.took) / part.seconds for part in rounds[store]),
        operations=len(took),
        ratio=statistics.median(to_direct),
        ratio_low=min(to_direct),
        ratio_high=max(to_direct),
    )


def drift(workload: str, rounds: Rounds) -> float:
    """How far the same store measured twice differs from itself: 1 is not at all."""
    middle = statistics.median(ratios(workload, rounds, AGAIN))
    return max(middle, 1 / middle)


@dataclass(frozen=True, slots=True)
class Goal:
    """``ours`` at a workload, in ratio to a rival. ``at_most`` or else at least."""

    workload: str
    rival: str
    bound: float
    at_most: bool
    measure: str = "p50_ms"

    def reached(self, value: float) -> bool:
        return value <= self.bound if self.at_most else value >= self.bound


_TO_DIRECT: Final = {"w1": 0.08, "w2": 1.3, "w3": 0.6, "w4": 0.9, "w5": 0.6, "w6": 0.6, "w7": 1.3, "w9": 0.4}
GOALS: Final = (
    *(Goal(workload, DIRECT, bound, at_most=True) for workload, bound in _TO_DIRECT.items()),
    Goal("w8", DIRECT, 3.0, at_most=False, measure="per_second"),
    Goal("w8", DIRECT, 0.3, at_most=True, measure="p99_ms"),
    Goal("w8", "redis-best", 1.1, at_most=False, measure="per_second"),
    Goal("w3", "postgres-baileys", 1 / 15, at_most=True),
    Goal("w6", "postgres-baileys", 1 / 9, at_most=True),
    Goal("w8", "postgres-baileys", 4.0, at_most=False, measure="per_second"),
    Goal("w9", "postgres-baileys", 1 / 12, at_most=True),
)


def measured(goal: Goal, stores: Mapping[str, Mapping[str, float]], name: str) -> float:
    """What a store's figure is to the rival's, as the goal counts; ``stores``: store -> a figure of its workload as JSON."""
    mine, theirs = stores[name], stores[goal.rival]
    by_round = goal.rival == DIRECT and goal.measure != "p99_ms"
    return mine["ratio"] if by_round else mine[goal.measure] / theirs[goal.measure]


def judge(stores: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[dict[str, Any]]:
    """Each goal with what came out; ``stores``: store -> workload -> a figure as JSON."""
    verdicts = []
    for goal in GOALS:
        of = {name: found[goal.workload] for name, found in stores.items() if goal.workload in found}
        if {OURS, goal.rival} <= of.keys():
            value = measured(goal, of, OURS)
            verdicts.append({**asdict(goal), "value": round(value, 4), "reached": goal.reached(value)})
    return verdicts
