"""A copy of a data folder is another folder: whatever is done with it, the service of the original stays as it is."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from command_line import Cli, assert_all_there, fill
from embedded_service import as_root
from service_process import ServiceProcess

from service.embedded import EmbeddedPostgres, attach, running
from service.embedded.errors import SocketTaken
from service.embedded.folder import Folder

_TOO_LONG = "x" * 100


def _copy(original: Path, copy: Path) -> None:
    subprocess.run(["cp", "-a", original, copy], check=True)


async def _name(dsn: str, name: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(f"CREATE TABLE {name} ()")
    await connection.close()


async def _names(dsn: str) -> list[str]:
    connection = await asyncpg.connect(dsn)
    names = await connection.fetch("SELECT relname FROM pg_class WHERE relname LIKE 'only%' ORDER BY 1")
    await connection.close()
    return [row["relname"] for row in names]


def _stop(server: EmbeddedPostgres) -> None:
    """And its short socket folder is gone, which a service keeps for its next start."""
    socket_folder = server.socket_folder if server.pid else None
    server.stop()
    if socket_folder is not None and socket_folder.parent != server.data_dir:
        shutil.rmtree(socket_folder)


@pytest.mark.parametrize("above", ["short", _TOO_LONG])
async def test_a_cold_copy_has_a_socket_of_its_own(open_folder: Path, above: str) -> None:
    base = open_folder / above
    base.mkdir(mode=0o755)
    original, copy = EmbeddedPostgres(base / "original"), EmbeddedPostgres(base / "copy")
    original.start()
    original.stop()
    _copy(base / "original", base / "copy")
    original.start()
    try:
        await _name(original.dsn, "only_original")
        assert attach(base / "copy") is None
        copy.start()
        await _name(copy.dsn, "only_copy")
        assert copy.socket_folder != original.socket_folder
        assert await _names(original.dsn) == ["only_original"]
        assert await _names(copy.dsn) == ["only_copy"]
        assert attach(base / "original") == original.dsn
        assert attach(base / "copy") == copy.dsn
    finally:
        _stop(copy)
        assert await _names(original.dsn) == ["only_original"]
        _stop(original)


@pytest.mark.parametrize("above", ["short", _TOO_LONG])
async def test_a_copy_of_a_running_folder_does_not_lead_to_it(open_folder: Path, above: str) -> None:
    base = open_folder / above
    base.mkdir(mode=0o755)
    original = EmbeddedPostgres(base / "original")
    original.start()
    try:
        _copy(base / "original", base / "copy")
        await _name(original.dsn, "only_original")
        assert attach(base / "copy") is None
        with running(base / "copy") as dsn:
            assert await _names(dsn) == []
            assert attach(base / "copy") == dsn
        assert attach(base / "original") == original.dsn
        noted = Folder.at(base / "copy").recorded_socket_folder()
        assert noted not in (None, original.socket_folder)
        if above == _TOO_LONG:
            shutil.rmtree(noted)
    finally:
        _stop(original)


def _as_the_release_before_noted(data_dir: Path) -> None:
    """Its service noted where the socket is, and not of which folder."""
    lock = data_dir / "lock"
    noted = json.loads(lock.read_text())
    del noted["of"]
    lock.write_text(json.dumps(noted))


@pytest.mark.parametrize("above", ["short", _TOO_LONG])
async def test_a_running_service_of_the_release_before_is_found_and_its_copies_are_not(
    open_folder: Path, above: str
) -> None:
    base = open_folder / above
    base.mkdir(mode=0o755)
    original = EmbeddedPostgres(base / "original")
    original.start()
    try:
        _as_the_release_before_noted(base / "original")
        assert attach(base / "original") == original.dsn
        _copy(base / "original", base / "copy")
        await _name(original.dsn, "only_original")
        assert attach(base / "copy") is None
        with running(base / "copy") as dsn:
            assert await _names(dsn) == []
        if above == _TOO_LONG:
            shutil.rmtree(Folder.at(base / "copy").recorded_socket_folder() or base)
        assert attach(base / "original") == original.dsn
    finally:
        _stop(original)


@as_root
def test_a_copy_is_not_taken_for_its_original_where_processes_cannot_be_looked_at(open_folder: Path) -> None:
    """As by the root of a container, while somebody is about to start the copy: its lock still names the other socket."""
    original = EmbeddedPostgres(open_folder / "original")
    copy = open_folder / "copy"
    original.start()
    try:
        _as_the_release_before_noted(original.data_dir)
        _copy(original.data_dir, copy)
        held = Folder.at(copy).hold()
        look = "import pathlib, sys, service.embedded as e; print(e.attach(pathlib.Path(sys.argv[1])))"
        blind = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace", sys.executable, "-c", look, copy]
        assert subprocess.run(blind, capture_output=True, text=True, check=True).stdout == "None\n"
        os.close(held)
    finally:
        _stop(original)


def test_commands_on_a_copy_leave_the_running_service_alone(tmp_path: Path) -> None:
    """`key rotate` would wrap its data keys by a key that only the copy has."""
    with ServiceProcess(tmp_path / "data") as service:
        made = fill(service, 3)
        _copy(service.data_dir, tmp_path / "copy")
        later = fill(service, 1)
        beside = Cli(tmp_path / "copy")
        beside.good("sessions", "delete", "--purge", next(iter(made)))
        assert "\n2 data keys" in beside.good("key", "rotate").out
        assert next(iter(later)) not in beside.good("sessions", "list").out
        assert_all_there(service, made | later)
    with service:
        assert_all_there(service, made | later)


async def test_a_socket_on_which_somebody_listens_is_left_alone(open_folder: Path) -> None:
    """As that of another folder's Postgres, whose next client would come to us."""
    base = open_folder / _TOO_LONG
    server = EmbeddedPostgres(base)
    server.start()
    socket_folder = server.socket_folder
    server.stop()
    path = socket_folder / ".s.PGSQL.5432"
    try:
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            other.listen()
            (socket_folder / f"{path.name}.lock").write_text(f"{os.getpid()}\n")
            with pytest.raises(SocketTaken):
                server.start()
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
            assert (socket_folder / f"{path.name}.lock").exists()
        server.start()
        assert server.socket_folder == socket_folder
        server.stop()
    finally:
        shutil.rmtree(socket_folder)


def test_a_server_that_its_socket_does_not_lead_to_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = EmbeddedPostgres(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("service.embedded.server.folders.listener_of", lambda _: os.getpid())
        with pytest.raises(SocketTaken):
            server.start()
    assert server.pid is None
    with running(tmp_path):
        pass
