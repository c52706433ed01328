"""Refusals that protect who owns a session: 401, 403, 404, 405, 409 fenced, 410, 412, 423. Nothing is stored."""

import asyncio
import json
import re

import pytest
from api import Answer, Api, at, creds, fresh, key_uuid

from service.http.router import PAGES
from service.http.routes import API

READ_CALLS = {("GET", "/v1/sessions/{session}/state"), ("POST", "/v1/sessions/{session}/keys/get")}
BODIES = {
    "keys/get": {"session": ["a"]},
    "commit": {"keys": {"session": {"a": 9}}},
    "state": {"keys": {}},
    "lease": {"holder": "h", "ttl_s": 5},
}


def path_of(route: str, session: str) -> str:
    return route.replace("{session}", session).replace("{type}", "session")


def body_of(method: str, path: str) -> object:
    if path == "/v1/commits":
        return {"commits": []}
    return next((body for end, body in BODIES.items() if path.endswith(end)), None) if method != "GET" else None


def v1() -> list[tuple[str, str]]:
    return [(route.method, route.path) for route in API if route.path.startswith("/v1/")]


async def refused(api: Api, session: str, body: object, **more: object) -> Answer:
    """A commit that must store nothing."""
    async with api.unchanged():
        answer = await api.ask("POST", at(session, "commit"), body, **more)
    assert answer.status >= 400
    return answer


@pytest.mark.parametrize(("method", "route"), v1())
async def test_without_a_token_every_call_is_401(api: Api, kept: str, method: str, route: str):
    path = path_of(route, kept)
    live = await api.store.tokens.create("default", "write", "", None)
    headers = [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer needle"},
        {"Authorization": f"Basic {api.token}"},
        {"Authorization": f"Bearer {api.token}x"},
        {"Authorization": f"Bearer {live[:-1]}"},
        {"Authorization": f"Bearer {live} {live}"},
        {"Authorization": "Bearer bas__x"},
        {"Authorization": "Bearer bas_x_"},
        {"Authorization": "Bearer bas_é_x"},
        {"Authorization": "Bearer " + "x" * 5000},
        {"X-Api-Key": str(api.token)},
    ]
    async with api.unchanged():
        for sent in headers:
            answer = await api.of(None).ask(method, path, body_of(method, path), headers=sent)
            assert (answer.status, answer.slug) == (401, "unauthorized")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert b"needle" not in answer.text


@pytest.mark.parametrize(
    "path", ["/nowhere", "/v1/nowhere", "/v2/sessions", "/metrics", "/openapi.json", "/health/whatsapp"]
)
async def test_unknown_and_guarded_paths_need_a_token_too(api: Api, path: str):
    assert (await api.of(None).ask("GET", path)).slug == "unauthorized"


@pytest.mark.parametrize("path", ["/nowhere", "/v1/nowhere", "/v2/sessions", "/v1/sessions/", "/v1/sessions//creds"])
async def test_an_unknown_path_is_404(api: Api, path: str):
    assert (await api.ask("GET", path)).slug == "not-found"


@pytest.mark.parametrize(("method", "route"), v1())
async def test_a_read_token_writes_nothing(api: Api, kept: str, method: str, route: str):
    reader = await api.tenant("default", "read")
    path = path_of(route, kept)
    async with api.unchanged():
        answer = await reader.ask(method, path, body_of(method, path))
        if method == "GET" or route.endswith("/keys/get"):
            assert answer.status == 200
        else:
            sent = {"Lease-Epoch": "0"}
            answer = await reader.ask(method, path, body_of(method, path), headers=sent)
            assert (answer.status, answer.slug) == (403, "forbidden")


async def test_a_read_token_learns_nothing_of_names_by_writing(api: Api, kept: str):
    reader = await api.tenant("default", "read")
    known, unknown = [await reader.ask("POST", at(name, "commit"), BODIES["commit"]) for name in (kept, fresh())]
    assert (known.status, known.text) == (unknown.status, unknown.text)


@pytest.mark.parametrize(("method", "route"), [pair for pair in v1() if "{session}" in pair[1]])
async def test_an_unknown_session_is_404_and_another_tenants_is_told_apart_by_nothing(
    api: Api, kept: str, method: str, route: str
):
    stranger = await api.tenant("stranger")
    if (method, route.rsplit("/", 1)[-1]) in {("POST", "commit"), ("PUT", "state"), ("POST", "lease")}:
        return  # these make a session of the stranger's own: see test_api_tenants
    async with api.unchanged():
        sent = {"Lease-Epoch": "0"} if method == "DELETE" else {}
        answers = []
        for name in (kept, fresh()):
            path = path_of(route, name)
            answers.append(await stranger.ask(method, path, body_of(method, path), headers=sent))
    theirs, unknown = answers
    assert (unknown.status, unknown.slug) == (404, "no-session")
    assert (theirs.status, theirs.text) == (unknown.status, unknown.text)


async def test_a_session_without_creds_is_told_from_no_session(api: Api):
    session = fresh()
    assert (await api.ask("GET", at(session, "creds"))).slug == "no-session"
    await api.commit(session, {"keys": {"session": {"a": 1}}})
    assert ((await api.ask("GET", at(session, "creds"))).status, (await api.get(session, {"session": ["b"]}))) == (
        404,
        {},
    )
    assert (await api.ask("GET", at(session, "creds"))).slug == "no-creds"
    await api.lease(made := fresh())
    assert (await api.ask("GET", at(made, "creds"))).slug == "no-creds"
    assert (await api.state(made))["creds"] is None


@pytest.mark.parametrize("path", sorted({route.path for route in API} | {path for path, _ in PAGES}))
async def test_another_method_is_405_with_allow(api: Api, kept: str, path: str):
    allowed = {route.method for route in API if route.path == path} | {"GET" for known, _ in PAGES if known == path}
    if path.endswith("/keys/get"):
        allowed.add("GET")  # a type may be called "get"
    async with api.unchanged():
        for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} - allowed - {"HEAD"}:
            answer = await api.ask(method, path_of(path, kept))
            assert (answer.status, answer.slug) == (405, "method-not-allowed")
            assert set(answer.headers["Allow"].replace("HEAD", "").split(", ")) - {""} == allowed, (method, path)


async def test_a_method_nobody_knows_is_400(api: Api, kept: str):
    async with api.unchanged():
        answer = await api.ask("NEEDLE", at(kept))
        assert (answer.status, answer.slug) == (400, "bad-request")
        assert b"NEEDLE" not in answer.text


# -- leases ------------------------------------------------------------------------------------------------------------


async def test_while_a_lease_lives_other_writes_are_fenced(api: Api, kept: str):
    epoch = await api.lease(kept, "one")
    for sent in ({}, {"Lease-Epoch": str(epoch - 1)}, {"Lease-Epoch": str(epoch + 1)}, {"Lease-Epoch": "9" * 18}):
        for body in (
            {"keys": {"t": {"a": 1}}},
            {},
            {"creds": creds(), "reset": True},
            {"creds": creds(), "force": True},
        ):
            answer = await refused(api, kept, body, headers=sent)
            assert (answer.status, answer.slug) == (409, "fenced")
        async with api.unchanged():
            put = await api.ask("PUT", at(kept, "state"), {"creds": creds(), "keys": {}}, headers=sent)
            assert (put.status, put.slug) == (409, "fenced")
            batched = {"session": kept, "keys": {"t": {"a": 1}}}
            if sent:
                batched["lease_epoch"] = int(sent["Lease-Epoch"])
            results = (await api.good("POST", "/v1/commits", {"commits": [batched]}))["results"]
            assert results[0]["problem"]["type"].endswith("fenced")
    assert (await api.commit(kept, {}, headers={"Lease-Epoch": str(epoch)}))["epoch"] == epoch


async def test_a_superseded_owner_is_fenced(api: Api, kept: str):
    first = await api.lease(kept, "one")
    second = await api.lease(kept, "two", takeover=True)
    assert second == first + 1
    answer = await refused(api, kept, {"keys": {"t": {"a": 1}}}, headers={"Lease-Epoch": str(first)})
    assert answer.slug == "fenced"
    async with api.unchanged():
        for method, call in (("DELETE", "lease"), ("DELETE", "")):
            answer = await api.ask(method, at(kept, call), headers={"Lease-Epoch": str(first)})
            assert (answer.status, answer.slug) == (409, "fenced")
        body = {"holder": "one", "ttl_s": 60}
        answer = await api.ask("POST", at(kept, "lease"), body, headers={"Lease-Epoch": str(first)})
        assert (answer.status, answer.slug) == (409, "fenced")


async def test_an_epoch_of_a_session_that_is_not_there_is_fenced(api: Api):
    for sent in ("0", "1"):
        assert (await refused(api, fresh(), {}, headers={"Lease-Epoch": sent})).slug == "fenced"


async def test_a_lease_that_is_gone_is_not_renewed_into_an_empty_session(api: Api, kept: str):
    epoch = await api.lease(kept, "one")
    await api.good("DELETE", at(kept) + "?purge=true")
    async with api.unchanged():
        for name in (kept, fresh()):
            body, sent = {"holder": "one", "ttl_s": 60}, {"Lease-Epoch": str(epoch)}
            answer = await api.ask("POST", at(name, "lease"), body, headers=sent)
            assert (answer.status, answer.slug) == (409, "fenced")


async def test_anothers_lease_is_423_with_its_holder(api: Api, kept: str):
    epoch = await api.lease(kept, "one")
    async with api.unchanged():
        answer = await api.ask("POST", at(kept, "lease"), {"holder": "two", "ttl_s": 60})
    assert (answer.status, answer.slug, answer.json["holder"]) == (423, "leased", "one")
    assert answer.json["epoch"] == epoch
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)", answer.json["expires_at"])
    assert (await api.summary(kept))["lease"]["holder"] == "one"


# -- versions ----------------------------------------------------------------------------------------------------------


async def test_another_version_is_412(api: Api, kept: str):
    await api.commit(kept, {"keys": {"t": {"a": 1}}})
    for version in ('"1"', "1", '"0"', '"3"', '"999999999999999999"'):
        answer = await refused(api, kept, {"keys": {"t": {"a": 2}}}, headers={"If-Match": version})
        assert (answer.status, answer.slug) == (412, "version-mismatch")
        async with api.unchanged():
            put = await api.ask("PUT", at(kept, "state"), {"creds": creds()}, headers={"If-Match": version})
            assert (put.status, put.slug) == (412, "version-mismatch")
    assert (await api.commit(kept, {"keys": {"t": {"a": 2}}}, headers={"If-Match": '"2"'}))["version"] == 3
    assert (await api.commit(kept, {"keys": {"t": {"a": 3}}}, headers={"If-Match": "3"}))["version"] == 4


async def test_a_version_of_a_session_that_is_not_there_is_412(api: Api):
    for version in ("1", "7"):
        assert (await refused(api, fresh(), {}, headers={"If-Match": version})).slug == "version-mismatch"


async def test_of_writers_with_one_version_one_wins(api: Api, kept: str):
    asks = [
        api.ask("POST", at(kept, "commit"), {"keys": {"t": {str(i): i}}}, headers={"If-Match": '"1"'})
        for i in range(20)
    ]
    answers = await asyncio.gather(*asks)
    assert sorted(answer.status for answer in answers) == [200] + [412] * 19
    assert len((await api.state(kept))["keys"]["t"]) == 1


# -- deleted -----------------------------------------------------------------------------------------------------------


async def test_a_deleted_session_is_410_everywhere(api: Api, kept: str):
    key = key_uuid()
    await api.commit(kept, {"keys": {"t": {"a": 1}}}, headers=key)
    await api.good("DELETE", at(kept))
    async with api.unchanged():
        for method, route in v1():
            if "{session}" not in route or route.endswith("/restore"):
                continue
            path = path_of(route, kept)
            sent = {"Lease-Epoch": "1"} if method == "DELETE" else {}
            answer = await api.ask(method, path, body_of(method, path), headers=sent)
            assert (answer.status, answer.slug) == (410, "deleted"), (method, route)
        for body in ({"creds": creds(), "reset": True}, {"creds": creds(), "force": True}):
            assert (await api.ask("POST", at(kept, "commit"), body)).slug == "deleted"
        replay = await api.ask("POST", at(kept, "commit"), {"keys": {"t": {"a": 1}}}, headers=key)
        assert replay.slug == "deleted"
        listed = await api.good("GET", f"/v1/sessions?prefix={kept}")
        assert listed == {"sessions": [], "next": None}


async def test_problems_are_rfc_9457(api: Api, kept: str):
    answer = await refused(api, kept, {"creds": creds(2)})
    problem = json.loads(answer.text)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert set(problem) == {"type", "title", "status", "detail", "pointer"}
    assert problem["type"] == "urn:authstore:problem:identity-replaced"
    assert re.fullmatch(r"[0-9a-f-]{32,36}", answer.headers["X-Request-Id"])
