"""What a workload cannot do without: its parts, each measured alone, against the time that its goal leaves.

| part | what it is |
|---|---|
| codec | Baileys' values to JSON text and back, in Node: any store does that |
| hop | bodies of that size to a server that does nothing, and back |
| edge | what that takes longer through aiohttp, by a server that waits for its database meanwhile |
| service | the body read, judged, sealed (or opened and proven), warm and without an edge |
| database | the statement with its fsync, over the driver |
| rows, later | what has become of a large commit when it is answered: service and database, until it is rows |

But for the last, together they are a service whose own edge, queue and client cost nothing.
"""

import argparse
import json
import secrets
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from bench import budgets, crowd, hollow, machine, readme
from bench.figures import GOALS, WORKLOADS
from bench.inside import Inside, Texts, body_of, runner
from bench.servers.nothing import Nothing
from bench.stores import DIRECT, OURS, Contestant, line_up
from bench.worker import PARTS, Worker

# Operations a round.
_COUNTS: Final = {"w2": 150, "w3": 4, "w4": 100, "w5": 6, "w6": 3, "w7": 150, "w9": 4}
_LARGE: Final = {"w3", "w5", "w6"}
_SMALL: Final = 40  # bytes of a commit's answer, or of a lease's
_LEASE: Final = 120  # bytes that ask for one

Say = Callable[[str], None]
Timed = dict[str, dict[str, list[float]]]  # workload -> part -> ms


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command line knows of this."""
    parser.add_argument("--floors", action="store_true", help="what stands between us and the goals, instead")


def main(folder: Path, options: argparse.Namespace) -> int:
    """Measures parts, a hollow service and budgets, and writes results and the README's section."""

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    results = {"machine": machine.describe(folder)}
    measures_of = {"parts": measure, "hollow": hollow.measure, "budgets": budgets.measure, "crowd": crowd.measure}
    for name, measures in measures_of.items():
        room = folder / name
        room.mkdir(mode=0o711)
        results[name] = measures(room, say, rounds=options.rounds, tiny=options.tiny)
    out: Path = options.results
    out.mkdir(exist_ok=True, parents=True)
    (out / "floors.json").write_text(json.dumps(results, indent=1) + "\n")
    section = markdown(results)
    (out / "floors.md").write_text(section + "\n")
    if options.readme and not readme.put("bench-floors", section):
        say("the README has no section for this: see floors.md")
    say(f"written to {out}")
    return 0


def measure(folder: Path, say: Say, *, rounds: int = 5, tiny: bool = False) -> dict[str, Any]:
    """workload -> part -> median in ms, with ``direct`` and ``ours`` of the same rounds."""
    counts = {workload: 2 if tiny else n for workload, n in _COUNTS.items()}
    with (
        line_up(folder, [DIRECT, OURS]) as start,
        Nothing() as bare,
        Nothing(_database(start.contestants, "framework")) as framework,
        Worker(folder / "worker.log") as worker,
        Worker(folder / "parts.log", PARTS) as parts,
        runner() as loop,
        ExitStack() as stack,
    ):
        if not tiny:
            start.season(say)
        for contestant in start.contestants:
            _fill(worker, contestant)
        texts = parts.ask("values")
        inside = Inside(_database(start.contestants, "alone"), texts, secrets.token_bytes(32))
        stack.callback(lambda: loop.run(inside.close()))
        loop.run(inside.open())
        timed: Timed = {workload: {} for workload in counts}
        for number in range(1 + (1 if tiny else rounds)):
            say(f"parts: round {number}" if number else "parts: warming up")
            for workload, n in counts.items():
                bodies = _bodies(workload, texts)
                found = {
                    **{c.name: _run(worker, c, workload, n) for c in start.contestants},
                    "codec": parts.ask("codec", workload=workload, n=n)["took"],
                    "hop": _hops(parts, bare.url, bodies, n),
                    "framework": _hops(parts, framework.url, bodies, n),
                    "asked": [len(bodies) * took for took in loop.run(inside.nothing(n))],
                }
                spent = loop.run(inside.time(workload, n))
                found |= {part: [getattr(each, part) for each in spent] for part in ("service", "database", "later")}
                for part, took in found.items():
                    timed[workload].setdefault(part, []).extend(took if number else [])
    return {
        workload: _with_edge({part: statistics.median(took) for part, took in of.items()})
        for workload, of in timed.items()
    }


def _with_edge(of: Mapping[str, float]) -> dict[str, float]:
    """The parts, with the edge as what the framework adds to a hop and a question."""
    parts = dict(of)
    edge = parts.pop("framework") - parts.pop("asked") - of["hop"]
    return {**parts, "edge": max(0.0, edge)}


def markdown(results: Mapping[str, Any]) -> str:
    """The README's section."""
    said = f"Measured {results['machine']['date']} by `make bench-floors`, in ms: medians of interleaved rounds."
    tables = [
        _table(results["parts"]),
        hollow.markdown(results["hollow"]),
        crowd.markdown(results["crowd"], results["budgets"]["arms"], results["hollow"]["stores"]),
        budgets.markdown(results["budgets"]),
    ]
    return "\n\n".join([said, *tables])


def _table(results: Mapping[str, Mapping[str, float]]) -> str:
    """A workload a line, in ms, and as multiples of `direct`."""
    lines = [
        "| | `direct` | goal | codec | hop | edge | service | database | these together | ours | rows, later |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for workload, of in results.items():
        direct, bound = of[DIRECT], _bound(workload)
        parts = [of[part] for part in ("codec", "hop", "edge", "service", "database")]
        cells = [
            f"{workload} {WORKLOADS[workload]}",
            _ms(direct),
            f"{_ms(bound * direct)} ({bound}×)",
            *(_ms(part) for part in parts),
            f"**{_ms(sum(parts))} ({sum(parts) / direct:.2f}×)**",
            f"{_ms(of[OURS])} ({of[OURS] / direct:.2f}×)",
            _ms(of["later"]) if workload in _LARGE else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _bound(workload: str) -> float:
    return next(goal.bound for goal in GOALS if goal.workload == workload and goal.rival == DIRECT)


def _ms(value: float) -> str:
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _fill(worker: Worker, contestant: Contestant) -> None:
    worker.ask("make", store=contestant.name, kind=contestant.kind, settings=contestant.settings)
    worker.ask("fill", store=contestant.name)


def _database(contestants: Sequence[Contestant], name: str) -> str:
    """A new database on the same server."""
    direct = next(c for c in contestants if c.name == DIRECT)
    assert direct.statements is not None
    direct.statements.sql.run(f'CREATE DATABASE "{name}"')
    return str(direct.settings["url"]).replace(f"/{DIRECT}?", f"/{name}?")


def _run(worker: Worker, contestant: Contestant, workload: str, n: int) -> list[float]:
    worker.ask("prepare", store=contestant.name, workload=workload, n=n)
    contestant.wait()
    took: list[float] = worker.ask("run")["took"]
    worker.ask("finish")
    contestant.wait()
    return took


def _hops(parts: Worker, url: str, bodies: Sequence[tuple[int, int]], n: int) -> list[float]:
    """Each operation's exchanges, one after the other."""
    took = [parts.ask("hop", url=url, sent=sent, received=received, n=n)["took"] for sent, received in bodies]
    return [sum(together) for together in zip(*took, strict=True)]


def _bodies(workload: str, texts: Texts) -> Sequence[tuple[int, int]]:
    """Bytes sent and received by each request of an operation."""
    session = {"1": texts["sessions"][0]}
    whole, creds = texts["whole"], texts["creds"]
    if workload == "w9":
        return [(_LEASE, _SMALL), (0, len(body_of(whole, creds)))]
    keys, with_creds = {
        "w2": ({"session": session}, None),
        "w3": ({"pre-key": texts["preKeys"]}, None),
        "w4": ({"session": session, "pre-key": {"1": None}}, None),
        "w5": ({"session": {str(n): text for n, text in enumerate(texts["sessions"])}}, None),
        "w6": (whole, creds),
        "w7": ({}, creds),
    }[workload]
    return [(len(body_of(keys, with_creds)), _SMALL)]
