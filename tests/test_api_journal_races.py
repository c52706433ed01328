"""Large commits that become rows while another process replaces, purges, writes or counts: neither undoes the other."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from api import Api, at, creds, fresh, pre_key, serve, sid_of

from service.errors import Unavailable
from service.store import Caller, changes, settling
from service.store import sessions as store_sessions
from service.store.request import CommitRequest, Row, Work

LARGE = 40
ME = Caller("default", "admin")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing becomes rows by itself."""
    monkeypatch.setattr(settling._Due, "is_due", lambda _, __: False)


@pytest.fixture
async def other(own_api: Api) -> AsyncIterator[Api]:
    """A second process on the same database."""
    async with serve(own_api.url, token=own_api.token) as served:
        yield served


def many(count: int = LARGE, stamp: int = 0, first: int = 0) -> dict[str, Any]:
    return {f"{n}": {"n": n, "stamp": stamp} for n in range(first, first + count)}


async def with_journal(api: Api) -> str:
    """A session at version 2, its keys waiting."""
    session = fresh()
    await api.commit(session, {"creds": creds()})
    await api.commit(session, {"keys": {"t": many()}})
    return session


async def pending(api: Api, session: str) -> int:
    return int((await api.sql("SELECT pending FROM sessions WHERE sid = $1", sid_of(session)))[0]["pending"])


async def beside_a_settle(api: Api, other: Api, session: str, asked: Callable[[], Awaitable[Any]]) -> Any:
    """What is asked while the other process settles: it begins before that commits, and waits for it."""
    connection = await asyncpg.connect(api.url)
    try:
        transaction = connection.transaction()
        await transaction.start()
        heads = other.store.settler._heads
        stand = await heads.look("default", sid_of(session))
        assert await other.store.settler.settle(stand, connection) is not None
        task = asyncio.ensure_future(asked())
        async with asyncio.timeout(10):
            waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            while not await api.sql(waits):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await transaction.commit()
        return await task
    finally:
        await connection.close()


async def test_a_replacement(own_api: Api, other: Api):
    session = await with_journal(own_api)
    body = {"creds": creds(), "keys": {"u": {"a": 1}}}
    answer = await beside_a_settle(own_api, other, session, lambda: own_api.ask("PUT", at(session, "state"), body))
    assert answer.status == 200
    state = await own_api.state(session)
    assert (state["version"], state["keys"]) == (3, {"u": {"a": 1}})
    assert await own_api.get(session, {"t": ["0", "1"], "u": ["a"]}) == {"u": {"a": 1}}


async def test_a_reset_that_brings_the_same_keys(own_api: Api, other: Api):
    session = await with_journal(own_api)
    body = {"creds": creds(), "reset": True, "keys": {"t": {"0": 1}}}
    answer = await beside_a_settle(own_api, other, session, lambda: own_api.ask("POST", at(session, "commit"), body))
    assert answer.status == 200
    assert (await own_api.state(session))["keys"] == {"t": {"0": 1}}


async def test_a_commit_of_rows_and_one_of_the_journal(own_api: Api, other: Api):
    for body in ({"keys": {"t": {"0": "mine"}}}, {"keys": {"t": {**many(stamp=1), "0": "mine"}}}):
        session = await with_journal(own_api)
        send = lambda name=session, sent=body: own_api.commit(name, sent)  # noqa: E731
        assert (await beside_a_settle(own_api, other, session, send))["version"] == 3
        for each in (own_api, other):
            assert (await each.state(session))["keys"]["t"] == {**many(), **body["keys"]["t"]}


async def test_a_purge(own_api: Api, other: Api):
    """A deleted session is not settled any more: no row comes behind the ones that a purge takes away."""
    session = await with_journal(own_api)
    heads = other.store.settler._heads
    stand = await heads.look("default", sid_of(session))
    await own_api.good("DELETE", at(session))
    await own_api.sql("UPDATE sessions SET pending = pending")  # nothing but a new row version, as a settle would find
    assert await other.store.settler.settle(stand) is None
    await own_api.good("DELETE", at(session) + "?purge=true")
    left = "SELECT (SELECT count(*) FROM session_keys) + (SELECT count(*) FROM session_journal) AS n"
    assert (await own_api.sql(left))[0]["n"] == 0
    await own_api.commit(session, {"creds": creds(2)})
    assert (await own_api.state(session))["keys"] == {}


async def test_a_delete_waits_for_a_settle_and_a_purge_takes_its_rows(own_api: Api, other: Api):
    session = await with_journal(own_api)
    gone = await beside_a_settle(own_api, other, session, lambda: other.ask("DELETE", at(session) + "?purge=true"))
    assert gone.status == 200
    assert (await own_api.sql("SELECT count(*) AS n FROM session_keys"))[0]["n"] == 0
    await own_api.commit(session, {"creds": creds(2)})
    assert (await own_api.state(session))["keys"] == {}


async def test_a_summary_is_of_one_moment(own_api: Api, monkeypatch: pytest.MonkeyPatch):
    session = await with_journal(own_api)
    read = store_sessions.read_journal

    async def late(connection: Any, sid: Any) -> Any:
        if not connection.is_in_transaction():
            await own_api.store.settle(ME, session)
        return await read(connection, sid)

    count = store_sessions.sql.count_keys

    async def settled_before(connection: Any, sids: Any) -> Any:
        found = await count(connection, sids)
        await own_api.store.settle(ME, session)
        return found

    monkeypatch.setattr(store_sessions, "read_journal", late)
    monkeypatch.setattr(store_sessions.sql, "count_keys", settled_before)
    assert (await own_api.summary(session))["keys"]["t"]["count"] == LARGE
    assert (await own_api.summary(session))["keys"]["t"]["count"] == LARGE


async def test_a_held_commit_is_believed_when_it_is_durable(own_api: Api, other: Api, monkeypatch: pytest.MonkeyPatch):
    """Its transaction is lost on the way to its end, another process commits that version, and only then we are told."""
    session = await with_journal(own_api)
    assert await own_api.get(session, {"t": ["0"]}) == {"t": {"0": many()["0"]}}
    seen = {}
    end = asyncpg.transaction.Transaction.__aexit__

    async def lost(self: Any, *error: Any) -> Any:
        await own_api.sql("SELECT pg_terminate_backend($1)", self._connection.get_server_pid())
        await other.commit(session, {"keys": {"t": {"0": "theirs"}}})
        seen.update(await own_api.get(session, {"t": ["0"]}))
        return await end(self, *error)

    work = Work(CommitRequest(rows=[Row("t", b"0", b'"ours"')], key=uuid4()))
    monkeypatch.setattr(asyncpg.transaction.Transaction, "__aexit__", lost)
    async with own_api.store.settler._heads.line(sid_of(session)):
        with pytest.raises(Unavailable):
            await own_api.store._commits._attempt_held("default", sid_of(session), work)
    monkeypatch.undo()
    assert seen == {"t": {"0": "theirs"}} == await own_api.get(session, {"t": ["0"]})


async def test_what_another_left_behind_is_settled_by_one_who_knows_less(
    own_api: Api, other: Api, monkeypatch: pytest.MonkeyPatch
):
    session = fresh()
    await own_api.commit(session, {"creds": creds()})  # which it remembers
    await other.commit(session, {"keys": {"t": many()}})
    monkeypatch.setattr(settling, "_LEFT_BEHIND_S", 0.0)
    await own_api.store.settler._settle_left_behind()
    assert await pending(own_api, session) == 0
    await other.commit(session, {"keys": {"t": many(stamp=1)}})
    await own_api.store.settle(ME, session)
    assert await pending(own_api, session) == 0
    assert (await own_api.state(session))["keys"]["t"] == many(stamp=1)


async def test_damaged_journals_keep_no_other_from_its_turn_and_can_be_let_go_of(
    own_api: Api, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(settling.sql, "PAGE", 3)
    sessions = [await with_journal(own_api) for _ in range(8)]
    sessions.sort(key=lambda name: sid_of(name).bytes)
    for name in sessions[:7]:
        await own_api.sql(
            "UPDATE session_journal SET sealed = set_byte(sealed, 40, get_byte(sealed, 40) # 1) WHERE sid = $1",
            sid_of(name),
        )
    for name in sessions:
        own_api.store.settler._heads.forget(sid_of(name))
    monkeypatch.setattr(settling, "_LEFT_BEHIND_S", 0.0)
    for _ in range(2):
        await own_api.store.settler._settle_left_behind()
    assert [await pending(own_api, name) for name in sessions] == [1] * 7 + [0]
    assert len(own_api.store.settler._told) == 7, "each told once"
    await own_api.state(sessions[7])
    assert (await own_api.ask("POST", at(sessions[0], "keys/get"), {"t": ["0"]})).slug == "corrupt"
    await own_api.good("DELETE", at(sessions[0]) + "?purge=true")


async def test_the_highest_pre_key_is_bound_to_the_mark(own_api: Api, other: Api):
    session = fresh()
    keys = {str(n): pre_key(n) for n in range(1, 41)}
    await own_api.commit(session, {"creds": creds(nextPreKeyId=41), "keys": {"pre-key": keys}})
    await own_api.sql("UPDATE sessions SET pre_key_top = -1")
    rules = {each["rule"] for each in (await other.good("GET", at(session, "integrity")))["findings"]}
    assert {"columns-disagree", "set-unproven"} <= rules
    assert (await other.ask("GET", at(session, "state"))).slug == "corrupt"


async def test_what_is_too_large_for_a_journal_does_not_get_in_behind_another(
    own_api: Api, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(changes, "_JOURNAL_MOST", 60_000)
    session = await with_journal(own_api)
    await own_api.commit(session, {"keys": {"t": many(300, 1)}})  # by keys
    assert await pending(own_api, session) == 0
    await own_api.commit(session, {"keys": {"t": many(stamp=2)}})
    assert await pending(own_api, session) == 1
    await own_api.commit(session, {"keys": {"t": {"x": "x" * 70_000}}})  # by bytes
    assert await pending(own_api, session) == 0
    expected = {**many(300, 1), **many(stamp=2), "x": "x" * 70_000}
    assert (await own_api.state(session))["keys"]["t"] == expected
