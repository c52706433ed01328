"""Several serving processes on one port: they share a session's commits, one that dies is replaced, none is left behind."""

import asyncio
import json
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import asyncpg
import pytest
from api import serve
from service_process import COMMAND, ServiceProcess

from service import listening, workers
from service.config import Settings
from service.embedded import attach
from service.errors import NotLetIn, StartError
from service.process import _run_worker, embedded_settings
from service.sql.pool import Database
from service.store import store_options

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


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_service_gets_neither_port_nor_path_of_the_first(tmp_path, workers):
    """Else both would start, and clients would meet the one or the other."""
    path = tmp_path / "service.sock"
    env = {"AUTHSTORE_WORKERS": workers, "AUTHSTORE_UNIX_SOCKET": str(path)}
    with ServiceProcess(tmp_path / "data", env) as service:
        with socket.socket(socket.AF_UNIX) as client:
            connect_when_there(client, str(path))
        second = ServiceProcess(tmp_path / "second", {"AUTHSTORE_WORKERS": "2"})
        second.port = service.port
        second.launch()
        assert second.wait(60) == 1
        assert f"cannot listen on 127.0.0.1:{service.port}: EADDRINUSE" in second.log.read_text()
        third = ServiceProcess(tmp_path / "third", env)
        third.launch()
        assert third.wait(60) == 1
        assert f"cannot listen on unix:{path}: EADDRINUSE" in third.log.read_text()
        for number in range(20):
            commit(service, number)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    # What is left of it is nobody's.
    with ServiceProcess(tmp_path / "data", env) as service:
        assert service.call("GET", "/health/ready")["status"] == "ok"


@pytest.mark.parametrize("wrong", ["tls_cert", "unix:"])
def test_what_keeps_workers_from_listening_is_told_once_and_ends_the_service(tmp_path, wrong):
    """Else the port takes connections that nobody ever answers."""
    pem = tmp_path / "no.pem"
    pem.write_text("nonsense")
    env = {
        "tls_cert": {"AUTHSTORE_TLS_CERT": str(pem), "AUTHSTORE_TLS_KEY": str(pem)},
        "unix:": {"AUTHSTORE_UNIX_SOCKET": str(tmp_path / "absent" / "http.sock")},
    }[wrong]
    service = ServiceProcess(tmp_path / "data", {"AUTHSTORE_WORKERS": "2", **env})
    service.launch()
    assert ended(service) == 1
    said = service.log.read_text()
    (sentence,) = [line for line in said.splitlines() if not line.startswith("{")]
    assert sentence.startswith("authstore: ")
    assert wrong in sentence
    assert "a worker ended" not in said


def ended(service: ServiceProcess) -> int:
    """The exit code of a service that ends by itself; one that does not is killed."""
    try:
        return service.wait(30)
    finally:
        if service._process is not None:
            service.kill9()


async def test_workers_of_which_none_can_serve_end_the_service(database_url, tmp_path, capfd):
    """After a few tries each. What ends them is logged as every error is: its class and where, never its text."""
    pem = tmp_path / "no.pem"
    pem.write_text("nonsense")
    load = partial(
        Settings.model_validate, {"master_key": "00" * 32, "tls_cert": pem, "tls_key": pem, "token": "t" * 32}
    )
    work = partial(_run_worker, load(), database_url, load)
    async with asyncio.timeout(60):
        with pytest.raises(StartError, match="serve"):
            await workers.watch(2, work, asyncio.Event(), listening.bind("127.0.0.1", 0))
    said = capfd.readouterr().err.splitlines()
    assert [line for line in said if not line.startswith("{")] == []
    failed = [json.loads(line) for line in said if "a worker failed" in line]
    assert len(failed) >= 6  # three for each place; one may have begun anew before the other's third ended
    assert "StartError" in str(failed[0])
    assert "PEM" not in str(failed[0])


def test_a_stopping_service_refuses_what_it_would_not_answer(tmp_path):
    """Nobody queues behind workers that end: the port is closed as soon as the last of them closes it."""
    with ServiceProcess(tmp_path / "data", {"AUTHSTORE_WORKERS": "2"}) as service:
        commit(service, 1)
        os.kill(service.pid, signal.SIGTERM)
        deadline = time.monotonic() + 30
        while True:
            assert time.monotonic() < deadline
            try:
                service.ask("GET", "/health/live")
            except OSError:
                break
        assert service.wait(30) == 0
        service.start()


def test_a_hangup_changes_nothing(tmp_path):
    """As when the terminal is closed that it was started from."""
    with ServiceProcess(tmp_path / "data", {"AUTHSTORE_WORKERS": "2"}) as service:
        for pid in (service.pid, *children(service.pid)):
            os.kill(pid, signal.SIGHUP)
        time.sleep(0.5)
        commit(service, 1)
        assert len(children(service.pid)) == 2
        assert b"a worker ended" not in service.log.read_bytes()


async def test_the_embedded_postgres_has_connections_for_all_workers(tmp_path):
    env = {"AUTHSTORE_WORKERS": "2", "AUTHSTORE_POOL_MAX": "40"}
    with ServiceProcess(tmp_path / "data", env) as service:
        url = attach(service.data_dir)
        assert url is not None
        connection = await asyncpg.connect(url)
        assert await connection.fetchval("SHOW max_connections") == "95"
        await connection.close()


@pytest.mark.parametrize("pool_max", [1, 2, 3, 4, 10])
async def test_the_embedded_postgres_has_room_for_what_a_small_pool_really_opens(database_url, pool_max):
    """A store has lanes of its own for commits and gets beside its pool, however small that was asked to be."""
    async with serve(database_url, pool_max=pool_max) as api:
        lanes = (api.store.write_lanes, api.store.read_lanes)
        most = api.store.database.pool_max + sum(len(each._workers) for each in lanes)
    settings = Settings(pool_max=pool_max, workers=20)
    assert store_options(settings).connections == most
    assert embedded_settings(settings).max_connections >= 20 * most + 15


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
