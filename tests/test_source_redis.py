"""Redis as a source: the layouts of fazer-ai/baileys-api and baileys-redis-auth, in a real server.

Neither package can be installed from a registry: their keys are set here as their sources set them.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis.asyncio as driver
import redis.exceptions
from late_link import LateLink
from peers import missing
from source_contract import CREDS, KEYS, PAIR, Rig, SourceContract, same, text

from protocol.file_names import mangle
from service.errors import BadInput
from service.migrate.source import FaultKind, Source, SourceRefused, Write, WrongSource
from service.migrate.sources import Layout, open_source
from service.migrate.sources.redis import LAYOUTS, KeyLayout

PORT = 6379


def at(port: int) -> str:
    return f"redis://127.0.0.1:{port}"


SERVER = at(PORT)


class RedisRig(Rig):
    """Keys below a prefix of this test's own."""

    def __init__(self, client: Any, prefix: str, like: KeyLayout) -> None:
        self.client = client
        self.prefix = prefix
        self.template = f"{prefix}{like.template}"
        self.like = like

    @property
    def layout(self) -> Layout:
        return {"hash" if self.like.is_hash else "keys": self.template, "mangled": self.like.mangled}

    def key(self, session: str, name: str) -> str:
        return self.template.replace("{session}", session).replace("{name}", name)

    async def fill(self, session: str, creds: Any, keys: dict[tuple[str, str], Any]) -> None:
        named = {f"{ktype}-{key_id}": value for (ktype, key_id), value in keys.items()}
        await self.put(session, "creds", json.dumps(creds))
        for name, value in named.items():
            await self.put(session, mangle(name) if self.like.mangled else name, json.dumps(value))

    async def put(self, session: str, name: str, value: str | bytes) -> None:
        if self.like.is_hash:
            await self.client.hset(self.key(session, ""), name, value)
        else:
            await self.client.set(self.key(session, name), value)

    async def touch(self, session: str) -> None:
        await self.put(session, "lid-mapping-15550100002", '"100000000000009"')

    async def contents(self) -> Any:
        found = {}
        async for key in self.client.scan_iter(match=f"{self.prefix}*", count=1000):
            found[key] = await self.client.dump(key), await self.client.pttl(key)
        return found

    @asynccontextmanager
    async def source(self) -> AsyncIterator[Source]:
        async with await open_source(SERVER, self.layout) as source:
            yield source

    @asynccontextmanager
    async def unreachable(self) -> AsyncIterator[Source]:
        async with await open_source("redis://127.0.0.1:1", self.layout) as source:
            yield source


@asynccontextmanager
async def server(url: str = SERVER) -> AsyncIterator[Any]:
    client = driver.Redis.from_url(url)
    try:
        await client.ping()
    except redis.exceptions.ConnectionError:
        await client.aclose()
        missing("redis-server at 127.0.0.1:6379")
    yield client
    await client.aclose()


@pytest.fixture(params=["fazer", "hash", "keys"])
async def keyspace(request: pytest.FixtureRequest) -> AsyncIterator[RedisRig]:
    prefix = f"authstore-test-{secrets.token_hex(6)}:"
    async with server() as client:
        yield RedisRig(client, prefix, LAYOUTS[request.param])
        async for key in client.scan_iter(match=f"{prefix}*", count=1000):
            await client.delete(key)


class TestRedis(SourceContract):
    @pytest.fixture
    async def rig(self, keyspace: RedisRig) -> RedisRig:
        return keyspace

    async def test_names_with_the_signs_of_patterns_and_separators(self, keyspace: RedisRig) -> None:
        names = ["a*", "a?", "a[b]", "a\\", "shop:1", "shop", "shop:1:auth", "a-b^"]
        for name in names:
            await keyspace.fill(name, CREDS, KEYS)
        async with keyspace.source() as source:
            async with source.snapshot() as snapshot:
                assert {name async for name in snapshot.sessions()} == set(names)
            await source.write("a*", text(CREDS), [Write("pre-key", "9", text(PAIR))], whole=True)
            async with source.snapshot() as snapshot:
                same(await snapshot.read("a*"), CREDS, {("pre-key", "9"): PAIR})
                for name in names[1:]:
                    same(await snapshot.read(name), CREDS, KEYS)

    async def test_torn_and_foreign_values_are_listed(self, keyspace: RedisRig) -> None:
        await keyspace.fill("one", CREDS, {("pre-key", "1"): PAIR})
        await keyspace.put("one", "creds", '{"noiseKey"')
        await keyspace.put("one", "pre-key-2", "{")
        await keyspace.put("one", "whatever", "{}")
        async with keyspace.source() as source, source.snapshot() as snapshot:
            found = await snapshot.read("one")
        assert found.creds is None
        assert len(found.rows) == 1
        kinds = sorted(fault.kind for fault in found.faults)
        assert kinds == [FaultKind.foreign, FaultKind.torn, FaultKind.torn_creds]

    async def test_a_value_written_back_is_kept_for_ever(self, keyspace: RedisRig) -> None:
        await keyspace.fill("one", CREDS, {("pre-key", "1"): PAIR})
        key = keyspace.key("one", "pre-key-1")
        await keyspace.client.expire(key, 1000)
        async with keyspace.source() as source:
            await source.write("one", None, [Write("pre-key", "1", text(PAIR))])
        assert await keyspace.client.ttl(key) == -1

    @pytest.mark.parametrize("later", ["deleted", "put"])
    async def test_a_write_that_was_called_off_does_not_arrive_after_a_later_one(
        self, keyspace: RedisRig, later: str
    ) -> None:
        await keyspace.fill("one", CREDS, {})
        name, newer = ("pre-key", "9"), None if later == "deleted" else text({**PAIR, "n": 2})
        async with LateLink(PORT) as link, await open_source(at(link.port), keyspace.layout) as source:
            link.hold(b"EXEC")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await source.write("one", None, [Write(*name, text(PAIR))])
            assert link.held.is_set()
            async with keyspace.source() as again:
                await again.write("one", None, [Write(*name, newer)])
            await link.deliver()
        async with keyspace.source() as source, source.snapshot() as snapshot:
            same(await snapshot.read("one"), CREDS, {} if newer is None else {name: json.loads(newer)})

    async def test_what_others_write_meanwhile_stays_and_so_does_ours(self, keyspace: RedisRig) -> None:
        await keyspace.fill("one", CREDS, {})
        before = await keyspace.contents()
        async with LateLink(PORT) as link, await open_source(at(link.port), keyspace.layout) as source:
            link.hold(b"EXEC")
            writing = asyncio.create_task(source.write("one", None, [Write("pre-key", "9", text(PAIR))]))
            await link.held.wait()
            await keyspace.put("one", "pre-key-8", json.dumps(PAIR))
            await link.deliver()
            await writing
            async with source.snapshot() as snapshot:
                same(await snapshot.read("one"), CREDS, {("pre-key", "8"): PAIR, ("pre-key", "9"): PAIR})
            await source.write("one", None, [Write("pre-key", "8", None), Write("pre-key", "9", None)])
        assert await keyspace.contents() == before  # nothing of ours stays beside the values

    async def test_what_is_kept_has_no_end(self, keyspace: RedisRig) -> None:
        for name in ("one", "two"):
            await keyspace.fill(name, CREDS, {("pre-key", "1"): PAIR})
        keys = [key async for key in keyspace.client.scan_iter(match=f"{keyspace.prefix}*", count=1000)]
        for key in keys:
            await keyspace.client.expire(key, 1000)
        async with keyspace.source() as source:
            await source.keep("one")
            await source.keep("nobody")
            async with source.snapshot() as snapshot:
                same(await snapshot.read("one"), CREDS, {("pre-key", "1"): PAIR})
        ends = {key: await keyspace.client.ttl(key) for key in keys}
        assert all((ttl == -1) == (b"one" in key) for key, ttl in ends.items())


async def test_each_layout_is_found_and_two_are_not_guessed_between() -> None:
    async with server() as client:
        (number,) = [n for n in range(15, 0, -1) if await driver.Redis.from_url(f"{SERVER}/{n}").dbsize() == 0][:1]
    url = f"{SERVER}/{number}"
    async with server(url) as client:
        try:
            with pytest.raises(WrongSource):
                await open_source(url)
            for name, like in LAYOUTS.items():
                rig = RedisRig(client, "", like)
                await rig.fill("shop", CREDS, KEYS)
                await client.set("session:cache:5", "{}")
                async with await open_source(url) as source:
                    assert source.place == url
                    if name == "fazer":
                        await rig.put("shop", "metadata", '{"webhookUrl":"x"}')
                        await source.write(
                            "shop", text(CREDS), [Write(*k, text(v)) for k, v in KEYS.items()], whole=True
                        )
                        assert await client.hexists(rig.key("shop", ""), "metadata")
                    async with source.snapshot() as snapshot:
                        assert [found async for found in snapshot.sessions()] == ["shop"]
                        same(await snapshot.read("shop"), CREDS, KEYS)
                await client.flushdb()
            for like in LAYOUTS.values():
                await RedisRig(client, "", like).fill("shop", CREDS, KEYS)
            with pytest.raises(WrongSource, match="several stores"):
                await open_source(url)
            async with await open_source(url, {"layout": "hash"}) as source, source.snapshot() as snapshot:
                same(await snapshot.read("shop"), CREDS, KEYS)
        finally:
            await client.flushdb()  # it was empty


async def test_a_wrong_password_is_refused_and_not_told() -> None:
    async with server():
        with pytest.raises(SourceRefused) as caught:
            await open_source("redis://shop:hunter2@127.0.0.1:6379")
    assert "hunter2" not in repr(caught.value)


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"hash": "x"},
        {"hash": "{session}:{name}"},
        {"keys": "{session}"},
        {"keys": "{session}{name}"},
        {"keys": "{name}:{session}"},
        {"hash": "{session}", "keys": "{session}:{name}"},
        {"hash": "{session}", "mangled": "yes"},
        {"layout": "nothing"},
    ],
)
async def test_a_map_that_says_nonsense_is_a_usage_error(layout: Layout) -> None:
    async with server():
        with pytest.raises(BadInput) as caught:
            await open_source(SERVER, layout)
    assert caught.value.pointer == "--map"
