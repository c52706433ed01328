"""What the figures were measured on."""

import os
import platform
import statistics
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

_BLOCK: Final = b"\0" * 8192
_FSYNCS: Final = 60


def describe(folder: Path) -> dict[str, Any]:
    """The machine, and what an fsync of 8 KiB costs where the servers' data lies."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": platform.release().split("-")[0],
        "file_system": _file_system(folder),
        "fsync_8k_ms": round(_fsync_ms(folder), 3),
        "python": platform.python_version(),
        "python_turn_ns": round(_turn_ns()),
        "node": subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip("v\n"),
    }


def _turn_ns() -> float:
    """A turn of a loop in Python: builds without profile-guided optimization take half as long again, as the service does."""
    took = []
    for _ in range(5):
        total, began = 0, time.perf_counter_ns()
        for n in range(1_000_000):
            total += n
        took.append((time.perf_counter_ns() - began) / 1_000_000)
    return min(took)


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _file_system(folder: Path) -> str:
    """The type of the file system with the longest mount point above the folder."""
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    above = [(len(point), kind) for _, point, kind, *_ in mounts if folder.resolve().is_relative_to(point)]
    return max(above, default=(0, "unknown"))[1]  # within a changed root no mount may be above


def _fsync_ms(folder: Path) -> float:
    took = []
    path = folder / "fsync"
    with path.open("wb", buffering=0) as file:
        for n in range(_FSYNCS):
            file.seek(n % 8 * len(_BLOCK))
            file.write(_BLOCK)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - began) * 1000)
    path.unlink()
    return statistics.median(took)
