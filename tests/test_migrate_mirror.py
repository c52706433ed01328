"""One mirror's trouble is its own: a value, a session or a source that fails keeps no other session's commits waiting."""

import asyncio
import json
import os
import random
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
from migrating import CALLER, MASTER, Scene, open_store, shop, shop_scene
from postgres_proxy import PostgresProxy

from service.cli import doctor
from service.errors import TurnLost
from service.migrate import mirror
from service.migrate.cutover import Cutover, cutover
from service.migrate.mirror import Links, Merged, Worker, carry, drain
from service.migrate.origin import Origin
from service.migrate.pace import Pace
from service.migrate.plan import Options
from service.migrate.report import Folder
from service.migrate.runs import Run, called
from service.migrate.source import SourceAway, SourceError
from service.migrate.sources import files, open_source, postgres
from service.migrate.sources.sqlite import SCHEMA
from service.observe import Metrics
from service.store import AuthStore, mirrors
from service.store.auth_store import StoreOptions
from service.store.request import CommitRequest, Row
from service.vault import MasterKeys

NAMES = ("a", "b", "c")


@pytest.fixture
async def scene(database_url: str) -> AsyncIterator[Scene]:
    """Three mirrored sessions of the shop."""
    async with shop_scene(database_url) as opened:
        for name in NAMES:
            await opened.source.execute(
                "INSERT INTO whatsapp_auth (company_id, creds) SELECT $1, creds FROM whatsapp_auth WHERE company_id = $2",
                name,
                shop.SESSION,
            )
            await move(opened, name)
        yield opened


async def move(scene: Scene, name: str) -> None:
    async with await open_source(scene.source_url) as source:
        run = await Run.begin(scene.store, CALLER, "cutover", source.kind, {})
        origin = Origin(scene.source_url, name, Options())
        chosen = Cutover(stopped=True, watch_s=0, mirror=True)
        report = await cutover(run, source, origin, chosen, Folder(None), lambda _: None)
    assert report.sessions[0].outcome == "cut-over"


async def put(scene: Scene, name: str, ktype: str = "lid-mapping", value: bytes = b'"888"') -> None:
    await scene.store.commit(CALLER, name, CommitRequest(rows=[Row(ktype, b"70707", value)]))


async def carried(scene: Scene) -> dict[str, Any]:
    """What arrived at the source, by session."""
    rows = await scene.source.fetch("SELECT company_id, value::text FROM whatsapp_keys WHERE key_id = '70707'")
    return {row["company_id"]: json.loads(row["value"]) for row in rows}


async def waits(scene: Scene) -> list[str]:
    return sorted(each.name for each in await scene.store.mirrors.waiting(CALLER))


async def test_bytes_that_cannot_be_read_are_carried_as_they_are(scene: Scene) -> None:
    odd = {"token": {"type": "Buffer", "data": "AQID-_8"}}  # base64url: what the service stores, and Node reads
    await put(scene, "a", "tctoken", json.dumps(odd).encode())
    await put(scene, "b")
    worker = Worker(scene.store)
    assert await worker.round() == 2
    await worker.close()
    assert await carried(scene) == {"a": odd, "b": "888"}


async def test_carrying_by_hand_beside_a_service_that_carries_is_no_failure(scene: Scene) -> None:
    """The service has the turn when the command looks, and what waited is carried when the command gets it."""
    await put(scene, "a")
    worker = Worker(scene.store)
    async with scene.source.transaction():
        await scene.source.execute("LOCK TABLE whatsapp_keys IN ACCESS EXCLUSIVE MODE")
        serving = asyncio.create_task(worker.round())
        await asyncio.sleep(0.5)
        draining = asyncio.create_task(drain(scene.store, CALLER))
        await asyncio.sleep(0.5)
    assert await draining == 0
    await serving
    await worker.close()
    assert await waits(scene) == []
    assert await carried(scene) == {"a": "888"}


async def test_entries_whose_source_is_not_known_are_said(scene: Scene) -> None:
    """Also where another's commits are carried, and those of a third are not taken."""
    await put(scene, "a")
    await put(scene, "b")
    await put(scene, "c", value=b'"half \\ud800"')
    await scene.store.mirrors.forget_origin(CALLER, "b")
    with pytest.raises(SourceError, match="not known"):
        await asyncio.wait_for(drain(scene.store, CALLER), 20)
    assert await waits(scene) == ["b", "c"]


async def test_a_session_whose_commits_are_not_taken_keeps_no_other_waiting(scene: Scene) -> None:
    refused = "ALTER TABLE whatsapp_keys ADD CONSTRAINT never CHECK (company_id <> 'a' OR key_id <> '70707')"
    await scene.source.execute(refused)
    for name in NAMES:
        await put(scene, name)
    metrics = Metrics("1")
    worker = Worker(scene.store, metrics)
    assert await worker.round() == 2
    assert await waits(scene) == ["a"]
    assert set(await carried(scene)) == {"b", "c"}
    await worker.round()  # "a" is let alone for a while; the metrics say that it waits
    await worker.close()
    shown = metrics.render()[0].decode().splitlines()
    assert "authstore_mirror_waiting_sessions 1.0" in shown
    (oldest,) = [float(line.split()[1]) for line in shown if line.startswith("authstore_mirror_oldest_seconds ")]
    assert oldest > 0
    await put(scene, "b")
    with pytest.raises(SourceError, match=r"1 commits carried over, but those of 1 sessions still wait: .*23514"):
        await drain(scene.store, CALLER)
    assert await waits(scene) == ["a"]


async def test_a_deleted_session_keeps_no_other_waiting(scene: Scene) -> None:
    for name in NAMES:
        await put(scene, name)
    await scene.store.delete(CALLER, "a", epoch=None, purge=False)
    if "a" in await waits(scene):
        with pytest.raises(SourceError, match="1 sessions still wait: The session was deleted"):
            await drain(scene.store, CALLER)
    else:
        assert await drain(scene.store, CALLER) == 2
    assert set(await carried(scene)) == {"b", "c"}


@pytest.mark.parametrize("opened", [True, False], ids=["kept-open", "opened-anew"])
@pytest.mark.parametrize("whole", [True, False])
async def test_a_database_that_was_moved_away_is_not_begun_anew(
    database_url: str, tmp_path: Path, opened: bool, whole: bool
) -> None:
    place, moved = tmp_path / "shop.db", tmp_path / "moved.db"
    creds = json.dumps(shop.state()["creds"])
    with closing(sqlite3.connect(place)) as database, database:
        database.executescript(SCHEMA)
        database.execute("INSERT INTO creds VALUES ('__creds__', ?)", (creds,))
    async with open_store(database_url) as store:
        async with await open_source(f"sqlite:{place}") as source:
            run = await Run.begin(store, CALLER, "cutover", called(source), {})
            chosen = Cutover(stopped=True, watch_s=0, mirror=True)
            origin = Origin(f"sqlite:{place}", "shop", Options())
            report = await cutover(run, source, origin, chosen, Folder(None), lambda _: None)
        assert report.sessions[0].outcome == "cut-over"
        links = Links()
        if opened:
            async with links.to(origin):
                pass
        place.rename(moved)
        rows = [Row("lid-mapping", b"70707", b'"888"')]
        request = CommitRequest(creds=creds.encode(), rows=rows, reset=True) if whole else CommitRequest(rows=rows)
        await store.commit(CALLER, "shop", request)
        with pytest.raises(SourceAway):
            await carry(store, CALLER, "shop", links)
        assert [each.entries for each in await store.mirrors.waiting(CALLER)] == [1]
        assert os.listdir(tmp_path) == ["moved.db"]
        moved.rename(place)
        assert await carry(store, CALLER, "shop", links) == 1
        await links.close()
    with closing(sqlite3.connect(place)) as database:
        assert database.execute("SELECT count(*) FROM creds").fetchone() == (1,)
        assert database.execute("SELECT value FROM signal_keys WHERE id = '70707'").fetchall() == [('"888"',)]


async def test_a_failing_mirror_says_so_again_and_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, object]] = []
    monkeypatch.setattr(mirror, "_TELL_EVERY_S", 0.0)
    monkeypatch.setattr(mirror._log, "warning", lambda text, **fields: told.append({"text": text, **fields}))
    await scene.source.execute("ALTER TABLE whatsapp_keys RENAME TO away")
    await put(scene, "a")
    worker = Worker(scene.store)
    for _ in range(3):
        assert await worker.round() == 0
    await worker.close()
    assert [(each["sessions"], each["commits"]) for each in told] == [(1, 1)] * 2
    assert "70707" not in str(told)


@asynccontextmanager
async def silent_server() -> AsyncIterator[int]:
    """Takes connections and never answers."""
    connections: list[asyncio.StreamWriter] = []  # one that nobody holds is closed, from Python 3.13 on
    server = await asyncio.start_server(lambda _reader, writer: connections.append(writer), "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for connection in connections:
        connection.close()


async def test_a_source_that_does_not_answer_keeps_no_other_waiting(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_TIMEOUT_S", 600.0)
    monkeypatch.setattr(mirror, "_WRITE_S", 600.0)
    async with silent_server() as port:
        for name in ("a", "b"):
            kept = await scene.store.mirrors.origin(CALLER, name)
            assert kept is not None
            dead = replace(Origin.decode(kept), spec=f"postgresql://x@127.0.0.1:{port}/x?sslmode=disable")
            await scene.store.mirrors.keep_origin(CALLER, name, dead.encode())
            await put(scene, name)
        await put(scene, "c")
        worker = Worker(scene.store)
        running = asyncio.create_task(worker.round())
        deadline = time.monotonic() + 60
        while not await carried(scene) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        assert set(await carried(scene)) == {"c"}
        assert not running.done()
        running.cancel()
        await worker.close()


@asynccontextmanager
async def locked(scene: Scene) -> AsyncIterator[None]:
    """Nothing can be written at the source; it can be opened."""
    connection = await asyncpg.connect(scene.source_url)
    async with connection.transaction():
        await connection.execute("LOCK TABLE whatsapp_keys IN EXCLUSIVE MODE")
        yield
    await connection.close()


@asynccontextmanager
async def silent(proxy: PostgresProxy) -> AsyncIterator[None]:
    """Whatever is asked, no answer comes."""
    proxy.hold()
    yield
    proxy.drop()
    proxy.release()


async def mirrored_to(scene: Scene, name: str, spec: str) -> None:
    kept = await scene.store.mirrors.origin(CALLER, name)
    assert kept is not None
    await scene.store.mirrors.keep_origin(CALLER, name, replace(Origin.decode(kept), spec=spec).encode())


async def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not what() and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    assert what()


@pytest.mark.parametrize("pool_max", [4, 6])
async def test_sources_that_hang_leave_connections_to_everybody_else(scene: Scene, pool_max: int) -> None:
    for name in NAMES:
        await mirrored_to(scene, name, f"{scene.source_url}&application_name={name}")  # a source each
        await put(scene, name)
    store = AuthStore(scene.target_url, MasterKeys([MASTER]), None, StoreOptions(pool_max=pool_max))
    await store.open()
    worker = Worker(store)
    async with locked(scene):
        running = asyncio.create_task(worker.round())
        await until(lambda: store.database.usage()[0] > 0)
        await asyncio.sleep(0.5)  # for more of them, if there are
        began = time.monotonic()
        await asyncio.gather(*(store.lease(CALLER, name, "o", 60, takeover=False, epoch=None) for name in NAMES))
        assert time.monotonic() - began < 2
    assert await running == 3
    await worker.close()
    await store.close()


async def test_commits_that_wait_are_told(scene: Scene) -> None:
    """By doctor, and by a session's summary."""
    assert (await doctor._mirrors(scene.store))["verdict"] == "ok"
    await put(scene, "a")
    assert await scene.store.mirrors.waiting_of(CALLER, "a") == 1
    assert await scene.store.mirrors.waiting_of(CALLER, "b") == 0
    assert (await scene.store.show(CALLER, "a")).mirrored
    told = await doctor._mirrors(scene.store)
    assert (told["verdict"], told["says"]) == ("note", "1 commit of 1 session waiting")
    connection = await asyncpg.connect(scene.target_url)
    await connection.execute("UPDATE mirror_entries SET at = now() - interval '1 hour'")
    await connection.close()
    told = await doctor._mirrors(scene.store)
    assert told["verdict"] == "warning"
    assert told["says"].startswith("1 commit of 1 session waiting since 20")


async def test_a_source_that_hangs_and_a_slow_reader_of_the_least_pool_take_turns(scene: Scene) -> None:
    """Between them they had the whole pool, and nobody could take or renew a lease."""
    rows = [Row("lid-mapping", str(n).encode(), b'"1"') for n in range(4200)]
    await scene.store.commit(CALLER, "large", CommitRequest(rows=rows))
    await scene.store.settler.settle_all()
    await put(scene, "a")
    store = AuthStore(scene.target_url, MasterKeys([MASTER]), None, StoreOptions(pool_max=4))
    await store.open()
    worker = Worker(store)
    async with locked(scene):
        async with store.state(CALLER, "large") as state:
            await anext(aiter(state.chunks))
            running = asyncio.create_task(worker.round())
            await asyncio.sleep(0.5)
            async with asyncio.timeout(2):
                await store.lease(CALLER, "another", "o", 60, takeover=False, epoch=None)
        await until(lambda: store.database.usage()[0] > 0)  # the reader has gone, and the turn begins
        async with asyncio.timeout(2):
            await store.lease(CALLER, "another", "o", 60, takeover=False, epoch=None)
    assert await running == 1
    await worker.close()
    await store.close()


@pytest.mark.parametrize("how", ["locked", "silent"])
async def test_a_write_that_hangs_is_called_off_and_its_source_pauses(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(mirror, "_WRITE_S", 0.5)
    monkeypatch.setattr(postgres, "_UNDO_S", 0.5)
    monkeypatch.setattr(mirror, "_PAUSES_S", (3600.0,))
    spec = urlsplit(scene.source_url)
    where = parse_qs(spec.query)
    async with PostgresProxy(f"{where['host'][0]}/.s.PGSQL.{where['port'][0]}", random.Random(1)) as proxy:
        for name in NAMES:
            await mirrored_to(scene, name, f"postgresql://postgres@127.0.0.1:{proxy.port}{spec.path}?sslmode=disable")
            await put(scene, name)
        worker = Worker(scene.store)
        assert await worker.round() == 3
        for name in NAMES:
            await put(scene, name, value=b'"999"')
        began = time.monotonic()
        async with locked(scene) if how == "locked" else silent(proxy):
            assert await worker.round() == 0
            assert await worker.round() == 0  # it pauses, with all its sessions
        assert time.monotonic() - began < 8
        assert scene.store.database.usage()[0] == 0
        assert await waits(scene) == list(NAMES)
        assert set((await carried(scene)).values()) == {"888"}
        worker._failures.clear()
        assert await worker.round() == 3
        assert set((await carried(scene)).values()) == {"999"}
        await worker.close()


async def test_a_session_that_hangs_is_the_last_of_its_source(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "_WRITE_S", 0.5)
    monkeypatch.setattr(mirror, "_PAUSES_S", (0.0,))
    for name in NAMES:  # "a" waits longest
        await put(scene, name)
    worker = Worker(scene.store)
    connection = await asyncpg.connect(scene.source_url)
    async with connection.transaction():
        await connection.execute(
            "INSERT INTO whatsapp_keys (company_id, key_type, key_id, value) VALUES ('a', 'lid-mapping', '70707', '1')"
        )
        assert await worker.round() == 0
        assert await worker.round() == 2
        assert await waits(scene) == ["a"]
    await connection.close()
    assert await worker.round() == 1
    assert set((await carried(scene)).values()) == {"888"}
    await worker.close()


async def test_a_write_to_a_disk_is_not_left_behind(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A thread cannot be called off: the turn is kept until it is done, or a later write could come before it."""
    monkeypatch.setattr(mirror, "_WRITE_S", 0.2)
    release, ended = threading.Event(), threading.Event()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "creds.json").write_text(json.dumps(shop.state()["creds"]))
    real = files.FilesSource._write

    def slow(*args: Any, **more: Any) -> None:
        release.wait(30)
        real(*args, **more)
        ended.set()

    monkeypatch.setattr(files.FilesSource, "_write", slow)
    await mirrored_to(scene, "a", f"files:{tmp_path}")
    await put(scene, "a")
    worker = Worker(scene.store)
    running = asyncio.create_task(worker.round())
    await asyncio.sleep(1.0)
    async with scene.store.mirrors.turn(CALLER, "a", wait=False) as turn:
        assert turn is None
    release.set()
    assert await running == 1  # late, and done
    assert await waits(scene) == []
    assert ended.is_set()
    assert (tmp_path / "a" / "lid-mapping-70707.json").exists()
    await worker.close()


async def test_what_was_called_off_is_carried_in_smaller_parts(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that manages ten rows in the time a write has, as over a slow link: it catches up all the same."""
    monkeypatch.setattr(mirror, "_WRITE_S", 0.3)
    monkeypatch.setattr(mirror, "_PAUSES_S", (0.0,))
    real = postgres.PostgresSource.write
    sizes = []

    async def slow(self: Any, session: str, creds: bytes | None, rows: Any, *, whole: bool = False) -> None:
        sizes.append(len(rows))
        if len(rows) > 10:
            await asyncio.sleep(3600)
        await real(self, session, creds, rows, whole=whole)

    monkeypatch.setattr(postgres.PostgresSource, "write", slow)
    for n in range(40):
        await scene.store.commit(CALLER, "a", CommitRequest(rows=[Row("lid-mapping", str(n).encode(), b'"1"')]))
    worker = Worker(scene.store)
    for _ in range(30):
        await worker.round()
        if not await waits(scene):
            break
    await worker.close()
    assert await waits(scene) == []
    assert sizes[0] == 40
    assert await scene.source.fetchval("SELECT count(*) FROM whatsapp_keys WHERE company_id = 'a'") == 40


def test_what_was_called_off_gets_more_time_for_its_size_and_no_more_for_nothing() -> None:
    large = Merged(rows={("session", str(n)): b"0" * 1000 for n in range(1000)})
    pace = Pace()
    assert Merged().write_s(pace.patience) == 10
    for _ in range(10):
        pace = pace.called_off()
    assert pace.entries == 1
    assert Merged().write_s(pace.patience) == 10
    assert large.write_s(pace.patience) > 10 + 10 * (large.write_s() - 10)
    for _ in range(30):
        pace = pace.confirmed()
    assert pace.entries == Pace().entries


async def without_patience(url: str) -> None:
    """Who idles in a transaction there is cut off after a second, and no transaction lasts longer than two."""
    connection = await asyncpg.connect(url)
    name = await connection.fetchval("SELECT current_database()")
    for setting in ("idle_in_transaction_session_timeout = '1s'", "transaction_timeout = '2s'"):
        with suppress(asyncpg.UndefinedObjectError):  # Postgres 17 has the second
            await connection.execute(f'ALTER DATABASE "{name}" SET {setting}')
    await connection.close()


async def test_a_turn_outlasts_our_servers_patience_with_idle_transactions(scene: Scene) -> None:
    await without_patience(scene.target_url)
    async with open_store(scene.target_url) as store, open_store(scene.target_url) as other:
        await put(scene, "a")
        async with locked(scene):
            draining = asyncio.create_task(drain(store, CALLER))
            await asyncio.sleep(4)
            async with other.mirrors.turn(CALLER, "a", wait=False) as turn:
                assert turn is None
        assert await draining == 1
    assert await carried(scene) == {"a": "888"}


async def test_a_lost_turn_calls_its_write_off_and_says_so(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has the turn next writes what is newer: what was written without a turn could arrive after it."""
    monkeypatch.setattr(mirrors, "_ASK_S", 0.1)
    await put(scene, "a")
    idle = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND "
        "pid <> pg_backend_pid() AND xact_start IS NOT NULL"
    )
    links = Links()
    target = await asyncpg.connect(scene.target_url)
    async with locked(scene):
        carrying = asyncio.create_task(carry(scene.store, CALLER, "a", links, wait=True))
        await asyncio.sleep(1)
        assert not carrying.done()
        assert await target.fetchval(idle) == 1
        with pytest.raises(TurnLost):
            await asyncio.wait_for(carrying, 10)
    await target.close()
    await links.close()
    assert await carried(scene) == {}
    assert await waits(scene) == ["a"]
    assert await drain(scene.store, CALLER) == 1


async def test_a_snapshot_outlasts_the_sources_patience(scene: Scene) -> None:
    await without_patience(scene.source_url)
    async with await open_source(scene.source_url) as source, source.snapshot() as snapshot:
        assert "a" in [name async for name in snapshot.sessions()]
        await asyncio.sleep(3)
        assert (await snapshot.read("a")).creds is not None
