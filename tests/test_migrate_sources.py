"""A real state out of every kind of source: copied, verified, cut over with the mirror on, changed here, rolled back."""

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import states
from migrating import CALLER, database_beside, open_store, quiet
from source_contract import Rig, same, text
from test_source_files import FilesRig
from test_source_mysql import AUTH, mariadb
from test_source_ndjson import NdjsonRig
from test_source_postgres_baileys import SCHEMA, BaileysRig
from test_source_redis import RedisRig, server
from test_source_sqlite import SqliteRig
from test_source_table import OwnRig, TableRig

from service.migrate.copy import Told, copy
from service.migrate.cutover import Cutover, cutover
from service.migrate.mirror import Links, carry
from service.migrate.origin import Origin
from service.migrate.plan import Options
from service.migrate.reading import reading
from service.migrate.report import Folder, Verdict
from service.migrate.rollback import Rollback, rollback
from service.migrate.runs import Run
from service.migrate.sources.redis import LAYOUTS
from service.migrate.target import read_target
from service.migrate.verify import verify
from service.store import AuthStore
from service.store.request import CommitRequest, Row

KINDS = ["files", "mysql", "ndjson", "own-table", "postgres-baileys", "prisma", "redis-hash", "redis-keys", "sqlite"]
POSTGRES: dict[str, Any] = {"own-table": OwnRig, "prisma": TableRig, "postgres-baileys": BaileysRig}


@asynccontextmanager
async def rig_of(kind: str, folder: Path, database_url: str) -> AsyncIterator[tuple[Rig, str, Any]]:
    """An empty store, what ``--from`` says of it, and its layout."""
    async with AsyncExitStack() as stack:
        if kind == "files":
            yield FilesRig(folder), f"files:{folder}", None
        elif kind == "ndjson":
            yield NdjsonRig(folder / "x.ndjson"), f"ndjson:{folder / 'x.ndjson'}", None
        elif kind == "sqlite":
            yield SqliteRig(folder, busy=False), f"sqlite:{folder}", None
        elif kind == "mysql":
            mysql = await stack.enter_async_context(mariadb())
            await mysql.execute(AUTH.format(engine="MyISAM"))
            yield mysql, mysql.url, None
        elif kind.startswith("redis"):
            client = await stack.enter_async_context(server())
            rig = RedisRig(client, f"authstore-test-{secrets.token_hex(6)}:", LAYOUTS[kind.removeprefix("redis-")])
            yield rig, "redis://127.0.0.1:6379", rig.layout
            async for key in client.scan_iter(match=f"{rig.prefix}*", count=1000):
                await client.delete(key)
        else:
            url = await stack.enter_async_context(database_beside(database_url))
            connection = await asyncpg.connect(url)
            stack.push_async_callback(connection.close)
            await connection.execute(SCHEMA if kind == "postgres-baileys" else POSTGRES[kind].schema)
            yield POSTGRES[kind](url, connection), url, getattr(POSTGRES[kind], "layout", None)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_real_state_comes_in_and_goes_back(kind: str, tmp_path: Path, database_url: str) -> None:
    state = states.load("7.0.0-rc14")
    keys = {(ktype, key_id): value for ktype, ids in state["keys"].items() for key_id, value in ids.items()}
    async with rig_of(kind, tmp_path, database_url) as (rig, spec, layout), open_store(database_url) as store:
        await rig.fill("shop", state["creds"], keys)
        await rig.fill("other", state["creds"], {})
        origin = Origin(spec, "shop", Options(), layout)
        before = await rig.contents()
        await copied_and_verified(store, origin)
        assert await rig.contents() == before
        creds, changed = await there_and_back(store, origin, state["creds"], keys)
        async with await origin.open() as source, source.snapshot() as snapshot:
            same(await snapshot.read("shop"), creds, changed)
            same(await snapshot.read("other"), state["creds"], {})


async def copied_and_verified(store: AuthStore, origin: Origin) -> None:
    """Every session, and again with nothing to write."""
    for outcome in ("copied", "same"):
        async with await origin.open() as source, reading(source, origin.options) as read:
            run = await Run.begin(store, CALLER, "copy", source.kind, {})
            report = await copy(run, read, Told(), Folder(None), quiet)
            assert {each.session: each.outcome for each in report.sessions} == {"shop": outcome, "other": outcome}
    async with await origin.open() as source, reading(source, origin.options) as read:
        report = await verify(await Run.begin(store, CALLER, "verify", source.kind, {}), read, quiet)
    assert [each.outcome for each in report.sessions] == ["equal", "equal"]
    assert sum(each.keys for each in report.sessions) > 800


async def there_and_back(
    store: AuthStore, origin: Origin, creds: dict[str, Any], keys: dict[tuple[str, str], Any]
) -> tuple[Any, dict[tuple[str, str], Any]]:
    """Cut over with the mirror, changed, rolled back; what the source must hold then."""
    async with await origin.open() as source:
        run = await Run.begin(store, CALLER, "cutover", source.kind, {})
        chosen = Cutover(stopped=True, watch_s=0, mirror=True)
        report = await cutover(run, source, origin, chosen, Folder(None), lambda _line: None)
    assert report.sessions[0].outcome == "cut-over"
    creds = {**creds, "nextPreKeyId": creds["nextPreKeyId"] + 1, "firstUnuploadedPreKeyId": creds["nextPreKeyId"] + 1}
    session = next(name for name in keys if name[0] == "session")
    written: dict[tuple[str, str], Any] = {
        session: {**keys[session], "n": 1},
        ("pre-key", "9001"): keys["pre-key", next(key_id for ktype, key_id in keys if ktype == "pre-key")],
        ("lid-mapping", "15550109999"): "100000000109999",
        ("sender-key", "120363000000009999@g.us::100000000109999_1::3"): {"type": "Buffer", "data": "W10="},
    }
    gone = next(name for name in keys if name[0] == "pre-key")
    rows = [Row(ktype, key_id.encode(), text(value)) for (ktype, key_id), value in written.items()]
    await store.commit(CALLER, "shop", CommitRequest(creds=text(creds), rows=rows))
    async with closing_links() as links:
        assert await carry(store, CALLER, "shop", links) == 1
    await store.commit(CALLER, "shop", CommitRequest(rows=[Row(gone[0], gone[1].encode(), None)]))
    async with await origin.open() as source:
        run = await Run.begin(store, CALLER, "rollback", source.kind, {})
        report = await rollback(run, source, origin, "shop", Rollback())
    assert report.verdict is Verdict.good
    target = await read_target(store, CALLER, "shop")
    assert target is not None
    return creds, {name: value for name, value in (keys | written).items() if name != gone}


@asynccontextmanager
async def closing_links() -> AsyncIterator[Links]:
    links = Links()
    try:
        yield links
    finally:
        await links.close()
