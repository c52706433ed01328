"""What the migrator's tests share: a store on a database of its own, a source database beside it, the command line."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import asyncpg

from service.migrate.copy import Told, copy
from service.migrate.plan import Options
from service.migrate.reading import reading
from service.migrate.report import Folder, Report
from service.migrate.runs import Run, called
from service.migrate.sources import Layout, open_source
from service.migrate.verify import verify
from service.store import AuthStore, Caller
from service.store.auth_store import StoreOptions
from service.vault import MasterKeys

LEGACY = Path(__file__).parent.parent / "fixtures" / "legacy"
SCHEMA = (LEGACY / "schema.sql").read_text()
EXPECTED: dict[str, Any] = json.loads((LEGACY / "expected.json").read_text())
MASTER = bytes(range(32))
CALLER = Caller("default", "admin")
AUTHSTORE = Path(sys.executable).parent / "authstore"

sys.path.insert(0, str(LEGACY))
shop = import_module("shop")  # fixtures/legacy/shop.py


@dataclass
class Scene:
    """The shop's database and ours."""

    source_url: str
    target_url: str
    source: Any
    store: AuthStore

    async def source_rows(self) -> Any:
        """Everything at the source, so that equal means untouched."""
        return [
            await self.source.fetch(f"SELECT t.*, xmin, ctid FROM {table} t ORDER BY ctid")
            for table in ("whatsapp_auth", "whatsapp_keys")
        ]


def quiet(_done: int, _all: int) -> None:
    """No progress bar."""


@asynccontextmanager
async def open_store(url: str) -> AsyncIterator[AuthStore]:
    store = AuthStore(url, MasterKeys([MASTER]), None, StoreOptions())
    try:
        await store.open()
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def database_beside(url: str) -> AsyncIterator[str]:
    """Another empty database on the server of ``url``; dropped afterwards."""
    name = f"beside_{secrets.token_hex(6)}"
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f'CREATE DATABASE "{name}"')
        head, _, query = url.partition("?")
        yield f"{head.rpartition('/')[0]}/{name}?{query}"
        await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    finally:
        await connection.close()


async def run_copy(
    store: AuthStore,
    spec: str,
    told: Told | None = None,
    options: Options | None = None,
    only: Sequence[str] = (),
    layout: Layout | None = None,
) -> Report:
    async with await open_source(spec, layout) as source, reading(source, options or Options(), only) as read:
        run = await Run.begin(store, CALLER, "copy", called(source), {})
        return await copy(run, read, told or Told(), Folder(None), quiet)


async def run_verify(store: AuthStore, spec: str, options: Options | None = None) -> Report:
    async with await open_source(spec) as source, reading(source, options or Options()) as read:
        run = await Run.begin(store, CALLER, "verify", source.kind, {})
        return await verify(run, read, quiet)


def authstore(target: str, *args: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """The command line as a process, on the target database."""
    return subprocess.run(
        [AUTHSTORE, *args], env=command_env(target), cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


def command_env(target: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "AUTHSTORE_DATABASE_URL": target, "AUTHSTORE_MASTER_KEY": MASTER.hex()}


@asynccontextmanager
async def empty_scene(database_url: str) -> AsyncIterator[Scene]:
    """The shop's tables without a row, beside an empty store of ours."""
    async with database_beside(database_url) as source_url, open_store(database_url) as store:
        source = await asyncpg.connect(source_url)
        try:
            await source.execute(SCHEMA)
            yield Scene(source_url, database_url, source, store)
        finally:
            await source.close()


@asynccontextmanager
async def shop_scene(database_url: str) -> AsyncIterator[Scene]:
    """The shop's store beside an empty one of ours."""
    async with empty_scene(database_url) as scene:
        await shop.fill(scene.source)
        yield scene
