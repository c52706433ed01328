"""Which process a run is, and whether that process is gone for certain.

A process id says nothing on another machine, after a reboot or in another container, and is given away again: so a mark
also holds where the id counts and when its process began. What cannot be proven is not taken for gone.
"""

import hashlib
import os
import socket
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_BOOT: Final = _PROC / "sys/kernel/random/boot_id"
_NAMESPACE: Final = _PROC / "self/ns/pid"
_STATE: Final = 0  # fields of /proc/PID/stat, counted behind the command's name
_STARTED: Final = 19
_OVER: Final = frozenset({"Z", "X"})  # it ended, and its parent has not looked yet
_MARK_BYTES: Final = 8


def mark() -> str | None:
    """This process; None where the system does not tell enough (it has no ``/proc``)."""
    try:
        _, started = _stat(os.getpid())
        return f"{_where()} {os.getpid()} {started}"
    except (OSError, ValueError, IndexError):
        return None


def gone(marked: str | None) -> bool:
    """Whether the process of a mark has ended. False also where this one cannot tell."""
    try:
        where, pid, started = (marked or "").split()
        if where != _where():
            return False
        os.kill(int(pid), 0)
        state, began = _stat(int(pid))
    except ProcessLookupError:
        return True
    except (OSError, ValueError, IndexError):  # others' processes may be hidden
        return False
    return state in _OVER or began != started


def _where() -> str:
    """Where process ids count: this boot of this machine, this namespace."""
    parts = socket.gethostname(), _BOOT.read_text().strip(), str(_NAMESPACE.stat().st_ino)
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=_MARK_BYTES).hexdigest()


def _stat(pid: int) -> tuple[str, str]:
    """Its state and when it began. The command's name before them may hold anything."""
    fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    return fields[_STATE], fields[_STARTED]
