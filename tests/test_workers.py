"""Several serving processes on one port: they share a session's commits, one that dies is replaced, none is left behind."""

import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import pytest
from service_process import COMMAND, ServiceProcess

from service.errors import NotLetIn
from service.sql.pool import Database

COMMITS = 40


def children(pid: int) -> list[int]:
    """Serving processes: children of the parent that were spawned to serve."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if int(stat[1]) == pid and b"spawn_main" in command:
                found.append(int(entry.name))
    return found


def test_workers_commit_to_one_session_and_are_replaced(tmp_path):
    socket_path = tmp_path / "service.sock"
    env = {"AUTHSTORE_WORKERS": "2", "AUTHSTORE_UNIX_SOCKET": str(socket_path)}
    with ServiceProcess(tmp_path / "data", env) as service:
        parent = service.pid
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda n: commit(service, n), range(COMMITS)))
        assert sorted(answers) == list(range(1, COMMITS + 1)), "each commit has a version of its own"
        state = service.call("GET", "/v1/sessions/shared/state")
        assert len(state["keys"]["session"]) == COMMITS

        first = children(parent)
        assert len(first) == 2
        os.kill(first[0], signal.SIGKILL)
        deadline = time.monotonic() + 30
        while len(now := children(parent)) < 2 or first[0] in now:
            assert time.monotonic() < deadline, "the worker was not replaced"
            time.sleep(0.1)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            connect_when_there(client, str(socket_path))
            client.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert client.recv(64).startswith(b"HTTP/1.1 200")
        left = children(parent)
    for pid in left:
        assert not Path(f"/proc/{pid}").exists(), "a worker outlived the service"


def commit(service: ServiceProcess, number: int) -> int:
    answer = service.call("POST", "/v1/sessions/shared/commit", {"keys": {"session": {str(number): number}}})
    return int(answer["version"])


def connect_when_there(client: socket.socket, path: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            client.connect(path)
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            return


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    service = ServiceProcess(tmp_path / "data", {"AUTHSTORE_WORKERS": "2"})
    service.start()
    left = children(service.pid)
    assert len(left) == 2
    service.kill9()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in left):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.1)
    with service:
        assert service.call("GET", "/health/ready")["status"] == "ok"


def test_a_lost_master_key_is_not_replaced(tmp_path):
    with ServiceProcess(tmp_path / "data") as service:
        commit(service, 1)
    key = tmp_path / "data" / "master.key"
    kept = key.read_bytes()
    key.unlink()
    service.launch()
    assert service.wait(60) == 2
    assert not key.exists()
    assert b"master.key is missing" in service.log.read_bytes()
    key.write_bytes(kept)
    with service:
        assert service.call("POST", "/v1/sessions/shared/keys/get", {"session": ["1"]}) == {"session": {"1": 1}}


async def test_a_database_that_stops_waiting_for_the_disk_is_refused_at_once(database_url):
    """synchronous_commit can be switched off for a role or a database under a running service."""
    database = Database(database_url)
    await database.open()
    plain = await asyncpg.connect(database_url)
    try:
        async with database.connection() as connection:
            name = await connection.fetchval("SELECT current_database()")
        lane = await database.connect()
        lane.terminate()
        await plain.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
        with pytest.raises(NotLetIn):
            await database.connect()
    finally:
        await plain.close()
        await database.close()


async def test_a_pooled_connection_waits_for_a_server_that_comes_back(tmp_path):
    """Look-ups wait as long as commits do; health answers do not wait."""
    assert COMMAND.exists()
    service = ServiceProcess(tmp_path / "data")
    with service:
        commit(service, 1)
        pid = int((tmp_path / "data" / "pg" / "postmaster.pid").read_text().split()[0])
        statuses: list[int] = []

        def look() -> None:
            deadline = time.monotonic() + 3
            while time.monotonic() < deadline:
                statuses.append(service.ask("GET", "/v1/sessions/unknown")[0])

        looking = threading.Thread(target=look)
        looking.start()
        os.kill(pid, signal.SIGKILL)
        looking.join()
        service.wait_ready()
        # A look-up under way on a killed connection is 503; the next ones wait for the restart.
        assert statuses.count(503) <= 2
        assert 404 in statuses
