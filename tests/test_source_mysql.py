"""``mysql-baileys`` as a source, in a real MariaDB, filled and read back by the package itself; and Prisma's table there."""

import asyncio
import json
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomysql
import pymysql
import pytest
import states
from external_mariadb import ExternalMariadb
from late_link import LateLink
from migrating import CALLER, open_store, run_copy, run_verify
from peers import get_state, missing, put_state
from source_contract import CREDS, KEYS, PAIR, Rig, SourceContract, same, text

from protocol.digest import digest
from protocol.file_names import mangle
from service.errors import BadInput
from service.migrate.cutover import Cutover, cutover
from service.migrate.origin import Origin
from service.migrate.plan import Options
from service.migrate.report import Folder, Report, Verdict
from service.migrate.runs import Run
from service.migrate.source import FaultKind, Source, SourceError, SourceRefused, Write, WrongSource
from service.migrate.sources import Layout, mysql, open_source
from service.migrate.sources.mysql import parse_url
from service.store import AuthStore

HOST, PORT, USER = "127.0.0.1", 3306, "root"
# As mysql-baileys 1.5.4 makes it, but for the engine.
AUTH = """
CREATE TABLE `auth` (`session` varchar(50) NOT NULL, `id` varchar(80) NOT NULL, `value` LONGTEXT DEFAULT NULL,
UNIQUE KEY `idxunique` (`session`,`id`), KEY `idxsession` (`session`), KEY `idxid` (`id`)) ENGINE={engine}
"""
PRISMA = """
CREATE TABLE Session (pkId int AUTO_INCREMENT PRIMARY KEY, sessionId varchar(128) NOT NULL, id varchar(255) NOT NULL,
data text NOT NULL, UNIQUE KEY unique_id_per_session (sessionId, id))
"""


class MysqlRig(Rig):
    """A database of this test's own."""

    def __init__(self, connection: Any, database: str) -> None:
        self.connection = connection
        self.database = database
        self.url = f"mysql://{USER}@{HOST}:{PORT}/{database}"

    async def execute(self, statement: str, *values: Any) -> Any:
        async with self.connection.cursor() as cursor:
            await cursor.execute(statement, values or None)
            return await cursor.fetchall()

    async def fill(self, session: str, creds: Any, keys: dict[tuple[str, str], Any]) -> None:
        await self.execute("INSERT INTO auth VALUES (%s, 'creds', %s)", session, json.dumps(creds))
        for (ktype, key_id), value in keys.items():
            plain = value if isinstance(value, str) else json.dumps(value)  # the package quotes no strings
            await self.execute("INSERT INTO auth VALUES (%s, %s, %s)", session, f"{ktype}-{key_id}", plain)

    async def touch(self, session: str) -> None:
        await self.execute("UPDATE auth SET value = '100000000000009' WHERE session = %s AND id LIKE 'lid-%%'", session)

    async def contents(self) -> Any:
        marks = await self.execute("CHECKSUM TABLE auth")
        updated = await self.execute(
            "SELECT update_time FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'auth'"
        )
        return marks, updated, await self.execute("SELECT * FROM auth")

    @asynccontextmanager
    async def source(self, layout: Layout | None = None) -> AsyncIterator[Source]:
        async with await open_source(self.url, layout) as source:
            yield source

    @asynccontextmanager
    async def unreachable(self) -> AsyncIterator[Source]:
        async with await open_source("mysql://root@127.0.0.1:1/nothing") as source:
            yield source


@pytest.fixture
async def maria() -> AsyncIterator[MysqlRig]:
    async with mariadb() as rig:
        yield rig


@asynccontextmanager
async def mariadb() -> AsyncIterator[MysqlRig]:
    """A database of one's own, dropped afterwards."""
    database = f"authstore_test_{secrets.token_hex(6)}"
    try:
        connection = await aiomysql.connect(
            host=HOST, port=PORT, user=USER, db="test", charset="utf8mb4", autocommit=True
        )
    except pymysql.err.OperationalError:
        missing("MariaDB at 127.0.0.1:3306")
    rig = MysqlRig(connection, database)
    await rig.execute(f"CREATE DATABASE {database} CHARACTER SET utf8mb4")
    try:
        await connection.select_db(database)
        yield rig
    finally:
        await rig.execute(f"DROP DATABASE {database}")
        connection.close()


class TestMysqlBaileys(SourceContract):
    @pytest.fixture(params=["MyISAM", "InnoDB"])
    async def rig(self, maria: MysqlRig, request: pytest.FixtureRequest) -> MysqlRig:
        await maria.execute(AUTH.format(engine=request.param))
        return maria

    async def test_only_tables_with_transactions_are_called_consistent(self, rig: MysqlRig) -> None:
        (row,) = await rig.execute("SHOW TABLE STATUS LIKE 'auth'")
        async with rig.source() as source, source.snapshot() as snapshot:
            assert snapshot.consistent is ("InnoDB" in row)

    @pytest.mark.parametrize("later", ["deleted", "put"])
    async def test_a_write_that_was_called_off_does_not_arrive_after_a_later_one(
        self, rig: MysqlRig, later: str
    ) -> None:
        await rig.fill("one", CREDS, {})
        name, newer = ("pre-key", "9"), None if later == "deleted" else {**PAIR, "n": 2}
        async with LateLink(PORT) as link, rig.source() as again, again.snapshot() as snapshot:
            through = rig.url.replace(f":{PORT}/", f":{link.port}/")
            async with await open_source(through) as source:
                link.hold(b"COMMIT" if snapshot.consistent else b"INSERT INTO")
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await source.write("one", None, [Write(*name, text(PAIR))])
                assert link.held.is_set()
                newer_text = None if newer is None else text(newer)
                writing = asyncio.create_task(again.write("one", None, [Write(*name, newer_text)]))
                await asyncio.wait([writing], timeout=0.5)
                await link.deliver()
                await writing
        async with rig.source() as source, source.snapshot() as snapshot:
            same(await snapshot.read("one"), CREDS, {} if newer is None else {name: newer})

    async def test_a_write_that_fails_leaves_nothing_where_there_are_transactions(self, rig: MysqlRig) -> None:
        await rig.fill("one", CREDS, KEYS)
        async with rig.source() as source:
            too_long = Write("session", f"{'5' * 100}.0", text(PAIR))
            with pytest.raises(SourceError, match="MySQL error 1406"):
                await source.write("one", None, [Write("pre-key", "1", None), too_long])
            async with source.snapshot() as snapshot:
                left = await snapshot.read("one")
                assert len(left.rows) == len(KEYS) - (0 if snapshot.consistent else 1)


async def test_a_state_written_by_the_package_is_read_and_what_we_write_the_package_reads(maria: MysqlRig) -> None:
    state = states.load("7.0.0-rc14")
    keys = {(ktype, key_id): value for ktype, ids in state["keys"].items() for key_id, value in ids.items()}
    options = {"host": HOST, "port": PORT, "user": USER, "password": "", "database": maria.database}
    await put_state("mysqlBaileys", options, "shop", state)
    async with maria.source() as source:
        async with source.snapshot() as snapshot:
            assert not snapshot.consistent  # the package makes MyISAM tables
            same(await snapshot.read("shop"), state["creds"], keys)
        writes = [Write(*name, text(value)) for name, value in keys.items()]
        await source.write("back", text(state["creds"]), writes, whole=True)
    # Its reading of app-state-sync-key gives a key of zeros, whoever wrote it.
    wanted = {**state, "keys": {ktype: ids for ktype, ids in state["keys"].items() if ktype != "app-state-sync-key"}}
    read = await get_state("mysqlBaileys", options, "back", wanted)
    assert digest("", text(read["creds"])) == digest("", text(state["creds"]))
    for ktype, ids in wanted["keys"].items():
        for key_id, value in ids.items():
            assert digest(ktype, text(read["keys"][ktype][key_id])) == digest(ktype, text(value)), ktype


async def test_what_cannot_be_written_is_found_by_a_rehearsal(maria: MysqlRig) -> None:
    await maria.execute(AUTH.format(engine="InnoDB"))
    await maria.fill("one", CREDS, KEYS)
    user = f"reader_{secrets.token_hex(4)}"
    await maria.execute(f"CREATE USER {user}@'%%'")
    try:
        for more in ("SELECT", "INSERT", "UPDATE"):
            await maria.execute(f"GRANT {more} ON {maria.database}.* TO {user}@'%%'")
            async with await open_source(maria.url.replace(USER, user, 1)) as source:
                with pytest.raises(SourceRefused):
                    await source.rehearse("one", text(CREDS))
        await maria.execute(f"GRANT DELETE ON {maria.database}.* TO {user}@'%%'")
        async with await open_source(maria.url.replace(USER, user, 1)) as source:
            await source.rehearse("one", text(CREDS))
    finally:
        await maria.execute(f"DROP USER {user}@'%%'")


async def test_prismas_table_and_what_its_text_column_cut_off(maria: MysqlRig) -> None:
    await maria.execute(PRISMA)
    rows = [("creds", json.dumps(CREDS))]
    rows += [(mangle(f"{ktype}-{key_id}"), json.dumps(value)) for (ktype, key_id), value in KEYS.items()]
    for row in rows:
        await maria.execute("INSERT INTO Session (sessionId, id, data) VALUES ('one', %s, %s)", *row)
    async with maria.source() as source:
        async with source.snapshot() as snapshot:
            assert snapshot.consistent
            same(await snapshot.read("one"), CREDS, KEYS)
        with pytest.raises(SourceError, match="MySQL error 1406"):
            await source.write("one", text({**CREDS, "x": "x" * 70_000}), [])
        await maria.execute("SET SESSION sql_mode = ''")
        cut = json.dumps({"version": 1, "x": "x" * 70_000})
        connection = maria.connection
        async with connection.cursor() as cursor:
            with pytest.warns(pymysql.err.Warning):
                await cursor.execute(
                    "UPDATE Session SET data = %s WHERE id = 'app-state-sync-version-regular_low'", (cut,)
                )
        async with source.snapshot() as snapshot:
            assert [fault.kind for fault in (await snapshot.read("one")).faults] == [FaultKind.torn]


async def test_a_table_of_ones_own(maria: MysqlRig) -> None:
    await maria.execute(
        "CREATE TABLE `my %s keys` (t varchar(40), k varchar(40), i varchar(80), v longblob, UNIQUE (t, k, i))"
    )
    layout = {"table": "my %s keys", "session": "t", "type": "k", "id": "i", "value": "v", "spelling": "octets"}
    async with maria.source(layout) as source:
        await source.write("one", text(CREDS), [Write(*name, text(value)) for name, value in KEYS.items()])
        await source.write("one", None, [Write("pre-key", "1", None)])
        async with source.snapshot() as snapshot:
            same(
                await snapshot.read("one"),
                CREDS,
                {name: value for name, value in KEYS.items() if name != ("pre-key", "1")},
            )
    await maria.execute("CREATE TABLE loose (t varchar(40), k varchar(40), v text)")
    for change in ({"table": "absent"}, {"value": "absent"}, {"table": "loose", "name": "k", "type": None, "id": None}):
        changed = {name: value for name, value in {**layout, **change}.items() if value is not None}
        with pytest.raises(WrongSource):
            await open_source(maria.url, changed)
    with pytest.raises(BadInput):
        await open_source(maria.url, {**layout, "expires": "v"})


async def test_creds_go_where_they_were_found_whatever_their_id(maria: MysqlRig) -> None:
    await maria.execute("CREATE TABLE wa (s varchar(40), t varchar(40), i varchar(80), v longtext, UNIQUE (s, t, i))")
    await maria.execute("INSERT INTO wa VALUES ('one', 'creds', 'main', %s)", json.dumps(CREDS))
    changed = {**CREDS, "nextPreKeyId": 9}
    async with maria.source({"table": "wa", "session": "s", "type": "t", "id": "i", "value": "v"}) as source:
        for whole in (False, True):
            await source.write("one", text(changed), [Write("pre-key", "1", text(PAIR))], whole=whole)
            assert await maria.execute("SELECT i FROM wa WHERE t = 'creds'") == (("main",),)
            async with source.snapshot() as snapshot:
                same(await snapshot.read("one"), changed, {("pre-key", "1"): PAIR})


@pytest.mark.parametrize("engine", ["MyISAM", "InnoDB"])
async def test_two_keys_that_the_collation_takes_for_one_are_not_merged(maria: MysqlRig, engine: str) -> None:
    await maria.execute(AUTH.format(engine=engine))
    small, large = ("app-state-sync-key", "AAAAAExm"), ("app-state-sync-key", "AAAAAEXM")
    value, other = ({"keyData": {"type": "Buffer", "data": data}} for data in ("AQID", "BAUG"))
    await maria.fill("one", CREDS, {small: value})
    async with maria.source() as source:
        with pytest.raises(SourceError, match="two keys would be one row"):
            await source.write("one", None, [Write(*large, text(other))])
        await source.write("one", None, [Write(*large, None)])
        async with source.snapshot() as snapshot:
            same(await snapshot.read("one"), CREDS, {small: value})
        await source.write("one", None, [Write(*large, text(other)), Write(*small, None)])
        async with source.snapshot() as snapshot:
            same(await snapshot.read("one"), CREDS, {large: other})


@pytest.mark.parametrize("engine", ["MyISAM", "InnoDB"])
@pytest.mark.parametrize("collation", ["utf8mb4_general_ci", "utf8mb4_roman_ci"])
async def test_nor_are_two_that_come_together(maria: MysqlRig, engine: str, collation: str) -> None:
    """Roman takes "v" for "u" too."""
    await maria.execute(AUTH.format(engine=engine))
    await maria.execute(f"ALTER TABLE auth CONVERT TO CHARACTER SET utf8mb4 COLLATE {collation}")
    names = ("Exm", "EXM") if collation == "utf8mb4_general_ci" else ("u", "v")
    together = [Write("app-state-sync-key", name, text({"keyData": name})) for name in names]
    async with maria.source() as source:
        with pytest.raises(SourceError, match="two keys would be one row"):
            await source.write("one", None, together)
    assert len(await maria.execute("SELECT value FROM auth")) == (engine == "MyISAM")  # which undoes nothing


async def test_a_large_write_takes_few_round_trips(maria: MysqlRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """812 pre-keys, as Baileys uploads at first: over a slow link one or two statements a key would never get done."""
    await maria.execute(AUTH.format(engine="InnoDB"))
    keys = {("pre-key", str(n)): {**PAIR, "n": n} for n in range(812)}
    trips: list[str] = []
    real = mysql.run

    async def counted(connection: Any, statement: str, *values: str) -> Any:
        trips.append(statement)
        return await real(connection, statement, *values)

    monkeypatch.setattr(mysql, "run", counted)
    async with maria.source() as source:
        trips.clear()
        await source.write("one", text(CREDS), [Write(*name, text(value)) for name, value in keys.items()])
        assert len(trips) < 20
        async with source.snapshot() as snapshot:
            same(await snapshot.read("one"), CREDS, keys)
        trips.clear()
        await source.write("one", None, [Write(*name, None) for name in keys])
        assert len(trips) < 20
        async with source.snapshot() as snapshot:
            same(await snapshot.read("one"), CREDS, {})


async def test_an_error_of_the_reader_is_not_taken_for_the_sources(maria: MysqlRig) -> None:
    await maria.execute(AUTH.format(engine="InnoDB"))
    async with maria.source() as source:
        with pytest.raises(OSError, match="disk is full"):
            async with source.snapshot():
                raise OSError("the disk is full")


async def test_stores_are_not_guessed(maria: MysqlRig) -> None:
    with pytest.raises(WrongSource):
        await open_source(maria.url)
    await maria.execute(AUTH.format(engine="MyISAM"))
    await maria.execute(AUTH.format(engine="MyISAM").replace("`auth`", "`auth2`"))
    with pytest.raises(WrongSource, match="several tables"):
        await open_source(maria.url)


async def test_refusals_are_told_apart_and_hold_no_password(maria: MysqlRig) -> None:
    for url in (f"mysql://nobody:hunter2@{HOST}:{PORT}/test", f"mysql://{USER}@{HOST}:{PORT}/absent_database"):
        with pytest.raises(SourceRefused) as caught:
            await open_source(url)
        assert "hunter2" not in repr(caught.value)


@pytest.mark.parametrize("url", ["mysql://h", "mysql://h:x/d", "mysql://h/d?other=1", "mysql://h/d?ssl-mode=perhaps"])
def test_an_url_is_told_its_form(url: str) -> None:
    with pytest.raises(BadInput):
        parse_url(url)


def test_a_link_across_a_network_is_protected_unless_told() -> None:
    assert parse_url("mysql://u:p%40@db.example/d").tls is not None
    assert parse_url("mysql://u:p%40@db.example/d").password == "p@"
    assert "p@" not in repr(parse_url("mysql://u:p%40@db.example/d"))
    assert parse_url("mysql://u@db.example/d?ssl-mode=disabled").tls is None
    assert parse_url("mysql://u@127.0.0.1/d").tls is None
    assert parse_url("mysql://u@localhost/d?ssl-mode=verify").tls is not None
    assert parse_url(f"mysql://u@x/d?socket={os.devnull}").tls is None


async def test_a_replica_is_copied_with_a_note_and_never_cut_over(database_url: str, tmp_path: Path) -> None:
    with ExternalMariadb(tmp_path, 1) as primary, ExternalMariadb(tmp_path, 2) as replica:
        await primary.run("CREATE DATABASE shop CHARACTER SET utf8mb4")
        await primary.run(AUTH.format(engine="InnoDB"), database="shop")
        await primary.run(f"INSERT INTO auth VALUES ('one', 'creds', '{text(CREDS).decode()}')", database="shop")
        await primary.run("CREATE USER plain@'%'", "GRANT ALL ON shop.* TO plain@'%'")
        await replica.follow(primary)
        await replica.until_there("shop", "SELECT * FROM auth")
        urls = [primary.url("shop"), replica.url("shop"), primary.url("shop", "plain"), replica.url("shop", "plain")]
        assert [await standby(url) for url in urls] == [False, True, None, None]
        async with open_store(database_url) as store:
            for url, says in ((urls[1], "standby"), (urls[3], "cannot be told")):
                report = await run_copy(store, url)
                assert [says in note for note in report.notes] == [True]
                assert report.verdict is Verdict.findings
                assert [says in note for note in (await run_verify(store, url)).notes] == [True]
            await replica.run("STOP SLAVE", "SET GLOBAL read_only = 1")
            assert [await standby(url) for url in (urls[1], urls[3])] == [True, True]
            with pytest.raises(SourceError, match="standby"):
                await moved(store, urls[1])
            said = (await moved(store, urls[2])).notes
        assert ["cannot be told" in note for note in said] == [True]
        await replica.run("RESET SLAVE ALL")
        assert await standby(urls[1]) is False  # it follows nobody, and its writers are locked out


async def standby(url: str) -> bool | None:
    async with await open_source(url) as source:
        return await source.standby()


async def moved(store: AuthStore, url: str) -> Report:
    async with await open_source(url) as source:
        run = await Run.begin(store, CALLER, "cutover", source.kind, {})
        chosen = Cutover(stopped=True, watch_s=0)
        return await cutover(run, source, Origin(url, "one", Options()), chosen, Folder(None), lambda _: None)


async def test_a_snapshot_outlasts_the_servers_patience(tmp_path: Path) -> None:
    short = {"wait-timeout": "1", "idle-transaction-timeout": "1", "idle-readonly-transaction-timeout": "1"}
    with ExternalMariadb(tmp_path, 1, short) as server:
        await server.run("CREATE DATABASE shop CHARACTER SET utf8mb4")
        await server.run(AUTH.format(engine="InnoDB"), database="shop")
        await server.run(f"INSERT INTO auth VALUES ('one', 'creds', '{text(CREDS).decode()}')", database="shop")
        async with await open_source(server.url("shop")) as source, source.snapshot() as snapshot:
            assert [name async for name in snapshot.sessions()] == ["one"]
            await asyncio.sleep(3)
            same(await snapshot.read("one"), CREDS, {})
