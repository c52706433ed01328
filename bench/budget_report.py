"""Shares of w8 by round, as JSON and as a table."""

import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any, Final

from bench.stores import DIRECT

SHIPPED: Final = "shipped"
AGAIN: Final = "shipped-again"
TRACKED: Final = "tracked"
UNSEALED: Final = "unsealed"
UNFENCED: Final = "unfenced"

PLACES: Final = ("node", "service", "database")


@dataclass(frozen=True, slots=True)
class Budget:
    """A thing's share of w8: of what the arm with it takes, what the arm without it does not."""

    what: str
    goal: float
    having: str
    lacking: str


BUDGETS: Final = (
    Budget("sealing", 0.05, SHIPPED, UNSEALED),
    Budget("error tracker", 0.03, TRACKED, SHIPPED),
    Budget("fencing, version and digests", 0.15, SHIPPED, UNFENCED),
)


@dataclass(frozen=True, slots=True)
class Turn:
    """What a transaction took in an arm, in microseconds: by the clock, and of CPU in each place."""

    clock: float
    node: float
    service: float
    database: float

    @property
    def total(self) -> float:
        """CPU of all places."""
        return self.node + self.service + self.database

    @property
    def per_second(self) -> float:
        return 1_000_000 / self.clock


Turns = Mapping[str, Sequence[Turn]]  # arm -> one turn a round


def least(turns: Sequence[Turn]) -> Turn:
    """Each figure's smallest."""
    return Turn(*(min(values) for values in zip(*map(astuple, turns), strict=True)))


def assemble(turns: Turns) -> dict[str, Any]:
    """What the turns say, for JSON. As shipped is what both services that are so took on average."""
    shipped = [_average(pair) for pair in zip(turns[SHIPPED], turns[AGAIN], strict=True)]
    return {
        "rounds": len(shipped),
        "arms": {name: _arm(shipped, mine) for name, mine in turns.items()},
        "budgets": [_judged({**turns, SHIPPED: shipped}, budget) for budget in BUDGETS],
        "noise": _shares(turns, SHIPPED, AGAIN),
    }


def _average(turns: Sequence[Turn]) -> Turn:
    return Turn(*(statistics.mean(values) for values in zip(*map(astuple, turns), strict=True)))


def _arm(shipped: Sequence[Turn], mine: Sequence[Turn]) -> dict[str, Any]:
    """``ratio``: transactions/s as shipped to this arm's; ``cpu_us``: of a transaction."""
    cpu_us = {place: statistics.median(getattr(turn, place) for turn in mine) for place in PLACES}
    return {
        "per_second": round(statistics.median(turn.per_second for turn in mine), 1),
        "ratio": _spread(whole.per_second / turn.per_second for whole, turn in zip(shipped, mine, strict=True)),
        "cpu_us": {place: round(us, 1) for place, us in cpu_us.items()},
    }


def _shares(turns: Turns, having: str, lacking: str) -> dict[str, dict[str, float]]:
    pairs = list(zip(turns[having], turns[lacking], strict=True))
    return {
        "by_cpu": _spread(1 - without.total / whole.total for whole, without in pairs),
        "by_rate": _spread(1 - without.clock / whole.clock for whole, without in pairs),
    }


def _judged(turns: Turns, budget: Budget) -> dict[str, Any]:
    shares = _shares(turns, budget.having, budget.lacking)
    pairs = list(zip(turns[budget.having], turns[budget.lacking], strict=True))
    more_us = {
        place: round(statistics.median(getattr(whole, place) - getattr(without, place) for whole, without in pairs), 1)
        for place in PLACES
    }
    return {**asdict(budget), **shares, "more_us": more_us, "reached": shares["by_cpu"]["median"] <= budget.goal}


def _spread(values: Iterable[float]) -> dict[str, float]:
    found = sorted(values)
    return {
        name: round(value, 4)
        for name, value in (("median", statistics.median(found)), ("low", found[0]), ("high", found[-1]))
    }


def markdown(results: Mapping[str, Any]) -> str:
    """A table of the shares, and what the same service measured twice says of them."""
    head = [
        f"| of w8 | goal | share by CPU time | by transactions/s | µs: {', '.join(PLACES)} |",
        "|---|---|---|---|---|",
    ]
    rows = [_budget_row(found) for found in results["budgets"]]
    noise, shipped = results["noise"], results["arms"][SHIPPED]
    costs = ", ".join(f"{place} {us:.0f} µs" for place, us in shipped["cpu_us"].items())
    said = (
        f"{results['rounds']} rounds, of each the least of interleaved passes: median, with the smallest and the largest. "
        "As shipped, measured twice: "
        f"{_cell(noise['by_cpu'])} by CPU time, {_cell(noise['by_rate'])} by transactions/s. "
        f"As shipped {shipped['per_second']:,.0f} transactions/s, each taking CPU time of {costs}."
    )
    return "\n".join([*head, *rows]) + "\n\n" + said + " " + _kept_busy(results["arms"])


def _budget_row(found: Mapping[str, Any]) -> str:
    places = ", ".join(f"{round(found['more_us'][place])}" for place in PLACES).replace("-", "−")
    shares = f"{_cell(found['by_cpu'])} | {_cell(found['by_rate'])}"
    return f"| {found['what']} | ≤ {100 * found['goal']:.0f} % | {shares} | {places} |"


def _kept_busy(arms: Mapping[str, Any]) -> str:
    """A goal in transactions/s is reached by less work, or by cores that wait less."""
    direct, cores = arms[DIRECT]["per_second"], os.cpu_count() or 1
    return (
        f"`direct` moves {direct:,.0f}/s here and keeps {cores} cores busy to {_percent(busy(arms[DIRECT]))}, ours to "
        f"{_percent(busy(arms[SHIPPED]))}."
    )


def busy(arm: Mapping[str, Any]) -> float:
    """To which share an arm keeps all cores busy."""
    share: float = sum(arm["cpu_us"].values()) * arm["per_second"] / ((os.cpu_count() or 1) * 1_000_000)
    return share


def _cell(spread: Mapping[str, float]) -> str:
    return f"{_percent(spread['median'])} ({_percent(spread['low'])} to {_percent(spread['high'])})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %".replace("-", "−")
