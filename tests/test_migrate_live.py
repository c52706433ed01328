"""A living session changes stores under its writers: cut over, mirrored, killed in between, rolled back. Nothing is lost."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import migrating
import pytest
from migrating import CALLER, Scene, authstore, open_store, run_copy, run_verify, shop, shop_scene

from protocol.digest import digest
from protocol.spelling import Spelling, respell
from service.errors import Corrupt, Fenced, LeaseHeld
from service.migrate.cutover import Cutover, cutover
from service.migrate.mirror import Links, Worker, carry, merge
from service.migrate.origin import Origin
from service.migrate.plan import Options
from service.migrate.report import Folder, Report
from service.migrate.rollback import Rollback, rollback
from service.migrate.runs import Run, called
from service.migrate.sources import open_source, postgres
from service.migrate.target import read_target
from service.store.entries import Entry
from service.store.request import CommitRequest, Row

PAIR = next(iter(shop.state()["keys"]["pre-key"].values()))
SESSION = next(iter(shop.state()["keys"]["session"].values()))


@pytest.fixture
async def scene(database_url: str) -> AsyncIterator[Scene]:
    async with shop_scene(database_url) as opened:
        yield opened


class OldWriter:
    """The shop's process: single-row upserts and deletes by autocommit, octets for Buffers, until it is told to stop."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.stopped = asyncio.Event()
        self.last: dict[tuple[str, str], Any] = {}
        self.writes = 0

    async def run(self) -> None:
        connection = await asyncpg.connect(self._url)
        try:
            while not self.stopped.is_set():
                await self._step(connection)
                await asyncio.sleep(0.01)
        finally:
            await connection.close()

    async def _step(self, connection: Any) -> None:
        n = self.writes
        self.writes += 1
        if n % 5 == 4:
            await connection.execute(
                "DELETE FROM whatsapp_keys WHERE key_type = 'pre-key' AND key_id = $1", str(5000 + n - 4)
            )
            self.last.pop(("pre-key", str(5000 + n - 4)), None)
            return
        name, value = (
            (("pre-key", str(5000 + n)), PAIR) if n % 5 == 0 else (("session", f"1555030{n % 7:04d}.0"), counted(n))
        )
        await connection.execute(
            "INSERT INTO whatsapp_keys (company_id, key_type, key_id, value, expires_at)"
            " VALUES ($1, $2, $3, $4::text::jsonb, now() + interval '7 days')"
            " ON CONFLICT (company_id, key_type, key_id) DO UPDATE SET value = excluded.value",
            shop.SESSION, *name, json.dumps(respell(name[0], value, Spelling.octets)),
        )  # fmt: skip
        self.last[name] = value


def counted(n: int) -> Any:
    """A session record that differs with n."""
    return {**SESSION, "n": n}


@asynccontextmanager
async def old_writer(scene: Scene) -> AsyncIterator[OldWriter]:
    writer = OldWriter(scene.source_url)
    task = asyncio.create_task(writer.run())
    try:
        yield writer
    finally:
        writer.stopped.set()
        await task


def unheard(_line: str) -> None:
    """Nobody listens."""


async def cut_over(scene: Scene, chosen: Cutover, say: Any = unheard) -> Report:
    origin = Origin(scene.source_url, shop.SESSION, Options())
    async with await open_source(scene.source_url) as source:
        run = await Run.begin(scene.store, CALLER, "cutover", called(source), {})
        return await cutover(run, source, origin, chosen, Folder(None), say)


async def roll_back(scene: Scene, chosen: Rollback | None = None) -> Report:
    kept = await scene.store.mirrors.origin(CALLER, shop.SESSION)
    assert kept is not None
    origin = Origin.decode(kept)
    async with await origin.open() as source:
        run = await Run.begin(scene.store, CALLER, "rollback", called(source), {})
        return await rollback(run, source, origin, shop.SESSION, chosen or Rollback())


async def at_source(scene: Scene) -> dict[tuple[str, str], Any]:
    """What the shop's own reader would find under real names."""
    rows = await scene.source.fetch("SELECT key_type, key_id, value::text AS value FROM whatsapp_keys")
    return {(row["key_type"], row["key_id"]): json.loads(row["value"]) for row in rows}


async def write_here(scene: Scene, n: int, epoch: int | None = None) -> None:
    """A commit as a new writer makes it: a session, a new pre-key, a consumed one."""
    rows = [
        Row("session", b"15550400000.0", json.dumps(counted(n)).encode()),
        Row("pre-key", str(7000 + n).encode(), json.dumps(PAIR).encode()),
        Row("pre-key", str(7000 + n - 2).encode(), None),
    ]
    await scene.store.commit(CALLER, shop.SESSION, CommitRequest(rows=rows, lease_epoch=epoch))


async def test_a_cutover_under_a_running_writer_takes_its_last_write_along(scene: Scene) -> None:
    async with old_writer(scene) as writer:
        await asyncio.sleep(0.3)

        def obey(line: str) -> None:
            if "stop the old writer" in line:
                writer.stopped.set()

        report = await cut_over(scene, Cutover(still_s=1.0, watch_s=1.0), obey)
    (each,) = report.sessions
    assert each.outcome == "cut-over", each.says
    assert each.facts["source_stands_still"]
    assert each.facts["downtime_s"] < 5
    target = await read_target(scene.store, CALLER, shop.SESSION)
    assert target is not None
    assert writer.writes > 20
    for name, value in writer.last.items():
        assert target.digests[name] == digest(name[0], json.dumps(value).encode())
    assert not any(name[0] == "pre-key" and int(name[1]) >= 5000 for name in target.digests.keys() - writer.last.keys())
    assert target.lease is None
    assert [each.outcome for each in (await run_verify(scene.store, scene.source_url)).sessions] == ["equal"]


async def test_a_writer_that_was_not_stopped_is_noticed_before_anything_opens(scene: Scene) -> None:
    async with old_writer(scene):
        report = await cut_over(scene, Cutover(stopped=True, watch_s=0))
    (each,) = report.sessions
    assert (each.outcome, report.verdict) == ("changing", "failed")
    target = await read_target(scene.store, CALLER, shop.SESSION)
    assert target is not None
    assert target.lease is None
    assert not target.mirrored


@pytest.mark.parametrize("mirror", [True, False])
async def test_a_writer_that_comes_back_afterwards_is_noticed(scene: Scene, mirror: bool) -> None:
    async def come_back() -> None:
        await asyncio.sleep(0.5)
        await scene.source.execute(
            "UPDATE whatsapp_keys SET value = '\"1\"' WHERE key_type = 'lid-mapping' AND key_id = '15550200100'"
        )

    coming: list[asyncio.Task[None]] = []

    def hear(line: str) -> None:
        if line.startswith("watching"):
            coming.append(asyncio.create_task(come_back()))

    report = await cut_over(scene, Cutover(stopped=True, watch_s=2.0, mirror=mirror), hear)
    await coming[0]
    assert report.verdict == "failed"
    assert not report.sessions[0].facts["source_stands_still"]


async def test_the_mirror_writes_every_commit_back_in_the_old_spelling(scene: Scene) -> None:
    report = await cut_over(scene, Cutover(stopped=True, watch_s=0, mirror=True))
    assert report.sessions[0].outcome == "cut-over"
    for n in range(30):
        await write_here(scene, n)
    creds = {**shop.state()["creds"], "nextPreKeyId": 9000}
    await scene.store.commit(CALLER, shop.SESSION, CommitRequest(creds=json.dumps(creds).encode()))
    (waiting,) = await scene.store.mirrors.waiting(CALLER)
    assert waiting.entries == 31
    worker = Worker(scene.store)
    assert await worker.round() == 31
    await worker.close()
    assert await scene.store.mirrors.waiting(CALLER) == []
    there = await at_source(scene)
    assert there["session", "15550400000.0"] == counted(29)
    assert there["pre-key", "7029"] == respell("pre-key", PAIR, Spelling.octets)
    assert ("pre-key", "7000") not in there
    stored = json.loads(await scene.source.fetchval("SELECT creds::text FROM whatsapp_auth"))
    assert stored["nextPreKeyId"] == 9000
    assert isinstance(stored["noiseKey"]["private"]["data"], list)
    assert [each.outcome for each in (await run_verify(scene.store, scene.source_url)).sessions] == ["equal"]


async def test_a_reset_and_a_replaced_state_reach_the_source_whole(scene: Scene) -> None:
    await cut_over(scene, Cutover(stopped=True, watch_s=0, mirror=True))
    creds = json.dumps({**shop.state()["creds"], "nextPreKeyId": 9000}).encode()
    await write_here(scene, 1)
    await scene.store.commit(
        CALLER,
        shop.SESSION,
        CommitRequest(creds=creds, rows=[Row("pre-key", b"1", json.dumps(PAIR).encode())], reset=True),
    )
    await write_here(scene, 2)
    links = Links()
    assert await carry(scene.store, CALLER, shop.SESSION, links) == 3
    await links.close()
    assert set(await at_source(scene)) == {("pre-key", "1"), ("pre-key", "7002"), ("session", "15550400000.0")}


async def test_entries_survive_a_source_that_is_away_and_go_over_in_order(scene: Scene) -> None:
    await cut_over(scene, Cutover(stopped=True, watch_s=0, mirror=True))
    await scene.source.execute("ALTER TABLE whatsapp_keys RENAME TO away")
    worker = Worker(scene.store)
    await write_here(scene, 1)
    assert await worker.round() == 0
    await write_here(scene, 2)
    (waiting,) = await scene.store.mirrors.waiting(CALLER)
    assert waiting.entries == 2
    await scene.source.execute("ALTER TABLE away RENAME TO whatsapp_keys")
    await worker.close()
    again = Worker(scene.store)
    assert await again.round() == 2
    await again.close()
    assert (await at_source(scene))["session", "15550400000.0"] == counted(2)


async def test_a_mirror_carried_twice_changes_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that dies between the source's commit and ours leaves the entries; the next one writes them again."""
    await cut_over(scene, Cutover(stopped=True, watch_s=0, mirror=True))
    for n in range(5):
        await write_here(scene, n)
    async with scene.store.mirrors.turn(CALLER, shop.SESSION, wait=True) as turn:
        assert turn is not None
        merged = merge([entry for _, entry in await turn.entries()])
        async with await open_source(scene.source_url) as source:
            await source.write(shop.SESSION, merged.creds, merged.writes(), whole=merged.whole)
    once = await at_source(scene)
    links = Links()
    assert await carry(scene.store, CALLER, shop.SESSION, links) == 5
    await links.close()
    assert await at_source(scene) == once


async def test_two_workers_share_without_writing_backwards(scene: Scene) -> None:
    await cut_over(scene, Cutover(stopped=True, watch_s=0, mirror=True))
    async with open_store(scene.target_url) as other:
        workers = [Worker(scene.store), Worker(other)]
        done = False

        async def work(worker: Worker) -> None:
            while not done:
                await worker.round()

        tasks = [asyncio.create_task(work(worker)) for worker in workers]
        for n in range(100):
            await write_here(scene, n)
            seen = (await at_source(scene)).get(("session", "15550400000.0"))
            assert seen is None or seen["n"] <= n
        deadline = time.monotonic() + 20
        while await scene.store.mirrors.waiting(CALLER) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        done = True
        await asyncio.gather(*tasks)
        for worker in workers:
            await worker.close()
    assert (await at_source(scene))["session", "15550400000.0"] == counted(99)


async def test_switching_the_mirror_makes_remembered_heads_stale(scene: Scene) -> None:
    """Another process remembers the session from before the switch; its next commit must leave an entry all the same."""
    await run_copy(scene.store, scene.source_url)
    async with open_store(scene.target_url) as other:
        await other.commit(
            CALLER, shop.SESSION, CommitRequest(rows=[Row("pre-key", b"8000", json.dumps(PAIR).encode())])
        )
        await cut_over(scene, Cutover(stopped=True, watch_s=0, mirror=True, told=migrating.Told(overwrite=True)))
        await other.commit(
            CALLER, shop.SESSION, CommitRequest(rows=[Row("pre-key", b"8001", json.dumps(PAIR).encode())])
        )
        (waiting,) = await scene.store.mirrors.waiting(CALLER)
        assert waiting.entries == 1
        assert await read_target(other, CALLER, shop.SESSION) is not None  # the mark still proves the set


@pytest.mark.parametrize("mirror", [True, False])
async def test_a_rollback_loses_nothing_that_was_committed_here(scene: Scene, mirror: bool) -> None:
    await cut_over(scene, Cutover(stopped=True, watch_s=0, mirror=mirror))
    granted = await scene.store.lease(CALLER, shop.SESSION, "new writer", 60, takeover=False, epoch=None)
    acknowledged = -1
    fenced = asyncio.Event()

    async def new_writer() -> None:
        nonlocal acknowledged
        try:
            for n in range(10_000):
                await write_here(scene, n, granted.epoch)
                acknowledged = n
        except Fenced:
            fenced.set()

    writing = asyncio.create_task(new_writer())
    await asyncio.sleep(1.0)
    start = time.monotonic()
    report = await roll_back(scene)
    assert time.monotonic() - start < 30
    await writing
    assert fenced.is_set()
    assert report.sessions[0].outcome == "rolled-back", report.sessions[0].says
    assert acknowledged > 10
    there = await at_source(scene)
    assert there["session", "15550400000.0"] == counted(acknowledged)
    assert ("pre-key", str(7000 + acknowledged)) in there
    assert ("pre-key", str(7000 + acknowledged - 2)) not in there
    with pytest.raises(LeaseHeld):
        await scene.store.lease(CALLER, shop.SESSION, "new writer", 60, takeover=False, epoch=None)
    with pytest.raises(Fenced):
        await write_here(scene, 1)
    assert await scene.store.mirrors.origin(CALLER, shop.SESSION) is None
    target = await read_target(scene.store, CALLER, shop.SESSION)
    assert target is not None
    assert not target.mirrored


@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize("takes_it", [True, False])
async def test_a_rollback_hands_nothing_over_that_was_written_here_while_it_ran(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, mirror: bool, takes_it: bool
) -> None:
    """Somebody takes the lease over, or writes under the rollback's own, once everything was written back."""
    await cut_over(scene, Cutover(stopped=True, watch_s=0, mirror=mirror))
    await write_here(scene, 3)
    keep = postgres.PostgresSource.keep

    async def meanwhile(source: postgres.PostgresSource, session: str, *, expired: bool = True) -> None:
        await keep(source, session, expired=expired)
        epoch = (await scene.store.show(CALLER, shop.SESSION)).epoch
        if takes_it:
            granted = await scene.store.lease(CALLER, shop.SESSION, "a client", 60, takeover=True, epoch=None)
            epoch = granted.epoch
        await write_here(scene, 4, epoch)

    with monkeypatch.context() as patched:
        patched.setattr(postgres.PostgresSource, "keep", meanwhile)
        report = await roll_back(scene)
    assert (report.sessions[0].outcome, report.verdict) == ("not-handed-over", "failed")
    assert "written here meanwhile" in report.sessions[0].says
    target = await read_target(scene.store, CALLER, shop.SESSION)
    assert target is not None
    assert target.mirrored is mirror
    assert (None if target.lease is None else target.lease.holder) == ("a client" if takes_it else None)
    again = await roll_back(scene)
    assert again.sessions[0].outcome == "rolled-back", again.sessions[0].says
    assert (await at_source(scene))["session", "15550400000.0"] == counted(4)


async def test_a_rollback_over_a_source_that_others_wrote_is_refused_until_told(scene: Scene) -> None:
    await cut_over(scene, Cutover(stopped=True, watch_s=0))
    await write_here(scene, 3)
    await scene.source.execute(
        "UPDATE whatsapp_keys SET value = '\"1\"' WHERE key_type = 'lid-mapping' AND key_id = '15550200100'"
    )
    report = await roll_back(scene)
    assert (report.sessions[0].outcome, report.verdict) == ("refused", "failed")
    await write_here(scene, 4)  # the session stays here, open
    report = await roll_back(scene, Rollback(overwrite=True))
    assert report.sessions[0].outcome == "rolled-back"
    assert (await at_source(scene))["lid-mapping", "15550200100"] == shop.state()["keys"]["lid-mapping"]["15550200100"]


@pytest.mark.parametrize("mirror", [True, False])
async def test_the_old_clean_up_job_takes_nothing_of_what_was_given_back(scene: Scene, mirror: bool) -> None:
    rows = "SELECT count(*) FROM whatsapp_keys"
    expired = f"{rows} WHERE expires_at < now()"
    await scene.source.execute("UPDATE whatsapp_keys SET expires_at = now() - interval '1 day'")
    every = await scene.source.fetchval(rows)
    await cut_over(scene, Cutover(stopped=True, watch_s=0, mirror=mirror))
    assert await scene.source.fetchval(expired) == (0 if mirror else every)
    await write_here(scene, 1)
    report = await roll_back(scene)
    assert report.sessions[0].outcome == "rolled-back", report.sessions[0].says
    assert await scene.source.fetchval(expired) == 0


async def test_there_and_back_and_there_again(scene: Scene) -> None:
    await cut_over(scene, Cutover(stopped=True, watch_s=0, mirror=True))
    await write_here(scene, 1)
    assert (await roll_back(scene)).sessions[0].outcome == "rolled-back"
    await scene.source.execute("DELETE FROM whatsapp_keys WHERE key_type = 'pre-key' AND key_id = '7001'")
    refused = await cut_over(scene, Cutover(stopped=True, watch_s=0, mirror=True))
    assert refused.sessions[0].outcome == "refused"
    told = migrating.Told(takeover=True)
    report = await cut_over(scene, Cutover(stopped=True, watch_s=0, mirror=True, told=told))
    assert report.sessions[0].outcome == "cut-over", report.sessions[0].says
    await write_here(scene, 2)
    assert (await roll_back(scene)).sessions[0].outcome == "rolled-back"
    there = await at_source(scene)
    assert ("pre-key", "7001") not in there
    assert there["session", "15550400000.0"] == counted(2)


async def test_the_whole_way_by_the_command_line(scene: Scene, tmp_path: Path) -> None:
    async def run(*args: str) -> Any:
        return await asyncio.to_thread(authstore, scene.target_url, "migrate", *args, cwd=tmp_path)

    copied = await run("copy", "--from", scene.source_url, "--report", "copy")
    assert copied.returncode == 3, copied.stderr  # quarantined rows are findings
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o700
    for name in ("quarantine.ndjson", "report.json", "report.html"):
        assert (tmp_path / "copy" / name).stat().st_mode & 0o777 == 0o600
    assert len((tmp_path / "copy" / "quarantine.ndjson").read_text().splitlines()) == 9
    verified = await run("verify", "--from", scene.source_url, "--format", "json")
    assert json.loads(verified.stdout)["sessions"][0]["outcome"] == "equal"
    moved = await run(
        "cutover",
        "--from",
        scene.source_url,
        "--session",
        shop.SESSION,
        "--mirror",
        "--old-writer-stopped",
        "--watch",
        "0",
    )
    assert "down for" in moved.stdout, moved.stderr
    await write_here(scene, 7)
    waiting = await run("mirror", "--format", "json")
    assert (waiting.returncode, json.loads(waiting.stdout)[0]["commits"]) == (3, 1)
    back = await run("rollback", "--session", shop.SESSION, "--format", "json")
    assert back.returncode == 0, back.stderr + back.stdout
    assert (await at_source(scene))["session", "15550400000.0"] == counted(7)
    listed = await run("list", "--format", "json")
    runs = json.loads(listed.stdout)
    assert [each["verb"] for each in runs] == ["rollback", "cutover", "verify", "copy"]
    assert all(each["ended_at"] and each["sessions"] == 1 for each in runs)
    shown = await run("show", runs[-1]["id"], "--format", "json")
    (session,) = json.loads(shown.stdout)
    assert session["keys"] == migrating.EXPECTED["keys"]
    assert len(session["details"]["quarantine"]) == 9
    everything = "".join(done.stderr for done in (copied, verified, moved, waiting, back, listed, shown))
    assert "15550" not in everything


def test_merging_entries_is_applying_them_one_after_another() -> None:
    entries = [
        Entry(False, b"1", [("t", b"a", b"1"), ("t", b"b", b"1")]),
        Entry(True, b"2", [("t", b"c", b"2")]),
        Entry(False, None, [("t", b"c", None), ("t", b"a", b"3")]),
    ]
    merged = merge(entries)
    assert (merged.whole, merged.creds, merged.rows) == (True, b"2", {("t", "c"): None, ("t", "a"): b"3"})


async def test_nothing_of_a_move_can_be_read_in_the_database(scene: Scene) -> None:
    """No id, value or source URL in clear, whatever waits, is remembered or was reported."""
    await run_copy(scene.store, scene.source_url)
    await cut_over(scene, Cutover(stopped=True, watch_s=0, mirror=True))
    await write_here(scene, 1)
    connection = await asyncpg.connect(scene.target_url)
    try:
        tables = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
        filled = set()
        for (name,) in tables:
            rows = [tuple(row.values()) for row in await connection.fetch(f'SELECT * FROM "{name}"')]
            filled |= {name} if rows else set()
            everything = b"\0".join(
                cell if isinstance(cell, bytes) else str(cell).encode() for row in rows for cell in row
            )
            for needle in (b"155502001", b"100000000200", b"155504000", scene.source_url.encode(), b"ephemeralKeyPair"):
                assert needle not in everything, name
        assert {"session_origins", "mirror_entries", "migrate_runs", "migrate_run_sessions"} <= filled
        await scene.store.delete(CALLER, shop.SESSION, epoch=None, purge=True)
        assert await connection.fetchval("SELECT count(*) FROM session_origins") == 0
        assert await connection.fetchval("SELECT count(*) FROM mirror_entries") == 0
    finally:
        await connection.close()


async def test_a_missing_entry_stops_the_mirror_instead_of_being_passed_over(scene: Scene) -> None:
    await cut_over(scene, Cutover(stopped=True, watch_s=0, mirror=True))
    for n in range(3):
        await write_here(scene, n)
    connection = await asyncpg.connect(scene.target_url)
    await connection.execute("DELETE FROM mirror_entries WHERE version = (SELECT min(version) + 1 FROM mirror_entries)")
    await connection.close()
    links = Links()
    with pytest.raises(Corrupt):
        await carry(scene.store, CALLER, shop.SESSION, links)
    await links.close()
    assert ("pre-key", "7000") not in await at_source(scene)


async def test_sessions_with_and_without_a_mirror_share_statements(scene: Scene) -> None:
    await cut_over(scene, Cutover(stopped=True, watch_s=0, mirror=True))
    others = [f"other-{n}" for n in range(30)]
    row = Row("lid-mapping", b"15550400001", b'"100000000400001"')

    async def commit(name: str) -> None:
        for _ in range(5):
            await scene.store.commit(CALLER, name, CommitRequest(rows=[row]))

    batches: list[int] = []
    scene.store.write_lanes.observe = batches.append
    await asyncio.gather(*(commit(name) for name in [*others[:15], shop.SESSION, *others[15:]]))
    assert max(batches) > 1, "no statement was shared"
    waiting = await scene.store.mirrors.all_waiting()
    assert [(each.name, each.entries) for each in waiting] == [(shop.SESSION, 5)]
