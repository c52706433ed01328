"""The data folder: who may be in it, its lock, and the folder of its socket.

    DIR/lock                  held by the service while it lives; says where the socket is
    DIR/server.lock           held by the processes of Postgres, for exactly as long as one of them lives
    DIR/pg/                   the data (PGDATA), 0700, owned by the account
    DIR/run/                  the socket, 0700, owned by the account
    DIR/start.log             what initdb and a starting Postgres say; afterwards Postgres logs to DIR/pg/log/
    DIR/postgresql.user.conf  the operator's own settings, optional
    DIR/pgsql/                a copy of the programs, only when the wheel is out of the account's reach

A folder the account cannot enter, such as one below a 0700 home, is never opened for it. It is handed over as an open
descriptor instead (`Place`): Linux lets a process use a folder it has open without asking about the path above it.
"""

import fcntl
import json
import os
import secrets
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from service.embedded.account import Account
from service.embedded.errors import AlreadyRunning, EmbeddedError, UnsafeFolder

PORT: Final = 5432
SOCKET: Final = f".s.PGSQL.{PORT}"
DATABASE: Final = "authstore"
SUPERUSER: Final = "postgres"
# sockaddr_un.sun_path is 108 bytes with its NUL.
_SOCKET_PATH_LIMIT: Final = 107
_PRIVATE: Final = 0o700
_OPEN: Final = 0o755
_PEER_BYTES: Final = struct.calcsize("3i")


@dataclass(frozen=True, slots=True)
class Place:
    """A folder as the account can name it, and the descriptors a child has to inherit for that name to hold."""

    name: str
    keep: tuple[int, ...] = ()


@contextmanager
def place_of(folder: Path, account: Account) -> Iterator[Place]:
    """The folder for a child about to be started; the descriptor is needed only until then."""
    if account.traverses(folder):
        yield Place(str(folder))
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield Place(f"/proc/self/fd/{descriptor}", (descriptor,))
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Folder:
    """The paths below one data folder."""

    root: Path

    @classmethod
    def at(cls, data_dir: Path) -> "Folder":
        """The folder by its real path, so that two names of one folder are one."""
        return cls(data_dir.expanduser().resolve())

    @property
    def lock(self) -> Path:
        """Held by the service."""
        return self.root / "lock"

    @property
    def server_lock(self) -> Path:
        """Held by Postgres."""
        return self.root / "server.lock"

    @property
    def pg(self) -> Path:
        """PGDATA."""
        return self.root / "pg"

    @property
    def log(self) -> Path:
        """What a starting Postgres says."""
        return self.root / "start.log"

    @property
    def user_conf(self) -> Path:
        """The operator's own settings."""
        return self.root / "postgresql.user.conf"

    def make(self) -> None:
        """Make the data folder, 0700, when it is missing; refuse one in which strangers can write."""
        try:
            self._make_parents()
            self.root.mkdir(mode=_PRIVATE, exist_ok=True)
            status = self.root.stat()
        except OSError as error:
            raise UnsafeFolder(f"{self.root} cannot be used: {error.strerror}") from error
        trusted_groups = {os.getegid(), *os.getgroups()}
        if status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and status.st_gid not in trusted_groups):
            raise UnsafeFolder(f"others can write in {self.root}: take that right from them")

    def _make_parents(self) -> None:
        """None in which strangers could replace what is below it, whatever the umask."""
        for missing in reversed([step for step in self.root.parents if not step.exists()]):
            missing.mkdir(mode=_OPEN, exist_ok=True)

    def trust(self, account: Account) -> None:
        """Refuse a data folder whose owner is neither root nor ourselves nor the account."""
        if self.root.stat().st_uid not in (0, os.geteuid(), account.uid):
            raise UnsafeFolder(f"{self.root} belongs to another user")

    def hold(self) -> int:
        """The descriptor of the held lock. Raises AlreadyRunning at once when another process holds it."""
        descriptor = open_private(self.lock)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise AlreadyRunning(f"another service holds {self.root}") from None
        return descriptor

    def socket_folder(self, held: int, account: Account) -> Path:
        """A private folder whose socket a client can name, and noted in the lock for `recorded_socket_folder`.

        That is DIR/run, unless its path is too long for a socket or holds a comma, which separates hosts to clients.
        The note tells this folder from a copy of it, whose lock file names the original's socket.
        """
        own = self.root / "run"
        if _nameable(own):
            own.mkdir(mode=_PRIVATE, exist_ok=True)
            chosen = _made_private(own, account)
        else:
            latest = self.recorded_socket_folder()
            chosen = latest if latest and _is_private(latest, account) else _short_folder(account)
        os.ftruncate(held, 0)
        noted = {"pid": os.getpid(), "socket_folder": str(chosen), "of": self._identity()}
        os.pwrite(held, json.dumps(noted).encode(), 0)
        return chosen

    def recorded_socket_folder(self) -> Path | None:
        """Where the latest holder of the lock put the socket; None when there never was one, also not for a copy."""
        return self._noted_socket_folder(signed=True)

    def unsigned_socket_folder(self) -> Path | None:
        """The same where the note does not say of which folder it is, as earlier releases left it: maybe a copy's."""
        return self._noted_socket_folder(signed=False)

    def _noted_socket_folder(self, *, signed: bool) -> Path | None:
        try:
            noted = json.loads(self.lock.read_bytes())
            ours = noted["of"] == self._identity() if signed else "of" not in noted
            return Path(noted["socket_folder"]) if ours else None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError:
            raise UnsafeFolder(f"{self.root} is private: run as the user of the service, or as root") from None
        except (ValueError, KeyError, TypeError):
            return None

    def is_held(self) -> bool:
        """Whether somebody holds the lock. Asked last: for a moment the question itself holds it."""
        try:
            descriptor = os.open(self.lock, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _identity(self) -> list[int]:
        status = self.root.stat()
        return [status.st_dev, status.st_ino]


def open_private(path: Path, flags: int = 0) -> int:
    """A file that only we read and write, never through a link somebody planted."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | flags, 0o600)
    except OSError as error:
        raise UnsafeFolder(f"{path} cannot be opened: {error.strerror}") from error


def dsn(socket_folder: Path, database: str = DATABASE) -> str:
    """The URL of a database on that socket, for libpq and asyncpg. It holds no secret: the socket asks who we are."""
    return f"postgresql://{SUPERUSER}@/{database}?host={quote(str(socket_folder), safe='/')}&port={PORT}"


def listener_of(socket_folder: Path) -> int | None:
    """The process that listens on the socket in there, None when nobody does. Nothing is sent to it.

    0 for one that listens and cannot be named: one of another container, or too busy to be asked.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        try:
            connection.connect(str(socket_folder / SOCKET))
        except BlockingIOError:
            return 0
        except OSError:
            return None
        pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_BYTES))
    return int(pid)


def _nameable(folder: Path) -> bool:
    return len(os.fsencode(folder / SOCKET)) <= _SOCKET_PATH_LIMIT and "," not in str(folder)


def _is_private(folder: Path, account: Account) -> bool:
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == account.uid and status.st_mode & 0o077 == 0


def _made_private(folder: Path, account: Account) -> Path:
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in (account.uid, os.geteuid()):
        raise UnsafeFolder(f"{folder} belongs to another user")
    if status.st_uid != account.uid:
        os.chown(folder, account.uid, account.gid, follow_symlinks=False)
    folder.chmod(_PRIVATE)
    return folder


def _short_folder(account: Account) -> Path:
    """A folder with an unpredictable name where nobody else can rename or replace it."""
    for base in (Path("/run"), Path(f"/run/user/{os.geteuid()}"), Path("/tmp")):  # noqa: S108  checked, private, random
        if not _keeps_entries(base) or not account.traverses(base):
            continue
        folder = base / f"authstore-{secrets.token_hex(8)}"
        with suppress(OSError):
            folder.mkdir(mode=_PRIVATE)
            return _made_private(folder, account)
    raise EmbeddedError("the path of the data folder is too long for a socket, and neither /run nor /tmp can hold one")


def _keeps_entries(base: Path) -> bool:
    """Whether only root and ourselves could replace what we make in there."""
    try:
        status = base.lstat()
    except OSError:
        return False
    shared = status.st_mode & 0o022
    return status.st_uid in (0, os.geteuid()) and (not shared or bool(status.st_mode & stat.S_ISVTX))
