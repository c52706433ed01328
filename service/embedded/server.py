"""`EmbeddedPostgres`: makes, starts, watches and stops the server of one data folder."""

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from service.embedded import binaries, launch, processes, settings
from service.embedded import folder as folders
from service.embedded.account import Account, for_data
from service.embedded.binaries import Binaries
from service.embedded.errors import (
    EmbeddedError,
    InitFailed,
    SocketTaken,
    StartFailed,
    StopFailed,
    UnsafeFolder,
    WrongMajor,
)
from service.embedded.folder import DATABASE, SUPERUSER, Folder, Place, place_of
from service.embedded.settings import ServerSettings

_STEP_S: Final = 0.02
_WATCH_S: Final = 0.1
_REMIND_AFTER_S: Final = 5.0
_TELL_EVERY_S: Final = 60.0
_FAST_STOP_S: Final = 60.0
_IMMEDIATE_STOP_S: Final = 30.0
_BACKOFF_LIMIT_S: Final = 30.0
_STEADY_S: Final = 60.0
_LOGS_KEPT: Final = 10


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """What became of the server. ``exit_code`` as `subprocess` has it (negative: the signal), only with ``exited``."""

    kind: Literal["starting", "waiting", "ready", "exited", "failed"]
    exit_code: int | None = None
    error: EmbeddedError | OSError | None = None


@dataclass(frozen=True, slots=True)
class _Opened:
    """What is known once the folder is ours."""

    held: int
    account: Account
    binaries: Binaries
    socket_folder: Path
    durability: list[str]


class EmbeddedPostgres:
    """The Postgres of one data folder, bound to the life of this process.

    `start` blocks until it takes connections; `supervise` then restarts it whenever it ends. Use `open` instead of
    `start` to let `supervise` do the first start as well, when recovery after a crash may be long. When this process
    dies, however it dies, Postgres shuts down by itself; nothing waits for that but the next start.
    """

    def __init__(self, data_dir: Path, *, pg_bin: Path | None = None, settings: ServerSettings | None = None) -> None:
        self._folder = Folder.at(data_dir)
        self._pg_bin = pg_bin
        self._settings = settings or ServerSettings()
        self._opened: _Opened | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._stopping = False

    @property
    def data_dir(self) -> Path:
        """The data folder by its real path."""
        return self._folder.root

    @property
    def dsn(self) -> str:
        """The URL of the database `authstore`, for asyncpg and libpq."""
        return folders.dsn(self._state.socket_folder)

    @property
    def socket_folder(self) -> Path:
        """The private folder of the socket."""
        return self._state.socket_folder

    @property
    def pid(self) -> int | None:
        """The postmaster's process id while it lives."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def ready(self) -> bool:
        """Whether the server lives and takes connections."""
        return self._ready and self.pid is not None

    @property
    def version(self) -> str:
        """The release of the programs, like ``18.6``."""
        return self._state.binaries.version

    def start(self, report: Callable[[ServerEvent], None] = lambda _: None) -> str:
        """Open the folder, start Postgres and wait until it takes connections, however long recovery lasts.

        Call it from the main thread. ``report`` hears while it waits for processes of an earlier Postgres to end.
        Returns `dsn`. Raises EmbeddedError; the folder is then free again.
        """
        self.open()
        try:
            for _ in self._bring_up(report):
                time.sleep(_STEP_S)
        except BaseException:
            self.stop()
            raise
        return self.dsn

    def open(self) -> str:
        """Lock the folder, make its database when missing, refuse what is unsafe; start nothing. Returns `dsn`."""
        if self._opened is not None:
            return self.dsn
        self._stopping = False
        self._folder.make()
        held = self._folder.hold()
        try:
            self._opened = self._open(held)
        except BaseException as error:
            os.close(held)
            if isinstance(error, OSError):
                raise UnsafeFolder(f"{self._folder.root} cannot be used: {error.strerror}") from error
            raise
        return self.dsn

    async def supervise(self, report: Callable[[ServerEvent], None]) -> None:
        """Keep the server running until `stop` or cancellation, restarting it with growing pauses of at most 30 s.

        Run it on the main thread's event loop. ``report`` hears of every change and must not block.
        """
        failures = 0
        while not self._stopping:
            began = time.monotonic()
            try:
                if not self.ready:
                    report(ServerEvent("starting"))
                    for _ in self._bring_up(report):
                        await asyncio.sleep(_STEP_S)
                report(ServerEvent("ready"))
                code = await self._exit()
                if not self._stopping:
                    report(ServerEvent("exited", exit_code=code))
            except (EmbeddedError, OSError) as error:
                if not self._stopping:
                    report(ServerEvent("failed", error=error))
            failures = 0 if time.monotonic() - began > _STEADY_S else failures + 1
            if not self._stopping:
                await asyncio.sleep(min(0.1 * 2 ** (failures - 1), _BACKOFF_LIMIT_S) if failures else 0)

    def stop(self) -> None:
        """Shut down: fast (SIGINT) for 60 s, then immediate (SIGQUIT), never SIGKILL. Blocks; any thread may call.

        A running `supervise` ends by itself when the server is up; cancel it first when it may be restarting one.
        Raises StopFailed when Postgres outlives that; it still ends with this process.
        """
        self._stopping = True
        process, opened = self._process, self._opened
        if process is not None:
            _end(process)
        self._process, self._opened, self._ready = None, None, False
        if opened is not None:
            os.close(opened.held)

    @property
    def _state(self) -> _Opened:
        if self._opened is None:
            raise EmbeddedError("the embedded Postgres is not open")
        return self._opened

    async def _exit(self) -> int | None:
        process = self._process
        while process is not None and process.poll() is None:  # noqa: ASYNC110  only waiting for it tells
            await asyncio.sleep(_WATCH_S)
        self._ready = False
        return process.returncode if process else None

    def _open(self, held: int) -> _Opened:
        account = for_data(self._folder.pg)
        self._folder.trust(account)
        found = binaries.find(account, self._folder.root, self._pg_bin)
        socket_folder = self._folder.socket_folder(held, account)
        _clear_unfinished(self._folder)
        if not _has_data(self._folder.pg):
            _initialize(self._folder, account, found)
        major = binaries.major_of(self._folder.pg)
        if major != str(found.major):
            raise WrongMajor(str(major), found.major)
        settings.write(self._folder, account, self._settings)
        with place_of(self._folder.pg, account) as place:
            durability = settings.checked(account, found, place)
        return _Opened(held, account, found, socket_folder, durability)

    def _bring_up(self, report: Callable[[ServerEvent], None]) -> Iterator[None]:
        """Start Postgres; one step for each moment that it is not ready yet."""
        opened = self._state
        remind_at = time.monotonic() + _REMIND_AFTER_S
        tell_at = remind_at
        while (server_lock := processes.claim(self._folder)) is None:
            now = time.monotonic()
            if now > remind_at:
                processes.remind(self._folder)
                remind_at = float("inf")
            if now > tell_at:
                report(ServerEvent("waiting"))
                tell_at = now + _TELL_EVERY_S
            yield
        try:
            processes.clear(self._folder, opened.socket_folder)
            process = self._process = self._spawn(opened, server_lock)
        finally:
            os.close(server_lock)
        while not processes.is_ready(self._folder, process.pid):
            if process.poll() is not None:
                raise StartFailed(
                    f"Postgres ended while starting (exit code {process.returncode}): see {self._folder.log}"
                )
            yield
        if folders.listener_of(opened.socket_folder) not in (process.pid, 0):
            # What clients would reach is not what we started: whatever it says, it is not this folder's data.
            _end(process)
            raise SocketTaken
        self._ready = True

    def _spawn(self, opened: _Opened, server_lock: int) -> subprocess.Popen[bytes]:
        _prune_logs(self._folder.pg / "log")
        log = folders.open_private(self._folder.log, os.O_TRUNC)
        with (
            os.fdopen(log, "wb") as output,
            place_of(self._folder.pg, opened.account) as place,
            place_of(opened.socket_folder, opened.account) as socket_place,
        ):
            command = [opened.binaries.program("postgres"), "-D", place.name]
            command += opened.durability + settings.arguments(place, socket_place)
            keep = (server_lock, *place.keep, *socket_place.keep)
            return launch.spawn(opened.account, command, keep=keep, output=output)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number, patience in ((signal.SIGINT, _FAST_STOP_S), (signal.SIGQUIT, _IMMEDIATE_STOP_S)):
        process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            return
    raise StopFailed


def _has_data(pg: Path) -> bool:
    """Whether there is data. Raises UnsafeFolder for a folder that holds something else, which is never touched."""
    try:
        names = os.listdir(pg)
    except FileNotFoundError:
        return False
    if names and "PG_VERSION" not in names:
        raise UnsafeFolder(f"{pg} holds something that is not the data of a Postgres")
    return bool(names)


def _clear_unfinished(folder: Folder) -> None:
    for unfinished in folder.root.glob("pg.new-*"):
        shutil.rmtree(unfinished, ignore_errors=True)


def _initialize(folder: Folder, account: Account, found: Binaries) -> None:
    """Make the data beside its place and move it there whole: a kill in between leaves no half of it."""
    fresh = folder.root / f"pg.new-{secrets.token_hex(8)}"
    fresh.mkdir(mode=0o700)
    if not account.is_self:
        os.chown(fresh, account.uid, account.gid)
    with place_of(fresh, account) as place:
        _run_initdb(folder, account, found, place)
    fresh.rename(folder.pg)
    descriptor = os.open(folder.root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _run_initdb(folder: Folder, account: Account, found: Binaries, place: Place) -> None:
    initdb = [found.program("initdb"), "-D", place.name, f"--username={SUPERUSER}", "--data-checksums"]
    initdb += ["--auth-local=peer", "--auth-host=reject", "--encoding=UTF8", "--locale=C", "--no-instructions"]
    create = [found.program("postgres"), "--single", "-j", "-D", place.name, "postgres"]
    statement = f"CREATE DATABASE {DATABASE};\n\n".encode()
    with os.fdopen(folders.open_private(folder.log, os.O_TRUNC), "wb") as log:
        for command, stdin in ((initdb, b""), (create, statement)):
            answer = launch.run(account, command, keep=place.keep, stdin=stdin)
            log.write(answer.stdout + answer.stderr)
            # Single user mode goes on after an error and exits with 0.
            if answer.returncode != 0 or b"ERROR:" in answer.stderr:
                raise InitFailed(f"the database could not be made: see {folder.log}")


def _prune_logs(logs: Path) -> None:
    with suppress(OSError):
        for old in sorted(logs.glob("postgres-*.log"))[:-_LOGS_KEPT]:
            old.unlink()
