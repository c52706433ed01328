"""Where the service of a data folder listens: noted in the folder, for those who know the folder alone.

The note tells its folder from a copy, which is nobody's, and names the process that left it: one that was killed leaves
it behind. Imports nothing of the service, since containers ask for their health every few seconds.
"""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

_FILE: Final = "listening"


def note(data_dir: Path, addresses: Sequence[str]) -> None:
    """Notes addresses (`http://…`, `https://…`, `unix:…`) of this process, for its user's eyes. Raises OSError."""
    noted = {"pid": os.getpid(), "of": _identity(data_dir), "addresses": list(addresses)}
    new = data_dir / f".{_FILE}.new-{os.getpid()}"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(noted, file)
    new.replace(data_dir / _FILE)


def forget(data_dir: Path) -> None:
    """Takes this process's own note away, if it is still there."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        if _read(data_dir)["pid"] == os.getpid():
            (data_dir / _FILE).unlink()


def find(data_dir: Path) -> list[str]:
    """The addresses of the service that runs on this folder; none when none does. Raises PermissionError."""
    try:
        noted = _read(data_dir)
        if noted["of"] == _identity(data_dir) and _lives(noted["pid"]):
            return [str(address) for address in noted["addresses"]]
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return []


def _read(data_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((data_dir / _FILE).read_bytes())
    return found


def _identity(data_dir: Path) -> list[int]:
    status = data_dir.stat()
    return [status.st_dev, status.st_ino]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return True
