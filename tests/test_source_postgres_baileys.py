"""The table of ``postgres-baileys`` as a source, filled and read back by the package itself."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
import states
from peers import get_state, put_state
from source_contract import CREDS, KEYS, PAIR, Rig, SourceContract, same, text

from protocol.digest import digest
from protocol.spelling import Spelling, respell
from service.migrate.source import FaultKind, Source, Write
from service.migrate.sources import open_source

SCHEMA = "CREATE TABLE IF NOT EXISTS auth_data (session_key VARCHAR(255) PRIMARY KEY, data TEXT NOT NULL)"


class BaileysRig(Rig):
    """Filled with what the package writes: lists of octets, names as they are."""

    def __init__(self, url: str, connection: Any) -> None:
        self.url = url
        self.connection = connection

    async def fill(self, session: str, creds: Any, keys: dict[tuple[str, str], Any]) -> None:
        rows = [(f"{session}:auth_creds", octets("", creds))]
        rows += [(f"{session}:{ktype}-{key_id}", octets(ktype, value)) for (ktype, key_id), value in keys.items()]
        await self.connection.executemany("INSERT INTO auth_data VALUES ($1, $2)", rows)

    async def touch(self, session: str) -> None:
        done = await self.connection.execute(
            "UPDATE auth_data SET data = '\"100000000000009\"' WHERE session_key = $1",
            f"{session}:lid-mapping-15550100002",
        )
        assert done == "UPDATE 1"

    async def contents(self) -> Any:
        return await self.connection.fetch("SELECT *, xmin, ctid FROM auth_data ORDER BY ctid")

    @asynccontextmanager
    async def source(self) -> AsyncIterator[Source]:
        async with await open_source(self.url) as source:
            yield source

    @asynccontextmanager
    async def unreachable(self) -> AsyncIterator[Source]:
        async with await open_source("postgresql://nobody@127.0.0.1:1/nothing") as source:
            yield source


def octets(ktype: str, value: Any) -> str:
    return json.dumps(respell(ktype, value, Spelling.octets))


@pytest.fixture
async def baileys(database_url: str) -> AsyncIterator[BaileysRig]:
    connection = await asyncpg.connect(database_url)
    await connection.execute(SCHEMA)
    yield BaileysRig(database_url, connection)
    await connection.close()


class TestPostgresBaileys(SourceContract):
    @pytest.fixture
    async def rig(self, baileys: BaileysRig) -> BaileysRig:
        return baileys

    async def test_a_state_written_by_the_package_is_read_and_what_we_write_the_package_reads(
        self, baileys: BaileysRig
    ) -> None:
        state = states.load("6.7.24")
        keys = {(ktype, key_id): value for ktype, ids in state["keys"].items() for key_id, value in ids.items()}
        options = {"url": baileys.url}
        await put_state("postgresBaileys", options, "shop", state)
        async with baileys.source() as source:
            async with source.snapshot() as snapshot:
                found = await snapshot.read("shop")
            written = json.loads(found.creds or b"")
            same(
                found,
                {**state["creds"], **{name: written[name] for name in written.keys() - state["creds"].keys()}},
                keys,
            )
            writes = [Write(*name, text(value)) for name, value in keys.items()]
            await source.write("back", text(state["creds"]), writes, whole=True)
        read = await get_state("postgresBaileys", options, "back", state)
        assert digest("", text(read["creds"])) == digest("", text(state["creds"]))
        for (ktype, key_id), value in keys.items():
            assert digest(ktype, text(read["keys"][ktype][key_id])) == digest(ktype, text(value)), ktype

    async def test_sessions_and_ids_may_hold_the_separator(self, baileys: BaileysRig) -> None:
        for name in ("shop", "shop:1", "shop:1:b", "pre-key-1"):
            await baileys.fill(name, CREDS, KEYS)
        async with baileys.source() as source:
            async with source.snapshot() as snapshot:
                assert {name async for name in snapshot.sessions()} == {"shop", "shop:1", "shop:1:b", "pre-key-1"}
                for name in ("shop", "shop:1", "shop:1:b", "pre-key-1"):
                    same(await snapshot.read(name), CREDS, KEYS)
            await source.write("shop", text(CREDS), [Write("pre-key", "9", text(PAIR))], whole=True)
            async with source.snapshot() as snapshot:
                same(await snapshot.read("shop"), CREDS, {("pre-key", "9"): PAIR})
                same(await snapshot.read("shop:1"), CREDS, KEYS)

    async def test_what_is_no_key_and_what_is_cut_off_is_listed(self, baileys: BaileysRig) -> None:
        await baileys.fill("one", CREDS, {("pre-key", "1"): PAIR})
        await baileys.connection.executemany(
            "INSERT INTO auth_data VALUES ($1, $2)",
            [("one:test-type-x", "{}"), ("one:pre-key-2", '{"public":'), ("two:auth_creds", '{"noiseKey":{"pri')],
        )
        async with baileys.source() as source, source.snapshot() as snapshot:
            one, two = await snapshot.read("one"), await snapshot.read("two")
        assert sorted(fault.kind for fault in one.faults) == [FaultKind.foreign, FaultKind.torn]
        assert len(one.rows) == 1
        assert two.creds is None
        assert [fault.kind for fault in two.faults] == [FaultKind.torn_creds]
