"""A commit of one or two rows has a statement of its own: it does what the one for any rows does."""

from typing import Any

import pytest
from api import Api, at, creds, fresh, pre_key

from service.sql import commit_one

_FIRST = {"creds": creds(), "keys": {"session": {"a": 1}, "pre-key": {"1": pre_key(1), "2": pre_key(2)}}}

# What is sent to a session of _FIRST, and what its keys are then (None: as they were, for the commit is refused).
_SMALL: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "a new one": ({"session": {"b": 2}}, {"session": {"a": 1, "b": 2}, "pre-key": {"1": pre_key(1), "2": pre_key(2)}}),
    "one over another": ({"session": {"a": 2}}, {"session": {"a": 2}, "pre-key": {"1": pre_key(1), "2": pre_key(2)}}),
    "one moves on, one is used up": (
        {"session": {"a": 2}, "pre-key": {"1": None}},
        {"session": {"a": 2}, "pre-key": {"2": pre_key(2)}},
    ),
    "one is new, one is used up": (
        {"pre-key": {"2": None}, "session": {"b": 2}},
        {"session": {"a": 1, "b": 2}, "pre-key": {"1": pre_key(1)}},
    ),
    "a deletion of what is not there": (
        {"session": {"a": 2}, "pre-key": {"9": None}},
        {"session": {"a": 2}, "pre-key": {"1": pre_key(1), "2": pre_key(2)}},
    ),
    "a pre-key for another": (
        {"pre-key": {"1": None, "3": pre_key(3)}},
        {"session": {"a": 1}, "pre-key": {"2": pre_key(2), "3": pre_key(3)}},
    ),
    "the same pre-key again": (
        {"pre-key": {"1": pre_key(1), "2": None}},
        {"session": {"a": 1}, "pre-key": {"1": pre_key(1)}},
    ),
    "another pre-key over one": ({"pre-key": {"1": pre_key(7)}}, None),
    "another pre-key over one, and a deletion": ({"pre-key": {"1": pre_key(7), "2": None}}, None),
}


@pytest.fixture(params=["small", "any"])
def statement(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which statements went; ``any`` has all of them go by the statement for any rows."""
    sent: list[str] = []
    run = commit_one._run

    async def noting(connection: Any, text: str, *rest: Any) -> Any:
        sent.append("small" if text == commit_one.COMMIT_SMALL_SQL else "any")
        return await run(connection, text, *rest)

    monkeypatch.setattr(commit_one, "_run", noting)
    if request.param == "any":
        monkeypatch.setattr(commit_one, "_small", lambda _rows: None)
    sent.append(request.param)
    return sent


@pytest.mark.parametrize("name", _SMALL)
async def test_both_statements_leave_the_same(api: Api, statement: list[str], name: str):
    sent, left = _SMALL[name]
    session = fresh()
    await api.commit(session, _FIRST)
    which = statement[0]
    del statement[:]
    answer = await api.ask("POST", at(session, "commit"), {"keys": sent})
    assert set(statement) == {which}
    state = await api.state(session)  # which proves the mark and the count of rows
    assert state["creds"] == _FIRST["creds"]
    if left is None:
        assert (answer.status, state["version"], state["keys"]) == (409, 1, _FIRST["keys"])
    else:
        assert (answer.status, state["version"], state["keys"]) == (200, 2, left)


async def test_creds_alone_and_with_a_deletion(api: Api, statement: list[str]):
    session = fresh()
    await api.commit(session, _FIRST)
    which = statement[0]
    del statement[:]
    await api.commit(session, {"creds": creds(nextPreKeyId=900)})
    await api.commit(session, {"creds": creds(nextPreKeyId=901), "keys": {"pre-key": {"1": None}}})
    assert set(statement) == {which}
    state = await api.state(session)
    assert (state["version"], state["creds"]) == (3, creds(nextPreKeyId=901))
    assert state["keys"] == {"session": {"a": 1}, "pre-key": {"2": pre_key(2)}}
