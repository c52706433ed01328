"""Many pre-keys at once, and a session's first keys, are held to be new; that some are not changes nothing but the time."""

import asyncio
from typing import Any

import pytest
from api import Api, at, creds, fresh, pre_key

from service.sql import commit_one

_MANY = 30


def many(first: int = 1, count: int = _MANY, shift: int = 0) -> dict[str, Any]:
    return {str(n): pre_key((n + shift) % 200) for n in range(first, first + count)}


@pytest.fixture
async def sent(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each statement for one session, whether it took pre-keys for new."""
    asked: list[bool] = []
    run = commit_one._run

    async def noting(connection: Any, text: str, *rest: Any) -> Any:
        asked.append(text == commit_one.COMMIT_FRESH_SQL)
        return await run(connection, text, *rest)

    monkeypatch.setattr(commit_one, "_run", noting)
    return asked


async def kept(api: Api) -> tuple[str, dict[str, Any]]:
    """A session with creds, a deletable pre-key and ``many()``."""
    session = fresh()
    await api.commit(session, {"creds": creds(), "keys": {"pre-key": {"900": pre_key(5)}}})
    await api.commit(session, {"keys": {"pre-key": many()}})
    return session, many()


async def test_new_ones_take_one_statement_with_whatever_comes_along(api: Api, sent: list[bool]):
    session, stored = await kept(api)
    sent.clear()
    body = {"creds": creds(nextPreKeyId=900), "keys": {"pre-key": {**many(100), "900": None}, "session": {"a": 1}}}
    await api.commit(session, body)
    assert sent == [True]
    state = await api.state(session)  # which proves the mark and the count of rows
    assert (state["version"], state["creds"]) == (3, body["creds"])
    assert state["keys"] == {"pre-key": {**stored, **many(100)}, "session": {"a": 1}}


async def test_those_that_are_there_already_with_the_same_bytes_are_written_again(api: Api, sent: list[bool]):
    session, stored = await kept(api)
    sent.clear()
    await api.commit(session, {"keys": {"pre-key": many(10)}})
    assert sent == [True, False]
    state = await api.state(session)
    assert (state["version"], state["keys"]["pre-key"]) == (3, {**stored, **many(10), "900": pre_key(5)})


async def test_one_that_is_there_with_other_bytes_is_refused(api: Api):
    session, _ = await kept(api)
    async with api.unchanged():
        answer = await api.ask("POST", at(session, "commit"), {"keys": {"pre-key": many(_MANY, shift=7)}})
        assert (answer.status, answer.slug) == (409, "pre-key-overwritten")
    await api.commit(session, {"keys": {"pre-key": many(_MANY, shift=7)}, "force": True})
    assert (await api.state(session))["keys"]["pre-key"][str(_MANY)] == pre_key(_MANY + 7)


async def test_the_first_keys_of_a_session_are_new_whatever_their_type(api: Api, sent: list[bool]):
    session = fresh()
    await api.commit(session, {"creds": creds()})
    sent.clear()
    body = {"creds": creds(nextPreKeyId=99), "keys": {"session": many(count=15), "sender-key": many(count=15)}}
    await api.commit(session, body)
    await api.commit(session, body)
    assert sent == [True, False]
    state = await api.state(session)
    assert (state["version"], state["creds"], state["keys"]) == (3, body["creds"], body["keys"])


async def test_few_are_looked_for(api: Api, sent: list[bool]):
    session, _ = await kept(api)
    sent.clear()
    await api.commit(session, {"keys": {"pre-key": many(500, 7)}})
    assert sent == [False]


async def test_a_lane_goes_on_after_a_clash(api: Api):
    """The failed statement leaves nothing behind on its connection, also when sessions come together."""
    sessions = [(await kept(api))[0] for _ in range(6)]
    bodies = [{"keys": {"pre-key": many(1 if n % 2 else 300, 40)}} for n in range(6)]
    await asyncio.gather(*(api.commit(name, body) for name, body in zip(sessions, bodies, strict=True)))
    for n, name in enumerate(sessions):
        state = await api.state(name)
        assert (state["version"], len(state["keys"]["pre-key"])) == (3, 41 if n % 2 else 71)
