"""The embedded Postgres: what it is, who may enter, and what it refuses."""

import fcntl
import os
import pwd
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import asyncpg
import pytest
from embedded_service import STRANGER, Service, as_root, is_alive

from service.embedded import EmbeddedPostgres, ServerSettings, account, attach, binaries, running
from service.embedded.errors import (
    AlreadyRunning,
    ForeignServer,
    NoBinaries,
    NotMainThread,
    SettingsRefused,
    UnsafeFolder,
    WrongMajor,
)


async def _value(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_starts_stops_and_keeps_what_was_committed(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "data")
    for round_ in (1, 2):
        dsn = server.start()
        assert server.ready
        assert dsn == server.dsn
        await _value(dsn, "CREATE TABLE IF NOT EXISTS kept (n int)")
        await _value(dsn, f"INSERT INTO kept VALUES ({round_})")
        assert await _value(dsn, "SELECT array_agg(n ORDER BY n) FROM kept") == list(range(1, round_ + 1))
        pid = server.pid
        server.stop()
        assert pid is not None
        assert not is_alive(pid)
        assert not server.ready
    assert not (tmp_path / "data/pg/postmaster.pid").exists()


async def test_is_durable_private_and_quiet(postgres_server: EmbeddedPostgres) -> None:
    expected = {
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "data_checksums": "on",
        "server_encoding": "UTF8",
        "listen_addresses": "",
        "unix_socket_permissions": "0700",
        "log_statement": "none",
        "log_min_error_statement": "panic",
        "log_parameter_max_length": "0",
        "log_parameter_max_length_on_error": "0",
        "log_error_verbosity": "terse",
        "idle_in_transaction_session_timeout": "30s",
        "jit": "off",
        "max_connections": "50",
        "shared_buffers": "128MB",
    }
    for name, value in expected.items():
        assert await _value(postgres_server.dsn, f"SHOW {name}") == value, name
    rules = "SELECT array_agg(concat_ws(' ', type, database, user_name, auth_method, options)) FROM pg_hba_file_rules"
    assert await _value(postgres_server.dsn, rules) == ["local {all} {all} peer {map=svc}"]
    assert await _value(postgres_server.dsn, "SELECT datcollate FROM pg_database WHERE datname = 'authstore'") == "C"
    assert await _value(postgres_server.dsn, "SHOW server_version") == postgres_server.version


async def test_every_serial_commit_reaches_the_disk(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("CREATE TABLE t (n int)")
    count = "SELECT sum(fsyncs)::int FROM pg_stat_io WHERE object = 'wal' AND context = 'normal'"
    # A backend reports its counters when it has been idle for a moment, or when told to.
    before = await connection.fetchval(count)
    for n in range(500):
        await connection.execute("INSERT INTO t VALUES ($1)", n)
    await connection.execute("SELECT pg_stat_force_next_flush()")
    after = await connection.fetchval(count)
    await connection.close()
    assert after - before >= 500


def test_folders_are_private(postgres_server: EmbeddedPostgres) -> None:
    folder = postgres_server.data_dir
    assert postgres_server.pid is not None
    owner = Path(f"/proc/{postgres_server.pid}").stat().st_uid
    assert owner != 0
    for name in ("pg", "run"):
        status = (folder / name).stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o700, owner), name
    for name in ("lock", "server.lock", "start.log"):
        status = (folder / name).stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, os.geteuid()), name


@as_root
@pytest.mark.parametrize("path", ["folder closed", "folder open"])
def test_a_stranger_cannot_connect(tmp_path: Path, path: str) -> None:
    for parent in (tmp_path, *tmp_path.parents):
        if parent == Path(tempfile.gettempdir()):
            break
        parent.chmod(0o755)
    server = EmbeddedPostgres(tmp_path / "data")
    server.start()
    try:
        if path == "folder open":
            (tmp_path / "data").chmod(0o755)
            (tmp_path / "data/run").chmod(0o755)
            (tmp_path / "data/run/.s.PGSQL.5432").chmod(0o777)
        # Loaded as root, since a private home may hold the interpreter; the connection is the stranger's.
        script = "import asyncio, asyncpg, os, sys; os.setgroups([]); os.setgid(65534); os.setuid(int(sys.argv[2]));"
        script += "asyncio.run(asyncpg.connect(sys.argv[1]))"
        stranger = str(pwd.getpwnam(STRANGER).pw_uid)
        command = [sys.executable, "-c", script, server.dsn, stranger]
        tried = subprocess.run(command, cwd="/", capture_output=True, check=False)
        wanted = b"PermissionError" if path == "folder closed" else b"InvalidAuthorizationSpecificationError"
        assert wanted in tried.stderr
        assert tried.returncode != 0
    finally:
        server.stop()


def test_second_instance_is_refused_at_once(postgres_server: EmbeddedPostgres) -> None:
    with pytest.raises(AlreadyRunning):
        EmbeddedPostgres(postgres_server.data_dir).start()
    assert postgres_server.ready


def test_a_lock_file_that_vanished_does_not_make_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.embedded.server._REMIND_AFTER_S", 0.1)
    first = EmbeddedPostgres(tmp_path)
    first.start()
    try:
        (tmp_path / "lock").unlink()
        with pytest.raises(AlreadyRunning):
            EmbeddedPostgres(tmp_path).start()
        assert first.ready
    finally:
        first.stop()


def test_two_starters_at_once(tmp_path: Path) -> None:
    services = [Service(tmp_path / "data") for _ in range(2)]
    winner = loser = None
    for service in services:
        assert service.process.stdout is not None
        line = service.process.stdout.readline()
        if b'"refused"' in line:
            assert b"AlreadyRunning" in line
            loser = service
        else:
            assert b'"ready"' in line
            winner = service
    assert winner is not None
    assert loser is not None
    loser.kill()
    assert winner.end() == 0


def test_only_the_main_thread_starts_it(tmp_path: Path) -> None:
    caught: list[BaseException] = []

    def start() -> None:
        try:
            EmbeddedPostgres(tmp_path).start()
        except NotMainThread as error:
            caught.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert len(caught) == 1
    with running(tmp_path):
        pass


async def test_attach_and_running(tmp_path: Path) -> None:
    assert attach(tmp_path) is None
    with running(tmp_path) as first:
        assert await _value(first, "SELECT 1") == 1
        with running(tmp_path) as second:
            assert second == first
            assert attach(tmp_path) == first
        assert await _value(first, "SELECT 2") == 2
    assert attach(tmp_path) is None


def test_data_of_another_major_is_refused(tmp_path: Path) -> None:
    with running(tmp_path):
        pass
    (tmp_path / "pg/PG_VERSION").write_text("15\n")
    with pytest.raises(WrongMajor) as caught:
        EmbeddedPostgres(tmp_path).start()
    assert (caught.value.found, caught.value.needed) == ("15", 18)
    (tmp_path / "pg/PG_VERSION").write_text("18\n")
    with running(tmp_path):
        pass


@pytest.mark.parametrize("name", ["fsync", "full_page_writes", "synchronous_commit"])
@pytest.mark.parametrize("file", ["postgresql.user.conf", "pg/postgresql.auto.conf"])
def test_durability_cannot_be_switched_off(tmp_path: Path, name: str, file: str) -> None:
    with running(tmp_path):
        pass
    (tmp_path / file).write_text(f"{name} = off\n")
    with pytest.raises(SettingsRefused, match=name):
        EmbeddedPostgres(tmp_path).start()
    (tmp_path / file).write_text("work_mem = 8MB\n")
    with running(tmp_path):
        pass


async def test_own_settings_tune_but_do_not_open(tmp_path: Path) -> None:
    own = "work_mem = 9MB\nlisten_addresses = '*'\nport = 5433\nhba_file = '/dev/null'\nlog_parameter_max_length = -1\n"
    (tmp_path / "postgresql.user.conf").write_text(own)
    (tmp_path / "postgresql.user.conf").chmod(0o600)
    with running(tmp_path, settings=ServerSettings(shared_buffers_mb=16, max_connections=12)) as dsn:
        assert await _value(dsn, "SHOW work_mem") == "9MB"
        assert await _value(dsn, "SHOW listen_addresses") == ""
        assert await _value(dsn, "SHOW log_parameter_max_length") == "0"
        assert await _value(dsn, "SHOW shared_buffers") == "16MB"
        assert await _value(dsn, "SHOW max_connections") == "12"


def test_unreadable_own_settings_name_the_line_only(tmp_path: Path) -> None:
    (tmp_path / "postgresql.user.conf").write_text("work_mem = 8MB\nprimary_conninfo = 'password=hunter2\n")
    with pytest.raises(SettingsRefused, match="line 2") as caught:
        EmbeddedPostgres(tmp_path).start()
    assert "hunter2" not in str(caught.value)


async def test_no_value_reaches_the_log(tmp_path: Path) -> None:
    with running(tmp_path) as dsn:
        connection = await asyncpg.connect(dsn)
        await connection.execute("CREATE TABLE t (id text PRIMARY KEY, n int CHECK (n > 0))")
        await connection.execute("INSERT INTO t VALUES ($1, 1)", "needle-in-row")
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute("INSERT INTO t VALUES ($1, 1)", "needle-in-row")
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute("INSERT INTO t VALUES ($1, -1)", "needle-in-check")
        await connection.close()
    logs = "".join(file.read_text() for file in (tmp_path / "pg/log").iterdir()) + (tmp_path / "start.log").read_text()
    assert "duplicate key value violates unique constraint" in logs
    assert "needle" not in logs


def test_the_environment_stays_with_the_service(tmp_path: Path) -> None:
    service = Service(tmp_path / "data", env={"AUTHSTORE_MASTER_KEY": "needle-of-the-environment", "PGDATABASE": "x"})
    pid = service.event("ready")["pid"]
    environ = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"LC_ALL=C" in environ
    assert b"needle" not in environ
    assert b"PGDATABASE" not in environ
    assert service.end() == 0


def test_folders_made_above_the_data_are_not_open_to_others(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with running(tmp_path / "above/between/data"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "above").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "above/between").stat().st_mode) == 0o755


@pytest.mark.parametrize("mode", [0o757, 0o777])
def test_a_folder_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(mode)
    with pytest.raises(UnsafeFolder):
        EmbeddedPostgres(tmp_path / "data").start()
    assert not (tmp_path / "data/pg").exists()


def test_a_folder_shared_with_our_own_group_is_fine(tmp_path: Path) -> None:
    """As orchestrators mount volumes."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o2770)
    with running(tmp_path / "data"):
        pass


def test_something_else_in_place_of_the_data_is_left_alone(tmp_path: Path) -> None:
    with running(tmp_path):
        pass
    (tmp_path / "pg/PG_VERSION").unlink()
    before = sorted(path.name for path in (tmp_path / "pg").iterdir())
    with pytest.raises(UnsafeFolder):
        EmbeddedPostgres(tmp_path).start()
    assert sorted(path.name for path in (tmp_path / "pg").iterdir()) == before


def test_missing_programs_are_named(tmp_path: Path) -> None:
    with pytest.raises(NoBinaries):
        EmbeddedPostgres(tmp_path, pg_bin=tmp_path / "nowhere").start()


def test_an_unfinished_database_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "pg.new-0123/base").mkdir(parents=True)
    with running(tmp_path):
        pass
    assert not list(tmp_path.glob("pg.new-*"))


def test_a_server_started_by_hand_is_left_alone(tmp_path: Path) -> None:
    with running(tmp_path):
        pass
    pg = tmp_path / "pg"
    user = {"user": pg.owner(), "group": pg.group(), "extra_groups": []} if os.geteuid() == 0 else {}
    descriptor = os.open(pg, os.O_RDONLY)
    programs = binaries.find(account.for_data(pg), tmp_path, None)
    sockets = ["-c", f"unix_socket_directories=/proc/self/fd/{descriptor}", "-c", "listen_addresses="]
    by_hand = subprocess.Popen(
        [programs.program("postgres"), "-D", f"/proc/self/fd/{descriptor}", *sockets],
        env={"LC_ALL": "C"},
        cwd="/",
        pass_fds=(descriptor,),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **user,
    )
    try:
        while not (pg / "postmaster.pid").exists() or "ready" not in (pg / "postmaster.pid").read_text():
            assert by_hand.poll() is None
        with pytest.raises(ForeignServer) as caught:
            EmbeddedPostgres(tmp_path).start()
        assert caught.value.pid == by_hand.pid
        assert by_hand.poll() is None
    finally:
        by_hand.terminate()
        by_hand.wait()
        os.close(descriptor)


def test_the_lock_is_a_real_one(postgres_server: EmbeddedPostgres) -> None:
    folder = postgres_server.data_dir
    for name in ("lock", "server.lock"):
        with (folder / name).open("rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
