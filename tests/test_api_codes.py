"""The codes that the reference lists of each call are those that it answers with: each is brought about here. That it answers
with no others is told by every test that asks through `Api.ask` (`told.py`).
"""

from collections.abc import Iterator
from typing import Any

import pytest
from api import Api, at, creds, fresh, key_uuid, pre_key, serve, sid_of
from told import ANYWHERE, assert_told, kind_of, told

from service.http.openapi import problems_of
from service.http.problems import KINDS, TABLE
from service.http.routes import API, Route
from service.store import settling

CALLS = [route for route in API if problems_of(route)]
FAULTS = {"internal", "outcome-unknown"}
"""Tested where they can be brought about: `test_observe.py`, `test_doubt.py`."""
RACES = {("POST", "/v1/sessions/{session}/restore", "deleted")}
"""Deleted once more before its summary is read."""
BODIES: dict[str, Any] = {"commit": {}, "commit_many": {"commits": []}, "put_state": {}, "get_keys": {}}
BODIES["take_lease"] = {"holder": "two", "ttl_s": 60}


class Seen:
    """Asks, and notes the kinds of problems it is answered with."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.kinds: set[tuple[str, str, str]] = set()

    async def ask(self, route: Route, session: str, body: Any = None, **more: Any) -> str:
        """The kind of problem a call of this session is answered with; ``api``: as whom."""
        path = route.path.replace("{session}", session).replace("{type}", "session") + more.pop("query", "")
        api = more.pop("api", self.api)
        if route.body is not None and "raw" not in more:
            body = BODIES[route.handler.__name__] if body is None else body
        answer = await api.ask(route.method, path, body, **more)
        if answer.status < 300:
            return ""
        self.kinds.add((route.method, route.path, answer.slug))
        return answer.slug


def listed() -> set[tuple[str, str, str]]:
    return {(route.method, route.path, kind) for route in CALLS for kind in problems_of(route)}


def those(*fails: str) -> Iterator[Route]:
    return (route for route in CALLS if set(fails) & set(problems_of(route)))


def named(name: str) -> Route:
    return next(route for route in API if route.handler.__name__ == name)


@pytest.fixture
async def seen(own_api: Api, monkeypatch: pytest.MonkeyPatch) -> Seen:
    monkeypatch.setattr(settling._Due, "is_due", lambda _, __: False)  # what waits in journals goes on waiting
    return Seen(own_api)


async def test_every_code_that_is_listed_is_one_that_is_answered(seen: Seen, database_url: str):
    await bad_tokens(seen)
    await bad_requests(seen, database_url)
    await sessions_that_are_not_there(seen)
    await leased_sessions(seen)
    await guarded_sessions(seen)
    await damaged_sessions(seen)
    seen.api.store.is_open = False
    for route in CALLS:
        assert await seen.ask(route, fresh()) == "unavailable"
    assert seen.kinds <= listed()
    assert {each for each in listed() - seen.kinds if each[2] not in FAULTS} == RACES


async def bad_tokens(seen: Seen) -> None:
    reader, other = await seen.api.tenant("default", "read"), await seen.api.tenant("other", "read")
    for route in CALLS:
        assert await seen.ask(route, fresh(), api=seen.api.of(None)) == "unauthorized"
        who = other if route.path == "/metrics" else reader
        kind = await seen.ask(route, fresh(), api=who, headers={"Lease-Epoch": "0"})
        assert (kind == "forbidden") == ("forbidden" in problems_of(route)), route.path


async def bad_requests(seen: Seen, database_url: str) -> None:
    for route in those("bad-input"):
        query = "" if "{session}" in route.path else "?limit=0"
        await seen.ask(route, "%20", query=query, headers={"Lease-Epoch": "0"})
    too_many = {"commits": [{"session": fresh(), "keys": {"t": dict.fromkeys(map(str, range(100_001)), 1)}}]}
    await seen.ask(named("commit_many"), "", too_many)
    for route in those("bad-body"):
        await seen.ask(route, fresh(), headers={"Lease-Epoch": "x"}, raw=None if route.body is None else b"{")
    for route in those("unsupported-media-type"):
        await seen.ask(route, fresh(), raw=b"{}", headers={"Content-Type": "text/plain"})
    async with serve(database_url, max_body_mb=1) as small:
        for route in those("too-large"):
            await seen.ask(route, fresh(), raw=b" " * (1 << 20) + b"{}", api=small)


async def sessions_that_are_not_there(seen: Seen) -> None:
    for route in those("no-session"):
        await seen.ask(route, fresh(), headers={"Lease-Epoch": "1"})
    gone = fresh()
    await seen.api.commit(gone, {"keys": {"session": {"a": 1}}})
    await seen.ask(named("get_creds"), gone)
    await seen.api.good("DELETE", at(gone))
    for route in those("deleted"):
        if route.path.endswith("/restore"):
            continue
        must = {route.must: "1"} if route.must else {}
        await seen.ask(route, gone, headers=must)


async def leased_sessions(seen: Seen) -> None:
    leased = fresh()
    await seen.api.commit(leased, {"keys": {"session": {"a": 1}}})
    await seen.api.lease(leased, "one")
    for route in those("fenced"):
        assert await seen.ask(route, leased, headers={"Lease-Epoch": "99"}) == "fenced"
    assert await seen.ask(named("take_lease"), leased) == "leased"


async def guarded_sessions(seen: Seen) -> None:
    kept, put = fresh(), named("put_state")
    await seen.api.commit(kept, {"creds": creds(), "keys": {"pre-key": {"1": pre_key(8)}}})
    for route in (named("commit"), put):
        assert await seen.ask(route, kept, {"creds": creds(2)}) == "identity-replaced"
        assert await seen.ask(route, kept, {"creds": creds(nextPreKeyId=1)}) == "counter-regressed"
        keys = {"creds": creds(), "keys": {"pre-key": {"1": pre_key(9)}}}
        assert await seen.ask(route, kept, keys) == ("" if route is put else "pre-key-overwritten")
        assert await seen.ask(route, kept, {"creds": creds()}, headers={"If-Match": '"99"'}) == "version-mismatch"
        sent = key_uuid()
        assert await seen.ask(route, kept, {"creds": creds(), "keys": {"t": {"a": 1}}}, headers=sent) == ""
        assert await seen.ask(route, kept, {"creds": creds(), "keys": {"t": {"a": 2}}}, headers=sent) == (
            "idempotency-key-reused"
        )


async def damaged_sessions(seen: Seen) -> None:
    """Their data keys are damaged, and something waits in their journals."""
    for route in those("corrupt"):
        damaged = fresh()
        await seen.api.commit(damaged, {"creds": creds()})
        await seen.api.commit(damaged, {"keys": {"session": {f"{n}": n for n in range(40)}}})
        if route.path.endswith("/restore"):
            await seen.api.good("DELETE", at(damaged))
        flip = "UPDATE sessions SET pending = 1, wrapped_key = set_byte(wrapped_key, 30, get_byte(wrapped_key, 30) # 1)"
        await seen.api.sql(flip + " WHERE sid = $1", sid_of(damaged))
        seen.api.store._reads._heads.forget(sid_of(damaged))
        assert await seen.ask(route, damaged) == "corrupt", route.path


async def test_every_kind_of_problem_is_listed_or_may_meet_any_request():
    may = {kind for _, _, kind in listed()} | ANYWHERE
    assert {slug for kind, _, slug in TABLE if kind.__name__ != "NotYet"} <= may <= set(KINDS)


async def test_an_answer_that_is_not_listed_would_be_noticed():
    found = told("GET", "/v1/sessions/a/creds?x=1")
    assert found is not None
    assert found[0] == "/v1/sessions/{session}/creds"
    assert told("GET", "/v1/nowhere") is None
    problem = b'{"type": "urn:authstore:problem:%b"}'
    assert kind_of(problem % b"fenced") == "fenced"
    assert_told("GET", "/v1/sessions/a/creds", 404, "application/problem+json", problem % b"no-creds")
    for status, kind in ((404, b"deleted"), (409, b"fenced")):
        with pytest.raises(AssertionError):
            assert_told("GET", "/v1/sessions/a/creds", status, "application/problem+json", problem % kind)
