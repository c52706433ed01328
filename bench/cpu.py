"""CPU time, as Linux counts it for every thread: far less noisy than a rate, which everything on the machine disturbs."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

Spent = Mapping[int, int]


def spent(pids: Iterable[int]) -> Spent:
    """Nanoseconds that each process has computed so far, by pid; one that has ended is left out."""
    return {pid: sum(threads) for pid in pids if (threads := _threads(pid))}


def between(before: Spent, after: Spent) -> int:
    """Nanoseconds computed meanwhile by those that live; one that began meanwhile counts from its beginning."""
    return sum(now - before.get(pid, 0) for pid, now in after.items())


def _threads(pid: int) -> list[int]:
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended just now
            found.append(int(path.read_text().split()[0]))
    return found
