"""Tenants are apart on every route; tokens open exactly what they say, for as long as they say."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from api import Api, at, creds, fresh, key_uuid, sid_of

from protocol.errors import BadName
from service.errors import BadInput
from service.http.routes import API
from service.sql import access
from service.store import tokens

MARK = "needle-of-the-other"
ROUTES = [(route.method, route.path) for route in API if route.path.startswith("/v1/")]
BODIES: dict[str, Any] = {
    "keys/get": {"session": ["a", MARK], MARK: ["a"]},
    "commit": {"creds": creds(2), "keys": {"session": {"a": None, "b": 2}}, "reset": True},
    "state": {"creds": creds(2), "keys": {"session": {"b": 2}}, "force": True},
    "lease": {"holder": "stranger", "ttl_s": 60, "takeover": True},
}


async def rows_of(api: Api, session: str, tenant: str) -> list[Any]:
    sid = sid_of(session, tenant)
    found = await api.sql("SELECT s::text FROM sessions s WHERE sid = $1", sid)
    return found + await api.sql("SELECT k::text FROM session_keys k WHERE sid = $1 ORDER BY kh", sid)


@pytest.mark.parametrize(("method", "route"), ROUTES)
@pytest.mark.parametrize("has_own", [False, True])
async def test_nothing_a_stranger_does_reaches_or_shows_a_session(api: Api, method: str, route: str, has_own: bool):
    session, stranger = fresh(), await api.tenant("stranger", "admin")
    key = key_uuid()
    body = {"creds": creds(1, advSecretKey=MARK), "keys": {"session": {"a": MARK}, MARK: {"a": MARK}}}
    await api.commit(session, body, headers=key)
    epoch = await api.lease(session, MARK)
    if has_own:
        await stranger.commit(session, {"creds": creds(3), "keys": {"session": {"a": "own"}}})
    before = await rows_of(api, session, "default")
    assert len(before) == 4

    path = route.replace("{session}", session).replace("{type}", "session")
    sent = (
        next((body for end, body in BODIES.items() if path.endswith(end)), None) if method in {"POST", "PUT"} else None
    )
    if route == "/v1/commits":
        sent = {"commits": [{"session": session, **BODIES["commit"]}, {"session": session, "lease_epoch": epoch}]}
    for headers in ({}, {"Lease-Epoch": str(epoch)}, {"If-Match": '"1"'}, key):
        for query in ("", "?purge=true&values=true&limit=1000"):
            answer = await stranger.ask(method, path + query, sent, headers=headers)
            assert answer.status < 500
            assert MARK.encode() not in answer.text
            assert MARK not in str(answer.headers)
    assert await rows_of(api, session, "default") == before
    assert (await api.get(session, {"session": ["a"]})) == {"session": {"a": MARK}}


async def test_lists_and_counts_are_of_ones_own_tenant(own_api: Api):
    left, right = await own_api.tenant("left"), await own_api.tenant("right", "read")
    for n in range(3):
        await left.commit(f"s{n}", {"creds": creds(), "keys": {"session": {"a": 1, "b": 2}, "t": {"x": 1}}})
    await left.lease("s0")
    await left.commit("s9", {})
    await left.good("DELETE", at("s9"))
    assert [each["session"] for each in (await left.good("GET", "/v1/sessions"))["sessions"]] == ["s0", "s1", "s2"]
    assert await right.good("GET", "/v1/sessions") == {"sessions": [], "next": None}
    counted = await left.good("GET", "/health/whatsapp")
    assert (counted["sessions"], counted["paired"], counted["leased"]) == (3, 3, 1)
    assert counted["keys"] == {"session": 6, "t": 3}
    assert counted["newest_write"] is not None
    nothing = await right.good("GET", "/health/whatsapp")
    assert (nothing["sessions"], nothing["keys"], nothing["newest_write"]) == (0, {}, None)


async def test_tenants_whose_names_run_into_session_names_are_apart(api: Api):
    one, two = await api.tenant("a"), await api.tenant("a-b")
    await one.commit("b-c", {"keys": {"t": {"x": 1}}})
    await two.commit("c", {"keys": {"t": {"x": 2}}})
    assert (await one.get("b-c", {"t": ["x"]}), await two.get("c", {"t": ["x"]})) == ({"t": {"x": 1}}, {"t": {"x": 2}})
    assert (await one.ask("GET", at("c"))).status == 404


# -- tokens ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scope", "reads", "writes"), [("read", 200, 403), ("write", 200, 200), ("admin", 200, 200)])
async def test_scopes(api: Api, scope: Any, reads: int, writes: int):
    session = fresh()
    await api.commit(session, {})
    caller = await api.tenant("default", scope)
    assert (await caller.ask("GET", at(session))).status == reads
    assert (await caller.ask("POST", at(session, "commit"), {})).status == writes


async def test_a_revoked_token_ends_within_a_second(api: Api):
    token = await api.store.tokens.create("default", "write", "", None)
    caller = api.of(token)
    assert (await caller.ask("GET", "/v1/sessions")).status == 200
    assert await api.store.tokens.revoke(token.split("_")[1])
    await asyncio.sleep(1.1)
    assert (await caller.ask("GET", "/v1/sessions")).slug == "unauthorized"
    assert not await api.store.tokens.revoke(token.split("_")[1])


async def test_requests_of_one_token_that_nobody_knows_yet_are_one_question(
    own_api: Api, monkeypatch: pytest.MonkeyPatch
):
    """After a start every session's first request comes at once: each would wait for all before it."""
    token = await own_api.store.tokens.create("default", "write", "", None)
    asked, look = 0, access.find_token

    async def counted(connection: Any, token_id: str) -> Any:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.05)
        return await look(connection, token_id)

    monkeypatch.setattr(access, "find_token", counted)
    callers = await asyncio.gather(*(own_api.store.tokens.find(token) for _ in range(200)))
    assert {caller.scope for caller in callers} == {"write"}
    assert asked <= tokens._STRANGERS


async def test_a_token_expires(api: Api):
    lasting = await api.store.tokens.create("default", "read", "", timedelta(hours=1))
    brief = await api.store.tokens.create("default", "read", "", timedelta(seconds=-1))
    assert (await api.of(lasting).ask("GET", "/v1/sessions")).status == 200
    assert (await api.of(brief).ask("GET", "/v1/sessions")).slug == "unauthorized"
    await api.sql("UPDATE tokens SET expires_at = now() WHERE id = $1", lasting.split("_")[1])
    await asyncio.sleep(1.1)
    assert (await api.of(lasting).ask("GET", "/v1/sessions")).slug == "unauthorized"


async def test_a_wrong_secret_of_a_known_token_is_refused(api: Api):
    one = await api.store.tokens.create("default", "write", "", None)
    two = await api.store.tokens.create("default", "write", "", None)
    mixed = "_".join([*one.split("_")[:2], two.split("_", 2)[2]])
    for token in (one[:-1] + ("a" if one[-1] != "a" else "b"), one + "=", mixed):
        assert (await api.of(token).ask("GET", "/v1/sessions")).slug == "unauthorized"
    assert (await api.of(one).ask("GET", "/v1/sessions")).status == 200


async def test_tokens_are_not_stored_and_not_shown(api: Api):
    token = await api.store.tokens.create("default", "write", "a label", None)
    _, token_id, secret = token.split("_", 2)
    stored = str(await api.sql("SELECT t::text, hash::text FROM tokens t"))
    shown = str(await api.store.tokens.list()) + repr(api.store.tokens)
    for text in (stored, shown):
        assert secret not in text
        assert api.token is not None
        assert api.token not in text
    assert token_id in stored
    assert {row.id: row.label for row in await api.store.tokens.list()}[token_id] == "a label"
    assert len(secret) >= 43


async def test_tokens_of_bad_tenants_and_labels_are_not_made(api: Api):
    before = await api.store.tokens.list()
    for tenant in ("", "a/b", "t" * 65, "é", "a\0"):
        with pytest.raises(BadName):
            await api.store.tokens.create(tenant, "write", "", None)
    with pytest.raises(BadInput):
        await api.store.tokens.create("t", "write", "x" * 101, None)
    assert await api.store.tokens.list() == before


async def test_a_flood_of_unknown_tokens_queues_behind_itself(api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tokens, "_BELIEVED_S", 0.0)
    known = await api.store.tokens.create("default", "read", "", None)
    await api.store.tokens.find(known)
    asked, ending, find = 0, asyncio.Event(), access.find_token

    async def slow(connection: Any, token_id: str) -> Any:
        nonlocal asked
        if token_id not in known:
            asked += 1
            await ending.wait()
        return await find(connection, token_id)

    monkeypatch.setattr(access, "find_token", slow)
    flood = [asyncio.create_task(api.of(f"bas_none{n}_secret").ask("GET", "/v1/sessions")) for n in range(20)]
    async with asyncio.timeout(30):
        while not asked:  # noqa: ASYNC110 - nothing else tells
            await asyncio.sleep(0.01)
        for _ in range(20):
            await api.of(known).good("GET", "/v1/sessions")
    assert asked <= 2
    ending.set()
    assert {answer.status for answer in await asyncio.gather(*flood)} == {401}
    assert asked == 20
