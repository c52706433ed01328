"""Cost as work grows: with rows that are not touched, sessions at once, keys of a session, and time.

Reads go past the client's memory here (bare HTTP), so that every one of them reaches the database.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from bench import machine, readme, scale_report
from bench.figures import Slice
from bench.sql import Sql
from bench.stores import DIRECT, OURS, Contestant, Field, line_up
from bench.worker import Worker

BARE: Final = scale_report.BARE
_KEYS: Final = 1127
# Memory first, while the service has done nothing; rows on servers of their own, where nothing else lies.
_FRESH: Final = ("memory", "time", "sessions", "sizes")
_ROWS: Final = ("rows",)
_PARTS: Final = (*_FRESH, *_ROWS)
BY_ROWS: Final = {"w1": 300, "w2": 200, "w4": 150, "get150": 40, "set150": 25, "w9": 4}
BY_SIZE: Final = {"w2": 100, "w4": 60, "w6": 3, "w9": 3}
_TITLES: Final = {
    "w1": "get 1",
    "w2": "set 1",
    "w4": "receive",
    "get150": "get 150",
    "set150": "set 150",
    "w9": "restart",
}
_TABLES: Final = {DIRECT: "auth_keys", BARE: "session_keys", OURS: "session_keys"}
_JOURNAL: Final = "session_journal"
_SIZE: Final = """
SELECT pg_table_size($1::regclass) AS heap, pg_indexes_size($1::regclass) AS indexes,
       (SELECT n_tup_upd FROM pg_stat_user_tables WHERE relid = $1::regclass) AS updates,
       (SELECT n_tup_hot_upd FROM pg_stat_user_tables WHERE relid = $1::regclass) AS hot
"""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How far to go, and which share of the operations. The documented run differs in ``minutes`` alone: 10."""

    rows: Sequence[int] = (1_000, 100_000, 2_000_000)
    sessions: Sequence[int] = (1, 32, 256, 2_000)
    keys: Sequence[int] = (100, 1_127, 11_000)
    opened: int = 500
    filled: int = 40
    received: int = 4_000
    share: float = 1.0
    minutes: float = 1.0


TINY: Final = Sizes((1_000, 4_000), (1, 4), (100, 300), opened=10, filled=2, received=40, share=0.05, minutes=0.02)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command line knows of this."""
    parser.add_argument("--scale", action="store_true", help="cost as work grows, instead of the comparison")
    parser.add_argument("--parts", nargs="*", default=_PARTS, choices=_PARTS, help="of --scale; all unless given")
    parser.add_argument("--minutes", type=float, help="of session updates in --scale (1; the documented run takes 10)")


def main(folder: Path, options: argparse.Namespace) -> int:
    """Runs the parts and writes results, plots and the README's section."""

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    sizes = TINY if options.tiny else Sizes()
    minutes = sizes.minutes if options.minutes is None else options.minutes
    sizes = replace(sizes, minutes=minutes)
    results: dict[str, Any] = {"machine": machine.describe(folder)}
    for parts in (_FRESH, _ROWS):
        wanted = [part for part in parts if part in options.parts]
        if not wanted:
            continue
        room = folder / wanted[0]
        room.mkdir(mode=0o711)
        with line_up(room, [DIRECT, OURS, BARE]) as start:
            results["machine"] |= start.versions
            if not options.tiny:
                start.season(say)
            results |= {part: _RUN[part](room, start, sizes, say) for part in wanted}
    _write(results, options, say)
    return 0


@contextmanager
def _working(folder: Path, start: Field, names: Sequence[str]) -> Iterator[Worker]:
    """A fresh Node process with these stores made."""
    with Worker(folder / "worker.log") as worker:
        for name in names:
            contestant = _named(start, name)
            worker.ask("make", store=name, kind=contestant.kind, settings=contestant.settings)
        yield worker


def _rows(folder: Path, start: Field, sizes: Sizes, say: Say) -> dict[str, Any]:
    """store -> rows -> {workload: p50 in ms, and bytes a key}."""
    found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in (DIRECT, BARE)}
    with _working(folder, start, (DIRECT, BARE)) as worker:
        for name in found:
            worker.ask("fill", store=name)
        for rows in sizes.rows:
            for name, levels in found.items():
                more = max(0, round((rows - _count(start, name)) / _KEYS))
                say(f"{rows} rows: {name}")
                worker.ask("load", store=name, sessions=more, keys=_KEYS)
                levels[str(rows)] = _settled(start, name)
                levels[str(rows)] |= {
                    workload: _p50(worker, _named(start, name), workload, sizes.share * n)
                    for workload, n in BY_ROWS.items()
                }
    return found


def _sessions(folder: Path, start: Field, sizes: Sizes, say: Say) -> dict[str, Any]:
    """store -> sessions at once -> transactions a second and p99 in ms."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    with _working(folder, start, (DIRECT, OURS)) as worker:
        for name in (DIRECT, OURS):
            worker.ask("fill", store=name)
            found[name] = {}
            for count in sizes.sessions:
                say(f"{count} sessions at once: {name}")
                each = max(4, sizes.received // count)
                for _ in range(2):  # the first time warms up
                    part = _slice(worker, _named(start, name), "w8", each, crowd=count, budgetMs=3000)
                took = sorted(part.took)
                found[name][str(count)] = {
                    "per_second": round(len(took) / part.seconds, 1),
                    "p99_ms": round(took[int(len(took) * 0.99)], 3),
                }
    return found


def _keys(folder: Path, start: Field, sizes: Sizes, say: Say) -> dict[str, Any]:
    """store -> keys in the session -> {workload: p50 in ms}; w6 and w9 write and read all of them."""
    found: dict[str, dict[str, dict[str, float]]] = {DIRECT: {}, OURS: {}}
    for count in sizes.keys:
        with _working(folder, start, (DIRECT, OURS)) as worker:
            for name, levels in found.items():
                say(f"a session of {count} keys: {name}")
                worker.ask("fill", store=name, keys=count)
                levels[str(count)] = {
                    workload: _p50(worker, _named(start, name), workload, sizes.share * n)
                    for workload, n in BY_SIZE.items()
                }
    return found


def _memory(folder: Path, start: Field, sizes: Sizes, say: Say) -> dict[str, Any]:
    """Bytes a session: in Node while open, in the service while open, and in the service once it is closed again."""
    service = start.services[OURS]
    found: dict[str, Any] = {}
    for label, count, keys in (("empty", sizes.opened, 0), ("full", sizes.filled, _KEYS)):
        say(f"memory of {count} sessions with {keys} keys")
        with _working(folder, start, (OURS,)) as worker:
            worker.ask("open", store=OURS, sessions=2, keys=keys)  # code and connections, not sessions
            node, ours = _used(worker), service.memory()
            worker.ask("open", store=OURS, sessions=count, keys=keys)
            _named(start, OURS).wait()
            opened = service.memory()
            found[label] = {
                "keys": keys,
                "node_per_open": round((_used(worker) - node) / count),
                "service_per_open": round((opened - ours) / count),
            }
            worker.ask("end", store=OURS)
            found[label]["service_per_idle"] = round((service.memory() - ours) / count)
    found["service_mib"] = round(service.memory() / 2**20, 1)
    return found


def _time(folder: Path, start: Field, sizes: Sizes, say: Say) -> dict[str, Any]:
    """Session updates at full speed, and what they do to the table."""
    crowd = 32
    with _working(folder, start, (OURS,)) as worker:
        worker.ask("fill", store=OURS, crowd=crowd)
        worker.ask("fillCrowd", store=OURS, crowd=crowd)
        _named(start, OURS).wait()
        before = _size(start, OURS)
        journal_before = _size_of(start, OURS, _JOURNAL)
        seconds = 60 * sizes.minutes
        say(f"{sizes.minutes} minutes of session updates")
        first = worker.ask("churn", store=OURS, crowd=crowd, seconds=seconds / 10)
        last = worker.ask("churn", store=OURS, crowd=crowd, seconds=seconds * 9 / 10)
        after = _size(start, OURS)
        journal_after = _size_of(start, OURS, _JOURNAL)
    updates = after["updates"] - before["updates"]
    return {
        "minutes": sizes.minutes,
        "updates": first["updates"] + last["updates"],
        "mib_before": _mib(before),
        "mib_after": _mib(after),
        "journal_mib_before": _mib(journal_before),
        "journal_mib_after": _mib(journal_after),
        "hot": round((after["hot"] - before["hot"]) / updates, 4) if updates else None,
        "p50_ms_first": round(first["p50"], 3),
        "p50_ms_last": round(last["p50"], 3),
    }


_RUN: Final = {"rows": _rows, "sessions": _sessions, "sizes": _keys, "memory": _memory, "time": _time}


def _slice(worker: Worker, of: Contestant, workload: str, n: int, crowd: int = 32, **limits: float) -> Slice:
    worker.ask("prepare", store=of.name, workload=workload, n=n, crowd=crowd)
    of.wait()
    answer = worker.ask("run", **limits)
    worker.ask("finish")
    of.wait()
    return Slice(answer["took"], answer["seconds"])


def _p50(worker: Worker, of: Contestant, workload: str, operations: float) -> float:
    _slice(worker, of, workload, max(1, int(operations / 10)))
    part = _slice(worker, of, workload, max(1, int(operations)), budgetMs=4000, least=2)
    return round(statistics.median(part.took), 4)


def _used(worker: Worker) -> int:
    usage = worker.ask("memory")
    return int(usage["heapUsed"] + usage["external"])


def _settled(start: Field, name: str) -> dict[str, float]:
    """Bytes a key, after the housekeeping that autovacuum does when left in peace."""
    _named(start, name).wait()
    with _inside(start, name) as sql:
        sql.run(f"VACUUM ANALYZE {_TABLES[name]}")
        sql.run("CHECKPOINT")  # so that the disk is at rest
    rows = _count(start, name)
    size = _size(start, name)
    return {"there": rows, "heap_bytes": round(size["heap"] / rows, 1), "index_bytes": round(size["indexes"] / rows, 1)}


def _count(start: Field, name: str) -> int:
    _named(start, name).wait()
    with _inside(start, name) as sql:
        return int(sql.row(f"SELECT count(*) AS n FROM {_TABLES[name]}")["n"])


def _size(start: Field, name: str) -> dict[str, int]:
    return _size_of(start, name, _TABLES[name])


def _size_of(start: Field, name: str, table: str) -> dict[str, int]:
    with _inside(start, name) as sql:
        sql.run("SELECT pg_stat_force_next_flush()")
        return sql.row(_SIZE, table)


@contextmanager
def _inside(start: Field, name: str) -> Iterator[Sql]:
    statements = _named(start, name).statements
    assert statements is not None
    with statements.inside() as sql:
        yield sql


def _mib(size: Mapping[str, int]) -> float:
    return round((size["heap"] + size["indexes"]) / 2**20, 1)


def _named(start: Field, name: str) -> Contestant:
    return next(contestant for contestant in start.contestants if contestant.name == name)


def _write(results: dict[str, Any], options: argparse.Namespace, say: Say) -> None:
    out: Path = options.results
    out.mkdir(exist_ok=True, parents=True)
    (out / "scale.json").write_text(json.dumps(results, indent=1) + "\n")
    drawn = []
    for name, title, svg in scale_report.drawings(results):
        (out / f"{name}.svg").write_text(svg)
        drawn.append(f"![{title}](bench/results/{name}.svg)")
    section = "\n\n".join([*drawn, *scale_report.sentences(results)])
    (out / "scale.md").write_text(section + "\n")
    if options.readme and not readme.put("bench-scale", section):
        say("the README has no section for this: see scale.md")
    say(f"written to {out}")
