"""The shop's 1,127 keys: planned, copied, verified, gone over to and come back from, on a real Postgres."""

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from migrating import CALLER, EXPECTED, Scene, authstore, run_copy, run_verify, shop, shop_scene

from protocol.digest import digest
from service.migrate.target import read_target
from service.store.request import CommitRequest, Row


@pytest.fixture
async def scene(database_url: str) -> AsyncIterator[Scene]:
    async with shop_scene(database_url) as opened:
        yield opened


def meant() -> dict[tuple[str, str], bytes]:
    """Digests of what Baileys had: the truth every path must arrive at."""
    state = shop.state()
    wanted = {("", ""): digest("", json.dumps(state["creds"]).encode())}
    for ktype, values in state["keys"].items():
        wanted |= {(ktype, key_id): digest(ktype, json.dumps(value).encode()) for key_id, value in values.items()}
    return wanted


def test_the_fixture_is_what_it_says() -> None:
    rows = shop.rows()
    assert len(rows) == EXPECTED["rows"] == 1127
    assert len({(row.key_type, row.key_id) for row in rows}) == 1127
    past = sum(row.expires_at is not None and row.expires_at < datetime.now(UTC) for row in rows)
    assert past == EXPECTED["expired"] > 1127 / 2
    assert {ktype: len(values) for ktype, values in shop.state()["keys"].items()} == EXPECTED["keys"]
    assert max(len(row.value) for row in rows) > 112_000


async def test_a_plan_reports_every_fault_and_changes_nothing(scene: Scene, tmp_path: Path) -> None:
    before = await scene.source_rows()
    tables = await _dump(scene.target_url)
    done = await asyncio.to_thread(
        authstore, scene.target_url, "migrate", "plan", "--from", scene.source_url, "--format", "json", cwd=tmp_path
    )
    assert done.returncode == 3, done.stderr  # nine rows are for the quarantine
    (session,) = json.loads(done.stdout)["sessions"]
    assert session["outcome"] == "ready"
    assert session["by_type"] == EXPECTED["keys"]
    assert session["repairs"] == EXPECTED["repairs"]
    assert session["quarantined"] == EXPECTED["quarantined"]
    assert (session["twins"], session["expired"]) == (EXPECTED["twins"], EXPECTED["expired"])
    assert Counter(each["type"] for each in session["quarantine"]) == {
        **dict.fromkeys(shop.JUNK, 1),
        "lid": 3,
        "sender": 2,
    }
    assert await scene.source_rows() == before
    assert await _dump(scene.target_url) == tables
    assert os.listdir(tmp_path) == []


async def test_a_copy_holds_every_value_as_baileys_meant_it(scene: Scene) -> None:
    before = await scene.source_rows()
    start = time.monotonic()
    report = await run_copy(scene.store, scene.source_url)
    checked = await run_verify(scene.store, scene.source_url)
    assert time.monotonic() - start < 5
    assert [each.outcome for each in report.sessions] == ["copied"]
    assert [each.outcome for each in checked.sessions] == ["equal"]
    assert checked.sessions[0].differences == []
    target = await read_target(scene.store, CALLER, shop.SESSION)
    assert target is not None
    assert target.digests == meant()
    texts = b"".join(target.texts.values())
    assert b'"data":[' not in texts.replace(b" ", b"")
    assert all(target.texts[key].startswith(b'"') for key in target.texts if key[0] == "lid-mapping")
    assert await scene.source_rows() == before


async def test_a_second_copy_writes_nothing(scene: Scene) -> None:
    await run_copy(scene.store, scene.source_url)
    before = await _dump(scene.target_url)
    report = await run_copy(scene.store, scene.source_url)
    assert [each.outcome for each in report.sessions] == ["same"]
    assert await _dump(scene.target_url) == before


@pytest.mark.parametrize("damage", ["value", "missing", "extra", "creds"])
async def test_verify_names_the_one_value_that_differs(scene: Scene, damage: str) -> None:
    await run_copy(scene.store, scene.source_url)
    pair = json.dumps(next(iter(shop.state()["keys"]["pre-key"].values()))).encode()
    creds = json.dumps({**shop.state()["creds"], "lastPropHash": "x"}).encode()
    changes = {
        "value": ([Row("lid-mapping", b"15550200000", b'"1"')], None, [("differs", "lid-mapping", "15550200000")]),
        "missing": ([Row("lid-mapping", b"15550200000", None)], None, [("missing", "lid-mapping", "15550200000")]),
        "extra": ([Row("pre-key", b"9000", pair)], None, [("extra", "pre-key", "9000")]),
        "creds": ([], creds, [("differs", "", "")]),
    }
    rows, changed, expected = changes[damage]
    await scene.store.commit(CALLER, shop.SESSION, CommitRequest(rows=rows, creds=changed))
    report = await run_verify(scene.store, scene.source_url)
    (session,) = report.sessions
    assert session.outcome == "different"
    assert report.verdict == "failed"
    assert [(each.why, each.type, each.id) for each in session.differences] == expected


async def _dump(url: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1"
        )
        return {
            name: await connection.fetch(f'SELECT t.*, xmin FROM "{name}" t ORDER BY ctid')
            for (name,) in tables
            if not name.startswith("migrate_run")
        }
    finally:
        await connection.close()
