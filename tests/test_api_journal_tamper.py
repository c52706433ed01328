"""Somebody changes what waits: a read of it is 500 `corrupt`, a check says what was changed, and nothing becomes rows."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from api import Api, at, creds, sid_of

from service.errors import Corrupt
from service.store import Caller, settling

LARGE = 40
ME = Caller("default", "admin")
Tamper = Callable[[Api], Awaitable[None]]


def many(stamp: int) -> dict[str, Any]:
    return {f"{n}": {"n": n, "stamp": stamp} for n in range(LARGE)}


async def _of(api: Api, name: str, statement: str) -> None:
    await api.sql(statement, sid_of(name))


async def flip(api: Api) -> None:
    await _of(api, "s", "UPDATE session_journal SET sealed = set_byte(sealed, 100, get_byte(sealed, 100) # 1)"
              " WHERE sid = $1 AND version = 3")  # fmt: skip


async def drop_last(api: Api) -> None:
    await _of(api, "s", "DELETE FROM session_journal WHERE sid = $1 AND version = 4")


async def drop_first(api: Api) -> None:
    await _of(api, "s", "DELETE FROM session_journal WHERE sid = $1 AND version = 2")


async def drop_all(api: Api) -> None:
    await _of(api, "s", "DELETE FROM session_journal WHERE sid = $1")


async def say_that_nothing_waits(api: Api) -> None:
    await _of(api, "s", "UPDATE sessions SET pending = 0, journal_weight = 0 WHERE sid = $1")


async def say_so_and_drop(api: Api) -> None:
    await drop_all(api)
    await say_that_nothing_waits(api)


async def go_back_by_one(api: Api) -> None:
    await drop_last(api)
    await _of(api, "s", "UPDATE sessions SET pending = pending - 1, version = version - 1 WHERE sid = $1")


async def swap(api: Api) -> None:
    await _of(
        api,
        "s",
        "UPDATE session_journal j SET sealed = o.sealed FROM session_journal o"
        " WHERE j.sid = $1 AND o.sid = $1 AND (j.version, o.version) IN ((2, 3), (3, 2))",
    )


async def of_another_session(api: Api) -> None:
    await api.sql(
        "UPDATE session_journal j SET sealed = o.sealed FROM session_journal o"
        " WHERE j.sid = $1 AND o.sid = $2 AND j.version = 3 AND o.version = 3",
        sid_of("s"),
        sid_of("other"),
    )


async def of_an_older_time(api: Api) -> None:
    """Genuine, of this session and for this very version: before the session was put back, and went another way."""
    await api.sql("UPDATE session_journal j SET sealed = o.sealed FROM older o WHERE j.sid = o.sid AND j.version = 4"
                  " AND o.version = 4 AND j.sid = $1", sid_of("s"))  # fmt: skip


async def one_more(api: Api) -> None:
    await _of(api, "s", "INSERT INTO session_journal SELECT sid, 5, sealed FROM session_journal WHERE sid = $1"
              " AND version = 4")  # fmt: skip


TAMPERS: dict[str, tuple[Tamper, set[str]]] = {
    "a flipped bit": (flip, {"entry-unreadable"}),
    "the last is gone": (drop_last, {"set-unproven"}),
    "the first is gone": (drop_first, {"set-unproven"}),
    "all are gone": (drop_all, {"set-unproven"}),
    "said that nothing waits": (say_that_nothing_waits, {"set-unproven"}),
    "said so, and all are gone": (say_so_and_drop, {"set-unproven"}),
    "the session and its journal back by one": (go_back_by_one, {"set-unproven"}),
    "two swapped": (swap, {"set-unproven", "entry-unreadable"}),
    "one of another session": (of_another_session, {"set-unproven", "entry-unreadable"}),
    "an older one of this version": (of_an_older_time, {"set-unproven"}),
    "one more": (one_more, {"set-unproven", "entry-unreadable"}),
}


@pytest.fixture
async def scene(own_api: Api, monkeypatch: pytest.MonkeyPatch) -> Api:
    """Two sessions at version 4, three large commits waiting, and entries of a time before the last was another."""
    monkeypatch.setattr(settling._Due, "is_due", lambda _, __: False)
    for name in ("s", "other"):
        await own_api.commit(name, {"creds": creds()})
        for stamp in range(2):
            await own_api.commit(name, {"keys": {"t": many(stamp)}})
    await own_api.sql("CREATE TABLE then_sessions AS SELECT * FROM sessions")
    await own_api.commit("s", {"keys": {"t": many(7)}})
    await own_api.sql("CREATE TABLE older AS SELECT * FROM session_journal")
    await own_api.sql("DELETE FROM session_journal WHERE version = 4")
    await own_api.sql("DELETE FROM sessions")
    await own_api.sql("INSERT INTO sessions SELECT * FROM then_sessions")
    for name in ("s", "other"):
        await own_api.commit(name, {"keys": {"t": many(2)}})
        assert (await own_api.state(name))["version"] == 4
    assert await told(own_api) == set()
    return own_api


async def told(api: Api) -> set[str]:
    """What a check says of the session's journal and rows; its values are no matter here."""
    report = await api.good("GET", at("s", "integrity"))
    return {each["rule"] for each in report["findings"]} & {"set-unproven", "entry-unreadable", "row-unreadable"}


def forget(api: Api) -> None:
    """What the service remembers of the session, as after a restart."""
    api.store._reads._heads.forget(sid_of("s"))
    api.store._reads._heads.journals.forget(sid_of("s"))


@pytest.mark.parametrize("how", TAMPERS)
async def test_what_was_changed_is_noticed(scene: Api, how: str):
    tamper, rules = TAMPERS[how]
    await tamper(scene)
    forget(scene)
    answer = await scene.ask("GET", at("s", "state"))
    assert (answer.status, answer.slug) == (500, "corrupt")
    assert await told(scene) == rules
    assert (await scene.state("other"))["keys"] == {"t": many(2)}


@pytest.mark.parametrize("how", ["a flipped bit", "two swapped", "one of another session", "the last is gone"])
async def test_what_does_not_open_is_neither_read_nor_made_rows(scene: Api, how: str):
    await TAMPERS[how][0](scene)
    forget(scene)
    for call, body in (("keys/get", {"t": ["1"]}), ("keys/t", None)):
        answer = await scene.ask("GET" if body is None else "POST", at("s", call), body)
        assert (answer.status, answer.slug) == (500, "corrupt"), call
    before = await scene.dump()
    with pytest.raises(Corrupt):
        await scene.store.settle(ME, "s")
    assert await scene.dump() == before


async def test_what_an_intruder_drops_does_not_become_nothing(scene: Api):
    """Rows written from a journal that lacks its end would not be proven: the mark goes on saying so."""
    await say_so_and_drop(scene)
    forget(scene)
    await scene.commit("s", {"keys": {"t": {"0": 0}}})
    answer = await scene.ask("GET", at("s", "state"))
    assert (answer.status, answer.slug) == (500, "corrupt")
