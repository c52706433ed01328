"""Real Baileys before, during and after a move: its contacts can read every message whichever store it is on."""

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from baileys_driver import FIXTURES, Device, FolderDevice, World
from migrating import EXPECTED, SCHEMA, shop
from service_process import COMMAND, ServiceProcess

from protocol.file_names import Exact, file_name, parse
from protocol.repairs import spelled
from protocol.spelling import CREDS, Spelling

releases = pytest.mark.parametrize("release", ["6", "7"], ids=["6.7.24", "7.0.0-rc14"])
SESSION = "company_900002"


@pytest.fixture
def world() -> Iterator[World]:
    with World() as running:
        yield running


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    with ServiceProcess(tmp_path / "data") as started:
        yield started


@pytest.fixture
async def tables(database_url: str) -> str:
    connection = await asyncpg.connect(database_url)
    await connection.execute(SCHEMA)
    await connection.close()
    return database_url


@releases
async def test_the_shops_store_opens_in_real_baileys(release: str, tables: str, service: ServiceProcess) -> None:
    connection = await asyncpg.connect(tables)
    await shop.fill(connection)
    await connection.close()
    done = await asyncio.to_thread(_authstore, service, "copy", "--from", tables)
    assert done.returncode == 3, done.stderr
    done = await asyncio.to_thread(_authstore, service, "verify", "--from", tables)
    assert done.returncode == 3, done.stderr + done.stdout  # equal; nine rows in the quarantine
    ids = {ktype: list(values) for ktype, values in shop.state()["keys"].items()}
    opened = await asyncio.to_thread(_open_state, release, service, ids)
    assert opened["counts"] == EXPECTED["keys"]
    assert opened["encrypted"] > 150
    assert opened["groups"] >= 11
    assert service.call("GET", f"/v1/sessions/{shop.SESSION}")["lease"] is None


@releases
async def test_a_conversation_goes_on_through_cutover_and_rollback(
    release: str, world: World, tables: str, service: ServiceProcess, tmp_path: Path
) -> None:
    folder, back = tmp_path / "old", tmp_path / "back"
    account = await asyncio.to_thread(_live_in_folder, release, world, folder, None)
    await _to_tables(folder, tables)

    moved = await asyncio.to_thread(
        _authstore,
        service,
        "cutover",
        "--from",
        tables,
        "--session",
        SESSION,
        "--mirror",
        "--old-writer-stopped",
        "--watch",
        "0",
    )
    assert moved.returncode == 0, moved.stderr + moved.stdout
    await asyncio.to_thread(_live_here, release, world, service, account)

    rolled = await asyncio.to_thread(_authstore, service, "rollback", "--session", SESSION, "--format", "json")
    assert rolled.returncode == 0, rolled.stderr + rolled.stdout
    await _to_folder(tables, back)
    await asyncio.to_thread(_live_in_folder, release, world, back, account)


def _live_in_folder(release: str, world: World, folder: Path, account: dict[str, Any] | None) -> dict[str, Any]:
    with FolderDevice(release, world, folder, account=account) as device:
        known: dict[str, Any] = account or device.step("pair")["account"]
        device.step("login")
        for line in ("receive 3", "converse 3", "extras") if account is None else ("converse 4",):
            device.step(line)
        assert device.finish() == 0
    return known


def _live_here(release: str, world: World, service: ServiceProcess, account: dict[str, Any]) -> None:
    with Device(release, world, service, SESSION, account=account) as device:
        device.step("login")
        device.step("converse 3")
        service.kill9()  # with entries that wait for the mirror
        service.restart()
        device.step("converse 3")
        assert device.finish() == 0
    deadline = time.monotonic() + 30
    while _authstore(service, "mirror").returncode == 3 and time.monotonic() < deadline:
        time.sleep(0.5)
    assert _authstore(service, "mirror").returncode == 0, "the serving process carries what waits"


async def _to_tables(folder: Path, url: str) -> None:
    """As the shop's live code would have written it."""
    connection = await asyncpg.connect(url)
    creds = spelled(CREDS, (folder / "creds.json").read_bytes(), Spelling.octets).decode()
    await connection.execute(
        "INSERT INTO whatsapp_auth (company_id, creds) VALUES ($1, $2::text::jsonb)", SESSION, creds
    )
    for path in folder.iterdir():  # noqa: ASYNC240
        if path.name == "creds.json":
            continue
        named = parse(path.stem)
        assert isinstance(named, Exact), "a file whose name tells no key"
        value = spelled(named.ktype, path.read_bytes(), Spelling.octets).decode()
        await connection.execute(
            "INSERT INTO whatsapp_keys (company_id, key_type, key_id, value) VALUES ($1, $2, $3, $4::text::jsonb)",
            SESSION, named.ktype, named.key_id, value,
        )  # fmt: skip
    await connection.close()


async def _to_folder(url: str, folder: Path) -> None:
    """What the old store holds, as a folder for Baileys' own multi-file store."""
    folder.mkdir()  # noqa: ASYNC240
    connection = await asyncpg.connect(url)
    creds = (await connection.fetchval("SELECT creds::text FROM whatsapp_auth")).encode()
    (folder / "creds.json").write_bytes(spelled(CREDS, creds, Spelling.base64))
    for ktype, key_id, value in await connection.fetch("SELECT key_type, key_id, value::text FROM whatsapp_keys"):
        (folder / file_name(ktype, key_id)).write_bytes(spelled(ktype, value.encode(), Spelling.base64))
    await connection.close()


def _authstore(service: ServiceProcess, *args: str) -> "subprocess.CompletedProcess[str]":
    """The command line beside the running service, on its database."""
    return subprocess.run(
        [COMMAND, "--data-dir", service.data_dir, "migrate", *args],
        env={"PATH": os.environ["PATH"]}, cwd=service.data_dir.parent,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def _open_state(release: str, service: ServiceProcess, ids: dict[str, list[str]]) -> Any:
    env = {"AUTHSTORE_URL": service.url, "AUTHSTORE_TOKEN": service.token, "AUTHSTORE_SESSION": shop.SESSION}
    done = subprocess.run(
        ["node", "legacy/open-state.mjs", "--baileys", release],
        cwd=FIXTURES, env={"PATH": os.environ["PATH"], **env}, input=json.dumps(ids),
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)
