"""The embedded Postgres after kill -9 of its service, of itself, of both, and with what that leaves behind."""

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from embedded_service import WITHOUT_DEATH_SIGNAL, Service, is_alive, wait_gone
from service_process import ServiceProcess

from service.embedded import EmbeddedPostgres, ServerEvent, account, attach, binaries, processes, running
from service.embedded.errors import StartFailed
from service.embedded.folder import Folder


async def _commit(dsn: str, count: int) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE IF NOT EXISTS kept (n serial)")
    for _ in range(count):
        await connection.execute("INSERT INTO kept DEFAULT VALUES")
    connection.terminate()


async def _count(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    count: int = await connection.fetchval("SELECT count(*) FROM kept")
    await connection.close()
    return count


def _log(folder: Path) -> str:
    return "".join(file.read_text() for file in sorted((folder / "pg/log").iterdir()))


async def test_postgres_ends_with_a_killed_service(tmp_path: Path) -> None:
    service = Service(tmp_path)
    ready = service.event("ready")
    await _commit(str(ready["dsn"]), 20)
    service.kill()
    assert wait_gone(int(str(ready["pid"])))
    assert "received fast shutdown request" in _log(tmp_path)
    assert "database system is shut down" in _log(tmp_path)
    with running(tmp_path) as dsn:
        assert await _count(dsn) == 20


async def test_a_new_service_waits_for_the_old_postgres(tmp_path: Path) -> None:
    for round_ in range(1, 5):
        service = Service(tmp_path)
        ready = service.event("ready")
        await _commit(str(ready["dsn"]), 5)
        service.kill()
        with running(tmp_path) as dsn:
            assert not is_alive(int(str(ready["pid"])))
            assert await _count(dsn) == 5 * round_


async def test_service_and_postgres_killed_together(tmp_path: Path) -> None:
    for round_, order in enumerate((1, -1, 1, -1), start=1):
        service = Service(tmp_path)
        ready = service.event("ready")
        await _commit(str(ready["dsn"]), 5)
        for pid in (int(str(ready["pid"])), service.process.pid)[::order]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        service.kill()
        with running(tmp_path) as dsn:
            assert await _count(dsn) == 5 * round_


@contextlib.asynccontextmanager
async def _supervised(server: EmbeddedPostgres) -> AsyncIterator["asyncio.Queue[ServerEvent]"]:
    events: asyncio.Queue[ServerEvent] = asyncio.Queue()
    task = asyncio.create_task(server.supervise(events.put_nowait))
    try:
        yield events
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await asyncio.to_thread(server.stop)


async def _next(events: "asyncio.Queue[ServerEvent]", kind: str) -> ServerEvent:
    async with asyncio.timeout(30):
        while (event := await events.get()).kind != kind:
            pass
    return event


async def test_a_killed_postmaster_is_noticed_and_restarted(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path)
    server.start()
    async with _supervised(server) as events:
        await _next(events, "ready")
        for round_ in range(1, 4):
            await _commit(server.dsn, 10)
            old = server.pid
            assert old is not None
            os.kill(old, signal.SIGKILL)
            exited = await _next(events, "exited")
            assert exited.exit_code == -signal.SIGKILL
            assert not server.ready
            await _next(events, "ready")
            assert server.ready
            assert server.pid != old
            assert await _count(server.dsn) == 10 * round_


async def test_supervision_can_do_the_first_start(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path)
    dsn = server.open()
    assert server.pid is None
    assert attach(tmp_path) is None
    async with _supervised(server) as events:
        await _next(events, "ready")
        assert attach(tmp_path) == dsn


async def test_a_server_that_cannot_start_is_tried_again(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path)
    server.start()
    async with _supervised(server) as events:
        await _next(events, "ready")
        control = tmp_path / "pg/global/pg_control"
        hidden = control.rename(tmp_path / "hidden")
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        failed = await _next(events, "failed")
        assert isinstance(failed.error, StartFailed)
        hidden.rename(control)
        await _next(events, "ready")
        await _commit(server.dsn, 1)


async def test_supervision_ends_when_the_server_is_stopped(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path)
    server.start()
    events: list[str] = []
    task = asyncio.create_task(server.supervise(lambda event: events.append(event.kind)))
    await asyncio.sleep(0.05)
    await asyncio.to_thread(server.stop)
    async with asyncio.timeout(5):
        await task
    assert events == ["ready"]


async def test_a_disk_that_was_full_for_a_while_does_not_keep_it_down(tmp_path: Path) -> None:
    """What cannot be written to is, for root too, a file at its size limit: the lock stays free for the next try."""
    server = EmbeddedPostgres(tmp_path)
    server.start()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with _supervised(server) as events:
        await _next(events, "ready")
        assert server.pid is not None
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        try:
            os.kill(server.pid, signal.SIGKILL)
            failed = await _next(events, "failed")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert isinstance(failed.error, OSError)
        await _next(events, "ready")
        await _commit(server.dsn, 1)


async def test_waiting_for_an_earlier_postgres_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.embedded.server._REMIND_AFTER_S", 0.1)
    server = EmbeddedPostgres(tmp_path)
    server.open()
    held = processes.claim(Folder.at(tmp_path))
    assert held is not None
    async with _supervised(server) as events:
        await _next(events, "waiting")
        os.close(held)
        await _next(events, "ready")


def test_a_start_that_waits_for_an_earlier_postgres_tells_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.embedded.server._REMIND_AFTER_S", 0.1)
    server = EmbeddedPostgres(tmp_path)
    held = processes.claim(Folder.at(tmp_path))
    assert held is not None
    told = []

    def note(event: ServerEvent) -> None:
        told.append(event.kind)
        os.close(held)

    try:
        server.start(note)
        assert told == ["waiting"]
    finally:
        server.stop()


def test_a_service_that_waits_for_an_earlier_postgres_logs_so(tmp_path: Path) -> None:
    """Its whole start waits, and nothing else would tell what for."""
    service = ServiceProcess(tmp_path / "data")
    folder = Folder.at(service.data_dir)
    folder.make()
    held = processes.claim(folder)
    assert held is not None
    try:
        service.launch()
        deadline = time.monotonic() + 30
        while b"waiting for processes of an earlier Postgres" not in service.log.read_bytes():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.close(held)
        service.wait_ready()
    finally:
        service.stop()


def _as_owner(pg: Path, command: list[str]) -> "subprocess.Popen[bytes]":
    user = {"user": pg.owner(), "group": pg.group(), "extra_groups": []} if os.geteuid() == 0 else {}
    return subprocess.Popen(command, cwd="/", stdout=subprocess.DEVNULL, **user)


def _crashed(folder: Path) -> tuple[str, str]:
    """A folder whose Postgres was killed; the lock files it left."""
    server = EmbeddedPostgres(folder)
    server.start()
    files = (folder / "pg/postmaster.pid", folder / "run/.s.PGSQL.5432.lock")
    texts = tuple(file.read_text() for file in files)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    server.stop()
    assert files[0].exists()
    return texts[0], texts[1]


def _blame(folder: Path, texts: tuple[str, str], pid: int) -> None:
    for name, text in zip(("pg/postmaster.pid", "run/.s.PGSQL.5432.lock"), texts, strict=True):
        (folder / name).write_text(f"{pid}\n{text.partition(chr(10))[2]}")


@pytest.mark.parametrize("what", ["reused", "zombie", "garbage", "empty"])
def test_lock_files_of_the_dead_do_not_matter(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = _crashed(tmp_path)
    pg = tmp_path / "pg"
    programs = binaries.find(account.for_data(pg), tmp_path, None)
    other = _as_owner(pg, ["sleep", "60"] if what == "reused" else [programs.program("postgres"), "--version"])
    try:
        if what == "zombie":
            while is_alive(other.pid):
                time.sleep(0.01)
        if what in ("reused", "zombie"):
            _blame(tmp_path, texts, other.pid)
        else:
            (pg / "postmaster.pid").write_text("" if what == "empty" else "not a number\n")
        with monkeypatch.context() as patched:
            # Without our clearing, Postgres itself does refuse.
            patched.setattr(processes, "clear", lambda *_: None)
            with pytest.raises(StartFailed):
                EmbeddedPostgres(tmp_path).start()
        with running(tmp_path) as dsn:
            assert attach(tmp_path) == dsn
        if what == "reused":
            assert is_alive(other.pid)
    finally:
        other.kill()
        other.wait()


def test_a_backend_that_outlives_its_postmaster_is_waited_for(tmp_path: Path) -> None:
    """Two generations in one folder would destroy it: the next start waits until the last process is gone."""
    server = EmbeddedPostgres(tmp_path)
    server.start()
    assert server.pid is not None
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    # Not just any: those of connections and of autovacuum come and go.
    stopped = next(int(pid) for pid in children if b"checkpointer" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(stopped, signal.SIGSTOP)
    try:
        os.kill(server.pid, signal.SIGKILL)
        server.stop()
        service = Service(tmp_path)
        with pytest.raises(subprocess.TimeoutExpired):
            service.process.wait(1.5)
        assert attach(tmp_path) is None
        assert is_alive(stopped)
    finally:
        os.kill(stopped, signal.SIGCONT)
    service.event("ready")
    assert not is_alive(stopped)
    assert service.end() == 0


async def test_a_stopped_postgres_ends_when_it_goes_on(tmp_path: Path) -> None:
    service = Service(tmp_path)
    ready = service.event("ready")
    await _commit(str(ready["dsn"]), 3)
    os.kill(int(str(ready["pid"])), signal.SIGSTOP)
    service.kill()
    os.kill(int(str(ready["pid"])), signal.SIGCONT)
    with running(tmp_path) as dsn:
        assert await _count(dsn) == 3


async def test_an_orphan_is_shut_down_cleanly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the death signal not have come, the next service delivers it, and never more than that."""
    monkeypatch.setattr("service.embedded.server._REMIND_AFTER_S", 0.2)
    service = Service(tmp_path, env={WITHOUT_DEATH_SIGNAL: "1"})
    ready = service.event("ready")
    await _commit(str(ready["dsn"]), 3)
    service.kill()
    # It lives, and answers, yet no service keeps it: nobody may build on it.
    assert not wait_gone(int(str(ready["pid"])), within_s=1)
    assert await _count(str(ready["dsn"])) == 3
    assert attach(tmp_path) is None
    with running(tmp_path) as dsn:
        assert await _count(dsn) == 3
    assert not is_alive(int(str(ready["pid"])))
    assert "was not properly shut down" not in _log(tmp_path)
