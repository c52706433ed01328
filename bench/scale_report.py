"""What `bench.scale` found, as plots and sentences."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from bench import plots
from bench.stores import DIRECT, OURS

BARE: Final = "ours-bare"
_BY_ROWS: Final = {
    "w1": "get 1",
    "w2": "set 1",
    "w4": "receive",
    "get150": "get 150",
    "set150": "set 150",
    "w9": "restart",
}
_BY_SIZE: Final = {"w2": "set 1", "w4": "receive", "w6": "write all", "w9": "restart"}
_BY_COUNT: Final = {"per_second": "received messages"}


def drawings(results: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """``(file, title, SVG)`` of every part that ran."""
    if "rows" in results:
        yield _drawing("rows", "Time as rows grow", "ms, median", "key rows in the database", results, BARE, _BY_ROWS)
    if "sessions" in results:
        across = "sessions at once in one process"
        yield _drawing("sessions", "Throughput as sessions grow", "transactions/s", across, results, OURS, _BY_COUNT)
    if "sizes" in results:
        yield _drawing("sizes", "Time as a session grows", "ms, median", "keys in the session", results, OURS, _BY_SIZE)


def _drawing(
    part: str, title: str, unit: str, across: str, results: Mapping[str, Any], ours: str, measures: Mapping[str, str]
) -> tuple[str, str, str]:
    found = results[part]
    svg = plots.lines(title, unit, across, _curves(found[ours], measures), _curves(found[DIRECT], measures))
    return part, title, svg


def _curves(levels: Mapping[str, Mapping[str, float]], measures: Mapping[str, str]) -> dict[str, dict[float, float]]:
    """One curve a measure."""
    return {title: {int(at): level[measure] for at, level in levels.items()} for measure, title in measures.items()}


def growth(curve: Mapping[str, float]) -> tuple[float, float]:
    """How many times more the last costs than the first, and how many times more it may: the logarithm's growth."""
    sizes = sorted(curve, key=int)
    return curve[sizes[-1]] / curve[sizes[0]], math.log(int(sizes[-1])) / math.log(int(sizes[0]))


def sentences(results: Mapping[str, Any]) -> Iterator[str]:
    """What the plots do not show."""
    where = results["machine"]
    yield f"Measured {where['date']} by `make bench-scale`: {where['cores']} cores of {where['cpu']}, {where['file_system']}."
    if "rows" in results:
        yield _row_sentence(results["rows"])
    if "memory" in results:
        m = results["memory"]
        yield (
            f"Memory of an open session: {_kib(m['full']['node_per_open'])} in Node with {m['full']['keys']:,} keys, "
            f"{_kib(m['empty']['node_per_open'])} without; in the service {_kib(m['full']['service_per_open'])} and "
            f"{_kib(m['empty']['service_per_open'])} while open, {_kib(m['empty']['service_per_idle'])} once closed. "
            f"The service: {m['service_mib']} MiB in all."
        )
    if "time" in results:
        t = results["time"]
        yield (
            f"{t['minutes']:g} minutes of session updates ({t['updates']:,}): {t['mib_before']} → {t['mib_after']} MiB, "
            f"{t['hot'] or 0:.0%} HOT, the journal's table {t['journal_mib_before']} → {t['journal_mib_after']} MiB, "
            f"median {t['p50_ms_first']} ms at first, {t['p50_ms_last']} ms at last."
        )


def _row_sentence(rows: Mapping[str, Any]) -> str:
    ours = rows[BARE]
    last = max(ours, key=int)
    said, allowed = [], 0.0
    for workload, title in _BY_ROWS.items():
        grown, allowed = growth({count: level[workload] for count, level in ours.items()})
        said.append(f"{title} ×{grown:.2f}{' (**more**)' * (grown > allowed)}")
    size = f"{ours[last]['heap_bytes']:.0f} + {ours[last]['index_bytes']:.0f} bytes a key on disk (heap + index)"
    span = f"From {int(min(ours, key=int)):,} to {int(last):,} rows"
    return f"{span}: {', '.join(said)}; the logarithm grows ×{allowed:.2f}. {size}."


def _kib(size: int) -> str:
    return f"{size / 1024:.1f} KiB"
