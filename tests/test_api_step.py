"""``Authstore-Echo``: whoever asks can tell the answer to their request from the one to another's, whatever lies between."""

import asyncio
import random
from typing import Any

import pytest
from api import Api, at, creds, fresh

from service.http.keys import METRICS

ECHO = "Authstore-Echo"


async def told(api: Api, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, list[str]]:
    """The status, and every echo of an answer."""
    headers = {ECHO: "Asked-1", **more.pop("headers", {})}
    answer = await api.ask(method, path, body, headers=headers, **more)
    return answer.status, answer.headers.getall(ECHO, [])


async def test_every_answer_is_told_from_others(api: Api):
    session, keys = fresh(), {"session": {"a": "x" * 5000}}
    for method, path, body, status in (
        ("POST", at(session, "lease"), {"holder": "h", "ttl_s": 60}, 200),
        ("POST", at(session, "commit"), {"creds": creds(), "keys": keys}, 409),
        ("POST", "/v1/commits", {"commits": [{"session": session, "lease_epoch": 1, "keys": keys}]}, 200),
        ("POST", at(session, "keys/get"), {"session": ["a"]}, 200),
        ("GET", at(session, "keys/session"), None, 200),
        ("GET", at(session, "state"), None, 200),
        ("POST", at(session, "lease"), {"holder": "another", "ttl_s": 60}, 423),
        ("POST", at(session, "commit"), {"keys": 1}, 400),
        ("PUT", at(session, "lease"), None, 405),
        ("DELETE", at(session), None, 200),
        ("GET", at(session, "creds"), None, 410),
        ("GET", "/v1/nowhere", None, 404),
        ("GET", "/health/live", None, 200),
        ("GET", "/docs", None, 200),
    ):
        assert await told(api, method, path, body) == (status, ["Asked-1"]), path
    assert await told(api, "DELETE", at(fresh(), "lease"), headers={"Lease-Epoch": "1"}) == (404, ["Asked-1"])
    assert await told(api.of(None), "GET", "/v1/sessions") == (401, ["Asked-1"])
    assert ECHO not in (await api.ask("GET", "/v1/sessions")).headers


async def test_a_state_that_is_streamed_is_told_from_others_too(own_api: Api):
    session, random_ = fresh(), random.Random(7)
    sent = {f"t{t}": {f"id-{n}": random_.random() for n in range(2500)} for t in range(4)}
    await own_api.good("PUT", at(session, "state"), {"creds": creds(), "keys": sent})
    answer = await own_api.ask("GET", at(session, "state"), headers={ECHO: "1"})
    assert "Content-Length" not in answer.headers, "not streamed"
    assert answer.headers.getall(ECHO) == ["1"]


@pytest.mark.parametrize(
    ("sent", "back"),
    [
        ("a", True),
        ("0", True),
        ("-", True),
        ("AZ-az-09", True),
        ("x" * 64, True),
        ("x" * 65, False),
        ("", False),
        ("a b", False),
        ("a_b", False),
        ("a,b", False),
        ("é", False),
        ("²", False),
        ("<script>", False),
    ],
)
async def test_an_echo_that_is_none_is_not_given_back(api: Api, sent: str, back: bool):
    answer = await api.ask("GET", "/health/live", headers={ECHO: sent})
    assert answer.headers.getall(ECHO, []) == ([sent] if back else [])
    assert answer.status == 200


async def test_what_is_refused_before_the_edge_is_told_from_others(api: Api):
    url = api.client.make_url("/v1/sessions")
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(
        b"GET /v1/sessions HTTP/1.1\r\nHost: x\r\nAuthstore-Echo: 7\r\nExpect: it\r\nContent-Length: 2\r\n\r\n{}"
    )
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 417 ")
    assert b"\r\nAuthstore-Echo: 7\r\n" in head


async def test_what_escapes_the_edge_is_told_from_others(own_api: Api, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(own_api.client.app[METRICS], "request", fail)
    assert await told(own_api, "GET", "/v1/sessions") == (500, ["Asked-1"])


async def test_the_reference_tells_of_it(api: Api):
    reference = (await api.ask("GET", "/openapi.json")).json
    assert f"Any request may carry `{ECHO}`" in reference["info"]["description"]
