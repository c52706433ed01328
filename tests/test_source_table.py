"""Tables of one's own as sources: Prisma's, and any that a map describes."""

import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from source_contract import CREDS, KEYS, PAIR, Rig, SourceContract, same, text

from protocol.file_names import mangle
from protocol.spelling import Spelling, respell
from service.errors import BadInput
from service.migrate.source import FaultKind, Source, SourceError, SourceRefused, Write, WrongSource
from service.migrate.sources import Layout, open_source

PRISMA = """
CREATE TABLE "Session" ("pkId" bigserial PRIMARY KEY, "sessionId" text NOT NULL, id text NOT NULL, data text NOT NULL);
CREATE UNIQUE INDEX unique_id_per_session ON "Session" ("sessionId", id)
"""
OWN = """
CREATE SCHEMA wa;
CREATE TABLE wa."Keys of ours" (
    tenant text NOT NULL, kind varchar(40) NOT NULL, "key" text NOT NULL, body bytea NOT NULL, until timestamp,
    PRIMARY KEY (tenant, kind, "key")
);
CREATE TABLE wa.creds (tenant text PRIMARY KEY, body jsonb NOT NULL)
"""
OWN_MAP: Layout = {
    "table": "wa.Keys of ours",
    "session": "tenant",
    "type": "kind",
    "id": "key",
    "value": "body",
    "expires": "until",
    "spelling": "indexed",
    "creds": {"table": "wa.creds", "session": "tenant", "value": "body"},
}


class TableRig(Rig):
    """A database with one of the schemas; subclasses know the columns."""

    layout: Layout | None = None
    schema = PRISMA

    def __init__(self, url: str, connection: Any) -> None:
        self.url = url
        self.connection = connection

    async def fill(self, session: str, creds: Any, keys: dict[tuple[str, str], Any]) -> None:
        rows = [(session, "creds", json.dumps(creds))]
        rows += [(session, mangle(f"{ktype}-{key_id}"), json.dumps(value)) for (ktype, key_id), value in keys.items()]
        await self.connection.executemany('INSERT INTO "Session" ("sessionId", id, data) VALUES ($1, $2, $3)', rows)

    async def touch(self, session: str) -> None:
        done = await self.connection.execute(
            'UPDATE "Session" SET data = \'"9"\' WHERE "sessionId" = $1 AND id = $2',
            session,
            "lid-mapping-15550100002",
        )
        assert done == "UPDATE 1"

    async def contents(self) -> Any:
        return await self.connection.fetch('SELECT *, xmin, ctid FROM "Session" ORDER BY ctid')

    @asynccontextmanager
    async def source(self) -> AsyncIterator[Source]:
        async with await open_source(self.url, self.layout) as source:
            yield source

    @asynccontextmanager
    async def unreachable(self) -> AsyncIterator[Source]:
        async with await open_source("postgresql://nobody@127.0.0.1:1/nothing", self.layout) as source:
            yield source


class OwnRig(TableRig):
    """Types and ids in columns of their own, creds elsewhere, values as bytes."""

    layout = OWN_MAP
    schema = OWN

    async def fill(self, session: str, creds: Any, keys: dict[tuple[str, str], Any]) -> None:
        await self.connection.execute("INSERT INTO wa.creds VALUES ($1, $2)", session, json.dumps(creds))
        await self.connection.executemany(
            'INSERT INTO wa."Keys of ours" VALUES ($1, $2, $3, $4)',
            [(session, *name, text(respell(name[0], value, Spelling.indexed))) for name, value in keys.items()],
        )

    async def touch(self, session: str) -> None:
        done = await self.connection.execute(
            "UPDATE wa.\"Keys of ours\" SET body = '\"9\"' WHERE tenant = $1 AND kind = 'lid-mapping'", session
        )
        assert done == "UPDATE 2"

    async def contents(self) -> Any:
        return [
            await self.connection.fetch(f"SELECT *, xmin, ctid FROM {table} ORDER BY ctid")
            for table in ('wa."Keys of ours"', "wa.creds")
        ]


@asynccontextmanager
async def rig_of(kind: type[TableRig], url: str) -> AsyncIterator[TableRig]:
    connection = await asyncpg.connect(url)
    await connection.execute(kind.schema)
    yield kind(url, connection)
    await connection.close()


class TestPrisma(SourceContract):
    @pytest.fixture
    async def rig(self, database_url: str) -> AsyncIterator[TableRig]:
        async with rig_of(TableRig, database_url) as rig:
            yield rig

    async def test_ambiguous_foreign_and_torn_rows_are_listed(self, rig: TableRig) -> None:
        await rig.fill("one", CREDS, {("pre-key", "1"): PAIR})
        rows = [
            ("one", "tctoken-1-2@lid", "{}"),
            ("one", "app-state-sync-key-AAAA__AEx", '{"keyData"'),
            ("one", "whatever", "1"),
        ]
        await rig.connection.executemany('INSERT INTO "Session" ("sessionId", id, data) VALUES ($1, $2, $3)', rows)
        async with rig.source() as source, source.snapshot() as snapshot:
            found = await snapshot.read("one")
        assert len(found.rows) == 1
        kinds = sorted(fault.kind for fault in found.faults)
        assert kinds == [FaultKind.ambiguous, FaultKind.foreign, FaultKind.torn]


class TestOwnTable(SourceContract):
    @pytest.fixture
    async def rig(self, database_url: str) -> AsyncIterator[TableRig]:
        async with rig_of(OwnRig, database_url) as rig:
            yield rig

    async def test_it_writes_the_spelling_and_clears_the_expiry(self, rig: TableRig) -> None:
        await rig.fill("one", CREDS, {("pre-key", "1"): PAIR, ("pre", "key-2"): PAIR})
        await rig.connection.execute("UPDATE wa.\"Keys of ours\" SET until = '2020-01-01'")
        async with rig.source() as source:
            async with source.snapshot() as snapshot:
                (expiry, _) = [row.expires_at for row in (await snapshot.read("one")).rows]
            assert expiry is not None
            assert expiry.year == 2020
            await source.write("one", None, [Write("pre-key", "1", text(PAIR)), Write("pre-key", "2", None)])
        (row,) = await rig.connection.fetch('SELECT * FROM wa."Keys of ours"')
        assert json.loads(row["body"])["public"]["0"] == 2
        assert row["until"] is None

    async def test_what_is_kept_no_clean_up_takes(self, rig: TableRig) -> None:
        for name in ("one", "two"):
            await rig.fill(name, CREDS, {("pre-key", "1"): PAIR, ("pre-key", "2"): PAIR})
        await rig.connection.execute("UPDATE wa.\"Keys of ours\" SET until = '2020-01-01'")
        await rig.connection.execute("UPDATE wa.\"Keys of ours\" SET until = '2999-01-01' WHERE key = '2'")
        left = 'SELECT key FROM wa."Keys of ours" WHERE tenant = $1 AND until IS NOT NULL ORDER BY key'
        async with rig.source() as source:
            await source.keep("one", expired=False)
            assert [row["key"] for row in await rig.connection.fetch(left, "one")] == ["1"]
            await source.keep("one")
        assert await rig.connection.fetch(left, "one") == []
        assert [row["key"] for row in await rig.connection.fetch(left, "two")] == ["1", "2"]

    async def test_creds_go_where_they_were_found_whatever_their_id(self, database_url: str) -> None:
        connection = await asyncpg.connect(database_url)
        await connection.execute("CREATE TABLE wa (s text, t text, i text, v jsonb, PRIMARY KEY (s, t, i))")
        await connection.execute("INSERT INTO wa VALUES ('one', 'creds', 'main', $1)", json.dumps(CREDS))
        layout = {"table": "wa", "session": "s", "type": "t", "id": "i", "value": "v"}
        changed = {**CREDS, "nextPreKeyId": 9}
        async with await open_source(database_url, layout) as source:
            for whole in (False, True):
                await source.write("one", text(changed), [Write("pre-key", "1", text(PAIR))], whole=whole)
                assert await connection.fetch("SELECT i FROM wa WHERE t = 'creds'") == [("main",)]
                async with source.snapshot() as snapshot:
                    same(await snapshot.read("one"), changed, {("pre-key", "1"): PAIR})
            await connection.execute("INSERT INTO wa VALUES ('one', 'creds', 'other', $1)", json.dumps(CREDS))
            with pytest.raises(SourceError, match="several rows of creds"):
                await source.write("one", text(CREDS), [])
        await connection.close()

    async def test_a_session_column_of_numbers_is_compared_as_text(self, database_url: str) -> None:
        connection = await asyncpg.connect(database_url)
        await connection.execute("CREATE TABLE k (tenant int, n text, v json, PRIMARY KEY (tenant, n))")
        layout = {"table": "k", "session": "tenant", "name": "n", "value": "v", "creds": "me"}
        async with await open_source(database_url, layout) as source:
            await source.write(
                "7", text(CREDS), [Write(*name, text(value)) for name, value in KEYS.items()], whole=True
            )
            async with source.snapshot() as snapshot:
                assert [name async for name in snapshot.sessions()] == ["7"]
                same(await snapshot.read("7"), CREDS, KEYS)
        assert await connection.fetchval("SELECT count(*) FROM k WHERE n = 'me'") == 1
        await connection.close()


async def test_columns_of_a_fixed_width_hold_what_was_written(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("CREATE TABLE wa (s char(36), k char(40), i char(60), v jsonb, until date)")
    layout = {"table": "wa", "session": "s", "type": "k", "id": "i", "value": "v", "expires": "until"}
    try:
        async with await open_source(database_url, layout) as source:
            await source.rehearse("one", text(CREDS))
            for _ in range(2):
                await source.write("one", text(CREDS), [Write(*name, text(value)) for name, value in KEYS.items()])
            async with source.snapshot() as snapshot:
                assert [name async for name in snapshot.sessions()] == ["one"]
                same(await snapshot.read("one"), CREDS, KEYS)
        assert await connection.fetchval("SELECT count(*) FROM wa") == len(KEYS) + 1
    finally:
        await connection.close()


async def test_two_keys_of_one_name_are_not_written(database_url: str) -> None:
    async with rig_of(TableRig, database_url) as rig, rig.source() as source:
        both = [Write("session", "1:2", b'"1"'), Write("session", "1-2", b'"2"')]
        with pytest.raises(SourceError, match="two keys would be one row"):
            await source.write("one", text(CREDS), both, whole=True)
        assert await rig.contents() == []


async def test_policies_of_a_table_off_the_search_path_count(database_url: str) -> None:
    async with rig_of(OwnRig, database_url) as rig:
        await rig.fill("one", CREDS, KEYS)
        role = f"app_{secrets.token_hex(4)}"
        await rig.connection.execute(
            f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA wa TO {role}; GRANT ALL ON ALL TABLES IN SCHEMA wa TO {role};"
            'ALTER TABLE wa."Keys of ours" ENABLE ROW LEVEL SECURITY'
        )
        try:
            async with await open_source(f"{rig.url}&role={role}", rig.layout) as source, source.snapshot() as snapshot:
                with pytest.raises(SourceRefused, match="row-level security"):
                    await snapshot.read("one")
        finally:
            await rig.connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_several_stores_in_one_database_are_never_guessed_between(database_url: str) -> None:
    async with rig_of(TableRig, database_url) as rig:
        await rig.connection.execute("CREATE TABLE auth_data (session_key text PRIMARY KEY, data text)")
        with pytest.raises(WrongSource, match="several stores: choose postgres-baileys or prisma"):
            await open_source(database_url)
        async with await open_source(database_url, {"layout": "prisma"}) as source:
            assert source.kind == "prisma"
        with pytest.raises(WrongSource):
            await open_source(database_url, {"layout": "legacy"})


@pytest.mark.parametrize(
    "change",
    [
        {"table": ""},
        {"session": 1},
        {"name": "x"},
        {"id": None},
        {"mangled": True},
        {"creds": 5},
        {"creds": {"table": "x"}},
        {"spelling": "text"},
        {"other": "x"},
        {"layout": "prisma"},
    ],
)
async def test_a_map_that_says_nonsense_is_a_usage_error(database_url: str, change: dict[str, Any]) -> None:
    async with rig_of(OwnRig, database_url):
        with pytest.raises(BadInput) as caught:
            await open_source(database_url, {**OWN_MAP, **change})
    assert caught.value.pointer == "--map"


@pytest.mark.parametrize("change", [{"table": "nowhere"}, {"value": "until"}, {"id": "absent"}])
async def test_a_map_that_does_not_fit_the_database_is_told(database_url: str, change: dict[str, Any]) -> None:
    async with rig_of(OwnRig, database_url):
        with pytest.raises(WrongSource):
            await open_source(database_url, {**OWN_MAP, **change})
