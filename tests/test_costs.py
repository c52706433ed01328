"""What an operation may cost, counted and never timed: statements, round trips, values parsed. Fails when one grows."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import FrameType
from typing import Any, Self
from uuid import uuid4

import asyncpg
import msgspec
import pytest
from api import creds

import protocol
import service
from service.http import wire
from service.http.raw_json import decode
from service.sql import commit as commit_sql
from service.sql import commit_one, journal, pool, sessions, settle, whole
from service.sql import keys as keys_sql
from service.store import AuthStore, Caller, heads, settling
from service.store.auth_store import StoreOptions
from service.store.request import CommitRequest, Row
from service.vault import MasterKeys

ME = Caller("default", "write")
NOT_COUNTED = {pool.DURABLE_SQL}  # asked once for each new connection


class Counted:
    """A store whose statements are counted as the driver sends them: each is one round trip once it is prepared."""

    def __init__(self, store: AuthStore, statements: list[str]) -> None:
        self.store = store
        self.statements = statements

    async def cost(self, *work: Any) -> list[str]:
        """The statements that these calls together sent."""
        self.statements.clear()
        await asyncio.gather(*work)
        return [text for text in self.statements if text not in NOT_COUNTED]


@pytest.fixture
async def counted(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Counted]:
    statements: list[str] = []
    connect = asyncpg.connection.Connection._execute  # every fetch and execute with arguments goes through here

    async def counting(self: Any, query: str, *args: Any, **named: Any) -> Any:
        statements.append(query)
        return await connect(self, query, *args, **named)

    monkeypatch.setattr(asyncpg.connection.Connection, "_execute", counting)
    store = AuthStore(database_url, MasterKeys([os.urandom(32)]), None, StoreOptions())
    await store.open()
    try:
        yield Counted(store, statements)
    finally:
        await store.close()


def rows(count: int, stamp: int = 0) -> list[Row]:
    return [Row("session", b"user.%d" % n, b'{"stamp":%d}' % stamp) for n in range(count)]


async def commit(counted: Counted, name: str, count: int = 1, **more: Any) -> None:
    await counted.store.commit(ME, name, CommitRequest(rows=rows(count), **more))


async def test_a_commit_is_one_statement_however_many_rows(counted: Counted):
    await commit(counted, "a")
    assert await counted.cost(commit(counted, "a", 1)) == [commit_one.COMMIT_SMALL_SQL]
    for count in (2, 4, 31):
        assert await counted.cost(commit(counted, "a", count)) == [commit_one.COMMIT_ONE_SQL], count
    for count in (32, 812, 3002, 1):
        assert await counted.cost(commit(counted, "a", count)) == [journal.APPEND_SQL], count
    await counted.store.settle(ME, "a")
    assert await counted.cost(commit(counted, "a", 1)) == [commit_one.COMMIT_SMALL_SQL]


async def test_a_commit_too_large_for_the_journal_is_one_statement(counted: Counted):
    await commit(counted, "a", 2)
    large = [Row("session", b"user.%d" % n, b'"%s"' % (b"x" * 50_000)) for n in range(100)]
    assert await counted.cost(counted.store.commit(ME, "a", CommitRequest(rows=large))) == [commit_one.COMMIT_ONE_SQL]


async def test_what_waits_becomes_rows_in_one_statement(counted: Counted):
    await commit(counted, "a", 2)
    for stamp in range(3):
        await counted.store.commit(ME, "a", CommitRequest(rows=rows(40, stamp)))
    assert await counted.cost(counted.store.settle(ME, "a")) == [sessions.FIND_SQL, settle.SETTLE_SQL]
    assert await counted.cost(counted.store.settler.settle_all()) == []
    new = [Row("pre-key", b"%d" % n, b'{"n":%d}' % n) for n in range(812)]
    await counted.store.commit(ME, "a", CommitRequest(rows=new))
    assert await counted.cost(counted.store.settler.settle_all()) == [settle.SETTLE_FRESH_SQL]


async def test_sessions_that_are_due_together_become_rows_in_one_statement(counted: Counted):
    names = [f"s{n}" for n in range(settling._TOGETHER[0])]
    for name in names:
        await commit(counted, name, 2)
        await commit(counted, name, 40)
        await commit(counted, name, 1)
    assert await counted.cost(counted.store.settler.settle_all()) == [settle.SETTLE_MANY_SQL]


async def test_a_commit_with_creds_a_lease_and_deletions_is_one_statement(counted: Counted):
    granted = await counted.store.lease(ME, "a", "me", 60, takeover=False, epoch=None)
    await commit(counted, "a", lease_epoch=granted.epoch)
    mixed = CommitRequest(
        creds=b'{"nextPreKeyId":2}',
        rows=[Row("pre-key", b"1", None), *rows(3)],
        lease_epoch=granted.epoch,
        if_match=1,
    )
    assert await counted.cost(counted.store.commit(ME, "a", mixed)) == [commit_one.COMMIT_ONE_SQL]


@pytest.mark.parametrize(
    "request_",
    [
        CommitRequest(rows=[*rows(1), Row("pre-key", b"1", None)]),
        CommitRequest(rows=[Row("pre-key", b"1", None), *rows(1)]),
        CommitRequest(creds=b'{"nextPreKeyId":2}'),
        CommitRequest(creds=b'{"nextPreKeyId":2}', rows=[Row("pre-key", b"1", None)]),
    ],
    ids=["moves on", "the other way round", "creds", "creds and a deletion"],
)
async def test_the_commonest_commits_have_a_statement_without_arrays(counted: Counted, request_: CommitRequest):
    await commit(counted, "a")
    assert await counted.cost(counted.store.commit(ME, "a", request_)) == [commit_one.COMMIT_SMALL_SQL]


async def test_many_new_rows_are_one_statement(counted: Counted):
    await counted.store.commit(ME, "a", CommitRequest(creds=b"{}"))
    assert await counted.cost(commit(counted, "a", 31)) == [commit_one.COMMIT_FRESH_SQL], "the first keys of a session"
    new = [Row("pre-key", b"%d" % n, b'{"n":%d}' % n) for n in range(31)]
    assert await counted.cost(counted.store.commit(ME, "a", CommitRequest(rows=new))) == [commit_one.COMMIT_FRESH_SQL]


async def test_a_replacement_is_one_statement(counted: Counted):
    await commit(counted, "a", 5)
    assert await counted.cost(commit(counted, "a", 3, whole=True)) == [whole.REPLACE_SQL]


async def test_a_new_session_is_looked_for_and_made(counted: Counted):
    assert len(await counted.cost(commit(counted, "new"))) == 3, "no session, none purged, made"


async def test_a_get_is_one_statement_however_many_ids(counted: Counted):
    await commit(counted, "a", 100)
    for count in (1, 100, 5000):
        asked = [("session", b"user.%d" % n) for n in range(count)]
        assert await counted.cost(counted.store.get(ME, "a", asked)) == [keys_sql.GET_SQL], count
    assert await counted.cost(counted.store.get(ME, "a", [("no-such-type", b"x")])) == [keys_sql.GET_SQL]
    await commit(counted, "a", 100)
    assert await counted.cost(counted.store.get(ME, "a", asked)) == [keys_sql.GET_SQL], "what waits is remembered"


async def test_a_whole_state_is_one_statement(counted: Counted):
    await commit(counted, "a", 1127)

    async def load() -> None:
        async with counted.store.state(ME, "a") as state:
            async for _ in state.chunks:
                pass

    assert await counted.cost(load()) == [keys_sql.STATE_SQL]
    await counted.store.settle(ME, "a")
    assert await counted.cost(load()) == [keys_sql.STATE_SQL]


async def test_what_waits_together_shares_statements(counted: Counted):
    names = [f"s{n}" for n in range(64)]
    for name in names:
        await commit(counted, name)
    sent = await counted.cost(*(commit(counted, name) for name in names))
    assert set(sent) == {commit_sql.COMMIT_SQL}
    large = await counted.cost(*(commit(counted, name, 40) for name in names))
    assert set(large) <= {journal.APPEND_SQL, journal.APPEND_KEYS_SQL}
    assert len(large) <= 8, len(large)
    for name in names:
        await counted.store.settle(ME, name)
    # The first goes alone on each lane that was idle; all that came meanwhile leaves with the next.
    assert len(sent) <= 8, len(sent)
    read = await counted.cost(*(counted.store.get(ME, name, [("session", b"user.0")]) for name in names))
    assert len(read) <= 6, len(read)


async def test_a_batch_is_one_statement(counted: Counted, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(heads, "_AT_ONCE_S", 60.0)  # however slow the machine is
    asked = [(f"s{n}", CommitRequest(rows=rows(1))) for n in range(64)]
    await asyncio.gather(*(commit(counted, name) for name, _ in asked))
    await commit(counted, "s7", creds=json.dumps(creds()).encode())
    assert await counted.cost(counted.store.commit_all(ME, asked)) == [commit_sql.COMMIT_SQL]
    nothing = [(name, CommitRequest()) for name, _ in asked[:3]]
    assert await counted.cost(counted.store.commit_all(ME, nothing + asked[3:])) == [commit_sql.COMMIT_SQL]
    for _ in range(heads._BURST):
        await counted.store.commit_all(ME, asked)
    assert await counted.cost(counted.store.commit_all(ME, asked)) == [journal.APPEND_KEYS_SQL], "a burst"
    asked[7] = ("s7", CommitRequest(creds=json.dumps(creds(nextPreKeyId=32)).encode(), rows=rows(1)))
    assert await counted.cost(counted.store.commit_all(ME, asked)) == [journal.APPEND_MANY_SQL], "one with new creds"
    assert await counted.cost(counted.store.commit_all(ME, asked)) == [journal.APPEND_KEYS_SQL], "the same creds again"


class Calls:
    """Functions of our own that are called within, comprehensions among them."""

    def __init__(self) -> None:
        self.count = 0
        self._ours = tuple(str(Path(package.__path__[0]).resolve()) for package in (service, protocol))

    def __enter__(self) -> Self:
        sys.setprofile(self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _heard(self, frame: FrameType, event: str, _: object) -> None:
        self.count += event == "call" and frame.f_code.co_filename.startswith(self._ours)


async def test_a_commit_of_a_burst_takes_few_calls(counted: Counted, monkeypatch: pytest.MonkeyPatch):
    """What a fleet's transactions take of a core is mostly the interpreter's, and half of that is calling functions."""
    monkeypatch.setattr(heads, "_AT_ONCE_S", 60.0)  # however slow the machine is
    names = [f"s{n}" for n in range(50)]

    def body(turn: int) -> bytes:
        keys = {"session": {"1.0": {"turn": turn}}, "pre-key": {f"{turn}": None}}
        steering = {"lease_epoch": None, "if_match": turn, "idempotency_key": str(uuid4())}
        return json.dumps({"commits": [{"session": name, "keys": keys, **steering} for name in names]}).encode()

    async def commit_all(turn: int) -> None:
        asked = [(name, change) for name, change in wire.parse_commits(body(turn)) if isinstance(change, CommitRequest)]
        assert [done.version for done in await counted.store.commit_all(ME, asked)] == [turn + 1] * len(names)

    await asyncio.gather(*(commit(counted, name) for name in names))
    turns = iter(range(1, 100))
    for _ in range(heads._BURST + 2):
        await commit_all(next(turns))
    with Calls() as calls:
        for _ in range(10):
            await commit_all(next(turns))
    assert 20 < calls.count / 500 <= 60
    with Calls() as calls:
        await counted.store.settler.settle_all()
    assert 1 < calls.count / 500 <= 9


async def test_a_refusal_of_a_remembered_session_costs_one_look(counted: Counted):
    await commit(counted, "a")
    stale = counted.store.commit(ME, "a", CommitRequest(rows=rows(1), if_match=0))
    with pytest.raises(Exception, match="another version"):
        await counted.cost(stale)
    assert len(counted.statements) == 1


async def test_values_are_never_parsed_on_the_way(counted: Counted, monkeypatch: pytest.MonkeyPatch):
    """Neither the body's reader nor the store builds a value; creds are judged, once."""
    await commit(counted, "a")
    body = b'{"keys":{"session":{"x":%s}}}' % (b'{"deep":' * 200 + b"1" + b"}" * 200)
    request = wire.parse_commit(body, wire.Steering(None, None, None))
    assert type(decode(msgspec.json.Decoder(wire.CommitBody), body).value.keys["session"]["x"]) is msgspec.Raw
    parsed: list[int] = []
    decode_json = json.JSONDecoder.decode
    monkeypatch.setattr(
        json.JSONDecoder, "decode", lambda self, text, *at: parsed.append(len(text)) or decode_json(self, text, *at)
    )
    await counted.store.commit(ME, "a", request)
    assert parsed == []
    await counted.store.get(ME, "a", [("session", b"x")])
    assert parsed == []
    await counted.store.commit(ME, "a", CommitRequest(creds=b'{"nextPreKeyId":1}', rows=rows(1)))
    assert parsed == [len(b'{"nextPreKeyId":1}')]
