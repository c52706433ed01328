"""Commits that came together: each on its own, those of one session in order, whatever kept one from going at once."""

import asyncio
import gc
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from stores import no_turn_is_left

from protocol.types import session_uuid
from service.errors import BadInput, Fenced, KeyReused, PreKeyOverwritten, Unavailable, VersionMismatch
from service.store import AuthStore, Caller
from service.store.changes import Committed
from service.store.request import CommitRequest, Row

ME = Caller("default", "write")
WAITS = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


def put(value: int, **more: Any) -> CommitRequest:
    return CommitRequest(rows=[Row("t", b"x", b"%d" % value)], **more)


async def value(store: AuthStore, name: str) -> bytes:
    return (await store.get(ME, name, [("t", b"x")]))[0]


async def made(store: AuthStore, *names: str) -> None:
    """Sessions at version 1, remembered."""
    for name in names:
        await store.commit(ME, name, put(0))


def heads_of(store: AuthStore) -> Any:
    return store.settler._heads


async def test_each_has_its_answer_in_its_place(store: AuthStore):
    await made(store, "a", "b", "c")
    asked = [("a", put(1)), ("new", put(2)), ("b", put(3, if_match=9)), ("c", put(4, lease_epoch=7)), ("a", put(5))]
    first, second, third, fourth, fifth = await store.commit_all(ME, asked)
    assert (first, second, fifth) == (Committed(2, 0), Committed(1, 0), Committed(3, 0))
    assert isinstance(third, VersionMismatch)
    assert isinstance(fourth, Fenced)
    assert [await value(store, name) for name in ("a", "new", "b", "c")] == [b"5", b"2", b"0", b"0"]
    assert no_turn_is_left(store)


async def test_what_shares_a_statement_applies_or_fails_alone(store: AuthStore, other: AuthStore):
    """Beside each other: nothing to store, one written elsewhere meanwhile, a pre-key of other bytes, a deletion, a value."""
    names = ("nothing", "stale", "clash", "deletes", "puts")
    pair = [Row("pre-key", b"7", b'{"public":1}')]
    for name in names:
        await store.commit(ME, name, CommitRequest(rows=[Row("t", b"x", b"0"), Row("t", b"y", b"0"), *pair]))
    await other.commit(ME, "stale", put(50))
    asked = [
        ("nothing", CommitRequest()),
        ("stale", put(1, if_match=1)),
        ("clash", CommitRequest(rows=[Row("t", b"x", b"1"), Row("pre-key", b"7", b'{"public":2}')])),
        ("deletes", CommitRequest(rows=[Row("t", b"y", None), Row("t", b"never", None)])),
        ("puts", CommitRequest(rows=[Row("t", b"x", b"1"), Row("t", b"new", b"1"), *pair])),
    ]
    nothing, stale, clash, deletes, puts = await store.commit_all(ME, asked)
    assert (nothing, deletes, puts) == (Committed(2, 0), Committed(2, 0), Committed(2, 0))
    assert isinstance(stale, VersionMismatch)
    assert isinstance(clash, PreKeyOverwritten)
    looked = [("t", b"x"), ("t", b"y"), ("t", b"new"), ("pre-key", b"7")]
    stored = {name: await store.get(ME, name, looked) for name in names}
    assert stored == {
        "nothing": {0: b"0", 1: b"0", 3: b'{"public":1}'},
        "stale": {0: b"50", 1: b"0", 3: b'{"public":1}'},
        "clash": {0: b"0", 1: b"0", 3: b'{"public":1}'},
        "deletes": {0: b"0", 3: b'{"public":1}'},
        "puts": {0: b"1", 1: b"0", 2: b"1", 3: b'{"public":1}'},
    }
    for name in names:
        async with store.state(ME, name) as state:  # proven: counts and mark moved with the rows
            assert len([key async for chunk in state.chunks for key in chunk]) == len(stored[name])
    assert no_turn_is_left(store)


async def test_none_at_all(store: AuthStore):
    assert await store.commit_all(ME, []) == []


async def test_one_that_is_none_is_told_and_harms_nobody(store: AuthStore):
    await made(store, "a", "b")
    bad = CommitRequest(creds=b'{"nextPreKeyId":"many"}')
    refused, done = await store.commit_all(ME, [("a", bad), ("b", put(1))])
    assert isinstance(refused, BadInput)
    assert done == Committed(2, 0)
    assert no_turn_is_left(store)


@pytest.mark.parametrize("remembered", [True, False])
async def test_those_of_one_session_apply_in_order(store: AuthStore, remembered: bool):
    await made(store, "a", "b")
    if not remembered:
        heads_of(store).forget(session_uuid("default", "a"))
    outcomes = await store.commit_all(ME, [("b", put(9)), *(("a", put(n)) for n in range(1, 20))])
    assert outcomes[1:] == [Committed(version, 0) for version in range(2, 21)]
    assert await value(store, "a") == b"19"


async def test_they_keep_their_order_when_the_first_finds_another_version(store: AuthStore, other: AuthStore):
    """It is tried again in its own turn, not behind the second."""
    await made(store, "a")
    await other.commit(ME, "a", put(100))
    outcomes = await store.commit_all(ME, [("a", put(1)), ("a", put(2)), ("a", put(3))])
    assert outcomes == [Committed(3, 0), Committed(4, 0), Committed(5, 0)]
    assert await value(store, "a") == b"3"
    assert no_turn_is_left(store)


async def test_sent_again_they_are_known(store: AuthStore):
    await made(store, "a", "b")
    keys = [uuid4(), uuid4()]
    asked = [("a", put(1, key=keys[0])), ("b", put(2, key=keys[1]))]
    done = await store.commit_all(ME, asked)
    await store.commit(ME, "a", put(3))
    assert await store.commit_all(ME, asked) == done
    reused, known = await store.commit_all(ME, [("a", put(4, key=keys[0])), asked[1]])
    assert isinstance(reused, KeyReused)
    assert known == done[1]
    assert await value(store, "a") == b"3"


async def test_nobody_waits_for_it_any_more(store: AuthStore, database_url: str):
    """Cancelled while the database holds them: turns are free again, nothing is believed of what may have applied."""
    await made(store, "a", "b", "c")
    held, looks = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
    try:
        async with held.transaction():
            await held.execute("SELECT 1 FROM sessions WHERE sid = $1 FOR UPDATE", session_uuid("default", "b"))
            heads_of(store).forget(session_uuid("default", "c"))
            asked = [("a", put(1)), ("b", put(1)), ("c", put(1)), ("a", put(2))]
            task = asyncio.create_task(store.commit_all(ME, asked))
            async with asyncio.timeout(10):
                while not await looks.fetchval(WAITS):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert no_turn_is_left(store)
    finally:
        await held.close()
        await looks.close()
    for name in ("a", "b", "c"):
        done = await store.commit(ME, name, put(7))
        assert done.version >= 2
        assert await value(store, name) == b"7"


async def test_what_fails_when_nobody_waits_is_no_forgotten_error(store: AuthStore, monkeypatch: pytest.MonkeyPatch):
    """An error that nobody fetches would be told by the event loop, and reported as a fault of ours."""
    await made(store, "a", "b")
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    began, goes_on = asyncio.Event(), asyncio.Event()

    async def fail(*_: Any) -> Any:
        began.set()
        await goes_on.wait()
        raise Unavailable

    monkeypatch.setattr(store.write_lanes, "_patience", -1.0)
    monkeypatch.setattr(store.write_lanes, "_run", fail)
    task = asyncio.create_task(store.commit_all(ME, [("a", put(1)), ("b", put(1))]))
    async with asyncio.timeout(10):
        await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    goes_on.set()
    async with asyncio.timeout(10):
        while store.write_lanes.busy:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    monkeypatch.undo()
    await store.commit(ME, "a", put(2))  # until then the lane holds what it was given last
    del task  # its traceback holds what was under way
    gc.collect()
    await asyncio.sleep(0)
    assert not told
    assert no_turn_is_left(store)


async def test_a_turn_that_is_taken_is_waited_for(store: AuthStore):
    await made(store, "a", "b")
    line = heads_of(store).line(session_uuid("default", "a"))
    assert line.enter_now()
    task = asyncio.create_task(store.commit_all(ME, [("a", put(1)), ("b", put(1))]))
    async with asyncio.timeout(10):
        while await value(store, "b") != b"1":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert not task.done()
    assert await value(store, "a") == b"0"
    line.leave()
    assert await task == [Committed(2, 0), Committed(2, 0)]


async def test_a_fault_of_our_own_is_told_by_the_long_way(store: AuthStore):
    await made(store, "a", "b")
    vault = heads_of(store).remembered(session_uuid("default", "a")).vault

    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError

    stand = heads_of(store).remembered(session_uuid("default", "a"))
    heads_of(store).remember(stand.head, Broken())
    broken, done = await store.commit_all(ME, [("a", put(1)), ("b", put(1))])
    assert isinstance(broken, RuntimeError)
    assert done == Committed(2, 0)
    assert no_turn_is_left(store)
    heads_of(store).remember(stand.head, vault)
    assert await store.commit(ME, "a", put(2)) == Committed(2, 0)
