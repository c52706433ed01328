"""What a rotation of master keys promises to stores that do not know of it: nothing new under a retired key."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from protocol.types import session_uuid
from service.errors import Unavailable, WrongMasterKey
from service.store import AuthStore, Caller, keyring
from service.store.auth_store import StoreOptions
from service.store.request import CommitRequest, Row
from service.vault import MasterKeys

OLD, NEW, FOREIGN = (bytes([fill]) * 32 for fill in (1, 2, 3))
CALLER = Caller("default", "write")
COMMIT = CommitRequest(rows=[Row("session", b"id", b"1")])


@asynccontextmanager
async def opened(url: str, masters: MasterKeys) -> AsyncIterator[AuthStore]:
    store = AuthStore(url, masters, None, StoreOptions(pool_max=4, patience_s=2))
    try:
        await store.open()
        yield store
    finally:
        await store.close()


async def sealed_under(url: str) -> dict[str, str]:
    """Session -> fingerprint of the master key its data key is wrapped by."""
    connection = await asyncpg.connect(url)
    rows = await connection.fetch("SELECT name, master_key_id FROM sessions")
    await connection.close()
    return {row["name"]: row["master_key_id"] for row in rows}


async def test_a_store_that_missed_a_rotation_seals_new_sessions_under_the_new_key(database_url):
    configured = [OLD]
    behind, ahead = MasterKeys([OLD], lambda: configured), MasterKeys([NEW, OLD])
    async with opened(database_url, behind) as late, opened(database_url, ahead) as store:
        await late.commit(CALLER, "before", COMMIT)
        configured[:] = [NEW, OLD]
        assert await keyring.rewrap(store.database, ahead) == keyring.Rotated(wrapped=1, broken=0)
        assert behind.current == MasterKeys([OLD]).current, "it has not looked since"
        await late.commit(CALLER, "after", COMMIT)
        await late.lease(CALLER, "leased", "one", 60, takeover=False, epoch=None)
        assert await late.get(CALLER, "before", [("session", b"id")]) == {0: b"1"}
    assert set((await sealed_under(database_url)).values()) == {ahead.current}
    async with opened(database_url, MasterKeys([NEW])) as alone:
        for name in ("before", "after"):
            assert await alone.get(CALLER, name, [("session", b"id")]) == {0: b"1"}


async def test_a_store_that_cannot_know_the_new_key_makes_no_session(database_url):
    stale, ahead = MasterKeys([OLD]), MasterKeys([NEW, OLD])
    async with opened(database_url, stale) as late, opened(database_url, ahead) as store:
        await late.commit(CALLER, "before", COMMIT)
        await keyring.rewrap(store.database, ahead)
        with pytest.raises(Unavailable, match="retired"):
            await late.commit(CALLER, "after", COMMIT)
        with pytest.raises(Unavailable, match="retired"):
            await late.lease(CALLER, "leased", "one", 60, takeover=False, epoch=None)
        with pytest.raises(WrongMasterKey):
            await late.check_ready()
    assert await sealed_under(database_url) == {"before": ahead.current}


async def test_a_rotation_waits_for_sessions_that_are_being_made(database_url):
    """One that has begun and is not committed would otherwise be missed, and stay under the retired key."""
    old, ahead = MasterKeys([OLD]), MasterKeys([NEW, OLD])
    async with opened(database_url, old) as late, opened(database_url, ahead) as store:
        await late.commit(CALLER, "first", COMMIT)
        async with _row_in_the_way(database_url, "slow"):
            making = asyncio.create_task(late.commit(CALLER, "slow", COMMIT))
            await _until_blocked(database_url, 1)
            rotating = asyncio.create_task(keyring.rewrap(store.database, ahead))
            await _until_blocked(database_url, 2)
        await making
        assert (await rotating).wrapped == 2
    assert set((await sealed_under(database_url)).values()) == {ahead.current}


async def test_a_broken_data_key_keeps_no_other_from_its_rotation(database_url):
    masters = MasterKeys([NEW, OLD])
    async with opened(database_url, MasterKeys([OLD])) as store:
        for name in ("a", "b", "c"):
            await store.commit(CALLER, name, COMMIT)
        async with store.database.connection() as connection:
            await connection.execute("UPDATE sessions SET wrapped_key = set_byte(wrapped_key, 9, 1) WHERE name = 'b'")
        assert await keyring.rewrap(store.database, masters) == keyring.Rotated(wrapped=2, broken=1)
    under = await sealed_under(database_url)
    assert (under["a"], under["b"], under["c"]) == (masters.current, MasterKeys([OLD]).current, masters.current)


async def test_more_sessions_than_one_statement_takes(database_url):
    masters = MasterKeys([NEW, OLD])
    async with opened(database_url, MasterKeys([OLD])) as store:
        await asyncio.gather(*(store.commit(CALLER, f"s{n}", COMMIT) for n in range(1001)))
        assert (await keyring.rewrap(store.database, masters)).wrapped == 1001
        assert (await keyring.rewrap(store.database, masters)).wrapped == 0
    assert set((await sealed_under(database_url)).values()) == {masters.current}


async def test_keys_that_never_sealed_this_database_are_refused(database_url):
    async with opened(database_url, MasterKeys([OLD])):
        pass
    with pytest.raises(WrongMasterKey, match="set up with"):
        async with opened(database_url, MasterKeys([FOREIGN])):
            pass
    async with opened(database_url, MasterKeys([OLD])) as store:
        await store.commit(CALLER, "s", COMMIT)
    with pytest.raises(WrongMasterKey, match="does not open this database"):
        async with opened(database_url, MasterKeys([FOREIGN])):
            pass


@asynccontextmanager
async def _row_in_the_way(url: str, name: str) -> AsyncIterator[None]:
    """Somebody else is about to make this session, and gives up at the end of the context."""
    connection = await asyncpg.connect(url)
    await connection.execute("BEGIN")
    await connection.execute(
        "INSERT INTO sessions (sid, tenant, name, version, epoch, master_key_id, dek_id, wrapped_key, row_count, mark, recent, "
        "paired) SELECT $1, tenant, $2, 1, 0, master_key_id, dek_id, wrapped_key, row_count, mark, recent, paired "
        "FROM sessions LIMIT 1",
        session_uuid("default", name),
        name,
    )
    yield
    await connection.execute("ROLLBACK")
    await connection.close()


async def _until_blocked(url: str, count: int) -> None:
    """Until so many connections of this database wait for a lock."""
    connection = await asyncpg.connect(url)
    for _ in range(200):
        waiting = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        if waiting == count:
            break
        await asyncio.sleep(0.02)
    await connection.close()
    assert waiting == count
