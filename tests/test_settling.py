"""Sessions that are due together become rows in one statement; whatever keeps one of them does not keep the others."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import pytest
from stores import no_turn_is_left

from protocol.types import session_uuid
from service.records import Settling
from service.sql import settle as sql
from service.store import AuthStore, Caller, heads, settling
from service.store.request import CommitRequest, Row

ME = Caller("default", "write")
NAMES = [f"s{n}" for n in range(6)]
BURST = 4


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each commit goes into the journal, and nothing becomes rows by itself."""
    monkeypatch.setattr(heads.Pace, "hurried", lambda _, __: True)
    monkeypatch.setattr(settling._Due, "is_due", lambda _, __: False)


@pytest.fixture
async def looks(database_url: str, store: AuthStore) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@contextmanager
def statements(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many sessions each statement of several settled."""
    counts: list[int] = []
    settle_many = sql._settle_many

    async def counting(connection: Any, works: list[Settling]) -> Any:
        counts.append(len(works))
        return await settle_many(connection, works)

    with monkeypatch.context() as patched:
        patched.setattr(sql, "_settle_many", counting)
        yield counts


def sid(name: str) -> Any:
    return session_uuid("default", name)


async def burst(store: AuthStore, *names: str) -> None:
    """A session moves on, its pre-keys are used up, and one key is put and deleted again."""
    for name in names:
        kept = [Row("pre-key", b"%d" % n, b'{"n":%d}' % n) for n in range(BURST + 1)]
        await store.commit(ME, name, CommitRequest(creds=b"{}", rows=[Row("session", b"1.0", b"0"), *kept]))
        for n in range(BURST):
            gone = Row("lid-mapping", b"x", b'"x"' if n % 2 == 0 else None)
            moved = Row("session", b"1.0", b'{"turn":%d}' % n)
            await store.commit(ME, name, CommitRequest(rows=[moved, Row("pre-key", b"%d" % n, None), gone]))


async def pending(looks: Any) -> dict[str, int]:
    return {
        row["name"]: row["pending"] for row in await looks.fetch("SELECT name, pending FROM sessions ORDER BY name")
    }


async def state(store: AuthStore, name: str) -> dict[tuple[str, bytes], bytes]:
    """All of a session, proven by its mark."""
    async with store.state(ME, name) as found:
        return {(key.ktype, key.key_id): key.value async for chunk in found.chunks for key in chunk}


LEFT = {
    ("", b""): b"{}",
    ("session", b"1.0"): b'{"turn":%d}' % (BURST - 1),
    ("pre-key", b"%d" % BURST): b'{"n":%d}' % BURST,
}


async def is_whole(store: AuthStore, other: AuthStore, looks: Any, *names: str) -> None:
    """Rows and what both processes read of them."""
    for name in names:
        assert await state(store, name) == LEFT
        assert await state(other, name) == LEFT
        rows = await looks.fetchval("SELECT count(*) FROM session_keys WHERE sid = $1", sid(name))
        assert rows == len(LEFT) == await looks.fetchval("SELECT row_count FROM sessions WHERE sid = $1", sid(name))
        assert await looks.fetchval("SELECT count(*) FROM session_journal WHERE sid = $1", sid(name)) == 0


async def test_they_become_rows_in_one_statement(
    store: AuthStore, other: AuthStore, looks: Any, monkeypatch: pytest.MonkeyPatch
):
    await burst(store, *NAMES)
    assert set((await pending(looks)).values()) == {BURST}
    with statements(monkeypatch) as counts:
        await store.settler.settle_all()
    assert counts == [len(NAMES)]
    assert set((await pending(looks)).values()) == {0}
    assert store.settler._due == {}
    await is_whole(store, other, looks, *NAMES)
    await burst(store, "s0")  # its turn and its head are as they should be
    assert no_turn_is_left(store)


async def test_no_more_at_once_than_may_wait_for_it(
    store: AuthStore, other: AuthStore, looks: Any, monkeypatch: pytest.MonkeyPatch
):
    names = [f"m{n}" for n in range(2 * settling._TOGETHER[0] + 1)]
    await burst(store, *names)
    with statements(monkeypatch) as counts:
        await store.settler.settle_all()
    assert counts == [settling._TOGETHER[0]] * 2, "and one alone"
    await is_whole(store, other, looks, *names)
    large = [Row("t", b"x", b'"%s"' % (b"x" * (settling._TOGETHER[1] * 2 // 3)))]
    for name in NAMES[:3]:
        await store.commit(ME, name, CommitRequest(rows=large))
        await store.commit(ME, name, CommitRequest(rows=large))
    with statements(monkeypatch) as counts:
        await store.settler.settle_all()
    assert counts == [], "two would be too much"
    assert set((await pending(looks)).values()) == {0}


async def test_one_that_another_process_settled_is_looked_at_anew(
    store: AuthStore, other: AuthStore, looks: Any, monkeypatch: pytest.MonkeyPatch
):
    await burst(store, *NAMES)
    await other.settle(ME, "s1")
    await other.commit(ME, "s2", CommitRequest(rows=[Row("t", b"new", b"1")]))
    with statements(monkeypatch) as counts:
        await store.settler.settle_all()
    assert counts == [len(NAMES)]
    assert await pending(looks) == {name: int(name == "s2") for name in NAMES}, "what came behind waits for its own"
    await is_whole(store, other, looks, *(name for name in NAMES if name != "s2"))
    assert await state(store, "s2") == {**LEFT, ("t", b"new"): b"1"}
    assert no_turn_is_left(store)


async def test_one_that_is_being_written_does_not_keep_the_others(store: AuthStore, other: AuthStore, looks: Any):
    await burst(store, *NAMES)
    async with store.settler._heads.line(sid("s3")):
        assert await store.settler._tried_together([sid(name) for name in NAMES])
        assert await pending(looks) == {name: BURST if name == "s3" else 0 for name in NAMES}
    await store.settler.settle_all()
    await is_whole(store, other, looks, *NAMES)


async def test_one_that_somebody_holds_does_not_keep_the_others(store: AuthStore, other: AuthStore, looks: Any):
    """Nor is one of them held while it is waited for."""
    await burst(store, *NAMES)
    transaction = looks.transaction()
    await transaction.start()
    await looks.execute("SELECT FROM sessions WHERE sid = $1 FOR UPDATE", sid("s2"))
    async with asyncio.timeout(10):
        assert await store.settler._tried_together([sid(name) for name in NAMES])
        await store.commit(ME, "s1", CommitRequest(rows=[Row("t", b"x", b"1")]))
    assert no_turn_is_left(store)
    await transaction.rollback()
    assert await pending(looks) == {name: {"s1": 1, "s2": BURST}.get(name, 0) for name in NAMES}
    await store.settler.settle_all()
    await is_whole(store, other, looks, *(name for name in NAMES if name != "s1"))


@contextmanager
def between_look_and_lock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A statement of several sessions looks, and locks them a second later."""
    text = sql.SETTLE_MANY_SQL.replace(
        "held AS MATERIALIZED (", "held AS MATERIALIZED (WITH nap AS (SELECT pg_sleep(1))"
    )
    text = text.replace("WITH ORDINALITY AS h(sid, n)", "WITH ORDINALITY AS h(sid, n) CROSS JOIN nap")
    assert text.count("nap") == 2
    with monkeypatch.context() as patched:
        patched.setattr(sql, "SETTLE_MANY_SQL", text)
        yield


async def test_a_lease_renewed_while_they_settle_is_no_reason_to_begin_anew(
    store: AuthStore, other: AuthStore, looks: Any, monkeypatch: pytest.MonkeyPatch
):
    await burst(store, *NAMES)
    with between_look_and_lock(monkeypatch):
        settled = asyncio.create_task(store.settler._tried_together([sid(name) for name in NAMES]))
        await asyncio.sleep(0.4)
        await other.lease(ME, "s1", "me", 60, takeover=False, epoch=None)
        await looks.execute("UPDATE session_keys SET sealed = sealed WHERE sid = $1", sid("s2"))
        assert not settled.done()
        await settled
    assert set((await pending(looks)).values()) == {0}
    await is_whole(store, other, looks, *NAMES)


async def test_one_settled_by_another_while_they_settle_is_left_to_it(
    store: AuthStore, other: AuthStore, looks: Any, monkeypatch: pytest.MonkeyPatch
):
    await burst(store, *NAMES)
    with between_look_and_lock(monkeypatch):
        settled = asyncio.create_task(store.settler._tried_together([sid(name) for name in NAMES]))
        await asyncio.sleep(0.4)
        await other.settle(ME, "s1")
        await other.commit(ME, "s1", CommitRequest(rows=[Row("t", b"new", b"1")]))
        assert not settled.done()
        await settled
    assert await pending(looks) == {name: int(name == "s1") for name in NAMES}
    assert await state(store, "s1") == await state(other, "s1") == {**LEFT, ("t", b"new"): b"1"}
    await is_whole(store, other, looks, *(name for name in NAMES if name != "s1"))


async def test_one_that_fails_does_not_keep_the_others(store: AuthStore, other: AuthStore, looks: Any):
    await burst(store, *NAMES)
    await looks.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$;"
        "CREATE TRIGGER refused BEFORE DELETE ON session_journal FOR EACH ROW"
        f" WHEN (old.sid = '{sid('s2')}') EXECUTE FUNCTION refuse()"
    )
    await store.settler._settle_due([sid(name) for name in NAMES])
    assert await pending(looks) == {name: BURST if name == "s2" else 0 for name in NAMES}
    assert store.settler._told == {settling._FIRST, sid("s2")}, (
        "once that they did not together, once whose fault it is"
    )
    assert no_turn_is_left(store)
    assert await state(store, "s2") == LEFT
    await looks.execute("DROP TRIGGER refused ON session_journal")
    await store.settle(ME, "s2")
    await is_whole(store, other, looks, *NAMES)


async def test_while_the_database_is_away_all_stay_due(store: AuthStore, looks: Any, monkeypatch: pytest.MonkeyPatch):
    await burst(store, *NAMES)

    asked = 0

    def away(*_: object, **__: object) -> Any:
        nonlocal asked
        asked += 1
        raise settling.Unavailable

    with monkeypatch.context() as patched:
        patched.setattr(store.database, "connection", away)
        await store.settler._settle_due([sid(name) for name in NAMES])
    assert asked == 1, "not once for each, who would wait for it one after the other"
    assert set(store.settler._due) == {sid(name) for name in NAMES}
    assert no_turn_is_left(store)
    await store.settler.settle_all()
    assert set((await pending(looks)).values()) == {0}


async def test_what_has_rows_enough_for_a_statement_of_its_own_has_one(
    store: AuthStore, other: AuthStore, looks: Any, monkeypatch: pytest.MonkeyPatch
):
    await burst(store, *NAMES[:3])
    new = [Row("pre-key", b"%d" % n, b'{"n":%d}' % n) for n in range(100, 140)]
    await store.commit(ME, "s1", CommitRequest(rows=new))
    with statements(monkeypatch) as counts:
        await store.settler.settle_all()
    assert counts == [2]
    await is_whole(store, other, looks, "s0", "s2")
    assert await state(store, "s1") == {**LEFT, **{("pre-key", row.key_id): row.value for row in new}}


async def test_commits_of_nothing_are_settled_too(store: AuthStore, looks: Any):
    for name in NAMES[:3]:
        await store.commit(ME, name, CommitRequest(creds=b"{}"))
    await burst(store, "s1")
    for name in NAMES[:3]:
        await store.commit(ME, name, CommitRequest())
    assert await store.settler._tried_together([sid(name) for name in NAMES[:3]])
    assert set((await pending(looks)).values()) == {0}, "not only when each is settled alone"
    assert await state(store, "s0") == {("", b""): b"{}"}
    assert await state(store, "s1") == LEFT
