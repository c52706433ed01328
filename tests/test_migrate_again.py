"""Runs after the first: what a later copy, cutover or rollback may replace, and what only ``--overwrite`` may."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
from migrating import CALLER, SCHEMA, Scene, Told, database_beside, open_store, run_copy, shop, shop_scene
from redis.asyncio import Redis

from service.errors import Unavailable
from service.migrate.cutover import Cutover, cutover
from service.migrate.mirror import Links, carry_and_compare, drain
from service.migrate.origin import Origin
from service.migrate.plan import Options
from service.migrate.report import Folder, SessionReport
from service.migrate.rollback import Rollback, rollback
from service.migrate.runs import Run, called, list_runs
from service.migrate.source import Source, SourceError, SourceRefused
from service.migrate.sources import open_source
from service.migrate.sources.layout import TableLayout
from service.migrate.sources.legacy_postgres import LegacyPostgres
from service.migrate.sources.mysql import MysqlSource, parse_url
from service.migrate.sources.redis import KeyLayout, RedisSource
from service.migrate.sources.sqlite import SqliteSource
from service.migrate.target import read_target
from service.store.request import CommitRequest, Row

Then = tuple[str, str | Callable[[], Awaitable[object]]]

SHRINK = "DELETE FROM whatsapp_keys WHERE key_type = 'lid-mapping'"
AGED = "DELETE FROM whatsapp_keys WHERE expires_at < now()"
AWAY = "ALTER TABLE whatsapp_keys RENAME TO away"
BACK = "ALTER TABLE away RENAME TO whatsapp_keys"
RATCHET = b'{"ratchet":"later"}'


@pytest.fixture
async def scene(database_url: str) -> AsyncIterator[Scene]:
    async with shop_scene(database_url) as opened:
        yield opened


@asynccontextmanager
async def another_shop(scene: Scene) -> AsyncIterator[str]:
    """A store like the shop's in another database: an old backup of it."""
    async with database_beside(scene.source_url) as url:
        connection = await asyncpg.connect(url)
        await connection.execute(SCHEMA)
        await shop.fill(connection)
        await connection.close()
        yield url


async def cut_over(
    scene: Scene, told: Told | None = None, *, mirror: bool = False, then: Then | None = None, watch_s: float = 0
) -> SessionReport:
    """``then``: what happens after a line to the operator that begins so, SQL at the source or anything."""
    happened = []

    async def happen(what: str | Callable[[], Awaitable[object]]) -> None:
        await (scene.source.execute(what) if isinstance(what, str) else what())

    def say(line: str) -> None:
        if then is not None and line.startswith(then[0]):
            happened.append(asyncio.create_task(happen(then[1])))

    async with await open_source(scene.source_url) as source:
        run = await Run.begin(scene.store, CALLER, "cutover", called(source), {})
        chosen = Cutover(stopped=then is None, still_s=0.6, watch_s=watch_s, mirror=mirror, told=told or Told())
        origin = Origin(scene.source_url, shop.SESSION, Options())
        report = await cutover(run, source, origin, chosen, Folder(None), say)
    await asyncio.gather(*happened)
    return report.sessions[0]


async def roll_back(scene: Scene, *, overwrite: bool = False) -> SessionReport:
    origin = Origin.decode(await scene.store.mirrors.origin(CALLER, shop.SESSION) or b"")
    async with await origin.open() as source:
        run = await Run.begin(scene.store, CALLER, "rollback", called(source), {})
        report = await rollback(run, source, origin, shop.SESSION, Rollback(overwrite))
    return report.sessions[0]


async def copied(scene: Scene, url: str | None = None, **told: bool) -> str:
    report = await run_copy(scene.store, url or scene.source_url, Told(**told))
    return report.sessions[0].outcome


async def here(scene: Scene) -> dict[tuple[str, str], bytes]:
    target = await read_target(scene.store, CALLER, shop.SESSION)
    assert target is not None
    return target.texts


async def commit(scene: Scene, *rows: Row) -> None:
    await scene.store.commit(CALLER, shop.SESSION, CommitRequest(rows=list(rows)))


async def ratchet(scene: Scene) -> tuple[str, str]:
    """A session record goes on here; its name."""
    name = next(name for name in await here(scene) if name[0] == "session")
    await commit(scene, Row(name[0], name[1].encode(), RATCHET))
    return name


async def shrink(scene: Scene) -> None:
    """Somebody takes rows away there that are not past their expiry."""
    await scene.source.execute(SHRINK)


async def forget_expired(scene: Scene) -> None:
    """The shop's nightly job, which deletes live keys too."""
    await scene.source.execute(AGED)


async def test_a_rollback_that_could_not_write_does_not_make_what_is_here_ours(scene: Scene) -> None:
    await cut_over(scene)
    name = await ratchet(scene)
    assert await copied(scene) == "refused"
    database = await scene.source.fetchval("SELECT current_database()")
    await scene.source.execute(f'ALTER DATABASE "{database}" SET default_transaction_read_only = on')
    with pytest.raises(SourceError):
        await roll_back(scene)
    await scene.source.execute(f'ALTER DATABASE "{database}" SET default_transaction_read_only = off')
    # What is remembered of the cutover is not what refuses here: this guard holds without it.
    await scene.store.mirrors.forget_origin(CALLER, shop.SESSION)
    assert await copied(scene) == "refused"
    assert (await here(scene))[name] == RATCHET


@pytest.mark.parametrize("mirror", [True, False])
async def test_what_was_cut_over_lives_here_even_when_nobody_wrote_yet(scene: Scene, mirror: bool) -> None:
    await cut_over(scene, mirror=mirror)
    before = await here(scene)
    assert await copied(scene) == "same"
    await shrink(scene)
    assert await copied(scene) == "refused"
    assert await copied(scene, takeover=True) == "refused"
    assert await here(scene) == before
    assert (await cut_over(scene)).outcome == "refused"
    assert await copied(scene, overwrite=True) == "copied"


async def test_finding_the_same_values_does_not_make_commits_of_others_ours(scene: Scene) -> None:
    await run_copy(scene.store, scene.source_url)
    await commit(scene, Row("lid-mapping", b"15550400000", b'"1"'))
    await commit(scene, Row("lid-mapping", b"15550400000", None))
    before = await here(scene)
    assert await copied(scene) == "same"
    await forget_expired(scene)
    assert await copied(scene) == "refused"
    assert await here(scene) == before


async def test_what_a_mirror_carried_back_is_the_same_and_not_ours(scene: Scene) -> None:
    await cut_over(scene, mirror=True)
    await commit(scene, Row("lid-mapping", b"15550400000", b'"1"'))
    assert await drain(scene.store, CALLER) == 1
    assert await copied(scene) == "same"
    before = await here(scene)
    await shrink(scene)
    assert await copied(scene) == "refused"
    assert await here(scene) == before


async def test_another_store_is_not_the_one_we_copied_from(scene: Scene) -> None:
    name = next(name for name, _ in shop.state()["keys"]["session"].items())
    await scene.source.execute(
        "UPDATE whatsapp_keys SET value = $2::text::jsonb WHERE key_type = 'session' AND key_id = $1",
        name, json.dumps(json.loads(RATCHET)),
    )  # fmt: skip
    assert await copied(scene) == "copied"
    async with another_shop(scene) as backup:
        assert await copied(scene, backup) == "refused"
        assert json.loads((await here(scene))["session", name]) == json.loads(RATCHET)
    await forget_expired(scene)
    assert await copied(scene) == "copied"  # the one we copied from went on
    user = await scene.source.fetchval("SELECT current_user")
    await scene.source.execute("DELETE FROM whatsapp_keys WHERE key_type = 'lid-mapping'")
    anonymous = scene.source_url.replace(f"//{user}@", "//")
    assert await copied(scene, f"{anonymous}&user={user}") == "copied"  # whoever logs in to it


async def test_ending_a_lease_is_no_leave_to_overwrite(scene: Scene) -> None:
    await run_copy(scene.store, scene.source_url)
    name = await ratchet(scene)
    await scene.store.lease(CALLER, shop.SESSION, "a client", 60, takeover=False, epoch=None)
    assert await copied(scene, takeover=True) == "refused"
    assert (await here(scene))[name] == RATCHET
    refused = (await run_copy(scene.store, scene.source_url, Told(overwrite=True))).sessions[0]
    target = await read_target(scene.store, CALLER, shop.SESSION)
    assert target is not None
    assert target.lease is not None
    assert '"a client"' in refused.says
    assert target.lease.expires_at.isoformat(timespec="seconds") in refused.says
    assert await copied(scene, overwrite=True, takeover=True) == "copied"


async def test_a_cutover_once_more_carries_over_what_waits_and_the_mirror_goes_on(scene: Scene) -> None:
    await cut_over(scene, mirror=True)
    creds = (await here(scene))["", ""]
    await scene.store.commit(CALLER, shop.SESSION, CommitRequest(creds=creds))  # saved as they were; nobody carries yet
    name = await ratchet(scene)
    assert (await cut_over(scene, mirror=True)).outcome == "cut-over"
    assert await scene.store.mirrors.waiting(CALLER) == []
    later = await ratchet(scene)
    await commit(scene, Row("lid-mapping", b"15550400000", b'"1"'))
    assert await drain(scene.store, CALLER) == 2
    assert (await roll_back(scene)).outcome == "rolled-back"
    found = await scene.source.fetch("SELECT key_id, value::text FROM whatsapp_keys WHERE key_type = 'session'")
    there = {row["key_id"]: json.loads(row["value"]) for row in found}
    assert there[name[1]] == there[later[1]] == json.loads(RATCHET)


async def test_a_cutover_without_a_mirror_ends_that_of_an_earlier_one(scene: Scene) -> None:
    await cut_over(scene, mirror=True)
    again = await cut_over(scene)
    target = await read_target(scene.store, CALLER, shop.SESSION)
    assert target is not None
    assert (again.outcome, again.facts["mirror"], target.mirrored) == ("cut-over", "off", False)


async def test_a_refused_cutover_leaves_the_mirror_on(scene: Scene) -> None:
    await cut_over(scene, mirror=True)
    await ratchet(scene)
    await scene.source.execute("DELETE FROM whatsapp_keys WHERE key_type IN ('lid', 'lid-mapping')")
    assert (await cut_over(scene)).outcome == "refused"
    await ratchet(scene)
    assert len(await scene.store.mirrors.waiting(CALLER)) == 1
    assert (await cut_over(scene, Told(overwrite=True), mirror=True)).outcome == "cut-over"
    assert await scene.store.mirrors.waiting(CALLER) == []
    assert not any(ktype == "lid-mapping" for ktype, _ in await here(scene))
    assert (await scene.source.fetchval("SELECT count(*) FROM whatsapp_keys WHERE key_type = 'test-type'")) == 1


@pytest.mark.parametrize("mirror", [True, False])
async def test_what_lives_here_is_not_replaced_because_the_source_changes_under_a_cutover(
    scene: Scene, mirror: bool
) -> None:
    await cut_over(scene, mirror=mirror)
    name = await ratchet(scene)
    if mirror:
        await drain(scene.store, CALLER)
    else:  # the same values on both sides
        await scene.source.execute(
            "UPDATE whatsapp_keys SET value = $2::text::jsonb WHERE key_type = 'session' AND key_id = $1",
            name[1], RATCHET.decode(),
        )  # fmt: skip
    before = await here(scene)
    assert (await cut_over(scene, mirror=mirror, then=("copied", SHRINK))).outcome == "refused"
    assert await here(scene) == before
    assert (await cut_over(scene, Told(overwrite=True), then=("copied", AGED))).outcome == "cut-over"
    assert len(await here(scene)) < len(before)


async def test_a_cutover_again_that_fails_leaves_the_mirror_on(scene: Scene) -> None:
    await cut_over(scene, mirror=True)
    name = await ratchet(scene)
    with pytest.raises(SourceError):
        await cut_over(scene, mirror=True, then=("copied", AWAY))
    await scene.source.execute(BACK)
    await commit(scene, Row(name[0], name[1].encode(), b'{"ratchet":"last"}'))
    assert await drain(scene.store, CALLER) == 1
    assert (await roll_back(scene)).outcome == "rolled-back"
    there = await scene.source.fetchval("SELECT value::text FROM whatsapp_keys WHERE key_id = $1", name[1])
    assert json.loads(there) == {"ratchet": "last"}


async def test_a_mirror_that_stays_off_leaves_a_source_that_a_rollback_knows(scene: Scene) -> None:
    """The lease is lost while the cutover runs, so that it may not switch the mirror on again."""
    await cut_over(scene, mirror=True)
    await ratchet(scene)

    async def lose_both() -> None:
        await scene.source.execute(AWAY)
        await scene.store.lease(CALLER, shop.SESSION, "a client", 60, takeover=True, epoch=None)

    with pytest.raises(SourceError):
        await cut_over(scene, mirror=True, then=("copied", lose_both))
    await scene.source.execute(BACK)
    target = await read_target(scene.store, CALLER, shop.SESSION)
    assert target is not None
    assert not target.mirrored
    row = Row("lid-mapping", b"15550400000", b'"1"')
    await scene.store.commit(CALLER, shop.SESSION, CommitRequest(rows=[row], lease_epoch=target.epoch))
    assert (await roll_back(scene)).outcome == "rolled-back"
    assert await scene.source.fetchval("SELECT value::text FROM whatsapp_keys WHERE key_id = '15550400000'") == '"1"'


@pytest.mark.parametrize("mirror", [True, False])
async def test_a_cutover_whose_watch_fails_says_that_it_is_open_here(scene: Scene, mirror: bool) -> None:
    moved = await cut_over(scene, mirror=mirror, then=("watching", AWAY), watch_s=0.6)
    assert (moved.outcome, moved.verdict) == ("cut-over", "failed")
    assert moved.says.startswith("OPEN HERE")
    (run,) = await list_runs(scene.store, CALLER)
    assert run["ended_at"] is not None
    assert (run["outcome"], run["sessions"]) == ("failed", 1)
    await ratchet(scene)  # it is


async def test_a_cutover_that_opened_nothing_leaves_the_session_to_its_source(scene: Scene) -> None:
    """Its expiry dates may not be cleared, which is found when everything else is done."""
    await scene.source.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE insufficient_privilege; END $$;"
        "CREATE TRIGGER refuse BEFORE UPDATE ON whatsapp_keys FOR EACH ROW WHEN (OLD.expires_at IS NOT NULL)"
        " EXECUTE FUNCTION refuse()"
    )
    with pytest.raises(SourceRefused):
        await cut_over(scene, mirror=True)
    assert await scene.store.mirrors.origin(CALLER, shop.SESSION) is None
    await shrink(scene)  # the old writer goes on
    assert await copied(scene) == "copied"
    await forget_expired(scene)
    assert (await cut_over(scene)).outcome == "cut-over"


async def test_a_cutover_whose_mirror_does_not_switch_on_remembers_no_origin(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object, **__: object) -> int:
        raise Unavailable

    with monkeypatch.context() as patched:
        patched.setattr(scene.store.mirrors, "switch", away)
        with pytest.raises(Unavailable):
            await cut_over(scene, mirror=True)
    await shrink(scene)
    assert (await cut_over(scene, mirror=True)).outcome == "cut-over"


async def test_keeping_an_origin_passes_over_no_entry(scene: Scene) -> None:
    await cut_over(scene, mirror=True)
    await ratchet(scene)
    origin = await scene.store.mirrors.origin(CALLER, shop.SESSION)
    assert origin is not None
    await scene.store.mirrors.keep_origin(CALLER, shop.SESSION, origin)
    await ratchet(scene)
    assert await drain(scene.store, CALLER) == 2


@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize(
    "name", [("contacts-tc-token", "123@lid"), ("lid", "mapping-15550400009"), ("test-type", None)]
)
async def test_a_key_that_a_copy_would_leave_behind_goes_back_too(
    scene: Scene, mirror: bool, name: tuple[str, str | None]
) -> None:
    ktype, key_id = name
    if key_id is None:  # one the source has already, quarantined when we copied
        key_id = await scene.source.fetchval("SELECT key_id FROM whatsapp_keys WHERE key_type = $1", ktype)
        assert key_id is not None
    await cut_over(scene, mirror=mirror)
    await commit(scene, Row(ktype, key_id.encode(), b'"2"'))
    assert (await roll_back(scene)).outcome == "rolled-back"
    there = await scene.source.fetchval(
        "SELECT value::text FROM whatsapp_keys WHERE key_type = $1 AND key_id = $2", ktype, key_id
    )
    assert json.loads(there) == "2"
    for junk in shop.JUNK:  # what is only there stays there
        assert await scene.source.fetchval("SELECT count(*) FROM whatsapp_keys WHERE key_type = $1", junk) == 1


@pytest.mark.parametrize("mirror", [True, False])
async def test_values_whose_bytes_cannot_be_read_go_back_however_jsonb_prints_them(scene: Scene, mirror: bool) -> None:
    await cut_over(scene, mirror=mirror)
    numbers = b'"at":1.50e2,"big":12345678901234567890,"zero":-0.0'
    odd = b'{"token":{"type":"Buffer","data":"AQID-_8"},"name":"\\u00e9\\ud83d\\ude00",' + numbers + b"}"
    await commit(scene, Row("tctoken", b"123@lid", odd))
    if mirror:
        links = Links()
        assert await carry_and_compare(scene.store, CALLER, shop.SESSION, links) == []
        await links.close()
    back = await roll_back(scene)
    assert back.outcome == "rolled-back", back.says
    there = await scene.source.fetchval("SELECT value::text FROM whatsapp_keys WHERE key_id = '123@lid'")
    assert json.loads(there) == json.loads(odd)


async def test_a_source_written_by_others_is_still_noticed_beside_such_a_key(scene: Scene) -> None:
    await cut_over(scene)
    await commit(scene, Row("contacts-tc-token", b"123@lid", b'{"a":1}'))
    await forget_expired(scene)
    assert (await roll_back(scene)).outcome == "refused"
    assert (await roll_back(scene, overwrite=True)).outcome == "rolled-back"


async def test_a_rollback_that_cannot_be_read_back_is_none(database_url: str) -> None:
    """Two rows of the table are creds under two ids: which of them the old writer opens cannot be told."""
    layout = {"table": "wa", "session": "tenant", "value": "data", "type": "key_type", "id": "key_id"}
    async with database_beside(database_url) as url, open_store(database_url) as store:
        connection = await asyncpg.connect(url)
        creds = json.dumps(shop.state()["creds"])
        await connection.execute(
            "CREATE TABLE wa (tenant text, key_type text, key_id text, data jsonb, PRIMARY KEY (tenant, key_type, key_id))"
        )
        await connection.execute("INSERT INTO wa VALUES ('one', 'creds', 'main', $1)", creds)
        origin = Origin(url, "one", Options(), layout)
        async with await origin.open() as source:
            run = await Run.begin(store, CALLER, "cutover", called(source), {})
            moved = await cutover(run, source, origin, Cutover(True, watch_s=0), Folder(None), lambda _line: None)
            assert moved.sessions[0].outcome == "cut-over"
            await connection.execute("INSERT INTO wa VALUES ('one', 'creds', 'other', $1)", creds)
            run = await Run.begin(store, CALLER, "rollback", called(source), {})
            (back,) = (await rollback(run, source, origin, "one", Rollback(overwrite=True))).sessions
        await connection.close()
        assert (back.outcome, back.verdict) == ("blocked", "failed")
        assert "torn-creds" in back.says
        assert await store.mirrors.origin(CALLER, "one") is not None
        target = await read_target(store, CALLER, "one")
        assert target is not None
        assert target.lease is None


async def test_those_who_wait_elsewhere_hide_nobody(scene: Scene) -> None:
    """More sessions of another tenant than a page holds, all waiting for longer: rows alone, like those of a real one."""
    await cut_over(scene, mirror=True)
    connection = await asyncpg.connect(scene.target_url)
    columns = await connection.fetch(
        "SELECT column_name FROM information_schema.columns"
        " WHERE table_name = 'sessions' AND table_schema = 'public' AND is_generated = 'NEVER'"
    )
    names = [column for (column,) in columns]
    others = {"sid": "gen_random_uuid()", "tenant": "'other'", "name": "'s' || n"}
    await connection.execute(
        f"INSERT INTO sessions ({', '.join(names)})"
        f" SELECT {', '.join(others.get(name, name) for name in names)} FROM sessions, generate_series(1, 2001) n"
    )
    await connection.execute(
        "INSERT INTO mirror_entries (sid, version, sealed, at) SELECT sid, version + 1, repeat('x', 64)::bytea,"
        " now() - interval '1 hour' FROM sessions WHERE tenant = 'other'"
    )
    await connection.close()
    await ratchet(scene)
    assert [each.name for each in await scene.store.mirrors.waiting(CALLER)] == [shop.SESSION]
    everybody = await scene.store.mirrors.all_waiting()
    assert (len(everybody), everybody[-1].name) == (2002, shop.SESSION)
    assert await drain(scene.store, CALLER) == 1


STORES = {
    "tables": ({"table": "live"}, {"table": "backup"}),
    "columns": ({"table": "live"}, {"table": "live", "value": "before"}),
    "schemas": ({"table": "public.live"}, {"table": "old.live"}),
    "search_path": ({"table": "live"}, {"table": "live"}),
}


@pytest.mark.parametrize("how", STORES)
async def test_another_store_of_the_same_database_replaces_nothing(scene: Scene, how: str) -> None:
    """A backup beside the live tables is another store: nothing that was taken from there since is its to replace."""
    await scene.source.execute("""
        CREATE TABLE live (tenant text, key text, data text, before text, PRIMARY KEY (tenant, key));
        CREATE TABLE backup (LIKE live INCLUDING ALL); CREATE SCHEMA old; CREATE TABLE old.live (LIKE live INCLUDING ALL)
    """)
    creds = json.dumps(shop.state()["creds"])
    for table, value in (("live", '"2"'), ("backup", '"1"'), ("old.live", '"1"')):
        rows = [("one", "creds", creds, creds), ("one", "lid-mapping-1555", value, '"1"')]
        await scene.source.executemany(f"INSERT INTO {table} VALUES ($1, $2, $3, $4)", rows)
    columns = {"session": "tenant", "value": "data", "name": "key"}
    live, other = (columns | layout for layout in STORES[how])
    beside = f"{scene.source_url}&search_path=old" if how == "search_path" else scene.source_url

    async def taken(spec: str, layout: dict[str, str], **told: bool) -> str:
        return (await run_copy(scene.store, spec, Told(**told), layout=layout)).sessions[0].outcome

    assert await taken(scene.source_url, live) == "copied"
    assert await taken(beside, other) == "refused"
    target = await read_target(scene.store, CALLER, "one")
    assert target is not None
    assert target.texts["lid-mapping", "1555"] == b'"2"'
    await scene.source.execute("UPDATE live SET data = '\"3\"' WHERE key <> 'creds'")
    assert await taken(scene.source_url, live) == "copied"
    assert await taken(beside, other, overwrite=True) == "copied"


LEGACY = LegacyPostgres("postgresql://a:secret@h/shop", None)
TABLE = TableLayout("live", "tenant", "data", "key")
MYSQL = MysqlSource(parse_url("mysql://a:secret@h/shop"), TABLE, transactional=True)
HASHES = KeyLayout("{session}:auth", mangled=True)


def redis_source(url: str, layout: KeyLayout = HASHES) -> RedisSource:
    return RedisSource(url, Redis.from_url(url), layout)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (LEGACY, LegacyPostgres("postgresql://a@h/shop?port=6000", None)),
        (LegacyPostgres("postgresql:///d?host=/run/x", None), LegacyPostgres("postgresql:///d?host=/run/x&port=6000", None)),
        (LegacyPostgres("postgresql://h?dbname=shop", None), LegacyPostgres("postgresql://h?dbname=backup", None)),
        (LegacyPostgres("postgresql://h?database=shop", None), LegacyPostgres("postgresql://h?database=backup", None)),
        (MYSQL, MysqlSource(parse_url("mysql://h/shop"), replace(TABLE, table="backup"), transactional=True)),
        (redis_source("redis://h/0"), redis_source("redis://h/0", KeyLayout("old:{session}:auth", mangled=True))),
        (redis_source("redis://h?db=1"), redis_source("redis://h?db=2")),
        (SqliteSource(Path("/x" * 300 + "/1"), alone=True), SqliteSource(Path("/x" * 300 + "/2"), alone=True)),
    ],
)  # fmt: skip
def test_two_stores_have_two_names(one: Source, other: Source) -> None:
    assert called(one) != called(other)
    assert len(called(one)) <= 500


def test_a_store_has_one_name_whoever_looks_and_no_secret_in_it() -> None:
    def userless(source: Source) -> str:
        return called(source).replace("a@", "").replace("b@", "")

    assert userless(LEGACY) == userless(LegacyPostgres("postgresql://b:other@h/shop", None))
    assert called(MYSQL) == called(MysqlSource(parse_url("mysql://b:other@h/shop"), TABLE, transactional=True))
    assert called(redis_source("redis://a:secret@h/0")) == called(redis_source("redis://b:other@h/0"))
    assert called(SqliteSource(Path("/x"), alone=True)) == "sqlite /x"
    assert "secret" not in called(LEGACY) + called(MYSQL)
