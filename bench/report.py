"""Results as JSON, and as the tables of the README."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from bench.durability import Proof
from bench.figures import BY_RATE, WORKLOADS, figure, judge
from bench.side_by_side import Outcome
from bench.stores import DIRECT, OURS, Contestant, Field

_COUNTED: Final = ("w2", "w3", "w4", "w5", "w6", "w9")
_TIMED: Final = ("multi-file", "postgres-baileys", "redis-best", DIRECT, "direct-aes", OURS, "ours-embedded")


def assemble(
    machine: Mapping[str, Any], start: Field, outcome: Outcome, proofs: Mapping[str, Proof], rounds: int
) -> dict[str, Any]:
    """Everything a run found out."""
    stores = {c.name: _store(c, outcome, proofs.get(c.name)) for c in start.contestants}
    workloads = {name: store["workloads"] for name, store in stores.items()}
    return {
        "machine": {**machine, **start.versions},
        "rounds": rounds,
        "void": outcome.void,
        "drift": {workload: round(drift, 3) for workload, drift in outcome.drifts.items()},
        "left_out": start.left_out,
        "goals": judge(workloads),
        "stores": stores,
    }


def _store(contestant: Contestant, outcome: Outcome, proof: Proof | None) -> dict[str, Any]:
    name = contestant.name
    figures = {
        workload: {**figure(workload, rounds, name).as_json(), **outcome.costs[name][workload]}
        for workload, rounds in outcome.rounds.items()
    }
    return {
        "label": contestant.label,
        "durable": contestant.durable,
        "proof": None if proof is None else {"commits": proof.commits, "fsyncs": proof.fsyncs, "holds": proof.holds},
        "examined": outcome.examined[name],
        "workloads": figures,
    }


def markdown(results: Mapping[str, Any], plots: Iterable[tuple[str, str]]) -> str:
    """The README's section; ``plots``: (title, path from the README)."""
    parts = [_head(results), _ratios(results), _goals(results)]
    parts += [f"![{title}]({path})" for title, path in plots]
    parts += [
        _folded("Times in ms", _times(results)),
        _folded("Requests, statements and bytes of WAL an operation", _costs(results)),
        _left_out(results),
    ]
    return "\n\n".join(part for part in parts if part)


def _head(results: Mapping[str, Any]) -> str:
    m = results["machine"]
    where = (
        f"{m['cores']} cores of {m['cpu']}, {m['memory_gib']} GiB, {m['file_system']}, {m['fsync_8k_ms']} ms an fsync"
    )
    versions = ", ".join(
        f"{name.capitalize()} {m[name]}" for name in ("postgres", "redis", "mariadb", "node") if name in m
    )
    versions += f", Python {m['python']} ({m['python_turn_ns']} ns a turn of an empty loop)"
    drift = max(results["drift"].values(), default=1)
    said = f"{results['rounds']} interleaved rounds. The same store measured twice differed by at most {drift - 1:.0%}."
    return (
        f"Measured {m['date']} by `make bench`: {where}; {versions}; {said} Ratios to `direct`, the strongest store "
        "one could write by hand in the same process (prepared, one statement a set, no fencing, no encryption): below 1 is "
        "faster, in w8 above 1. Median of the rounds, with the smallest and the largest."
    )


def _ratios(results: Mapping[str, Any]) -> str:
    names = list(_workloads(results))
    rows = [["", "durable", *names]]
    for name, store in results["stores"].items():
        cells = [_ratio_cell(name, workload, store["workloads"][workload]) for workload in names]
        rows.append([store["label"] + _marks(store), _durable(store), *cells])
        if name == OURS:
            rows.append(["_goal_", "", *(_goal_cell(results["goals"], workload) for workload in names)])
    legend = " · ".join(f"{name} {text}" for name, text in WORKLOADS.items())
    marks = "\\* deletions do not reach it. † does not give back what it was given." if _any_marks(results) else ""
    return "\n\n".join(filter(None, (_table(rows), legend + ".", marks)))


def _ratio_cell(name: str, workload: str, figure: Mapping[str, float]) -> str:
    if name == DIRECT:
        return f"1 ({_rate(figure['per_second'])})" if workload in BY_RATE else f"1 ({_ms(figure['p50_ms'])} ms)"
    return f"{_short(figure['ratio'])}<br><sub>{_short(figure['ratio_low'])}–{_short(figure['ratio_high'])}</sub>"


def _goal_cell(goals: Iterable[Mapping[str, Any]], workload: str) -> str:
    """The goal in ratio to `direct`."""
    fitting = (g for g in goals if g["workload"] == workload and g["rival"] == DIRECT and g["measure"] != "p99_ms")
    return next((f"{'≤' if g['at_most'] else '≥'} {_short(g['bound'])}" for g in fitting), "")


def _durable(store: Mapping[str, Any]) -> str:
    proof = store["proof"]
    if proof is None:
        return str(store["durable"])
    per_commit = proof["fsyncs"] / proof["commits"]
    return f"yes: {per_commit:.1f} fsyncs a commit" if proof["holds"] else f"**no**: {per_commit:.2f} fsyncs a commit"


def _marks(store: Mapping[str, Any]) -> str:
    return " \\*" * (not store["examined"]["deletes"]) + " †" * (not store["examined"]["readsBack"])


def _any_marks(results: Mapping[str, Any]) -> bool:
    return any(_marks(store) for store in results["stores"].values())


def _goals(results: Mapping[str, Any]) -> str:
    if not results["goals"]:
        return ""
    missed = [goal for goal in results["goals"] if not goal["reached"]]
    said = [_missed(goal) for goal in missed]
    reached = f"Goals reached: {len(results['goals']) - len(missed)} of {len(results['goals'])}"
    return f"{reached}; not: {', '.join(said)}." if said else f"{reached}."


def _missed(goal: Mapping[str, Any]) -> str:
    what = goal["workload"] + " p99" * (goal["measure"] == "p99_ms")
    if goal["at_most"] and goal["rival"] != DIRECT:
        faster = f"{_short(1 / goal['value'])} × faster than {goal['rival']}"
        return f"{what} {faster} (≥ {_short(1 / goal['bound'])})"
    return (
        f"{what} {_short(goal['value'])} of {goal['rival']} ({'≤' if goal['at_most'] else '≥'} {_short(goal['bound'])})"
    )


def _times(results: Mapping[str, Any]) -> str:
    names = list(_workloads(results))
    rows = [["p50 / p99 in ms", *(f"{name} (transactions/s)" if name in BY_RATE else name for name in names)]]
    for name in _TIMED:
        if name in results["stores"]:
            store = results["stores"][name]
            rows.append([store["label"], *(_time_cell(store["workloads"][w], by_rate=w in BY_RATE) for w in names)])
    return _table(rows)


def _time_cell(figure: Mapping[str, float], *, by_rate: bool) -> str:
    cell = f"{_ms(figure['p50_ms'])} / {_ms(figure['p99_ms'])}"
    return f"{cell} ({_rate(figure['per_second'])})" if by_rate else cell


def _costs(results: Mapping[str, Any]) -> str:
    counted = [workload for workload in _COUNTED if workload in _workloads(results)]
    rows = [["an operation takes", *counted]]
    for store in results["stores"].values():
        cells = [_cost_cell(store["workloads"][workload]) for workload in counted]
        if any(cells):
            rows.append([store["label"], *cells])
    legend = (
        "r: HTTP requests, s: SQL statements, c: Redis commands, and kB of WAL. None of this depends on the machine. "
        "Later: what becomes rows when the commit has long been answered and is durable, and the end of the leases taken."
    )
    return f"{_table(rows)}\n\n{legend}"


def _cost_cell(cost: Mapping[str, float]) -> str:
    units = (("requests", "r"), ("statements", "s"), ("commands", "c"))
    said = [f"{_short(cost[name])} {unit}" for name, unit in units if name in cost]
    if "wal_bytes" in cost:
        said.append(f"{_short(cost['wal_bytes'] / 1000)} kB")
    if "later_statements" in cost:
        later = f"{_short(cost['later_statements'])} s · {_short(cost.get('later_wal_bytes', 0) / 1000)} kB"
        said.append(f"<sub>later {later}</sub>")
    return " · ".join(said)


def _folded(summary: str, text: str) -> str:
    """What most readers pass over, one click away."""
    return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"


def _left_out(results: Mapping[str, Any]) -> str:
    said = [f"{label} ({why})" for label, why in results["left_out"].items()]
    return f"Left out: {'; '.join(said)}." if said else ""


def _workloads(results: Mapping[str, Any]) -> Iterable[str]:
    first: Mapping[str, Any] = next(iter(results["stores"].values()))
    return [workload for workload in first["workloads"] if workload not in results["void"]]


def _table(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _short(value: float) -> str:
    if value >= 100:
        return f"{value:.0f}"
    return (f"{value:.1f}" if value >= 10 else f"{value:.2f}").rstrip("0").rstrip(".")


def _ms(value: float) -> str:
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _rate(value: float) -> str:
    return f"{value:,.0f}/s"
