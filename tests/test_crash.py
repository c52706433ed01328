"""What was acknowledged stays, whole and once, through SIGKILL; and the check that says so would notice if not."""

import asyncio
import os
import secrets
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from crash.checker import check
from crash.killer import postmaster
from crash.run import Plan, run
from embedded_service import wait_gone
from external_postgres import ExternalPostgres
from service_process import ServiceProcess

from service.embedded import attach

_SEED = int(os.environ.get("CRASH_SEED", secrets.randbits(32)))
_SERIAL = 500


async def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """The short one: ``python -m tests.crash`` is longer. Set CRASH_SEED to what it printed to do the same again."""
    with ServiceProcess(tmp_path / "data") as service:
        done = await run(service, Plan(_SEED, kills=8, acks=1500, pause_s=(0.2, 0.8)))
    print(*done.lines(), sep="\n")
    assert check(done.history) == []
    assert len(done.kills) >= 8
    assert done.history.acknowledged() >= 1500
    # A run in which nothing was in doubt shows nothing.
    assert sum(each.status is None for each in done.attempts) > 20


_NOT_ASKING = """
import sys
from service.sql import pool

async def nobody_asks(_): pass

pool._check_durable = nobody_asks
sys.argv = ["authstore", "serve"]
from service.cli.main import main
main()
"""


async def test_a_lossy_database_is_noticed(tmp_path: Path) -> None:
    """The same run on a Postgres that answers before it has written. The service refuses it, unless it is kept from asking."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "postgresql.user.conf").write_text("wal_writer_delay = 10s\nwal_writer_flush_after = 1GB\n")
    with ServiceProcess(data, command=(sys.executable, "-c", _NOT_ASKING)) as service:
        url = attach(data)
        assert url is not None
        await _execute(url, "ALTER DATABASE authstore SET synchronous_commit = off")
        done = await run(service, Plan(_SEED, kills=4, acks=200, kinds=("postgres",), pause_s=(0.5, 1.0)))
    assert {"lost"} <= {violation.kind for violation in check(done.history)}
    assert "synchronous_commit = off" in _refusal(service)


class _RollingBack(ServiceProcess):
    """Its first kill keeps a copy of the data folder, every later one puts that copy back."""

    def kill9(self) -> None:
        pid = postmaster(self.data_dir)
        super().kill9()
        assert pid is None or wait_gone(pid)
        copy = self.data_dir.with_name("copy")
        if copy.exists():
            subprocess.run(["rm", "-r", self.data_dir], check=True)
        source, target = (copy, self.data_dir) if copy.exists() else (self.data_dir, copy)
        subprocess.run(["cp", "-a", source, target], check=True)


async def test_data_of_yesterday_is_noticed(tmp_path: Path) -> None:
    with _RollingBack(tmp_path / "data") as service:
        done = await run(service, Plan(_SEED, kills=2, acks=200, kinds=("service",), pause_s=(1.0, 1.5)))
    assert {"lost", "double"} <= {violation.kind for violation in check(done.history)}


async def _execute(url: str, statement: str, times: int = 1) -> None:
    connection = await asyncpg.connect(url)
    try:
        for _ in range(times):
            await connection.execute(statement)
    finally:
        await connection.close()


async def _wal_fsyncs(url: str) -> int:
    """How often WAL was forced to disk so far. Backends tell at their end, so those of the service are ended first."""
    connection = await asyncpg.connect(url)
    try:
        ended = (
            "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE application_name = 'authstore'"
        )
        await connection.execute(ended)
        await connection.execute("SELECT pg_stat_force_next_flush()")
        total: int = await connection.fetchval("SELECT sum(fsyncs)::bigint FROM pg_stat_io WHERE object = 'wal'")
        return total
    finally:
        await connection.close()


async def test_every_commit_is_forced_to_disk(tmp_path: Path) -> None:
    with ServiceProcess(tmp_path / "data") as service:
        url = attach(service.data_dir)
        assert url is not None
        before = await _wal_fsyncs(url)
        for n in range(_SERIAL):
            answer = await asyncio.to_thread(
                service.call, "POST", "/v1/sessions/serial/commit", {"keys": {"session": {"a": {"n": n}}}}
            )
        assert answer["version"] == _SERIAL
        assert await _wal_fsyncs(url) - before >= _SERIAL


@pytest.mark.parametrize("setting", ["fsync", "synchronous_commit", "full_page_writes"])
async def test_a_database_that_may_lose_commits_is_refused(tmp_path: Path, setting: str) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "postgresql.user.conf").write_text(f"{setting} = off\n")
    assert f"{setting} is off" in _refusal(ServiceProcess(data))
    with ExternalPostgres(tmp_path / "external", {setting: "off"}) as server:
        env = {"AUTHSTORE_DATABASE_URL": server.url, "AUTHSTORE_MASTER_KEY": _master_key()}
        assert f"{setting} = off" in _refusal(ServiceProcess(tmp_path / "other", env))
        if setting == "full_page_writes":
            return
        # And the count above would have shown it.
        before = await _wal_fsyncs(server.url)
        await _execute(server.url, "CREATE TABLE IF NOT EXISTS serial (n int)")
        await _execute(server.url, "INSERT INTO serial VALUES (1)", _SERIAL)
        assert await _wal_fsyncs(server.url) - before < _SERIAL / 2


def _master_key() -> str:
    return secrets.token_hex(32)


def _refusal(service: ServiceProcess) -> str:
    """What a service says that does not start."""
    with pytest.raises(AssertionError, match="the service ended with 1"):
        service.start()
    return service.log.read_text()
