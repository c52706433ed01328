"""Whoever keeps a connection for as long as somebody else takes leaves one to short work, however small the pool."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from migrating import CALLER, MASTER

from service.integrity import check, check_session
from service.store import AuthStore, Caller
from service.store.auth_store import StoreOptions
from service.store.holders import CHECK, MIRROR, STREAM, Holders
from service.store.request import CommitRequest, Row
from service.vault import MasterKeys

ROWS = 4200  # more than a state of one piece
TENANTS = ("one", "two", "three", "four")
POOLS = (4, 6, 7, 8, 10, 16)
"""AUTHSTORE_POOL_MAX; the general pool has 2, 3, 4, 4, 5 and 11 of them."""


@asynccontextmanager
async def opened(url: str, pool_max: int) -> AsyncIterator[AuthStore]:
    store = AuthStore(url, MasterKeys([MASTER]), None, StoreOptions(pool_max=pool_max))
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def granted(store: AuthStore) -> None:
    """Short work goes on."""
    async with asyncio.timeout(2):
        await store.lease(CALLER, "another", "one", 60, takeover=False, epoch=None)


@pytest.mark.parametrize("pool_max", POOLS)
async def test_everybody_who_may_keep_a_connection_leaves_one(
    database_url: str, monkeypatch: pytest.MonkeyPatch, pool_max: int
) -> None:
    """Slow readers and checks of four tenants, and turns of mirrors whose sources hang: all at once."""
    rows = [Row("lid-mapping", str(n).encode(), b'"1"') for n in range(ROWS)]
    ended, judging = asyncio.Event(), asyncio.Event()
    async with opened(database_url, pool_max) as store, AsyncExitStack() as tasks:
        for tenant in TENANTS:
            await store.commit(Caller(tenant, "write"), "large", CommitRequest(rows=rows))
        await store.settler.settle_all()
        judge = check._judge

        async def slowly(*given: object) -> object:
            judging.set()
            await ended.wait()
            return await judge(*given)  # type: ignore[arg-type]

        monkeypatch.setattr(check, "_judge", slowly)

        async def read(tenant: str) -> None:
            async with store.state(Caller(tenant, "read"), "large") as state:
                chunks = aiter(state.chunks)
                await anext(chunks)
                await ended.wait()

        async def turn(tenant: str) -> None:
            async with (
                store.holders.one(MIRROR, tenant),
                store.mirrors.turn(Caller(tenant, "admin"), "large", wait=True),
            ):
                await ended.wait()

        group = await tasks.enter_async_context(asyncio.TaskGroup())
        for tenant in TENANTS:
            for _ in range(3):
                group.create_task(read(tenant))
            group.create_task(check_session(store, Caller(tenant, "write"), "large"))
            for _ in range(2):
                group.create_task(turn(tenant))
        try:
            await asyncio.sleep(1)
            busy, _, waiting = store.database.usage()
            assert waiting == 0
            assert 1 <= busy < store.database.pool_max
            await granted(store)
        finally:
            ended.set()


async def test_one_reader_of_the_least_pool_and_a_mirror_take_turns(database_url: str) -> None:
    """The turn comes before the other readers of that tenant, which came before it."""
    rows = [Row("lid-mapping", str(n).encode(), b'"1"') for n in range(ROWS)]
    async with opened(database_url, 4) as store:
        await store.commit(CALLER, "large", CommitRequest(rows=rows))
        await store.settler.settle_all()
        order: list[str] = []

        async def read() -> None:
            async with store.state(CALLER, "large") as state:
                order.append("read")
                async for _ in state.chunks:
                    pass

        async def turn() -> None:
            async with store.holders.one(MIRROR, CALLER.tenant):
                order.append("turn")

        async with asyncio.TaskGroup() as group, store.state(CALLER, "large") as state:
            chunks = aiter(state.chunks)
            await anext(chunks)
            for work in (read, read, turn):
                group.create_task(work())
                await asyncio.sleep(0.3)
            assert order == []
            await granted(store)
        assert order == ["turn", "read", "read"]


@pytest.mark.parametrize("pool", range(1, 20))
async def test_slots_leave_one_and_no_kind_takes_them_all(pool: int) -> None:
    """Pure: how many of each kind alone, and of all kinds together."""
    holders, most = Holders(pool), max(1, pool - 1)

    async def held(kinds: tuple[str, ...]) -> int:
        now, ended = 0, asyncio.Event()

        async def hold(kind: str, tenant: str) -> None:
            nonlocal now
            async with holders.one(kind, tenant):  # type: ignore[arg-type]
                now += 1
                await ended.wait()

        async with asyncio.TaskGroup() as group:
            for kind in kinds:
                for n in range(40):
                    group.create_task(hold(kind, str(n % 20)))
            for _ in range(20):
                await asyncio.sleep(0)
            found = now
            ended.set()
        return found

    alone = {kind: await held((kind,)) for kind in (STREAM, CHECK, MIRROR)}
    assert min(alone.values()) >= 1
    assert alone[STREAM] < most or most == 1
    assert await held((STREAM, CHECK, MIRROR)) <= most
