"""Upstream's SQLite layout as a source: at rest, in use, left behind by a crash, damaged.

No released Baileys writes it yet, so its schema and its pragmas are set here by hand.
"""

import json
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import states
from source_contract import CREDS, KEYS, PAIR, Rig, SourceContract, same, text

from service.migrate.plan import Blocked, Options
from service.migrate.reading import reading
from service.migrate.source import FaultKind, Source, SourceAway, SourceError, Write, WrongSource
from service.migrate.sources import open_source
from service.migrate.sources.sqlite import SCHEMA


class SqliteRig(Rig):
    """A folder of databases. ``busy``: their writer keeps them open, else it closes them after each write."""

    def __init__(self, root: Path, *, busy: bool) -> None:
        self.root = root
        self.busy = busy
        self.writers: dict[str, sqlite3.Connection] = {}

    def path(self, session: str) -> Path:
        return self.root / f"{session}.db"

    async def fill(self, session: str, creds: Any, keys: dict[tuple[str, str], Any]) -> None:
        writer = self.writer(session)
        with writer:
            writer.execute("INSERT INTO creds VALUES ('__creds__', ?)", (json.dumps(creds),))
            writer.executemany(
                "INSERT INTO signal_keys VALUES (?, ?, ?)", [(*name, json.dumps(value)) for name, value in keys.items()]
            )
        self.done(session)

    async def touch(self, session: str) -> None:
        writer = self.writer(session)
        with writer:
            done = writer.execute("UPDATE signal_keys SET value = '\"9\"' WHERE type = 'lid-mapping'")
            assert done.rowcount == 2
        self.done(session)

    async def contents(self) -> Any:
        """All but the shared memory of a database in use, where a reader may set its mark."""
        paths = [path for path in sorted(self.root.iterdir()) if not path.name.endswith("-shm")]
        return [(path, path.stat().st_mtime_ns, path.read_bytes()) for path in paths]

    def writer(self, session: str) -> sqlite3.Connection:
        if session not in self.writers:
            writer = sqlite3.connect(self.path(session))
            writer.execute("PRAGMA journal_mode = WAL")
            writer.execute("PRAGMA synchronous = NORMAL")
            writer.executescript(SCHEMA)
            self.writers[session] = writer
        return self.writers[session]

    def done(self, session: str) -> None:
        if not self.busy:
            self.writers.pop(session).close()

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()

    @asynccontextmanager
    async def source(self) -> AsyncIterator[Source]:
        async with await open_source(f"sqlite:{self.root}") as source:
            yield source

    @asynccontextmanager
    async def unreachable(self) -> AsyncIterator[Source]:
        async with await open_source(f"sqlite:{self.root / 'nowhere.db'}") as source:
            yield source


@pytest.fixture(params=[False, True], ids=["at-rest", "in-use"])
def databases(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[SqliteRig]:
    root = tmp_path / "sessions"
    root.mkdir()
    rig = SqliteRig(root, busy=request.param)
    yield rig
    rig.close()


class TestSqlite(SourceContract):
    @pytest.fixture
    async def rig(self, databases: SqliteRig) -> SqliteRig:
        return databases

    async def test_a_single_database_is_one_snapshot(self, databases: SqliteRig) -> None:
        await databases.fill("one", CREDS, KEYS)
        await databases.fill("two", CREDS, KEYS)
        async with await open_source(f"sqlite:{databases.path('one')}") as source:
            async with source.snapshot() as snapshot:
                assert snapshot.consistent
                assert [name async for name in snapshot.sessions()] == ["one"]
                assert (await snapshot.read("two")).creds is None
                before = await snapshot.read("one")
                same(before, CREDS, KEYS)
                await databases.touch("one")
                assert await snapshot.read("one") == before
                async with source.snapshot() as later:
                    assert await later.read("one") != before
            await source.write("one", text(CREDS), [Write("pre-key", "9", text(PAIR))], whole=True)
            async with source.snapshot() as snapshot:
                same(await snapshot.read("one"), CREDS, {("pre-key", "9"): PAIR})
            with pytest.raises(SourceError):
                await source.write("two", text(CREDS), [])

    async def test_a_real_state_comes_back(self, databases: SqliteRig) -> None:
        state = states.load("7.0.0-rc14")
        keys = {(ktype, key_id): value for ktype, ids in state["keys"].items() for key_id, value in ids.items()}
        await databases.fill("one", state["creds"], keys)
        async with databases.source() as source, source.snapshot() as snapshot:
            same(await snapshot.read("one"), state["creds"], keys)

    async def test_torn_and_foreign_rows_are_listed(self, databases: SqliteRig) -> None:
        await databases.fill("one", CREDS, {("pre-key", "1"): PAIR})
        writer = databases.writer("one")
        with writer:
            writer.execute("INSERT INTO signal_keys VALUES ('pre-key', '2', '{\"public\"')")
            writer.execute("INSERT INTO signal_keys VALUES ('pre-key', CAST(x'ff' AS TEXT), '{}')")
            writer.execute("INSERT INTO signal_keys VALUES ('pre-key', '3', x'ff00')")
            writer.execute("INSERT INTO creds VALUES ('other', '{}')")
            writer.execute("UPDATE creds SET value = '{\"noiseKey\"' WHERE key = '__creds__'")
        databases.done("one")
        async with databases.source() as source, source.snapshot() as snapshot:
            found = await snapshot.read("one")
        assert found.creds is None
        assert len(found.rows) == 1
        kinds = sorted(fault.kind.value for fault in found.faults)
        assert kinds == ["foreign", "foreign", "torn", "torn", "torn-creds"]
        assert FaultKind.torn_creds in {fault.kind for fault in found.faults}

    async def test_a_writer_that_holds_the_lock_makes_us_wait_not_fail(self, databases: SqliteRig) -> None:
        await databases.fill("one", CREDS, KEYS)
        writer = databases.writer("one")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM signal_keys")
        async with databases.source() as source, source.snapshot() as snapshot:
            same(await snapshot.read("one"), CREDS, KEYS)
        writer.rollback()
        databases.done("one")


async def test_a_database_that_vanished_is_away_and_not_begun_anew(tmp_path: Path) -> None:
    async with await open_source(f"sqlite:{tmp_path}") as source:
        with pytest.raises(SourceAway):
            await source.write("one", None, [Write("pre-key", "9", text(PAIR))])
    assert os.listdir(tmp_path) == []


async def test_what_a_crash_left_is_read_with_its_log(tmp_path: Path) -> None:
    root = tmp_path / "sessions"
    root.mkdir()
    with closing(SqliteRig(root, busy=True)) as rig:
        await rig.fill("one", CREDS, KEYS)
        left = tmp_path / "left"
        shutil.copytree(root, left)
    assert (left / "one.db-wal").stat().st_size > 0
    before = {path.name: path.read_bytes() for path in left.iterdir()}
    async with await open_source(f"sqlite:{left}") as source, source.snapshot() as snapshot:
        same(await snapshot.read("one"), CREDS, KEYS)
    assert {path.name: path.read_bytes() for path in left.iterdir()} == before
    (left / "one.db-shm").unlink()
    with pytest.raises(SourceError, match="in the middle of a write"):
        await open_source(f"sqlite:{left / 'one.db'}")
    async with await open_source(f"sqlite:{left}") as source, source.snapshot() as snapshot:
        assert [name async for name in snapshot.sessions()] == ["one"]
        with pytest.raises(SourceError, match="in the middle of a write"):
            await snapshot.read("one")


async def test_damaged_and_other_files_are_told_apart_from_empty_ones(tmp_path: Path) -> None:
    with closing(SqliteRig(tmp_path, busy=False)) as rig:
        await rig.fill("one", CREDS, {("pre-key", str(number)): PAIR for number in range(1, 500)})
    whole = rig.path("one").read_bytes()
    rig.path("one").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match="damaged or cut off"):
        async with await open_source(f"sqlite:{tmp_path}") as source, source.snapshot() as snapshot:
            await snapshot.read("one")
    for content in (b"", b"hello", b"x" * 4096):
        rig.path("one").write_bytes(content)
        with pytest.raises(WrongSource):
            await open_source(f"sqlite:{tmp_path}")
    rig.path("one").unlink()
    with closing(sqlite3.connect(rig.path("one"))) as other:
        other.execute("CREATE TABLE creds (id, data)")
    with pytest.raises(WrongSource, match="no table creds and signal_keys"):
        await open_source(f"sqlite:{tmp_path}")


@pytest.mark.parametrize("how", ["cut-off", "overwritten", "left-in-a-write"])
async def test_a_database_of_a_folder_that_cannot_be_read_fails_alone(tmp_path: Path, how: str) -> None:
    with closing(SqliteRig(tmp_path, busy=False)) as rig:
        for name in ("one", "two"):
            await rig.fill(name, CREDS, {("pre-key", str(number)): PAIR for number in range(1, 500)})
    whole = rig.path("one").read_bytes()
    if how == "left-in-a-write":
        (tmp_path / "one.db-journal").touch()
    else:
        page = 4096
        rig.path("one").write_bytes(
            whole[: len(whole) // 2] if how == "cut-off" else whole[:page] + b"\xff" * (len(whole) - page)
        )
    async with await open_source(f"sqlite:{tmp_path}") as source, reading(source, Options()) as read:
        plans = [plan async for plan in read.plans()]
    assert [(plan.name, plan.blocked) for plan in plans] == [("one", Blocked.unreadable), ("two", None)]
    with pytest.raises(SourceError):
        async with await open_source(f"sqlite:{rig.path('one')}") as source, reading(source, Options()) as read:
            pass


async def test_two_files_of_one_name_are_not_guessed_between(tmp_path: Path) -> None:
    with closing(SqliteRig(tmp_path, busy=False)) as rig:
        await rig.fill("one", CREDS, KEYS)
    shutil.copy(rig.path("one"), tmp_path / "one.sqlite")
    with pytest.raises(WrongSource):
        await open_source(f"sqlite:{tmp_path}")


@pytest.mark.parametrize("name", ["../out", "", "..", "a/b"])
async def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    root = tmp_path / "sessions"
    root.mkdir()
    async with await open_source(f"sqlite:{root}") as source:
        with pytest.raises(SourceError):
            await source.write(name, text(CREDS), [])
    with pytest.raises(SourceAway):
        await open_source(f"sqlite:{root / 'absent.db'}")
    assert os.listdir(tmp_path) == ["sessions"]
    assert os.listdir(root) == []
