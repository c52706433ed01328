"""Which processes serve this folder: ours, those of an earlier life still ending, and the dead that files name.

Postgres itself refuses to start when the process named in postmaster.pid exists, even as a zombie or as something else
that got its number. We know better: whoever we start holds DIR/server.lock, as do its children, until the last is gone.
"""

import fcntl
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from service.embedded.errors import AlreadyRunning, ForeignServer, SocketTaken
from service.embedded.folder import SOCKET, Folder, listener_of, open_private

_PID_FILE: Final = "postmaster.pid"
_STATUS_LINE: Final = 7


def claim(folder: Folder) -> int | None:
    """A descriptor of the held server lock, for a new Postgres to inherit; None while one of an earlier life lives.

    The file then names this process, as the service whose child the new Postgres is.
    """
    descriptor = open_private(folder.server_lock)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)  # as on a full disk: kept open, it would hold the lock against our own next try
        raise
    return descriptor


def remind(folder: Folder) -> None:
    """Deliver the death signal late, to a server that an earlier life of the service left behind.

    Raises AlreadyRunning when the service that started it lives after all, as when somebody removed DIR/lock.
    """
    pid = postmaster_of(folder)
    if pid is None:
        return
    if has_service(folder):
        raise AlreadyRunning(f"another service serves {folder.root}, though its lock file is gone")
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGINT)


def has_service(folder: Folder) -> bool:
    """Whether the postmaster of this folder is still the child of the service that started it.

    It is not from the very moment that service dies, while it may take connections for a little longer. The files of a
    copied folder name processes of the original, which work in another one.
    """
    pid = postmaster_of(folder)
    with suppress(FileNotFoundError, ProcessLookupError):
        return pid is not None and _status(pid).parent == named_pid(folder.server_lock)
    return False


def postmaster_of(folder: Folder) -> int | None:
    """The living postmaster of this data, None when there is none."""
    pid = named_pid(folder.pg / _PID_FILE)
    return pid if pid is not None and _serves(pid, folder.pg) else None


def is_seen_in(folder: Folder) -> bool:
    """Whether the process that postmaster.pid names works in this data, and not maybe in that of which it is a copy.

    False too for who may not look at that process.
    """
    with suppress(OSError):
        pid = named_pid(folder.pg / _PID_FILE)
        return pid is not None and _works_in(pid, folder.pg)
    return False


def clear(folder: Folder, socket_folder: Path) -> None:
    """Remove lock files of the dead. Raises ForeignServer when a living Postgres of this data wrote one of them.

    Also when somebody listens on the socket: none of ours lives, so it is another folder's, and would lose its clients.
    """
    files = (folder.pg / _PID_FILE, socket_folder / f"{SOCKET}.lock")
    for file in files:
        pid = named_pid(file)
        if pid is not None and _serves(pid, folder.pg):
            raise ForeignServer(pid)
    if listener_of(socket_folder) is not None:
        raise SocketTaken(f"another Postgres listens in {socket_folder}: stop it first")
    for file in files:
        file.unlink(missing_ok=True)


def is_ready(folder: Folder, pid: int) -> bool:
    """Whether the postmaster with this pid has said that it takes connections."""
    try:
        lines = (folder.pg / _PID_FILE).read_text("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return False
    return len(lines) > _STATUS_LINE and lines[0] == str(pid) and lines[_STATUS_LINE].strip() == "ready"


def named_pid(file: Path) -> int | None:
    """The process named in a lock file of Postgres, or None when there is no file or no number in it."""
    try:
        first = file.read_text("utf-8", "replace").partition("\n")[0]
    except FileNotFoundError:
        return None
    # A single user mode writes its number negated.
    return abs(int(first)) if first.lstrip("-").isdecimal() else None


def _serves(pid: int, pg: Path) -> bool:
    """Whether this process lives and is a Postgres of this data; a zombie and a reused number are not."""
    with suppress(FileNotFoundError, ProcessLookupError):
        status = _status(pid)
        if status.state in "ZX" or not status.name.startswith("postgres"):
            return False
        try:
            return _works_in(pid, pg)
        except PermissionError:
            # A container's root may not look at other users' processes: take any Postgres of the data's owner for it.
            return os.stat(f"/proc/{pid}").st_uid == pg.stat().st_uid
    return False


def _works_in(pid: int, pg: Path) -> bool:
    return os.path.samestat(os.stat(f"/proc/{pid}/cwd"), pg.stat())


class _Status(NamedTuple):
    name: str
    state: str
    parent: int


def _status(pid: int) -> _Status:
    """From ``PID (NAME) STATE PPID ...``, where the name may hold blanks and parentheses."""
    head, _, tail = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")
    state, parent = tail.split()[:2]
    return _Status(head.partition("(")[2], state, int(parent))
